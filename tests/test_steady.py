"""Coordinates that keep still: against the posterior of a linear model, in NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpy.testing import assert_allclose

from metalgrad import information, steady, straight
from metalgrad.hierarchy import split
from metalgrad.likelihood import LineLikelihood
from metalgrad.observation import LineData

pytestmark = pytest.mark.usefixtures("double_precision")

SPAXELS, LINES, WAVES, WIDTH = 5, 3, 6, 2
RNG = np.random.default_rng(21)
DESIGN = RNG.normal(size=(SPAXELS, LINES, WAVES, WIDTH))
COARSE = np.linspace(2.0, 0.5, WAVES)  # amplitudes of the waves

# Coordinates follow logarithms of what is above 0, and what is below 0 as it stands.
SHADE = -1e3


@pytest.fixture(scope="module")
def data():
    root = RNG.normal(size=(SPAXELS, LINES, LINES))
    return LineLikelihood(
        lines=("OII", "Hbeta", "OIII"),
        complexes=(("OII", "Hbeta", "OIII"),),
        root=root,
        white=RNG.normal(size=(SPAXELS, LINES)) + SHADE * root.sum(axis=-1),
        misfit=np.zeros((SPAXELS, 1)),
        dof=np.full((SPAXELS, 1), float(LINES)),
        log_norm=np.zeros(SPAXELS),
        position=np.zeros((SPAXELS, 2)),
    )


NORMALS = RNG.normal(size=(SPAXELS, LINES, 3))  # of level, level, and what is shared
FREE = RNG.normal(size=(SPAXELS, LINES))  # of what is free and adds to the fluxes
BEND = RNG.normal(size=(SPAXELS, LINES))  # of the first level's square
SIZES = (0.7, 1.3), (2.0, 0.1), (-0.7, 1.0), (0.0, 0.0)
UNITS = 3 + WAVES * WIDTH


def story(bend=0.0, *, ahead=False):
    """Tell of amplified waves and what adds to them; every spaxel sees a sum."""

    def model(data):
        size = numpyro.sample("size", dist.Normal().expand([WIDTH]).to_event(1))
        tilt = numpyro.sample("tilt", dist.Laplace())
        level = numpyro.sample("level", dist.Normal(0.3, 2.0).expand([2]).to_event(1))
        spread = numpyro.sample("spread", dist.LogNormal())
        shared = numpyro.sample("shared", dist.Normal(0.0, spread))
        with numpyro.plate("wave", WAVES):
            z = numpyro.sample("z", dist.Normal().expand([WIDTH]).to_event(1))
        amplitude = numpyro.deterministic("z_amplitude", size * COARSE[:, None])
        if ahead:
            numpyro.deterministic("z_ahead", jnp.ones(WIDTH))
        added = NORMALS @ jnp.array([*level, shared]) + FREE * tilt
        flux = jnp.einsum("slwc,wc->sl", DESIGN, amplitude * z) + added + SHADE
        flux = flux + bend * BEND * level[0] ** 2
        with numpyro.plate("spaxel", len(data)):
            numpyro.sample("data", LineData(data, flux, jnp.ones(1)), obs=data.white)

    return model


@pytest.fixture(scope="module", params=[False, True], ids=["behind", "ahead"])
def hierarchy(data, request):
    """Of whose waves none goes ahead, or all do: to a linear model it is all one."""
    return split(story(ahead=request.param), data)


def free(size, tilt=0.2, spread=0.5):
    """What is free: amplitudes, a tilt, and the log of a width."""
    return jnp.array([*size, tilt, np.log(spread)])


def design(data, size, spread):
    """Slopes of the whitened data in normals and waves, in units of their priors."""
    amplitude = (np.asarray(size) * COARSE[:, None]).ravel()
    waves = DESIGN.reshape(SPAXELS, LINES, -1) * amplitude
    both = np.concatenate([NORMALS * [2.0, 2.0, spread], waves], axis=-1)
    return (data.root @ both).reshape(-1, UNITS)


def truth(data, size, tilt=0.2, spread=0.5):
    """Mean and covariance of normals and waves, given what is free."""
    slopes = design(data, size, spread)
    middle = NORMALS @ [0.3, 0.3, 0.0] + FREE * tilt + SHADE
    rest = data.white - np.einsum("srl,sl->sr", data.root, middle)
    covariance = np.linalg.inv(np.eye(UNITS) + slopes.T @ slopes)
    return covariance @ slopes.T @ rest.ravel(), covariance


def whole(hierarchy, data, unit, size, tilt=0.2, spread=0.5):
    """Galaxy and latents of which the normals and waves are ``unit``."""
    own = free(size, tilt, spread)
    theta, _ = straight.join(hierarchy, data.arrays, own, jnp.asarray(unit[:3]))
    return theta, jnp.asarray(unit[None, 3:])


@pytest.fixture(scope="module")
def coordinates(hierarchy, data):
    size = (0.7, 1.3)
    point = whole(hierarchy, data, truth(data, size)[0], size)
    return steady.find(hierarchy, data.arrays, *point)


def placer(hierarchy, data, coordinates, own):
    """Make the map from still coordinates to normals and waves, and its volume."""

    def go(still):
        placed = steady.place(hierarchy, data.arrays, coordinates, own, still[None])
        theta, z, volume = placed
        return information.stack(hierarchy, data.arrays, theta, z), volume

    return go


def volume_of_normals(hierarchy, data, own):
    return straight.join(hierarchy, data.arrays, own, jnp.zeros(3))[1]


def test_parameters_are_sorted(hierarchy):
    order = straight.sort(hierarchy)
    assert [*order.free] == [0, 1, 2, 5]
    assert [*order.leading] == [3, 4]
    assert [*order.scaled] == [6]


def test_information_is_that_of_slopes(hierarchy, data):
    size = (0.5, -2.0)
    point = whole(hierarchy, data, RNG.normal(size=UNITS), size)
    found = information.measure(hierarchy, data.arrays, *point)
    slopes = design(data, size, 0.5)
    assert_allclose(found, slopes.T @ slopes, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("others", [(0.2, 0.5), (-0.6, 1.1)])
def test_still_normals_are_the_posterior_of_a_linear_model(
    hierarchy, data, coordinates, size, others
):
    """At any amplitude, also of the other sign, and at none."""
    go = placer(hierarchy, data, coordinates, free(size, *others))
    origin = jnp.zeros(UNITS)
    root = np.asarray(jax.jacobian(lambda y: go(y)[0])(origin))
    mean, covariance = truth(data, size, *others)
    assert_allclose(go(origin)[0], mean, atol=1e-6)
    assert_allclose(root @ root.T, covariance, atol=1e-8)
    volume = np.linalg.slogdet(root)[1]
    normals = volume_of_normals(hierarchy, data, free(size, *others))
    assert_allclose(go(origin)[1], volume + normals, atol=1e-8)


def test_density_is_exact_whatever_the_coordinates(hierarchy, data, coordinates):
    """The volume is that of the map, for numbers that no data told."""
    strange = {
        name: jnp.asarray(value + 0.3 * RNG.random(np.shape(value)))
        for name, value in coordinates.items()
    }
    own, still = free((1.1, 0.4)), jnp.asarray(RNG.normal(size=UNITS))
    go = placer(hierarchy, data, strange, own)
    root = jax.jacobian(lambda y: go(y)[0])(still)
    volume = np.linalg.slogdet(root)[1] + volume_of_normals(hierarchy, data, own)
    assert_allclose(go(still)[1], volume, atol=1e-9)


def test_what_leads_is_followed_where_it_bends(data):
    """To second order: all else is then at its mean given it, for a square exactly."""
    bent, size = split(story(bend=0.4), data), (0.7, 1.3)
    point = whole(bent, data, mode(bent, data, size), size)
    found = steady.find(bent, data.arrays, *point)
    still = np.zeros(UNITS)
    still[:2] = 0.8, -0.5
    theta, z, _ = steady.place(
        bent, data.arrays, found, free(size), jnp.asarray(still)[None]
    )
    assert abs(float(theta[3] - point[0][3])) > 0.05
    unit = np.asarray(information.stack(bent, data.arrays, theta, z))
    slopes = design(data, size, 0.5)[:, 2:]
    light = NORMALS[..., :2] @ np.asarray(theta[3:5]) + 0.2 * FREE + SHADE
    light = light + 0.4 * BEND * float(theta[3]) ** 2
    rest = data.white - np.einsum("srl,sl->sr", data.root, light)
    precision = np.eye(UNITS - 2) + slopes.T @ slopes
    expected = np.linalg.solve(precision, slopes.T @ rest.ravel())
    assert_allclose(unit[2:], expected, atol=1e-6)


def mode(hierarchy, data, size):
    """Mode of normals and waves given what is free, by Newton's method."""

    def potential(unit):
        theta, _ = straight.join(hierarchy, data.arrays, free(size), unit[:3])
        return hierarchy.potential(data.arrays, theta, unit[None, 3:])

    unit = jnp.asarray(truth(data, size)[0])
    for _ in range(30):
        unit -= jnp.linalg.solve(
            jax.hessian(potential)(unit), jax.grad(potential)(unit)
        )
    return unit


def turning(shine):
    """Tell of waves that go ahead and others that follow, and the light of both."""

    def model(data):
        numpyro.sample("idle", dist.Laplace())
        numpyro.deterministic("turn_ahead", jnp.ones(1))
        waves = {}
        for name in ("turn", "follow"):
            with numpyro.plate("wave", WAVES):
                waves[name] = numpyro.sample(name, dist.Normal())
        with numpyro.plate("spaxel", len(data)):
            seen = LineData(data, shine(**waves), jnp.ones(1))
            numpyro.sample("data", seen, obs=data.white)

    return model


def bow(turn, follow):
    """Light of which one wave takes back what the other's square does."""
    return jnp.exp(0.2 * DESIGN[..., 0] @ (follow + 0.5 * turn**2))


@pytest.mark.parametrize(("turned", "away"), [(48, 1e-3), (0, None)])
def test_what_is_behind_takes_back_what_goes_ahead(data, turned, away, monkeypatch):
    """Where data tell light a thousand times better than priors do; else it is lost."""
    monkeypatch.setattr(steady, "TURNED", turned)
    bright = data.with_arrays(data.arrays | {"root": 1e3 * data.root})
    hierarchy = split(turning(bow), bright)
    idle, z = jnp.zeros(1), jnp.asarray(0.3 * RNG.normal(size=(1, 2 * WAVES)))
    flux = hierarchy.seen(bright.arrays, idle, z).flux
    white = jnp.einsum("srl,sl->sr", bright.root, flux)
    arrays = bright.arrays | {"white": white}
    found = steady.find(hierarchy, arrays, idle, z)
    still = jnp.zeros((1, 2 * WAVES)).at[0, :WAVES].set(0.8)
    _, moved, _ = steady.place(hierarchy, arrays, found, idle, still)
    assert np.abs(moved - z)[0, :WAVES].max() > 0.3
    light = hierarchy.seen(arrays, idle, moved).flux / flux
    off = np.abs(np.log(light)).max()
    assert off < away if away else off > 0.1


def test_the_logarithm_goes_on_along_its_tangent():
    """In value and slope; and of what was dark, or below 0, the flux itself counts."""
    ratio = np.array([3.0, 1.0, 0.2, information.FAINT, 0.0, -2.0])
    bright = np.full(6, 5.0)
    look = jax.vmap(jax.value_and_grad(lambda x: information.brighten(5 * x, 5.0)[0]))
    value, slope = look(ratio)
    assert_allclose(value, information.brighten(bright * ratio, bright))
    assert_allclose(value[:4], np.log(ratio[:4]), atol=1e-12)
    assert_allclose(slope[:3], 1 / ratio[:3])
    assert_allclose(slope[3:], 1 / information.FAINT)
    assert_allclose(np.diff(value[3:]), np.diff(ratio[3:]) / information.FAINT)
    assert_allclose(
        information.brighten(np.array([3.0, -4.0]), np.array([0.0, -2.0])), [2.0, 1.0]
    )


def sink(turn, follow):
    """Light that falls through 0, where another wave moves its logarithm."""
    slopes = np.abs(DESIGN[..., 0])
    return (1 + slopes @ turn) * jnp.exp(0.2 * slopes @ follow)


def test_where_light_falls_to_nothing_coordinates_are_not_steep(data):
    """As in faint galaxies, whose chains stood still on a logarithm of the dark."""
    hierarchy, arrays = split(turning(sink), data), data.arrays
    idle, z = jnp.zeros(1), jnp.zeros((1, 2 * WAVES))
    found = steady.find(hierarchy, arrays, idle, z)

    def follow(far):
        still = jnp.zeros((1, 2 * WAVES)).at[0, :WAVES].set(far)
        return steady.place(hierarchy, arrays, found, idle, still)[1][0]

    far = jnp.linspace(-2.0, 0.0, 2001)
    dark = jax.vmap(lambda x: hierarchy.seen(arrays, idle, follow(x)[None]).flux)(far)
    assert (dark < 0).any()
    steep = np.abs(jax.vmap(jax.jacfwd(follow))(far)).max()
    assert steep < 30  # 6.5; of the logarithm itself 1e5 and more


def test_of_what_is_bright_the_logarithm_is_straight(data):
    """A departure takes back a level wherever both are."""

    def glow(data):
        level = numpyro.sample("level", dist.Normal(0.0, 2.0))
        numpyro.sample("idle", dist.Laplace())
        with numpyro.plate("wave", WAVES):
            z = numpyro.sample("z", dist.Normal())
        flux = jnp.exp(0.3 * level + 0.1 * DESIGN[..., 0] @ z)
        with numpyro.plate("spaxel", len(data)):
            numpyro.sample("data", LineData(data, flux, jnp.ones(1)), obs=data.white)

    hierarchy = split(glow, data)
    point = jnp.array([0.4, 0.1]), jnp.asarray(RNG.normal(size=(1, WAVES)))
    found = steady.find(hierarchy, data.arrays, *point)
    assert_allclose(found["bends"], 0.0, atol=1e-8)
    slopes = information.weigh_light(hierarchy, data.arrays, *point, jnp.eye(1 + WAVES))
    level = slopes.sum(axis=1) * 0.6  # a level of one width brightens all by that
    whole = information.measure(hierarchy, data.arrays, *point)
    assert_allclose(level, whole[:, 0], rtol=1e-8)


def test_what_few_combinations_do_not_hold_each_wave_has_for_itself(
    hierarchy, data, monkeypatch
):
    """What the rows leave of the information is that of a diagonal."""
    monkeypatch.setattr(steady, "MOST", 3)
    size = (0.7, 1.3)
    point = whole(hierarchy, data, truth(data, size)[0], size)
    found = steady.find(hierarchy, data.arrays, *point)
    behind = np.argsort(straight.sort(hierarchy).others)
    rows = np.concatenate([found["leads"], found["rows"][:, behind]], axis=1)
    assert len(rows) == 3
    slopes = design(data, size, 0.5)
    left = np.diag(slopes.T @ slopes - rows.T @ rows) * (np.arange(UNITS) >= 2)
    go = placer(hierarchy, data, found, free(size))
    root = np.asarray(jax.jacobian(lambda y: go(y)[0])(jnp.zeros(UNITS)))
    precision = np.eye(UNITS) + np.diag(left) + rows.T @ rows
    assert_allclose(root @ root.T, np.linalg.inv(precision), atol=1e-8)


def test_as_many_combinations_are_kept_as_data_tell(hierarchy, data, monkeypatch):
    monkeypatch.setattr(steady, "STEP", 1)
    point = whole(hierarchy, data, np.zeros(UNITS), (0.7, 1.3))
    value = np.linalg.eigvalsh(information.measure(hierarchy, data.arrays, *point))
    counts = []
    for faint in np.median(value) ** -0.5 * np.array([1e-9, 0.3, 1.0, 3.0]):
        arrays = data.arrays | {"root": faint * data.root}
        counts.append(len(steady.find(hierarchy, arrays, *point)["data"]))
        assert counts[-1] == max(1, np.sum(faint**2 * value > steady.LITTLE))
    assert counts[0] == 1 < counts[1] < counts[2] < counts[3]
    assert len(steady.find(hierarchy, arrays, *point, 7)["data"]) == max(7, counts[3])
    assert len(steady.find(hierarchy, arrays, *point, UNITS + 1)["data"]) == UNITS


@pytest.mark.parametrize("turned", [2, 48])
def test_what_is_widened_places_all_as_before(hierarchy, data, turned, monkeypatch):
    monkeypatch.setattr(steady, "STEP", 3)
    monkeypatch.setattr(steady, "MOST", 3)
    monkeypatch.setattr(steady, "TURNED", turned)
    size = (0.7, 1.3)
    point = whole(hierarchy, data, truth(data, size)[0], size)
    narrow = steady.find(hierarchy, data.arrays, *point)
    wide = steady.widen(narrow, 8)
    assert (len(narrow["data"]), len(wide["data"])) == (3, 8)
    shapes = {n: v.shape for n, v in steady.blank(hierarchy, 8).items()}
    assert {n: v.shape for n, v in wide.items()} == shapes
    still = jnp.asarray(RNG.normal(size=UNITS))
    placers = (placer(hierarchy, data, one, free((0.5, 1.1))) for one in (narrow, wide))
    (one, volume), (other, same) = (go(still) for go in placers)
    assert_allclose(other, one, atol=1e-10)
    assert_allclose(same, volume, atol=1e-10)


def test_blank_coordinates_are_normals_and_latents(hierarchy, data):
    still = jnp.asarray(RNG.normal(size=UNITS))
    go = placer(hierarchy, data, steady.blank(hierarchy), free(np.ones(WIDTH)))
    assert_allclose(go(still)[0], still, atol=1e-12)


def test_found_and_blank_coordinates_are_of_one_shape(hierarchy, coordinates):
    blank = steady.blank(hierarchy, len(coordinates["data"]))
    assert {n: np.shape(v) for n, v in blank.items()} == {
        n: np.shape(v) for n, v in coordinates.items()
    }


def test_a_model_that_tells_no_amplitude_has_steady_ones(data):
    def silent(data):
        with numpyro.plate("wave", WAVES):
            z = numpyro.sample("z", dist.Normal())
        flux = DESIGN.reshape(SPAXELS, LINES, -1)[..., :WAVES] @ z
        with numpyro.plate("spaxel", len(data)):
            numpyro.sample("data", LineData(data, flux, jnp.ones(1)), obs=data.white)

    plain = split(silent, data)
    found = plain.scales(data.arrays, jnp.zeros(0))[2]
    assert_allclose(found, np.ones(WAVES))


def test_a_galaxy_of_normals_alone_has_them_free(data):
    """Or a sampler would have nothing of which to learn a metric."""

    def plain(data):
        level = numpyro.sample("level", dist.Normal().expand([2]).to_event(1))
        with numpyro.plate("wave", WAVES):
            z = numpyro.sample("z", dist.Normal())
        flux = DESIGN.reshape(SPAXELS, LINES, -1)[..., :WAVES] @ z + level[0]
        with numpyro.plate("spaxel", len(data)):
            numpyro.sample("data", LineData(data, flux, jnp.ones(1)), obs=data.white)

    order = straight.sort(split(plain, data))
    assert [*order.free] == [0, 1]
    assert not order.normals.size

"""Coordinates that keep still, spaxel by spaxel: against NumPy, and by quadrature."""

from functools import partial
from itertools import product

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpy.testing import assert_allclose
from scipy import integrate, stats

from metalgrad import settled
from metalgrad.collapse import relax
from metalgrad.hierarchy import split
from metalgrad.likelihood import LineLikelihood
from metalgrad.observation import LineData

pytestmark = pytest.mark.usefixtures("double_precision")

SPAXELS, LINES = 4, 3
RNG = np.random.default_rng(31)
DESIGN = RNG.normal(size=(SPAXELS, LINES, 3))  # of three sums in the fluxes
SHARE = RNG.uniform(0.5, 2.0, (SPAXELS, 3))  # amplitudes, in units of ``size``
PULL = RNG.normal(size=(SPAXELS, 3))  # of the galaxy's level on the sums
LEVER = RNG.normal(size=(SPAXELS, 2))  # of what leads on the sums
BRIGHT = np.array([1e-3, 1.0, 30.0, 1e4])  # S/N, spaxel by spaxel


def some_data(bright):
    """Line fluxes of as many spaxels as ``bright`` has S/N."""
    rng, count = np.random.default_rng(32), len(bright)
    root = rng.normal(size=(count, LINES, LINES)) + 2 * np.eye(LINES)
    root = root * bright[:, None, None]
    flux = rng.normal(size=(count, LINES))
    white = np.einsum("srl,sl->sr", root, flux) + rng.normal(size=flux.shape)
    return LineLikelihood(
        lines=("OII", "Hbeta", "OIII"),
        complexes=(("OII", "Hbeta", "OIII"),),
        root=root,
        white=white,
        misfit=np.zeros((count, 1)),
        dof=np.full((count, 1), float(LINES)),
        log_norm=np.zeros(count),
        position=np.zeros((count, 2)),
    )


@pytest.fixture(scope="module")
def data():
    return some_data(BRIGHT)


def normals(name, width):
    with numpyro.plate("spaxel", SPAXELS):
        return numpyro.sample(name, dist.Normal().expand([width]).to_event(1))


def tell(name, amplitude, mean=None):
    numpyro.deterministic(f"{name}_amplitude", amplitude)
    if mean is not None:
        numpyro.deterministic(f"{name}_mean", mean)


def see(data, sums):
    flux = jnp.einsum("slk,sk->sl", DESIGN, sums)
    with numpyro.plate("spaxel", len(data)):
        numpyro.sample("data", LineData(data, flux, jnp.ones(1)), obs=data.white)


def galaxy():
    size = numpyro.sample("size", dist.Normal(0.0, 2.0).expand([2]).to_event(1))
    return size, numpyro.sample("level", dist.Normal(0.0, 2.0))


def plain(data):
    """Draw three sums, each a mean and an amplitude times a normal."""
    size, level = galaxy()
    amplitude = jnp.array([size[0], size[1], size[1]]) * SHARE
    z = jnp.concatenate([normals("first", 1), normals("second", 2)], axis=1)
    tell("first", amplitude[:, :1], level * PULL[:, :1])
    tell("second", amplitude[:, 1:], level * PULL[:, 1:])
    see(data, level * PULL + amplitude * z)


def led(data):
    """Draw a latent more, which moves the means of two sums."""
    size, level = galaxy()
    far, lead, near = normals("far", 1), normals("lead", 1), normals("near", 2)
    tell("far", size[0] * SHARE[:, :1], level * PULL[:, :1])
    tell("lead", jnp.broadcast_to(size[0], (SPAXELS, 1)))
    mean = level * PULL[:, 1:] + size[0] * lead * LEVER
    tell("near", size[1] * SHARE[:, 1:], mean)
    sums = [level * PULL[:, :1] + size[0] * SHARE[:, :1] * far]
    sums += [mean + size[1] * SHARE[:, 1:] * near]
    see(data, jnp.concatenate(sums, axis=1))


def mixing(model, theta):
    """Sums are ``mean + mix @ z``: their mix of latents, (spaxel, 3, latent)."""
    a, b, _ = np.asarray(theta)
    mix = np.zeros((SPAXELS, 3, 3 + (model is led)))
    mix[:, 0, 0] = a * SHARE[:, 0]
    for k in (1, 2):
        mix[:, k, k + (model is led)] = b * SHARE[:, k]
        if model is led:
            mix[:, k, 1] = a * LEVER[:, k - 1]
    return mix


def truth(model, data, theta):
    """Mean and covariance of each spaxel's latents, given the galaxy."""
    design = data.root @ DESIGN @ mixing(model, theta)
    gap = data.white - np.einsum("srl,slk,sk->sr", data.root, DESIGN, theta[2] * PULL)
    for own, rest in zip(design, gap, strict=True):
        # By QR and not by an inverse, which would lose what S/N of 10^4 tells.
        width = own.shape[1]
        stack, known = np.vstack([own, np.eye(width)]), np.append(rest, np.zeros(width))
        q, r = np.linalg.qr(stack)
        root = np.linalg.inv(r)
        yield root @ (q.T @ known), root @ root.T


@pytest.fixture(scope="module", params=[plain, led], ids=["plain", "led"])
def model(request):
    return request.param


@pytest.fixture(scope="module")
def hierarchy(model, data):
    return split(model, data)


@pytest.fixture(scope="module")
def coordinates(model, hierarchy, data):
    theta = jnp.array([0.7, 1.3, 0.4])
    mode = np.stack([mean for mean, _ in truth(model, data, theta)])
    return settled.find(hierarchy, data.arrays, theta, jnp.asarray(mode))


@partial(jax.jit, static_argnums=0)
def _look(hierarchy, arrays, coordinates, theta, still):
    def go(still):
        return settled.place(hierarchy, arrays, coordinates, theta, still)

    return *go(still), jax.jacobian(lambda y: go(y)[0])(still)


def look(hierarchy, arrays, coordinates, theta, still):
    """Latents, their slopes in each spaxel's own coordinates, and the log volume."""
    found = _look(hierarchy, arrays, coordinates, jnp.asarray(theta), still)
    z, volume, slopes = (np.array(part) for part in found)
    each = np.arange(len(z))
    own = slopes[each, :, each]
    slopes[each, :, each] = 0.0
    assert not slopes.any()  # spaxels move none but themselves
    return z, own, volume


THETA = {
    "where found": (0.7, 1.3, 0.4),
    "another mean": (0.7, 1.3, -3.0),
    "wider": (3.0, 2.0, 1.0),
    "negative": (-0.7, 0.2, -1.0),
    "one is none": (0.0, 1.0, 2.0),
    "the other is none": (0.5, 0.0, -1.0),
    "none": (0.0, 0.0, 1.0),
}


def test_the_one_that_moves_others_leads(model, hierarchy):
    assert hierarchy.leading == (1 if model is led else None)


@pytest.mark.parametrize("theta", THETA.values(), ids=THETA)
def test_still_normals_are_the_posterior_of_a_linear_model(
    model, hierarchy, data, coordinates, theta
):
    """At any amplitude and mean, from nothing told to nearly all."""
    still = jnp.zeros((SPAXELS, hierarchy.sizes[1]))
    found, roots, volume = look(hierarchy, data.arrays, coordinates, theta, still)
    expected = list(truth(model, data, theta))
    for z, root, (mean, covariance) in zip(found, roots, expected, strict=True):
        assert_allclose(z, mean, rtol=1e-6, atol=1e-6)
        assert_allclose(root @ root.T, covariance, rtol=1e-6, atol=1e-6)
    assert_allclose(volume, np.linalg.slogdet(roots)[1].sum(), rtol=1e-7)


def test_the_volume_is_that_of_the_map_whatever_the_coordinates(
    hierarchy, data, coordinates
):
    """Also of such as no data told: what is wrong costs steps, and no truth."""
    rng = np.random.default_rng(33)
    strange = {
        "told": coordinates["told"] * 1.5 + np.eye(hierarchy.sizes[1])[..., None],
        "toward": coordinates["toward"] + 3.0,
        "anchor": coordinates["anchor"] - 2.0,
    }
    still = jnp.asarray(rng.normal(size=(SPAXELS, hierarchy.sizes[1])))
    for theta in THETA.values():
        _, roots, volume = look(hierarchy, data.arrays, strange, theta, still)
        assert_allclose(volume, np.linalg.slogdet(roots)[1].sum(), rtol=1e-7)


def test_slopes_in_the_galaxy_are_finite(hierarchy, data, coordinates):
    def density(theta, still):
        z, volume = settled.place(hierarchy, data.arrays, coordinates, theta, still)
        return hierarchy.potential(data.arrays, theta, z) - volume

    slope = jax.jit(jax.grad(density, argnums=(0, 1)))
    for theta, far in product(THETA.values(), (0.0, 1.0, 10.0)):
        still = far * jnp.ones((SPAXELS, hierarchy.sizes[1]))
        assert all(np.isfinite(s).all() for s in slope(jnp.array(theta), still))


def test_found_without_amplitude_latents_stay(hierarchy, data):
    """What has no effect where coordinates are found is not told by data."""
    theta, still = jnp.zeros(3), jnp.asarray(RNG.normal(size=(SPAXELS, 1)))
    still = still * jnp.ones(hierarchy.sizes[1])
    found = settled.find(hierarchy, data.arrays, theta, jnp.zeros_like(still))
    assert all(np.isfinite(value).all() for value in found.values())
    moved = jnp.array([1.0, 2.0, 3.0])
    z, volume = settled.place(hierarchy, data.arrays, found, moved, still)
    assert_allclose(z, still)
    assert_allclose(volume, 0.0, atol=1e-12)


def test_untold_latents_stay(data):
    """They are what they are, beside one that the model tells of."""

    def silent(data):
        size, level = galaxy()
        quiet, loud = normals("quiet", 2), normals("loud", 1)
        tell("loud", size[0] * SHARE[:, :1], level * PULL[:, :1])
        first = level * PULL[:, :1] + size[0] * SHARE[:, :1] * loud
        see(data, jnp.concatenate([first, size[1] * quiet], axis=1))

    hierarchy, theta = split(silent, data), jnp.array([0.7, 1.3, 0.4])
    still = jnp.asarray(RNG.normal(size=(SPAXELS, 3)))
    found = settled.find(hierarchy, data.arrays, theta, 0.1 * still)
    z, volume = settled.place(hierarchy, data.arrays, found, 2 * theta, still)
    assert_allclose(z[:, :2], still[:, :2])
    assert np.all(z[1:, 2] != still[1:, 2])
    assert volume < 0


def test_blank_has_the_keys_of_what_is_found(hierarchy, coordinates):
    assert settled.blank(hierarchy).keys() == coordinates.keys()


def veiled(data):
    """Draw one latent that leads another, and one of whose sum the softplus is seen."""
    size, level = galaxy()
    lead, veil, near = normals("lead", 1), normals("veil", 1), normals("near", 1)
    tell("lead", jnp.broadcast_to(size[0], (SPAXELS, 1)))
    tell("veil", size[1] * SHARE[:, :1], level * PULL[:, :1])
    numpyro.deterministic("veil_bent", jnp.ones((SPAXELS, 1)))
    mean = level * PULL[:, 1:2] + size[0] * lead * LEVER[:, :1]
    tell("near", size[1] * SHARE[:, 1:2], mean)
    seen = jax.nn.softplus(level * PULL[:, :1] + size[1] * SHARE[:, :1] * veil)
    seen = numpyro.deterministic("seen", seen)
    sums = mean + size[1] * SHARE[:, 1:2] * near
    see(data, jnp.concatenate([seen, sums, jnp.zeros_like(sums)], axis=1))


@pytest.fixture(scope="module")
def behind(data):
    """A hierarchy with what is bent, where it was looked at, and its coordinates."""
    hierarchy, theta = split(veiled, data), jnp.array([0.7, 1.3, 0.4])
    look = jax.jit(relax, static_argnums=(0, 4))
    mode = look(hierarchy, data.arrays, theta, jnp.zeros((SPAXELS, 3)), 60)
    return hierarchy, theta, settled.find(hierarchy, data.arrays, theta, mode)


def test_what_leads_and_what_is_bent_are_known(behind):
    hierarchy, *_ = behind
    assert (hierarchy.leading, hierarchy.bent) == (0, 1)


@pytest.mark.parametrize("theta", THETA.values(), ids=THETA)
def test_the_volume_is_that_of_the_map_where_a_sum_is_bent(behind, data, theta):
    hierarchy, _, coordinates = behind
    still = jnp.asarray(np.random.default_rng(3).normal(size=(SPAXELS, 3)))
    _, roots, volume = look(hierarchy, data.arrays, coordinates, theta, still)
    assert_allclose(volume, np.linalg.slogdet(roots)[1].sum(), rtol=1e-7, atol=1e-9)

    def density(theta, still):
        z, volume = settled.place(hierarchy, data.arrays, coordinates, theta, still)
        return hierarchy.potential(data.arrays, theta, z) - volume

    slope = jax.jit(jax.grad(density, argnums=(0, 1)))
    for far in (0.0, 1.0, 10.0):
        slopes = slope(jnp.array(theta), far * jnp.ones((SPAXELS, 3)))
        assert all(np.isfinite(s).all() for s in slopes)


def test_what_is_told_of_a_bent_sum_stays(behind, data):
    """It is what bright data say, however mean and amplitude move."""
    hierarchy, theta, coordinates = behind
    seen = []
    for other in (theta, theta + jnp.array([0.3, 1.0, 0.0]), theta * 0.8):
        still = jnp.zeros((SPAXELS, 3))
        z, _ = settled.place(hierarchy, data.arrays, coordinates, other, still)
        seen.append(hierarchy.sites(data.arrays, other, z)["seen"][-1, 0])
    assert np.ptp(seen) < 3 / BRIGHT[-1]


# One spaxel, of which a curved function of one latent is the mean of another.

CURVES = {
    "square": lambda x: x**2 - 0.4 * x,
    "cube": lambda x: x**3 - 0.5 * x**2 + 0.2,
}
AXIS = np.linspace(-8.0, 8.0, 501)


def one_spaxel(signal):
    return some_data(np.array([signal]))


def bent(curve):
    """Make a model of fluxes that are not linear in the sum either."""

    def model(data):
        size = numpyro.sample("size", dist.Normal().expand([2]).to_event(1))
        with numpyro.plate("spaxel", 1):
            lead = numpyro.sample("lead", dist.Normal())
            follow = numpyro.sample("follow", dist.Normal())
        x = size[0] * lead
        numpyro.deterministic("lead_amplitude", size[:1, None])
        numpyro.deterministic("follow_amplitude", size[1:, None])
        numpyro.deterministic("follow_mean", curve(x)[:, None])
        flux = _bend(curve(x) + size[1] * follow)
        with numpyro.plate("spaxel", 1):
            numpyro.sample("data", LineData(data, flux, jnp.ones(1)), obs=data.white)

    return model


def _bend(total):
    """Three fluxes of a sum."""
    return total[..., None] * np.array([1.0, -0.5, 0.3]) + 0.1 * total[..., None] ** 2


def by_hand(curve, data, size):
    """Integral of the likelihood over both latents, and mean of the leading one."""
    first, second = np.meshgrid(AXIS, AXIS, indexing="ij")
    flux = _bend(curve(size[0] * first) + size[1] * second)
    residual = flux @ np.asarray(data.root[0]).T - data.white[0]
    log = -0.5 * np.sum(residual**2, -1) + stats.norm.logpdf(first)
    density = np.exp(log + stats.norm.logpdf(second))
    return _integrate(density), _integrate(density * first) / _integrate(density)


def _integrate(values):
    return integrate.simpson(integrate.simpson(values, x=AXIS), x=AXIS)


@pytest.fixture(scope="module", params=CURVES.values(), ids=CURVES)
def curve(request):
    return request.param


@pytest.fixture(scope="module")
def curved(curve):
    return split(bent(curve), one_spaxel(1.0))


def find_curved(curved, data):
    """Coordinates of some point that is no mode."""
    start = jnp.array([0.5, 0.7]), jnp.array([[0.4, -0.3]])
    return settled.find(curved, data.arrays, *start)


@partial(jax.jit, static_argnums=0)
def _on_a_grid(curved, arrays, coordinates, theta):
    def one(still):
        z, volume = settled.place(curved, arrays, coordinates, theta, still[None])
        return volume - curved.potential(arrays, theta, z), z[0, 0]

    points = jnp.stack(jnp.meshgrid(AXIS, AXIS, indexing="ij"), axis=-1)
    return jax.vmap(jax.vmap(one))(points)


@pytest.mark.parametrize("size", [(0.7, 0.9), (-0.3, 0.5), (0.0, 0.6), (0.8, -0.4)])
def test_density_is_conserved_where_one_latent_bends_another(curved, curve, size):
    """Two integrals: of NumPy's density of the latents, and of ours of what is still.

    Coordinates were found elsewhere, at other amplitudes.
    """
    data = one_spaxel(1.5)
    assert curved.leading == 0
    found = find_curved(curved, data)
    log, lead = _on_a_grid(curved, data.arrays, found, jnp.asarray(size))
    density = np.exp(np.asarray(log) - stats.norm.logpdf(size).sum())
    evidence, mean = by_hand(curve, data, size)
    assert_allclose(_integrate(density), evidence, rtol=1e-5)
    middle = _integrate(density * np.asarray(lead)) / _integrate(density)
    assert_allclose(middle, mean, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("signal", [1e-2, 0.3, 3.0])
@pytest.mark.parametrize("start", [-2.0, 0.3, 2.0])
def test_in_the_middle_is_the_mode(curved, signal, start):
    """However far along the curve it is: the curve is followed from there."""
    data, theta = one_spaxel(signal), jnp.array([0.8, 0.1])
    mode = relax(curved, data.arrays, theta, jnp.array([[start, 0.1]]), 100)
    found = settled.find(curved, data.arrays, theta, mode)
    middle, _ = settled.place(curved, data.arrays, found, theta, jnp.zeros((1, 2)))
    assert_allclose(middle, mode, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("signal", [1e-2, 3.0, 1e3])
def test_the_volume_holds_for_a_curve(curved, signal):
    data, still = one_spaxel(signal), jnp.array([[1.2, -0.8]])
    found = find_curved(curved, data)
    for theta in ((0.9, 0.4), (-1.5, 0.2), (0.0, 1.0), (1.0, 0.0)):
        _, roots, volume = look(curved, data.arrays, found, theta, still)
        assert_allclose(volume, np.linalg.slogdet(roots)[1].sum(), rtol=1e-7)


@pytest.mark.parametrize("signal", [1e6, 1e9, 1e12])
def test_the_map_is_finite_however_bright(hierarchy, coordinates, signal):
    """Where rounding is all that is left of some directions."""
    bright = {"told": signal**2 * coordinates["told"], "anchor": coordinates["anchor"]}
    bright["toward"] = signal**2 * coordinates["toward"]
    arrays, theta = some_data(BRIGHT).arrays, THETA["wider"]
    still = jnp.asarray(RNG.normal(size=(SPAXELS, hierarchy.sizes[1])))
    z, roots, volume = look(hierarchy, arrays, bright, theta, still)
    assert np.isfinite(z).all()
    assert np.isfinite(volume)
    assert np.isfinite(roots).all()

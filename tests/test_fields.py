"""Metallicity fields: laws that hold for every kind, and closed forms."""

import warnings

import astropy.units as u
import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
from astropy.table import Table
from numpy.testing import assert_allclose
from numpyro import handlers
from scipy.stats import halfnorm, kstest, lognorm, norm

from metalgrad import cards, cli, fields
from metalgrad.inference import fit
from metalgrad.linemaps import LineMaps
from metalgrad.model import load_model
from metalgrad.priors import parse_prior

every_kind = pytest.mark.parametrize("kind", fields.__all__)
every_card = pytest.mark.parametrize("card", cards.names("models"))
# What must be known of a field has no default.
KNOWN = {
    "Clump": {"place": (0.7, -1.0), "size": 0.6},
    "Sources": {"places": {"a": (0.0, 0.0), "b": (-2.0, 0.0), "c": (1.5, 3.0)}},
}
RADIAL = {"Flat", "LinearGradient", "Broken"}
# The first spaxel is the centre itself: there a radius has no gradient of its own.
POSITION = jnp.array([[0.0, 0.0], [0.7, -1.1], [-2.0, 0.3], [1.4, 2.9], [0.1, 0.2]])
PIVOT = jnp.array(1.3)


def make(kind, **priors):
    return getattr(fields, kind)(**KNOWN.get(kind, {}), **priors)


def trace(field, position=POSITION, seed=4, **values):
    seeded = handlers.seed(handlers.substitute(field.sample, values), seed)
    return handlers.trace(seeded).get_trace(position, PIVOT)


def sample(field, position=POSITION, seed=4, **values):
    with handlers.seed(rng_seed=seed), handlers.substitute(data=values):
        return field.sample(position, PIVOT)


@every_kind
def test_builds_without_arguments_and_gives_one_value_per_spaxel(kind):
    found = sample(make(kind))
    assert found.shape == (5,)
    assert np.isfinite(found).all()


@every_kind
def test_spaxels_own_sites_are_standard_normals_in_their_plate(kind):
    for site in trace(make(kind)).values():
        frames = [frame.name for frame in site["cond_indep_stack"]]
        if "spaxel" in frames:
            draw = jnp.linspace(-2.0, 1.1, 5).reshape(site["value"].shape)
            assert_allclose(site["fn"].log_prob(draw), norm.logpdf(draw), rtol=1e-5)


@every_kind
def test_central_is_recorded(kind):
    assert trace(make(kind))["central"]["type"] == "deterministic"


@every_kind
def test_gradient_is_finite_everywhere_also_at_the_centre(kind):
    field = make(kind)

    def total(position, values):
        return jnp.sum(sample(field, position, **values))

    sites = trace(field).items()
    values = {k: v["value"] for k, v in sites if v["type"] == "sample"}
    for gradient in jax.tree.leaves(jax.grad(total, (0, 1))(POSITION, values)):
        assert np.isfinite(gradient).all()


@every_kind
def test_prior_stays_among_metallicities(kind):
    field = make(kind)
    draws = np.array([sample(field, POSITION[1:], seed) for seed in range(60)])
    assert np.mean((draws > 6) & (draws < 10)) > 0.97


def test_linear_gradient_is_a_straight_line():
    values = {"level": 8.13, "slope": -0.08}
    found = sample(fields.LinearGradient(), **values)
    radius = np.hypot(*np.asarray(POSITION).T)
    assert_allclose(found, 8.13 - 0.08 * (radius - 1.3), rtol=1e-6)
    recorded = trace(fields.LinearGradient(), **values)["central"]["value"]
    assert_allclose(recorded, 8.13 + 0.08 * 1.3, rtol=1e-6)


@every_kind
def test_far_out_and_at_the_centre_all_is_finite(kind):
    """Values and slopes, also where a parameter lies far out in its prior."""
    field = make(kind)
    where = jnp.array([[0.0, 0.0], [300.0, -400.0], [1e-8, 0.0]])

    def total(values, position):
        return jnp.sum(sample(field, position, **values))

    latent = {k for k, v in trace(field).items() if v["type"] == "sample"}
    look = jax.jit(jax.value_and_grad(total, (0, 1)))
    for seed in range(4):
        drawn = {name: trace(field, seed=seed)[name]["value"] for name in latent}
        for scale in (1.0, 1e-3, 5.0):
            values = {n: v * (scale if n != "level" else 1.0) for n, v in drawn.items()}
            found = look(values, where)
            assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(found))


@every_kind
def test_every_number_of_a_field_may_be_fixed(kind):
    """It is recorded, and no latent any more."""
    field = make(kind)
    sites = trace(field)
    single = [
        name
        for name, site in sites.items()
        if site["type"] == "sample" and np.shape(site["value"]) == ()
    ]
    values = {name: sites[name]["value"] for name in single}
    fixed = make(kind, **{n: dist.Delta(float(v)) for n, v in values.items()})
    found = trace(fixed)
    assert all(found[name]["type"] == "deterministic" for name in single)
    left = {n: v["value"] for n, v in found.items() if v["type"] == "sample"}
    expected = sample(field, **values, **left)
    assert_allclose(sample(fixed, **left), expected, rtol=1e-6)


def moments(prior):
    """Mean and standard deviation of a prior, by SciPy."""
    if isinstance(prior, dist.LogNormal):
        found = lognorm(float(prior.scale), scale=np.exp(float(prior.loc)))
    else:
        found = norm(float(prior.loc), float(prior.scale))
    return found.mean(), found.std()


@every_kind
def test_sites_are_drawn_from_their_priors(kind):
    field, count = make(kind), 4000

    def one(key):
        with handlers.seed(rng_seed=key), handlers.trace() as seen:
            field.sample(POSITION, PIVOT)
        return {n: s["value"] for n, s in seen.items() if s["type"] == "sample"}

    keys = jax.random.split(jax.random.key(1), count)
    for name, draws in jax.jit(jax.vmap(one))(keys).items():
        mean, sd = moments(getattr(field, name))
        error = sd / np.sqrt(draws.size)
        assert_allclose(np.mean(draws), mean, atol=4 * error)
        assert_allclose(np.std(draws), sd, rtol=0.1)


STRAIGHT = {
    "Broken": {"inner_slope": -0.08, "outer_slope": -0.08, "break_radius": 0.9},
    "Azimuthal": {"slope": -0.08, "dipole": jnp.zeros(2)},
    "Clump": {"slope": -0.08, "contrast": 0.0},
}


@pytest.mark.parametrize("kind", STRAIGHT)
def test_the_straight_limit(kind):
    values = {"level": 8.13} | STRAIGHT[kind]
    line = {"level": 8.13, "slope": -0.08}
    found = sample(make(kind), **values)
    assert_allclose(found, sample(make("LinearGradient"), **line), rtol=1e-6)
    central = [trace(make(k), **v)["central"]["value"] for k, v in
               ((kind, values), ("LinearGradient", line))]  # fmt: skip
    assert_allclose(*central, rtol=1e-6)


def test_one_source_at_the_centre_is_a_gradient():
    one = fields.Sources(places={"a": (0.0, 0.0)})
    found = sample(one, source_level=jnp.array([8.2]), source_slope=-0.08)
    expected = sample(fields.LinearGradient(), level=8.2 - 0.08 * 1.3, slope=-0.08)
    assert_allclose(found, expected, rtol=1e-6)


def broken(radius, inner, outer, edge):
    """Two straight lines that meet at the edge."""
    return np.where(
        radius < edge, inner * radius, inner * edge + outer * (radius - edge)
    )


@pytest.mark.parametrize("edge", [0.6, 1.7])
def test_a_broken_profile_is_two_lines_but_for_the_bend(edge):
    values = {"inner_slope": -0.3, "outer_slope": 0.1, "break_radius": edge}
    radius = np.linspace(0.0, 5.0, 201)
    position = jnp.asarray(radius[:, None] * [0.6, -0.8])
    found = np.asarray(sample(fields.Broken(), position, level=8.4, **values))
    recorded = trace(fields.Broken(), position, level=8.4, **values)
    central = float(recorded["central"]["value"])
    kinked = central + broken(radius, -0.3, 0.1, edge)
    # A soft bend lies above the kink by at most ln 2 of its width, a tenth of the edge.
    most = 0.4 * 0.1 * edge * np.log(2)
    assert_allclose(np.max(found - kinked), most, rtol=0.02)
    far = np.abs(radius - edge) > 0.6 * edge
    assert_allclose(found[far], kinked[far], atol=1e-4 + 0.4 * 0.1 * edge * 0.003)
    at_pivot = fields.Broken().sample
    with handlers.seed(rng_seed=0), handlers.substitute(data={"level": 8.4} | values):
        assert_allclose(at_pivot(jnp.array([[1.3, 0.0]]), PIVOT), 8.4, rtol=1e-6)


def test_the_bend_has_slopes_without_jumps():
    """A kink's slope in the break's radius would jump by the change of slope."""
    position = jnp.array([[1.0, 0.0]])

    def slope(edge):
        def value(edge):
            shape = {"inner_slope": -0.3, "outer_slope": 0.2, "level": 8.0}
            return sample(fields.Broken(), position, break_radius=edge, **shape)[0]

        return jax.grad(value)(edge)

    edges = jnp.linspace(0.7, 1.3, 121)
    steps = np.abs(np.diff(jax.vmap(slope)(edges)))
    assert steps.max() < 0.1 * 0.5


def test_a_tilt_is_a_plane():
    values = {"level": 8.1, "slope": -0.05, "dipole": jnp.array([0.06, -0.08])}
    sites = trace(fields.Azimuthal(), **values)
    x, y = np.asarray(POSITION).T
    expected = 8.1 - 0.05 * (np.hypot(x, y) - 1.3) + 0.06 * x - 0.08 * y
    assert_allclose(sample(fields.Azimuthal(), **values), expected, rtol=1e-6)
    assert_allclose(sites["dipole_amplitude"]["value"], 0.1, rtol=1e-6)
    angle = np.degrees(np.arctan(-0.08 / 0.06))
    assert_allclose(sites["dipole_angle"]["value"], angle, rtol=1e-6)
    turned = trace(fields.Azimuthal(), **values | {"dipole": jnp.array([-0.1, 0.0])})
    assert_allclose(turned["dipole_angle"]["value"], 180.0)


def test_a_clump_is_a_bump_of_known_place_and_size():
    values = {"level": 8.2, "slope": -0.05, "contrast": -0.4}
    field = fields.Clump(place=(0.1, -0.2), size=0.15, kpc_per_arcsec=5.0)
    where = np.array([[0.5, -1.0], [0.5, -0.25], [1.25, -1.0], [9.0, 9.0]])
    line = 8.2 - 0.05 * (np.hypot(*where.T) - 1.3)
    found = sample(field, jnp.asarray(where), **values)
    assert_allclose(found - line, [-0.4, -0.2, -0.2, 0.0], atol=2e-6)


def test_a_source_has_what_is_nearest_to_it():
    places = {"a": (0.0, 0.0), "b": (0.4, 0.0)}
    field = fields.Sources(places=places, kpc_per_arcsec=5.0)
    where = jnp.array([[0.0, 0.5], [0.9, 0.0], [1.1, 0.0], [2.0, -3.0]])
    values = {"source_level": jnp.array([8.3, 7.9]), "source_slope": -0.1}
    found = sample(field, where, **values)
    assert_allclose(found, [8.25, 8.21, 7.81, 7.6], rtol=1e-6)
    assert_allclose(trace(field, where, **values)["central"]["value"], 8.3)


@every_kind
def test_radii_alone_do_for_fields_of_radius_only(kind):
    field = make(kind)
    field.check(np.asarray(POSITION))
    radii = np.stack([np.arange(4.0), np.zeros(4)], axis=1)
    assert field.radial == (kind in RADIAL)
    if kind in RADIAL:
        field.check(radii)
        return
    with pytest.raises(ValueError, match=f"^a field {kind} needs positions in two dim"):
        field.check(radii)


def test_flat_is_one_level():
    found = trace(fields.Flat(), level=7.9)
    assert_allclose(sample(fields.Flat(), level=7.9), np.full(5, 7.9))
    assert_allclose(found["central"]["value"], 7.9)


@every_kind
def test_scatter_is_left_to_the_model(kind):
    """It knows what else departs from place to place; the field gives the prior."""
    field = make(kind)
    assert isinstance(field.scatter, dist.Distribution)
    assert not any("scatter" in name for name in trace(field))


def draw_amplitude(prior, seeds=2000):
    """Draw the returned amplitude, and every site, once per seed."""

    def one(key):
        with handlers.seed(rng_seed=key), handlers.trace() as seen:
            amplitude = fields.sample_amplitude("width", prior)
        return amplitude, {name: site["value"] for name, site in seen.items()}

    return jax.jit(jax.vmap(one))(jax.random.split(jax.random.key(8), seeds))


def test_a_half_normal_amplitude_has_its_law_and_either_sign():
    amplitude, sites = draw_amplitude(dist.HalfNormal(0.3))
    assert set(sites) == {"width", "width_signed"}
    assert_allclose(amplitude, sites["width_signed"])
    assert_allclose(sites["width"], np.abs(amplitude))
    assert kstest(sites["width"], halfnorm(scale=0.3).cdf).pvalue > 0.01
    assert kstest(amplitude, norm(scale=0.3).cdf).pvalue > 0.01


def test_any_other_amplitude_keeps_its_sign():
    """Only where it is exact: a mirrored log-normal would have two modes."""
    amplitude, sites = draw_amplitude(dist.LogNormal(-1.0, 0.5))
    assert set(sites) == {"width"}
    assert_allclose(amplitude, sites["width"])
    law = lognorm(0.5, scale=np.exp(-1.0))
    assert kstest(sites["width"], law.cdf).pvalue > 0.01


def test_prior_is_read_off_a_card():
    prior = parse_prior("slope", {"Normal": [0.1, 0.2]})
    assert isinstance(prior, dist.Normal)
    assert (float(prior.loc), float(prior.scale)) == pytest.approx((0.1, 0.2))


@pytest.mark.parametrize(
    "card",
    [
        {"Norml": [0.0, 1.0]},
        {"Normal": [0.0, -1.0]},
        {"Normal": [0.0, 1.0, 2.0, 3.0]},
        {"Normal": [0.0, 1.0], "Uniform": [0.0, 1.0]},
        {"Normal": 3.0},
        {},
        [0.0, 1.0],
    ],
    ids=str,
)
def test_what_is_no_prior_is_refused(card):
    with pytest.raises(
        ValueError, match=r"prior of slope is .*; give the name of a Num"
    ):
        parse_prior("slope", card)


def test_field_is_read_off_a_card():
    card = {"kind": "LinearGradient", "slope": {"Normal": [-0.1, 0.05]}}
    field = fields.load_field("mine", card)
    assert isinstance(field, fields.LinearGradient)
    assert float(field.slope.loc) == pytest.approx(-0.1)
    assert field.level is fields.LinearGradient().level
    assert card["kind"] == "LinearGradient"  # the card stays as it was


@pytest.mark.parametrize("kind", ["Spiral", "MetallicityField", None])
def test_unknown_kind_is_refused(kind):
    with pytest.raises(
        ValueError, match=f"model mine: field kind {kind!r} is not known"
    ):
        fields.load_field("mine", {"kind": kind})


def test_unknown_parameter_is_refused():
    with pytest.raises(ValueError, match="slop"):
        fields.load_field("mine", {"kind": "Flat", "slope": {"Normal": [0.0, 1.0]}})


# From a table of fluxes to the parameters of the field, and to files.


def line_maps(true, count=150, seed=5):
    """Draw fluxes, by NumPy, of a galaxy whose mean metallicity is known."""
    rng = np.random.default_rng(seed)
    position = rng.uniform(-3.0, 3.0, (count, 2))
    x = true(*position.T) + 0.05 * rng.normal(size=count) - 8.69
    # Curti et al. (2023b), half of whose variance differs from place to place; case B.
    log_r3 = np.polyval([-0.6003, -2.73, -3.1422, -0.2768], x)
    log_r2 = np.polyval([-0.2850, -2.3009, -5.5321, -5.1141, -1.0751, 0.4326], x)
    log_r3 += 0.09 * np.sqrt(0.5) * rng.normal(size=count)
    log_r2 += 0.11 * np.sqrt(0.5) * rng.normal(size=count)
    one = np.ones(count)
    ratios = np.stack([10**log_r2, one, 10**log_r3, 2.8632 * one], axis=1)
    ebv = 0.15 * np.exp(0.3 * rng.normal(size=count))
    curve = np.array([5.856, 4.597, 4.463, 3.325])  # Calzetti et al. (2000)
    dimming = 10 ** (-0.4 * ebv[:, None] * curve)
    flux = rng.uniform(40.0, 160.0, (count, 1)) * ratios * dimming
    table = Table({"x": position[:, 0] * u.kpc, "y": position[:, 1] * u.kpc})
    for name, column in zip(("OII", "Hbeta", "OIII", "Halpha"), flux.T, strict=True):
        table[name] = column + 2 * rng.normal(size=count)
        table[f"{name}_err"] = np.full(count, 2.0)
    return table


def broken_galaxy(x, y):
    return 8.45 + broken(np.hypot(x, y), -0.25, 0.05, 1.8)


def tilted_galaxy(x, y):
    return 8.35 - 0.05 * np.hypot(x, y) - 0.06 * x + 0.02 * y


def galaxy_with_a_clump(x, y):
    """Where the card has it, in kpc."""
    share = 2 ** -(((x + 1.807) ** 2 + (y - 1.807) ** 2) / 0.847**2)
    return 8.4 - 0.05 * np.hypot(x, y) - 0.3 * share


TRUTHS = {
    "broken": (
        broken_galaxy,
        {"inner_slope": -0.25, "outer_slope": 0.05, "break_radius": 1.8},
    ),
    "azimuthal": (
        tilted_galaxy,
        {"slope": -0.05, "dipole_angle": 180 - np.degrees(np.arctan(1 / 3))},
    ),
    "clump": (galaxy_with_a_clump, {"slope": -0.05, "contrast": -0.3}),
}
WIDE = {"dipole_angle": 20.0, "break_radius": 0.5, "contrast": 0.1}  # else 0.05


@pytest.mark.slow
@pytest.mark.parametrize("card", TRUTHS)
def test_a_fit_finds_the_field_again(card):
    """What made the fluxes is within three standard deviations, and those are small."""
    true, values = TRUTHS[card]
    maps = LineMaps.from_table(line_maps(true))
    short = {"chains": 2, "warmup": 200, "draws": 200, "progress": False}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # so few draws do not meet every criterion
        posterior = fit(load_model(card), maps, seed=1, **short)
    for name, value in values.items():
        draws = posterior["posterior"][name].values
        assert abs(draws.mean() - value) < 3 * draws.std(), name
        assert draws.std() < WIDE.get(name, 0.05), name


@pytest.mark.slow
@every_card
def test_every_card_is_fitted_and_drawn(card, tmp_path, monkeypatch, capsys):
    line_maps(lambda x, y: 8.2 + 0 * x, count=8).write(tmp_path / "fluxes.ecsv")
    command = f"metalgrad fit {tmp_path}/fluxes.ecsv --model {card}"
    command += f" --out {tmp_path}/fit --chains 2 --warmup 30 --draws 30"
    monkeypatch.setattr("sys.argv", command.split())
    monkeypatch.setattr(cli, "_keep_compiled", lambda: None)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        cli.main()
    said = capsys.readouterr().out
    summary = Table.read(tmp_path / "fit" / "summary.ecsv")
    names = {name.partition("[")[0] for name in summary["name"]}
    sites = trace(load_model(card).field).items()
    latent = {name for name, site in sites if site["type"] == "sample"}
    assert latent | {"central", "scatter"} <= names
    assert ("rho is fixed" in said) == card.startswith("gradient-rho")
    for name in ("gradient", "corner", "trace"):
        assert (tmp_path / "fit" / f"{name}.png").stat().st_size > 10_000


@pytest.mark.parametrize("card", ["azimuthal", "clump", "sources"])
def test_a_table_of_radii_is_refused(card):
    table = line_maps(lambda x, y: 8.2 + 0 * x, count=8)
    table["radius"] = np.linspace(0.0, 2.0, 8) * u.kpc
    with pytest.raises(ValueError, match="two dimensions, but the data have radii on"):
        fit(load_model(card), LineMaps.from_table(table), seed=1)

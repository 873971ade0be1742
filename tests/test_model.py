"""The generative story: its sites, its choice of ratios, its densities."""

import dataclasses
import itertools
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
import scipy.ndimage
import scipy.optimize
from numpyro import handlers
from test_scene import cut_out, patch, round_psf

from metalgrad import cards, dust, fields, lines
from metalgrad.calibrations import load_calibration
from metalgrad.hierarchy import split
from metalgrad.likelihood import LineLikelihood, from_line_maps
from metalgrad.model import Free, LineData, Model, load_model
from metalgrad.scene import lay_out
from metalgrad.starts import prior_points

pytestmark = pytest.mark.usefixtures("double_precision")

BALMER = ("Hdelta", "Hgamma", "Hbeta", "Halpha")
EVERYTHING = tuple(lines.catalogue())
SPAXELS = 4


def tables(names, flux, error):
    """A likelihood of line fluxes 0, 1, 2, ... kpc from the centre, along a line."""
    shape = (len(flux), len(names))
    radius = np.arange(float(shape[0]))
    maps = SimpleNamespace(
        lines=names,
        flux=np.broadcast_to(flux, shape),
        error=np.broadcast_to(error, shape),
        position=radius[:, None] * [0.6, 0.8],
    )
    return from_line_maps(maps)


def some_tables(names=EVERYTHING):
    rng = np.random.default_rng(0)
    return tables(names, rng.normal(8.0, 4.0, (SPAXELS, len(names))), 1.5)


def with_channels(data):
    """The same likelihood, but with line-free channels that tell the noise."""
    return dataclasses.replace(
        data,
        misfit=np.full((len(data), 1), 40.0),
        dof=np.full((len(data), 1), 40.0),
        has_channels=True,
    )


def untold(data):
    """Say of data that they tell no ratio, so that shared departures are drawn."""
    return dataclasses.replace(data, told=np.zeros(len(data.lines)))


def trace(model, data, **values):
    seeded = handlers.seed(handlers.substitute(model, values), 0)
    return handlers.trace(seeded).get_trace(data.with_arrays(data.arrays))


# Sites


CARDS = cards.names("calibrations")
ITS_OWN = "reddening_offset", "brightness_offset"  # of a spaxel, whatever the ratios


@pytest.mark.parametrize("name", cards.names("models"))
@pytest.mark.parametrize("channels", [True, False], ids=["channels", "none"])
def test_sites_and_their_shapes(name, channels):
    model = load_model(name)
    data = with_channels(some_tables()) if channels else some_tables()
    data = model.prepare(data)
    sites = trace(model, data)
    calibrated, free = model.choose(EVERYTHING)
    varied = sum(model.free[ratio].scatter > 0 for ratio in free)
    assert len(calibrated) > 1
    expected = {
        "rho": (),
        "shared_dispersion": (len(calibrated),),
        "typical_ratio": (len(calibrated),),
        "typical_ratio_decentered": (len(calibrated),),
        "local": (SPAXELS, len(calibrated)),
        "offset": (SPAXELS,),
        "log_ratio": (SPAXELS, len(calibrated)),
        "free_offset": (SPAXELS, varied),
        "reddening": (),
        "reddening_scatter": (),
        "reddening_scatter_signed": (),
        "reddening_offset": (SPAXELS,),
        "ebv": (SPAXELS,),
        "brightness": (),
        "fading": (),
        "clumpiness": (),
        "clumpiness_signed": (),
        "brightness_offset": (SPAXELS,),
        "line_flux": (SPAXELS, len(EVERYTHING)),
        "metallicity": (SPAXELS,),
        "central": (),
        "data": (SPAXELS, len(EVERYTHING)),
    } | {f"mean_{ratio}": () for ratio in free}
    if channels:
        expected["noise_scale"] = (1,)
    if name == "gradient-rho0":
        del expected["shared_dispersion"], expected["typical_ratio"]
        del expected["typical_ratio_decentered"]
    # Where all dispersion is the galaxy's a spaxel has only its metallicity to itself,
    # and else that is what the ratios' means depend on.
    if name == "gradient-rho1":
        del expected["local"]
    for site in ("offset", "local", "free_offset", *ITS_OWN):
        if site in expected:
            told = (SPAXELS, int(np.prod(expected[site][1:])))
            expected |= {f"{site}_amplitude": told, f"{site}_mean": told}
    expected["reddening_offset_bent"] = expected["reddening_offset_mean"]
    if name != "gradient-rho1":
        del expected["offset_mean"]
    for site, shape in expected.items():
        assert np.shape(sites[site]["value"]) == shape, site
    assert sites["data"]["is_observed"]
    others = {n for n, s in sites.items() if s["type"] != "plate"} - set(expected)
    seeded = handlers.seed(model.field.sample, 0)
    field = handlers.trace(seeded).get_trace(data.position, data.pivot)
    own = {name for name, site in field.items() if site["type"] != "plate"}
    assert others == own - {"central"} | {"scatter", "scatter_signed"}


LOOSE = [name for name in CARDS if not load_calibration(name).tied]


@pytest.mark.parametrize("calibration", LOOSE)
def test_ratios_depart_by_a_shared_and_a_local_part(calibration):
    """A single one, too, and of any calibration: the closed form, in NumPy."""
    model = load_model("flat", calibration=calibration)
    # Where the source gave no dispersion the user must: any will do here.
    given = dict.fromkeys(model.calibration.ratios, 0.1)
    known = model.calibration.with_dispersion(**given)
    model = dataclasses.replace(model, calibration=known)
    data = untold(model.prepare(some_tables()))
    ratios, _ = model.choose(data.lines)
    rng, shape = np.random.default_rng(8), (SPAXELS, len(ratios))
    values = {
        "level": 8.1,
        "rho": 0.36,
        "typical_ratio_decentered": jnp.asarray(rng.normal(size=len(ratios))),
        "local": jnp.asarray(rng.normal(size=shape)),
    }
    sites = trace(model, data, **values)

    def expect(z):
        means = [known.log_ratio(ratio, z) for ratio in ratios]
        widths = [known.dispersion(ratio, z) for ratio in ratios]
        return np.array(means, float), np.array(widths, float)

    mean, width = expect(np.array([8.1]))
    shared = 0.6 * values["typical_ratio_decentered"]
    np.testing.assert_allclose(sites["shared_dispersion"]["value"], shared)
    typical = mean[:, 0] + width[:, 0] * shared
    np.testing.assert_allclose(sites["typical_ratio"]["value"], typical)
    law = sites["typical_ratio_decentered"]["fn"]
    np.testing.assert_allclose([law.loc, law.scale], [0 * shared, 0 * shared + 1])
    law = sites["typical_ratio_decentered"]["infer"]["law"]
    np.testing.assert_allclose(law.loc, mean[:, 0])
    np.testing.assert_allclose(law.scale, 0.6 * width[:, 0])
    mean, width = expect(np.asarray(sites["metallicity"]["value"]))
    expected = mean.T + width.T * (shared + 0.8 * np.asarray(values["local"]))
    np.testing.assert_allclose(sites["log_ratio"]["value"], expected)


@pytest.mark.parametrize("name", ["gradient", "gradient-rho0", "gradient-rho1"])
def test_tied_ratios_follow_r3_with_both_parts(name):
    """Their departures in NumPy: R2's by -0.12 and S2's by -0.44 of R3's own."""
    model = load_model(name, calibration="curti23-tied")
    data = model.prepare(some_tables(("OII", "Hbeta", "OIII", "Halpha", "SII")))
    sites = {key: site["value"] for key, site in trace(model, data).items()}
    assert model.choose(data.lines)[0] == ("R3", "R2", "S2")
    rho = float(sites["rho"])
    own = np.zeros((SPAXELS, 3))
    if "shared_dispersion" in sites:
        assert "typical_ratio" not in sites
        own += np.asarray(sites["shared_dispersion"])
    if "local" in sites:
        own += np.sqrt(1 - rho) * np.asarray(sites["local"])
    z, known = sites["metallicity"], model.calibration
    mean = np.stack([known.log_ratio(r, z) for r in ("R3", "R2", "S2")], axis=1)
    apart = np.array([0.15, 0.17])
    follow = np.append(0.0, (0.09**2 + 0.11**2 - apart**2) / (2 * 0.09 * 0.11))
    departure = follow * own[:, :1] + np.sqrt(1 - follow**2) * own
    expected = np.asarray(mean) + departure * np.array([0.09, 0.11, 0.11])
    np.testing.assert_allclose(sites["log_ratio"], expected, rtol=1e-9)


def test_fluxes_follow_from_the_sites():
    """The whole story, step by step, in NumPy."""
    model, names = load_model(), ("OII", "Hbeta", "OIII", "Halpha")
    data = untold(model.prepare(some_tables(names)))
    pivot = float(data.pivot)
    metallicity = 7.9 - 0.1 * (np.arange(SPAXELS) - pivot)

    def calibrated(metallicity):
        """R3 and R2 of Curti et al. (2023b), whose dispersions are 0.09 and 0.11."""
        x = metallicity - 8.69
        log_r3 = np.polyval([-0.6003, -2.73, -3.1422, -0.2768], x)
        powers = [-0.2850, -2.3009, -5.5321, -5.1141, -1.0751, 0.4326]
        return np.array([log_r3, np.polyval(powers, x)])

    values = {
        "level": 7.9,
        "slope": -0.1,
        "scatter_signed": 0.0,
        "rho": 0.25,
        "typical_ratio_decentered": np.array([0.5, -1.0]) / 0.5,
        "offset": jnp.full(SPAXELS, 0.3),
        "local": jnp.array([[0.5, 1.0]] * SPAXELS),
        "reddening": 0.2,
        "reddening_scatter_signed": 0.5,
        "reddening_offset": jnp.linspace(-1.0, 1.0, SPAXELS),
        "brightness": 0.2,
        "fading": 0.15,
        "clumpiness_signed": 0.5,
        "brightness_offset": jnp.linspace(0.0, 0.3, SPAXELS),
    }
    sites = trace(model, data, **values)
    np.testing.assert_allclose(sites["shared_dispersion"]["value"], [0.5, -1.0])
    np.testing.assert_allclose(sites["metallicity"]["value"], metallicity)
    np.testing.assert_allclose(sites["central"]["value"], 7.9 + 0.1 * pivot)
    log_r3, log_r2 = calibrated(metallicity)  # half of the sd is shared
    log_r3 += 0.09 * (0.5 + np.sqrt(0.75) * 0.5)
    log_r2 += 0.11 * (-1.0 + np.sqrt(0.75) * 1.0)
    # E(B-V) is log(1 + exp x), x straight in departures, with d ln E(B-V) = 0.5 at 0.2
    x, steep = np.log(np.expm1(0.2)), 0.2 / (1 - np.exp(-0.2))
    ebv = np.logaddexp(0, x + steep * 0.5 * np.linspace(-1.0, 1.0, SPAXELS))
    np.testing.assert_allclose(sites["ebv"]["value"], ebv)
    flux = np.asarray(sites["line_flux"]["value"])
    oii, hbeta, oiii, halpha = (flux[:, names.index(n)] for n in names)
    k = dict(zip(names, dust.calzetti(lines.wavelengths(names)), strict=True))

    def dimmed(log_ratio, above, below):
        return 10 ** (log_ratio - 0.4 * ebv * (k[above] - k[below]))

    np.testing.assert_allclose(oiii / hbeta, dimmed(log_r3, "OIII", "Hbeta"))
    np.testing.assert_allclose(oii / hbeta, dimmed(log_r2, "OII", "Hbeta"))
    balmer = dimmed(np.log10(2.8632), "Halpha", "Hbeta")  # Storey & Hummer (1995)
    np.testing.assert_allclose(halpha / hbeta, balmer)
    disc = (
        data.typical[data.lines.index("OIII")]
        + 0.2
        - 0.15 * (np.arange(SPAXELS) / pivot - 1)
    )
    clumps = 0.5 * np.linspace(0.0, 0.3, SPAXELS)
    np.testing.assert_allclose(np.log10(oiii), disc + clumps)


@pytest.mark.parametrize("signed", [0.21, -0.21])
def test_scatter_multiplies_the_offsets_of_a_single_ratio(signed):
    model = load_model("flat", calibration="marino13-n2")
    data = model.prepare(some_tables())
    offset = jnp.linspace(-1.2, 2.0, SPAXELS)
    sites = trace(model, data, level=8.2, scatter_signed=signed, offset=offset)
    np.testing.assert_allclose(sites["scatter"]["value"], 0.21)
    found = sites["metallicity"]["value"]
    np.testing.assert_allclose(found, 8.2 + signed * offset)


def test_noise_scale_is_one_without_channels():
    model = load_model()
    assert "noise_scale" not in trace(model, model.prepare(some_tables()))


def test_draws_of_the_data_have_their_noise():
    model = load_model()
    data = model.prepare(with_channels(some_tables()))
    flux = jnp.full((SPAXELS, len(data.lines)), 5.0)
    likelihood = LineData(data, flux, jnp.array([2.0]))
    draws = np.asarray(likelihood.sample(jax.random.key(0), (4000,)))
    assert draws.shape == (4000, SPAXELS, len(data.lines))
    mean = np.einsum("srl,sl->sr", data.root, flux)
    np.testing.assert_allclose(draws.mean(0), mean, atol=5 * 2 / np.sqrt(4000))
    np.testing.assert_allclose(draws.std(0), 2.0, rtol=0.07)
    residual = likelihood.residuals(draws[0])
    np.testing.assert_allclose(residual, (mean - draws[0]) / 2.0, rtol=1e-6)


# The choice of ratios


@pytest.mark.parametrize("calibration", cards.names("calibrations"))
@pytest.mark.parametrize("count", [1, 2, 3, len(EVERYTHING)])
def test_every_choice_is_a_chain(calibration, count):
    """Whatever the data: a refusal, or a tree that can be grown."""
    model = load_model(calibration=calibration)
    for names in itertools.combinations(EVERYTHING, count):
        try:
            calibrated, free = model.choose(names)
        except ValueError:  # its words are tested below
            assert count < len(EVERYTHING)
            continue
        assert set(calibrated) <= set(model.calibration.relations)
        assert not set(free) & set(calibrated)
        tree = lines.grow_tree(calibrated + free, lines.case_b())
        new = set(tree.lines) - set(lines.case_b())
        assert new <= set(names)
        assert len(new) == len(calibrated + free)


CHOICES = {
    ("curti23", EVERYTHING): (("R3", "R2", "Ne3O2", "S2"), ("N2", "O3_auroral")),
    ("curti23", ("OIII", "Hbeta")): (("R3",), ()),
    ("curti23", ("OII", "OIII")): (("R3", "R2"), ()),
    ("curti23", ("OII", "NeIII")): (("R2", "Ne3O2"), ()),
    ("curti23", ("Hbeta", "OIII", "NII", "Halpha")): (("R3",), ("N2",)),
    ("nakajima22", EVERYTHING): (("R3",), ("N2", "O3_auroral")),
    ("sanders24", ("OII", "Hbeta", "OIII")): (("R3", "R2"), ()),
    ("bian18", EVERYTHING): (("R3sum",), ("N2", "O3_auroral")),
    ("marino13-n2", EVERYTHING): (("N2",), ()),
    ("marino13-o3n2", EVERYTHING): (("O3N2",), ("N2", "O3_auroral")),
}


@pytest.mark.parametrize(("given", "expected"), CHOICES.items())
def test_choices_are_as_a_reader_would_make_them(given, expected):
    calibration, names = given
    assert load_model(calibration=calibration).choose(names) == expected


@pytest.mark.parametrize("names", [(), BALMER, ("NII", "Halpha"), ("OIII_4364",)])
def test_data_without_a_ratio_are_refused(names):
    found = ", ".join(names) or "no line"
    wanted = (
        f"^the data have {found}, from which no ratio of calibration curti23 can be "
        r"formed \(R3 needs Hbeta, OIII; .*\); check the redshift"
    )
    with pytest.raises(ValueError, match=wanted):
        load_model().choose(names)


def test_an_explicit_sum_is_refused():
    model = Model(load_calibration("nakajima22"), ratios=("R3", "R23"))
    calibrated, free = model.choose(("OII", "Hbeta", "OIII"))
    with pytest.raises(ValueError, match="ratio R23 is a sum of lines"):
        lines.grow_tree(calibrated + free, lines.case_b())


def test_prepare_drops_what_no_ratio_sets_and_nothing_measures():
    model = load_model(calibration="sanders24")
    names = ("OII", "Hbeta", "OIII", "Halpha", "SII")
    error = np.array([1.0, 1.0, 1.0, np.inf, 1.0])
    data = tables(names, np.full((SPAXELS, 5), 3.0), error)
    assert model.prepare(data).lines == ("OII", "Hbeta", "OIII")


def test_an_unmeasured_anchor_does_no_harm():
    model, names = load_model(), ("OII", "Hbeta", "OIII", "Halpha")
    error = np.array([1.0, 1.0, np.inf, 1.0])
    data = model.prepare(tables(names, np.full((SPAXELS, 4), 9.0), error))
    assert data.lines == ("OII", "Hbeta", "Halpha")
    flux = trace(model, data)["line_flux"]["value"]
    assert np.all(flux < 1e6)


# Densities


@pytest.fixture(scope="module", params=cards.names("models"))
def compiled(request):
    """A model of every card, with its density and gradient compiled."""
    model = load_model(request.param)
    data = some_tables()
    data.white[:, data.lines.index("OII")] = -2.0  # not detected
    hierarchy = split(model, model.prepare(with_channels(data)))
    arrays = hierarchy.data.arrays
    function = jax.value_and_grad(lambda *p: hierarchy.potential(arrays, *p), (0, 1))
    return hierarchy, jax.jit(function)


TYPICAL = {"level": 8.0, "reddening": 0.2, "scatter_signed": 0.1}
TYPICAL |= {"reddening_scatter_signed": -0.3}


def move(hierarchy, **values):
    """Unconstrained coordinates at 0, but for what is typical and ``values``."""
    theta, z = (jnp.zeros(size) for size in hierarchy.sizes)
    z = jnp.broadcast_to(z, (SPAXELS, *z.shape))
    sites = hierarchy.unpack(theta, z)[0] | TYPICAL | values
    theta = [
        jnp.ravel(transform.inv(jnp.broadcast_to(sites[name], shape)))
        for name, (shape, transform) in hierarchy.galaxy.items()
    ]
    z = [
        jnp.broadcast_to(sites[name], (SPAXELS, *shape)).reshape(SPAXELS, -1)
        for name, shape in hierarchy.unit.items()
    ]
    return jnp.concatenate(theta), jnp.concatenate(z, axis=1)


EXTREMES = [{}] + [
    {"level": level, "brightness_offset": bright, "reddening": red, "rho": rho}
    for level in (6.0, 8.0, 10.0)
    for bright in (-5.0, 5.0)
    for red, rho in ((1e-6, 1e-6), (5.0, 1 - 1e-6))
]


def test_density_and_gradient_are_finite_everywhere(compiled):
    hierarchy, function = compiled
    for values in EXTREMES:
        potential, (by_galaxy, by_spaxel) = function(*move(hierarchy, **values))
        assert np.isfinite(potential), values
        assert np.isfinite(by_galaxy).all(), values
        assert np.isfinite(by_spaxel).all(), values


# Light on a scene

SOME = ("OII", "Hbeta", "OIII", "Halpha")


def mapped(rows=7, columns=10, *, psf=None, model=None):
    """A model split for a disc of constant ratios on a map."""
    spaxels = cut_out(patch(rows, columns))
    rng = np.random.default_rng(4)
    bright = 40 * np.exp(-np.hypot(*spaxels.position.T))
    flux = bright[:, None] * np.array([1.2, 1.0, 5.0, 2.9])
    data = tables(SOME, flux + rng.normal(size=flux.shape), 1.0)
    observed = lines.wavelengths(SOME) * (1 + spaxels.redshift)
    scene = lay_out(spaxels, data.signal(), observed, psf)
    data = dataclasses.replace(data, position=spaxels.position, pivot=None, scene=scene)
    return split(model, model.prepare(with_channels(data)))


@pytest.mark.parametrize("name", cards.names("models"))
def test_gradient_on_a_scene_is_finite_where_chains_start(name):
    """At the prior's median, with and without departures, and far from it."""
    hierarchy = mapped(psf=round_psf(), model=load_model(name))
    arrays = hierarchy.data.arrays
    function = jax.jit(jax.value_and_grad(hierarchy.potential, (1, 2)))
    rng = np.random.default_rng(5)
    units = 1 if hierarchy.coupled else len(hierarchy.data)
    for theta in prior_points(hierarchy, hierarchy.data.arrays, jax.random.key(1), 3):
        for scale in (0.0, 1.0, 3.0):
            z = jnp.asarray(scale * rng.normal(size=(units, hierarchy.sizes[1])))
            value, slopes = function(arrays, theta, z)
            assert np.isfinite(value)
            assert all(np.isfinite(slope).all() for slope in slopes)


def test_sites_on_a_scene_have_the_shape_of_the_data():
    hierarchy = mapped(psf=round_psf(), model=load_model())
    theta = prior_points(hierarchy, hierarchy.data.arrays, jax.random.key(1), 1)[0]
    z = jnp.zeros((1, hierarchy.sizes[1]))
    sites = jax.jit(hierarchy.sites)(hierarchy.data.arrays, theta, z)
    count = len(hierarchy.data)
    for name, shape in {
        "metallicity": (count,),
        "ebv": (count,),
        "log_ratio": (count, 2),
        "line_flux": (count, 4),
        "length": (),
        "clumpiness": (),
    }.items():
        assert sites[name].shape == shape, name
    # Without departures metallicity is a straight line in radius, where it is seen;
    # between cells a (0.5 kpc) apart it may err by the slope times a^2 / 8r.
    radius = np.hypot(*np.asarray(hierarchy.data.position).T)
    line = sites["level"] + sites["slope"] * (radius - hierarchy.data.pivot)
    bound = np.abs(sites["slope"]) * 0.5**2 / (8 * np.maximum(radius - 0.35, 0.1))
    found = np.asarray(sites["metallicity"])
    assert np.all(np.abs(found - line) <= bound)


def turned(quarters, model, rows=9, columns=13):
    """Data of a map turned by quarters, each spaxel with its own fluxes."""
    keep = np.rot90(patch(rows, columns), quarters)
    names = np.rot90(np.arange(rows * columns).reshape(rows, columns), quarters)
    spaxels = cut_out(keep)
    rng = np.random.default_rng(6)
    flux = rng.normal(4.0, 2.0, (rows * columns, len(SOME)))[names[keep]]
    data = tables(SOME, flux, 1.0)
    place = spaxels.index - spaxels.index.min(axis=0)
    place = place - (np.array(keep.shape) - 1) / 2
    spaxels = dataclasses.replace(spaxels, position=place[:, ::-1] * 0.25)
    observed = lines.wavelengths(SOME) * (1 + spaxels.redshift)
    scene = lay_out(spaxels, data.signal(), observed, round_psf())
    data = dataclasses.replace(data, position=spaxels.position, pivot=None, scene=scene)
    return split(model, model.prepare(data))


@pytest.mark.parametrize("quarters", [1, 2])
def test_turning_the_sky_changes_nothing(quarters):
    """Nor does it for departures, if their waves are turned along."""
    model = load_model("gradient")
    plain, other = turned(0, model), turned(quarters, model)
    rng = np.random.default_rng(7)
    theta = prior_points(plain, plain.data.arrays, jax.random.key(1), 2)[1]
    scene = plain.data.scene
    counts = {s.frequency.size: s.frequency.shape for s in (scene, scene.coarse)}
    assert len({shape[0] for shape in plain.unit.values()}) == len(counts) == 2
    z, moved = [], []
    for shape in plain.unit.values():
        waves = rng.normal(size=(*counts[shape[0]], *shape[1:]))
        z.append(waves.ravel())
        for _ in range(quarters):  # turned, odd waves along the new rows change sign
            waves = np.swapaxes(waves, 0, 1)
            sign = (-1.0) ** np.arange(len(waves))
            waves = waves * sign.reshape(-1, *([1] * (waves.ndim - 1)))
        moved.append(waves.ravel())
    found = [
        jax.jit(h.potential)(h.data.arrays, theta, jnp.asarray(np.concatenate(x))[None])
        for h, x in ((plain, z), (other, moved))
    ]
    np.testing.assert_allclose(found[1], found[0], rtol=1e-9)


KINDS = {
    name: cards.read("models", name)["field"]["kind"] for name in cards.names("models")
}
RADIAL = [
    n for n, kind in KINDS.items() if kind in ("Flat", "LinearGradient", "Broken")
]


@pytest.mark.parametrize("name", RADIAL)
def test_turning_a_table_changes_nothing(name):
    """Only radii matter to a field of radius; to a flat one not even those do."""
    model, data = load_model(name), some_tables()
    data = dataclasses.replace(data, position=data.position + 0.3)
    angle = np.radians(90 + 37)
    turn = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    places = [data.position, data.position @ np.array(turn)]
    rng = np.random.default_rng(8)
    found = []
    for place in places:
        moved = dataclasses.replace(data, position=place, pivot=None)
        hierarchy = split(model, model.prepare(moved))
        if not found:
            theta = jnp.asarray(0.5 * rng.normal(size=hierarchy.sizes[0]))
            z = jnp.asarray(rng.normal(size=(SPAXELS, hierarchy.sizes[1])))
        found.append(hierarchy.potential(hierarchy.data.arrays, theta, z))
    np.testing.assert_allclose(found[1], found[0], rtol=1e-10)


def test_light_is_seen_through_the_psf():
    """What a line's map loses in height where nothing departs, SciPy loses too."""
    hierarchy = mapped(13, 16, psf=round_psf(0.2), model=load_model("flat"))
    data = hierarchy.data
    theta = prior_points(hierarchy, hierarchy.data.arrays, jax.random.key(1), 1)[0]
    z = jnp.zeros((1, hierarchy.sizes[1]))
    names = [*hierarchy.galaxy]
    starts = np.cumsum([0, *(int(np.prod(s)) for s, _ in hierarchy.galaxy.values())])
    theta = theta.at[starts[names.index("fading")]].set(0.3)
    sites = jax.jit(hierarchy.sites)(data.arrays, theta, z)
    bright, fading = sites["brightness"], sites["fading"]
    # An exponential disc, sampled nine times a spaxel, blurred by SciPy.
    y, x = (np.arange(-20 * 9, (n + 20) * 9) / 9 + 1 / 18 - 0.5 for n in (13, 16))
    radius = np.hypot((y - 6.3)[:, None], x - 7.3) * 0.25
    level = data.typical[data.lines.index("OIII")] + bright
    light = 10 ** (level - fading * (radius / data.pivot - 1))
    sigma = 0.2 / 2.354820 / 0.05 * 9
    seen = scipy.ndimage.gaussian_filter(light, sigma, truncate=5)
    seen = seen[20 * 9 + 4 : -20 * 9 : 9, 20 * 9 + 4 : -20 * 9 : 9]
    expected = seen.ravel()[np.asarray(data.scene.pick)]
    found = sites["line_flux"][:, data.lines.index("OIII")]
    np.testing.assert_allclose(found, expected, rtol=0.02)


def test_a_line_that_is_not_detected_may_be_negative():
    """A flux of -2 +- 1 prefers a faint line to a bright one, and says by how much."""
    names = ("OII", "Hbeta", "OIII")
    model = load_model()
    data = model.prepare(tables(names, np.array([[-2.0, 10.0, 50.0]]), 1.0))

    def density(flux):
        flux = jnp.array([[flux, 10.0, 50.0]])
        return LineData(data, flux, jnp.ones(1)).log_prob(data.white)[0]

    np.testing.assert_allclose(density(0.5) - density(3.0), (25 - 6.25) / 2)


@pytest.mark.parametrize("ebv", [0.05, 0.3, 1.2])
def test_the_balmer_decrement_sets_the_reddening(ebv):
    """Noiseless Hα and Hβ: the likelihood peaks at the textbook's E(B-V)."""
    k_alpha, k_beta = dust.calzetti(lines.wavelengths(("Halpha", "Hbeta")))
    observed = 2.8632 * 10 ** (0.4 * ebv * (k_beta - k_alpha))
    names = ("Hbeta", "OIII", "Halpha")
    model = load_model("flat")
    flux, error = np.array([[10.0, 30.0, 10.0 * observed]]), np.array([0.1, 1e4, 0.1])
    data = model.prepare(tables(names, flux, error))

    @jax.jit
    def misfit(point):
        values = {"reddening": point[0], "brightness_offset": point[1:]}
        values |= {"reddening_offset": jnp.zeros(1)}
        site = trace(model, data, **values)["data"]
        return 0.5 * jnp.sum(site["fn"].residuals(site["value"]) ** 2)

    start = np.array([0.5, -2.0])
    found = scipy.optimize.minimize(
        misfit, start, jac=jax.grad(misfit), method="L-BFGS-B", options={"ftol": 1e-14}
    )
    np.testing.assert_allclose(found.x[0], ebv, atol=2e-3)


def test_the_clip_of_fluxes_is_far_from_any_flux():
    """Fluxes go from a float's least to its largest: none overflows."""
    model = load_model()
    data = model.prepare(some_tables())
    flux = trace(model, data, brightness_offset=jnp.full(SPAXELS, 1e3))["line_flux"]
    assert np.isfinite(flux["value"]).all()


# Cards


def test_a_card_becomes_a_model():
    model = load_model("gradient")
    assert model.name == "gradient"
    assert isinstance(model.field, fields.LinearGradient)
    assert model.field.slope.scale == 0.2
    assert model.calibration.name == "curti23"
    assert model.free["N2"].scatter == 0.3
    assert isinstance(model.free["O3_auroral"], Free)
    assert isinstance(model.rho, dist.Uniform)


def test_another_calibration_than_the_cards():
    model = load_model("flat", calibration="marino13-o3n2")
    assert model.calibration.name == "marino13-o3n2"


BAD_CARDS = {
    'kind = "Spiral"': "field kind 'Spiral' is not known; use one of .*Flat, Linear",
    'kind = "Flat"\nslope = { Normal = [0, 1] }': "slope",
    'kind = "Flat"\nlevel = { Normal = [8, -1] }': r"prior of level .* NumPyro",
    'kind = "Flat"\nlevel = { Norml = [8, 1] }': r"prior of level .* NumPyro",
    'kind = "Flat"\nlevel = { Normal = [8], HalfNormal = [1] }': r"prior of level",
    'kind = "Flat"\nlevel = "high"': r"prior of level .* NumPyro",
    'kind = "Clump"': "lacks the key 'place'",
    'kind = "Clump"\nplace = [1, 2, 3]\nsize = 1': "the clump has the place .* two num",
    'kind = "Clump"\nplace = ["a", 2]\nsize = 1': "place has 'a' where a number",
    'kind = "Clump"\nplace = [1, 2]\nsize = 0': "the clump has the size 0",
    'kind = "Sources"\nplaces = {}': "the field has 0 sources",
    'kind = "Sources"\nplaces = { a = [1] }': "source a has the place",
}


@pytest.mark.parametrize(("table", "message"), BAD_CARDS.items())
def test_a_bad_card_is_refused(tmp_path, table, message):
    card = tmp_path / "mine.toml"
    card.write_text(f'summary = "."\ncalibration = "curti23"\n[field]\n{table}\n')
    with pytest.raises(ValueError, match=message):
        load_model(card)


def test_an_unknown_key_is_refused(tmp_path):
    card = tmp_path / "mine.toml"
    card.write_text(
        'summary = "."\ncalibration = "curti23"\nbrightnes = 2\n'
        '[field]\nkind = "Flat"\n'
    )
    with pytest.raises(ValueError, match="brightnes"):
        load_model(card)


def test_line_likelihood_is_what_prepare_returns():
    assert isinstance(load_model().prepare(some_tables()), LineLikelihood)


@pytest.mark.parametrize("given", ['["r3", "O32"]', '"R3"', "[]"])
def test_misspelt_ratios_are_refused(tmp_path, given):
    card = tmp_path / "mine.toml"
    field = '[field]\nkind = "Flat"\nlevel = { Normal = [8.0, 0.5] }\nscatter = 0.1\n'
    card.write_text(
        f'summary = "."\ncalibration = "curti23"\nratios = {given}\n{field}'
    )
    with pytest.raises(
        ValueError, match=r"ratios of model card .*mine.toml are .* R3,"
    ):
        load_model(card)

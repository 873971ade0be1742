"""The generative model: its sites, its arithmetic, and what it makes of odd data."""

from dataclasses import replace
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
from numpy.testing import assert_allclose
from numpyro import handlers
from numpyro.infer import init_to_median
from numpyro.infer.util import log_density

from metalgrad import cards, fields
from metalgrad.calibrations import load_calibration
from metalgrad.likelihood import from_line_maps
from metalgrad.model import Free, LineData, Model, load_model

LINES = ("OII", "NeIII", "Hgamma", "OIII_4364", "Hbeta", "OIII", "NII", "Halpha", "SII")
COUNT = 5
CURTI = {
    "R3": (-0.2768, -3.1422, -2.73, -0.6003),
    "N2": (-0.489, 1.513, -2.554, -5.293),
}
CURTI["R2"] = (0.4326, -1.0751, -5.1141, -5.5321, -2.3009, -0.2850)


@pytest.fixture(autouse=True)
def double():
    with jax.enable_x64(True):  # noqa: FBT003
        yield


def make_data(names=LINES, count=COUNT, *, channels=True, **change):
    """Line fluxes of a few spaxels, the faint ones lost in noise."""
    rng = np.random.default_rng(len(names))
    maps = SimpleNamespace(
        lines=names,
        flux=rng.normal(3.0, 4.0, (count, len(names))),
        error=rng.uniform(0.5, 2.0, (count, len(names))),
        position=rng.normal(0.4, 1.5, (count, 2)),
    )
    vars(maps).update(change)
    data = from_line_maps(maps)
    return replace(data, has_channels=channels, misfit=7.1 + data.misfit)


def trace(model, data, **values):
    seeded = handlers.seed(handlers.substitute(model, values), 3)
    return handlers.trace(seeded).get_trace(data)


def median(model, data):
    """Return every latent at its prior's median."""
    start = handlers.substitute(
        handlers.seed(model, 3), substitute_fn=init_to_median(num_samples=50)
    )
    sites = handlers.trace(start).get_trace(data).items()
    return {
        name: site["value"]
        for name, site in sites
        if site["type"] == "sample" and not site["is_observed"]
    }


# ------------------------------------------------------------------------- structure


def test_sites_and_their_shapes():
    data = make_data()
    shapes = {
        name: np.shape(site["value"])
        for name, site in trace(load_model("gradient"), data).items()
        if site["type"] in ("sample", "deterministic")
    }
    galaxy = dict.fromkeys(
        ("level", "slope", "central", "scatter", "rho", "reddening"), ()
    )
    galaxy |= {"reddening_scatter": (), "mean_N2": (), "mean_O3_auroral": ()}
    galaxy |= {"shared_dispersion": (4,), "noise_scale": (1,)}
    spaxel = {"offset": (), "reddening_offset": (), "brightness_offset": ()}
    spaxel |= {"local_dispersion": (4,), "free_offset": (1,), "log_ratio": (4,)}
    spaxel |= {"ebv": (), "metallicity": (), "line_flux": (9,), "data": (9,)}
    assert shapes == galaxy | {k: (COUNT, *shape) for k, shape in spaxel.items()}


def test_without_channels_the_noise_is_as_given():
    sites = trace(load_model("gradient"), make_data(channels=False))
    assert "noise_scale" not in sites
    assert_allclose(sites["data"]["fn"].noise_scale, 1.0)


@pytest.mark.parametrize("name", cards.names("models"))
def test_spaxels_are_independent_given_the_galaxy(name):
    model, data = load_model(name), make_data()
    values = median(model, data)
    own = [k for k, v in values.items() if np.shape(v)[:1] == (COUNT,)]
    assert own
    changed = {k: values[k].at[2].add(0.7) for k in own}

    def likelihood(values):
        return trace(model, data, **values)["data"]["fn"].log_prob(data.white)

    before, after = likelihood(values), likelihood(values | changed)
    others = [0, 1, 3, 4]
    assert_allclose(after[np.array(others)], before[np.array(others)], rtol=1e-12)
    assert abs(after[2] - before[2]) > 1e-3


# ----------------------------------------------------------------------- arithmetic


def test_fluxes_are_those_of_plain_arithmetic():
    """Metallicity to ratios to fluxes to dust, once more and in NumPy."""
    rng, data = np.random.default_rng(8), make_data(("OII", "Hbeta", "OIII", "Halpha"))
    model = Model(load_calibration("curti23"), ratios=("R3", "R2"))
    local, offset = rng.normal(0, 1, (COUNT, 2)), rng.normal(0, 1, (3, COUNT))
    values = {"level": 8.07, "slope": -0.06, "scatter": 0.1, "offset": offset[0]}
    values |= {"rho": 0.3, "shared_dispersion": np.array([0.4, -1.1])}
    values |= {"local_dispersion": local, "reddening": 0.2, "reddening_scatter": 0.4}
    values |= {"reddening_offset": offset[1], "brightness_offset": offset[2]}
    values |= {"noise_scale": np.ones(1)}
    sites = trace(model, data, **{k: jnp.asarray(v) for k, v in values.items()})

    radius = np.hypot(*np.asarray(data.position).T)
    metallicity = 8.07 - 0.06 * (radius - float(data.pivot())) + 0.1 * offset[0]
    assert_allclose(sites["metallicity"]["value"], metallicity)
    x = metallicity - 8.69
    ratio = np.stack([np.polynomial.Polynomial(CURTI[r])(x) for r in ("R3", "R2")], 1)
    spread = np.sqrt(0.3) * np.array([0.4, -1.1]) + np.sqrt(0.7) * local
    r3, r2 = (ratio + np.array([0.09, 0.11]) * spread).T
    ebv = 0.2 * np.exp(0.4 * offset[1])
    relative = np.stack([r2, 0 * r2, r3, np.log10(2.8632) + 0 * r2], axis=1)
    relative -= 0.4 * ebv[:, None] * np.array([5.856, 4.597, 4.463, 3.325])
    bright = float(data.typical("OIII")) + offset[2]
    expected = 10 ** (bright[:, None] + relative - relative[:, 2:3])
    # k(λ) to three decimals, and [O II] at its stronger member
    assert_allclose(sites["line_flux"]["value"], expected, rtol=2e-3)


def test_balmer_decrement_gives_the_reddening():
    """Noiseless fluxes of a closed form: their likelihood peaks at the true E(B-V)."""
    ebv, hbeta, r3 = 0.31, 40.0, 0.77
    curve = {"Hbeta": 4.597, "OIII": 4.463, "Halpha": 3.325}
    emitted = {"Hbeta": hbeta, "OIII": hbeta * 10**r3, "Halpha": 2.8632 * hbeta}
    flux = [emitted[line] * 10 ** (-0.4 * ebv * curve[line]) for line in curve]
    data = make_data(
        tuple(curve), 1, flux=np.array([flux]), error=np.ones((1, 3)), channels=False
    )
    # the ratio itself is free, so only the decrement tells
    model = Model(load_calibration("curti23").with_dispersion(R3=1.0))
    values = median(model, data) | {"rho": jnp.array(0.0)}
    values |= {k: jnp.zeros_like(values[k]) for k in ("reddening_offset", "scatter")}

    def best(reddening):
        """Maximise over brightness and ratio: both are linear in log flux."""
        sites = trace(model, data, **values, reddening=jnp.array(reddening))
        model_flux = np.asarray(sites["line_flux"]["value"])[0]
        log_ratio = np.log10(np.array(flux) / model_flux)
        # [O III] is matched by brightness, Hβ by the ratio; Hα is what is left
        left = log_ratio[2] - log_ratio[0]
        return -abs(left)

    del values["reddening"]
    grid = np.arange(0.0, 0.9, 0.01)
    assert_allclose(grid[np.argmax([best(e) for e in grid])], ebv, atol=0.011)


def test_a_typical_galaxy_is_as_bright_as_the_data():
    data = make_data()
    sites = trace(load_model("flat"), data, brightness_offset=jnp.zeros(COUNT))
    anchor = np.asarray(sites["line_flux"]["value"])[:, LINES.index("OIII")]
    assert_allclose(anchor, 10 ** data.typical("OIII"), rtol=1e-9)


@pytest.mark.parametrize("names", [("OII", "NeIII"), ("SII", "NII"), ("Hbeta", "NII")])
def test_data_without_oxygen_and_balmer_anchors_run(names):
    model, data = (
        replace(load_model("flat"), ratios=("R2", "Ne3O2", "S2")),
        make_data(names),
    )
    if names == ("Hbeta", "NII"):
        with pytest.raises(ValueError, match="the data have Hbeta, NII, from which no"):
            model.prepare(data)
        return
    sites = trace(model, model.prepare(data))
    assert np.isfinite(sites["line_flux"]["value"]).all()


# -------------------------------------------------------------- finite whatever comes


EXTREMES = [
    {"level": 6.0},
    {"level": 10.0},
    {"brightness_offset": -5.0},
    {"brightness_offset": 5.0},
    {"reddening": 3.0, "reddening_scatter": 2.0, "reddening_offset": 2.0},
    {"reddening": 1e-6},
    {"rho": 1e-6, "local_dispersion": 4.0},
    {"rho": 1 - 1e-6, "shared_dispersion": -4.0},
    {"scatter": 2.0, "offset": -3.0},
    {"noise_scale": 0.1},
]


@pytest.mark.parametrize(
    "double", [False, True], ids=["float32", "float64"], indirect=False
)
@pytest.mark.parametrize("name", cards.names("models"))
def test_density_and_gradient_are_finite(name, double):
    model = load_model(name)
    with jax.enable_x64(double):
        data = make_data()
        data = data.with_arrays(data.arrays)
        start = median(model, data)

        @jax.jit
        def evaluate(values):
            return jax.value_and_grad(lambda v: log_density(model, (data,), {}, v)[0])(
                values
            )

        for extreme in ({}, *EXTREMES):
            moved = {
                k: jnp.full_like(start[k], v) for k, v in extreme.items() if k in start
            }
            value, gradient = evaluate(start | moved)
            assert np.isfinite(value), extreme
            for site, slope in gradient.items():
                assert np.isfinite(slope).all(), (extreme, site)


@pytest.mark.parametrize("name", cards.names("models"))
def test_absent_lines_may_have_negative_fluxes(name):
    rng = np.random.default_rng(2)
    flux = rng.normal(0, 1, (COUNT, len(LINES)))
    flux[:, LINES.index("OII")] = -2.0
    data, model = make_data(flux=flux), load_model(name)
    assert np.isfinite(log_density(model, (data,), {}, median(model, data))[0])


def test_a_line_without_any_measurement_is_left_out():
    error = np.ones((COUNT, len(LINES)))
    error[:, LINES.index("OII")] = np.inf
    prepared = load_model("gradient").prepare(make_data(error=error))
    assert "OII" not in prepared.lines
    assert "OIII" in prepared.lines


# ----------------------------------------------------------------------- which ratios


CHOICES = [
    ("curti23", LINES, ("R3", "R2", "Ne3O2", "S2"), ("N2", "O3_auroral")),
    ("curti23", ("Hbeta", "OIII"), ("R3",), ()),
    ("curti23", ("OII", "OIII"), ("R3", "R2"), ()),
    ("curti23", ("OII", "NeIII", "Hbeta"), ("R2", "Ne3O2"), ()),
    ("curti23", ("Halpha", "SII"), ("S2",), ()),
    ("sanders24", LINES, ("R3", "R2", "Ne3O2"), ("N2", "O3_auroral")),
    ("cataldi25", ("OII", "OIII", "Hbeta"), ("R3", "R2"), ()),
    ("nakajima22", LINES, ("R3",), ("N2", "O3_auroral")),
    ("bian18", LINES, ("R3sum",), ("N2", "O3_auroral")),
    ("marino13-n2", LINES, ("N2",), ()),
    ("marino13-n2", ("Halpha", "NII"), ("N2",), ()),
    ("marino13-o3n2", LINES, ("O3N2",), ("N2", "O3_auroral")),
    ("pettini04-o3n2", ("Halpha", "NII", "OIII", "Hbeta"), ("O3N2",), ("N2",)),
]


@pytest.mark.parametrize(("name", "names", "calibrated", "free"), CHOICES)
def test_choice_of_ratios(name, names, calibrated, free):
    assert load_model(calibration=name).choose(names) == (calibrated, free)


@pytest.mark.parametrize("name", cards.names("calibrations"))
@pytest.mark.parametrize("names", [LINES, ("Hbeta", "OIII"), ("OII", "OIII"), ()])
def test_every_calibration_chooses_or_explains(name, names):
    model = load_model(calibration=name)
    try:
        calibrated, free = model.choose(names)
    except ValueError as error:
        assert f"no ratio of calibration {name} can be formed" in str(error)  # noqa: PT017
        assert names != LINES
        return
    for ratio in calibrated:
        assert ratio in model.calibration.relations
    # what was chosen makes a tree, and gives fluxes where the dispersions are known
    for ratio in calibrated:
        if model.calibration[ratio].dispersion is None:
            known = model.calibration.with_dispersion(**{ratio: 0.1})
            model = replace(model, calibration=known)
    data = model.prepare(make_data(names))
    assert set(data.lines) <= set(names)
    assert np.isfinite(trace(model, data)["line_flux"]["value"]).all()
    assert len(free) <= 2


def test_no_line_is_refused():
    with pytest.raises(
        ValueError, match=r"no ratio of calibration curti23 can be formed"
    ):
        load_model().choose(())


def test_missing_dispersion_is_explained():
    model, data = load_model(calibration="cataldi25"), make_data()
    with pytest.raises(ValueError, match=r"with_dispersion\(R3=...\)"):
        trace(model, model.prepare(data))


def test_lines_that_no_ratio_sets_are_integrated_out():
    data = make_data(channels=False)
    prepared = replace(load_model("gradient"), free={}).prepare(data)
    assert prepared.lines == tuple(n for n in LINES if n not in ("OIII_4364", "NII"))
    flux, _ = prepared.best_flux()
    index = [LINES.index(name) for name in prepared.lines]
    assert_allclose(flux, data.best_flux()[0][:, index])


def test_a_free_ratio_without_scatter_is_one_number():
    free = {
        "N2": Free(dist.Normal(-1.2, 0.5)),
        "O3_auroral": Free(dist.Normal(-2, 0.2)),
    }
    model, data = replace(load_model("gradient"), free=free), make_data()
    sites = trace(model, data, mean_N2=jnp.array(-0.9))
    flux = np.asarray(sites["line_flux"]["value"])
    curve = model.attenuation(np.array([0.6585273, 0.6564632]))
    ebv = np.asarray(sites["ebv"]["value"])
    found = np.log10(flux[:, LINES.index("NII")] / flux[:, LINES.index("Halpha")])
    assert_allclose(found, -0.9 - 0.4 * ebv * (curve[0] - curve[1]), rtol=1e-6)
    assert "free_offset" not in sites


# ------------------------------------------------------------------------------ data


def test_data_are_drawn_as_they_are_scored():
    data = make_data(error=np.full((COUNT, len(LINES)), 0.7))
    root = np.array(data.root)
    root[1, 3] = 0.0
    flux, scale = jnp.full((COUNT, len(LINES)), 2.5), jnp.array([1.4])
    site = LineData(replace(data, root=root), flux, scale)
    assert site.batch_shape == (COUNT,)
    assert site.event_shape == (len(LINES),)
    draws = np.asarray(site.sample(jax.random.key(1), (4000,)))
    assert draws.shape == (4000, COUNT, len(LINES))
    mean = np.full((COUNT, len(LINES)), 2.5 / 0.7)
    sd = np.full_like(mean, 1.4)
    mean[1, 3] = sd[1, 3] = 0.0  # nothing is known there, so nothing is drawn
    assert_allclose(draws.mean(axis=0), mean, atol=5 * 1.4 / np.sqrt(4000))
    assert_allclose(draws.std(axis=0), sd, rtol=0.06)
    residuals = site.residuals(jnp.asarray(draws[0]))
    assert_allclose(residuals, (mean - draws[0]) / 1.4, atol=1e-9)


# ----------------------------------------------------------------------------- cards


@pytest.mark.parametrize("name", cards.names("models"))
def test_cards_name_what_exists(name):
    model = load_model(name)
    assert model.name == name
    assert type(model.field).__name__ in fields.__all__
    assert load_model(name, calibration="sanders24").calibration.name == "sanders24"


def test_a_card_of_the_user(tmp_path):
    path = tmp_path / "mine.toml"
    card = 'summary = "x"\ncalibration = "curti23"\nbrightness = 0.7\n{}\n'
    field = '[field]\nkind = "Flat"\n'
    path.write_text(card.format('ratios = ["R3"]\nrho = { Beta = [2.0, 3.0] }') + field)
    model = load_model(path)
    assert (model.name, model.brightness, model.ratios) == ("mine", 0.7, ("R3",))
    assert isinstance(model.rho, dist.Beta)
    path.write_text(card.format("roh = { Beta = [2.0, 3.0] }") + field)
    with pytest.raises(ValueError, match="roh"):
        load_model(path)
    path.write_text(card.format(""))
    with pytest.raises(ValueError, match="field"):
        load_model(path)

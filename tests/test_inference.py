"""A fit from end to end, on a few line maps of known truth."""

import warnings

import arviz_stats
import jax.numpy as jnp
import numpy as np
import pytest
import xarray
from scipy import stats

import metalgrad as mg
from metalgrad import lines
from metalgrad.checkpoint import KEPT
from metalgrad.dust import calzetti
from metalgrad.inference import likelihood
from metalgrad.linemaps import LineMaps
from metalgrad.record import saturated

pytestmark = pytest.mark.filterwarnings(  # the chains are short
    "ignore::metalgrad.checks.ConvergenceWarning"
)
NAMES = ("OII", "NeIII", "Hgamma", "Hbeta", "OIII", "Halpha")
LEVEL, SLOPE = 8.25, -0.15
# Draws enough that the tail of the importance weights can be told.
SETTINGS = {"seed": 3, "warmup": 150, "draws": 400, "chains": 2, "progress": False}


def draw_maps(seed, count=40):
    """Line maps on the calibrations, with faint spaxels and some negative fluxes."""
    rng = np.random.default_rng(seed)
    position = rng.uniform(-2, 2, (count, 2))
    radius = np.hypot(*position.T)
    model = mg.load_model("gradient")
    calibrated, _ = model.choose(NAMES)
    metallicity = jnp.asarray(LEVEL + SLOPE * radius)
    ratios = model.calibration.log_ratios(calibrated, metallicity)
    tree = lines.grow_tree(calibrated, lines.case_b()).select(NAMES)
    bright = (60 * np.exp(-radius))[:, None]
    flux = bright * 10 ** np.asarray(tree(ratios), float)
    error = np.full(flux.shape, 1.5)
    return LineMaps(
        NAMES, flux + error * rng.normal(size=flux.shape), error, position, "kpc"
    )


@pytest.fixture(scope="module")
def maps():
    return draw_maps(1)


@pytest.fixture(scope="module")
def model():
    return mg.load_model("gradient")


@pytest.fixture(scope="module")
def posterior(model, maps):
    return mg.fit(model, maps, **SETTINGS)


def test_dimensions_have_names(posterior):
    group = posterior.posterior
    assert group["slope"].dims == ("chain", "draw")
    assert group["metallicity"].dims == ("chain", "draw", "spaxel")
    for name in ("typical_ratio", "shared_dispersion"):
        assert group[name].dims == ("chain", "draw", "ratio")
    assert posterior.posterior_predictive["line_flux"].dims[-2:] == ("spaxel", "line")
    assert list(posterior.observed_data["line"].values) == list(
        likelihood(draw_maps(1)).lines
    )


def test_the_truth_is_within_reach(posterior):
    for name, truth in (("slope", SLOPE), ("central", LEVEL)):
        draws = posterior.posterior[name].values
        assert abs(draws.mean() - truth) < 4 * draws.std()


def test_central_is_the_level_moved_to_the_centre(posterior):
    group, pivot = posterior.posterior, posterior.attrs["pivot"]
    np.testing.assert_allclose(
        group["central"], group["level"] - pivot * group["slope"], rtol=1e-6
    )


def test_amplitudes_are_recorded_without_their_free_sign(posterior):
    assert not [name for name in posterior.posterior if name.endswith("_signed")]
    assert (posterior.posterior["scatter"] >= 0).all()


def test_provenance_is_kept(posterior):
    for key in ("model", "calibration", "seed", "versions", "ratios", "created"):
        assert key in posterior.attrs
    assert posterior.posterior["slope"].attrs["units"] == "dex / kpc"
    assert posterior.posterior["slope"].attrs["prior_sd"] == pytest.approx(0.2, rel=0.1)


def test_widths_of_priors_are_those_for_these_data(posterior, model, maps):
    """Typical ratios are drawn about those of the metallicities where spaxels are."""
    rng, count = np.random.default_rng(5), 20_000
    middle = np.mean(maps.radius) - posterior.attrs["pivot"]
    typical = rng.normal(8.0, 0.5, count) + middle * rng.normal(0.0, 0.2, count)
    names = tuple(posterior.attrs["ratios"])
    mean, dispersion = model.calibration.predict(names, jnp.asarray(typical))
    shared = np.sqrt(rng.uniform(size=count)) * rng.normal(size=(len(names), count))
    expected = (mean + dispersion * shared.T).std(axis=0)
    found = posterior.posterior["typical_ratio"].attrs["prior_sd"]
    np.testing.assert_allclose(found, expected, rtol=0.1)


def test_it_can_be_written_and_read_back(posterior, tmp_path):
    path = tmp_path / "posterior.nc"
    posterior.to_netcdf(path, engine="h5netcdf")
    again = xarray.open_datatree(path, engine="h5netcdf")
    xarray.testing.assert_equal(again.posterior.ds, posterior.posterior.ds)
    assert again.attrs["calibration"] == "curti23"


def test_leave_one_out_is_right_as_it_stands(model, maps, posterior):
    """Of 3200 draws of four fits: of the 800 of one, k is known to some 0.2."""
    fits = [
        posterior,
        *(mg.fit(model, maps, **SETTINGS | {"seed": n}) for n in (4, 5, 6)),
    ]
    assert posterior.log_likelihood["spaxel_data"].sizes["draw"] <= KEPT
    groups = ("posterior", "log_likelihood")
    whole = {
        name: xarray.concat([fit[name].ds.drop_vars("chain") for fit in fits], "chain")
        for name in groups
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of one k, see below
        score = arviz_stats.loo(xarray.DataTree.from_dict(whole), pointwise=True)
    worst = np.argmax(score.pareto_k.values)
    assert (np.delete(score.pareto_k.values, worst) < 0.7).all()
    assert score.elpd < 0 < score.p < 20
    # That of the brightest is 0.72 by 9600 draws: its density is that of a fit without.
    alone = np.arange(len(maps)) == worst
    without = mg.leave_groups_out(model, maps, alone.astype(int), **SETTINGS)
    np.testing.assert_allclose(without.elpd_i[1], score.elpd_i[worst], atol=0.3)


def test_saturated_density_is_that_of_measured_fluxes(maps):
    """SciPy's density of the data at their own best fluxes."""
    expected = [
        stats.multivariate_normal(flux, np.diag(error**2)).logpdf(flux)
        for flux, error in zip(maps.flux, maps.error, strict=True)
    ]
    np.testing.assert_allclose(saturated(likelihood(maps)), expected, rtol=1e-12)


def test_marginal_likelihood_lies_below_that_of_the_best_fluxes(posterior):
    marginal = posterior.log_likelihood["spaxel_data"].values
    assert np.all(np.isfinite(marginal))
    assert np.all(marginal < 0)


PRIORS = {  # of the card, by SciPy
    "level": stats.norm(8.0, 0.5),
    "slope": stats.norm(0.0, 0.2),
    "scatter": stats.halfnorm(0, 0.15),
    "reddening": stats.halfnorm(0, 0.3),
    "rho": stats.uniform(),
    "clumpiness": stats.halfnorm(0, 0.5),
}


@pytest.mark.parametrize("name", PRIORS)
def test_log_priors_are_those_of_the_card(posterior, name):
    draws = posterior["posterior"][name].astype(float)
    expected = PRIORS[name].logpdf(draws)
    np.testing.assert_allclose(
        posterior["log_prior"][name], expected, rtol=1e-5, atol=1e-5
    )


def test_log_priors_are_conditional_on_what_they_depend(posterior, model):
    shared, rho = (posterior["posterior"][n] for n in ("shared_dispersion", "rho"))
    width = [model.calibration[str(r)].dispersion for r in shared["ratio"].values]
    expected = stats.norm(0, np.sqrt(rho.values[..., None])).logpdf(shared)
    np.testing.assert_allclose(
        posterior["log_prior"]["typical_ratio"],
        expected - np.log(width),
        rtol=1e-5,
        atol=1e-5,
    )


def test_total_log_likelihood_is_that_of_all_fluxes(posterior, maps):
    drawn = posterior["posterior_predictive"]["model_flux"].astype(float)
    own = [maps.lines.index(name) for name in drawn["line"].values]
    density = stats.norm(drawn, maps.error[:, own]).logpdf(maps.flux[:, own])
    total = posterior["total_log_likelihood"]["line_data"][:, ::10]
    np.testing.assert_allclose(total, density.sum(axis=(2, 3)), rtol=1e-4)
    assert list(total["draw"].values) == list(range(0, SETTINGS["draws"], 10))
    assert list(drawn["draw"].values) == list(total["draw"].values)


def test_the_seed_is_all_the_randomness(model, maps, posterior):
    again = mg.fit(model, maps, **SETTINGS)
    np.testing.assert_array_equal(
        again.posterior["slope"], posterior.posterior["slope"]
    )
    other = mg.fit(model, maps, **(SETTINGS | {"seed": 4}))
    assert not np.array_equal(other.posterior["slope"], posterior.posterior["slope"])


def test_data_that_form_no_ratio_are_refused(model):
    maps = LineMaps(
        ("Halpha", "NII"), np.ones((2, 2)), np.ones((2, 2)), np.zeros((2, 2)), "kpc"
    )
    with pytest.raises(ValueError, match="no ratio of calibration curti23"):
        mg.fit(model, maps, **SETTINGS)


@pytest.mark.parametrize("given", [{"psf": mg.nirspec(1.2)}, {"slice_angle": 0.0}])
def test_a_table_is_not_blurred(given, model):
    maps = draw_bright(1, count=6)
    with pytest.raises(ValueError, match="no light around them"):
        mg.fit(model, maps, **SETTINGS, **given)
    for default in (None, mg.nirspec(), mg.nirspec(1)):
        assert likelihood(maps, default).lines == likelihood(maps).lines


BRIGHT = ("OII", "NeIII", "Hgamma", "Hbeta", "OIII")


def draw_bright(seed, count=60, signal=100.0):
    """Line maps with all that a model has, told well: dust, scatter, dispersion."""
    rng, calibration = np.random.default_rng(seed), mg.load_calibration("curti23")
    radius = 4 * np.sqrt(rng.uniform(0.05, 1.0, count))
    angle = rng.uniform(0.0, 2 * np.pi, count)
    metallicity = 8.0 - 0.05 * (radius - 2) + 0.05 * rng.normal(size=count)

    def draw(ratio):
        departure = np.sqrt(0.5) * (rng.normal() + rng.normal(size=count))
        width = calibration.dispersion(ratio, metallicity)
        log_ratio = calibration.log_ratio(ratio, metallicity) + width * departure
        return 10 ** np.asarray(log_ratio, float)

    hbeta = 10 ** (-0.3 * (radius - 2)) * np.exp(0.3 * rng.normal(size=count))
    oii = hbeta * draw("R2")
    neon, oiii = oii * draw("Ne3O2"), hbeta * draw("R3")
    flux = np.stack([oii, neon, 0.468 * hbeta, hbeta, oiii], axis=1)
    reddening = 0.2 * np.exp(0.2 * rng.normal(size=count))
    curve = np.asarray(calzetti(lines.wavelengths(BRIGHT)), float)
    flux *= 10 ** (-0.4 * reddening[:, None] * curve)
    error = np.full_like(flux, np.median(flux[:, BRIGHT.index("Hbeta")]) / signal)
    flux += error * rng.normal(size=flux.shape)
    position = radius[:, None] * np.stack([np.cos(angle), np.sin(angle)], axis=1)
    return LineMaps(BRIGHT, 100 * flux, 100 * error, position, "kpc")


@pytest.mark.slow
def test_chains_agree_where_data_tell_every_spaxel():
    """What is bright ties each spaxel to the galaxy, in valleys that bend."""
    settings = {"seed": 1, "warmup": 200, "draws": 200, "chains": 2, "progress": False}
    found = mg.fit(mg.load_model("gradient"), draw_bright(1), **settings)
    assert found.sample_stats["diverging"].mean() < 0.01
    galaxy = [n for n, v in found.posterior.items() if "spaxel" not in v.dims]
    assert {"slope", "level", "scatter", "rho", "typical_ratio"} <= {*galaxy}
    worst = arviz_stats.rhat(found.posterior.dataset[galaxy]).to_array().max()
    assert worst < 1.05
    slope = found.posterior["slope"].values
    assert abs(slope.mean() + 0.05) < 4 * slope.std()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"model": "gradient"}, r"the model is a str \('gradient'\) where a Model"),
        ({"data": np.zeros(3)}, "the data are a ndarray where Spaxels or LineMaps"),
        ({"chains": 0}, "chains is 0; give 1 or more"),
        ({"warmup": -1}, "warmup is -1; give 1 or more"),
    ],
)
def test_what_cannot_be_fitted_is_refused_at_once(model, maps, change, words):
    given = {"model": model, "data": maps} | SETTINGS | change
    with pytest.raises((TypeError, ValueError), match=words):
        mg.fit(given.pop("model"), given.pop("data"), **given)

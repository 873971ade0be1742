"""Criticism of fits whose posterior is known in closed form."""

from dataclasses import replace
from types import SimpleNamespace

import arviz_base
import jax.numpy as jnp
import mock_posterior as mock
import numpy as np
import pytest
import xarray
from astropy.io import fits
from numpy.testing import assert_allclose
from scipy import stats

import metalgrad as mg
from metalgrad import assumptions, cli, criticism, lines
from metalgrad.linemaps import LineMaps
from metalgrad.maps import write_maps
from metalgrad.record import TOTAL

SIZE = (2, 60)
PRIOR, ERROR = 3.0, 2.0
LINES = ("OII", "Hbeta", "OIII")
DIMS = {
    "model_flux": ["spaxel", "line"],
    "line_flux": ["spaxel", "line"],
    "line_flux_error": ["spaxel", "line"],
}
SETTINGS = {"warmup": 100, "draws": 100, "chains": 2, "progress": False}


def conjugate(seed, count=300, noise=1.0, prior=PRIOR, **attrs):
    """Fluxes of normal priors, each seen once, and draws of their exact posterior.

    The fit takes the noise to be ``ERROR``; that of the data is ``noise`` times that.
    """
    rng = np.random.default_rng(seed)
    shape = (count, len(LINES))
    flux = 10 + prior * rng.normal(size=shape)
    seen = flux + noise * ERROR * rng.normal(size=shape)
    shrink = prior**2 / (prior**2 + ERROR**2)
    mean, sd = 10 + shrink * (seen - 10), np.sqrt(shrink) * ERROR
    model = mean + sd * rng.normal(size=(*SIZE, *shape))
    return arviz_base.from_dict(
        {
            "posterior_predictive": {
                "model_flux": model,
                "line_flux": model + ERROR * rng.normal(size=model.shape),
            },
            "observed_data": {"line_flux": seen},
            "constant_data": {"line_flux_error": np.full(shape, ERROR)},
        },
        dims=DIMS,
        coords={"line": list(LINES)},
        attrs={"/": attrs},
    )


@pytest.fixture(scope="module")
def right():
    return conjugate(1)


def test_chi2_has_the_expectation_of_scipy(right):
    found = criticism.chi2_map(right)
    law = stats.chi2(len(LINES))
    assert (found["expected"] == law.mean()).all()
    # A mean over draws varies less than one draw, which has the law itself.
    assert abs(found["chi2"].mean() - law.mean()) < 4 * law.std() / np.sqrt(300)
    assert abs(found["p"].mean() - 0.5) < 0.05


def test_chi2_at_one_draw_has_the_law_of_scipy(right):
    one = right.isel(chain=[0], draw=[0])
    # The noise scale is told by all replicates: those of one draw suffice, for 900.
    assert stats.kstest(criticism.chi2_map(one)["chi2"], "chi2", (3,)).pvalue > 0.01


def test_a_wrong_spaxel_stands_out():
    tree = conjugate(2)
    tree["observed_data"]["line_flux"][7, 1] += 10 * ERROR
    found = criticism.chi2_map(tree)
    assert int(found["chi2"].argmax("spaxel")) == 7
    assert found["p"][7] == 0


def test_pit_at_draws_is_uniform_by_scipy(right):
    found = criticism.pit(right, seed=3)
    assert (found["p"] > 0.05).all()
    for line in LINES:
        one = found["pit"].sel(line=line, chain=1, draw=30)
        tested = stats.kstest(one, "uniform")
        distance = criticism._distance(one)
        assert_allclose(distance, tested.statistic, rtol=1e-12)
        assert tested.pvalue > 0.005


def test_the_predictive_pit_is_as_conservative_as_its_closed_form_says(right):
    """Residuals have a variance of e²(1 - h) where e²(1 + h) is predicted."""
    h = PRIOR**2 / (PRIOR**2 + ERROR**2)
    narrow = np.sqrt((1 - h) / (1 + h))
    values = criticism.pit(right, seed=3)["predictive"].values.ravel()
    score = stats.norm.ppf(np.clip(values, 0.001, 0.999))
    assert score.std() == pytest.approx(narrow, rel=0.06)
    assert stats.kstest(values, "uniform").pvalue < 1e-6


def test_p_values_are_not_too_small_when_all_is_right():
    p = [criticism.pit(conjugate(s, 40), seed=s)["p"].values for s in range(8)]
    assert np.mean(np.ravel(p) < 0.05) <= 0.05


@pytest.mark.parametrize("noise", [0.3, 2.0])
def test_noise_of_the_wrong_scale_is_detected(noise):
    prior = 0.5  # where fluxes tell themselves alone, noise could hide in them
    tree = conjugate(4, noise=noise, prior=prior)
    assert (criticism.pit(tree, seed=3)["p"] < 1e-3).all()
    chi2 = float(criticism.chi2_map(tree)["chi2"].mean())
    # At draws, the residual's variance is e² (1 + (1 - h)² (noise² - 1)).
    left = ERROR**2 / (prior**2 + ERROR**2)
    assert chi2 == pytest.approx(3 * (1 + left**2 * (noise**2 - 1)), rel=0.06)


def test_a_line_that_was_not_measured_is_left_out():
    tree = conjugate(5, 50)
    tree["constant_data"]["line_flux_error"][:20, 0] = np.inf
    tree["observed_data"]["line_flux"][:20, 0] = 0.0
    assert list(criticism.chi2_map(tree)["expected"].values[[0, 20]]) == [2, 3]
    found = criticism.pit(tree, seed=1)
    assert list(found["effective"].values) == [30, 50, 50]
    assert found["pit"].sel(line="OII")[..., :20].isnull().all()
    assert (found["p"] > 0.01).all()


def test_spaxels_that_share_noise_count_for_fewer(right):
    shared = right.copy()
    shared.attrs["noise_inflation"] = 3.0
    found = criticism.pit(shared, seed=3)
    assert_allclose(found["effective"], 100)
    assert (found["p"] >= criticism.pit(right, seed=3)["p"]).all()


def test_a_tree_without_replicates_is_refused():
    tree = arviz_base.from_dict({"posterior": {"slope": np.zeros((2, 4))}})
    with pytest.raises(ValueError, match="no replicated"):
        criticism.chi2_map(tree)
    with pytest.raises(ValueError, match="fit again"):
        criticism.sensitivity(tree)


def one_number(prior_sd, error, seen):
    """Exact draws of a normal mean with a normal prior, and their densities."""
    rng = np.random.default_rng(6)
    prior, data = stats.norm(0, prior_sd), stats.norm(seen, error)
    weight = prior_sd**2 / (prior_sd**2 + error**2)
    draws = rng.normal(weight * seen, np.sqrt(weight) * error, (4, 1000))
    idle = rng.uniform(size=draws.shape)
    tree = arviz_base.from_dict(
        {
            "posterior": {"slope": draws, "rho": idle},
            "log_prior": {"slope": prior.logpdf(draws), "rho": np.zeros_like(idle)},
            TOTAL: {"line_data": data.logpdf(draws)[:, ::4]},
        }
    )
    total = tree[TOTAL].dataset
    tree[TOTAL] = total.assign_coords(draw=4 * np.arange(total.sizes["draw"]))
    return tree


@pytest.mark.parametrize(
    ("prior_sd", "error", "seen", "expected"),
    [
        (10.0, 1.0, 1.0, ""),
        (1.0, 1.0, 6.0, "may conflict"),
        (1.0, 30.0, 0.0, "strong prior"),
    ],
)
def test_sensitivity_tells_who_speaks(prior_sd, error, seen, expected):
    table = criticism.sensitivity(one_number(prior_sd, error, seen))
    row = table.loc["slope"]
    assert expected in row["diagnosis"]
    assert bool(expected) == bool(row["diagnosis"])
    assert row["strongest"] == "slope"
    assert row["by"] == pytest.approx(row["prior"])
    assert table.loc["rho", "prior"] < criticism.SENSITIVE


def draw_maps(count=25):
    rng = np.random.default_rng(8)
    position = rng.uniform(-2, 2, (count, 2))
    bright = 60 * np.exp(-np.hypot(*position.T))[:, None]
    flux = bright * [1.5, 0.4, 1.0, 6.0, 2.9]
    seen = flux + 1.5 * rng.normal(size=flux.shape)
    names = ("OII", "NeIII", "Hbeta", "OIII", "Halpha")
    return LineMaps(names, seen, np.full(flux.shape, 1.5), position, "kpc")


@pytest.fixture(scope="module")
def maps():
    return draw_maps()


@pytest.fixture(scope="module")
def model():
    return mg.load_model("gradient")


@pytest.fixture(scope="module")
def posterior():
    """Put together exact fits of fluxes and of a number."""
    tree = conjugate(7, 30, target="a galaxy", shape=[])
    for name, group in one_number(1.0, 1.0, 1.0).children.items():
        tree[name] = group
    return tree


def test_all_numbers_are_in_one_table(posterior):
    table = criticism.tabulate(posterior, seed=1)
    found = criticism.chi2_map(posterior)
    assert {*table["check"]} == {"chi2", "pit", "prior power", "likelihood power"}
    assert table["value"][0] == pytest.approx(float(found["chi2"].sum()))
    assert table["expected"][0] == 90
    assert list(table["of"][1:4]) == list(LINES)
    assert {"slope", "rho"} <= {*table["of"]}


def test_the_map_is_written_where_the_sky_is(tmp_path, monkeypatch):
    monkeypatch.setitem(mock.DIMS, "line_flux", ["spaxel", "line"])
    given, (index, _) = mock.groups(), mock.places()
    model = given["posterior_predictive"]["model_flux"]
    rng = np.random.default_rng(2)
    given["posterior_predictive"]["line_flux"] = model + rng.normal(size=model.shape)
    tree = mock.tree(given)
    count = (len(index), len(mock.LINES))
    dims = ("spaxel", "line")
    tree["observed_data"] = xarray.Dataset({"line_flux": (dims, model[0, 0])})
    errors = tree["constant_data"].dataset.assign(
        line_flux_error=(dims, np.ones(count))
    )
    tree["constant_data"] = errors
    path = tmp_path / "check.fits"
    write_maps(tree, path, criticism.chi2_images(tree))
    expected = criticism.chi2_map(tree)["chi2"] / len(mock.LINES)
    with fits.open(path) as hdus:
        assert [hdu.name for hdu in hdus[1:]] == ["CHI2", "CHI2_P", "LINES"]
        assert hdus["CHI2"].header["CTYPE1"] == "RA---TAN"
        assert_allclose(hdus["CHI2"].data[tuple(index.T)], expected, rtol=1e-5)


def test_observed_ratios_are_held_against_the_prior(model, maps):
    found = assumptions.prior_predictive(model, maps, seed=1, draws=300)
    table = assumptions.tabulate_prior(found)
    assert list(table["ratio"]) == ["R3", "R2", "Ne3O2"]
    whole = dict(zip(maps.lines, maps.flux.sum(axis=0), strict=True))
    assert table["observed"][0] == pytest.approx(
        np.log10(whole["OIII"] / whole["Hbeta"])
    )
    relative = [1.5 * 5 / whole[name] for name in ("OIII", "Hbeta")]
    assert table["error"][0] == pytest.approx(np.hypot(*relative) / np.log(10))
    assert (table["low"] < table["median"]).all()
    assert (table["median"] < table["high"]).all()
    # No metallicity makes [O III] a hundred times Hbeta: such data would be refused.
    wild = LineMaps(
        maps.lines, maps.flux * [1, 1, 1, 100, 1], maps.error, maps.position, "kpc"
    )
    far = assumptions.prior_predictive(model, wild, seed=1, draws=300)
    assert assumptions.tabulate_prior(far)["p"][0] < 0.01


def test_leaving_a_ratio_out_is_measured_against_what_it_should_do(
    monkeypatch, model, maps
):
    rng = np.random.default_rng(9)
    known = {"R3, R2, Ne3O2": (-0.1, 0.03), "R2, Ne3O2": (-0.14, 0.05)}

    def fit(story, data, *, seed, **_):
        ratios = list(story.choose(data.lines)[0])
        mean, sd = known.get(", ".join(ratios), (-0.1, 0.03))
        slope = mean + sd * rng.normal(size=(4, 50_000))
        tree = {"slope": xarray.Dataset({"slope": (("chain", "draw"), slope)})}
        return FakeTree(tree["slope"], {"ratios": ratios})

    class FakeTree(SimpleNamespace):
        def __init__(self, draws, attrs):
            super().__init__(draws=draws, attrs=attrs)

        def __getitem__(self, _):
            return SimpleNamespace(dataset=self.draws)

    monkeypatch.setattr(assumptions, "fit", fit)
    table = assumptions.leave_one_ratio_out(model, maps, seed=1)
    assert list(table["left_out"]) == ["", "R3", "R2", "Ne3O2"]
    # Without R2 nothing ties [Ne III] to a Balmer line.
    assert list(table["ratios"])[1:] == ["R2, Ne3O2", "R3", "R3, R2"]
    assert table["slope_shift"][1] == pytest.approx(-0.04 / 0.03, rel=0.02)
    assert table["slope_pull"][1] == pytest.approx(-1.0, rel=0.02)


def test_with_one_ratio_none_can_be_left_out(model, maps):
    with pytest.raises(ValueError, match="one calibrated ratio, R3"):
        assumptions.leave_one_ratio_out(replace(model, ratios=("R3",)), maps, seed=1)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::metalgrad.checks.ConvergenceWarning")
def test_a_ratio_that_contradicts_the_others_is_found(model, maps):
    """[Ne III] that fades outwards bends the slope, until it is left out."""
    slope, names = -0.15, maps.lines
    radius = np.hypot(*maps.position.T)
    ratios = model.choose(names)[0]
    metallicity = jnp.asarray(8.25 + slope * radius)
    tree = lines.grow_tree(ratios, lines.case_b()).select(names)
    relative = np.array(tree(model.calibration.log_ratios(ratios, metallicity)))
    relative[:, names.index("NeIII")] -= 0.2 * radius
    flux = 200 * np.exp(-radius / 2)[:, None] * 10**relative
    bent = LineMaps(names, flux, maps.error, maps.position, "kpc")
    settings = SETTINGS | {"warmup": 200, "draws": 200}
    table = assumptions.leave_one_ratio_out(model, bent, seed=1, **settings)
    miss = np.abs(table["slope"] - slope)
    assert miss.argmin() == 3
    assert miss[3] < 2 * table["slope_sd"][3]
    assert table["slope_shift"][3] * (slope - table["slope"][0]) > 0


def test_the_command_writes_and_does_not_replace(posterior, tmp_path, monkeypatch):
    posterior.to_netcdf(tmp_path / "posterior.nc", engine="h5netcdf")
    monkeypatch.setattr(cli, "_keep_compiled", lambda: None)
    monkeypatch.setattr("sys.argv", ["metalgrad", "check", str(tmp_path)])
    cli.main()
    assert (tmp_path / "check.ecsv").is_file()
    assert (tmp_path / "check_pit.png").stat().st_size > 10_000
    with pytest.raises(SystemExit):
        cli.main()
    monkeypatch.setattr("sys.argv", [*cli.sys.argv, "--overwrite"])
    cli.main()

"""Spaxels that importance sampling cannot leave out: left out in earnest."""

import warnings

import arviz_base
import numpy as np
import pytest
from arviz_stats import SamplingWrapper, loo, reloo
from scipy.stats import norm
from xarray import Dataset, open_datatree

import metalgrad as mg
from metalgrad import checks, groups, measures
from metalgrad.inference import prepare
from metalgrad.linemaps import LineMaps

SPAXELS, CHAINS, DRAWS, FAR = 12, 4, 500, 6.0
SHORT = {"seed": 1, "warmup": 150, "draws": 250, "chains": 2, "progress": False}
LINES = ("OII", "NeIII", "Hbeta", "OIII", "Halpha")


def outlying(seed=0):
    """Data of a normal mean of no prior, one of them far off, and the mean's draws."""
    rng = np.random.default_rng(seed)
    values = rng.normal(size=SPAXELS)
    values[3] += FAR
    return values, *sample(values, rng)


def sample(values, rng):
    """Draw the mean of some normals; return a tree, and the draws."""
    middle, width = values.mean(), values.size**-0.5
    mean = middle + width * rng.normal(size=(CHAINS, DRAWS, 1))
    tree = arviz_base.from_dict(
        {
            "posterior": {"level": mean[..., 0]},
            "log_likelihood": {"spaxel_data": norm.logpdf(values, mean)},
        },
        dims={"spaxel_data": ["spaxel"]},
    )
    return tree, mean[..., 0]


def exact(values):
    """Log density of each of some normals given the others."""
    count = values.size
    others = (values.sum() - values) / (count - 1)
    return norm.logpdf(values, others, np.sqrt(1 + 1 / (count - 1)))


def replaced(tree, numbers, elpd):
    """Join densities of some spaxels to a fit."""
    for number, value in zip(numbers, elpd, strict=True):
        found = Dataset({"elpd": ("spaxel", [value])}, coords={"spaxel": [number]})
        tree = measures.join(tree, found)
    return tree


class Wrapper(SamplingWrapper):
    """What ArviZ's own `reloo` asks for."""

    def __init__(self, values, tree):
        super().__init__(model=None, idata_orig=tree)
        self.values = values

    def sel_observations(self, number):
        return np.delete(self.values, number), self.values[number]

    def sample(self, some):
        return sample(some, np.random.default_rng(5))

    def get_inference_data(self, fit):
        return fit[1]

    def log_likelihood__i(self, one, level):
        return arviz_base.convert_to_dataset({"y": norm.logpdf(one, level)})["y"]


def test_arviz_replaces_alike():
    values, tree, _ = outlying()
    with pytest.warns(UserWarning, match="Estimated shape"):
        before = loo(tree, pointwise=True)
    high = np.flatnonzero(before.pareto_k.values > 0.4)
    assert 3 in high
    theirs = reloo(Wrapper(values, tree), before, k_threshold=0.4)
    ours = checks.leave_one_out(replaced(tree, high, theirs.elpd_i.values[high]))
    np.testing.assert_allclose(ours.elpd_i, theirs.elpd_i, atol=2e-3)
    assert ours.elpd == pytest.approx(theirs.elpd, abs=0.01)
    assert ours.p == pytest.approx(theirs.p, abs=0.01)
    assert list(ours.pareto_k.values[high]) == [0.0] * len(high)
    np.testing.assert_allclose(ours.elpd_i.values[high], exact(values)[high], atol=0.1)


def test_what_is_not_replaced_stays():
    _, tree, _ = outlying()
    before = checks.leave_one_out(tree)
    after = checks.leave_one_out(replaced(tree, [3, 7], [-9.0, -2.0]))
    rest = np.delete(np.arange(SPAXELS), [3, 7])
    np.testing.assert_array_equal(after.elpd_i[rest], before.elpd_i[rest])
    assert list(after.elpd_i.values[[3, 7]]) == [-9.0, -2.0]
    assert after.elpd + after.p == pytest.approx(before.elpd + before.p)
    assert "refitted" not in tree.children


def bright(seed):
    """Make a table of few bright spaxels, of which one is unlike the others."""
    rng = np.random.default_rng(seed)
    calibration = mg.load_calibration("curti23")
    radius = np.linspace(0.2, 3.0, SPAXELS)
    metallicity = 8.6 - 0.05 * radius + 0.03 * rng.normal(size=SPAXELS)
    metallicity[3] -= 0.25
    r3, r2, ne3o2 = (
        10 ** (np.asarray(calibration.log_ratio(ratio, metallicity)) + off)
        for ratio, off in zip(
            ("R3", "R2", "Ne3O2"), 0.06 * rng.normal(size=(3, SPAXELS)), strict=True
        )
    )
    one = np.ones(SPAXELS)
    flux = 100 * np.stack([r2, r2 * ne3o2, one, r3, 2.86 * one], axis=1)
    error = np.full_like(flux, 2.0)
    position = np.stack([radius, 0 * radius], axis=1)
    noisy = flux + error * rng.normal(size=flux.shape)
    return LineMaps(LINES, noisy, error, position, "kpc")


pytestmark = pytest.mark.filterwarnings(  # the chains are short
    "ignore::metalgrad.checks.ConvergenceWarning"
)


@pytest.fixture(scope="module")
def galaxy():
    model, maps = mg.load_model("gradient-independent"), bright(1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", mg.ConvergenceWarning)
        fitted = mg.fit(model, maps, **SHORT)
    return model, maps, fitted


@pytest.mark.slow
def test_no_high_k_is_left(galaxy, tmp_path):
    model, maps, fitted = galaxy
    before = checks.leave_one_out(fitted)
    high = np.flatnonzero(before.pareto_k.values > before.good_k)
    assert 0 < high.size < SPAXELS
    again = mg.refit(fitted, model, maps, **SHORT)
    assert list(again["refitted"]["spaxel"].values) == list(high)
    assert again["refitted"]["r_hat"].values.max() < 1.2
    after = checks.leave_one_out(again)
    assert after.pareto_k.values.max() <= after.good_k
    rest = np.delete(np.arange(SPAXELS), high)
    np.testing.assert_array_equal(after.elpd_i[rest], before.elpd_i[rest])
    alone = mg.leave_groups_out(model, maps, np.arange(SPAXELS), **SHORT)
    error = np.hypot(again["refitted"]["mc_error"], alone.mc_error.values[high])
    off = after.elpd_i.values[high] - alone.elpd_i.values[high]
    assert np.all(np.abs(off) < 5 * error + 0.05)
    assert "refitted" not in fitted.children
    path = tmp_path / "posterior.nc"
    again.to_netcdf(path, engine="h5netcdf")
    with open_datatree(path, engine="h5netcdf") as read:
        assert checks.leave_one_out(read).elpd == pytest.approx(after.elpd)
    same = mg.refit(again, model, maps, **SHORT)
    assert list(same["refitted"]["spaxel"].values) == list(high)


@pytest.fixture
def unfitted():
    """What tells a fit's model and data, without the fit."""
    model, maps = mg.load_model("gradient-independent"), bright(1)
    own = groups.identity(maps, prepare(model, maps))
    attrs = {"model": model.name, "calibration": "curti23"}
    return (
        model,
        maps,
        arviz_base.from_dict(
            {
                "log_likelihood": {"spaxel_data": np.full((1, 1, SPAXELS), np.nan)},
                "observed_data": {"line_flux": own["flux"]},
                "constant_data": {"line_flux_error": own["error"]},
            },
            dims={
                "spaxel_data": ["spaxel"],
                "line_flux": ["spaxel", "line"],
                "line_flux_error": ["spaxel", "line"],
            },
            coords={"line": list(own["lines"])},
            attrs={"/": attrs},
        ),
    )


def test_another_model_is_refused(unfitted):
    _, maps, fitted = unfitted
    with pytest.raises(ValueError, match="of model gradient-independent with curti23"):
        mg.refit(fitted, mg.load_model("flat-independent"), maps, **SHORT)


def test_other_data_are_refused(unfitted):
    model, _, fitted = unfitted
    with pytest.raises(ValueError, match="their flux differ"):
        mg.refit(fitted, model, bright(2), **SHORT)


def test_what_cannot_be_left_out_at_all_is_refused(unfitted):
    model, maps, fitted = unfitted
    with pytest.raises(ValueError, match="likelihood of some spaxels is not finite"):
        mg.refit(fitted, model, maps, **SHORT)

"""Models compared: ArviZ's own table, and nothing that cannot be compared."""

import dataclasses
import re

import arviz_base
import jax.numpy as jnp
import numpy as np
import pytest
from arviz_stats import compare as arviz_compare
from arviz_stats import loo
from scipy.stats import norm
from xarray import DataArray

import metalgrad as mg
from metalgrad import comparison, groups, lines
from metalgrad.linemaps import LineMaps

SPAXELS, CHAINS, DRAWS = 30, 4, 250
LINES = ("OII", "NeIII", "Hgamma", "Hbeta", "OIII", "Halpha")


def fit(offset=0.0, seed=0, spread=0.1, attrs=None, **data):
    """Make the tree of a fit of normal data, which are ``offset`` from the mean."""
    rng = np.random.default_rng(seed)
    off = np.random.default_rng(9).normal(size=SPAXELS)
    mean = rng.normal(offset, spread, (CHAINS, DRAWS, 1))
    flux = np.linspace(1, 2, 2 * SPAXELS).reshape(SPAXELS, 2)
    data = {"flux": flux, "error": np.ones((SPAXELS, 2)), "lines": LINES[3:5]} | data
    return arviz_base.from_dict(
        {
            "posterior": {"level": mean[..., 0]},
            "log_likelihood": {"spaxel_data": norm.logpdf(off, mean)},
            "observed_data": {"line_flux": data["flux"]},
            "constant_data": {"line_flux_error": data["error"]},
        },
        dims={
            "spaxel_data": ["spaxel"],
            "line_flux": ["spaxel", "line"],
            "line_flux_error": ["spaxel", "line"],
        },
        coords={"line": list(data["lines"])},
        attrs={"/": {"target": "a galaxy"} | (attrs or {})},
    )


def left_out(elpd_i, unit="block", error=0.1, **data):
    """Make what leave_groups_out returns."""
    elpd_i, number = np.asarray(elpd_i, float), np.arange(len(elpd_i))
    known = comparison.identify(fit(**data))
    return groups.GroupsOut(
        elpd=elpd_i.sum(),
        se=float(np.sqrt(elpd_i.size * elpd_i.var())),
        p=np.nan,
        n_samples=10,
        n_data_points=elpd_i.size,
        scale="log",
        warning=False,
        elpd_i=DataArray(elpd_i, dims=[unit]),
        n_folds=elpd_i.size,
        unit=unit,
        groups=np.arange(SPAXELS) % elpd_i.size,
        mc_error=DataArray(np.full(number.shape, error), dims=[unit]),
        data={k: v for k, v in known.items() if k not in ("unit", "groups")},
    )


def test_it_is_the_table_of_arviz():
    fits = {"right": fit(), "wrong": fit(1.5, seed=1), "between": fit(0.6, seed=2)}
    table = mg.compare(fits)
    own = {name: loo(one, pointwise=True) for name, one in fits.items()}
    expected = arviz_compare(own, round_to="none")
    assert list(table.index) == list(expected.index) == ["right", "between", "wrong"]
    far = expected["elpd_diff"].abs()  # whose sign depends on ArviZ's version
    np.testing.assert_allclose(table["elpd_diff"], -far, rtol=1e-2, atol=1e-3)
    own_terms = {"p_worse"} & {*expected.columns}  # ArviZ 1.0 has none
    for name in ("dse", "elpd", "se", "p", *own_terms):
        np.testing.assert_allclose(table[name], expected[name], rtol=1e-2, atol=1e-3)
    np.testing.assert_allclose(table["weight"], expected["weight"], atol=0.02)
    assert table.attrs["unit"] == "one spaxel"
    assert table.attrs["high_k"] == dict.fromkeys(fits, 0)
    assert table.attrs["advice"] == []


def test_files_and_their_folders_will_do(tmp_path):
    trees = {"a": fit(), "b": fit(1.0)}
    for name, tree in trees.items():
        (tmp_path / name).mkdir()
        tree.to_netcdf(tmp_path / name / "posterior.nc", engine="h5netcdf")
    paths = {"a": tmp_path / "a", "b": str(tmp_path / "b" / "posterior.nc")}
    assert mg.compare(paths).equals(mg.compare(trees))


FLUX = np.linspace(1, 2, 2 * SPAXELS).reshape(SPAXELS, 2)


@pytest.mark.parametrize(
    ("other", "words"),
    [
        (fit(attrs={"target": "another"}), "their target differ: 'a galaxy' and 'ano"),
        (fit(lines=("OII", "OIII")), "their lines differ: Hbeta, OIII and OII, OIII"),
        (fit(flux=FLUX + 0.01), "their flux differ: 30 spaxels with sum 90 and 30 "),
        (
            fit(flux=FLUX[1:], error=FLUX[1:]),
            "their flux differ: 30 spaxels with .* and 29 spax",
        ),
        (fit(error=FLUX), "their error differ"),
        (fit(attrs={"noise_inflation": 2.0}), "their inflation differ: 1.0 and 2.0"),
        (
            left_out([1, 2, 3]),
            "their unit differ: 'spaxel' and 'block'; leave the same",
        ),
    ],
)
def test_other_data_are_refused(other, words):
    with pytest.raises(ValueError, match="a and b cannot be compared, for " + words):
        mg.compare({"a": fit(), "b": other})


def test_other_fluxes_are_refused_in_any_unit():
    tiny = {"flux": 1e-17 * FLUX, "error": 1e-18 * FLUX}
    other = tiny | {"flux": 1e-17 * (FLUX + 0.01)}
    assert mg.compare({"a": fit(**tiny), "b": fit(**tiny)}) is not None
    with pytest.raises(ValueError, match="their flux differ"):
        mg.compare({"a": fit(**tiny), "b": fit(**other)})


def test_other_groups_are_refused():
    with pytest.raises(ValueError, match=r"groups differ: 3 of 30 .*and 4 of 30"):
        mg.compare({"a": left_out([1, 2, 3]), "b": left_out([1, 2, 3, 4])})


def test_what_is_no_fit_is_refused():
    with pytest.raises(ValueError, match=r"1 fit\(s\) where two or more"):
        mg.compare({"a": fit()})
    bare = fit()
    del bare["log_likelihood"]
    with pytest.raises(ValueError, match="the tree lacks log_likelihood"):
        mg.compare({"a": bare, "b": fit()})
    nothing = fit()
    nothing["log_likelihood"]["spaxel_data"] *= np.inf
    with pytest.raises(ValueError, match="b has no finite log likelihood"):
        mg.compare({"a": fit(), "b": nothing})


def test_joint_densities_do_not_underflow():
    low = np.array([-2000.0, -1500.0, -900.0, -1200.0])
    table = mg.compare({"a": left_out(low), "b": left_out(low - [1, 3, -2, 4])})
    assert table.loc["b", "elpd_diff"] == pytest.approx(-6)
    assert table.loc["a", "elpd"] == pytest.approx(low.sum())
    assert table["weight"].sum() == pytest.approx(1)
    assert table.attrs["unit"] == "one block"
    assert "standard errors from 4 units are rough" in table.attrs["advice"][0]


def test_importance_sampling_that_fails_is_told():
    table = mg.compare({"fine": fit(), "loose": fit(spread=2.0, seed=3)})
    count = table.attrs["high_k"]["loose"]
    assert count > 0
    assert table.attrs["high_k"]["fine"] == 0
    advice = table.attrs["advice"][0]
    assert f"in {count} of loose (30 spaxels each)" in advice
    assert "metalgrad.refit" in advice


def test_maps_and_noisy_groups_get_advice():
    as_map = {"shape": [5, 6]}
    told = mg.compare({"a": fit(attrs=as_map), "b": fit(1.0, attrs=as_map)})
    assert "neighbouring spaxels share light" in told.attrs["advice"][-1]
    noisy = left_out(np.zeros(12) - 3, error=0.5)
    told = mg.compare({"a": left_out(np.zeros(12)), "b": noisy})
    assert "Monte Carlo errors of b exceed 0.3 nats" in told.attrs["advice"][0]


@pytest.mark.parametrize(
    ("behind", "words"),
    [
        (np.full(20, 1.0) + np.linspace(-1, 1, 20), "a is preferred to b by 20.0 nats"),
        (np.full(20, 0.1), r"a and b cannot be told apart \(a is ahead by 2.0 nats"),
        (1 + 9 * np.resize([-1, 1], 20), "a and b cannot be told apart"),
        (np.zeros(20), "a and b cannot be told apart .* by 0.0 nats, 0.0 standard"),
    ],
)
def test_the_verdict_needs_two_errors_and_four_nats(behind, words):
    table = mg.compare({"a": left_out(np.zeros(20)), "b": left_out(-behind)})
    said = comparison.verdict(table)
    assert said.startswith("leaving out one block at a time, ")
    assert re.search(words, said)


def test_a_table_for_a_file_holds_all(tmp_path):
    table = mg.compare({"a": fit(), "b": fit(1.0)})
    path = tmp_path / "table.ecsv"
    comparison.to_table(table).write(path)
    again = comparison.Table.read(path)
    assert list(again["model"]) == ["a", "b"]
    np.testing.assert_allclose(again["elpd_diff"], table["elpd_diff"])
    assert again.meta["unit"] == "one spaxel"
    assert again.meta["verdict"] == comparison.verdict(table)


def steep_maps(seed, count=40, slope=-0.25):
    """Line fluxes on the calibrations, of a steep gradient."""
    rng = np.random.default_rng(seed)
    position = rng.uniform(-2, 2, (count, 2))
    radius = np.hypot(*position.T)
    model = mg.load_model("gradient")
    calibrated, _ = model.choose(LINES)
    ratios = model.calibration.log_ratios(calibrated, jnp.asarray(8.4 + slope * radius))
    tree = lines.grow_tree(calibrated, lines.case_b()).select(LINES)
    flux = (60 * np.exp(-radius))[:, None] * 10 ** np.asarray(tree(ratios), float)
    error = np.full(flux.shape, 1.5)
    noise = error * rng.normal(size=flux.shape)
    return LineMaps(LINES, flux + noise, error, position, "kpc")


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::metalgrad.checks.ConvergenceWarning")
def test_the_right_model_wins():
    maps = steep_maps(4)
    short = {"seed": 3, "warmup": 100, "draws": 250, "chains": 2, "progress": False}
    models = {name: mg.load_model(name) for name in ("gradient", "flat")}
    single = {name: mg.fit(m, maps, **short) for name, m in models.items()}
    rings = mg.annuli(maps, 4)
    whole = {n: mg.leave_groups_out(m, maps, rings, **short) for n, m in models.items()}
    for fits, unit in ((single, "spaxel"), (whole, "annulus")):
        table = mg.compare(fits)
        assert table.index[0] == "gradient"
        assert table.attrs["unit"] == f"one {unit}"
    assert "gradient is preferred to flat" in comparison.verdict(mg.compare(single))


def test_a_result_is_one_of_arviz():
    found = left_out([-1.0, -2.0])
    assert dataclasses.is_dataclass(found)
    assert found.kind == "loo_kfold"
    assert "2-fold cross validation" in str(found)


def test_a_file_of_another_kind_is_named(tmp_path):
    path = tmp_path / "fit.fits"
    path.write_text("not a fit")
    with pytest.raises(ValueError, match=r"fit\.fits is no netCDF file"):
        mg.compare({"one": path, "other": path})


def test_a_fit_that_is_not_there_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="there is no fit at"):
        mg.compare({"one": tmp_path, "other": tmp_path})

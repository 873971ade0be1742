"""The summary's numbers are those of NumPy and of closed forms."""

import json

import numpy as np
import pytest
import xarray
from arviz_base import from_dict
from astropy.table import Table
from scipy.stats import expon, norm

from metalgrad import checks
from metalgrad.summary import COLUMNS, describe, quantities, summary

CHAINS, DRAWS, SPAXELS = 4, 500, 12
ATTRS = {
    "title": "a test",
    "target": "mock",
    "model": "gradient",
    "field": "LinearGradient",
    "calibration": "curti23",
    "created": "2026-01-01T00:00:00+00:00",
    "ratios": ["R3", "R2"],
    "valid": [7.6, 8.9],
    "redshift": 6.4,
    "pivot": 1.25,
    "length": "kpc",
    "effective_radius": 1.5,
    "seed": 7,
    "versions": json.dumps({"numpy": "2.5"}),
}
LEVEL = "12 + log(O/H)"
UNITS = {"slope": "dex / kpc", "level": LEVEL, "central": LEVEL, "scatter": "dex"}


def sample(law, seed):
    """Take the law's quantiles in a random order: a sample without sampling noise."""
    count = CHAINS * DRAWS
    values = law.ppf((np.arange(count) + 0.5) / count)
    return np.random.default_rng(seed).permutation(values).reshape(CHAINS, DRAWS)


def make(*, drop=(), **attrs):
    """Make a tree as a fit would, without ``drop``, and with other attributes."""
    level, slope = sample(norm(8.1, 0.03), 1), sample(norm(-0.08, 0.02), 2)
    rng = np.random.default_rng(3)
    posterior = {
        "zeta": rng.normal(size=(CHAINS, DRAWS)),  # of a field not known here
        "central": level - 1.25 * slope,
        "level": level,
        "mean_N2": rng.normal(-1.2, 0.1, (CHAINS, DRAWS)),
        "noise_scale": rng.normal(1, 0.01, (CHAINS, DRAWS, 2)),
        "reddening": sample(norm(0.2, 0.02), 4),
        "scatter": sample(expon(scale=0.04), 5),
        "slope": slope,
        "metallicity": rng.normal(8.1, 0.1, (CHAINS, DRAWS, SPAXELS)),
    }
    tree = from_dict(
        {
            "posterior": {k: v for k, v in posterior.items() if k not in drop},
            "log_likelihood": {
                "spaxel_data": rng.normal(-9, 0.1, (CHAINS, DRAWS, SPAXELS))
            },
        },
        dims={
            "noise_scale": ["complex"],
            "metallicity": ["spaxel"],
            "spaxel_data": ["spaxel"],
        },
        coords={"complex": ["Hbeta+OIII", "NII+Halpha"]},
        attrs={"/": ATTRS | attrs},
    )
    for name, unit in UNITS.items():
        if name not in drop:
            tree["posterior"][name].attrs["units"] = unit
    if "level" not in drop:
        tree["posterior"]["level"].attrs["prior_sd"] = 0.5
    return tree


@pytest.fixture(scope="module")
def table():
    return summary(make())


def row(table, name):
    return table[list(table["name"]).index(name)]


def test_rows_stand_in_the_order_of_interest(table):
    assert list(table["name"]) == [
        "slope",
        "slope_per_R_e",
        "level",
        "central",
        "level_at_R_e",
        "scatter",
        "reddening",
        "noise_scale[Hbeta+OIII]",
        "noise_scale[NII+Halpha]",
        "mean_N2",
        "zeta",
    ]
    assert table.colnames == list(COLUMNS)


def test_units(table):
    units = dict(zip(table["name"], table["unit"], strict=True))
    assert units["slope"] == "dex / kpc"
    assert units["slope_per_R_e"] == "dex / R_e"
    assert units["level_at_R_e"] == units["level"] == "12 + log(O/H)"
    assert units["noise_scale[Hbeta+OIII]"] == "1"
    assert units["mean_N2"] == "dex"


def test_a_normal_law(table):
    slope, law = row(table, "slope"), norm(-0.08, 0.02)
    assert slope["mean"] == pytest.approx(law.mean())
    assert slope["sd"] == pytest.approx(law.std(), rel=5e-3)
    for name, probability in {"q16": 0.16, "q50": 0.5, "q84": 0.84}.items():
        assert slope[name] == pytest.approx(law.ppf(probability), abs=1e-4)
    low, high = law.interval(0.94)
    assert slope["hdi_low"] == pytest.approx(low, abs=2e-3)
    assert slope["hdi_high"] == pytest.approx(high, abs=2e-3)


def test_the_narrowest_interval_of_an_exponential_law_starts_at_zero(table):
    scatter = row(table, "scatter")
    assert scatter["hdi_low"] == pytest.approx(0.0, abs=1e-4)
    assert scatter["hdi_high"] == pytest.approx(expon(scale=0.04).ppf(0.94), rel=0.01)


def test_independent_draws_are_effective(table):
    slope = row(table, "slope")
    assert slope["ess_bulk"] == pytest.approx(CHAINS * DRAWS, rel=0.2)
    assert slope["ess_tail"] == pytest.approx(CHAINS * DRAWS, rel=0.2)
    assert slope["r_hat"] == pytest.approx(1.0, abs=0.01)


def test_prior_ratio_is_of_standard_deviations(table):
    assert row(table, "level")["prior_ratio"] == pytest.approx(0.03 / 0.5, rel=5e-3)
    assert np.isnan(row(table, "level_at_R_e")["prior_ratio"])
    assert np.isnan(row(table, "central")["prior_ratio"])


def test_effective_radius_scales_the_slope():
    tree = make()
    draws, slope = quantities(tree), tree["posterior"]["slope"].values
    np.testing.assert_allclose(draws["slope_per_R_e"], 1.5 * slope)
    at_pivot = tree["posterior"]["level"].values
    expected = at_pivot + (1.5 - 1.25) * slope
    np.testing.assert_allclose(draws["level_at_R_e"], expected)


def test_radii_in_effective_radii_need_no_scaling():
    tree = make(length="R_e", effective_radius=np.nan)
    draws = quantities(tree)
    assert "slope_per_R_e" not in draws
    expected = tree["posterior"]["level"] + (1 - 1.25) * tree["posterior"]["slope"]
    np.testing.assert_allclose(draws["level_at_R_e"], expected)


@pytest.mark.parametrize(
    ("attrs", "drop"),
    [({"effective_radius": np.nan}, ()), ({"length": "arcsec"}, ()), ({}, ("slope",))],
)
def test_no_effective_radius_no_rows_of_it(attrs, drop):
    draws = quantities(make(drop=drop, **attrs))
    assert not [name for name in draws if "R_e" in name]


def test_meta_says_where_the_numbers_come_from(table):
    meta = table.meta
    assert (meta["target"], meta["model"], meta["seed"]) == ("mock", "gradient", 7)
    assert (meta["spaxels"], meta["chains"], meta["draws"]) == (SPAXELS, CHAINS, DRAWS)
    assert meta["versions"] == {"numpy": "2.5"}
    assert meta["warnings"] == checks.diagnose(make()) == []
    # The mean likelihood of N(-9, 0.1), at first order in its variance.
    assert meta["loo"]["elpd"] == pytest.approx(SPAXELS * (-9 - 0.1**2 / 2), abs=0.1)


@pytest.mark.parametrize("radius", [1.5, np.nan])
def test_ecsv_keeps_everything(tmp_path, radius):
    table = summary(make(effective_radius=radius))
    table.write(tmp_path / "summary.ecsv")
    back = Table.read(tmp_path / "summary.ecsv")
    assert back.meta == table.meta
    assert back.colnames == table.colnames
    for name in table.colnames:
        np.testing.assert_array_equal(back[name], table[name])
        assert back[name].description == table[name].description


def test_a_tree_from_a_file_says_the_same(tmp_path, table):
    from xarray import open_datatree

    make().to_netcdf(tmp_path / "posterior.nc", engine="h5netcdf")
    with open_datatree(tmp_path / "posterior.nc", engine="h5netcdf") as tree:
        back = summary(tree)
    assert back.meta == table.meta
    np.testing.assert_array_equal(back["q50"], table["q50"])


def test_no_log_likelihood_no_score():
    tree = make()
    del tree["log_likelihood"]
    assert summary(tree).meta["loo"] is None


def test_the_text_gives_the_headline():
    lines = describe(make()).splitlines()
    assert lines[0] == "mock: model gradient, calibration curti23"
    assert "slope                      -0.080 +0.020 -0.020 dex/kpc" in lines
    assert "slope                      -0.120 +0.030 -0.030 dex/R_e" in lines
    assert "12+log(O/H) at the pivot   8.100 +0.030 -0.030" in lines
    assert "(the pivot is at 1.25 kpc)" in lines
    assert lines[-1] == "Nothing to warn of."
    assert max(map(len, lines)) <= 79


def test_the_text_says_where_radii_have_no_unit():
    told = "radii in effective radii (they came without a unit), and priors per R_e"
    assert told in describe(make(length="R_e")).splitlines()
    assert told not in describe(make()).splitlines()


def test_the_text_warns():
    tree = make(valid=[8.09, 8.9])
    lines = describe(tree).splitlines()
    (sentence,) = [s for s in checks.diagnose(tree) if "spaxels' metallicity" in s]
    text = " ".join(line.strip() for line in lines)
    assert f"- {sentence}" in text
    assert max(map(len, lines)) <= 79


def test_the_text_of_a_flat_field_says_its_level_once():
    text = describe(make(drop=("slope",)))
    assert text.count("12+log(O/H)") == 1
    assert "pivot" not in text


def test_the_text_tells_of_every_source_and_of_what_is_fixed():
    tree = make(drop=("slope", "level"), field="Sources", fixed='{"rho": 0.5}')
    group = tree["posterior"].dataset
    levels = group["central"] + xarray.DataArray([0.1, -0.3], {"source": ["a", "b"]})
    levels.attrs["units"] = LEVEL
    slope = (0.5 * group["central"]).assign_attrs(units="dex / kpc")
    tree["posterior"] = group.assign(source_level=levels, source_slope=slope)
    lines = describe(tree).splitlines()
    middle = np.median(group["central"])
    for name, offset in (("a", 0.1), ("b", -0.3)):
        start = f"12+log(O/H) [{name}]            {middle + offset:.3f} +"
        assert any(line.startswith(start) for line in lines)
    assert any(line.startswith("slope about each source    4.") for line in lines)
    assert "(rho is fixed at 0.5)" in lines
    assert not any("pivot" in line for line in lines)


@pytest.mark.parametrize("function", [summary, describe, quantities])
def test_no_posterior_is_refused(function):
    tree = make()
    del tree["posterior"]
    with pytest.raises(ValueError, match="no 'posterior'; give what metalgrad"):
        function(tree)

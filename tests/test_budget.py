"""Shares of a variance: against closed forms, and of a fit whose causes are known."""

import arviz_base
import jax.numpy as jnp
import mock_posterior as mock
import numpy as np
import pytest
from numpy.testing import assert_allclose

from metalgrad import dust, lines
from metalgrad.budget import CAUSES, share, variance_budget
from metalgrad.calibrations import load_calibration

COUNT = 4000


def test_independent_causes_have_their_variances():
    rng = np.random.default_rng(1)
    one, two, noise = rng.normal(size=(3, COUNT))
    values = 2.0 * one + 1.0 * two + 1.0 * noise
    found = share(values, {"one": one[:, None], "two": two[:, None]})
    assert_allclose(found["one"], 4 / 6, atol=0.03)
    assert_allclose(found["two"], 1 / 6, atol=0.03)


def test_what_two_causes_share_is_halved():
    """Shapley's value of two regressors of correlation r and equal weights."""
    rng = np.random.default_rng(2)
    common, *own = rng.normal(size=(3, COUNT))
    one, two = common + own[0], common + own[1]
    found = share(one + two, {"one": one[:, None], "two": two[:, None]})
    assert_allclose(found["one"], 0.5, atol=0.03)
    assert_allclose(found["two"], 0.5, atol=0.03)
    # And of the same cause, named twice.
    twice = share(one, {"one": one[:, None], "again": one[:, None]})
    assert_allclose([*twice.values()], 0.5, atol=1e-6)


def test_random_numbers_explain_nothing():
    rng = np.random.default_rng(3)
    values = rng.normal(size=200)
    found = share(values, {"one": rng.normal(size=(200, 20)), "two": np.ones((200, 0))})
    assert abs(found["one"]) < 0.12
    assert found["two"] == pytest.approx(0.0, abs=1e-12)


@pytest.fixture
def posterior():
    """Slopes that noise, a shared offset of N2 and the slope of dust make uncertain."""
    rng = np.random.default_rng(4)
    given = mock.groups()
    count = len(given["constant_data"]["radius"])
    radius = given["constant_data"]["radius"]
    size = (mock.CHAINS, 2005)
    shared = rng.normal(size=(*size, 2))
    dusty = rng.normal(size=size)
    slope = mock.SLOPE + 0.01 * shared[..., 1] + 0.02 * dusty
    slope = slope + 0.02 * rng.normal(size=size)
    level = 8.2 + 0.01 * rng.normal(size=size)
    central = level - slope * mock.PIVOT
    offset = 0.001 * rng.normal(size=(*size, count))
    metallicity = central[..., None] + slope[..., None] * radius + offset
    ebv = 0.3 + 0.02 * dusty[..., None] * (radius - 0.5)
    ratios, calibration = ("R3", "N2"), load_calibration("curti23")
    stride = metallicity[:, ::10]
    mean, dispersion = calibration.predict(ratios, jnp.ravel(stride))
    ratio = np.asarray(
        mean + dispersion * np.repeat(shared[:, ::10], count, 1).reshape(-1, 2)
    ).reshape(*stride.shape, 2)

    log = {"Hbeta": np.zeros(stride.shape), "OIII": ratio[..., 0]}
    log |= {"Halpha": np.full(stride.shape, np.log10(2.87))}
    log["NII"] = log["Halpha"] + ratio[..., 1]
    bright = (
        np.stack([log[name] for name in mock.LINES], axis=-1) - 0.3 * radius[:, None]
    )
    bright -= 0.4 * ebv[:, ::10, :, None] * dust.calzetti(lines.wavelengths(mock.LINES))
    given["posterior"] |= {
        "slope": slope, "level": level, "central": central, "ebv": ebv,
        "metallicity": metallicity, "shared_dispersion": shared,
    }  # fmt: skip
    for name in ("scatter", "rho", "reddening"):
        given["posterior"][name] = rng.uniform(size=size)
    given["posterior"]["noise_scale"] = rng.normal(1.0, 0.01, (*size, 2))
    given["sample_stats"] = {"diverging": np.zeros(size, bool)}
    given["posterior_predictive"]["model_flux"] = 10**bright

    made = arviz_base.from_dict(
        given,
        dims=mock.DIMS | {"shared_dispersion": ["ratio"]},
        coords={"line": list(mock.LINES), "ratio": list(ratios)},
    )
    # Of every tenth draw: not of as many in a row as 2005 // 201.
    kept = made["posterior_predictive"].dataset
    kept = kept.assign_coords(draw=10 * np.arange(kept.sizes["draw"]))
    made["posterior_predictive"] = kept
    attrs = {"field": "LinearGradient", "calibration": "curti23", "ratios": [*ratios]}
    made.attrs = attrs
    return made


def test_the_budget_of_a_slope_is_what_made_it(posterior):
    table = variance_budget(posterior)
    assert list(table["name"]) == ["slope", "level", "central"]
    slope = table[0]
    variance = np.array([0.02, 0.01, 0.02]) ** 2
    expected = variance / variance.sum()
    found = [slope["noise"], slope["shared"], slope["dust"]]
    # 800 thinned draws: shares to some 0.03.
    assert_allclose(found, expected, atol=0.1)
    assert abs(slope["local"]) < 0.1
    assert_allclose(sum(slope[name] for name in ("noise", *CAUSES)), 1.0)
    assert_allclose(slope["sd"], np.sqrt(variance.sum()), rtol=0.1)


def test_other_fields_have_no_budget(posterior):
    posterior.attrs["field"] = "Broken"
    with pytest.raises(ValueError, match="the field is Broken"):
        variance_budget(posterior)


def test_few_draws_have_no_budget(posterior):
    few = posterior.isel(draw=slice(0, 10))
    with pytest.raises(ValueError, match="cannot tell"):
        variance_budget(few)

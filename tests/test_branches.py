"""Branches are found, weighed and put together."""

import json
import warnings
from types import SimpleNamespace

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy.stats import norm

import metalgrad as mg
from metalgrad import branches, lines, mixing
from metalgrad.chains import Run
from metalgrad.dust import calzetti

LINES, PRIOR = ("Hbeta", "OIII"), norm(8.0, 0.5)


def spectrum(metallicity, sn=30.0):
    """Fluxes of [O III] and Hβ alone of one spectrum, and their errors."""
    ratio = 10 ** float(mg.load_calibration("curti23").log_ratio("R3", metallicity))
    return mg.LineMaps(
        lines=LINES,
        flux=np.array([[100.0, 100.0 * ratio]]),
        error=np.full((1, 2), 100.0 / sn),
        position=np.array([[2.0, 0.0]]),
        radius_unit="kpc",
    )


def weight_above(maps, cut):
    """Share of the posterior above ``cut``, on a grid of metallicity and dust."""
    z, ebv = np.linspace(6.0, 10.0, 2001), np.linspace(0.0, 1.6, 81)
    calibration = mg.load_calibration("curti23")
    curve = np.asarray(calibration.log_ratio("R3", z))
    dispersion = np.asarray(calibration.dispersion("R3", z))
    hbeta, oiii = np.asarray(calzetti(lines.wavelengths(LINES)))
    seen = np.log10(maps.flux[0, 1] / maps.flux[0, 0])
    noise = np.hypot(*(maps.error[0] / maps.flux[0])) / np.log(10)
    mean = curve[:, None] - 0.4 * ebv * (oiii - hbeta)
    like = norm.pdf(seen, mean, np.hypot(noise, dispersion[:, None]))
    post = (like @ norm.pdf(ebv, scale=0.3)) * PRIOR.pdf(z)
    return post[z > cut].sum() / post.sum()


def fit(maps, seed):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", mg.ConvergenceWarning)
        settings = {"warmup": 200, "draws": 300, "chains": 2, "progress": False}
        return mg.fit(mg.load_model("gradient"), maps, seed=seed, **settings)


@pytest.mark.parametrize(("metallicity", "seed"), [(7.3, 1), (8.4, 2)])
def test_a_lone_ratio_leaves_two_solutions_of_the_right_weight(metallicity, seed):
    maps = spectrum(metallicity)
    posterior = fit(maps, seed)
    told = json.loads(posterior.attrs["branches"])
    branch = posterior["sample_stats"]["branch"].values[0]
    level = posterior["posterior"]["level"].values
    middles = [np.median(level[:, branch == number]) for number in range(2)]
    high = int(np.argmax(middles))
    expected = weight_above(maps, np.mean(middles))
    bound = 4 * np.hypot(told[high]["error"], 0.005)  # and the grid's Gaussian ratio
    assert_allclose(told[high]["weight"], expected, atol=bound)
    assert bound < 0.1
    assert_allclose(np.mean(branch == high), told[high]["weight"], atol=0.01)
    assert min(abs(one - metallicity) for one in middles) < 0.25


@pytest.mark.parametrize(
    ("places", "expected"),
    [
        ([[7.3, 7.3], [8.4, 8.4]], True),
        ([[7.3, 8.4], [8.4, 8.4]], True),  # one of them has gone over
        ([[8.4, 8.4], [8.4, 8.4]], False),  # and here both
        ([[None, None], [None, None]], False),  # to and fro
    ],
)
def test_branches_are_apart_where_any_two_chains_are(places, expected):
    rng = np.random.default_rng(2)
    levels = [
        [np.where(rng.random(200) < 0.5, 7.3, 8.4) if one is None else one for one in p]
        for p in places
    ]
    levels = [[0.1 * rng.normal(size=200) + one for one in pair] for pair in levels]
    outcomes = [{"kept": {"theta": np.array(pair)[..., None]}} for pair in levels]
    run = object.__new__(Run)  # of which only one thing is asked
    run.hierarchy = SimpleNamespace(is_level=np.array([True]))
    assert branches.are_apart(run, outcomes) == expected
    if expected:
        centres = [np.array([level]) for level in (7.35, 8.35)]
        middles = branches.find_middles(run, outcomes, centres)
        assert_allclose(middles, [[7.3], [8.4]], atol=0.1)


def test_places_are_dealt_by_weight_and_evenly():
    order = mixing._deal(np.array([0.2, 0.5, 0.3]), 100)
    assert_array_equal(np.bincount(order), [20, 50, 30])
    for start in range(0, 100, 10):
        assert_array_equal(np.bincount(order[start : start + 10]), [2, 5, 3])


def outcome(offset, chains=2, draws=12, every=2):
    """Draws that tell their branch, chain and number."""
    chain, draw = np.mgrid[:chains, :draws]
    value = offset + 100.0 * chain + draw
    kept = value[:, ::every]
    return {
        "sites": {"level": value},
        "statistics": {"lp": value},
        "kept": {"theta": kept[..., None], "z": kept[..., None, None]},
        "every": every,
    }


@pytest.mark.parametrize(
    ("draws", "every", "stride"), [(12, 2, 3), (35, 4, 1), (35, 4, 4)]
)
def test_mixed_draws_and_what_is_kept_of_them_stay_together(draws, every, stride):
    """Also where blocks do not fill the chains."""
    parts = [outcome(k, draws=draws, every=every) for k in (0.0, 1000.0)]
    marginals = [part["kept"]["theta"][:, ::stride] for part in parts]
    weights = np.array([0.5, 0.5])
    mixed, marginal, branch = mixing.mix(parts, marginals, weights, stride)
    level = mixed["sites"]["level"]
    assert_array_equal(level >= 1000, np.tile(branch == 1, (2, 1)))
    assert_array_equal(level % 100, np.tile(np.arange(draws), (2, 1)))
    assert_array_equal(mixed["kept"]["theta"][..., 0], level[:, ::every])
    assert_array_equal(marginal[..., 0], level[:, :: every * stride])
    assert mixed["every"] == every


def test_chains_that_agree_alternate():
    mixed = mixing.alternate([outcome(0.0), outcome(1000.0)])
    assert_array_equal(mixed["sites"]["level"][:, 0], [0.0, 1100.0])


def test_draws_at_home_stand_for_those_beyond():
    """The second chain has gone over for good: the first one's stand for its own."""
    at_home = np.array([[1, 1, 0, 1, 1, 1], [0, 0, 0, 0, 0, 0]], bool)
    stayed = mixing.stay(outcome(0.0), at_home)
    kept, level = stayed["kept"]["theta"][..., 0], stayed["sites"]["level"]
    assert {*kept[0]} == {0, 2, 6, 8, 10}
    assert_array_equal(kept[0], kept[1])
    assert_array_equal(kept, level[:, ::2])
    assert_array_equal(level[:, 1::2], level[:, ::2] + 1)

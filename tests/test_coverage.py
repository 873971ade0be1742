"""Ranks of a normal with a known posterior: right ones pass, wrong ones do not."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy.stats import norm

from metalgrad import coverage

REPLICAS, RANKED, NOISE = 500, 99, 0.7


def conjugate(width=1.0, shift=0.0, seed=4):
    """Place truths in posteriors of a mean of known prior, N(0, 1), seen once.

    Parameters
    ----------
    width, shift
        Of what passes for the posterior: its sd over the true one, and how far its
        mean is off in units of the true sd.
    """
    rng = np.random.default_rng(seed)
    mean = rng.normal(size=REPLICAS)
    seen = mean + NOISE * rng.normal(size=REPLICAS)
    sd = (1 + NOISE**-2) ** -0.5
    centre = seen / (1 + NOISE**2) + shift * sd
    draws = centre[:, None] + width * sd * rng.normal(size=(REPLICAS, 400))
    ranks = [
        coverage.rank(one.reshape(2, 200), truth, RANKED)
        for one, truth in zip(draws, mean, strict=True)
    ]
    return coverage.place_evenly(np.array(ranks), RANKED, seed)


def test_the_exact_posterior_passes():
    row = coverage.tabulate({"mean": conjugate()}, seed=1)[0]
    assert row["in_band"]
    assert row["p_uniform"] > 0.01
    for level in (50, 68, 90, 95):
        error = row[f"error_{level}"]
        assert_allclose(error, np.sqrt(level / 100 * (1 - level / 100) / REPLICAS))
        assert abs(row[f"cover_{level}"] - level / 100) < 3 * error


@pytest.mark.parametrize("wrong", [{"width": 0.8}, {"width": 1.4}, {"shift": 0.25}])
def test_a_wrong_posterior_is_found_out(wrong):
    row = coverage.tabulate({"mean": conjugate(**wrong)}, seed=1)[0]
    assert not row["in_band"]
    assert row["p_uniform"] < 0.01


def test_intervals_that_are_too_narrow_cover_as_little_as_they_must():
    places = conjugate(width=0.8)
    for level in coverage.LEVELS:
        expected = 2 * norm.cdf(0.8 * norm.isf((1 - level) / 2)) - 1
        error = np.sqrt(expected * (1 - expected) / REPLICAS)
        # The ends of an interval come from 99 draws, hence the 0.01.
        assert abs(coverage.cover(places, level) - expected) < 3 * error + 0.01


def test_one_in_twenty_uniform_sets_leaves_the_band():
    count, sets = 60, 800
    rng = np.random.default_rng(8)
    places = rng.random((sets, count))
    found = coverage.exceed(places[0], seed=3)
    share = np.mean(places[:, :, None] <= found.place, axis=1) - found.place
    out = np.any((share < found.lower) | (share > found.upper), axis=1)
    assert_allclose(out.mean(), 0.05, atol=3 * np.sqrt(0.05 * 0.95 / sets) + 0.01)
    inside = [coverage.exceed(one, seed=3).inside for one in places[:5]]
    assert inside == [*~out[:5]]


def test_the_band_holds_the_curve_of_evenly_spread_ranks_alone():
    even = (np.arange(100) + 0.5) / 100
    assert coverage.exceed(even, seed=1).inside
    assert not coverage.exceed(even**2, seed=1).inside
    assert not coverage.exceed(np.full(100, 0.5), seed=1).inside


def test_ranks_count_draws_below_the_truth():
    draws = np.arange(400.0).reshape(2, 200)
    assert coverage.rank(draws, -1.0, 99) == 0
    assert coverage.rank(draws, 400.0, 99) == 99
    assert coverage.rank(draws, 199.5, 99) == 49  # of 0, 4, 8, 12, ..., 195
    assert coverage.rank(draws[:, :1], 100.0, 2) == 1


def test_draws_that_follow_each_other_are_taken_far_apart():
    """An autocorrelated chain ranks as an independent one of the thinned length."""
    rng = np.random.default_rng(5)
    count, length, memory = 400, 4000, 0.9
    noise = rng.normal(size=(count, length)) * np.sqrt(1 - memory**2)
    chain = np.empty_like(noise)
    chain[:, 0] = rng.normal(size=count)
    for step in range(1, length):
        chain[:, step] = memory * chain[:, step - 1] + noise[:, step]
    truth = rng.normal(size=count)
    ranks = [coverage.rank(c[None], t, 99) for c, t in zip(chain, truth, strict=True)]
    places = coverage.place_evenly(np.array(ranks), 99, 1)
    assert coverage.exceed(places, seed=1).inside
    assert coverage.uniformity(places, seed=1) > 0.01


def test_every_rank_has_an_interval_of_its_own():
    places = coverage.place_evenly(np.arange(100), 99, seed=2)
    assert_array_equal(np.floor(100 * places), np.arange(100))
    assert len({*np.round(100 * places - np.arange(100), 6)}) == 100

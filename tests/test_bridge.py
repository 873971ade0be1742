"""Bridge sampling: against densities whose integrals are known."""

from functools import partial

import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy import integrate, stats

from metalgrad.bridge import Folded, log_integral

NOTHING = np.array([False, False])


def estimate(rng, draws=2000, proposals=500):
    """Integral of exp(3) times a skewed density, from draws of it."""
    first, second = stats.gamma(4.0), stats.skewnorm(3.0, scale=0.2)

    def log_density(points):
        return 3.0 + first.logpdf(points[..., 0]) + second.logpdf(points[..., 1])

    points = np.stack(
        [law.rvs((4, draws // 2), random_state=rng) for law in (first, second)], axis=-1
    )
    half = draws // 4
    law = Folded(np.concatenate(points[:, :half]), NOTHING)
    drawn, proposed = points[:, half:], law.draw(proposals, rng)
    flat = drawn.reshape(-1, 2)
    at_draws = log_density(flat) - law.log_density(flat)
    at_proposals = log_density(proposed) - law.log_density(proposed)
    return log_integral(at_draws.reshape(drawn.shape[:2]), at_proposals)


def test_the_integral_of_a_skewed_density_is_found_within_its_error():
    rng = np.random.default_rng(1)
    found = np.array([estimate(rng) for _ in range(60)])
    pull = (found[:, 0] - 3.0) / found[:, 1]
    assert np.abs(found[:, 0] - 3.0).max() < 0.2
    assert abs(pull.mean()) < 4 / np.sqrt(len(pull))
    assert 0.6 < pull.std() < 1.5


def test_a_density_that_is_the_proposal_is_exact():
    found, error = log_integral(np.full((2, 50), -7.0), np.full(80, -7.0))
    assert_allclose([found, error], [-7.0, 0.0], atol=1e-9)


def test_proposals_beyond_the_border_count_for_nothing():
    """Of a Gaussian that is its own proposal half lies on one side."""
    rng = np.random.default_rng(2)
    at_proposals = np.where(rng.normal(size=4000) > 0, 0.0, -np.inf)
    found, error = log_integral(np.zeros((4, 1000)), at_proposals)
    assert_allclose(found, np.log(0.5), atol=4 * error)
    assert 0 < error < 0.05


@pytest.mark.parametrize("signed", [[True], [False]])
def test_a_folded_law_is_a_density(signed):
    draws = np.random.default_rng(3).normal(0.4, 0.5, size=(500, 1))
    law = Folded(draws, np.array(signed))
    total, _ = integrate.quad(lambda x: np.exp(law.log_density([[x]])[0]), -8, 8)
    assert_allclose(total, 1.0, rtol=1e-6)
    both = law.log_density(np.array([[0.7], [-0.7]]))
    assert (np.ptp(both) < 1e-12) == signed[0]


def test_draws_of_a_folded_law_have_its_density():
    rng = np.random.default_rng(4)
    law = Folded(rng.normal(0.3, 0.5, size=(500, 1)), np.array([True]))
    drawn = law.draw(4000, rng)[:, 0]
    assert drawn.min() >= 0

    grid = np.linspace(0.0, 6.0, 6001)[:, None]
    share = integrate.cumulative_simpson(
        2 * np.exp(law.log_density(grid)), x=grid[:, 0], initial=0
    )
    law_of = partial(np.interp, xp=grid[:, 0], fp=share)
    assert stats.kstest(drawn, law_of).pvalue > 1e-3

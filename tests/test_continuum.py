"""Continuum terms: what they span, and where the Balmer break is."""

import numpy as np
import pytest
from scipy.stats import norm

from metalgrad import continuum

EDGES = np.cumsum(np.r_[1.72, np.linspace(0.011, 0.019, 24)])  # uneven bins [µm]
CENTRES = (EDGES[1:] + EDGES[:-1]) / 2
REDSHIFT = 4.3  # puts the Balmer limit at 1.932 µm, inside
LIMIT, SIGMA = 0.3645 * (1 + REDSHIFT), 0.013


def left_over(terms, curve):
    """What of a curve the terms cannot make."""
    coefficients = np.linalg.lstsq(terms.T, curve, rcond=None)[0]
    return np.abs(terms.T @ coefficients - curve).max()


def test_away_from_the_break_it_is_a_straight_line():
    terms = continuum.basis(EDGES, 7.1, SIGMA)
    assert terms.shape == (2, 24)
    assert left_over(terms, 3.1 - 0.7 * CENTRES) < 1e-12
    assert left_over(terms, CENTRES**2) > 1e-4


@pytest.mark.parametrize(
    ("limit", "terms"), [(1.719, 2), (1.721, 4), (2.079, 4), (2.081, 2)]
)
def test_a_break_counts_within_the_window(limit, terms):
    # the window is 1.72 to 2.08 µm
    assert len(continuum.basis(EDGES, limit / 0.3645 - 1, SIGMA)) == terms


def test_a_smooth_jump_between_two_lines():
    terms = continuum.basis(EDGES, REDSHIFT, SIGMA)
    assert terms.shape == (4, 24)
    blueward = norm.sf(CENTRES, LIMIT, SIGMA)  # a step seen through the LSF
    jump = (2.0 + 0.4 * CENTRES) * blueward + (1.1 - 0.3 * CENTRES) * (1 - blueward)
    assert left_over(terms, jump) < 1e-12
    assert left_over(terms, norm.sf(CENTRES, LIMIT, 3 * SIGMA)) > 1e-2


def test_terms_are_of_order_one_and_independent():
    # so that the normal equations can be solved, whatever the unit of wavelength
    terms = continuum.basis(EDGES, REDSHIFT, SIGMA)
    assert np.abs(terms).max() <= 2
    assert np.linalg.cond(terms) < 30

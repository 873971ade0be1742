"""The record of a fit: angles without a cut, and what a model fixes."""

import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy.stats import vonmises

from metalgrad.record import find_fixed, unwrap


@pytest.mark.parametrize("middle", [-179.0, -90.0, 0.0, 135.0, 180.0])
def test_angles_lie_about_their_mean_direction(middle):
    law = vonmises(kappa=25.0, loc=0.0)
    off = np.rad2deg(law.ppf((np.arange(999) + 0.5) / 999)).reshape(3, 333)
    wrapped = (middle + off + 180) % 360 - 180
    found = unwrap(wrapped)
    turns = (found - wrapped) / 360
    assert_allclose(turns, np.round(turns), atol=1e-9)
    assert_allclose(found.std(), off.std(), rtol=1e-9)
    assert np.ptp(found) <= 360


def test_what_does_not_vary_is_fixed():
    rng = np.random.default_rng(0)
    sites = {
        "rho": np.full((2, 5), 0.25),
        "slope": rng.normal(size=(2, 5)),
        "level": np.full((2, 5), 8.0),  # it has a prior: a chain that is stuck
        "central": np.full((2, 5), 8.0),
        "metallicity": np.zeros((2, 5, 3)),
    }
    assert find_fixed(sites, {"slope": 0.2, "level": 0.5}) == {"rho": 0.25}

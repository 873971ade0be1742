"""Noise of sums of spaxels that share noise, against draws of such noise."""

import numpy as np
import pytest
from numpy.testing import assert_allclose

from metalgrad.sums import correlate_sums

SIDE = 12
ROWS, COLUMNS = np.indices((SIDE, SIDE))
INDEX = np.stack([ROWS.ravel(), COLUMNS.ravel()], axis=1)
RINGS = np.hypot(*(INDEX - 5.5).T).astype(int)


def test_white_noise_is_not_shared():
    alone = np.zeros((9, 9))
    alone[4, 4] = 1.0
    found = correlate_sums(INDEX, RINGS, alone)
    assert_allclose(found, np.eye(len(found)), atol=1e-6)


def test_rings_share_what_drawn_noise_shares():
    # Noise smoothed with (1/4, 1/2, 1/4) either way has this correlation, exactly.
    one = np.array([1, 4, 6, 4, 1]) / 6
    draws = np.random.default_rng(1).normal(size=(20_000, SIDE + 2, SIDE + 2))
    for _ in range(2):
        draws = draws[:, :-2] / 4 + draws[:, 1:-1] / 2 + draws[:, 2:] / 4
        draws = draws.swapaxes(1, 2)
    sums = np.array([draws[:, *INDEX[ring == RINGS].T].sum(1) for ring in range(8)])
    found = correlate_sums(INDEX, RINGS, np.outer(one, one))
    assert_allclose(found, np.corrcoef(sums), atol=0.03)
    assert found[2, 3] > 0.3


def test_spaxels_of_no_sum_are_left_out():
    spatial = np.outer(*2 * [np.array([0.5, 1.0, 0.5])])
    some = np.where(RINGS > 4, -1, RINGS)
    inner = RINGS <= 4
    assert_allclose(
        correlate_sums(INDEX, some, spatial),
        correlate_sums(INDEX[inner], RINGS[inner], spatial),
        atol=1e-10,
    )


@pytest.mark.parametrize("share", [0.4, 0.9])
def test_what_is_no_correlation_still_has_a_root(share):
    # 0.9 at lag 1 and nothing beyond has negative power.
    spatial = np.outer(*2 * [np.array([share, 1.0, share])])
    np.linalg.cholesky(correlate_sums(INDEX, RINGS, spatial))

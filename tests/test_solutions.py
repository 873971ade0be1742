"""What a fit says of two solutions, and that it survives a file."""

import json

import mock_posterior
import numpy as np
import pytest
import xarray as xr
from numpy.testing import assert_allclose, assert_array_equal

from metalgrad.convergence import WEIGHT
from metalgrad.solutions import solutions, tell_branches
from metalgrad.summary import describe
from metalgrad.verdict import judge

WEIGHTS, ERRORS = [0.3, 0.7], [0.02, 0.02]


@pytest.fixture
def forked():
    """Return a fit whose first 3 of 10 draws lie on a lower branch."""
    tree = mock_posterior.tree()
    level = tree["posterior"]["level"]
    draws = level.sizes["draw"]
    branch = np.where(np.arange(draws) % 10 < 3, 0, 1)
    tree["posterior"]["level"] = level - 1.0 * (branch == 0)
    tell_branches(tree, branch, WEIGHTS, ERRORS)
    return tree


def test_one_branch_has_no_solutions():
    assert solutions(mock_posterior.tree()) == []


def test_the_heaviest_comes_first_with_its_draws(forked):
    one, other = solutions(forked)
    assert_allclose([one.weight, other.weight], [0.7, 0.3])
    assert_allclose([one.chosen.mean(), other.chosen.mean()], [0.7, 0.3], atol=0.01)
    assert not np.any(one.chosen & other.chosen)
    apart = [part.take(forked)["posterior"]["level"].mean() for part in (one, other)]
    assert apart[0] - apart[1] > 0.8


def test_solutions_survive_a_file(forked, tmp_path):
    forked.to_netcdf(tmp_path / "fit.nc", engine="h5netcdf")
    with xr.open_datatree(tmp_path / "fit.nc", engine="h5netcdf") as again:
        for one, other in zip(solutions(forked), solutions(again), strict=True):
            assert_array_equal(one.chosen, other.chosen)
            assert one.weight == other.weight


def test_both_are_described_with_their_weights(forked):
    text = " ".join(describe(forked).split())
    assert "of weight 0.70 ± 0.02" in text
    assert "of weight 0.30 ± 0.02" in text
    assert "the data allow 2 solutions" in text


def test_chains_are_judged_within_branches(forked):
    """A level that jumps by ten of its widths would else seem to mix badly, or well."""
    rows = {row["criterion"]: row for row in judge(forked).table}
    assert rows["R-hat"]["value"] < 1.05
    assert not rows["other branch"]["passed"]
    assert rows["branch weight"]["passed"]
    assert "branches" not in rows


def test_a_weight_that_is_not_known_is_no_result(forked):
    told = [{"weight": w, "error": 2 * WEIGHT[1]} for w in WEIGHTS]
    forked.attrs["branches"] = json.dumps(told)
    assert not judge(forked).converged

"""Solving by products alone, against NumPy."""

import numpy as np
import pytest

from metalgrad import krylov

SIZE, COLUMNS = 60, 4


def matrix(value, seed=1):
    """Symmetric, of given eigenvalues."""
    axes = np.linalg.qr(np.random.default_rng(seed).normal(size=(SIZE, SIZE)))[0]
    return axes @ np.diag(value) @ axes.T


def few_stretched(value):
    return np.concatenate([value, np.ones(SIZE - len(value))])


@pytest.fixture
def columns():
    scale = [1.0, 100.0, 1e-4, 3.0]
    return np.random.default_rng(2).normal(size=(SIZE, COLUMNS)) * scale


class Counted:
    """A matrix that counts the rows it is multiplied with."""

    def __init__(self, matrix):
        self.matrix, self.rows = matrix, 0

    def __call__(self, rows):
        self.rows += len(rows)
        return rows @ self.matrix


def test_identity_takes_one_product_of_each_column(columns):
    push = Counted(np.eye(SIZE))
    np.testing.assert_allclose(krylov.solve(push, columns[:, :2]), columns[:, :2])
    assert push.rows <= 2


@pytest.mark.parametrize(
    ("value", "share"),
    [
        (few_stretched([50.0, 8.0, 0.3]), 1 / 3),
        # As a galaxy's are, in coordinates that were chosen well.
        (np.random.default_rng(3).uniform(0.6, 1.5, SIZE), 1 / 2),
    ],
    ids=["few stretched", "about one"],
)
def test_few_products_are_taken(columns, value, share):
    whole = matrix(value)
    push = Counted(whole)
    found = krylov.solve(push, columns)
    off = np.linalg.norm(whole @ found - columns) / np.linalg.norm(columns)
    assert off < krylov.CLOSE
    assert push.rows < SIZE * share


def test_whole_space_is_solved_as_numpy_does(columns):
    whole = matrix(np.geomspace(0.02, 50, SIZE))
    found = krylov.solve(lambda rows: rows @ whole, np.eye(SIZE))
    np.testing.assert_allclose(found, np.linalg.inv(whole), atol=1e-9)


def test_saddles_are_as_steep_either_way(columns):
    value = few_stretched([-20.0, -3.0, 1e-4])
    expected = matrix(1 / np.maximum(np.abs(value), krylov.LEAST)) @ columns
    whole = matrix(value)
    np.testing.assert_allclose(krylov.divide(whole, columns), expected, atol=1e-8)
    found = krylov.solve(lambda rows: rows @ whole, columns)
    error = np.linalg.norm(found - expected) / np.linalg.norm(expected)
    assert error < krylov.CLOSE


def test_nothing_is_solved_by_nothing():
    push = Counted(np.eye(SIZE))
    assert not krylov.solve(push, np.zeros((SIZE, 3))).any()
    assert push.rows == 0

"""Small triangular algebra, against NumPy and SciPy, matrix by matrix."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy.linalg import solve_triangular

from metalgrad import small

BATCH = 7


@pytest.fixture(autouse=True, scope="module")
def double_precision():
    with jax.enable_x64(new_val=True):
        yield


@pytest.fixture(scope="module", params=[(1, 1), (3, 2), (5, 5), (4, 9)])
def gram(request):
    """Of full rank and of less, from nothing told to very much, (batch, row, row)."""
    rows, inner = request.param
    rng = np.random.default_rng(rows)
    spread = rng.normal(size=(BATCH, rows, inner))
    spread *= np.logspace(-3, 3, BATCH)[:, None, None]
    spread[0] = 0.0
    return spread @ spread.swapaxes(1, 2)


@pytest.fixture(scope="module")
def lower(gram):
    return small.factor(jnp.asarray(np.moveaxis(gram, 0, -1)))


@pytest.fixture(scope="module")
def dense(gram):
    """NumPy's factor of the same, (batch, row, row)."""
    return np.linalg.cholesky(np.eye(gram.shape[1]) + gram)


@pytest.fixture(scope="module")
def vector(gram):
    return np.random.default_rng(11).normal(size=gram.shape[:2])


def test_factor_is_the_cholesky_factor_of_one_and_the_gram(lower, dense):
    for row, entries in enumerate(lower):
        assert all(entry is None for entry in entries[row + 1 :])
        for column, entry in enumerate(entries[: row + 1]):
            expected = dense[:, row, column]
            assert_allclose(entry, expected, rtol=1e-7, atol=1e-8)


def test_log_volume_is_half_the_log_determinant(gram, lower):
    _, volume = np.linalg.slogdet(np.eye(gram.shape[1]) + gram)
    assert_allclose(small.log_volume(lower), volume.sum() / 2, rtol=1e-9)


@pytest.mark.parametrize("shift", [0.0, 1.0])
def test_solve_lower_is_scipys(lower, dense, vector, shift):
    found = np.stack(small.solve_lower(lower, jnp.asarray(vector.T), shift), axis=-1)
    for one, matrix, right in zip(found, dense, vector, strict=True):
        moved = matrix + shift * np.eye(len(matrix))
        expected = solve_triangular(moved, right, lower=True)
        assert_allclose(one, expected, rtol=1e-6, atol=1e-9)


def test_solve_upper_is_scipys_of_the_transpose(lower, dense, vector):
    found = np.stack(small.solve_upper(lower, jnp.asarray(vector.T)), axis=-1)
    for one, matrix, right in zip(found, dense, vector, strict=True):
        expected = solve_triangular(matrix, right, lower=True, trans="T")
        assert_allclose(one, expected, rtol=1e-6, atol=1e-9)


def test_slopes_are_those_of_the_dense_formula(gram, vector):
    """Of Σ ln L + |L^-1 v|² + |(L + 1)^-1 v|² in the gram: finite, also at a gram of 0.

    Both of JAX: by hand of a batch, and by its own Cholesky of each.
    """
    rows, right = gram.shape[1], jnp.asarray(vector.T)

    def by_rows(batch):
        lower = small.factor(batch)
        halves = [small.solve_lower(lower, right, shift) for shift in (0.0, 1.0)]
        square = sum(jnp.sum(x**2) for half in halves for x in half)
        return small.log_volume(lower) + square

    def dense(matrix, right):
        lower, eye = jnp.linalg.cholesky(jnp.eye(rows) + matrix), jnp.eye(rows)
        halves = [jnp.linalg.solve(lower + s * eye, right) for s in (0.0, 1.0)]
        square = sum(jnp.sum(half**2) for half in halves)
        return jnp.sum(jnp.log(jnp.diagonal(lower))) + square

    found = np.moveaxis(
        jax.grad(by_rows)(jnp.moveaxis(jnp.asarray(gram), 0, -1)), -1, 0
    )
    assert np.isfinite(found).all()
    expected = jax.vmap(jax.grad(dense))(jnp.asarray(gram), jnp.asarray(vector))
    # The one reads the lower triangle, the other both: of a symmetric matrix, the sum.
    both = [x + np.swapaxes(x, 1, 2) for x in (found, np.asarray(expected))]
    assert_allclose(*both, rtol=1e-4, atol=1e-8)

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
def spread(request):
    """Rows that span all and that do not, of nothing to very much."""
    rows, inner = request.param
    rng = np.random.default_rng(rows)
    spread = rng.normal(size=(BATCH, rows, inner))
    spread *= np.logspace(-3, 3, BATCH)[:, None, None]
    spread[0] = 0.0
    return spread


@pytest.fixture(scope="module")
def gram(spread):
    """Scalar products of the rows, (batch, row, row)."""
    return spread @ spread.swapaxes(1, 2)


def take_apart(spread):
    return [small.entries(row) for row in jnp.moveaxis(jnp.asarray(spread), 0, -1)]


@pytest.fixture(scope="module")
def lower(spread):
    return small.factor(take_apart(spread))


@pytest.fixture(scope="module")
def dense(gram):
    """NumPy's factor of the same, (batch, row, row)."""
    return np.linalg.cholesky(np.eye(gram.shape[1]) + gram)


@pytest.fixture(scope="module")
def vector(gram):
    return np.random.default_rng(11).normal(size=gram.shape[:2])


def test_factor_is_the_cholesky_factor_of_one_and_the_gram(lower, dense):
    for row, entries in enumerate(lower):
        assert len(entries) == row + 1
        for column, entry in enumerate(entries):
            expected = dense[:, row, column]
            assert_allclose(entry, expected, rtol=1e-7, atol=1e-8)


def test_log_volume_is_half_the_log_determinant(gram, lower):
    _, volume = np.linalg.slogdet(np.eye(gram.shape[1]) + gram)
    assert_allclose(small.log_volume(lower), volume / 2, rtol=1e-9, atol=1e-12)


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


def test_slopes_are_those_of_the_dense_formula(spread, vector):
    """Of Σ ln L + |L^-1 v|² + |(L + 1)^-1 v|² in the rows: finite, also at rows of 0.

    Both of JAX: by hand of a batch, and by its own Cholesky of each.
    """
    count, right = spread.shape[1], small.entries(jnp.asarray(vector.T))

    def by_rows(spread):
        lower = small.factor(take_apart(spread))
        halves = [small.solve_lower(lower, right, shift) for shift in (0.0, 1.0)]
        square = sum(jnp.sum(x**2) for half in halves for x in half)
        return jnp.sum(small.log_volume(lower)) + square

    def dense(rows, right):
        eye = jnp.eye(count)
        lower = jnp.linalg.cholesky(eye + rows @ rows.T)
        halves = [jnp.linalg.solve(lower + s * eye, right) for s in (0.0, 1.0)]
        square = sum(jnp.sum(half**2) for half in halves)
        return jnp.sum(jnp.log(jnp.diagonal(lower))) + square

    found = np.asarray(jax.grad(by_rows)(jnp.asarray(spread)))
    assert np.isfinite(found).all()
    expected = jax.vmap(jax.grad(dense))(jnp.asarray(spread), jnp.asarray(vector))
    assert_allclose(found, expected, rtol=1e-4, atol=1e-8)

"""Small triangular algebra, against NumPy and SciPy, matrix by matrix."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy.linalg import solve_triangular

from metalgrad import small

pytestmark = pytest.mark.usefixtures("double_precision")

BATCH = 7


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


def take_apart(gram):
    """Rows of a batch of matrices, up to the diagonal."""
    rows = [small.entries(row) for row in jnp.moveaxis(jnp.asarray(gram), 0, -1)]
    return [row[: k + 1] for k, row in enumerate(rows)]


@pytest.fixture(scope="module")
def lower(gram):
    return small.factor(take_apart(gram))


@pytest.fixture(scope="module")
def dense(gram):
    """NumPy's factor of the same, (batch, row, row)."""
    return np.linalg.cholesky(np.eye(gram.shape[1]) + gram)


@pytest.fixture(scope="module")
def vector(gram):
    return np.random.default_rng(11).normal(size=gram.shape[:2])


def test_factor_is_the_cholesky_factor_of_one_and_the_matrix(lower, dense):
    for row, entries in enumerate(lower):
        assert len(entries) == row + 1
        for column, entry in enumerate(entries):
            expected = dense[:, row, column]
            assert_allclose(entry, expected, rtol=1e-7, atol=1e-8)


def test_log_volume_is_half_the_log_determinant(gram, lower):
    _, volume = np.linalg.slogdet(np.eye(gram.shape[1]) + gram)
    assert_allclose(small.log_volume(lower), volume / 2, rtol=1e-9, atol=1e-12)


def test_solve_lower_is_scipys(lower, dense, vector):
    found = np.stack(small.solve_lower(lower, jnp.asarray(vector.T)), axis=-1)
    for one, matrix, right in zip(found, dense, vector, strict=True):
        expected = solve_triangular(matrix, right, lower=True)
        assert_allclose(one, expected, rtol=1e-6, atol=1e-9)


def test_solve_upper_is_scipys_of_the_transpose(lower, dense, vector):
    found = np.stack(small.solve_upper(lower, jnp.asarray(vector.T)), axis=-1)
    for one, matrix, right in zip(found, dense, vector, strict=True):
        expected = solve_triangular(matrix, right, lower=True, trans="T")
        assert_allclose(one, expected, rtol=1e-6, atol=1e-9)


def test_slopes_are_those_of_the_dense_formula(spread, vector):
    """Of Σ ln L + |L^-1 v|² + |L^-T v|² in the rows: finite, also at rows of 0.

    Both of JAX: by hand of a batch, and by its own Cholesky of each.
    """
    count, right = spread.shape[1], small.entries(jnp.asarray(vector.T))

    def by_rows(spread):
        lower = small.factor(take_apart(spread @ spread.swapaxes(1, 2)))
        halves = small.solve_lower(lower, right), small.solve_upper(lower, right)
        square = sum(jnp.sum(x**2) for half in halves for x in half)
        return jnp.sum(small.log_volume(lower)) + square

    def dense(rows, right):
        lower = jnp.linalg.cholesky(jnp.eye(count) + rows @ rows.T)
        halves = jnp.linalg.solve(lower, right), jnp.linalg.solve(lower.T, right)
        square = sum(jnp.sum(half**2) for half in halves)
        return jnp.sum(jnp.log(jnp.diagonal(lower))) + square

    found = np.asarray(jax.grad(by_rows)(jnp.asarray(spread)))
    assert np.isfinite(found).all()
    expected = jax.vmap(jax.grad(dense))(jnp.asarray(spread), jnp.asarray(vector))
    assert_allclose(found, expected, rtol=1e-4, atol=1e-8)


@pytest.mark.parametrize("size", [1e10, 1e20, 1e30])
def test_what_rounding_leaves_of_a_matrix_has_a_factor(size):
    """Of one direction told so well that what is told of others is lost."""
    matrix = size * np.ones((1, 3, 3)) + np.diag([0.0, 1e-3, 0.0])
    lower = small.factor(take_apart(matrix))
    assert all(float(row[-1][0]) >= 1 for row in lower)
    assert np.isfinite(float(small.log_volume(lower)[0]))

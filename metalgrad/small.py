"""Triangular algebra of many small matrices at once.

A batched LAPACK call costs more for each 5 x 5 matrix than its arithmetic.  Written out
over rows, every operation is one of whole vectors, which compilers fuse.  Matrices and
vectors come with their rows first and the batch last.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


def factor(gram: Float[Array, "row row batch"]) -> list[list]:
    """Lower Cholesky factor of ``1 + gram``: rows of arrays, (batch,).

    Parameters
    ----------
    gram : array, (row, row, batch)
        Positive semi-definite.
    """
    size = len(gram)
    lower = [[None] * size for _ in range(size)]
    for column in range(size):
        for row in range(column, size):
            above = sum(lower[row][k] * lower[column][k] for k in range(column))
            left = gram[row, column] - above
            diagonal = row == column
            lower[row][column] = (
                jnp.sqrt(1 + left) if diagonal else left / lower[column][column]
            )
        _keep(lower, column)
    return lower


def _keep(lower, column):
    """Have a column computed once; fused with what follows it would be many times."""
    rows = range(column, len(lower))
    kept = jax.lax.optimization_barrier([lower[row][column] for row in rows])
    for row, value in zip(rows, kept, strict=True):
        lower[row][column] = value


def log_volume(lower) -> Float[Array, ""]:
    """Sum of the logarithms of all diagonals."""
    return sum(jnp.sum(jnp.log(row[k])) for k, row in enumerate(lower))


def solve_lower(lower, vector, shift: float = 0.0) -> list:
    """Solve ``(lower + shift) x = vector``; a row at a time, (batch,) each."""
    found = []
    for row, value in zip(lower, vector, strict=True):
        rest = sum(row[k] * x for k, x in enumerate(found))
        one = (value - rest) / (row[len(found)] + shift)
        found.append(jax.lax.optimization_barrier(one))
    return found


def solve_upper(lower, vector) -> list:
    """Solve with the transpose of ``lower``."""
    size = len(lower)
    found = [None] * size
    for row in reversed(range(size)):
        rest = sum(lower[k][row] * found[k] for k in range(row + 1, size))
        one = (vector[row] - rest) / lower[row][row]
        found[row] = jax.lax.optimization_barrier(one)
    return found

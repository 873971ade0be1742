"""Triangular algebra of many small matrices at once.

A batched LAPACK call costs more for each 5 x 5 matrix than its arithmetic.  Written out
over rows, every operation is one of whole vectors, which compilers fuse.  Matrices and
vectors come with their rows first and the batch last.
"""

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
    return lower


def log_volume(lower) -> Float[Array, ""]:
    """Sum of the logarithms of all diagonals."""
    return sum(jnp.sum(jnp.log(row[k])) for k, row in enumerate(lower))


def solve_lower(lower, vector, shift: float = 0.0) -> list:
    """Solve ``(lower + shift) x = vector``; a row at a time, (batch,) each."""
    found = []
    for row, value in zip(lower, vector, strict=True):
        rest = sum(row[k] * x for k, x in enumerate(found))
        found.append((value - rest) / (row[len(found)] + shift))
    return found


def solve_upper(lower, vector) -> list:
    """Solve with the transpose of ``lower``."""
    size = len(lower)
    found = [None] * size
    for row in reversed(range(size)):
        rest = sum(lower[k][row] * found[k] for k in range(row + 1, size))
        found[row] = (vector[row] - rest) / lower[row][row]
    return found

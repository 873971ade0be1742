"""Triangular algebra of many small matrices at once.

A batched LAPACK call costs more for each 5 x 5 matrix than its arithmetic, and so does
a sum along an axis that short.  Written out over rows and columns, every operation is
one of whole vectors, which compilers fuse: matrices are lists of rows, rows and vectors
lists of entries, and each entry an array, (batch,).
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


def entries(vector: Float[Array, "entry batch"]) -> list:
    """Take a vector apart, so that its gradient is put together once, not added up."""
    return [once(one[0]) for one in jax.lax.split(vector, [1] * len(vector), axis=0)]


def divide(value, amplitude):
    """Divide by amplitudes; where one is 0, nothing hangs on the value, and it is 0."""
    none = amplitude == 0
    return jnp.where(none, 0.0, value / jnp.where(none, 1.0, amplitude))


def dot(one, other):
    """Scalar product of two vectors."""
    return sum(a * b for a, b in zip(one, other, strict=True))


def factor(rows) -> list[list]:
    """Lower Cholesky factor of 1 and a matrix, whose ``rows`` end at the diagonal.

    Of one without negative eigenvalues the diagonal is 1 at least, whatever rounding
    makes of it.
    """
    lower = []
    for row in rows:
        found = []
        for value, above in zip(row, lower, strict=False):
            found.append(once((value - dot(found, above[:-1])) / above[-1]))
        square = 1 + row[-1] - dot(found, found)
        lower.append([*found, once(jnp.sqrt(jnp.maximum(square, 1.0)))])
    return lower


def once(value):
    """Have a value computed once, not again in each of the loops that use it."""
    return jax.lax.optimization_barrier(value)


def log_volume(lower) -> Float[Array, " batch"]:
    """Sum of the logarithms of the diagonal."""
    return sum(jnp.log(row[-1]) for row in lower)


def solve_lower(lower, vector) -> list:
    """Solve ``lower x = vector``."""
    found = []
    for row, value in zip(lower, vector, strict=True):
        rest = value - dot(row[:-1], found)
        found.append(once(rest / row[-1]))
    return found


def solve_upper(lower, vector) -> list:
    """Solve with the transpose of ``lower``."""
    found = []
    for k in reversed(range(len(lower))):
        column = [row[k] for row in reversed(lower[k + 1 :])]
        found.append(once((vector[k] - dot(column, found)) / lower[k][k]))
    return found[::-1]

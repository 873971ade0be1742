"""Solve with a matrix that is nearly the identity, of which only products are at hand.

Where it stretches few directions, all that it makes of some vectors is among these and
what it takes them to, a few times over: a block Krylov space (Saad 2003, Iterative
Methods for Sparse Linear Systems, ch. 6).
"""

from collections.abc import Callable

import numpy as np
from jaxtyping import Float

LEAST = 1e-2  # curvature, where the prior's is 1: none is taken for less
CLOSE = 1e-3  # of the columns' norm, that may be left; this and the next are ours
BLOCKS = 12  # at most


def solve(push: Callable, columns) -> Float[np.ndarray, "all column"]:
    """Solve for several columns at once.

    The matrix is symmetric.  An eigenvalue below 0 is taken for its absolute value, and
    none for less than `LEAST`.

    Parameters
    ----------
    push : callable
        Takes (row, all) to those rows times the matrix.
    columns : array, (all, column)
    """
    found = np.zeros_like(columns)
    basis = pushed = np.zeros((len(columns), 0))
    left = columns
    little = CLOSE * np.linalg.norm(columns) / np.sqrt(columns.shape[1])
    for _ in range(BLOCKS):
        axes, size, _ = np.linalg.svd(left, full_matrices=False)
        if not (size > little).any():
            break
        fresh = np.linalg.qr(_across(basis, axes[:, size > little]))[0]
        basis = np.concatenate([basis, fresh], axis=1)
        pushed = np.concatenate([pushed, push(fresh.T).T], axis=1)
        inside = divide(basis.T @ pushed, basis.T @ columns)
        found, left = basis @ inside, _across(basis, columns - pushed @ inside)
    return found


def divide(matrix, columns) -> Float[np.ndarray, "all column"]:
    """Solve with a symmetric matrix that is at hand, eigenvalues as for `solve`."""
    value, axes = np.linalg.eigh((matrix + matrix.T) / 2)
    value = np.maximum(np.abs(value), LEAST)
    return axes @ (axes.T @ columns / value[:, None])


def _across(basis, columns):
    """Take the part of columns that is in the span of an orthonormal basis away."""
    return columns - basis @ (basis.T @ columns)

"""Normal equations of Gaussian data: integrate terms out, take square roots.

Everything is NumPy in double precision, for all spaxels at once.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

UNSEEN = 1e-9  # share of a line's precision below which there is but rounding


def normal_equations(design, basis, prior, flux, weight):
    """Build normal equations of line fluxes with the terms of ``basis`` integrated out.

    Parameters
    ----------
    design : array, (spaxel, line, pixel)
    basis : array, (spaxel, term, pixel)
        Continuum and nuisances.
    prior : array, (spaxel, term)
        Prior precision of each term's coefficient; 0 for a flat prior.
    flux, weight : array, (spaxel, pixel)

    Returns
    -------
    precision : numpy.ndarray, (spaxel, line, line)
    vector : numpy.ndarray, (spaxel, line)
    square : numpy.ndarray, (spaxel,)
        What is left of the data's own weighted square.
    log_det : numpy.ndarray, (spaxel,)
        Log determinant of the terms' posterior precision.
    rank : numpy.ndarray of int, (spaxel,)
        Number of terms that data and prior tell from each other.
    """
    weighted = basis * weight[:, None, :]
    inner = weighted @ np.swapaxes(basis, 1, 2)
    terms = np.arange(inner.shape[1])
    inner[:, terms, terms] += prior
    found = decompose(inner)
    rows = np.concatenate([design, flux[:, None, :]], axis=1)
    onto = weighted @ np.swapaxes(rows, 1, 2)
    gram = (rows * weight[:, None, :]) @ np.swapaxes(rows, 1, 2)
    full = np.einsum("sll->sl", gram)[:, :-1].copy()
    gram -= np.swapaxes(onto, 1, 2) @ found.inverse() @ onto
    precision, vector = forget(gram[:, :-1, :-1], gram[:, :-1, -1], full)
    return precision, vector, gram[:, -1, -1], found.log_det, found.rank


def forget(precision, vector, full):
    """Drop the lines of which nothing but rounding is left.

    Parameters
    ----------
    precision : array, (spaxel, line, line)
    vector : array, (spaxel, line)
    full : array, (spaxel, line)
        Precision of each line before others were integrated out.

    Returns
    -------
    precision : numpy.ndarray, (spaxel, line, line)
    vector : numpy.ndarray, (spaxel, line)
    """
    seen = np.einsum("sll->sl", precision) > UNSEEN * full
    return precision * seen[:, :, None] * seen[:, None, :], vector * seen


@dataclass(frozen=True, eq=False)
class Directions:
    """Eigenvectors of precision matrices that were scaled to a diagonal of ones.

    Attributes
    ----------
    size : numpy.ndarray, (spaxel, line)
        Square roots of the diagonal.
    value : numpy.ndarray, (spaxel, direction)
        Eigenvalues; 0 where there is but rounding.
    axes : numpy.ndarray, (spaxel, line, direction)
    """

    size: Float[np.ndarray, "spaxel line"]
    value: Float[np.ndarray, "spaxel line"]
    axes: Float[np.ndarray, "spaxel line line"]

    @property
    def rank(self) -> np.ndarray:
        """Number of directions with information, (spaxel,)."""
        return np.count_nonzero(self.value, axis=1)

    @property
    def seen(self) -> np.ndarray:
        """Whether a line has no part in a direction without information."""
        blind = (self.axes**2 * (self.value == 0)[:, None, :]).sum(axis=2)
        return blind < UNSEEN

    @property
    def log_det(self) -> np.ndarray:
        """Log determinant over the directions with information, (spaxel,)."""
        value = np.log(np.where(self.value > 0, self.value, 1.0)).sum(axis=1)
        return value + 2 * np.log(self.size).sum(axis=1)

    def power(self, exponent: float) -> np.ndarray:
        """Powers of the eigenvalues that are not 0."""
        known = self.value > 0
        return np.where(known, np.where(known, self.value, 1.0) ** exponent, 0.0)

    def inverse(self) -> np.ndarray:
        """Pseudo-inverse, (spaxel, line, line)."""
        axes = self.axes / self.size[:, :, None]
        return (axes * self.power(-1.0)[:, None, :]) @ np.swapaxes(axes, 1, 2)


def decompose(precision) -> Directions:
    """Find the directions about which precision matrices know something.

    Parameters
    ----------
    precision : array, (spaxel, line, line)
    """
    precision = np.asarray(precision, float)
    diagonal = np.einsum("sll->sl", precision)
    size = np.sqrt(np.where(diagonal > 0, diagonal, 1.0))
    value, axes = np.linalg.eigh(precision / (size[:, :, None] * size[:, None, :]))
    return Directions(size, np.where(value > 1e-10, value, 0.0), axes)


def square_root(precision, vector):
    """Whiten normal equations: ``U`` with ``UᵀU = precision`` and ``u = U⁻ᵀ vector``.

    Directions without information give rows of zeros.

    Parameters
    ----------
    precision : array, (spaxel, line, line)
    vector : array, (spaxel, line)

    Returns
    -------
    root : numpy.ndarray, (spaxel, line, line)
    white : numpy.ndarray, (spaxel, line)
    """
    found = decompose(precision)
    stretch, axes = found.power(0.5)[:, :, None], np.swapaxes(found.axes, 1, 2)
    root = stretch * axes * found.size[:, None, :]
    shrunk = np.einsum("srl,sl->sr", axes, np.asarray(vector) / found.size)
    return root, found.power(-0.5) * shrunk


def whiten(precision, vector, owner):
    """`square_root`, complex by complex, so that each row has one noise scale.

    Parameters
    ----------
    precision : array, (spaxel, line, line)
    vector : array, (spaxel, line)
    owner : array of int, (line,)
        The complex of each line.

    Returns
    -------
    root : numpy.ndarray, (spaxel, line, line)
    white : numpy.ndarray, (spaxel, line)
    """
    root, white = np.zeros_like(precision), np.zeros_like(vector)
    for c in np.unique(owner):
        own = np.flatnonzero(owner == c)
        block = precision[:, own][:, :, own]
        root[:, own[:, None], own], white[:, own] = square_root(block, vector[:, own])
    return root, white

"""Normal equations of Gaussian data: integrate terms out, take square roots.

Everything is NumPy in double precision, for all spaxels at once.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from scipy.linalg import toeplitz

FLOOR = 0.02  # least eigenvalue of a correlation matrix; what is less was not measured
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


def make_definite(correlation, count: int) -> Float[np.ndarray, " lag"]:
    """Shrink a correlation so that its matrix of ``count`` channels has an inverse.

    Lags that were cut off, or measured with errors, may leave eigenvalues near 0 or
    below.  By no more than lifts the least to `FLOOR`, the correlation is drawn to 0.

    Parameters
    ----------
    correlation : array, (lag,)
        At lags 0, 1, ...; the first is 1.
    count : int
    """
    lags = np.zeros(count)
    lags[: len(correlation)] = correlation[:count]
    least = np.linalg.eigvalsh(toeplitz(lags))[0]
    share = min((1 - FLOOR) / (1 - least), 1.0) if least < 1 else 1.0
    return np.where(np.arange(len(correlation)) == 0, 1.0, share * correlation)


def band_cholesky(correlation, good) -> Float[np.ndarray, "pixel lag spaxel"]:
    """Cholesky factor of the correlation matrices of the good channels.

    A bad channel is independent of the others, which changes nothing for them.

    Parameters
    ----------
    correlation : array, (lag,)
    good : array of bool, (spaxel, pixel)

    Returns
    -------
    array, (pixel, lag, spaxel)
        Element ``[i, k]`` is that of row ``i`` and column ``i - k``.
    """
    good, reach = np.asarray(good).T, len(correlation)
    factor = np.zeros((len(good), reach, good.shape[1]))
    for i, row in enumerate(factor):
        row[0] = 1.0
        for k in range(min(reach - 1, i), 0, -1):
            before = factor[i - k]
            known = (row[k + 1 :] * before[1 : reach - k]).sum(axis=0)
            row[k] = (correlation[k] * good[i] * good[i - k] - known) / before[0]
        row[0] = np.sqrt(1.0 - (row[1:] ** 2).sum(axis=0))
    return factor


def band_solve(factor, rows) -> Float[np.ndarray, "spaxel row pixel"]:
    """Multiply rows with the inverse of a `band_cholesky` factor.

    Parameters
    ----------
    factor : array, (pixel, lag, spaxel)
        One spaxel serves any number of rows.
    rows : array, (spaxel, row, pixel)
    """
    reach = factor.shape[1] - 1
    rows = np.moveaxis(rows, -1, 0)
    solved = np.zeros((len(rows) + reach, *rows.shape[1:]))
    for i, (own, row) in enumerate(zip(factor[..., None], rows, strict=True)):
        known = (own[:0:-1] * solved[i : i + reach]).sum(axis=0)
        solved[i + reach] = (row - known) / own[0]
    return np.moveaxis(solved[reach:], 0, -1)

"""Normal equations of terms of very different size, many at once."""

import numpy as np

RIDGE = 1e-10  # of a unit diagonal: terms that the data do not tell apart stay finite


def _scaled(normal):
    """Scale to unit diagonals; return the scales, too."""
    diagonal = np.einsum("spp->sp", normal)
    scale = np.sqrt(np.where(diagonal > 0, diagonal, 1.0))
    unit = normal / (scale[:, :, None] * scale[:, None])
    # A term that is not there at all has its amplitude 0.
    unit += (RIDGE + (diagonal <= 0))[..., None] * np.eye(normal.shape[1])
    return unit, scale


def solve(normal, vector):
    """Solve normal equations of terms of any size.

    Parameters
    ----------
    normal : array, (fit, term, term)
    vector : array, (fit, term)

    Returns
    -------
    array, (fit, term)
        0 for a term that is not there at all.
    """
    unit, scale = _scaled(normal)
    return np.linalg.solve(unit, (vector / scale)[..., None])[..., 0] / scale


def invert(normal):
    """Invert matrices of normal equations, (fit, term, term)."""
    unit, scale = _scaled(normal)
    return np.linalg.inv(unit) / (scale[:, :, None] * scale[:, None])


def correlate(rows, correlation):
    """Multiply with the matrix of a stationary correlation, along the last axis."""
    result = rows * correlation[0]
    for lag in range(1, min(len(correlation), rows.shape[-1])):
        result[..., lag:] += correlation[lag] * rows[..., :-lag]
        result[..., :-lag] += correlation[lag] * rows[..., lag:]
    return result

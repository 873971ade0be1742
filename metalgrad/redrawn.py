"""The error of a classical gradient, by drawing the noise of its line fluxes again.

Errors of single points know nothing of two things that are in the line fluxes: dust,
told by two Balmer lines, is corrected as if it were known, and neighbouring annuli
share the noise that drizzling and smoothing spread.  What is drawn about noisy fluxes
scatters more than they do where dust is cut at zero: such errors are careful ones.
"""

import numpy as np
from jaxtyping import Float

from metalgrad.calibrations import Calibration
from metalgrad.classical import ChiSquareMetallicity, chi2_metallicity

STEP = 0.005  # dex, over which the slope of a calibration is taken


def redraw_metallicity(
    fluxes: dict[str, np.ndarray],
    errors: dict[str, np.ndarray],
    calibration: Calibration,
    ratios: tuple[str, ...],
    *,
    seed: int,
    draws: int = 200,
    correlation: Float[np.ndarray, "row row"] | None = None,
) -> Float[np.ndarray, "draw row"]:
    """Measure metallicities again and again, of fluxes with their noise once more.

    Dust, choice of ratios and χ² are those of `chi2_metallicity`.  Lines of a spectrum
    are drawn independently of each other.

    Parameters
    ----------
    fluxes, errors : dict of str to array, (row,)
        As in `chi2_metallicity`.
    calibration : Calibration
    ratios : tuple of str
    seed, draws : int
    correlation : array, (row, row), optional
        Of the noise of a line in different rows (`correlate_sums`); none by default.

    Returns
    -------
    array, (draw, row)
        12+log(O/H); NaN where no ratio could be used, or χ² is least at an edge.
    """
    rng, rows = np.random.default_rng(seed), len(next(iter(fluxes.values())))
    root = np.linalg.cholesky(np.eye(rows) if correlation is None else correlation)
    drawn, known = {}, {}
    for line, flux in fluxes.items():
        size = np.where(np.isfinite(errors[line]), errors[line], 0.0)
        drawn[line] = flux + size * (rng.standard_normal((draws, rows)) @ root.T)
        known[line] = np.broadcast_to(errors[line], (draws, rows))
    found = chi2_metallicity(drawn, known, calibration, ratios)
    return np.where(found.at_edge, np.nan, found.metallicity)


def calibration_error(
    found: ChiSquareMetallicity, calibration: Calibration
) -> Float[np.ndarray, " row"]:
    """Return the part of χ²'s errors that is the calibrations' dispersion [dex].

    It is infinite where no ratio that was used changes with metallicity.
    """
    slopes = [
        (
            np.asarray(calibration.log_ratio(ratio, found.metallicity + STEP))
            - np.asarray(calibration.log_ratio(ratio, found.metallicity - STEP))
        )
        / (2 * STEP * np.asarray(calibration.dispersion(ratio, found.metallicity)))
        for ratio in found.ratios
    ]
    told = np.sum(np.where(found.used, np.stack(slopes, axis=-1) ** 2, 0.0), axis=-1)
    with np.errstate(divide="ignore"):
        return 1 / np.sqrt(told)


def line_covariance(
    radius: Float[np.ndarray, " row"],
    error: Float[np.ndarray, " row"],
    floor: Float[np.ndarray, " row"],
    draws: Float[np.ndarray, "draw row"],
) -> Float[np.ndarray, "2 2"]:
    """Covariance of slope and level of a straight line through redrawn points.

    The line is that of `metalgrad.classical.classical_gradient`, with the same weights
    in every draw.

    Parameters
    ----------
    radius, error : array, (row,)
        Of the points; those whose error is not finite have no weight.
    floor : array, (row,)
        Independent errors that the draws do not have: those of the calibrations.
        More than ``error`` they cannot be.
    draws : array, (draw, row)
        From `redraw_metallicity`; draws with fewer than two points are left out.
    """
    used = np.isfinite(error)
    terms = np.stack([radius[used], np.ones(used.sum())], axis=1)
    weight, values = 1 / error[used] ** 2, draws[:, used]
    seen = np.isfinite(values)
    values = np.where(seen, values, 0.0)[seen.sum(axis=1) >= 2]
    seen = seen[seen.sum(axis=1) >= 2] * weight
    normal = np.einsum("np,dn,nq->dpq", terms, seen, terms)
    lines = np.linalg.solve(normal, ((seen * values) @ terms)[..., None])[..., 0]
    gain = np.linalg.solve(terms.T * weight @ terms, terms.T * weight)
    own = np.minimum(floor[used], error[used]) ** 2
    return np.cov(lines.T) + (gain * own) @ gain.T

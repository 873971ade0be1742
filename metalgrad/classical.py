"""The classical baseline: one χ² per spectrum, then a straight line.

What is done here is Sect. 2.2.1 of Venturi et al. (2024): fluxes are corrected for
dust with one Balmer ratio, every strong-line ratio whose lines all have S/N > 3 is
compared with its calibration as if the ratios were independent, and the smallest χ²
gives 12+log(O/H). It knows nothing of the joint model on purpose: agreement of the
two, or its lack, then means something.

Fluxes and errors come as tables of columns: a mapping from the name of a line to its
flux in each spectrum. A line that was not measured is left out, or has flux NaN or
error infinity. The unit of flux does not matter.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float
from scipy.signal import find_peaks

from metalgrad import lines
from metalgrad.calibrations import Calibration
from metalgrad.detection import (
    PAPER_RATIOS,
    Fluxes,
    Numbers,
    correct_dust,
    select_ratios,
)

__all__ = [
    "PAPER_RATIOS",
    "ChiSquareMetallicity",
    "StraightLine",
    "chi2_metallicity",
    "classical_gradient",
    "correct_dust",
    "select_ratios",
]

# Step of the grid in 12+log(O/H) [dex]: a tenth of the last published digit.
_STEP = 0.001
# Central 68 %.
_QUANTILES = (0.16, 0.84)
# What _solve returns, before whether χ² is least at an edge.
_SOLUTION = ("metallicity", "lower", "upper", "chi2", "second", "second_chi2")
# Dips of χ² shallower than this are rounding (calibrations may be single precision).
_ROUNDING = 1e-4


@dataclass(frozen=True, eq=False)
class ChiSquareMetallicity:
    """Metallicities by least χ², one to each spectrum.

    All arrays have one entry to a spectrum, in the shape of the fluxes; where no ratio
    could be used, they are NaN (and `count` is zero).

    Attributes
    ----------
    metallicity
        12+log(O/H) [dex] of the smallest χ².
    lower, upper
        Ends [dex] of the central 68 % of exp(-χ²/2) under a flat prior over the range
        where all calibrations used are valid. Where ``second`` is finite the best value
        may lie outside.
    second
        12+log(O/H) [dex] of the next lowest minimum of χ² within that range; NaN where
        there is none.
    chi2, second_chi2
        χ² at ``metallicity`` and at ``second``.
    at_edge
        Whether χ² still falls at the end of the range: the value is a limit then.
    ebv
        E(B-V) [mag] that the fluxes were corrected with.
    used
        Which ratios were used, in the order of ``ratios``.
    ratios
        Names of the ratios that were asked for.
    """

    metallicity: Float[np.ndarray, "*row"]
    lower: Float[np.ndarray, "*row"]
    upper: Float[np.ndarray, "*row"]
    second: Float[np.ndarray, "*row"]
    chi2: Float[np.ndarray, "*row"]
    second_chi2: Float[np.ndarray, "*row"]
    at_edge: Bool[np.ndarray, "*row"]
    ebv: Float[np.ndarray, "*row"]
    used: Bool[np.ndarray, "*row ratio"]
    ratios: tuple[str, ...]

    @property
    def count(self) -> np.ndarray | np.integer:
        """How many ratios were used."""
        return self.used.sum(axis=-1)


@dataclass(frozen=True, eq=False)
class StraightLine:
    """A metallicity gradient, Z(r) = central + slope · r.

    Attributes
    ----------
    slope
        Gradient [dex per unit of radius].
    central
        12+log(O/H) at radius zero [dex].
    covariance
        Covariance matrix of (slope, central).
    """

    slope: float
    central: float
    covariance: Float[np.ndarray, "2 2"]

    @property
    def slope_error(self) -> float:
        """Standard error of the gradient [dex per unit of radius]."""
        return float(np.sqrt(self.covariance[0, 0]))

    @property
    def central_error(self) -> float:
        """Standard error of the central metallicity [dex]."""
        return float(np.sqrt(self.covariance[1, 1]))


def chi2_metallicity(
    fluxes: Fluxes,
    errors: Fluxes,
    calibration: Calibration,
    ratios: Sequence[str] = PAPER_RATIOS,
) -> ChiSquareMetallicity:
    """Measure 12+log(O/H) from line fluxes as Venturi et al. (2024) did.

    χ² is the sum over the usable ratios of (observed - calibrated)², each over the
    square of the observed error plus that of the calibration's dispersion. Ratios that
    share lines are counted as if independent, as in the paper: R2, R3, O3O2 and Rhat
    are four terms made of two facts, hence intervals from many ratios are too narrow.

    Parameters
    ----------
    fluxes, errors
        Observed flux and standard error of each line in each spectrum, any unit of
        flux, not corrected for dust.
    calibration
        The strong-line calibrations.
    ratios
        Names of the line ratios to use where their lines are detected; by default those
        of Table 2 of the paper.

    Returns
    -------
    ChiSquareMetallicity
        Best values, intervals, second solutions and what they rest on.

    Raises
    ------
    ValueError
        If a flux has no error, the shapes of the columns differ, a ratio is unknown or
        not calibrated, or ratios used together are nowhere valid together.
    """
    fluxes, errors, ebv = correct_dust(fluxes, errors)
    used = select_ratios(fluxes, errors, ratios)
    grid = _grid(calibration, ratios)
    chi2 = np.zeros((*ebv.shape, len(grid)))
    for index, ratio in enumerate(ratios):
        rows = used[..., index]
        if rows.any():
            # Undetected fluxes may be negative: only the chosen rows have logarithms.
            flux, error = (
                {line: table[line][rows] for line in lines.ratio(ratio).lines}
                for table in (fluxes, errors)
            )
            chi2[rows] += _chi2_term(ratio, flux, error, calibration, grid)
    _refuse_disjoint(calibration, ratios, used, chi2)
    chi2[~used.any(axis=-1)] = np.nan
    solved = [_solve(row, grid) for row in chi2.reshape(-1, len(grid))]
    columns = np.array(solved).reshape(*ebv.shape, len(_SOLUTION) + 1)
    return ChiSquareMetallicity(
        **{name: columns[..., index] for index, name in enumerate(_SOLUTION)},
        at_edge=np.asarray(columns[..., -1] == 1),
        ebv=ebv,
        used=used,
        ratios=tuple(ratios),
    )


def classical_gradient(
    radius: Numbers, metallicity: Numbers, error: Numbers
) -> StraightLine:
    """Fit a straight line to metallicity against radius by weighted least squares.

    Points that are not finite are left out. The errors are taken at their word: the
    covariance is not rescaled by the scatter of the points about the line.

    Parameters
    ----------
    radius
        Distance of each point from the centre [kpc, or any length].
    metallicity, error
        12+log(O/H) of each point and its standard error [dex].

    Returns
    -------
    StraightLine
        The line, its errors and their covariance.

    Raises
    ------
    ValueError
        If an error is not positive, or fewer than two different radii are left.
    """
    columns = [np.asarray(x, dtype=float) for x in (radius, metallicity, error)]
    radius, metallicity, error = np.broadcast_arrays(*columns)
    keep = np.isfinite(radius + metallicity + error)
    if np.any(error[keep] <= 0):
        raise ValueError(
            f"error of metallicity {error[keep].min():g} cannot weight a point where a "
            "positive number of dex is expected; leave the point out or give its error"
        )
    radii = np.unique(radius[keep])
    if len(radii) < 2:
        raise ValueError(
            f"a gradient of {len(radii)} different finite radii has no slope where at "
            "least two are expected; use narrower annuli or more spaxels"
        )
    (slope, central), covariance = np.polyfit(
        radius[keep], metallicity[keep], 1, w=1 / error[keep], cov="unscaled"
    )
    return StraightLine(float(slope), float(central), covariance)


def _grid(calibration, ratios):
    """12+log(O/H) wherever any of the ratios is valid, in even steps."""
    ends = [calibration.valid(ratio) for ratio in ratios]
    low, high = min(low for low, _ in ends), max(high for _, high in ends)
    return np.linspace(low, high, round((high - low) / _STEP) + 1)


def _chi2_term(ratio, flux, error, calibration, grid):
    """χ² of one ratio, (row, grid); infinite where the calibration is not valid."""
    observed, variance = _observe(lines.ratio(ratio), flux, error)
    model = np.asarray(calibration.log_ratio(ratio, grid))
    scatter = np.asarray(calibration.dispersion(ratio, grid))
    low, high = calibration.valid(ratio)
    chi2 = (observed[:, None] - model) ** 2 / (variance[:, None] + scatter**2)
    return np.where((low <= grid) & (grid <= high), chi2, np.inf)


def _observe(ratio, flux, error):
    """Log ratio and its variance [dex²] by first-order propagation, (row,)."""
    log_flux = {line: jnp.asarray(np.log10(flux[line])) for line in flux}
    slopes = jax.grad(lambda x: ratio.log10(x).sum())(log_flux)
    variance = sum(
        (np.asarray(slopes[line]) * error[line] / flux[line] / np.log(10)) ** 2
        for line in flux
    )
    return np.asarray(ratio.log10(log_flux)), variance


def _refuse_disjoint(calibration, ratios, used, chi2):
    """Raise if some row's ratios are nowhere valid together."""
    lost = ~np.isfinite(chi2).any(axis=-1)
    if lost.any():
        row = used[lost][0]
        ranges = [
            "{} from {:g} to {:g}".format(ratio, *calibration.valid(ratio))
            for ratio, chosen in zip(ratios, row, strict=True)
            if chosen
        ]
        raise ValueError(
            f"calibration {calibration.name} is valid in {'; '.join(ranges)} where a "
            "common range is expected; leave one of these ratios out"
        )


def _solve(chi2, grid):
    """Reduce χ² to _SOLUTION and a flag for the edge; NaN where χ² is NaN."""
    inside = np.isfinite(chi2)
    if not inside.any():
        return np.full(len(_SOLUTION) + 1, np.nan)
    chi2, grid = chi2[inside], grid[inside]
    best = chi2.argmin()
    minima, _ = find_peaks(-chi2, prominence=_ROUNDING)
    others = sorted(minima[np.abs(minima - best) > 1], key=lambda i: chi2[i])
    second = (grid[others[0]], chi2[others[0]]) if others else (np.nan, np.nan)
    edge = best in (0, len(grid) - 1)
    return np.array([grid[best], *_interval(chi2, grid), chi2[best], *second, edge])


def _interval(chi2, grid):
    """Quantiles of exp(-χ²/2) on an even grid, by the trapezoidal rule."""
    density = np.exp((chi2.min() - chi2) / 2)
    steps = (density[1:] + density[:-1]) / 2
    cumulative = np.concatenate([[0.0], np.cumsum(steps)])
    return np.interp(_QUANTILES, cumulative / cumulative[-1], grid)

"""Line fluxes as everybody measures them: Gaussians and a continuum, in each spectrum.

Sect. 2.2.1 of Venturi et al. (2024): three complexes of lines are fitted apart, each
with one velocity and one width of the line-spread function, over a continuum that is
straight or, across the Balmer break, of three pieces, but for absorption lines of stars
(`metalgrad.stars`), which the paper did without.  The joint model has no part in it,
and no S/N is too low: what is not detected has a flux, an error and an upper limit.

The fluxes and the continuum are linear, so that only velocity and width are searched
for: on a grid, and from its best point by variable projection (Golub & Pereyra 1973).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from astropy.table import Column, Table
from jaxtyping import Float, Int

from metalgrad.columns import LINE_FLUX
from metalgrad.complexes import (
    MAX_VELOCITY,
    WIDTHS,
    choose,
    fit_complexes,
    within,
)
from metalgrad.linemaps import LineMaps
from metalgrad.lsf import LSF
from metalgrad.spaxels import Spaxels

DETECTED = 3.0  # standard errors: Sect. 2.2.1 and Table 3 of the paper
LEAST = 5  # degrees of freedom without which line-free channels tell no noise


@dataclass(frozen=True, eq=False)
class LineFit:
    """Line fluxes of many spectra.

    Attributes
    ----------
    flux, error : dict of str to array, (spectrum,)
        Flux of each line [1e-20 erg/s/cm2] and its standard error, as
        `metalgrad.classical.chi2_metallicity` takes them: NaN and inf where good
        channels hold less than half of the line.
    complexes : tuple of tuple of str
        Lines that were fitted together.
    velocity, velocity_error : array, (spectrum, complex)
        About the redshift [km/s].
    width, width_error : array, (spectrum, complex)
        Of the LSF, relative to its table.
    chi2 : array, (spectrum, complex)
    dof : array of int, (spectrum, complex)
        Good channels less free parameters.
    noise : array, (spectrum,)
        Root of the reduced χ² of the line-free channels of all complexes; NaN where
        they are too few.
    spectra : Spaxels
        What was fitted.
    """

    flux: dict[str, np.ndarray]
    error: dict[str, np.ndarray]
    complexes: tuple[tuple[str, ...], ...]
    velocity: Float[np.ndarray, "spectrum complex"]
    velocity_error: Float[np.ndarray, "spectrum complex"]
    width: Float[np.ndarray, "spectrum complex"]
    width_error: Float[np.ndarray, "spectrum complex"]
    chi2: Float[np.ndarray, "spectrum complex"]
    dof: Int[np.ndarray, "spectrum complex"]
    noise: Float[np.ndarray, " spectrum"]
    spectra: Spaxels

    def limit(self, line: str) -> Float[np.ndarray, " spectrum"]:
        """Return the 3 sigma upper limit of a flux; NaN where the line is detected.

        Parameters
        ----------
        line : str
            One of those in ``flux``.
        """
        # NaN compares false: what was not measured has an infinite limit.
        detected = self.flux[line] > DETECTED * self.error[line]
        return np.where(detected, np.nan, DETECTED * self.error[line])

    def to_table(self) -> Table:
        """Return a row for each spectrum.

        ``LINE``, ``LINE_err`` and ``LINE_limit`` of each line; of each complex, by the
        name of its first line, ``velocity_LINE``, ``width_LINE`` (with ``_err``),
        ``chi2_LINE`` and ``dof_LINE``; and ``noise``.
        """
        table = Table()
        for line in self.flux:
            table[line] = Column(self.flux[line], unit=LINE_FLUX)
            table[f"{line}_err"] = Column(self.error[line], unit=LINE_FLUX)
            table[f"{line}_limit"] = Column(self.limit(line), unit=LINE_FLUX)
        for number, (first, *_) in enumerate(self.complexes):
            for name in ("velocity", "width"):
                table[f"{name}_{first}"] = getattr(self, name)[:, number]
                error = getattr(self, f"{name}_error")[:, number]
                table[f"{name}_{first}_err"] = error
            for name in ("chi2", "dof"):
                table[f"{name}_{first}"] = getattr(self, name)[:, number]
            for name in (f"velocity_{first}", f"velocity_{first}_err"):
                table[name].unit = "km / s"
        table["noise"] = self.noise
        return table

    def to_linemaps(self) -> LineMaps:
        """Return the fluxes as data of a joint fit or of another program."""
        flux, error = (
            np.stack(list(table.values()), axis=1) for table in (self.flux, self.error)
        )
        spectra = self.spectra
        return LineMaps(
            lines=tuple(self.flux),
            flux=np.where(np.isfinite(error), flux, 0.0),
            error=error,
            position=np.asarray(spectra.position, float),
            radius_unit="kpc",
            index=spectra.index,
            shape=spectra.shape,
            header=spectra.header,
            target=spectra.target,
            effective_radius=spectra.effective_radius,
        )


def fit_lines(
    spectra: Spaxels,
    *,
    lines: Sequence[str] | None = None,
    integrated: bool = False,
    lsf: LSF | None = None,
    max_velocity: float = MAX_VELOCITY,
    widths: tuple[float, float] = WIDTHS,
    starry: bool = True,
    rescale: bool = False,
    correlation: np.ndarray | None = None,
) -> LineFit:
    """Fit the emission lines of every spectrum by itself.

    Each complex has one velocity and one width; 5008/4960 and 6585/6550 and the other
    fixed ratios are those of ``data/lines.ecsv``.  Errors allow for the continuum, the
    velocity and the width.  They trust the errors of the data, as the paper (which does
    not say how it made its own) may have done, unless told otherwise.

    Parameters
    ----------
    spectra : Spaxels
        Spaxels, or sums of them (`metalgrad.add_up`).
    lines : sequence of str, optional
        Those to fit; by default all of ``data/lines.ecsv`` that are within range, but
        [N II] only if ``integrated``.
    integrated : bool
        Whether to fit [N II]: in integrated spectra, not in spaxels.
    lsf : LSF, optional
        That of the spaxels by default.
    max_velocity : float
        Largest velocity about the redshift, either way [km/s].
    widths : (float, float)
        Least and largest width of the LSF relative to its table.
    starry : bool
        Whether stars may have absorption lines under those of the gas; the paper had
        straight pieces.
    rescale : bool
        Multiply errors with the root of the reduced χ² of the spectrum's line-free
        channels.
    correlation : array, (lag,), optional
        Of the noise of channels 0, 1, ... apart (`NoiseCorrelation.spectral`), for
        which errors are made; fluxes are the same.

    Returns
    -------
    LineFit

    Raises
    ------
    ValueError
        If a line is unknown, none is within range, or a bound is out of order.
    """
    names = choose(lines, integrated=integrated)
    bounds = np.array([[-max_velocity, max_velocity], widths], float)
    if not (np.diff(bounds) > 0).all() or widths[0] <= 0:
        raise ValueError(
            f"max_velocity is {max_velocity:g} and widths {tuple(widths)} where a "
            "velocity above 0 and increasing widths above 0 are expected; mend them"
        )
    lsf = lsf or spectra.lsf
    groups = within(spectra, names, lsf)
    fits = fit_complexes(spectra, groups, lsf, bounds, correlation, starry=starry)
    noise = _noise(*(sum(fit[k] for fit in fits) for k in (2, 3)))
    scale = np.where(np.isfinite(noise), noise, 1.0) if rescale else 1.0
    flux, error = {}, {}
    for group, (found, *_) in zip(groups, fits, strict=True):
        flux |= dict(zip(group, found.amplitude.T, strict=True))
        error |= dict(zip(group, scale * found.amplitude_error.T, strict=True))
    shape, spread = (
        np.stack([getattr(found, name) for found, *_ in fits], axis=1)
        for name in ("shape", "shape_error")
    )
    return LineFit(
        flux, error, groups,
        velocity=shape[..., 0], velocity_error=spread[..., 0],
        width=shape[..., 1], width_error=spread[..., 1],
        chi2=np.stack([np.sum(f.residual**2, axis=1) for f, *_ in fits], axis=1),
        dof=np.stack([found.dof for found, *_ in fits], axis=1),
        noise=noise, spectra=spectra,
    )  # fmt: skip


def _noise(chi2, expected):
    """Root of the reduced χ²; NaN where channels are too few."""
    enough = expected >= LEAST
    return np.sqrt(np.where(enough, chi2 / np.where(enough, expected, 1.0), np.nan))

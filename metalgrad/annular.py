"""The paper's metallicity gradient of a cube: spectra of annuli, a χ² each, a line.

Sect. 2.2 and 7 of Venturi et al. (2024), from the cube to its Table 4.  Nothing of the
joint model takes part, so that the two may be compared.
"""

from dataclasses import dataclass, replace

import astropy.units as u
import numpy as np
from astropy.table import Column, Table, hstack
from jaxtyping import Float, Int

from metalgrad.calibrations import Calibration, load_calibration
from metalgrad.classical import (
    PAPER_RATIOS,
    ChiSquareMetallicity,
    StraightLine,
    chi2_metallicity,
    classical_gradient,
)
from metalgrad.clipping import clip_outliers
from metalgrad.complexes import COMPLEXES, REACH
from metalgrad.cubes import Cube
from metalgrad.headers import angle_on_map
from metalgrad.linefit import LineFit, fit_lines
from metalgrad.lines import wavelengths as rest_wavelengths
from metalgrad.lsf import LSF
from metalgrad.matching import match_psf
from metalgrad.noise import measure_correlation
from metalgrad.psf import PSF, nirspec, orient
from metalgrad.redrawn import (
    calibration_error,
    line_covariance,
    redraw_metallicity,
)
from metalgrad.sizes import EffectiveRadius, effective_radius, find_peak
from metalgrad.spaxels import Spaxels, find_lsf
from metalgrad.sums import add_up, correlate_sums
from metalgrad.targets import Target

MARGIN = 0.2  # arcsec beyond the annuli from which smoothing still brings outliers in


@dataclass(frozen=True, eq=False)
class AnnularGradient:
    """A gradient measured in annuli, and all that it was made of.

    Attributes
    ----------
    radius : array, (annulus,)
        Mean radius of the spaxels, in the plane of the disc [kpc].
    outer : array, (annulus,)
        Radius at which each ends [arcsec].
    spaxels : array of int, (annulus,)
        How many they are.
    fit : LineFit
        Fluxes of the annuli.
    metallicity : ChiSquareMetallicity
    error : array, (annulus,)
        Half of the central 68 % [dex]; NaN where there is no measurement: no ratio
        could be used, or χ² still falls at the end of the calibration.
    line : StraightLine
        12+log(O/H) against radius [dex/kpc].
    size : EffectiveRadius
    target : Target
        With the centre that was used.
    """

    radius: Float[np.ndarray, " annulus"]
    outer: Float[np.ndarray, " annulus"]
    spaxels: Int[np.ndarray, " annulus"]
    fit: LineFit
    metallicity: ChiSquareMetallicity
    error: Float[np.ndarray, " annulus"]
    line: StraightLine
    size: EffectiveRadius
    target: Target

    @property
    def line_per_effective_radius(self) -> StraightLine:
        """Return the same line against radius in effective radii [dex/R_e].

        The effective radius is taken as known, as in the paper.
        """
        scale = np.array([self.size.kpc, 1.0])
        covariance = self.line.covariance * np.outer(scale, scale)
        slope = self.line.slope * self.size.kpc
        return StraightLine(slope, self.line.central, covariance)

    def to_table(self) -> Table:
        """Return a row for each annulus: radius, metallicity, E(B-V) and lines."""
        found = self.metallicity
        table = Table({"radius": self.radius, "spaxels": self.spaxels})
        table["radius"].unit = u.kpc
        table["metallicity"] = found.metallicity
        table["metallicity_err"] = self.error
        for name in ("lower", "upper", "second", "at_edge", "chi2", "ebv"):
            table[name] = getattr(found, name)
        table["ebv"].unit = u.mag
        names = np.array(found.ratios)
        table["ratios"] = [" ".join(names[used]) for used in found.used]
        return hstack([table, self.fit.to_table()])

    def summary(self) -> Table:
        """Return one row: the gradient per kpc and per R_e, its centre, and R_e."""
        scaled = self.line_per_effective_radius
        centre = self.target.centre.icrs
        table = Table({"target": [self.target.name]})
        for name, value, unit in (
            ("gradient", self.line.slope, "dex / kpc"),
            ("gradient_err", self.line.slope_error, "dex / kpc"),
            ("gradient_re", scaled.slope, "dex"),
            ("gradient_re_err", scaled.slope_error, "dex"),
            ("central", self.line.central, "dex"),
            ("central_err", self.line.central_error, "dex"),
            ("effective_radius", self.size.kpc, "kpc"),
            ("effective_radius_err", self.size.error, "kpc"),
            ("ra", centre.ra.deg, "deg"),
            ("dec", centre.dec.deg, "deg"),
        ):
            table[name] = Column([value], unit=unit)
        table["annuli"] = [int(np.isfinite(self.error).sum())]
        return table


def annular_gradient(
    cube: Cube,
    target: Target,
    *,
    calibration: Calibration | None = None,
    ratios: tuple[str, ...] | None = None,
    goal_fwhm: float | None = None,
    psf: PSF | None = None,
    slice_angle: float | None = None,
    centre: str | None = None,
    region=None,
    width: float | None = None,
    size: EffectiveRadius | None = None,
    lines: tuple[str, ...] | None = None,
    lsf: LSF | None = None,
    clip: bool = True,
    measure_noise: bool = True,
    seed: int = 0,
) -> AnnularGradient:
    """Measure a metallicity gradient as Venturi et al. (2024) did.

    The cube is smoothed to one PSF, spaxels are summed in annuli, the lines of each are
    fitted, corrected for dust, and compared with the calibrations in those ratios whose
    lines have S/N > 3; a straight line goes through the metallicities.  Another
    component of the galaxy is left out by the target's masks (``dataclasses.replace``)
    or by a region.

    Parameters
    ----------
    cube : Cube
    target : Target
        Its radius is where annuli end; they are ellipses if its axis ratio is not 1.
    calibration : Calibration, optional
        ``load_calibration("curti23")``, the paper's, by default.
    ratios : tuple of str, optional
        Those to use where they can be; by default those of the paper that the
        calibration has with a dispersion.
    goal_fwhm : float, optional
        FWHM to smooth the cube to [arcsec], see `metalgrad.matching.match_psf`; it is
        as it is by default.  Wavelengths redder than all lines are left out.
    psf : PSF, optional
        NIRSpec's by default.
    slice_angle : float, optional
        As in `match_psf` [deg]; by default as the cube's header tells.  Where it does
        not a round PSF of the same area is taken.
    centre : str, optional
        Peak to centre annuli on, within the target's radius: ``"continuum"`` or a line
        such as ``"OIII"``; the target's position by default.
    region : region or path, optional
        As in `Spaxels.select`.
    width : float, optional
        Of an annulus [arcsec]; one spaxel by default.
    size : EffectiveRadius, optional
        By default it is fitted to the same spaxels (`effective_radius`).
    lines : tuple of str, optional
        As in `fit_lines`.
    lsf : LSF, optional
        That which `Spaxels.select` finds by default.
    clip : bool
        Leave outliers out first (`clip_outliers`), at the cost of a fit of each spaxel.
    measure_noise : bool
        Take the size of each annulus' noise, and the spectral correlation of the
        cube's, from line-free channels: drizzling and smoothing make sums noisier than
        independent voxels would be.  The slope's error is then that of its noise drawn
        again, dust and neighbours included (`metalgrad.redrawn`), and not that of
        independent points, as it is otherwise, where the errors of the cube are
        trusted; the paper does not say which it did.
    seed : int
        Of that noise: errors alone depend on it.

    Returns
    -------
    AnnularGradient

    Raises
    ------
    ValueError
        If the cube has no pixel scale, fewer than two annuli have a metallicity, or
        what `Spaxels.select`, `match_psf`, `effective_radius` or `fit_lines` refuse.
    """
    if cube.pixel_scale is None:
        raise ValueError("a bare spectrum has no annuli; give a cube")
    calibration = calibration or load_calibration("curti23")
    ratios, lsf = ratios or _usable(calibration), lsf or find_lsf(cube)
    cube = _clipped(cube, target, lsf) if clip else cube
    if goal_fwhm is not None:
        told = angle_on_map(cube.slices, cube.wcs, target.centre)
        turned = orient(psf or nirspec(), told if slice_angle is None else slice_angle)
        cube = match_psf(_cut(cube, target, lsf), goal_fwhm, *turned)
    if centre is not None:
        within = Spaxels.select(cube, target, region, lsf=lsf)
        target = replace(target, position=find_peak(within, centre, lsf=lsf))
    spaxels = Spaxels.select(cube, target, region, lsf=lsf)
    size = size or effective_radius(spaxels)
    step = width or cube.pixel_scale.to_value(u.arcsec)
    radius = spaxels.radius / target.kpc_per_arcsec
    number = np.floor(radius / step * (1 + 1e-9)).astype(int)
    sums = add_up(spaxels, number)
    noise = measure_correlation(spaxels, lsf) if measure_noise else None
    fit = fit_lines(
        sums, lines=lines, integrated=True, lsf=lsf,
        rescale=measure_noise, correlation=noise.spectral if noise else None,
    )  # fmt: skip
    found = chi2_metallicity(fit.flux, fit.error, calibration, ratios)
    error = np.where(found.at_edge, np.nan, (found.upper - found.lower) / 2)
    line = classical_gradient(sums.radius, found.metallicity, error)
    if noise is not None:
        shared = correlate_sums(spaxels.index, number, noise.spatial)
        draws = redraw_metallicity(
            fit.flux, fit.error, calibration, ratios, seed=seed, correlation=shared
        )
        floor = calibration_error(found, calibration)
        covariance = line_covariance(sums.radius, error, floor, draws)
        line = replace(line, covariance=covariance)
    return AnnularGradient(
        radius=sums.radius,
        outer=step * (1 + np.unique(number)),
        spaxels=np.unique(number, return_counts=True)[1],
        fit=fit,
        metallicity=found,
        error=error,
        line=line,
        size=size,
        target=target,
    )


def _usable(calibration):
    """Ratios of the paper for which χ² has a mean and a dispersion."""
    known = calibration.relations
    found = [r for r in PAPER_RATIOS if r in known and known[r].dispersion is not None]
    if not found:
        raise ValueError(
            f"calibration {calibration.name} has none of the paper's ratios "
            f"{', '.join(PAPER_RATIOS)} with a dispersion; give ratios, and their "
            "dispersions (Calibration.with_dispersion)"
        )
    return tuple(found)


def _cut(cube, target, lsf):
    """Leave out what is redder than all lines, where the PSF is widest."""
    edges = cube.edges.to_value(u.um)
    names = tuple(line for group in COMPLEXES for line in group)
    observed = rest_wavelengths(names) * (1 + target.redshift)
    reddest = max(observed[observed < edges[-1]], default=edges[-1])
    beyond = edges[:-1] > reddest + REACH * lsf.sigma(reddest)
    return replace(cube, good=cube.good & ~beyond[:, None, None])


def _clipped(cube, target, lsf):
    """Mark outliers in what is summed, and in what smoothing brings in, as not good."""
    wide = replace(target, radius=target.radius + MARGIN)
    spaxels = Spaxels.select(cube, wide, lsf=lsf)
    lost = np.isinf(clip_outliers(spaxels).error)
    good = cube.good.copy()
    good[:, *spaxels.index.T] &= ~lost.T
    return replace(cube, good=good)

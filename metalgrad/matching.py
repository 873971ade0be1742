"""One spatial resolution at all wavelengths: the paper's smoothing of a cube.

Venturi et al. (2024), section 2.2.1, for maps and annuli of line ratios. The model has
no need of it: it blurs its own maps instead (`metalgrad.psf`).
"""

from dataclasses import replace

import astropy.units as u
import numpy as np
from scipy import ndimage

from metalgrad.cubes import Cube
from metalgrad.psf import PSF, gaussian, nirspec

# Samples are faithful to a Gaussian whose FWHM is this many pixels, or more.
SAMPLED = 1.5
FINE = 10  # pixels of a finer grid along a spaxel's side, for narrower ones


def match_psf(cube: Cube, goal_fwhm, psf: PSF | None = None, angle=0.0) -> Cube:
    """Smooth a cube to the same PSF, round, at every wavelength.

    Each plane is convolved with the Gaussian of FWHM² = goal² - PSF², along the slices
    of the IFU and across. Voxels that are not good, and those beyond the edges, are
    left out and the weights of the others renormalised: flux is not conserved there.
    The variance is convolved with the squared kernel. Errors of neighbours are
    correlated afterwards, which the cube does not say: sums over spaxels have larger
    errors than it makes them.

    Parameters
    ----------
    cube : Cube
        With a pixel scale.
    goal_fwhm : Quantity or float
        FWHM to reach [arcsec]: the widest that the PSF has at the lines of interest,
        which is along the slices and at the reddest line.
    psf : PSF or None
        The cube's own; None for NIRSpec's (D'Eugenio et al. 2023).
    angle : float
        Position angle of the slices' long axis in the frame of the map [deg], as in
        `metalgrad.psf.PSF.kernel`.

    Returns
    -------
    Cube
        With the same good voxels, NaN in the others, and the goal and the angle in
        ``meta`` (PSFGOAL, PSFANGLE).

    Raises
    ------
    ValueError
        If the cube has no pixel scale, or the PSF is wider than the goal where it has
        good voxels.
    """
    if cube.pixel_scale is None:
        raise ValueError(
            "the cube has no pixel_scale, so its PSF is not known in spaxels; set it, "
            "or leave a bare spectrum as it is"
        )
    goal = u.Quantity(goal_fwhm, u.arcsec).value
    scale = cube.pixel_scale.to_value(u.arcsec)
    planes = np.flatnonzero(cube.good.any(axis=(1, 2)))
    wave = cube.wave.to_value(u.um)[planes]
    widths = _widths(nirspec() if psf is None else psf, wave, goal)
    flux, error = np.full_like(cube.flux, np.nan), np.full_like(cube.error, np.nan)
    for plane, width in zip(planes, widths, strict=True):
        data = (values[plane] for values in (cube.flux.value, cube.error.value))
        smooth = _smoothed(*data, cube.good[plane], _kernel(*width, scale, angle))
        flux.value[plane], error.value[plane] = smooth
    meta = cube.meta | {"PSFGOAL": float(goal), "PSFANGLE": float(angle)}
    return replace(cube, flux=flux, error=error, meta=meta)


def _widths(psf, wave, goal):
    """FWHM of the kernels along and across [arcsec], (wave, 2)."""
    own = np.stack(psf.fwhm(wave), axis=-1)
    widest = own.max(axis=1)
    if np.any(widest > goal):
        first = np.argmax(widest > goal)
        enough = np.ceil(widest.max() * 1e4) / 1e4  # rounded down it would not be
        raise ValueError(
            f"at {wave[first]:g} µm the PSF's FWHM is {widest[first]:.4f} arcsec, "
            f"above the goal of {goal:g}; take {enough:.4f} or more, or mark the "
            "wavelengths beyond as not good"
        )
    return np.sqrt(goal**2 - own**2)


def _kernel(along, across, scale, angle):
    """Gaussian on spaxels, with the widths asked for even where they are narrow.

    Near the goal's own wavelength the PSF lacks less than a spaxel, and samples at
    the centres of spaxels would miss it: across turned slices, by 8 % of the goal.
    """
    if min(along, across) >= SAMPLED * scale:
        return gaussian(along, across, scale, angle)
    # No narrower than the finer grid can hold: 0.15 spaxel, in quadrature to the PSF.
    width = np.maximum([along, across], SAMPLED * scale / FINE)
    fine = gaussian(*width, scale / FINE, angle)
    rows, columns = (_to_spaxels(size) for size in fine.shape)
    kernel = rows @ fine @ columns.T
    return kernel / kernel.sum()


def _to_spaxels(size):
    """Weights (spaxel, fine pixel) of the cubic convolution of Keys (1981).

    It reproduces parabolas, and so adds nothing to second moments.
    """
    fine = (np.arange(size) - size // 2) / FINE
    half = int(np.ceil(fine[-1])) + 1
    t = np.abs(np.arange(-half, half + 1)[:, None] - fine)
    near = 1.5 * t**3 - 2.5 * t**2 + 1
    far = -0.5 * t**3 + 2.5 * t**2 - 4 * t + 2
    return np.where(t < 1, near, np.where(t < 2, far, 0.0))


def _smoothed(flux, error, good, kernel):
    """Flux and error of one plane, (y, x), from its good spaxels."""
    variance = np.where(good, error, 0.0).astype(float) ** 2
    weight = np.where(good, _convolved(good.astype(float), kernel), np.nan)
    light = _convolved(np.where(good, flux, 0.0).astype(float), kernel)
    return light / weight, np.sqrt(_convolved(variance, kernel**2)) / weight


def _convolved(values, kernel):
    return ndimage.convolve(values, kernel, mode="constant")

"""Regions of a galaxy: a label for each spaxel."""

import numpy as np
from xarray import DataArray

from metalgrad.psf import FWHM_PER_SIGMA, PSF, ImagePSF, nirspec

WIDTHS = 2  # of the PSF, that a block spans at least
NIRSPEC = nirspec()


def annuli(data, count: int) -> DataArray:
    """Sort spaxels into annuli that hold as many of them each.

    Parameters
    ----------
    data : Spaxels, LineMaps or LineLikelihood
    count : int

    Returns
    -------
    xarray.DataArray of int, (spaxel,)
        Numbers of annuli, from the centre; the array is named "annulus".
    """
    radius = np.hypot(*np.asarray(data.position).T)
    inner = np.quantile(radius, np.arange(1, count) / count)
    return _name(np.searchsorted(inner, radius, side="right"), "annulus")


def blocks(data, side: float, psf: PSF | ImagePSF | None = NIRSPEC) -> DataArray:
    """Sort spaxels into blocks of equal size, no side of which is shorter than asked.

    Parameters
    ----------
    data : Spaxels, LineMaps or LineLikelihood
    side : float
        On the sky [arcsec] for a cube; in the plane of the disc [as positions] else.
    psf : PSF, ImagePSF or None
        Of a cube; None for any side.

    Returns
    -------
    xarray.DataArray of int, (spaxel,)
        Numbers of blocks; the array is named "block".

    Raises
    ------
    ValueError
        If ``side`` is less than two FWHM of the PSF at the reddest wavelength, so that
        neighbours would tell what is left out.
    """
    place = np.asarray(data.position, float)
    if getattr(data, "pixel_scale", None) is not None:
        place = data.index * data.pixel_scale
        least = 0.0 if psf is None else WIDTHS * _fwhm(data, psf)
        if side < least:
            raise ValueError(
                f"blocks of {side:g} arcsec are told by the PSF's wings of their "
                f"neighbours; give a side of at least {least:.2f}, {WIDTHS} FWHM"
            )
    place = place - place.min(axis=0)
    count = np.maximum(place.max(axis=0) // side, 1)
    number = np.minimum(place * count // (place.max(axis=0) + 1e-9), count - 1)
    flat = number @ [count[1], 1]
    return _name(np.unique(flat, return_inverse=True)[1], "block")


def _name(numbers, unit):
    return DataArray(np.asarray(numbers, int), dims="spaxel", name=unit)


def _fwhm(data, psf):
    reddest = min(data.edges[-1], psf.wavelengths[-1])
    kernel = psf.kernel(reddest, data.pixel_scale)
    area = kernel.sum() / kernel.max()  # of a Gaussian: 2π sigma²
    return FWHM_PER_SIGMA * np.sqrt(area / (2 * np.pi)) * data.pixel_scale

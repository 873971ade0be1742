"""The point-spread function of the IFU.

Maps are (y, x), x increasing to the right and y upwards.
"""

from dataclasses import dataclass, replace
from functools import cache

import numpy as np
from jaxtyping import Float

from metalgrad import cards

FWHM_PER_SIGMA = float(2 * np.sqrt(2 * np.log(2)))
# A kernel is cut where it holds all but this much of its flux.
OUTSIDE = 1e-4
# What is said of wrong input.
UNSORTED = "{}.wavelengths do not increase; sort them and leave repeated ones out"
BEYOND = (
    "{} is known from {:g} to {:g} µm, not at {:g}; give observed wavelengths in µm"
)
SIZE = "{} is {:g} where arcsec above 0 are expected; were they lost on the way?"
DARK = "{} has the sum {:g} where finite pixels of a positive sum are expected; mend it"


@dataclass(frozen=True, eq=False)
class PSF:
    """An elliptical Gaussian PSF whose axes lie along and across the slices.

    Attributes
    ----------
    wavelengths : numpy.ndarray, (node,)
        Observed wavelength [µm], increasing; linear in between.
    along, across : numpy.ndarray, (node,)
        FWHM along and across the slices [arcsec].
    """

    wavelengths: Float[np.ndarray, " node"]
    along: Float[np.ndarray, " node"]
    across: Float[np.ndarray, " node"]

    def __post_init__(self):
        """Refuse wavelengths and widths that cannot be."""
        _require(np.diff(self.wavelengths) > 0, UNSORTED.format("PSF"))
        _require_size(np.r_[self.along, self.across], "PSF's FWHM")

    def scaled(self, factor) -> "PSF":
        """Return a PSF ``factor`` times as wide at every wavelength."""
        return replace(self, along=self.along * factor, across=self.across * factor)

    def rounded(self) -> "PSF":
        """Return a round PSF of the same area: of slices of unknown direction."""
        width = np.sqrt(self.along * self.across)
        return replace(self, along=width, across=width)

    def fwhm(self, wavelength):
        """Return the FWHM [arcsec] along and across, at observed wavelengths [µm]."""
        _require_known(wavelength, self.wavelengths, "PSF")
        along = np.interp(wavelength, self.wavelengths, self.along)
        return along, np.interp(wavelength, self.wavelengths, self.across)

    def kernel(self, wavelength, pixel_scale, angle=0.0) -> Float[np.ndarray, "y x"]:
        """Image of a point source in the middle of the central spaxel.

        Parameters
        ----------
        wavelength : float
            Observed wavelength [µm].
        pixel_scale : float
            Side of a spaxel [arcsec].
        angle : float
            Position angle of the slices' long axis in the frame of the map [deg]: from
            +y (up) counter-clockwise, so that 90 is -x. It is one on the sky, from
            north through east, only where north is up and east is left.

        Returns
        -------
        array, (y, x)
            Odd in size and of unit sum.
        """
        return gaussian(*self.fwhm(wavelength), pixel_scale, angle)


@dataclass(frozen=True, eq=False)
class ImagePSF:
    """A PSF given as images, such as STPSF's.

    Attributes
    ----------
    wavelengths : numpy.ndarray, (wavelength,)
        Observed wavelength [µm], increasing; linear in between.
    images : numpy.ndarray, (wavelength, y, x)
        Of a point source in the middle of the image, which for an even size is a
        corner of pixels; +y is along the slices. Each is divided by its sum.
    pixel_scale : float
        Side of the images' pixels [arcsec].
    """

    wavelengths: Float[np.ndarray, " wavelength"]
    images: Float[np.ndarray, "wavelength y x"]
    pixel_scale: float

    def scaled(self, factor) -> "ImagePSF":
        """Return a PSF ``factor`` times as wide at every wavelength."""
        return replace(self, pixel_scale=self.pixel_scale * factor)

    def __post_init__(self):
        """Refuse images that are no images of a point source."""
        _require(np.diff(self.wavelengths) > 0, UNSORTED.format("ImagePSF"))
        _require_size(self.pixel_scale, "ImagePSF.pixel_scale")
        totals = self.images.sum(axis=(1, 2))
        for wave, total in zip(self.wavelengths, totals, strict=True):
            name = f"ImagePSF's image at {wave:g} µm"
            _require(0 < total < np.inf, DARK.format(name, total))

    def kernel(self, wavelength, pixel_scale, angle=0.0) -> Float[np.ndarray, "y x"]:
        """Image of a point source in the middle of the central spaxel.

        An image is integrated over spaxels, its pixels taken as uniform. A turned one
        is interpolated before by cubic splines, so it should be well sampled. Arguments
        and result are those of `PSF.kernel`; the images' +y is turned by the angle.
        """
        from scipy import ndimage  # the rest of the layer does without

        _require_size(pixel_scale, "pixel_scale")
        _require_known(wavelength, self.wavelengths, "ImagePSF")
        # The weights of linear interpolation: a hat around each node.
        nodes = np.arange(len(self.wavelengths))
        distance = np.abs(np.interp(wavelength, self.wavelengths, nodes) - nodes)
        weight = np.maximum(1 - distance, 0) / self.images.sum(axis=(1, 2))
        image = np.tensordot(weight, self.images, axes=1)
        image = ndimage.rotate(image, -angle)  # counter-clockwise, as y is upwards
        scale = self.pixel_scale / pixel_scale
        rows, columns = (_overlap(size, scale) for size in image.shape)
        kernel = rows @ image @ columns.T
        return kernel / kernel.sum()


def orient(psf: PSF | ImagePSF | None, angle: float | None):
    """Return a PSF and the angle of its slices: round, where that is not known.

    Parameters
    ----------
    psf : PSF, ImagePSF or None
    angle : float or None
        As in `PSF.kernel` [deg].
    """
    if angle is None and isinstance(psf, PSF):
        psf = psf.rounded()
    return psf, angle or 0.0


def nirspec(scale=1.0) -> PSF:
    """Return the PSF of the NIRSpec IFU, ``scale`` times as wide as published.

    After D'Eugenio et al. (2023), Eqs. 3 and 4.  Of the same scale it is the same
    object.
    """
    return _nirspec(float(scale))


@cache
def _nirspec(scale):
    table = cards.table("nirspec/psf.ecsv")
    # More than the prism's range; linear between nodes to 2e-6 arcsec.
    wave = np.linspace(0.5, 6.0, 551)
    rows = [table["direction"].index(name) for name in ("along", "across")]
    a, b, c = (np.array(table[name])[rows, None] for name in ("a", "b", "c"))
    return PSF(wave, *(a + b * wave[None] * np.exp(-c / wave[None]))).scaled(scale)


def gaussian(along, across, pixel_scale, angle=0.0) -> Float[np.ndarray, "y x"]:
    """Elliptical Gaussian of unit sum and odd size, sampled at the centres of pixels.

    It is not integrated over them: the published widths were measured in drizzled
    cubes and so hold the pixel already. Samples have the width asked for as long as the
    FWHM is above 1.5 pixels; much narrower ones are a single pixel. The array is cut
    where it holds 0.9999 of the flux.

    Parameters
    ----------
    along, across : float
        FWHM [arcsec]; may be zero.
    pixel_scale, angle : float
        As in `PSF.kernel`.
    """
    _require_size(pixel_scale, "pixel_scale")
    sine, cosine = np.sin(np.deg2rad(angle)), np.cos(np.deg2rad(angle))
    # In pixels; a width of zero is one that no neighbour sees.
    sigma = np.maximum([along, across], 1e-2 * pixel_scale)
    sigma = sigma / (FWHM_PER_SIGMA * pixel_scale)
    # The box around the ellipse that holds the flux.
    box = np.hypot(*(sigma[:, None] * [[cosine, sine], [sine, cosine]]))
    half_y, half_x = np.ceil(box * np.sqrt(-2 * np.log(OUTSIDE))).astype(int)
    y, x = np.mgrid[-half_y : half_y + 1, -half_x : half_x + 1]
    along, across = y * cosine - x * sine, y * sine + x * cosine
    kernel = np.exp(-0.5 * ((along / sigma[0]) ** 2 + (across / sigma[1]) ** 2))
    return kernel / kernel.sum()


def _overlap(size, scale):
    """Fraction of each of ``size`` pixels in each spaxel (spaxel, pixel).

    ``scale`` is the side of a pixel in spaxels; both rows have the same middle.
    """
    half = int(np.ceil(size * scale / 2 - 0.5 - 1e-9))
    spaxel = np.arange(-half, half + 2)[:, None] - 0.5
    pixel = (np.arange(size + 1)[None] - size / 2) * scale
    upper = np.minimum(spaxel[1:], pixel[:, 1:])
    return np.maximum(upper - np.maximum(spaxel[:-1], pixel[:, :-1]), 0) / scale


def _require(holds, problem):
    if not np.all(holds):
        raise ValueError(problem)


def _require_size(values, name):
    fine = np.isfinite(values) & np.greater(values, 0)
    _require(fine, SIZE.format(name, np.min(values)))


def _require_known(wavelength, known, owner):
    for wave in np.ravel(wavelength):
        inside = known[0] <= wave <= known[-1]
        _require(inside, BEYOND.format(owner, known[0], known[-1], wave))

"""How large a galaxy is, and where its middle lies, from maps of its spectra."""

from dataclasses import dataclass

import numpy as np
from astropy.coordinates import SkyCoord
from jaxtyping import Float

from metalgrad.linefit import fit_lines
from metalgrad.lsf import LSF
from metalgrad.positions import read_wcs
from metalgrad.spaxels import Spaxels

# Radius that holds half the light of a round Gaussian, in standard deviations.
HALF_LIGHT = float(np.sqrt(2 * np.log(2)))
NEAR = 1  # spaxels about the brightest, through which a parabola is laid


@dataclass(frozen=True, eq=False)
class EffectiveRadius:
    """Half-light radius of an elliptical Gaussian.

    Attributes
    ----------
    kpc, error : float
        Radius of the circle that has the area of the ellipse of half the light, and its
        standard error [kpc].
    axis_ratio : float
        Minor over major axis.
    position_angle : float
        Of the major axis, from north through east [deg]; NaN without a WCS.
    centre : SkyCoord or None
        None without a WCS.
    """

    kpc: float
    error: float
    axis_ratio: float
    position_angle: float
    centre: SkyCoord | None


def continuum_map(
    spaxels: Spaxels, wavelengths: tuple[float, float] = (1.0, 2.0)
) -> Float[np.ndarray, " spaxel"]:
    """Return the median flux density of each spaxel in a range of wavelength.

    Parameters
    ----------
    spaxels : Spaxels
    wavelengths : (float, float)
        Observed [µm]; those of Fig. 4 of Venturi et al. (2024) by default.

    Returns
    -------
    array, (spaxel,)
        [1e-20 erg/s/cm2/um]; NaN where there is no good voxel.

    Raises
    ------
    ValueError
        If no good voxel is within the range.
    """
    low, high = wavelengths
    inside = (spaxels.edges[:-1] >= low) & (spaxels.edges[1:] <= high)
    good = np.isfinite(spaxels.error[:, inside])
    if not good.any():
        raise ValueError(
            f"no good voxel between {low:g} and {high:g} µm for a map of the continuum;"
            f" choose wavelengths between {spaxels.edges[0]:g} and "
            f"{spaxels.edges[-1]:g} µm"
        )
    light = np.ma.array(spaxels.flux[:, inside], mask=~good)
    return np.ma.median(light, axis=1).filled(np.nan)


def effective_radius(
    spaxels: Spaxels,
    *,
    wavelengths: tuple[float, float] = (1.0, 2.0),
    psf_fwhm: float = 0.0,
) -> EffectiveRadius:
    """Measure the half-light radius with a Gaussian fitted to the continuum.

    As in Sect. 7 of Venturi et al. (2024): two-dimensional, elliptical, without a
    background, and not deconvolved from the PSF.  Every spaxel weighs the same.  A disc
    is no Gaussian, whose half-light radius is smaller than that of the disc's light.

    Parameters
    ----------
    spaxels : Spaxels
        All that shall be taken in: the whole system, or one component.
    wavelengths : (float, float)
        Of the continuum, observed [µm].
    psf_fwhm : float
        Of a round PSF to deconvolve from, in quadrature [arcsec]; 0 for none.

    Returns
    -------
    EffectiveRadius

    Raises
    ------
    ValueError
        If the spaxels have no scale, there is no continuum to be fitted, or it is no
        wider than the PSF.
    """
    from astropy.modeling.fitting import TRFLSQFitter
    from astropy.modeling.models import Gaussian2D

    if spaxels.pixel_scale is None or spaxels.kpc_per_arcsec is None:
        raise ValueError(
            "the spaxels have no pixel_scale or kpc_per_arcsec, so a size in spaxels "
            "is none in kpc; select them from a cube, or give effective_radius"
        )
    light = continuum_map(spaxels, wavelengths)
    y, x = spaxels.index[np.isfinite(light)].T.astype(float)
    light = light[np.isfinite(light)]
    weight = np.maximum(light, 0)
    if len(light) < 7 or not weight.sum() > 0:
        raise ValueError(
            f"{len(light)} spaxels with a continuum of {np.sum(light):g} cannot tell a "
            "Gaussian; widen the radius, choose other wavelengths, or give "
            "effective_radius"
        )
    brightest = light.argmax()
    width = np.sqrt(np.average((x - x[brightest]) ** 2, weights=weight) + 0.1)
    guess = Gaussian2D(light.max(), x[brightest], y[brightest], width, width)
    fitter = TRFLSQFitter(calc_uncertainties=True)
    found = fitter(guess, x, y, light, maxiter=500)
    sigma = np.abs([found.x_stddev.value, found.y_stddev.value])
    spread = np.array([found.x_stddev.std, found.y_stddev.std])
    return _describe(spaxels, found, sigma, spread, psf_fwhm)


def _describe(spaxels, found, sigma, spread, psf_fwhm):
    """Make sizes, angle and centre on the sky of a Gaussian of spaxels."""
    scale = spaxels.pixel_scale
    square = sigma**2 - (psf_fwhm / (2 * HALF_LIGHT * scale)) ** 2
    if np.any(square <= 0) or not np.isfinite(square).all():
        raise ValueError(
            f"the continuum's FWHM of {2 * HALF_LIGHT * scale * sigma.min():.3f} arcsec"
            f" is no wider than the PSF's {psf_fwhm:g}; it is not resolved: take the "
            "size without deconvolution (psf_fwhm=0) as a limit"
        )
    true = np.sqrt(square)
    kpc = HALF_LIGHT * scale * spaxels.kpc_per_arcsec * np.sqrt(true.prod())
    # The geometric mean of both axes; s ds is the same before and after deconvolution.
    relative = 0.5 * np.hypot(*(sigma * spread / square))
    angle = found.theta.value + (np.pi / 2 if sigma[1] > sigma[0] else 0.0)
    place, turn = None, np.nan
    if spaxels.header:
        wcs = read_wcs(spaxels.header)
        x, y = found.x_mean.value, found.y_mean.value
        ends = wcs.pixel_to_world([x, x + np.cos(angle)], [y, y + np.sin(angle)])
        place, turn = ends[0], float(ends[0].position_angle(ends[1]).deg % 180)
    ratio = float(true.min() / true.max())
    return EffectiveRadius(float(kpc), float(kpc * relative), ratio, turn, place)


def find_peak(
    spaxels: Spaxels,
    of: str = "continuum",
    *,
    wavelengths: tuple[float, float] = (1.0, 2.0),
    lsf: LSF | None = None,
) -> SkyCoord:
    """Find the brightest place: the top of a parabola about the brightest spaxel.

    Parameters
    ----------
    spaxels : Spaxels
    of : str
        ``"continuum"``, or a line such as ``"OIII"``.
    wavelengths : (float, float)
        Of the continuum, observed [µm].
    lsf : LSF, optional
        For a line; that of NIRSpec PRISM/CLEAR by default.

    Returns
    -------
    SkyCoord

    Raises
    ------
    ValueError
        If the spaxels have no WCS, or the map says nothing.
    """
    if not spaxels.header:
        raise ValueError("spaxels without a WCS have no peak on the sky; give one")
    if of == "continuum":
        light = continuum_map(spaxels, wavelengths)
    else:
        beside = ("Hbeta",) if of == "OIII" else ()  # blended with it
        light = fit_lines(spaxels, lines=(*beside, of), lsf=lsf).flux[of]
    image = spaxels.to_map(light)
    if not np.isfinite(image).any():
        raise ValueError(f"no spaxel has {of} measured, so it has no peak")
    row, column = np.unravel_index(np.nanargmax(image), image.shape)
    dy, dx = _top(np.pad(image, NEAR, constant_values=np.nan), row, column)
    wcs = read_wcs(spaxels.header)
    return wcs.pixel_to_world(column + dx, row + dy)


def _top(padded, row, column):
    """Return a parabola's top (dy, dx) about the brightest spaxel, at most half."""
    patch = padded[row : row + 2 * NEAR + 1, column : column + 2 * NEAR + 1]
    y, x = np.mgrid[-NEAR : NEAR + 1, -NEAR : NEAR + 1][:, np.isfinite(patch)]
    if len(y) < 6:
        return 0.0, 0.0
    terms = np.stack([np.ones(len(x)), x, y, x * x, x * y, y * y], axis=1)
    _, b, c, d, e, f = np.linalg.lstsq(terms, patch[np.isfinite(patch)])[0]
    determinant = 4 * d * f - e * e
    if determinant <= 0 or d >= 0:
        return 0.0, 0.0
    top = np.array([e * b - 2 * d * c, e * c - 2 * f * b]) / determinant
    return tuple(np.clip(top, -0.5, 0.5))

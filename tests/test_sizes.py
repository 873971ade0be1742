"""Sizes and peaks of painted Gaussians, whose half-light radius is known."""

import astropy.units as u
import numpy as np
import pytest
from astropy.coordinates import SkyCoord
from astropy.wcs import WCS
from numpy.testing import assert_allclose

from metalgrad.sizes import continuum_map, effective_radius, find_peak
from metalgrad.spaxels import Spaxels

SIDE, PIXEL, SCALE = 41, 0.05, 5.6
EDGES = np.linspace(0.9, 2.1, 13)
WIDE, NARROW, ANGLE = 5.0, 3.0, 30.0  # spaxels, deg from north through east
MIDDLE = (21.3, 18.6)  # x, y


def sky():
    wcs = WCS(naxis=2)
    wcs.wcs.ctype = "RA---TAN", "DEC--TAN"
    wcs.wcs.cdelt = -PIXEL / 3600, PIXEL / 3600
    wcs.wcs.crpix = (SIDE + 1) / 2, (SIDE + 1) / 2
    wcs.wcs.crval = 150.0, 2.5
    return wcs


def painted(*, header=True, outlier=False):
    y, x = np.mgrid[:SIDE, :SIDE]
    # East is to the left: north through east turns from +y to -x.
    sine, cosine = np.sin(np.deg2rad(ANGLE)), np.cos(np.deg2rad(ANGLE))
    dx, dy = x - MIDDLE[0], y - MIDDLE[1]
    along, across = -dx * sine + dy * cosine, dx * cosine + dy * sine
    light = np.exp(-0.5 * ((along / WIDE) ** 2 + (across / NARROW) ** 2))
    flux = 50 * np.repeat(light.reshape(-1, 1), 12, axis=1)
    error = np.ones(flux.shape)
    if outlier:
        error[0, :] = np.inf
        flux[0, :] = 1e6
    index = np.stack([y.ravel(), x.ravel()], axis=1)
    text = sky().to_header().tostring("\n", endcard=False, padding=False)
    return Spaxels(
        flux, error, EDGES, np.zeros((SIDE**2, 2)), index, 6.4, (SIDE, SIDE),
        header=text if header else "", kpc_per_arcsec=SCALE, pixel_scale=PIXEL,
    )  # fmt: skip


def test_half_light_radius_of_a_gaussian():
    found = effective_radius(painted(outlier=True))
    # Half the light of a Gaussian is within sqrt(2 ln 2) standard deviations.
    expected = 1.17741 * np.sqrt(WIDE * NARROW) * PIXEL * SCALE
    assert_allclose(found.kpc, expected, rtol=1e-4)
    assert_allclose(found.axis_ratio, NARROW / WIDE, rtol=1e-4)
    assert_allclose(found.position_angle, ANGLE, atol=0.05)
    place = sky().pixel_to_world(*MIDDLE)
    assert found.centre.separation(place) < 1e-4 * u.arcsec


def test_deconvolution_takes_the_psf_out_in_quadrature():
    fwhm = 0.2
    square = np.array([WIDE, NARROW]) ** 2 - (fwhm / 2.354820 / PIXEL) ** 2
    expected = 1.17741 * np.prod(square) ** 0.25 * PIXEL * SCALE
    assert_allclose(effective_radius(painted(), psf_fwhm=fwhm).kpc, expected, rtol=1e-4)
    with pytest.raises(ValueError, match="no wider than the PSF"):
        effective_radius(painted(), psf_fwhm=0.5)


def test_the_error_is_the_scatter_of_many():
    sizes, errors = [], []
    for seed in range(12):
        spaxels = painted()
        noise = np.random.default_rng(seed).normal(size=spaxels.flux.shape)
        spaxels.flux[:] += 20 * noise
        found = effective_radius(spaxels)
        sizes.append(found.kpc)
        errors.append(found.error)
    # χ² of 11 degrees of freedom: a factor of 2 in the scatter is beyond 99.5 %.
    assert 0.5 < np.std(sizes, ddof=1) / np.mean(errors) < 2


def test_the_peak_lies_between_spaxels():
    place = find_peak(painted())
    assert place.separation(sky().pixel_to_world(*MIDDLE)) < 0.1 * PIXEL * u.arcsec
    assert isinstance(place, SkyCoord)


def test_a_continuum_that_is_not_there_is_refused():
    with pytest.raises(ValueError, match="choose wavelengths"):
        continuum_map(painted(), (3.0, 4.0))
    with pytest.raises(ValueError, match="without a WCS"):
        find_peak(painted(header=False))
    spaxels = painted()
    spaxels.flux[:] = -1.0
    with pytest.raises(ValueError, match="give effective_radius"):
        effective_radius(spaxels)

"""Smoothing to one resolution: by hand, against Astropy, and with noise."""

from dataclasses import replace

import astropy.units as u
import numpy as np
import pytest
from astropy.convolution import Gaussian2DKernel, convolve
from astropy.io import fits
from astropy.wcs import WCS
from numpy.testing import assert_allclose, assert_array_equal

from metalgrad import psf
from metalgrad.cubes import FLUX_DENSITY, Cube
from metalgrad.matching import match_psf

SCALE = 0.05  # arcsec
ANGLE = 25.0  # deg
PER_SIGMA = 2.354820


def cube(edges=(1.9, 2.1, 3.2, 3.4), shape=(13, 9), dtype=float):
    rng = np.random.default_rng(12)
    shape = (len(edges) - 1, *shape)
    flux = rng.normal(3.0, 2.0, shape).astype(dtype)
    error = rng.uniform(0.2, 1.5, shape).astype(dtype)
    good = rng.uniform(size=shape) > 0.15
    flux[~good] = np.nan
    return Cube(
        flux << FLUX_DENSITY,
        error << FLUX_DENSITY,
        np.array(edges) << u.um,
        good,
        pixel_scale=SCALE * u.arcsec,
        meta={"PROGRAM": "01234"},
    )


def widths(wave, goal):
    """Standard deviations [pixel] of the kernel along and across, from the paper."""
    along = 0.125 + 1.88 * wave * np.exp(-24.35 / wave)
    across = 0.094 + 0.20 * wave * np.exp(-12.48 / wave)
    return np.sqrt(goal**2 - np.array([along, across]) ** 2) / PER_SIGMA / SCALE


def test_smoothing_by_hand():
    before = cube()
    after = match_psf(before, 0.21, angle=ANGLE)
    sine, cosine = np.sin(np.deg2rad(ANGLE)), np.cos(np.deg2rad(ANGLE))
    y, x = np.indices(before.shape)
    for plane, wave in enumerate((2.0, 2.65, 3.3)):
        along, across = widths(wave, 0.21)
        good = before.good[plane]
        for row, column in np.argwhere(good):
            down, right = y - row, x - column
            weight = np.exp(-0.5 * ((down * cosine - right * sine) / along) ** 2)
            weight *= np.exp(-0.5 * ((down * sine + right * cosine) / across) ** 2)
            weight = weight[good] / weight[good].sum()
            flux = weight @ before.flux.value[plane][good]
            variance = weight**2 @ before.error.value[plane][good] ** 2
            assert_allclose(after.flux.value[plane, row, column], flux, atol=2e-3)
            assert_allclose(
                after.error.value[plane, row, column] ** 2, variance, rtol=2e-3
            )


def test_smoothing_is_astropys():
    before = cube()
    after = match_psf(before, 0.3 * u.arcsec, angle=-138.0)
    for plane, wave in enumerate((2.0, 2.65, 3.3)):
        theta = np.deg2rad(-138.0 + 90)
        kernel = Gaussian2DKernel(*widths(wave, 0.3), theta=theta, x_size=25, y_size=25)
        # What is beyond the edges is as unknown as what is bad.
        padded = np.pad(before.flux.value[plane], 13, constant_values=np.nan)
        with np.errstate(invalid="ignore"):
            expected = convolve(padded, kernel, normalize_kernel=True)[13:-13, 13:-13]
        good = before.good[plane]
        assert_allclose(after.flux.value[plane][good], expected[good], atol=2e-3)


# The second goal is the paper's, that of the reddest line: there the kernel has no
# width along the slices and less than a spaxel's across.
@pytest.mark.parametrize("goal", [0.25, 0.1602])
@pytest.mark.parametrize("angle", [0.0, ANGLE, -138.0])
def test_a_point_source_reaches_the_goal(goal, angle):
    wave = np.array([0.8, 2.0, 3.3, 3.9, 4.45])
    edges = np.repeat(wave, 2) + np.tile([-1e-4, 1e-4], 5)
    flux = np.zeros((9, 41, 37))
    for plane, value in zip(range(0, 9, 2), wave, strict=True):
        image = psf.nirspec().kernel(value, SCALE, angle)
        half_y, half_x = np.array(image.shape) // 2
        flux[plane, 21 - half_y : 22 + half_y, 17 - half_x : 18 + half_x] = 5.0 * image
    good = np.ones(flux.shape, bool)
    good[1::2] = False
    before = Cube(
        flux << FLUX_DENSITY,
        np.ones(flux.shape) << FLUX_DENSITY,
        edges << u.um,
        good,
        pixel_scale=SCALE * u.arcsec,
    )
    after = match_psf(before, goal, angle=angle).flux.value[::2]
    grid = np.indices(after.shape[1:]) - np.array([21, 17])[:, None, None]
    for image in after:
        assert_allclose(image.sum(), 5.0, rtol=1e-3)
        covariance = np.einsum("ayx,byx,yx->ab", grid, grid, image) / 5.0
        found = np.sqrt(np.linalg.eigvalsh(covariance)) * PER_SIGMA * SCALE
        assert_allclose(found, goal, rtol=2e-3)


def test_a_smoothed_point_source_is_a_gaussian():
    # as before: 4.2 um, where both widths of the kernel are narrower than a spaxel
    image = np.pad(psf.nirspec().kernel(4.2, SCALE, ANGLE), 15)
    before = Cube(
        image[None] << FLUX_DENSITY,
        np.ones((1, *image.shape)) << FLUX_DENSITY,
        [4.1999, 4.2001] << u.um,
        np.ones((1, *image.shape), bool),
        pixel_scale=SCALE * u.arcsec,
    )
    found = match_psf(before, 0.1602, angle=ANGLE).flux.value[0]
    size = dict(zip(("y_size", "x_size"), image.shape, strict=True))
    expected = Gaussian2DKernel(0.1602 / PER_SIGMA / SCALE, **size).array
    assert_allclose(found, expected, atol=0.02 * expected.max())


def test_noise_has_the_propagated_variance():
    draws, shape = 4000, (11, 9)
    rng = np.random.default_rng(21)
    error = np.broadcast_to(rng.uniform(0.3, 2.0, shape), (draws, *shape)).copy()
    good = np.broadcast_to(rng.uniform(size=shape) > 0.1, error.shape).copy()
    noise = Cube(
        rng.normal(size=error.shape) * error << FLUX_DENSITY,
        error << FLUX_DENSITY,
        np.linspace(2.0, 2.001, draws + 1) << u.um,
        good,
        pixel_scale=SCALE * u.arcsec,
    )
    after = match_psf(noise, 0.2, angle=ANGLE)
    ratio = after.flux.value.var(axis=0) / after.error.value[0] ** 2
    # Five standard deviations of a variance of so many draws.
    assert_allclose(ratio[good[0]], 1, atol=5 * np.sqrt(2 / draws))
    assert_allclose(ratio[good[0]].mean(), 1, atol=0.01)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_rest_of_the_cube_is_kept(dtype):
    before = cube(dtype=dtype)
    after = match_psf(before, 210 * u.mas, angle=ANGLE)
    assert_array_equal(after.good, before.good)
    assert_array_equal(np.isfinite(after.flux.value), before.good)
    assert_array_equal(np.isfinite(after.error.value), before.good)
    assert after.flux.dtype == after.error.dtype == dtype
    assert after.edges is before.edges
    assert after.meta == {"PROGRAM": "01234", "PSFGOAL": 0.21, "PSFANGLE": ANGLE}
    assert before.meta == {"PROGRAM": "01234"}


def test_a_smoothed_cube_can_be_written(tmp_path):
    wcs = WCS(fits.Header({"CTYPE1": "RA---TAN", "CTYPE2": "DEC--TAN"}))
    after = match_psf(replace(cube(), wcs=wcs), 0.21)
    after.write(tmp_path / "smooth_s3d.fits")
    found = Cube.read(tmp_path / "smooth_s3d.fits")
    assert found.meta["PSFGOAL"] == 0.21
    assert_allclose(found.flux.value[found.good], after.flux.value[after.good])


def test_a_goal_below_the_psf_is_refused():
    red = cube(edges=(1.0, 2.0, 4.4, 4.5, 5.3))
    with pytest.raises(ValueError, match=r"at 4.45 µm the PSF's FWHM is 0.1602 arcsec"):
        match_psf(red, 0.16)
    with pytest.raises(ValueError, match=r"take 0.1890 or more, or mark the"):
        match_psf(red, 0.16)
    blue = replace(red, good=red.good & (red.wave < 4.4 * u.um)[:, None, None])
    assert not np.isfinite(match_psf(blue, 0.16).flux.value[2:]).any()


def test_the_cubes_own_psf_may_be_given():
    narrow = psf.nirspec(0.8)
    found = match_psf(cube(), 0.21, psf=narrow).flux.value
    # a narrower PSF needs a wider kernel
    other = match_psf(cube(), 0.21).flux.value
    assert np.nanstd(found) < np.nanstd(other)


def test_a_bare_spectrum_is_refused():
    with pytest.raises(ValueError, match=r"the cube has no pixel_scale"):
        match_psf(replace(cube(), pixel_scale=None), 0.21)

"""The blurring of maps, against SciPy and Astropy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from astropy.convolution import convolve_fft
from numpy.testing import assert_allclose
from scipy import ndimage, signal, stats

from metalgrad import psf
from metalgrad.blur import Blur, blur_for, separate

SCALE = 0.05  # arcsec
ANGLE = 25.0  # deg
LINES = np.array([3.309, 3.438, 4.316, 4.446])  # [OII], [NeIII], Hβ, [OIII], z = 7.879
SHAPE = (23, 17)


def sky(lines=4, shape=SHAPE):
    return np.random.default_rng(8).gamma(0.4, 3.0, (lines, *shape))


def moments(kernel):
    """Mean and covariance of a kernel along y and x, in pixels."""
    grid = np.indices(kernel.shape).reshape(2, -1)
    mean = grid @ kernel.ravel()
    covariance = (grid - mean[:, None]) * kernel.ravel() @ (grid - mean[:, None]).T
    return mean - (np.array(kernel.shape) - 1) / 2, covariance


def turned(along, across, angle):
    """Covariance along y and x of what has these widths along ``angle`` and across."""
    sine, cosine = np.sin(np.deg2rad(angle)), np.cos(np.deg2rad(angle))
    axes = np.array([[cosine, -sine], [sine, cosine]])  # rows: along, across as (y, x)
    return axes.T @ np.diag([along**2, across**2]) @ axes


def images(sigma, scale, size, centre=(0.0, 0.0)):
    """Gaussian integrated over pixels, with widths along y and x [arcsec]."""
    sides = [
        np.diff(stats.norm(mean, width).cdf((np.arange(n + 1) - n / 2) * scale))
        for width, n, mean in zip(sigma, size, centre, strict=True)
    ]
    return np.outer(*sides)


def cube(sigma=(0.09, 0.06), scale=0.01, size=(101, 91), centre=(0.0, 0.0)):
    blue, red = (
        images(np.multiply(sigma, factor), scale, size, centre) for factor in (1, 1.4)
    )
    return psf.ImagePSF(np.array([2.0, 4.0]), np.stack([3 * blue, 7 * red]), scale)


# --- separable terms ---------------------------------------------------------------


@pytest.mark.parametrize(
    ("angle", "fewest", "most"),
    [(0.0, 1, 1), (90.0, 1, 1), (ANGLE, 2, 3), (45.0, 2, 3)],
)
@pytest.mark.parametrize("wavelength", [0.7, 2.0, 4.446])
def test_few_terms_are_a_convolution(wavelength, angle, fewest, most):
    kernel = psf.nirspec().kernel(wavelength, SCALE, angle)
    rows, columns = separate(kernel, SHAPE)
    assert fewest <= len(rows) <= most
    point = np.zeros(SHAPE)
    point[4, 12] = 37.0
    found = (rows @ point @ columns.transpose(0, 2, 1)).sum(axis=0)
    assert_allclose(found, signal.convolve(point, kernel, "same"), atol=1e-3 * 37)


@pytest.mark.parametrize("shape", [(5, 3), (11, 24), (40, 41)])
def test_any_kernel_convolves_any_map(shape):
    rng = np.random.default_rng(6)
    kernel, light = rng.normal(0.3, 1.0, (9, 13)), rng.normal(size=shape)
    rows, columns = separate(kernel, shape, tolerance=1e-14)
    found = (rows @ light @ columns.transpose(0, 2, 1)).sum(axis=0)
    assert rows.shape[1:] + columns.shape[2:] == (shape[0], *shape)
    # Not SciPy's "same", which is of the kernel's size where that is larger.
    full = signal.convolve(light, kernel, "full")
    assert_allclose(found, full[4:-4, 6:-6], atol=1e-12)


def test_the_tolerance_is_kept_and_not_wasted():
    kernel = psf.nirspec().kernel(0.7, SCALE, 45.0)
    counts = []
    for tolerance in (0.1, 1e-2, 1e-3, 1e-5, 1e-7):
        rows, columns = separate(kernel, (31, 31), tolerance)
        counts.append(len(rows))
        image = np.einsum("ty,tx->yx", rows[:, :, 15], columns[:, :, 15])
        pad = [((31 - size) // 2,) * 2 for size in kernel.shape]
        assert np.abs(image - np.pad(kernel, pad)).max() <= tolerance
        assert_allclose(image.sum(), 1, rtol=1e-12)
    assert counts == sorted(set(counts))


def test_kernels_without_a_middle_or_light_are_refused():
    with pytest.raises(ValueError, match=r"shape \(5, 4\) where odd sizes"):
        separate(np.ones((5, 4)), SHAPE)
    with pytest.raises(ValueError, match=r"kernel has the sum 0 where"):
        separate(np.zeros((5, 3)), SHAPE)


# --- blurring ----------------------------------------------------------------------


def test_blur_is_astropys_convolution():
    blur = blur_for(psf.nirspec(), LINES, SCALE, SHAPE, ANGLE)
    maps = sky()
    with jax.enable_x64(new_val=True):
        found = np.asarray(blur(maps))
    for wave, light, image in zip(LINES, maps, found, strict=True):
        kernel = psf.nirspec().kernel(wave, SCALE, ANGLE)
        expected = convolve_fft(light, kernel, boundary="fill", normalize_kernel=False)
        assert_allclose(image, expected, atol=2e-3 * light.max())


def test_blur_along_the_axes_is_scipys_filter():
    # the slices along x
    blur = blur_for(psf.nirspec(), LINES[-1:], SCALE, SHAPE, 90.0)
    light = sky(1)
    along, across = np.array(psf.nirspec().fwhm(LINES[-1])) / 2.354820 / SCALE
    expected = ndimage.gaussian_filter(
        light[0], (across, along), mode="constant", truncate=6
    )
    with jax.enable_x64(new_val=True):
        assert_allclose(blur(light)[0], expected, atol=3e-4 * light.max())


def test_blur_with_images_is_scipys_convolution():
    found = blur_for(cube(), [2.2, 3.1, 3.9, 2.0], SCALE, SHAPE, ANGLE)
    kernel = cube().kernel(3.1, SCALE, ANGLE)
    light = sky()
    expected = signal.convolve(light[1], kernel, "same")
    with jax.enable_x64(new_val=True):
        assert_allclose(found(light)[1], expected, atol=3e-3 * light.max())


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_blur_conserves_flux_within_the_map(dtype):
    maps = np.zeros((4, 31, 27), dtype)
    maps[:, 12:17, 11:15] = sky(shape=(5, 4))
    blur = blur_for(psf.nirspec(), LINES, SCALE, maps.shape[1:], ANGLE)
    with jax.enable_x64(new_val=dtype is np.float64):
        found = jax.jit(blur)(jnp.asarray(maps))
        assert found.dtype == dtype
        precision = 20 * np.finfo(dtype).eps
        assert_allclose(found.sum((1, 2)), maps.sum((1, 2)), rtol=precision)


def test_blur_keeps_single_precision_where_double_is_on():
    blur = blur_for(psf.nirspec(), LINES, SCALE, SHAPE, ANGLE)
    with jax.enable_x64(new_val=True):
        assert blur(jnp.asarray(sky(), jnp.float32)).dtype == jnp.float32


def test_lines_of_fewer_terms_are_padded():
    # 10 deg: one term in the red, where the PSF is rounder, and two in the blue
    waves = [1.0, 4.446]
    blur = blur_for(psf.nirspec(), waves, SCALE, SHAPE, 10.0)
    assert blur.rows.shape == (2, 2, 23, 23)
    assert blur.columns.shape == (2, 2, 17, 17)
    assert np.any(blur.rows[0, 1])
    assert not np.any(blur.rows[1, 1])
    alone = blur_for(psf.nirspec(), waves[1:], SCALE, SHAPE, 10.0)
    maps = sky(2)
    with jax.enable_x64(new_val=True):
        assert_allclose(blur(maps)[1], alone(maps[1:])[0], rtol=1e-12)


def test_gradient_is_the_transposed_blur():
    blur = blur_for(psf.nirspec(), LINES, SCALE, SHAPE, ANGLE)
    maps, weight = sky(), sky()[::-1].copy()
    with jax.enable_x64(new_val=True):
        slope = jax.jit(jax.grad(lambda light: jnp.sum(weight * blur(light))))(maps)
    # The PSF is the same upside down, so that it is its own transpose.
    for wave, light, image in zip(LINES, weight, slope, strict=True):
        kernel = psf.nirspec().kernel(wave, SCALE, ANGLE)
        expected = signal.convolve(light, kernel, "same")
        assert_allclose(image, expected, atol=2e-3 * light.max())


def test_arrays_may_be_arguments_of_a_traced_function():
    blur = blur_for(psf.nirspec(), LINES, SCALE, SHAPE, ANGLE)
    maps = sky()
    with jax.enable_x64(new_val=True):
        found = jax.jit(lambda *arrays: Blur(*arrays)(maps))(blur.rows, blur.columns)
        assert_allclose(found, blur(maps), rtol=1e-12)

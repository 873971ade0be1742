"""The PSF and the blurring of maps: against the paper, SciPy and Astropy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from astropy.convolution import Gaussian2DKernel, convolve_fft
from numpy.testing import assert_allclose
from scipy import ndimage, signal, stats

from metalgrad import psf

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


# --- the width ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wavelength", "goal"),
    [
        (0.500824 * 8.879, 0.16),  # [OIII] of A2744-YD4
        (0.500824 * 8.114, 0.14),  # [OIII] of BDF-3299
        (0.656461 * 7.361, 0.18),  # Halpha of COSMOS24108
        (4.5, 0.16),
    ],
)
def test_width_along_the_slices_is_the_papers(wavelength, goal):
    # Venturi et al. (2024, section 2.2.1)
    assert_allclose(psf.nirspec().fwhm(wavelength)[0], goal, atol=0.005)


def test_width_across_the_slices_is_the_papers():
    assert_allclose(psf.nirspec().fwhm(1.0)[1], 0.09, atol=0.005)


def test_width_follows_the_equations():
    wave = np.random.default_rng(3).uniform(0.6, 5.3, 200)
    along, across = psf.nirspec(1.3).fwhm(wave)
    # D'Eugenio et al. (2023), Eqs. 3 and 4
    expected = 0.125 + 1.88 * wave * np.exp(-24.35 / wave)
    assert_allclose(along / 1.3, expected, atol=2e-6)
    expected = 0.094 + 0.20 * wave * np.exp(-12.48 / wave)
    assert_allclose(across / 1.3, expected, atol=2e-6)


def test_nirspec_is_read_once():
    assert psf.nirspec() is psf.nirspec()


@pytest.mark.parametrize("wavelength", [0.3, 4.446e4, np.nan])
def test_a_wavelength_beyond_the_table_is_refused(wavelength):
    with pytest.raises(ValueError, match=r"PSF is known from 0.5 to 6 µm, not at"):
        psf.nirspec().fwhm([2.0, wavelength])


def test_impossible_tables_are_refused():
    wave, width = np.array([1.0, 2.0]), np.array([0.1, 0.12])
    with pytest.raises(ValueError, match=r"PSF.wavelengths do not increase; sort"):
        psf.PSF(wave[::-1], width, width)
    with pytest.raises(ValueError, match=r"PSF's FWHM is -0.1 where arcsec above 0"):
        psf.PSF(wave, width, np.array([0.12, -0.1]))
    with pytest.raises(ValueError, match=r"pixel_scale is 0 where arcsec above 0"):
        psf.nirspec().kernel(2.0, 0.0)


# --- the kernel --------------------------------------------------------------------


@pytest.mark.parametrize("angle", [0.0, ANGLE, 90.0, -138.0, 45.0])
@pytest.mark.parametrize("wavelength", [0.7, 3.309, 5.2])
def test_kernel_has_the_moments_asked_for(wavelength, angle):
    kernel = psf.nirspec().kernel(wavelength, SCALE, angle)
    mean, covariance = moments(kernel)
    assert all(size % 2 for size in kernel.shape)
    assert_allclose(kernel.sum(), 1, rtol=1e-14)
    assert_allclose(mean, 0, atol=1e-12)
    sigma = np.array(psf.nirspec().fwhm(wavelength)) / 2.354820 / SCALE
    assert_allclose(covariance, turned(*sigma, angle), atol=1e-3 * sigma[0] ** 2)


@pytest.mark.parametrize("angle", [ANGLE, 118.0])
def test_kernel_is_astropys(angle):
    along, across = np.array(psf.nirspec().fwhm(4.446)) / 2.354820 / SCALE
    found = psf.nirspec().kernel(4.446, SCALE, angle)
    # Astropy's first axis is x, turned counter-clockwise.
    theta = np.deg2rad(angle + 90)
    size = dict(zip(("y_size", "x_size"), found.shape, strict=True))
    other = Gaussian2DKernel(along, across, theta=theta, **size).array
    assert_allclose(found, other / other.sum(), atol=1e-7)


def test_kernel_is_longest_along_the_slices():
    # At 25 deg the slices run from the lower right to the upper left.
    kernel = psf.PSF(*np.array([[1.0, 5.0], [0.4, 0.4], [0.1, 0.1]])).kernel(
        2.0, SCALE, ANGLE
    )
    middle_y, middle_x = np.array(kernel.shape) // 2
    assert kernel[middle_y + 4, middle_x - 2] > 10 * kernel[middle_y + 4, middle_x + 2]
    assert kernel[middle_y + 4, middle_x - 2] > 2 * kernel[middle_y + 2, middle_x - 4]


@pytest.mark.parametrize("angle", [0.0, ANGLE])
def test_little_flux_is_cut(angle):
    widths = 0.31, 0.12
    kernel = psf.gaussian(*widths, SCALE, angle)
    inside = kernel / psf.gaussian(*widths, SCALE, angle).max()
    # The sum of samples of a wide Gaussian is its integral.
    sigma = np.array(widths) / 2.354820 / SCALE
    assert inside.sum() / (2 * np.pi * sigma.prod()) > 0.9999
    assert kernel.shape[0] < 10 * sigma[0] + 3


def test_a_width_of_zero_spreads_nothing():
    # the slices along x, so that all that spreads does so along y
    kernel = psf.gaussian(0.0, 0.15, SCALE, 90.0)
    spread = (0.15 / 2.354820 / SCALE) ** 2
    assert_allclose(moments(kernel)[1], [[spread, 0], [0, 0]], atol=1e-3 * spread)
    assert psf.gaussian(0.0, 0.0, SCALE, ANGLE).max() == 1


# --- images ------------------------------------------------------------------------


def cube(sigma=(0.09, 0.06), scale=0.01, size=(101, 91), centre=(0.0, 0.0)):
    blue, red = (
        images(np.multiply(sigma, factor), scale, size, centre) for factor in (1, 1.4)
    )
    return psf.ImagePSF(np.array([2.0, 4.0]), np.stack([3 * blue, 7 * red]), scale)


@pytest.mark.parametrize("size", [(101, 91), (100, 91), (86, 120)])
@pytest.mark.parametrize("scale", [0.01, 0.0137])
def test_images_are_integrated_over_spaxels(size, scale):
    found = cube(scale=scale, size=size, centre=(0.03, -0.02)).kernel(2.0, SCALE)
    expected = images((0.09, 0.06), SCALE, found.shape, (0.03, -0.02))
    assert all(size % 2 for size in found.shape)
    assert_allclose(found.sum(), 1, rtol=1e-12)
    # Pixels taken as uniform: exact where spaxels are made of whole ones.
    whole = scale == 0.01 and size[0] == 101
    assert_allclose(found, expected, atol=1e-6 if whole else 2e-3)


def test_images_on_spaxels_are_left_alone():
    image = np.random.default_rng(4).gamma(1.0, 1.0, (2, 9, 13))
    found = psf.ImagePSF(np.array([1.0, 2.0]), image, SCALE).kernel(2.0, SCALE)
    assert_allclose(found, image[1] / image[1].sum(), atol=1e-14)


def test_images_are_interpolated_in_wavelength():
    blue, red, middle = (cube().kernel(wave, SCALE) for wave in (2.0, 4.0, 2.6))
    assert_allclose(middle, 0.7 * blue + 0.3 * red, atol=1e-15)
    with pytest.raises(ValueError, match=r"ImagePSF is known from 2 to 4 µm, not at 1"):
        cube().kernel(1.9, SCALE)


@pytest.mark.parametrize("angle", [ANGLE, 90.0, -138.0])
def test_turned_images_have_turned_moments(angle):
    centre = np.array([0.06, 0.02])
    image = cube(size=(141, 131), centre=centre)
    mean, covariance = moments(image.kernel(2.0, SCALE, angle))
    assert_allclose(mean * SCALE, turned_vector(centre, angle), atol=1e-4)
    # A spaxel adds a twelfth of its square; pixels of the image, no more than three.
    expected = turned(0.09, 0.06, angle) + SCALE**2 / 12 * np.eye(2)
    assert_allclose(covariance * SCALE**2, expected, atol=3.1 * 0.01**2 / 12)


def turned_vector(vector, angle):
    # (y, x), counter-clockwise with x to the right and y upwards
    turn = np.exp(1j * np.deg2rad(angle)) * complex(vector[1], vector[0])
    return turn.imag, turn.real


def test_images_agree_with_the_gaussian():
    # Integrating over a spaxel is nearly a Gaussian of a twelfth of its square.
    wide = np.sqrt(np.array([0.09, 0.06]) ** 2 + SCALE**2 / 12) * 2.354820
    found = cube(size=(141, 131)).kernel(2.0, SCALE, ANGLE)
    expected = psf.gaussian(*wide, SCALE, ANGLE)
    crop = [
        slice((n - m) // 2, (n + m) // 2)
        for n, m in zip(found.shape, expected.shape, strict=True)
    ]
    assert_allclose(found[*crop], expected, atol=0.005 * expected.max())


def test_impossible_images_are_refused():
    wave, image = np.array([1.0, 2.0]), np.ones((2, 5, 4))
    with pytest.raises(ValueError, match=r"ImagePSF.wavelengths do not increase"):
        psf.ImagePSF(wave[::-1], image, SCALE)
    with pytest.raises(ValueError, match=r"ImagePSF.pixel_scale is -0.05 where"):
        psf.ImagePSF(wave, image, -SCALE)
    for value in (np.nan, np.inf, -100.0):
        broken = image.copy()
        broken[1, 2, 3] = value
        with pytest.raises(ValueError, match=r"image at 2 µm has the sum .*; mend it"):
            psf.ImagePSF(wave, broken, SCALE)


# --- separable terms ---------------------------------------------------------------


@pytest.mark.parametrize(
    ("angle", "fewest", "most"),
    [(0.0, 1, 1), (90.0, 1, 1), (ANGLE, 2, 3), (45.0, 2, 3)],
)
@pytest.mark.parametrize("wavelength", [0.7, 2.0, 4.446])
def test_few_terms_are_a_convolution(wavelength, angle, fewest, most):
    kernel = psf.nirspec().kernel(wavelength, SCALE, angle)
    rows, columns = psf.separate(kernel, SHAPE)
    assert fewest <= len(rows) <= most
    point = np.zeros(SHAPE)
    point[4, 12] = 37.0
    found = (rows @ point @ columns.transpose(0, 2, 1)).sum(axis=0)
    assert_allclose(found, signal.convolve(point, kernel, "same"), atol=1e-3 * 37)


@pytest.mark.parametrize("shape", [(5, 3), (11, 24), (40, 41)])
def test_any_kernel_convolves_any_map(shape):
    rng = np.random.default_rng(6)
    kernel, light = rng.normal(0.3, 1.0, (9, 13)), rng.normal(size=shape)
    rows, columns = psf.separate(kernel, shape, tolerance=1e-14)
    found = (rows @ light @ columns.transpose(0, 2, 1)).sum(axis=0)
    assert rows.shape[1:] + columns.shape[2:] == (shape[0], *shape)
    # Not SciPy's "same", which is of the kernel's size where that is larger.
    full = signal.convolve(light, kernel, "full")
    assert_allclose(found, full[4:-4, 6:-6], atol=1e-12)


def test_the_tolerance_is_kept_and_not_wasted():
    kernel = psf.nirspec().kernel(0.7, SCALE, 45.0)
    counts = []
    for tolerance in (0.1, 1e-2, 1e-3, 1e-5, 1e-7):
        rows, columns = psf.separate(kernel, (31, 31), tolerance)
        counts.append(len(rows))
        image = np.einsum("ty,tx->yx", rows[:, :, 15], columns[:, :, 15])
        pad = [((31 - size) // 2,) * 2 for size in kernel.shape]
        assert np.abs(image - np.pad(kernel, pad)).max() <= tolerance
        assert_allclose(image.sum(), 1, rtol=1e-12)
    assert counts == sorted(set(counts))


def test_kernels_without_a_middle_or_light_are_refused():
    with pytest.raises(ValueError, match=r"shape \(5, 4\) where odd sizes"):
        psf.separate(np.ones((5, 4)), SHAPE)
    with pytest.raises(ValueError, match=r"kernel has the sum 0 where"):
        psf.separate(np.zeros((5, 3)), SHAPE)


# --- blurring ----------------------------------------------------------------------


def test_blur_is_astropys_convolution():
    blur = psf.blur_for(psf.nirspec(), LINES, SCALE, SHAPE, ANGLE)
    maps = sky()
    with jax.enable_x64(new_val=True):
        found = np.asarray(blur(maps))
    for wave, light, image in zip(LINES, maps, found, strict=True):
        kernel = psf.nirspec().kernel(wave, SCALE, ANGLE)
        expected = convolve_fft(light, kernel, boundary="fill", normalize_kernel=False)
        assert_allclose(image, expected, atol=2e-3 * light.max())


def test_blur_along_the_axes_is_scipys_filter():
    # the slices along x
    blur = psf.blur_for(psf.nirspec(), LINES[-1:], SCALE, SHAPE, 90.0)
    light = sky(1)
    along, across = np.array(psf.nirspec().fwhm(LINES[-1])) / 2.354820 / SCALE
    expected = ndimage.gaussian_filter(
        light[0], (across, along), mode="constant", truncate=6
    )
    with jax.enable_x64(new_val=True):
        assert_allclose(blur(light)[0], expected, atol=3e-4 * light.max())


def test_blur_with_images_is_scipys_convolution():
    found = psf.blur_for(cube(), [2.2, 3.1, 3.9, 2.0], SCALE, SHAPE, ANGLE)
    kernel = cube().kernel(3.1, SCALE, ANGLE)
    light = sky()
    expected = signal.convolve(light[1], kernel, "same")
    with jax.enable_x64(new_val=True):
        assert_allclose(found(light)[1], expected, atol=3e-3 * light.max())


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_blur_conserves_flux_within_the_map(dtype):
    maps = np.zeros((4, 31, 27), dtype)
    maps[:, 12:17, 11:15] = sky(shape=(5, 4))
    blur = psf.blur_for(psf.nirspec(), LINES, SCALE, maps.shape[1:], ANGLE)
    with jax.enable_x64(new_val=dtype is np.float64):
        found = jax.jit(blur)(jnp.asarray(maps))
        assert found.dtype == dtype
        precision = 20 * np.finfo(dtype).eps
        assert_allclose(found.sum((1, 2)), maps.sum((1, 2)), rtol=precision)


def test_blur_keeps_single_precision_where_double_is_on():
    blur = psf.blur_for(psf.nirspec(), LINES, SCALE, SHAPE, ANGLE)
    with jax.enable_x64(new_val=True):
        assert blur(jnp.asarray(sky(), jnp.float32)).dtype == jnp.float32


def test_lines_of_fewer_terms_are_padded():
    # 10 deg: one term in the red, where the PSF is rounder, and two in the blue
    waves = [1.0, 4.446]
    blur = psf.blur_for(psf.nirspec(), waves, SCALE, SHAPE, 10.0)
    assert blur.rows.shape == (2, 2, 23, 23)
    assert blur.columns.shape == (2, 2, 17, 17)
    assert np.any(blur.rows[0, 1])
    assert not np.any(blur.rows[1, 1])
    alone = psf.blur_for(psf.nirspec(), waves[1:], SCALE, SHAPE, 10.0)
    maps = sky(2)
    with jax.enable_x64(new_val=True):
        assert_allclose(blur(maps)[1], alone(maps[1:])[0], rtol=1e-12)


def test_gradient_is_the_transposed_blur():
    blur = psf.blur_for(psf.nirspec(), LINES, SCALE, SHAPE, ANGLE)
    maps, weight = sky(), sky()[::-1].copy()
    with jax.enable_x64(new_val=True):
        slope = jax.jit(jax.grad(lambda light: jnp.sum(weight * blur(light))))(maps)
    # The PSF is the same upside down, so that it is its own transpose.
    for wave, light, image in zip(LINES, weight, slope, strict=True):
        kernel = psf.nirspec().kernel(wave, SCALE, ANGLE)
        expected = signal.convolve(light, kernel, "same")
        assert_allclose(image, expected, atol=2e-3 * light.max())


def test_arrays_may_be_arguments_of_a_traced_function():
    blur = psf.blur_for(psf.nirspec(), LINES, SCALE, SHAPE, ANGLE)
    maps = sky()
    with jax.enable_x64(new_val=True):
        found = jax.jit(lambda *arrays: psf.Blur(*arrays)(maps))(
            blur.rows, blur.columns
        )
        assert_allclose(found, blur(maps), rtol=1e-12)

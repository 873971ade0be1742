"""The PSF and the blurring of maps: against the paper, SciPy and Astropy."""

import numpy as np
import pytest
from astropy.convolution import Gaussian2DKernel
from numpy.testing import assert_allclose
from scipy import stats

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


def test_slices_of_unknown_direction_make_a_round_psf():
    """Of the same area at every wavelength; images and no PSF stay as they are."""
    nirspec = psf.nirspec()
    found, angle = psf.orient(nirspec, None)
    along, across = found.fwhm(LINES)
    assert_allclose(along, across)
    assert_allclose(along * across, np.prod(nirspec.fwhm(LINES), axis=0), rtol=1e-3)
    assert angle == 0
    assert psf.orient(nirspec, ANGLE) == (nirspec, ANGLE)
    assert psf.orient(None, None) == (None, 0.0)
    image = psf.ImagePSF(LINES, np.ones((4, 3, 3)), SCALE)
    assert psf.orient(image, None)[0] is image

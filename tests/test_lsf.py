"""The line-spread function and profiles over bins: against quadrature."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from astropy.modeling.models import Gaussian1D
from numpy.testing import assert_allclose
from scipy.integrate import quad
from scipy.stats import norm

from metalgrad import cards, lsf

EDGES = np.cumsum(np.r_[2.871, np.linspace(0.0072, 0.0121, 40)])  # uneven bins [µm]


@pytest.mark.parametrize("wavelength", [0.61, 1.18, 2.07, 3.03, 4.9])
def test_width_follows_the_table_of_resolution(wavelength):
    table = cards.table("nirspec/prism_resolution.ecsv")
    resolution = np.interp(wavelength, table["wavelength"], table["resolution"])
    fwhm = Gaussian1D(stddev=lsf.prism().sigma(wavelength)).fwhm
    assert_allclose(wavelength / fwhm, resolution, rtol=1e-12)
    assert_allclose(lsf.prism().sigma(wavelength, 0.8) / fwhm * 2.3548, 0.8, rtol=1e-4)


@pytest.mark.parametrize(("wavelength", "sigma"), [(3.0, 1258), (5.0, 445)])
def test_width_in_velocity(wavelength, sigma):
    # Venturi et al. (2024): some 1250 and 450 km/s
    found = lsf.prism().sigma(wavelength) / wavelength * lsf.SPEED_OF_LIGHT
    assert_allclose(found, sigma, rtol=2e-3)


def test_constant_resolution():
    assert_allclose(2.3548 * lsf.constant(1000.0).sigma(2.5), 0.0025, rtol=1e-4)


@pytest.mark.parametrize("sigma", [0.0004, 0.006, 0.021])
def test_profile_is_the_mean_over_each_bin(sigma):
    centre = EDGES[17] + 0.3 * 0.009
    found = lsf.profile(EDGES, np.array([centre]), np.array([sigma]))[0]
    for pixel in (3, 15, 16, 17, 18, 21):
        low, high = EDGES[pixel : pixel + 2]
        ridge = [centre] if low < centre < high else None
        area, _ = quad(norm(centre, sigma).pdf, low, high, points=ridge, epsabs=1e-13)
        assert_allclose(found[pixel], area / (high - low), rtol=1e-8, atol=1e-9)


@pytest.mark.parametrize("sigma", [1e-5, 0.0004, 0.006, 0.021])
def test_profile_integrates_to_one(sigma):
    # also a line much narrower than its bin, and one that sits on an edge
    centre = np.array([EDGES[20], EDGES[20] + 0.0031, EDGES[19] - 0.0001])
    flux = lsf.profile(EDGES, centre, np.full(3, sigma)) @ np.diff(EDGES)
    assert_allclose(flux, 1.0, atol=1e-12)


def test_profile_has_the_centroid_and_width_asked_for():
    edges = np.linspace(2.9, 3.2, 901)
    middle, step = (edges[1:] + edges[:-1]) / 2, edges[1] - edges[0]
    shape = lsf.profile(edges, np.array([3.0417]), np.array([0.0153]))[0] * step
    centroid = shape @ middle
    assert_allclose(centroid, 3.0417, rtol=1e-9)
    # averaging over a bin adds a twelfth of its square
    spread = np.sqrt(shape @ (middle - centroid) ** 2 - step**2 / 12)
    assert_allclose(spread, 0.0153, rtol=1e-6)


def test_half_of_a_line_beyond_the_edge_is_lost():
    flux = lsf.profile(EDGES, EDGES[:1], np.array([0.004]))[0] @ np.diff(EDGES)
    assert_allclose(flux, 0.5, atol=1e-12)


def test_jax_arrays_give_the_same():
    centre, sigma = np.array([2.96, 3.11]), np.array([0.011, 0.013])
    with jax.enable_x64(new_val=True):
        found = lsf.cumulative(jnp.array(EDGES[:, None]), centre[None], sigma[None])
        widths = lsf.prism().sigma(jnp.array(centre))
        assert isinstance(found, jax.Array)
        assert isinstance(widths, jax.Array)
        assert_allclose(found, norm.cdf(EDGES[:, None], centre, sigma), atol=1e-14)
        assert_allclose(widths, lsf.prism().sigma(centre))

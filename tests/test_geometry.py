"""Geometry against Astropy's spherical trigonometry and closed forms."""

import astropy.units as u
import jax
import numpy as np
import pytest
from astropy.coordinates import SkyCoord
from numpy.testing import assert_allclose

from metalgrad import geometry

CENTRE = SkyCoord(3.5774 * u.deg, -30.3912 * u.deg)
ANGLES = [0.0, 37.0, 90.0, 161.5, 233.0]


@pytest.mark.parametrize("angle", ANGLES)
@pytest.mark.parametrize("distance", [0.05, 1.7, 40.0])
def test_sky_offset_is_that_of_astropy(angle, distance):
    there = CENTRE.directional_offset_by(angle * u.deg, distance * u.arcsec)
    east, north = geometry.sky_offset(
        np.array(there.ra.deg), np.array(there.dec.deg), (CENTRE.ra.deg, CENTRE.dec.deg)
    )
    expected = distance * np.array(
        [np.sin(np.radians(angle)), np.cos(np.radians(angle))]
    )
    # tan(40 arcsec) differs from 40 arcsec by one part in 1e8
    assert_allclose([east, north], expected, rtol=2e-8, atol=1e-9)


def test_sky_offset_keeps_the_shape_and_crosses_zero_hours():
    ra, dec = np.array([[359.9999, 0.0001, 0.0]]), np.full((1, 3), 2.0)
    offset = geometry.sky_offset(ra, dec, (0.0, 2.0))
    assert offset.shape == (1, 3, 2)
    step = 1e-4 * 3600 * np.cos(np.radians(2.0))
    assert_allclose(offset[0, :, 0], [-step, step, 0.0], rtol=1e-7)


@pytest.mark.parametrize("angle", ANGLES)
def test_deproject_finds_the_axes(angle):
    turn = np.radians(angle)
    major = np.array([np.sin(turn), np.cos(turn)])
    minor = np.array([np.cos(turn), -np.sin(turn)])  # at angle + 90 deg
    offset = np.array([3.0 * major, 0.4 * minor])
    found = geometry.deproject(offset, 0.4, angle)
    assert_allclose(found, [[3.0, 0.0], [0.0, 1.0]], atol=1e-14)


def test_deproject_turns_an_ellipse_into_a_circle():
    t = np.linspace(0, 2 * np.pi, 17)
    inclination, turn = np.radians(55.0), np.radians(20.0)
    along, across = 2 * np.cos(t), 2 * np.sin(t) * np.cos(inclination)
    east = along * np.sin(turn) + across * np.cos(turn)
    north = along * np.cos(turn) - across * np.sin(turn)
    found = geometry.deproject(
        np.stack([east, north], axis=-1), float(np.cos(inclination)), 20.0
    )
    assert_allclose(np.hypot(*found.T), 2.0, rtol=1e-14)


def test_deproject_keeps_the_kind_of_array():
    assert geometry.deproject(np.ones((2, 2))).dtype == np.float64
    found = geometry.deproject(jax.numpy.ones((2, 2), dtype="float32"), 0.5, 10.0)
    assert isinstance(found, jax.Array)
    assert found.dtype == np.float32


@pytest.mark.parametrize("ratio", [0.0, -0.3, 1.01, float("nan")])
def test_axis_ratio_outside_its_range(ratio):
    with pytest.raises(ValueError, match=r"axis_ratio is .* lies in \(0, 1\]; swap"):
        geometry.deproject(np.ones(2), ratio)


def test_radius_is_that_of_numpy():
    position = np.random.default_rng(3).normal(size=(5, 4, 2)).astype(np.float32)
    assert_allclose(geometry.radius(position), np.hypot(*position.T).T, rtol=1e-6)


def test_radius_has_a_gradient_everywhere():
    gradient = jax.grad(lambda p: geometry.radius(p).sum())
    at = jax.numpy.array([[0.0, 0.0], [3.0, 4.0], [-2.0, 0.0]])
    assert_allclose(gradient(at), [[0.0, 0.0], [0.6, 0.8], [-1.0, 0.0]], rtol=1e-6)


def test_to_map():
    index = np.array([[0, 2], [1, 0]])
    found = geometry.to_map(np.array([5.0, -7.0]), index, (2, 3))
    nan = np.nan
    assert_allclose(found, [[nan, nan, 5.0], [-7.0, nan, nan]])


def test_to_map_wants_one_value_per_spaxel():
    with pytest.raises(ValueError, match=r"3 entries where 2 spaxels expect one each"):
        geometry.to_map(np.ones(3), np.zeros((2, 2), dtype=int), (2, 2))

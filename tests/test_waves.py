"""Waves follow the light, and are as fine as the PSF."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from metalgrad.waves import find_lit, is_lit, make_waves, thin

PIXEL, SCALE = 0.05, 5.6  # arcsec, kpc per arcsec


def blob(rows, columns, peak, place, sigma):
    """S/N squared of a round Gaussian source, and the 1 or 2 that noise alone gives."""
    y, x = np.mgrid[:rows, :columns]
    square = (y - place[0]) ** 2 + (x - place[1]) ** 2
    noise = np.random.default_rng(5).exponential(1.5, (rows, columns))
    return peak * np.exp(-square / sigma**2) + noise


def test_the_box_is_where_the_light_is():
    rows, columns = find_lit(blob(70, 60, 400.0, (20, 33), 5.0), PIXEL)
    # 400 exp(-r²/25) is above 60 / 9 for r < 10, and 0.2" around that may be lit.
    assert_allclose(rows, [6, 34], atol=2)
    assert_allclose(columns, [19, 47], atol=2)


def test_where_there_is_no_spaxel_nothing_is_lit():
    """Spaxels light their neighbours, if there are any."""
    signal = np.zeros((9, 9))
    signal[4, 4], signal[4, 5], signal[5, 5] = 70.0, 70.0, 0.1
    assert_array_equal(np.argwhere(is_lit(signal)), [[4, 4], [4, 5], [5, 5]])
    signal[4, 4] = 1.0
    assert is_lit(signal).all()


def test_an_outlier_is_no_light():
    signal = np.random.default_rng(2).exponential(1.5, (40, 40))
    signal[7, 31] = 2500.0
    assert is_lit(signal).all()
    galaxy = blob(40, 40, 400.0, (20, 12), 4.0)
    galaxy[3, 35] = 2500.0
    assert find_lit(galaxy, PIXEL)[1][1] < 27


def test_the_box_ends_with_the_data():
    rows, columns = find_lit(blob(20, 60, 400.0, (10, 55), 5.0), PIXEL)
    assert_array_equal(rows, [0, 19])
    assert_allclose(columns, [41, 59], atol=2)
    assert columns[1] == 59


def test_the_box_holds_every_source():
    both = blob(70, 60, 400.0, (20, 20), 4.0) + blob(70, 60, 50.0, (55, 40), 4.0)
    rows, columns = find_lit(both, PIXEL)
    assert rows[0] < 11
    assert rows[1] > 61
    assert columns[0] < 11
    assert columns[1] > 46


@pytest.mark.parametrize("signal", [np.zeros((5, 7)), np.ones((30, 20))], ids=str)
def test_where_nothing_is_lit_all_is(signal):
    rows, columns = find_lit(signal, PIXEL)
    assert_array_equal(rows, [0, len(signal) - 1])
    assert_array_equal(columns, [0, signal.shape[1] - 1])


def test_sky_around_a_galaxy_changes_no_wave():
    """Nor does where in the map it lies."""
    small, wide = np.arange(-4, 34.0), np.arange(-4, 94.0)
    waves, frequency = make_waves(small, np.array([3, 24]), PIXEL, SCALE)
    other, same = make_waves(wide, np.array([3, 24]) + 40, PIXEL, SCALE)
    assert_array_equal(same, frequency)
    assert_allclose(other[40 : 40 + len(small)], waves, atol=1e-12)
    assert_allclose(other[:30], 0.0, atol=1e-12)


@pytest.mark.parametrize("lit", [1, 4, 12, 25, 40])
def test_waves_are_orthonormal_and_as_fine_as_the_psf(lit):
    ends = np.array([7, 6 + lit])
    side = 1.25 * lit * PIXEL
    middle = 6.5 + lit / 2
    places = middle + np.linspace(-0.5, 0.5, 4001) * side / PIXEL
    waves, frequency = make_waves(places, ends, PIXEL, SCALE)
    step = np.ptp(places) / 4000 * PIXEL * SCALE
    assert_allclose(waves.T @ waves * step, np.eye(len(frequency)), atol=1e-6)
    finest = np.pi / frequency[-1] / SCALE
    assert len(frequency) in (2, 24) or 0.12 <= finest <= 0.12 * (
        1 + 2 / len(frequency)
    )
    assert len(frequency) % 2 == 0


def test_coarse_waves_are_a_part():
    assert [thin(n) for n in (2, 4, 8, 12, 24)] == [2, 2, 4, 7, 14]

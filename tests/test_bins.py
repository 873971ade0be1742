"""Bins of wavelength against hand-made numbers."""

import numpy as np
import pytest
from numpy.testing import assert_allclose

from metalgrad import bins


def test_between_by_hand():
    assert_allclose(bins.between(np.array([1.0, 2.0, 4.0]), "x"), [0.5, 1.5, 3.0, 5.0])


@pytest.mark.parametrize("centres", [[1.0], [], [1.0, 1.0], [2.0, 1.0], [1.0, np.nan]])
def test_between_wants_increasing_wavelengths(centres):
    with pytest.raises(ValueError, match=r"file has \d wavelengths that do not incr"):
        bins.between(np.array(centres), "file")


def test_linear_axis_has_the_centres_of_the_pipeline():
    cards, cells = bins.to_axis(np.array([0.6, 0.7, 0.8]))
    assert not cells
    assert cards["CTYPE3"] == "WAVE"
    assert cards["CRVAL3"] == pytest.approx(0.65)
    assert cards["CDELT3"] == pytest.approx(0.1)


@pytest.mark.parametrize("edges", [np.linspace(0.6, 5.3, 942), np.geomspace(0.6, 5, 9)])
def test_axis_goes_there_and_back(edges):
    cards, cells = bins.to_axis(edges)
    cards["NAXIS3"] = len(edges) - 1
    assert_allclose(bins.from_axis(cards, cells, "x"), edges, rtol=1e-14)


def test_reference_pixel_and_matrix_count():
    cards = {"NAXIS3": 2, "CTYPE3": "WAVE", "CRVAL3": 3.0, "CRPIX3": 2.0}
    cards |= {"CDELT3": 0.5, "PC3_3": 0.2}
    assert_allclose(bins.from_axis(cards, {}, "x"), [2.85, 2.95, 3.05])


@pytest.mark.parametrize(
    "change",
    [{"CTYPE3": "AWAV"}, {"CTYPE3": "FREQ"}, {"CDELT3": -0.1}, {"CTYPE3": None}],
)
def test_other_axes_are_refused(change):
    cards = {"NAXIS3": 2, "CTYPE3": "WAVE", "CRVAL3": 3.0, "CDELT3": 0.1} | change
    with pytest.raises(
        ValueError, match=r"file has a third axis .* vacuum wavelengths"
    ):
        bins.from_axis(cards, {}, "file")


@pytest.mark.parametrize("cells", [{}, {"wavelength": np.ones((1, 4, 1))}])
def test_table_must_have_one_wavelength_per_plane(cells):
    cards = {"NAXIS3": 3, "CTYPE3": "WAVE-TAB"}
    with pytest.raises(ValueError, match=r"has [04] wavelengths .* for 3 planes"):
        bins.from_axis(cards, cells, "file")

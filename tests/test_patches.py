"""Regions of a galaxy are as large as they should be."""

from types import SimpleNamespace

import numpy as np
import pytest

import metalgrad as mg
from metalgrad.psf import nirspec


def test_annuli_hold_as_many_spaxels_each():
    place = np.stack([np.linspace(0.1, 2, 8), np.zeros(8)], axis=1)
    labels = mg.annuli(SimpleNamespace(position=place), 4)
    assert labels.name == "annulus"
    np.testing.assert_array_equal(labels, [0, 0, 1, 1, 2, 2, 3, 3])


def square(size, scale=0.05):
    """Rows and columns of a square cube."""
    index = np.argwhere(np.ones((size, size), bool))
    edges, place = np.array([0.6, 5.3]), index * 0.1
    return SimpleNamespace(
        index=index, pixel_scale=scale, edges=edges, position=place - place.mean(0)
    )


def test_blocks_are_equal_and_no_narrower_than_asked():
    labels = mg.blocks(square(20), 0.45)
    assert labels.name == "block"
    assert list(np.bincount(labels)) == [100] * 4
    cube, labels = square(20), labels.values
    for one in range(4):
        rows = cube.index[labels == one]
        assert np.all(np.ptp(rows, axis=0) + 1 == 10)


def test_blocks_of_a_table_are_in_its_own_unit():
    maps = SimpleNamespace(position=square(10).position)  # 0.9 on a side
    assert len(np.unique(mg.blocks(maps, 0.3))) == 9


def test_narrow_blocks_are_refused():
    along, across = nirspec().fwhm(5.3)
    least = 2 * np.sqrt(along * across)
    with pytest.raises(ValueError, match=f"at least {least:.2f}"):
        mg.blocks(square(20), 0.3)
    assert len(np.unique(mg.blocks(square(20), 0.3, psf=None))) == 9

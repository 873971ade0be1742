"""Rank plots: a panel for each parameter, and red for those that leave the band."""

import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.colors import to_hex
from numpy.testing import assert_allclose

from metalgrad import coverage_plot, panels


@pytest.fixture(autouse=True)
def close():
    yield
    plt.close("all")


def test_what_leaves_the_band_is_red():
    even = (np.arange(80) + 0.5) / 80
    names = ["slope", "level", "rho", "scatter", "shared_dispersion[R3]"]
    places = dict.fromkeys(names, even) | {"scatter": even**2}
    figure = coverage_plot.ranks(places, seed=1)
    colours = {ax.get_title(): to_hex(ax.lines[-1].get_color()) for ax in figure.axes}
    expected = {name.replace("_", " "): panels.BLUE for name in names}
    expected["scatter"] = panels.RED
    assert colours == {name: to_hex(colour) for name, colour in expected.items()}
    assert "80 galaxies" in figure.get_suptitle()


def test_the_curve_is_the_share_below_less_itself():
    figure = coverage_plot.ranks({"slope": np.array([0.2, 0.3, 0.9])}, seed=1)
    x, y = figure.axes[0].lines[-1].get_data()
    assert_allclose(x, [0, 0.2, 0.2, 0.3, 0.3, 0.9, 0.9, 1])
    assert_allclose(y + x, [0, 0, 1 / 3, 1 / 3, 2 / 3, 2 / 3, 1, 1])

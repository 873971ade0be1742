"""The picture of a gradient in annuli shows what was measured, and no more."""

from types import SimpleNamespace

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
from numpy.testing import assert_allclose

from metalgrad.annular_plot import annuli
from metalgrad.classical import StraightLine

mpl.use("Agg")


def result():
    metallicity = np.array([8.2, 8.1, 8.0, np.nan, 7.0])
    return SimpleNamespace(
        radius=np.array([0.2, 0.5, 0.8, 1.1, 1.4]),
        error=np.array([0.1, 0.1, 0.2, np.nan, np.nan]),
        metallicity=SimpleNamespace(
            metallicity=metallicity, lower=metallicity - 0.1, upper=metallicity + 0.2,
            at_edge=np.array([False, False, False, False, True]),
        ),
        line=StraightLine(-0.3, 8.3, np.diag([0.04, 0.09])),
        size=SimpleNamespace(kpc=0.5),
        target=SimpleNamespace(name="mock"),
    )  # fmt: skip


def test_points_line_and_band():
    ax = annuli(result())
    points = ax.containers[0].lines[0].get_xydata()
    assert_allclose(points, [[0.2, 8.2], [0.5, 8.1], [0.8, 8.0]])
    limits, line = (
        next(one for one in ax.get_lines() if one.get_label().startswith(start))
        for start in ("at the calibration", "straight line")
    )
    assert_allclose(limits.get_xydata(), [[1.4, 7.0]])
    x, y = line.get_data()
    assert_allclose(y, 8.3 - 0.3 * x)
    # The variance of slope · r + central, at zero that of central.
    band = ax.collections[-1].get_paths()[0].vertices
    assert_allclose(np.ptp(band[np.isclose(band[:, 0], 0), 1]), 2 * 0.3)
    at_end = np.isclose(band[:, 0], x[-1])
    assert_allclose(np.ptp(band[at_end, 1]), 2 * np.hypot(0.2 * x[-1], 0.3))
    assert "-0.300" in ax.get_title()
    assert "mock" in ax.get_title()
    plt.close("all")

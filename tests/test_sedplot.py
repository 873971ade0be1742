import numpy as np
import pytest
import xarray

matplotlib = pytest.importorskip("matplotlib")
matplotlib.use("agg")

from metalgrad import sedplot  # noqa: E402

WAVE = np.linspace(1.0, 5.0, 60)
EDGES = [0.0, 10.0, 50.0, 100.0, 300.0]
RATES = np.array([4.0, 2.0, 1.0, 0.5])


@pytest.fixture
def posterior():
    """Make a posterior of known quantiles: 1001 draws, even between -1 and 1."""
    even = np.linspace(-1, 1, 1001)
    model = 1e-20 * (2 + np.sin(WAVE))
    error = np.full(60, 2e-21)
    error[7] = np.nan
    rng = np.random.default_rng(6)
    scalars = {
        name: (("chain", "draw"), (middle + rng.permutation(even))[None])
        for name, middle in {
            "stellar_metallicity": 0.5, "a_v": 1.2, "log_u": -2.0, "sfr": 3.0,
        }.items()
    }  # fmt: skip
    arrays = {
        "log_mass": (("chain", "draw"), (8.5 + even)[None]),
        "rate": (("chain", "draw", "age"), (10 ** even[:, None] * RATES)[None]),
        "spectrum": (
            ("chain", "draw", "wavelength"),
            (model * (1 + 0.01 * even[:, None]))[None],
        ),
    }
    wave = {"wavelength": ("wavelength", WAVE)}
    data = {
        "flux": ("wavelength", model + 2e-21 * (-1.0) ** np.arange(60)),
        "error": ("wavelength", error),
    }
    return xarray.DataTree.from_dict(
        {
            "/": xarray.Dataset(attrs={"redshift": 7.114}),
            "posterior": xarray.Dataset(scalars | arrays, wave),
            "observed_data": xarray.Dataset(data, wave),
            "constant_data": xarray.Dataset({"age_edges": ("edge", EDGES)}),
        }
    )


@pytest.fixture(autouse=True)
def closed():
    yield
    matplotlib.pyplot.close("all")


def test_the_spectrum_and_its_residuals_are_drawn(posterior):
    figure = sedplot.spectrum(posterior)
    upper, lower = figure.axes
    # Every residual of these data is one error, up or down.
    residual = lower.lines[0].get_ydata()
    assert np.isnan(residual[7])
    assert np.abs(np.delete(residual, 7)) == pytest.approx(1.0)
    assert upper.lines[1].get_ydata() == pytest.approx(2 + np.sin(WAVE))
    assert "10^{-20}" in upper.get_ylabel()
    assert upper.get_title() == "z = 7.114, χ² per channel 1.00"


def test_the_history_has_its_bins_and_quantiles(posterior):
    ax = sedplot.history(posterior)
    *bands, middle = (patch.get_data() for patch in ax.patches)
    assert middle.edges.tolist() == EDGES
    assert middle.values == pytest.approx(RATES)
    for band, share in zip(bands, (0.95, 0.68), strict=True):
        assert band.values == pytest.approx(RATES * 10**share, rel=1e-3)
        assert band.baseline == pytest.approx(RATES * 10**-share, rel=1e-3)
    assert "8.50 $^{+0.68}_{-0.68}$" in ax.get_title()


def test_the_history_goes_where_it_is_told(posterior):
    _, ax = matplotlib.pyplot.subplots()
    assert sedplot.history(posterior, ax=ax) is ax


def test_the_corner_has_a_panel_per_pair(posterior):
    figure = sedplot.corner(posterior)
    assert len(figure.axes) == len(sedplot.NAMES) ** 2
    assert "8.50" in figure.axes[0].get_title()

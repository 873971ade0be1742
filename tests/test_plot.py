"""Pictures show the numbers of the fit, with names and units on every axis."""

import matplotlib as mpl
import mock_posterior as mock
import numpy as np
import pytest
from astropy.visualization.wcsaxes import WCSAxes
from matplotlib.collections import FillBetweenPolyCollection, LineCollection
from numpy.testing import assert_allclose

from metalgrad import panels, plot
from metalgrad.spaxels import Spaxels
from metalgrad.spectra import Prediction

plt = plot.plt
RADII = np.array([0.1, 0.7, 2.4])


@pytest.fixture(autouse=True)
def closed():
    """No test leaves a figure open, or the user's style changed."""
    style = dict(mpl.rcParams)
    yield
    plt.close("all")
    assert dict(mpl.rcParams) == style


def without(group, *names):
    given = mock.groups()
    for name in names:
        del given[group][name]
    return given


def one_spaxel():
    given = mock.groups()
    given["posterior"] |= {
        name: given["posterior"][name][..., :1] for name in ("metallicity", "ebv")
    }
    predicted = given["posterior_predictive"]
    predicted["model_flux"] = predicted["model_flux"][:, :, :1]
    given["constant_data"] = {
        "radius": np.zeros(1),
        "position": np.zeros((1, 2)),
        "y": np.zeros(1, int),
        "x": np.zeros(1, int),
    }
    return mock.tree(given, shape=[1, 1], wcs="")


def curve(ax, said):
    return next(one for one in ax.lines if str(one.get_label()).startswith(said))


# The gradient


def test_gradient_is_that_of_the_draws():
    ax = plot.gradient(mock.tree())
    radius, metallicity = curve(ax, "mean field").get_data()
    draws = mock.groups()["posterior"]
    mean = draws["central"].reshape(-1, 1) + draws["slope"].reshape(-1, 1) * radius
    assert_allclose(metallicity, np.median(mean, axis=0))
    assert radius[0] == 0
    assert radius[-1] >= mock.groups()["constant_data"]["radius"].max()


def test_gradient_bands_hold_68_and_95_percent():
    ax = plot.gradient(mock.tree())
    bands = [c for c in ax.collections if isinstance(c, FillBetweenPolyCollection)]
    # At the centre the mean field is `central`.
    found = sorted(
        np.ptp(path.vertices[np.isclose(path.vertices[:, 0], 0), 1])
        for band in bands
        for path in band.get_paths()
    )
    central = mock.groups()["posterior"]["central"]
    tails = np.quantile(central, [0.16, 0.84, 0.025, 0.975]).reshape(2, 2)
    assert_allclose(found, np.diff(tails)[:, 0])


def test_gradient_shows_every_spaxel():
    ax = plot.gradient(mock.tree())
    draws = mock.groups()["posterior"]["metallicity"]
    low, middle, high = np.quantile(draws, [0.16, 0.5, 0.84], axis=(0, 1))
    radius, metallicity = curve(ax, "spaxels").get_data()
    assert_allclose(radius, mock.groups()["constant_data"]["radius"])
    assert_allclose(metallicity, middle)
    bars = next(c for c in ax.collections if isinstance(c, LineCollection))
    ends = np.array([segment[:, 1] for segment in bars.get_segments()])
    assert_allclose(ends, np.stack([low, high], axis=-1))


@pytest.mark.parametrize(
    ("length", "label"),
    [("kpc", "radius [kpc]"), ("R_e", r"radius [$R_\mathrm{e}$]")],
)
def test_gradient_axes(length, label):
    ax = plot.gradient(mock.tree(length=length))
    assert ax.get_xlabel() == label
    assert ax.get_ylabel() == "12 + log(O/H)"
    assert ax.get_title().endswith(f"dex / {label[8:-1]}")


def test_gradient_title_gives_two_digits_of_the_error():
    slope = mock.groups()["posterior"]["slope"]
    low, middle, high = np.quantile(slope, [0.16, 0.5, 0.84])
    expected = f"${middle:.3f}^{{+{high - middle:.3f}}}_{{-{middle - low:.3f}}}$"
    title = plot.gradient(mock.tree()).get_title()
    assert title == f"a galaxy: slope = {expected} dex / kpc"


@pytest.mark.parametrize(
    ("attrs", "count"),
    [({}, 1), ({"effective_radius": np.nan}, 0), ({"length": "R_e"}, 0)],
)
def test_effective_radii_where_they_are_known(attrs, count):
    ax = plot.gradient(mock.tree(**attrs))
    upper = [child for child in ax.child_axes if "R_" in child.get_xlabel()]
    assert len(upper) == count
    if upper:
        ax.figure.canvas.draw()
        assert_allclose(upper[0].get_xlim(), np.array(ax.get_xlim()) / 0.8)


def test_flat_field():
    given = without("posterior", "slope")
    ax = plot.gradient(mock.tree(given, field="Flat"))
    _, metallicity = curve(ax, "mean field").get_data()
    assert_allclose(metallicity, np.median(given["posterior"]["central"]))
    assert "12 + log(O/H) = $8." in ax.get_title()


def test_broken_field():
    """Straight up to the break and straight beyond it, but for the bend."""
    given = without("posterior", "slope")
    shape = {"inner_slope": -0.3, "outer_slope": 0.1, "break_radius": 0.8}
    size = given["posterior"]["central"].shape
    given["posterior"] |= {name: np.full(size, at) for name, at in shape.items()}
    ax = plot.gradient(mock.tree(given, field="Broken"))
    radius, metallicity = curve(ax, "mean field").get_data()
    bent = np.where(radius < 0.8, -0.3 * radius, -0.24 + 0.1 * (radius - 0.8))
    expected = np.median(given["posterior"]["central"]) + bent
    far = np.abs(radius - 0.8) > 0.5
    assert far.sum() > 20
    assert_allclose(metallicity[far], expected[far], atol=1e-3)
    assert "central 12 + log(O/H) = $8." in ax.get_title()


def test_a_field_of_another_shape_has_no_straight_band():
    ax = plot.gradient(mock.tree(without("posterior", "slope"), field="Spiral"))
    assert not [one for one in ax.lines if "mean" in str(one.get_label())]


def test_what_the_calibration_does_not_cover_is_hatched():
    ax = plot.gradient(mock.tree(valid=[7.0, 8.25]))
    (hatched,) = [patch for patch in ax.patches if patch.get_hatch()]
    assert hatched.get_y() == 8.25
    assert_allclose(hatched.get_y() + hatched.get_height(), ax.get_ylim()[1])
    assert not plot.gradient(mock.tree(valid=[7.0, 9.0])).patches


def test_points_of_others():
    metallicity = 8.3 - 0.1 * RADII
    ax = plot.gradient(mock.tree(), points=(RADII, metallicity, 0.05))
    (bars,) = ax.containers
    assert_allclose(bars.lines[0].get_data(), (RADII, metallicity))
    assert ax.get_xlim()[1] > RADII.max()
    assert "annuli" in [text.get_text() for text in ax.get_legend().get_texts()]


def test_gradient_draws_where_it_is_told():
    _, ax = plt.subplots()
    before = plt.get_fignums()
    assert plot.gradient(mock.tree(), ax=ax) is ax
    assert plt.get_fignums() == before


def test_gradient_of_one_spectrum():
    ax = plot.gradient(one_spaxel())
    assert ax.get_xlim() == (0, 1)


# Maps


def images(figure):
    return [ax.images[0] for ax in figure.axes if ax.images]


def bars(figure):
    return [ax.get_ylabel() for ax in figure.axes if ax.get_label() == "<colorbar>"]


@pytest.mark.parametrize("wcs", [None, ""])
def test_maps(wcs):
    posterior = mock.tree() if wcs is None else mock.tree(wcs=wcs)
    figure = plot.maps(posterior)
    index, _ = mock.places()
    draws = mock.groups()["posterior"]
    expected = [
        np.median(draws["metallicity"], axis=(0, 1)),
        np.std(draws["metallicity"], axis=(0, 1), ddof=1),
        np.median(draws["ebv"], axis=(0, 1)),
    ]
    shown = images(figure)
    assert len(shown) == 4
    for image, values in zip(shown, expected, strict=False):
        assert_allclose(image.get_array()[tuple(index.T)], values, rtol=2e-3)
    for image in shown:
        assert isinstance(image.axes, WCSAxes) == (wcs is None)
        mark = image.axes.lines[-1].get_xydata()[0]
        assert_allclose(mark, mock.CENTRE[::-1])
        low, high = image.axes.get_ylim()
        assert (low, high) == (index[:, 0].min() - 1.5, index[:, 0].max() + 1.5)


def test_maps_have_units():
    said = bars(plot.maps(mock.tree()))
    assert said == [
        "12 + log(O/H), median [dex]",
        "12 + log(O/H), sd [dex]",
        "E(B-V), median [mag]",
        r"observed flux of Hβ [$10^{-20}$ erg s$^{-1}$ cm$^{-2}$]",
    ]


def test_maps_need_rows_and_columns():
    given = without("constant_data", "x", "y")
    with pytest.raises(ValueError, match=r"no rows and columns.*iy and ix"):
        plot.maps(mock.tree(given))


def test_maps_of_one_spectrum():
    figure = plot.maps(one_spaxel())
    figure.canvas.draw()
    assert len(images(figure)) == 4


# Spectra


@pytest.fixture
def spaxels():
    """Noise, and nothing else, over the lines of the mock."""
    index, position = mock.places()
    edges = np.linspace(3.3, 5.2, 301)
    flux = np.random.default_rng(8).normal(0, 7.0, (len(index), 300))
    return Spaxels(
        flux=flux,
        error=np.full(flux.shape, 7.0),
        edges=edges,
        position=position,
        index=index,
        redshift=6.36,
        shape=mock.SHAPE,
    )


def test_spectra(spaxels):
    figure = plot.spectra(mock.tree(), spaxels, count=2)
    assert len(figure.axes) == 2 * 2 * 2  # data and residuals, spaxels, complexes
    assert "µm" in figure.get_supxlabel()
    assert "erg s$^{-1}$ cm$^{-2}$ µm$^{-1}$" in figure.get_supylabel()
    names = [text.get_text() for ax in figure.axes for text in ax.texts]
    assert names == ["Hβ", "[O III]", "Hα + [N II]"]
    # The mock's brightest spaxel is the one nearest to the centre.
    nearest = np.argmin(spaxels.radius)
    row, column = spaxels.index[nearest]
    assert figure.axes[0].get_ylabel().startswith(f"spaxel ({column}, {row})")


def test_spectra_of_other_data_are_refused(spaxels):
    with pytest.raises(ValueError, match="pass the Spaxels that were fitted"):
        plot.spectra(one_spaxel(), spaxels)


def test_one_panel_shows_data_model_and_residuals():
    wavelength = np.linspace(4.7, 4.9, 7)
    model = np.full((20, 1, 7), 3.0) + np.arange(20)[:, None, None]
    error = np.full((1, 7), 2.0)
    error[0, 2] = np.inf
    flux = np.arange(7.0)[None]
    _, (upper, lower) = plt.subplots(2)
    one = Prediction(("Halpha",), wavelength, flux, error, model)
    panels.draw_spectrum(upper, lower, one, 0)
    (bar,) = upper.containers
    assert_allclose(bar.lines[0].get_ydata(), [0, 1, 3, 4, 5, 6])
    found = lower.lines[-1].get_ydata()
    assert_allclose(found, np.where(np.arange(7) == 2, np.nan, (flux[0] - 12.5) / 2))


# Parameters


def test_corner_names_and_units():
    figure = plot.corner(mock.tree())
    size = 5  # slope, level, scatter, rho and dust; of other fields the mock has none
    assert len(figure.axes) == size**2
    below = [ax.get_xlabel() for ax in figure.axes[-size:]]
    assert below[0] == "slope [dex / kpc]"
    assert below[2] == "scatter [dex]"
    assert below[4] == "median E(B−V) [mag]"


def test_corner_titles_are_medians():
    slope = np.median(mock.groups()["posterior"]["slope"])
    assert f"{slope:.3f}" in plot.corner(mock.tree()).axes[0].get_title()


def test_corner_marks_divergent_draws():
    figure = plot.corner(mock.tree(), ["slope", "scatter"])
    draws, wild = mock.groups()["posterior"], mock.groups()["sample_stats"]["diverging"]
    (marks,) = [one for one in figure.axes[2].lines if one.get_marker() == "x"]
    assert_allclose(marks.get_xdata(), draws["slope"][wild])
    assert_allclose(marks.get_ydata(), draws["scatter"][wild])


def test_corner_without_statistics():
    given = {k: v for k, v in mock.groups().items() if k != "sample_stats"}
    assert plot.corner(mock.tree(given), ["slope", "rho"]).axes


def test_flat_fields_have_no_slope_to_show():
    figure = plot.corner(mock.tree(without("posterior", "slope"), field="Flat"))
    assert figure.axes[-4].get_xlabel() == "12 + log(O/H) at pivot"


@pytest.mark.parametrize("draw", [plot.corner, plot.trace])
def test_unknown_parameters_are_refused(draw):
    with pytest.raises(ValueError, match=r"no parameter slop; choose among slope, "):
        draw(mock.tree(), ["slop", "rho"])


@pytest.mark.parametrize(
    ("names", "labels"),
    [
        ("slope", ["slope\n[dex / kpc]"]),
        (["noise_scale"], ["noise_scale[Hbeta+OIII]", "noise_scale[NII+Halpha]"]),
        (["noise_scale[NII+Halpha]"], ["noise_scale[NII+Halpha]"]),
    ],
)
def test_trace_rows(names, labels):
    figure = plot.trace(mock.tree(), names)
    assert [ax.get_ylabel() for ax in figure.axes[::2]] == labels


def test_trace_shows_chains_and_divergences():
    left, right = plot.trace(mock.tree(), ["rho"]).axes
    given = mock.groups()
    for line, chain in zip(left.lines, given["posterior"]["rho"], strict=False):
        assert_allclose(line.get_ydata(), chain)
    marks = left.lines[-1].get_xdata()
    assert_allclose(marks, np.nonzero(given["sample_stats"]["diverging"])[1])
    # The shares of a chain, averaged over bins, are one.
    for steps in right.patches:
        assert np.mean(steps.get_data().values) == pytest.approx(1.0)


def test_a_chain_of_its_own_has_ranks_of_its_own():
    given = mock.groups()
    given["posterior"]["rho"][0] += 5.0
    _, right = plot.trace(mock.tree(given), ["rho"]).axes
    shares = right.patches[0].get_data().values
    assert_allclose(shares[-5:], 4.0)
    assert_allclose(shares[:-5], 0.0)

"""Sheets show what was measured, where it was, and name it."""

from dataclasses import replace

import astropy.units as u
import matplotlib as mpl
import mock_posterior as mock
import numpy as np
import pytest
from astropy.coordinates import SkyCoord
from matplotlib.collections import FillBetweenPolyCollection
from matplotlib.patches import Circle, Ellipse, Polygon
from numpy.testing import assert_allclose, assert_array_equal

import metalgrad as mg
from metalgrad.classical import ChiSquareMetallicity, StraightLine
from metalgrad.cubes import Cube
from metalgrad.linefit import LineFit
from metalgrad.sizes import EffectiveRadius

plot = mg.plot
REDSHIFT, KPC, PIXEL = 6.3, 6.0, 0.05
LINES = ("OII", "Hbeta", "OIII", "Halpha")
RADII = np.array([0.5, 1.5, 2.5]) * PIXEL * KPC


@pytest.fixture(autouse=True)
def closed():
    """No test leaves a figure open, or the user's style changed."""
    style = dict(mpl.rcParams)
    yield
    plot.plt.close("all")
    assert dict(mpl.rcParams) == style


def target(**changes):
    place = SkyCoord(*mock.SKY, unit="deg")
    given = mg.Target.at(
        redshift=REDSHIFT, radius=0.175, position=place, kpc_per_arcsec=KPC, name="mock"
    )
    return replace(given, **changes)


def spaxels(**changes):
    """Spectra of level row + column, but for a line of 1000 at [O III]."""
    edges = np.linspace(0.6, 5.3, 471)
    rows, columns = np.mgrid[: mock.SHAPE[0], : mock.SHAPE[1]]
    flux = np.broadcast_to(rows + columns + 1.0, (470, *mock.SHAPE)).copy()
    flux[np.searchsorted(edges, 0.500824 * (1 + REDSHIFT)) - 1] = 1000.0
    unit = u.Unit(1e-20 * u.erg / u.s / u.cm**2 / u.um)
    cube = Cube(
        flux=flux * unit, error=np.ones_like(flux) * unit, edges=edges * u.um,
        good=np.ones(flux.shape, bool), wcs=mock.sky(), pixel_scale=PIXEL * u.arcsec,
    )  # fmt: skip
    return mg.Spaxels.select(cube, target(**changes))


def line_fit(spectra=None, flux=None):
    """Fluxes of 1 to the number of spaxels, of errors 2: the first six are limits."""
    spectra = spectra or spaxels()
    count = len(spectra)
    flux = np.arange(1.0, count + 1) if flux is None else flux
    blank = np.zeros((count, 1))
    return LineFit(
        flux={line: flux for line in LINES},
        error={line: np.full(count, 2.0) for line in LINES},
        complexes=(LINES,), velocity=blank, velocity_error=blank, width=blank,
        width_error=blank, chi2=blank, dof=np.ones((count, 1), int),
        noise=np.ones(count), spectra=spectra,
    )  # fmt: skip


def chi2(values, *, at_edge=False):
    values = np.asarray(values, float)
    rest = np.full(values.shape, np.nan)
    return ChiSquareMetallicity(
        values, values - 0.1, values + 0.2, second=rest, chi2=rest, second_chi2=rest,
        at_edge=np.broadcast_to(at_edge, values.shape).copy(), ebv=rest,
        used=np.ones((*values.shape, 1), bool), ratios=("R3",),
    )  # fmt: skip


def ends(radius):
    """Radii at which annuli end whose middles lie at ``radius`` [kpc], in arcsec."""
    return (radius + radius[0]) / KPC


def annular(radius=RADII, **changes):
    values = 8.2 - 0.1 * np.arange(len(radius))
    return mg.AnnularGradient(
        radius=radius, outer=ends(radius), spaxels=np.ones(len(radius), int),
        fit=line_fit(),
        metallicity=chi2(values), error=np.full(len(radius), 0.15),
        line=StraightLine(-0.3, 8.3, np.diag([0.04, 0.09])),
        size=EffectiveRadius(0.5, 0.1, 1.0, 0.0, None), target=target(**changes),
    )  # fmt: skip


def sky_axes(figure):
    """Axes of a figure that hold a map with a view of its own, and the others."""
    found = [ax for ax in figure.axes if ax.get_label() != "<colorbar>"]
    return [ax for ax in found if ax.images], [ax for ax in found if not ax.images]


def drawn(ax):
    return np.ma.filled(ax.images[0].get_array().astype(float), np.nan)


def plane(polygon, axis_ratio=1.0, position_angle=0.0):
    """Radii of a polygon's corners in the plane of a disc about the target [arcsec]."""
    corners = mock.sky().pixel_to_world(*polygon.get_xy().T)
    east, north = (
        one.to_value(u.arcsec)
        for one in SkyCoord(*mock.SKY, unit="deg").spherical_offsets_to(corners)
    )
    turn = np.deg2rad(position_angle)
    along = east * np.sin(turn) + north * np.cos(turn)
    across = (east * np.cos(turn) - north * np.sin(turn)) / axis_ratio
    return np.hypot(along, across)


# The overview


def test_maps_are_those_of_the_spaxels_and_of_the_draws():
    fit = line_fit()
    (light, flux, level, error), _ = sky_axes(plot.overview(fit, mock.tree()))
    rows, columns = fit.spectra.index.T
    assert_array_equal(drawn(light)[rows, columns], rows + columns + 1)
    assert_array_equal(drawn(flux)[rows, columns][:6], np.nan)
    assert_array_equal(drawn(flux)[rows, columns][6:], fit.flux["OIII"][6:])
    draws = mock.groups()["posterior"]["metallicity"].reshape(400, -1)
    rows, columns = mock.places()[0].T
    assert_allclose(drawn(level)[rows, columns], np.median(draws, axis=0))
    assert_allclose(drawn(error)[rows, columns], np.std(draws, axis=0, ddof=1))


def test_the_papers_metallicities_leave_limits_out():
    spectra = spaxels()
    values = np.linspace(7.8, 8.4, len(spectra))
    is_limit = np.arange(len(spectra)) < 4
    figure = plot.overview(line_fit(spectra), chi2(values, at_edge=is_limit))
    (*_, level, error), _ = sky_axes(figure)
    shown = drawn(level)[*spectra.index.T]
    assert_array_equal(np.isnan(shown), is_limit)
    assert_allclose(shown[4:], values[4:])
    assert_allclose(drawn(error)[*spectra.index.T][4:], 0.15)


def test_the_spectrum_is_the_sum_of_the_aperture():
    spectra = spaxels()
    places = mock.sky().pixel_to_world(*spectra.index.T[::-1])
    apart = places.separation(SkyCoord(*mock.SKY, unit="deg")).to_value(u.arcsec)
    _, (ax,) = sky_axes(plot.overview(line_fit(spectra), mock.tree(), aperture=0.1))
    curve = max(ax.lines, key=lambda one: len(one.get_xdata()))
    assert_allclose(curve.get_ydata(), spectra.flux[apart <= 0.1].sum(axis=0))
    assert_allclose(curve.get_xdata()[[0, -1]], [0.605, 5.295])
    assert f"{(apart <= 0.1).sum()} spaxels" in ax.get_title("left")


def test_lines_are_named_where_they_are():
    _, (ax,) = sky_axes(plot.overview(line_fit(), mock.tree()))
    found = {text.get_text(): text.xy[0] for text in ax.texts}
    # Vacuum wavelengths of NIST [µm]; of [O II], between both of the doublet.
    rest = {"Hβ": 0.486269, "[O III]": 0.500824, "Hα": 0.656461, "[O II]": 0.3728}
    assert found.keys() == rest.keys()
    for name, where in rest.items():
        assert_allclose(found[name], where * (1 + REDSHIFT), rtol=6e-4)
    assert ax.get_ylim()[1] > ax.lines[1].get_ydata().max()


def test_every_map_has_the_same_view_and_says_what_it_is():
    figure = plot.overview(line_fit(), mock.tree())
    axes, _ = sky_axes(figure)
    views = np.array([[*ax.get_xlim(), *ax.get_ylim()] for ax in axes])
    assert_array_equal(views, views[[0]] * np.ones((4, 1)))
    bars = [ax for ax in figure.axes if ax.get_label() == "<colorbar>"]
    said = " ".join(bar.get_xlabel() for bar in bars)
    for word in ("1 to 2 µm", "[O III]", "erg", "12 + log(O/H)", "error [dex]"):
        assert word in said
    assert "arcsec" in axes[0].coords[0].get_axislabel()
    circles = [p for ax in axes for p in ax.patches if isinstance(p, Circle)]
    assert_allclose([one.radius for one in circles], 0.15 / PIXEL)
    assert_allclose([one.center for one in circles], [mock.CENTRE[::-1]] * 4, atol=1e-3)


def test_a_psf_marked_has_its_size():
    flat = mg.PSF(np.array([0.5, 6.0]), np.array([0.2, 0.2]), np.array([0.05, 0.05]))
    (_, ax, *_), _ = sky_axes(plot.overview(line_fit(), mock.tree(), psf=flat))
    beams = [e for a in ax.artists for e in a.findobj(Ellipse)]
    assert [e.width for e in beams] == pytest.approx([0.1 / PIXEL])


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"line": "SII"}, "SII was not fitted.*choose among OII"),
        ({"aperture": 0.01}, "widen aperture"),
        ({"wavelengths": (6.0, 7.0)}, "choose wavelengths"),
        ({"metallicity": chi2([8.0, 8.1])}, "of the same cube"),
        ({"metallicity": mock.tree(shape=[12, 14])}, "of the same cube"),
        ({"fit": line_fit(flux=np.zeros(36))}, "detected in no spaxel"),
        ({"fit": line_fit(replace(spaxels(), pixel_scale=None))}, "pixel_scale"),
    ],
)
def test_an_overview_refuses(change, said):
    given = {"fit": line_fit(), "metallicity": mock.tree()} | change
    with pytest.raises(ValueError, match=said):
        plot.overview(given.pop("fit"), given.pop("metallicity"), **given)


# Against annuli


@pytest.mark.parametrize("shape", [(1.0, 0.0), (0.5, 70.0)])
def test_annuli_lie_where_they_were_summed(shape):
    disc = dict(zip(("axis_ratio", "position_angle"), shape, strict=True))
    figure = plot.against_annuli(mock.tree(), annular(**disc), line_fit())
    (ax,), _ = sky_axes(figure)
    rings = [p for p in ax.patches if type(p) is Polygon]
    radii = [plane(ring, *shape) for ring in rings]
    assert_allclose([r.mean() for r in radii], np.repeat([0.05, 0.1, 0.15], 2))
    for radius in radii:
        assert_allclose(radius, radius.mean(), rtol=1e-5)


def test_annuli_of_another_width():
    result = annular(RADII * 2)
    figure = plot.against_annuli(mock.tree(), result, line_fit())
    (ax,), _ = sky_axes(figure)
    outer = max(plane(p).mean() for p in ax.patches if type(p) is Polygon)
    assert_allclose(outer, 0.3)


def test_points_line_and_the_bands_of_the_joint_fit():
    result = annular()
    figure = plot.against_annuli(mock.tree(), result, line_fit(), fwhm=0.2)
    _, (ax,) = sky_axes(figure)
    points = ax.containers[0].lines[0].get_xydata()
    assert_allclose(points, np.c_[RADII, [8.2, 8.1, 8.0]])
    named = {str(one.get_label()): one for one in ax.lines}
    x, y = named["straight line (68 %)"].get_data()
    assert_allclose(y, 8.3 - 0.3 * x)
    x, y = named["mean field (68, 95 %)"].get_data()
    draws = mock.groups()["posterior"]
    mean = draws["central"].reshape(-1, 1) + draws["slope"].reshape(-1, 1) * x
    assert_allclose(y, np.median(mean, axis=0))
    bands = [c for c in ax.collections if isinstance(c, FillBetweenPolyCollection)]
    found = sorted(
        np.ptp(path.vertices[np.isclose(path.vertices[:, 0], 0), 1])
        for band in bands
        for path in band.get_paths()
    )
    low, inner, outer, high = np.quantile(draws["central"], [0.025, 0.16, 0.84, 0.975])
    # Twice the standard error of the straight line's centre is the widest.
    assert_allclose(found, [outer - inner, high - low, 0.6])
    assert_allclose(named["PSF FWHM"].get_xdata(), 0.2 * KPC)
    slope = f"joint fit: ${np.median(draws['slope']):.3f}"
    for said in ("annuli: -0.300", slope, "mock"):
        assert said in ax.get_title()


def test_masks_are_shaded():
    place = SkyCoord(*mock.SKY, unit="deg").directional_offset_by(
        40 * u.deg, 0.1 * u.arcsec
    )
    result = annular(masks=((place, 0.07),))
    (ax,), _ = sky_axes(plot.against_annuli(mock.tree(), result, line_fit()))
    (shade,) = [p for p in ax.patches if type(p) is Polygon and p.get_hatch()]
    corners = mock.sky().pixel_to_world(*shade.get_xy().T)
    assert_allclose(corners.separation(place).to_value(u.arcsec), 0.07, rtol=1e-5)


def test_radii_about_another_centre_are_refused():
    away = SkyCoord(*mock.SKY, unit="deg").directional_offset_by(
        0 * u.deg, 0.2 * u.arcsec
    )
    with pytest.raises(ValueError, match=r"centred 4\.0 spaxels from"):
        plot.against_annuli(mock.tree(), annular(position=away), line_fit())
    with pytest.raises(ValueError, match="radii are in R_e"):
        plot.against_annuli(mock.tree(length="R_e"), annular(), line_fit())
    bare = line_fit(replace(spaxels(), header=""))
    with pytest.raises(ValueError, match="no sky coordinates"):
        plot.against_annuli(mock.tree(), annular(), bare)


def test_spaxels_without_a_sky_are_drawn_in_pixels():
    figure = plot.overview(line_fit(replace(spaxels(), header="")), mock.tree())
    (ax, *_), _ = sky_axes(figure)
    assert ax.get_xlabel() == "x [pixel]"


def test_the_view_holds_every_annulus():
    wide = annular((np.arange(8) + 0.5) * PIXEL * KPC)  # beyond the spaxels
    (ax,), _ = sky_axes(plot.against_annuli(mock.tree(), wide, line_fit()))
    outer = 8  # pixels
    row, column = mock.CENTRE
    for (low, high), middle in ((ax.get_xlim(), column), (ax.get_ylim(), row)):
        assert low < middle - outer < middle + outer < high
        assert high - low < 2 * outer + 4


def test_a_wide_range_of_light_is_labelled_in_plain_numbers():
    figure = plot.overview(line_fit(flux=np.geomspace(7.0, 900.0, 36)), mock.tree())
    bars = [ax for ax in figure.axes if ax.get_label() == "<colorbar>"]
    (bar,) = [ax for ax in bars if ax.get_xscale() == "log"]
    figure.canvas.draw()
    said = [tick.get_text() for tick in bar.get_xticklabels(which="both")]
    assert [one for one in said if one] == ["10", "20", "50", "100", "200", "500"]

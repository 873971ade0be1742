"""Selection by place, on a cube whose numbers say where they come from."""

from dataclasses import replace
from types import SimpleNamespace

import astropy.units as u
import numpy as np
import pytest
from astropy.coordinates import SkyCoord
from astropy.io import fits
from astropy.wcs import WCS
from numpy.testing import assert_allclose, assert_array_equal
from regions import CirclePixelRegion, CircleSkyRegion, PixCoord

from metalgrad.cubes import Cube
from metalgrad.lsf import constant, prism
from metalgrad.spaxels import FLUX_DENSITY, Spaxels
from metalgrad.targets import Target

WAVE, Y, X = 3, 21, 31
PIXEL = 0.05  # arcsec
CENTRE = SkyCoord(150.1 * u.deg, -30.2 * u.deg)  # on the spaxel (y, x) = (8, 12)


def sky(turn=0.0):
    wcs = WCS(naxis=2)
    wcs.wcs.ctype = ["RA---TAN", "DEC--TAN"]
    wcs.wcs.crval = [CENTRE.ra.deg, CENTRE.dec.deg]
    wcs.wcs.crpix = [13.0, 9.0]
    wcs.wcs.cdelt = [-PIXEL / 3600, PIXEL / 3600]
    cosine, sine = np.cos(np.radians(turn)), np.sin(np.radians(turn))
    wcs.wcs.pc = [[cosine, -sine], [sine, cosine]]
    return wcs


def make_cube(**change):
    """A cube whose flux is 100 y + x, in every plane."""
    y, x = np.mgrid[:Y, :X]
    flux = np.broadcast_to(100.0 * y + x, (WAVE, Y, X)).astype(np.float32)
    cube = {
        "flux": flux * FLUX_DENSITY,
        "error": np.full_like(flux, 2.0) * FLUX_DENSITY,
        "edges": np.array([3.0, 3.1, 3.3, 3.4]) * u.um,
        "good": np.ones(flux.shape, dtype=bool),
        "wcs": sky(),
        "pixel_scale": PIXEL * u.arcsec,
        "shape": (Y, X),
        "slices": 50 * u.deg,
        "meta": {},
    }
    return SimpleNamespace(**cube | change)


@pytest.fixture
def cube():
    return make_cube()


@pytest.fixture
def target():
    return Target(
        name="mock",
        position=CENTRE,
        redshift=6.3,
        kpc_per_arcsec=5.0,
        radius=0.21,
    )


def test_a_disc_is_taken(cube, target):
    spaxels = Spaxels.select(cube, target)
    y, x = np.mgrid[:Y, :X]
    expected = np.argwhere(PIXEL * np.hypot(y - 8, x - 12) <= 0.21)
    assert_array_equal(spaxels.index, expected)
    assert len(spaxels) == len(expected)
    index = spaxels.index
    assert_allclose(spaxels.flux, (100 * index[:, :1] + index[:, 1:]) * np.ones(3))
    assert_allclose(spaxels.error, 2.0)
    assert_allclose(spaxels.edges, [3.0, 3.1, 3.3, 3.4])
    # position angle 0: along is north, across is east; x grows to the west
    east, north = 12 - index[:, 1], index[:, 0] - 8
    place = np.stack([north, east], axis=-1) * PIXEL * 5.0
    assert_allclose(spaxels.position, place, atol=1e-6)
    assert_allclose(spaxels.radius, np.hypot(*place.T), atol=1e-6)
    assert (spaxels.redshift, spaxels.kpc_per_arcsec, spaxels.target) == (
        6.3,
        5,
        "mock",
    )
    assert spaxels.pixel_scale == pytest.approx(PIXEL)
    assert spaxels.shape == (Y, X)
    assert spaxels.dropped == 0
    arrays = (spaxels.flux, spaxels.error, spaxels.edges, spaxels.position)
    assert {array.dtype for array in arrays} == {np.dtype(float)}


@pytest.mark.parametrize("turn", [0.0, 35.0, -120.0])
@pytest.mark.parametrize("angle", [0.0, 60.0, 145.0])
def test_an_inclined_disc_is_an_ellipse_on_the_sky(target, turn, angle):
    cube = make_cube(wcs=sky(turn))
    inclined = replace(target, axis_ratio=0.5, position_angle=angle, radius=0.26)
    spaxels = Spaxels.select(cube, inclined)
    there = cube.wcs.pixel_to_world(spaxels.index[:, 1], spaxels.index[:, 0])
    distance = CENTRE.separation(there).arcsec
    away = CENTRE.position_angle(there).rad - np.radians(angle)
    along, across = distance * np.cos(away), distance * np.sin(away) / 0.5
    assert_allclose(spaxels.position[:, 0], 5 * along, atol=1e-6)
    assert_allclose(spaxels.position[:, 1], 5 * across, atol=1e-6)
    assert np.hypot(along, across).max() <= 0.26
    # the area of the ellipse, to the granularity of the spaxels
    assert len(spaxels) * PIXEL**2 == pytest.approx(np.pi * 0.26**2 / 2, rel=0.15)


def test_the_frame_of_the_position_does_not_matter(cube, target):
    galactic = replace(target, position=CENTRE.galactic)
    found = Spaxels.select(cube, galactic)
    assert_allclose(found.position, Spaxels.select(cube, target).position, atol=1e-6)


def test_masks_are_left_out(cube, target):
    where = cube.wcs.pixel_to_world(14, 9)
    masked = replace(target, masks=((where, 0.051),))
    whole = {tuple(i) for i in Spaxels.select(cube, target).index}
    rest = {tuple(i) for i in Spaxels.select(cube, masked).index}
    assert whole - rest == {(9, 14), (8, 14), (10, 14), (9, 13), (9, 15)} & whole


def sky_circle(cube):
    return CircleSkyRegion(cube.wcs.pixel_to_world(11, 7), 0.12 * u.arcsec)


def pixel_circle(cube):
    return CirclePixelRegion(PixCoord(11, 7), 2.4)


@pytest.mark.parametrize("make", [sky_circle, pixel_circle])
def test_regions(cube, target, make):
    found = Spaxels.select(cube, target, region=make(cube)).index
    whole = Spaxels.select(cube, target).index
    inside = np.hypot(*(whole - [7, 11]).T) < 2.4
    assert_array_equal(found, whole[inside])


def test_region_file_adds_and_takes_away(cube, target, tmp_path):
    path = tmp_path / "galaxy.reg"
    # DS9 counts pixels from 1
    path.write_text("image\ncircle(12,8,2.4)\n-circle(12,8,1.2)\ncircle(16,9,0.5)\n")
    found = Spaxels.select(cube, target, region=str(path)).index
    whole = Spaxels.select(cube, target).index
    distance = np.hypot(*(whole - [7, 11]).T)
    ring = (distance < 2.4) & (distance > 1.2)
    assert_array_equal(found, whole[ring | (whole == [8, 15]).all(axis=1)])


def test_bad_voxels_have_no_weight(cube, target):
    cube.good[1, 8, 12] = False
    cube.flux[1, 8, 12] = np.nan
    cube.good[:, 8, 13] = False
    cube.good[:, 0, 0] = False  # outside the aperture, not counted
    spaxels = Spaxels.select(cube, target)
    (row,) = np.flatnonzero((spaxels.index == [8, 12]).all(axis=1))
    assert_allclose(spaxels.flux[row], [812, 0, 812])
    assert_allclose(spaxels.error[row], [2, np.inf, 2])
    assert spaxels.dropped == 1
    assert [8, 13] not in spaxels.index.tolist()
    assert np.isfinite(spaxels.flux).all()


def test_signal_to_noise_does_not_select(cube, target):
    noisy = make_cube(error=cube.error * 1e6)
    assert len(Spaxels.select(noisy, target)) == len(Spaxels.select(cube, target))


def test_units_of_the_cube_are_converted(cube, target):
    other = make_cube(
        flux=cube.flux.to(u.erg / u.s / u.cm**2 / u.AA).astype(float),
        error=cube.error.to(u.W / u.m**2 / u.um).astype(float),
        edges=cube.edges.to(u.AA),
    )
    found, expected = (Spaxels.select(c, target) for c in (other, cube))
    assert_allclose(found.flux, expected.flux, rtol=1e-6)
    assert_allclose(found.error, expected.error, rtol=1e-6)
    assert_allclose(found.edges, expected.edges)


@pytest.mark.parametrize("position", [None, CENTRE])
def test_a_spectrum_is_taken_as_it_is(target, position):
    one = np.ones((WAVE, 1, 1))
    cube = make_cube(
        flux=7 * one * FLUX_DENSITY,
        error=one * FLUX_DENSITY,
        good=one > 0,
        wcs=None,
        pixel_scale=None,
        shape=(1, 1),
    )
    spaxels = Spaxels.select(cube, replace(target, position=position))
    assert_allclose(spaxels.flux, [[7, 7, 7]])
    assert_allclose(spaxels.position, [[0, 0]])
    assert spaxels.header == ""
    assert spaxels.pixel_scale is None


def test_maps_are_laid_out_on_the_sky(cube, target, tmp_path):
    spaxels = Spaxels.select(cube, target)
    hdu = spaxels.map_hdu(spaxels.radius, "RADIUS", "kpc")
    hdu.writeto(tmp_path / "map.fits")
    with fits.open(tmp_path / "map.fits") as hdus:
        header, data = hdus["RADIUS"].header, hdus["RADIUS"].data
    assert header["BUNIT"] == "kpc"
    assert np.isfinite(data).sum() == len(spaxels)
    assert_array_equal(data, spaxels.to_map(spaxels.radius))
    where = np.argwhere(data == data[8, 14])[0]
    there = WCS(header).pixel_to_world(where[1], where[0])
    assert 5 * CENTRE.separation(there).arcsec == pytest.approx(data[8, 14], rel=1e-5)


def test_cube_of_the_pipeline(shared):
    path = shared / "pipeline_s3d" / "synthetic_prism_s3d_cutout.fits.gz"
    position = SkyCoord(150.0 * u.deg, 2.0 * u.deg)
    target = Target.at(redshift=2.0, radius=0.3, position=position)
    spaxels = Spaxels.select(Cube.read(path), target)
    # a circle of 0.3 arcsec in spaxels of 0.05 arcsec
    assert len(spaxels) == pytest.approx(np.pi * 6**2, rel=0.03)
    # a round source at the centre, sigma 0.35 arcsec in the line at 4.010 um
    wave = (spaxels.edges[1:] + spaxels.edges[:-1]) / 2
    near = np.abs(wave - 4.010) < 0.05
    line = np.where(np.isfinite(spaxels.error), spaxels.flux, 0)[:, near].sum(axis=1)
    falling = np.polyfit((spaxels.radius / target.kpc_per_arcsec) ** 2, np.log(line), 1)
    # between the line's width and that of the continuum under it, 0.4 arcsec
    assert 0.35 < np.sqrt(-0.5 / falling[0]) < 0.40


# --- errors ------------------------------------------------------------------------


def far(target):
    return replace(target, position=SkyCoord(150.2 * u.deg, -30.2 * u.deg))


def other_side(target):
    return replace(target, position=SkyCoord(330.1 * u.deg, 30.2 * u.deg))


def bare(target):
    return replace(target, position=None)


def masked(target):
    return replace(target, masks=((SkyCoord(150.2 * u.deg, -30.2 * u.deg), 0.1),))


def covered(target):
    return replace(target, masks=((CENTRE, 9.0),))


def between(target):
    middle = sky().pixel_to_world(12.5, 8.5)
    return replace(target, position=middle, radius=0.01)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            far,
            r"mock at 150.2 -30.2 deg lies outside the cube, whose corners are at \(",
        ),
        (other_side, "lies outside the cube"),
        (bare, "target mock has no position.*; give it"),
        (
            masked,
            "mask of mock at 150.2 -30.2 deg with radius 0.1 arcsec covers no spax",
        ),
        (covered, "no spaxel of mock is left: 0 lie in aperture and region.*; widen"),
        (between, "no spaxel of mock is left: 0 lie in aperture"),
    ],
)
def test_errors_of_the_target(cube, target, change, words):
    with pytest.raises(ValueError, match=words):
        Spaxels.select(cube, change(target))


def test_cube_without_sky(target):
    with pytest.raises(
        ValueError, match=r"cube of mock has no celestial WCS .*; add one"
    ):
        Spaxels.select(make_cube(wcs=None), target)


def test_cube_without_good_voxels(cube, target):
    cube.good[:] = False
    with pytest.raises(
        ValueError, match=r"5\d lie in aperture and .* none has a good vo"
    ):
        Spaxels.select(cube, target)


def test_a_region_on_the_other_side_of_the_sky(cube, target):
    behind = CircleSkyRegion(SkyCoord(330 * u.deg, 30 * u.deg), 1 * u.arcsec)
    with pytest.raises(
        ValueError, match=r"CircleSkyRegion lies far from the cube .*; c"
    ):
        Spaxels.select(cube, target, region=behind)


def test_region_elsewhere(cube, target, tmp_path):
    elsewhere = CirclePixelRegion(PixCoord(200, 7), 2.4)
    with pytest.raises(ValueError, match="region CirclePixelRegion covers no spaxel"):
        Spaxels.select(cube, target, region=elsewhere)
    path = tmp_path / "elsewhere.reg"
    path.write_text("image\ncircle(200,8,2.4)\n")
    with pytest.raises(ValueError, match=r"elsewhere.reg covers no spaxel of the cube"):
        Spaxels.select(cube, target, region=path)


def test_values_of_another_length(cube, target):
    spaxels = Spaxels.select(cube, target)
    for method in (spaxels.to_map, lambda v: spaxels.map_hdu(v, "R")):
        with pytest.raises(
            ValueError, match=r"values has 3 entries where .* one value pe"
        ):
            method(np.ones(3))


def test_slices_are_turned_to_the_map(target):
    """Pixels were turned by 20 deg, so that the sky is turned in the map."""
    straight, turned = (
        Spaxels.select(make_cube(wcs=sky(turn=turn)), target).slice_angle
        for turn in (0, 20)
    )
    assert straight == pytest.approx(50, abs=1e-3)
    assert abs(turned - straight) == pytest.approx(20, abs=1e-3)
    unknown = Spaxels.select(make_cube(slices=None), target)
    assert unknown.slice_angle is None


@pytest.mark.parametrize(
    ("flux", "error"),
    [(np.nan, 1.0), (np.inf, 1.0), (1.0, 0.0), (1.0, -1), (1, np.nan)],
)
def test_what_is_no_measurement_is_named(cube, target, flux, error):
    spaxels = Spaxels.select(cube, target)
    change = {"flux": spaxels.flux.copy(), "error": spaxels.error.copy()}
    change["flux"][7, 2], change["error"][7, 2] = flux, error
    with pytest.raises(ValueError, match="of spaxel 7 in pixel 2 is no measurement"):
        replace(spaxels, **change)


def test_the_resolution_of_another_grating_must_be_given(target):
    assert Spaxels.select(make_cube(meta={"GRATING": "PRISM "}), target).lsf.sigma(
        2.0
    ) == prism().sigma(2.0)
    for meta in ({"GRATING": "G395M"}, {"INSTRUME": "MIRI", "GRATING": "PRISM"}):
        with pytest.raises(ValueError, match=r"of the cube is (G395M|MIRI) where"):
            Spaxels.select(make_cube(meta=meta), target)
        spaxels = Spaxels.select(make_cube(meta=meta), target, lsf=constant(1000.0))
        assert_allclose(spaxels.lsf.sigma(2.0), 0.002 / 2.3548, rtol=1e-4)


def test_names_and_files_are_no_data(cube, target):
    with pytest.raises(TypeError, match=r"the cube is .* read it with"):
        Spaxels.select("cube.fits", target)
    with pytest.raises(TypeError, match=r"the target is 'cosmos24108'.* load it with"):
        Spaxels.select(cube, "cosmos24108")


def test_spaxels_are_told_in_a_line(cube, target):
    said = repr(Spaxels.select(cube, target))
    assert said.startswith("<Spaxels: ")
    assert " of mock at z = 6.3, 3 bins from 3.000 to 3.400 µm>" in said

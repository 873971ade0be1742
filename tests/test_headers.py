"""The slices' direction: against the geometry of the pipeline and of Astropy."""

import astropy.units as u
import numpy as np
import pytest
from astropy.coordinates import SkyCoord
from astropy.io import fits
from astropy.table import Table
from astropy.wcs import WCS
from numpy.testing import assert_allclose

from metalgrad.headers import angle_on_map, find_slices, roll_cards

# Of a mock exposure with a roll of 20 deg, V3I_YANG as in its header: position angles
# from end to end of slices 0, 14 and 29 on the sky, by the WCS that jwst 3.0 gives them
# (`jwst.assign_wcs.nirspec.nrs_wcs_set_input`) from ESA's model of the instrument.
ROLL, TO_Y, BY_THE_PIPELINE = 20.0, 138.97253, (158.976, 158.981, 158.970)
CENTRE = SkyCoord(150.0 * u.deg, 2.5 * u.deg)


def cube(rolls=None, cards=None, instrument="NIRSPEC"):
    primary = fits.PrimaryHDU()
    primary.header["INSTRUME"] = instrument
    hdus = [primary, fits.ImageHDU(name="SCI")]
    hdus[1].header.update(cards or {})
    if rolls is not None:
        told = Table({"ROLL_REF": rolls, "V3I_YANG": np.full(len(rolls), TO_Y)})
        hdus.append(fits.BinTableHDU(told, name="HDRTAB"))
    return fits.HDUList(hdus)


def test_slices_lie_where_the_pipeline_has_them():
    for hdus in (
        cube([ROLL, ROLL]),
        cube(cards={"ROLL_REF": ROLL, "V3I_YANG": TO_Y}),
    ):
        found = find_slices(hdus).to_value(u.deg)
        assert_allclose(found, BY_THE_PIPELINE, atol=0.02)


@pytest.mark.parametrize("rolls", [[40.0, 42.0], [40.9, 41.1], [220.0, 41.0]])
def test_an_axis_has_no_direction(rolls):
    """Near 0 = 180 deg, and of exposures half a turn apart."""
    found = find_slices(cube(rolls)).to_value(u.deg)
    expected = (np.mean(np.mod(rolls, 180)) + TO_Y) % 180
    assert abs((found - expected + 90) % 180 - 90) < 1e-9
    assert 0 <= found < 180


@pytest.mark.parametrize(
    "hdus",
    [
        cube(),
        cube([20.0, 80.0]),
        cube([20.0, np.nan]),
        cube([20.0], instrument="MIRI"),
        cube(cards={"ROLL_REF": 20.0}),
        cube(cards={"ROLL_REF": "lost", "V3I_YANG": TO_Y}),
    ],
    ids=["untold", "two rolls", "one unknown", "not NIRSpec", "half told", "a word"],
)
def test_what_is_not_told_is_not_guessed(hdus):
    assert find_slices(hdus) is None


def test_a_table_without_the_roll_leaves_it_to_the_header():
    hdus = cube(cards={"ROLL_REF": ROLL, "V3I_YANG": TO_Y})
    hdus.append(fits.BinTableHDU(Table({"FILENAME": ["a"]}), name="HDRTAB"))
    assert_allclose(find_slices(hdus).to_value(u.deg), ROLL + TO_Y)


def test_cards_give_it_back():
    for angle in (0.0, 77.0, 179.0) * u.deg:
        found = find_slices(cube(cards=roll_cards(angle)))
        assert (
            abs((found - angle + 90 * u.deg) % (180 * u.deg) - 90 * u.deg)
            < 1e-9 * u.deg
        )
    assert roll_cards(None) == {}


@pytest.mark.parametrize(("turn", "flip"), [(0, 1), (30, 1), (-100, 1), (0, -1)])
def test_on_a_map_it_points_where_the_sky_does(turn, flip):
    """Maps that are turned, or seen from behind."""
    wcs = WCS(naxis=2)
    wcs.wcs.ctype, wcs.wcs.crpix = ["RA---TAN", "DEC--TAN"], [10, 10]
    wcs.wcs.crval = CENTRE.ra.deg, CENTRE.dec.deg
    wcs.wcs.cdelt = [-flip * 0.05 / 3600, 0.05 / 3600]
    cosine, sine = np.cos(np.radians(turn)), np.sin(np.radians(turn))
    wcs.wcs.pc = [[cosine, -sine], [sine, cosine]]
    slices = 25 * u.deg
    angle = np.radians(angle_on_map(slices, wcs, CENTRE))
    x, y = wcs.world_to_pixel(CENTRE)
    end = wcs.pixel_to_world(x - 8 * np.sin(angle), y + 8 * np.cos(angle))
    found = CENTRE.position_angle(end).to_value(u.deg) % 180
    assert_allclose(found, 25, atol=1e-3)
    assert angle_on_map(None, wcs, CENTRE) is None

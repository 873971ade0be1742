"""Line fluxes from tables and maps, by hand and from a survey."""

from dataclasses import replace

import astropy.units as u
import numpy as np
import pandas as pd
import pytest
from astropy.coordinates import SkyCoord
from astropy.io import fits
from astropy.table import MaskedColumn, QTable, Table
from astropy.utils.masked import Masked
from astropy.wcs import WCS
from numpy.testing import assert_allclose, assert_array_equal

from metalgrad.linemaps import LineMaps
from metalgrad.targets import Target

CENTRE = SkyCoord(180.7 * u.deg, 48.6 * u.deg)
UNIT = u.Unit("1e-16 erg / (s cm2)")


@pytest.fixture
def target():
    return Target(
        name="mock", position=CENTRE, redshift=0.011, kpc_per_arcsec=0.25, radius=3.1
    )


def make_table(**more):
    columns = {"Ha": [3.0, -0.5, 7.0], "Ha_err": [0.2, 0.4, 0.3]}
    columns |= {"Hb": [1.0, np.nan, 2.0], "Hb_err": [0.1, 0.2, np.nan]}
    return Table(columns | {"radius": [0.1, 0.7, 2.0]} | more)


def with_units(table, unit=UNIT):
    for name in ("Ha", "Ha_err", "Hb", "Hb_err"):
        table[name].unit = unit
    return table


# --- tables ------------------------------------------------------------------------


def test_relative_fluxes_in_effective_radii():
    maps = LineMaps.from_table(make_table())
    assert maps.lines == ("Hbeta", "Halpha")
    assert_allclose(maps.flux, [[1, 3], [0, -0.5], [0, 7]])
    assert_allclose(maps.error, [[0.1, 0.2], [np.inf, 0.4], [np.inf, 0.3]])
    assert_allclose(maps.radius, [0.1, 0.7, 2.0])
    assert (maps.radius_unit, maps.flux_unit) == ("R_e", "")
    assert (len(maps), maps.dropped) == (3, 0)
    assert maps.index is None
    assert maps.shape is None


@pytest.mark.parametrize(
    ("unit", "factor"),
    [
        ("erg / (s cm2)", 1e20),
        ("1e-16 erg / (s cm2)", 1e4),
        ("W / m2", 1e23),
        ("1E-17 erg/s/cm^2/spaxel", 1e3),
        ("1e-20 erg / (s cm2 spaxel)", 1.0),
        ("1e-17 erg s-1 cm-2 spaxel-1", 1e3),
    ],
)
def test_units_are_converted(unit, factor):
    table = with_units(make_table(), u.Unit(unit, parse_strict="silent"))
    maps = LineMaps.from_table(table, ["Halpha"])
    assert_allclose(maps.flux[:, 0], np.array([3, -0.5, 7]) * factor)
    assert_allclose(maps.error[:, 0], np.array([0.2, 0.4, 0.3]) * factor)


def test_each_column_has_its_unit():
    table = with_units(make_table())
    table["Ha_err"].unit = u.Unit("1e-18 erg / (s cm2)")
    maps = LineMaps.from_table(table, ["Halpha"])
    assert_allclose(maps.flux[0] / maps.error[0], 3.0 / 0.002)


@pytest.mark.parametrize(
    ("unit", "scale", "named"),
    [("arcsec", 1.0, "arcsec"), ("arcmin", 60.0, "arcsec"), ("pc", 1e-3, "kpc")],
)
def test_radii_without_target(unit, scale, named):
    table = make_table()
    table["radius"].unit = unit
    maps = LineMaps.from_table(table)
    assert_allclose(maps.position[:, 0], np.array([0.1, 0.7, 2.0]) * scale)
    assert_allclose(maps.position[:, 1], 0)
    assert maps.radius_unit == named


def test_an_angle_becomes_a_length_with_a_target(target):
    table = make_table(x=[1.0, 2, 3] * u.arcsec, y=[0.0, -1, 4] * u.arcsec)
    maps = LineMaps.from_table(table, target=target, radius="none such")
    assert_allclose(maps.position, [[0.25, 0], [0.5, -0.25], [0.75, 1.0]])
    assert maps.radius_unit == "kpc"
    assert maps.target == "mock"


def test_sky_coordinates(target):
    inclined = replace(target, axis_ratio=0.5, position_angle=90.0)
    east = CENTRE.directional_offset_by(90 * u.deg, 4 * u.arcsec)
    south = CENTRE.directional_offset_by(180 * u.deg, 2 * u.arcsec)
    sky = SkyCoord([CENTRE, east, south])
    maps = LineMaps.from_table(
        make_table(ra=sky.ra.deg, dec=sky.dec.deg), target=inclined, radius=None
    )
    assert_allclose(maps.position, [[0, 0], [1.0, 0], [0, 1.0]], atol=1e-6)
    with_unit = make_table(ra=sky.ra.to(u.hourangle), dec=sky.dec.to(u.arcmin))
    again = LineMaps.from_table(with_unit, target=inclined, radius=None)
    assert_allclose(again.position, maps.position, atol=1e-9)


def test_rows_without_a_place_or_a_line_are_dropped():
    table = make_table(iy=[4, 0, 2], ix=[1, 6, 3])
    table["radius"][0] = np.nan
    table["Ha"][2] = np.inf
    maps = LineMaps.from_table(table)
    assert_array_equal(maps.index, [[0, 6]])
    assert maps.shape == (5, 7)
    assert maps.dropped == 2


def test_masked_is_not_measured():
    table = make_table()
    table["Ha"] = MaskedColumn(table["Ha"], mask=[True, False, False])
    table["radius"] = MaskedColumn(table["radius"], mask=[False, False, True])
    maps = LineMaps.from_table(table)
    assert_allclose(maps.error, [[0.1, np.inf], [np.inf, 0.4]])
    assert maps.dropped == 1


@pytest.mark.parametrize("name", ["table.ecsv", "table.fits", "table.csv"])
def test_files(tmp_path, name):
    table = make_table() if name.endswith("csv") else with_units(make_table())
    if name == "table.ecsv":
        table = with_units(table)
    table.write(tmp_path / name)
    found, expected = LineMaps.from_table(tmp_path / name), LineMaps.from_table(table)
    assert_allclose(found.flux, expected.flux)
    assert_allclose(found.error, expected.error)


def test_a_table_of_quantities():
    table = with_units(make_table())
    table["radius"].unit = u.kpc
    found = LineMaps.from_table(QTable(table))
    assert_allclose(found.flux, LineMaps.from_table(table).flux)
    assert found.radius_unit == "kpc"


def test_califa(shared, target):
    path = shared / "califa_ngc4047" / "NGC4047_allpix.pipe3d.hdf5"
    table = Table.read(path, path="flux_elines")
    maps = LineMaps.from_table(table, target=target, radius="rad_arc")
    assert maps.lines == ("OII", "Hbeta", "OIII", "NII", "Halpha", "SII")
    assert maps.shape == (72, 77)
    # the counts at S/N > 3 that the data's provenance gives
    counts = {"Halpha": 3860, "NII": 3243, "Hbeta": 2580, "OIII": 2131, "OII": 1257}
    significant = np.sum(maps.flux / maps.error > 3, axis=0)
    assert {k: significant[maps.lines.index(k)] for k in counts} == counts
    assert len(maps) + maps.dropped == len(table)
    row = np.flatnonzero((table["ix"] == 37) & (table["iy"] == 36))[0]
    mine = np.flatnonzero((maps.index == [36, 37]).all(axis=1))[0]
    two = np.array(
        [table[f"{kind}flux_[SII]67{n}"][row] for n in (17, 31) for kind in ("", "e_")]
    )
    sulphur = maps.lines.index("SII")
    assert maps.flux[mine, sulphur] == pytest.approx(1e4 * (two[0] + two[2]), rel=1e-6)
    assert maps.error[mine, sulphur] == pytest.approx(
        1e4 * np.hypot(*two[1::2]), rel=1e-6
    )
    assert maps.radius[mine] == pytest.approx(0.25 * table["rad_arc"][row], rel=1e-6)


# --- maps --------------------------------------------------------------------------

Y, X = 9, 12


def sky():
    wcs = WCS(naxis=2)
    wcs.wcs.ctype = ["RA---TAN", "DEC--TAN"]
    wcs.wcs.crval = [CENTRE.ra.deg, CENTRE.dec.deg]
    wcs.wcs.crpix = [6.0, 4.0]  # the spaxel (y, x) = (3, 5)
    wcs.wcs.cdelt = [-1 / 3600, 1 / 3600]
    return wcs


def make_maps():
    y, x = np.mgrid[:Y, :X]
    return {"OIII": (10.0 * y + x, 0.5 + 0.0 * y), "Halpha": (-1.0 * y, 1.0 + x)}


def test_maps_are_cut_to_the_target(target):
    masks = ((sky().pixel_to_world(6, 3), 0.5),)
    maps = LineMaps.from_maps(make_maps(), replace(target, masks=masks), sky())
    y, x = np.mgrid[:Y, :X]
    inside = (np.hypot(y - 3, x - 5) <= 3.1) & ~((y == 3) & (x == 6))
    assert_array_equal(maps.index, np.argwhere(inside))
    assert_allclose(maps.flux, np.stack([(10 * y + x)[inside], -y[inside]], axis=-1))
    assert_allclose(maps.error[:, 1], 1 + x[inside])
    place = np.stack([(y - 3)[inside], (5 - x)[inside]], axis=-1)
    assert_allclose(maps.position, 0.25 * place, atol=1e-6)
    assert (maps.shape, maps.radius_unit, maps.lines) == (
        (Y, X),
        "kpc",
        ("OIII", "Halpha"),
    )
    assert WCS(fits.Header.fromstring(maps.header, sep="\n")).has_celestial


def test_quantities_and_files_are_alike(target, tmp_path):
    quantities = {line: (f * UNIT, e * UNIT) for line, (f, e) in make_maps().items()}
    paths = {}
    for line, (flux, error) in make_maps().items():
        header = sky().to_header()
        header["BUNIT"] = "1e-16 erg / (s cm2)"
        images = [
            fits.ImageHDU(flux, header, "FLUX"),
            fits.ImageHDU(error, header, "ERR"),
        ]
        paths[line] = tmp_path / f"{line}.fits"
        fits.HDUList([fits.PrimaryHDU(), *images]).writeto(paths[line])
    found = LineMaps.from_maps(paths, target)
    expected = LineMaps.from_maps(quantities, target, sky())
    bare = LineMaps.from_maps(make_maps(), target, sky())
    assert_allclose(found.flux, bare.flux * 1e4)
    assert_allclose(found.flux, expected.flux)
    assert_allclose(found.error, expected.error)
    assert_allclose(found.position, expected.position)


# --- errors ------------------------------------------------------------------------


def table_with(name, value, row=1):
    table = make_table()
    table[name][row] = value
    return table


def mixed():
    table = with_units(make_table())
    table["Hb_err"].unit = None
    return table


def radius_in(unit):
    table = make_table()
    table["radius"].unit = unit
    return table


def only(*names):
    return make_table()[list(names)]


def unlike():
    return make_table(x=[1, 2, 3] * u.kpc, y=[1, 2, 3])[["Ha", "Ha_err", "x", "y"]]


BAD = [
    (table_with("Ha_err", 0.0), "error of Halpha is zero or negative in row 1 and 0 o"),
    (table_with("Ha_err", -1.0), "error of Halpha is zero or negative in row 1"),
    (mixed(), r"\['Hb_err'\] have no unit while others have one; give units to all"),
    (with_units(make_table(), u.Jy), "flux Hb has the unit Jy where a flux, erg / "),
    (radius_in("s"), "column radius has the unit s where a length, an angle or none"),
    (only("Ha", "Ha_err"), "no positions among Ha, Ha_err; give it radius, or ra and"),
    (unlike(), "no positions among Ha, .* or x and y in one unit"),
    (only("radius"), "no flux of OII, .* among its columns radius; name it so"),
    (only("Ha", "radius"), "flux Ha of Halpha has 0 columns of errors"),
    (make_table(radius=[np.nan] * 3), "no spaxel is left of 3, for none has a posit"),
]


@pytest.mark.parametrize(("table", "words"), BAD)
def test_errors_of_a_table(table, words):
    with pytest.raises(ValueError, match=words):
        LineMaps.from_table(table)


def test_zero_error_without_a_flux_is_not_measured():
    assert LineMaps.from_table(table_with("Hb_err", 0.0)).error[1, 0] == np.inf


def test_sky_coordinates_need_a_position(target):
    table = make_table(ra=[1, 2, 3], dec=[1, 2, 3])
    with pytest.raises(ValueError, match="target mock has no position"):
        LineMaps.from_table(table, target=replace(target, position=None), radius=None)


def test_errors_of_maps(target, tmp_path):
    good = make_maps()
    with pytest.raises(
        ValueError, match="CIV is not a line of metalgrad; name it as one"
    ):
        LineMaps.from_maps({"CIV": good["OIII"]}, target, sky())
    with pytest.raises(ValueError, match=r"and no celestial WCS where .* or give wcs"):
        LineMaps.from_maps(good, target)
    cut = good | {"Halpha": tuple(v[1:] for v in good["Halpha"])}
    with pytest.raises(
        ValueError, match=r"the shapes \[\(8, 12\), \(9, 12\)\] and a cel"
    ):
        LineMaps.from_maps(cut, target, sky())
    far = replace(target, position=SkyCoord(10 * u.deg, 48.6 * u.deg))
    with pytest.raises(
        ValueError, match=r"no spaxel is left of 0.* radius of the target"
    ):
        LineMaps.from_maps(good, far, sky())
    half = good | {"Halpha": tuple(v * UNIT for v in good["Halpha"])}
    with pytest.raises(ValueError, match="have no unit while others have one"):
        LineMaps.from_maps(half, target, sky())
    path = tmp_path / "flux.fits"
    fits.PrimaryHDU(good["OIII"][0]).writeto(path)
    with pytest.raises(ValueError, match=r"flux.fits has no image ERR or ERROR among"):
        LineMaps.from_maps({"OIII": path}, target)


def test_what_maps_mask_is_not_measured(target):
    """In whatever way: NumPy's masked arrays, Astropy's, NaN."""
    flux, error = np.full((Y, X), 7.0), np.full((Y, X), 0.5)
    lost = np.zeros((Y, X), bool)
    lost[2, 5] = True
    wcs, bare = sky(), (np.where(lost, np.nan, flux), error)
    masked = np.ma.array(np.where(lost, 1e20, flux), mask=lost), error
    quantity = Masked(np.where(lost, 1e20, flux), lost) * UNIT, error * UNIT
    expected = LineMaps.from_maps({"OIII": bare}, target, wcs)
    assert expected.dropped == 1
    for given, factor in ((masked, 1.0), (quantity, 1e4)):
        found = LineMaps.from_maps({"OIII": given}, target, wcs)
        assert_allclose(found.flux, factor * expected.flux)
        assert_array_equal(found.index, expected.index)


def test_rows_and_columns_are_numbers_from_0():
    for wrong in (-1, 0.5, np.nan, np.ma.masked):
        rows = MaskedColumn([0.0, 1.0, 2.0])
        rows[1] = wrong
        with pytest.raises(ValueError, match=r"iy is .* in row 1 .*whole numbers"):
            LineMaps.from_table(make_table(iy=rows, ix=[0, 1, 2]))
    # That of a spaxel which is dropped does not count.
    table = make_table(iy=[0, 7, 1], ix=[0, -1, 2])
    table["Ha"][1] = np.nan
    maps = LineMaps.from_table(table)
    assert_array_equal(maps.index, [[0, 0], [1, 2]])
    assert maps.shape == (2, 3)


def test_the_size_of_the_target_goes_along(target):
    target = replace(target, effective_radius=0.8)
    assert LineMaps.from_table(make_table(), target=target).effective_radius == 0.8
    assert LineMaps.from_table(make_table()).effective_radius is None


def test_whatever_holds_a_table_is_read():
    expected = LineMaps.from_table(make_table())
    columns = dict(make_table())
    for given in (columns, make_table().as_array(), pd.DataFrame(columns)):
        assert_array_equal(LineMaps.from_table(given).flux, expected.flux)
    named = {"Radius" if name == "radius" else name: v for name, v in columns.items()}
    assert_array_equal(LineMaps.from_table(named).radius, expected.radius)


def test_what_is_no_table_is_refused(tmp_path):
    (tmp_path / "notes.xyz").write_text("nothing")
    for given in (3.0, tmp_path / "notes.xyz"):
        with pytest.raises(ValueError, match="is no table of line fluxes"):
            LineMaps.from_table(given)
    table = make_table()
    table["Ha"] = ["1.0", "<12", "3.0"]
    with pytest.raises(ValueError, match=r"column Ha holds what is no number .*<12"):
        LineMaps.from_table(table)


def test_greek_letters_are_read():
    table = make_table()
    for name, greek in (("Ha", "Hα"), ("Hb", "H_β")):
        table.rename_columns([name, f"{name}_err"], [greek, f"e_{greek}"])
    expected = LineMaps.from_table(make_table())
    assert_array_equal(LineMaps.from_table(table).flux, expected.flux)


def test_a_cubes_wcs_serves_for_its_maps(target):
    header = sky().to_header()
    header.update({"CTYPE3": "WAVE", "CRVAL3": 1e-6, "CDELT3": 1e-9, "WCSAXES": 3})
    header.update({"CRPIX3": 1.0, "CUNIT3": "m"})
    whole = WCS(header)
    assert whole.naxis == 3
    found = LineMaps.from_maps(make_maps(), target, whole)
    expected = LineMaps.from_maps(make_maps(), target, sky())
    assert_allclose(found.position, expected.position)


def test_line_maps_are_told_in_a_line():
    expected = (
        "<LineMaps: 3 spaxels of a galaxy, Hbeta, Halpha [no unit], radii in R_e>"
    )
    assert repr(LineMaps.from_table(make_table())) == expected

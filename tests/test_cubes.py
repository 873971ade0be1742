"""Cubes from files made by hand, and from the pipelines' own."""

import gzip
from dataclasses import replace
from types import SimpleNamespace

import astropy.units as u
import numpy as np
import pytest
from astropy.io import fits
from astropy.wcs import WCS
from numpy.testing import assert_allclose, assert_array_equal

from metalgrad.cubes import FLUX_DENSITY, Cube
from metalgrad.headers import BLOCK

WAVE, Y, X = 6, 4, 5
AREA = 5.876e-14  # sr, the pipeline's value for 0.05 arcsec
LIGHT = 2.99792458e14  # um / s
LINEAR = {"CTYPE3": "WAVE", "CUNIT3": "um", "CRPIX3": 1.0, "CRVAL3": 2.9, "CDELT3": 0.1}


def sky_cards():
    cards = {"CTYPE1": "RA---TAN", "CTYPE2": "DEC--TAN", "CUNIT1": "deg"}
    cards |= {"CUNIT2": "deg", "CRVAL1": 150.1, "CRVAL2": -2.2, "CRPIX1": 2.0}
    cards |= {"CRPIX2": 3.0, "CDELT1": 0.05 / 3600, "CDELT2": 0.05 / 3600}
    return cards | {"PC1_1": -1.0, "PC1_2": 0.0, "PC2_1": 0.0, "PC2_2": 1.0}


def s3d(**change):
    """The HDUs of a pipeline cube, and what to change in the header of SCI."""
    rng = np.random.default_rng(5)
    flux = rng.normal(1.0, 0.3, (WAVE, Y, X)).astype(">f4")
    cards = {"BUNIT": "MJy/sr", "PIXAR_SR": AREA, **sky_cards(), **LINEAR, **change}
    cards = {key: value for key, value in cards.items() if value is not None}
    hdus = fits.HDUList([fits.PrimaryHDU()])
    hdus[0].header["PROGRAM"] = "01234"
    hdus.append(fits.ImageHDU(flux, fits.Header(cards), "SCI"))
    hdus.append(fits.ImageHDU(np.full_like(flux, 0.2), name="ERR"))
    hdus["ERR"].header["BUNIT"] = "MJy/sr"
    hdus.append(fits.ImageHDU(np.zeros(flux.shape, np.uint32), name="DQ"))
    hdus.append(fits.ImageHDU(np.ones_like(flux), name="WMAP"))
    return hdus


def table(name, **columns):
    units = {"wave": "um", "wavelength": "um"}
    return fits.BinTableHDU.from_columns(
        [
            fits.Column(key, fmt, unit=unit or units.get(key.lower()), array=value)
            for key, (value, fmt, unit) in columns.items()
        ],
        name=name,
    )


def spectrum(name="EXTRACT1D", error="FLUX_ERROR", unit="Jy", wave=(2.0, 3.0, 5.0)):
    n = len(wave)
    names = ("WAVELENGTH", "FLUX", error, "DQ")
    if name == "SPEC1D":
        names = ("wave", "flux", "err", "DQ")
    arrays = (wave, np.arange(1.0, n + 1), np.full(n, 0.5), np.zeros(n))
    units = ("um", unit, unit, None)
    columns = dict(zip(names, zip(arrays, "DDDJ", units, strict=True), strict=True))
    return fits.HDUList([fits.PrimaryHDU(), table(name, **columns)])


@pytest.fixture
def path(tmp_path):
    return tmp_path / "cube_s3d.fits"


def read(hdus, path):
    hdus.writeto(path, overwrite=True)
    return Cube.read(path)


# --- units and axes ----------------------------------------------------------------


def test_surface_brightness_becomes_flux_density(path):
    hdus = s3d()
    cube = read(hdus, path)
    wave = np.array([2.9, 3.0, 3.1, 3.2, 3.3, 3.4])
    # MJy = 1e-17 erg/s/cm2/Hz; nu = c / lambda, so F_lambda = F_nu c / lambda^2
    factor = 1e-17 * AREA * LIGHT / wave**2 / 1e-20
    assert factor[1] == pytest.approx(1957.3, rel=1e-4)
    expected = hdus["SCI"].data * factor[:, None, None]
    assert cube.flux.unit == FLUX_DENSITY
    assert_allclose(cube.flux.value, expected, rtol=1e-6)
    assert_allclose(cube.error.value, 0.2 * np.ones((6, 4, 5)) * factor[:, None, None])
    by_astropy = (1 * u.MJy / u.sr * AREA * u.sr).to(
        u.erg / u.s / u.cm**2 / u.um, u.spectral_density(3.0 * u.um)
    )
    assert by_astropy.value == pytest.approx(factor[1] * 1e-20, rel=1e-9)


@pytest.mark.parametrize("unit", ["MJy/sr", "Jy / sr", "uJy arcsec-2", "nJy", "mJy"])
def test_other_units_of_the_same_brightness(path, unit):
    area = AREA if "sr" in unit else AREA * u.sr.to(u.arcsec**2)
    factor = {"MJy/sr": 1e6, "Jy / sr": 1, "uJy arcsec-2": 1e-6}.get(unit)
    expected = factor * area if factor else {"nJy": 1e-9, "mJy": 1e-3}[unit]
    hdus = s3d(BUNIT=unit)
    hdus["ERR"].header["BUNIT"] = unit
    found = read(hdus, path)
    ratio = found.flux.value[1] / hdus["SCI"].data[1]
    assert_allclose(ratio, expected * 1e-23 * LIGHT / 9.0 / 1e-20, rtol=2e-6)


def test_error_without_unit_is_in_that_of_the_flux(path):
    hdus = s3d()
    del hdus["ERR"].header["BUNIT"]
    assert read(hdus, path).error.value[1, 0, 0] == pytest.approx(
        0.2 * 1957.3, rel=1e-4
    )


def test_linear_edges_and_sky(path):
    cube = read(s3d(), path)
    assert_allclose(cube.edges.to_value(u.um), np.arange(2.85, 3.46, 0.1))
    assert_allclose(cube.wave.to_value(u.um), np.arange(2.9, 3.41, 0.1))
    assert cube.shape == (Y, X)
    assert cube.flux.dtype == np.float32
    assert cube.meta == {"PROGRAM": "01234"}
    assert cube.pixel_scale.to_value(u.arcsec) == pytest.approx(0.05, rel=1e-4)
    there = cube.wcs.pixel_to_world(1, 2)
    assert_allclose([there.ra.deg, there.dec.deg], [150.1, -2.2])
    west = cube.wcs.pixel_to_world(2, 2)
    assert (there.ra - west.ra).arcsec * np.cos(np.radians(2.2)) == pytest.approx(0.05)


def test_metres_and_the_area_from_the_sky(path):
    change = {"CUNIT3": "m", "CRVAL3": 2.9e-6, "CDELT3": 1e-7, "PIXAR_SR": None}
    cube = read(s3d(**change), path)
    assert_allclose(cube.edges.to_value(u.um), np.arange(2.85, 3.46, 0.1))
    assert cube.pixel_scale.to_value(u.arcsec) == pytest.approx(0.05)


def wavelength_table(wave):
    # As jwst.cube_build has it: one row, float32, shape (1, n)
    data = np.array([(np.asarray(wave)[:, None],)], [("wavelength", "<f4", (WAVE, 1))])
    hdu = fits.BinTableHDU(data, name="WCS-TABLE")
    hdu.header["TDIM1"] = f"(1,{WAVE})"
    return hdu


TABULATED = {"CTYPE3": "WAVE-TAB", "PS3_0": "WCS-TABLE", "PS3_1": "wavelength"}
TABULATED |= {"CRVAL3": 1.0, "CRPIX3": 1.0, "CDELT3": None}


def test_wave_tab_made_by_hand(path):
    hdus = s3d(**TABULATED)
    hdus.append(wavelength_table([1.0, 1.2, 1.6, 2.0, 3.0, 5.0]))
    cube = read(hdus, path)
    assert_allclose(
        cube.edges.to_value(u.um), [0.9, 1.1, 1.4, 1.8, 2.5, 4.0, 6.0], rtol=1e-6
    )
    factor = 1e-17 * AREA * LIGHT / 5.0**2 / 1e-20
    assert_allclose(cube.flux.value[-1], hdus["SCI"].data[-1] * factor, rtol=1e-6)


def test_table_of_a_linear_cube_is_not_needed(path):
    hdus = s3d()
    hdus.append(wavelength_table([1.0, 1.2, 1.6, 2.0, 3.0, 5.0]))
    assert read(hdus, path).edges[0].to_value(u.um) == pytest.approx(2.85)


# --- what is good ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("extension", "value", "good"),
    [
        ("DQ", 1, False),
        ("DQ", 512, False),
        ("DQ", 513, False),
        ("DQ", 4, True),
        ("SCI", np.nan, False),
        ("SCI", np.inf, False),
        ("SCI", -3.0, True),
        ("SCI", 0.0, True),
        ("ERR", np.nan, False),
        ("ERR", np.inf, False),
        ("ERR", 0.0, False),
        ("WMAP", 0.0, False),
        ("WMAP", np.nan, False),
    ],
)
def test_one_voxel(path, extension, value, good):
    hdus = s3d()
    hdus[extension].data[2, 3, 1] = value
    expected = np.ones((WAVE, Y, X), dtype=bool)
    expected[2, 3, 1] = good
    assert_array_equal(read(hdus, path).good, expected)


def test_flags_and_weights_may_be_absent(path):
    hdus = s3d()
    del hdus["DQ"], hdus["WMAP"]
    assert read(hdus, path).good.all()


# --- spectra -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "error"),
    [("EXTRACT1D", "FLUX_ERROR"), ("EXTRACT1D", "ERROR"), ("SPEC1D", "")],
)
def test_a_spectrum_is_one_spaxel(path, name, error):
    hdus = spectrum(name, error, unit="uJy")
    hdus[1].data["DQ"][1] = 1
    cube = read(hdus, path)
    assert_allclose(cube.edges.to_value(u.um), [1.5, 2.5, 4.0, 6.0])
    centres = np.array([2.0, 3.25, 5.0])
    factor = 1e-6 * 1e-23 * LIGHT / centres**2 / 1e-20
    assert_allclose(cube.flux.value[:, 0, 0], np.array([1, 2, 3]) * factor)
    assert_allclose(cube.error.value[:, 0, 0], 0.5 * factor)
    assert_array_equal(cube.good[:, 0, 0], [True, False, True])
    assert cube.wcs is None
    assert cube.pixel_scale is None


@pytest.mark.parametrize(
    ("file", "pixels"),
    [
        ("rubies-uds31-v4_prism-clear_4233_154183.spec.fits.gz", (473, 468)),
        ("static-test-driz-center-bkg_933.spec.fits", (414, 330)),
    ],
)
def test_real_spectra_of_msaexp(shared, file, pixels):
    path = shared / "nirspec_msa_prism" / file
    cube = Cube.read(path)
    assert (cube.good.size, cube.good.sum()) == pixels
    with fits.open(path) as hdus:
        data = hdus["SPEC1D"].data
        expected = (data["flux"] * u.uJy).to(
            FLUX_DENSITY, u.spectral_density(data["wave"] * u.um)
        )
    good = cube.good[:, 0, 0]
    # the centre of a bin is not quite where its wavelength is
    assert_allclose(cube.flux[good, 0, 0].value, expected[good].value, rtol=2e-3)


def test_real_cube_of_the_pipeline(shared):
    path = shared / "pipeline_s3d" / "synthetic_prism_s3d_cutout.fits.gz"
    cube = Cube.read(path)
    assert cube.flux.shape == (941, 31, 31)
    assert np.sum(~cube.good) == 249
    assert_allclose(cube.edges[[0, -1]].to_value(u.um), [0.6, 5.305], atol=1e-6)
    # PROVENANCE: lines at 3.895 and 4.010 um, with peaks of 40 and 30 MJy/sr
    wave = cube.wave.to_value(u.um)
    middle = cube.flux.value[:, 15, 15]
    for line in (3.895, 4.010):
        near = np.abs(wave - line) < 0.05
        assert wave[near][np.nanargmax(middle[near])] == pytest.approx(line, abs=0.006)


# --- there and back ----------------------------------------------------------------


@pytest.mark.parametrize("kind", ["linear", "table", "uneven"])
def test_write_gives_back_what_was_read(path, tmp_path, kind):
    hdus = s3d(**({} if kind == "linear" else TABULATED))
    if kind != "linear":
        hdus.append(wavelength_table([1.0, 1.2, 1.6, 2.0, 3.0, 5.0]))
    hdus["DQ"].data[0, 1, 1] = 1
    hdus["SCI"].data[1, 1, 1] = np.nan
    cube = read(hdus, path)
    if kind == "uneven":  # edges that no rule about their centres gives back
        edges = np.array([1, 1.3, 2.0, 2.1, 2.2, 4.4, 4.5]) * u.um
        cube = Cube(cube.flux, cube.error, edges, cube.good, cube.wcs, cube.pixel_scale)
    again = tmp_path / "again.fits"
    cube.write(again)
    back = Cube.read(again)
    assert_allclose(back.edges.to_value(u.um), cube.edges.to_value(u.um), rtol=1e-14)
    assert_allclose(back.flux.value, cube.flux.value, rtol=5e-7)
    assert_allclose(back.error.value, cube.error.value, rtol=5e-7)
    assert_array_equal(back.good, cube.good)
    assert back.meta == cube.meta
    assert back.pixel_scale.value == pytest.approx(cube.pixel_scale.value, rel=1e-12)
    here, there = (c.wcs.pixel_to_world(3.2, 0.7) for c in (cube, back))
    assert here.separation(there).arcsec < 1e-7


def test_written_file_is_that_of_the_pipeline(path):
    cube = read(s3d(), path)
    meta = {"MOCK": True, "SEED": 3, "TRUTHSLOPE": -0.1}
    Cube(
        cube.flux.to(u.erg / u.s / u.cm**2 / u.AA),
        cube.error,
        cube.edges.to(u.m),
        cube.good,
        cube.wcs,
        cube.pixel_scale,
        meta,
    ).write(path, overwrite=True)
    with fits.open(path) as hdus:
        assert [hdu.name for hdu in hdus] == ["PRIMARY", "SCI", "ERR", "DQ", "WMAP"]
        assert {k: hdus[0].header[k] for k in meta} == meta
        assert hdus["SCI"].header["BUNIT"] == "MJy/sr"
        assert hdus["SCI"].header["PIXAR_A2"] == pytest.approx(0.0025, rel=1e-4)
        wave = WCS(hdus["SCI"].header).spectral.pixel_to_world(np.arange(WAVE))
        assert_allclose(wave.to_value(u.um), np.arange(2.9, 3.41, 0.1))
        assert_allclose(hdus["SCI"].data, s3d()["SCI"].data, rtol=1e-6)
    assert Cube.read(path).meta == meta


def test_astropy_reads_the_table_of_wavelengths(path):
    cube = read(s3d(), path)
    edges = np.array([1, 1.2, 2.0, 2.1, 2.2, 4.4, 4.5]) * u.um
    Cube(cube.flux, cube.error, edges, cube.good, cube.wcs, cube.pixel_scale).write(
        path, overwrite=True
    )
    with fits.open(path) as hdus:
        axis = WCS(hdus["SCI"].header, hdus).spectral
        wave = axis.pixel_to_world(np.arange(WAVE)).to_value(u.um)
    assert_allclose(wave, [1.1, 1.6, 2.05, 2.15, 3.3, 4.45])


def test_write_does_not_overwrite(path):
    cube = read(s3d(), path)
    with pytest.raises(OSError, match="overwrite"):
        cube.write(path)


def test_a_spectrum_is_no_cube_to_write(path):
    with pytest.raises(
        ValueError, match="no s3d without wcs and pixel_scale; set both"
    ):
        read(spectrum(), path).write(path, overwrite=True)


# --- errors ------------------------------------------------------------------------


def test_no_such_file(tmp_path):
    with pytest.raises(FileNotFoundError):
        Cube.read(tmp_path / "nothing.fits")


def contents(path):
    s3d().writeto(path)
    return path.read_bytes()


@pytest.mark.parametrize(
    "damage",
    [
        lambda raw: b"",
        lambda raw: b"wavelength,flux\n" * 1000,
        lambda raw: raw[:-100],
        lambda raw: raw[: len(raw) // 2 + 7],
        lambda raw: gzip.compress(raw)[:-60],
        lambda raw: gzip.compress(raw)[:200] + b"\0" * 500,
    ],
    ids=["empty", "text", "end", "half", "gzip", "gzip junk"],
)
def test_not_a_whole_fits_file(path, damage):
    path.write_bytes(damage(contents(path)))
    with pytest.raises(ValueError, match=r"cube_s3d.fits is no FITS file, or is trunc"):
        Cube.read(path)


def test_gzip_is_read(path):
    path.write_bytes(gzip.compress(contents(path)))
    assert Cube.read(path).good.all()


def without(name):
    hdus = s3d()
    del hdus[name]
    return hdus


def with_values(extension, value, where=...):
    hdus = s3d()
    hdus[extension].data[where] = value
    return hdus


def short_error():
    hdus = s3d()
    hdus["ERR"].data = hdus["ERR"].data[1:]
    return hdus


def flat():
    hdus = s3d()
    hdus["SCI"].data = hdus["SCI"].data[0]
    return hdus


def no_table(*more):
    hdus = s3d(**TABULATED)
    hdus.extend(more)
    return hdus


def two_spectra():
    hdus = spectrum()
    hdus.append(hdus[1].copy())
    return hdus


def other(extension, data):
    hdus = s3d()
    hdus[extension].data = data
    return hdus


def pipelines(*lost):
    """A cube that says that the pipeline made it."""
    hdus = s3d()
    hdus[0].header["CAL_VER"] = "1.14.0"
    for name in lost:
        del hdus[name]
    return hdus


BAD = {
    "oblong": (s3d(CDELT1=0.1 / 3600), "spaxels of 0.1 x 0.05 arcsec where square"),
    "lost flags": (pipelines("DQ"), r"\(CAL_VER\) and has no extension DQ"),
    "flags elsewhere": (
        other("DQ", np.zeros((WAVE, X, Y), np.uint32)),
        r"DQ of shape \(6, 5, 4\) and type .* where \(6, 4, 5\) of integers",
    ),
    "flags in floats": (
        other("DQ", np.zeros((WAVE, Y, X), np.float32)),
        r"DQ of shape \(6, 4, 5\) and type .*f.* where .* of integers",
    ),
    "no SCI": (
        without("SCI"),
        r"no extension SCI .* among PRIMARY, ERR, DQ, WMAP; pass",
    ),
    "no ERR": (without("ERR"), "no extension ERR; pass a cube with its errors"),
    "flat": (flat(), r"SCI of shape \(4, 5\) and ERR of \(6, 4, 5\) where one shape"),
    "shapes": (short_error(), r"SCI of shape \(6, 4, 5\) and ERR of \(5, 4, 5\) where"),
    "no unit": (s3d(BUNIT=None), r"in the unit None where MJy/sr .* set BUNIT"),
    "counts": (s3d(BUNIT="DN/s"), r"in the unit DN/s where MJy/sr .* set BUNIT"),
    "junk unit": (s3d(BUNIT="blah"), r"in the unit blah where MJy/sr"),
    "spectrum per sr": (spectrum(unit="MJy/sr"), "in the unit MJy/sr where MJy/sr"),
    "no area": (s3d(PIXAR_SR=None, CTYPE1=None, CTYPE2=None), "neither PIXAR_SR nor a"),
    "flags": (with_values("DQ", 1), "no good voxel among 120: all are flagged"),
    "NaN": (with_values("SCI", np.nan), "no good voxel among 120"),
    "zero": (with_values("ERR", 0.0), "no good voxel among 120: .* check its DQ, WMAP"),
    "negative": (with_values("ERR", -0.2, (0, 1)), "has 5 negative errors where stan"),
    "backwards": (s3d(CDELT3=-0.1), "third axis WAVE with step -0.1 where increasing"),
    "air": (s3d(CTYPE3="AWAV"), "third axis AWAV with step 0.1 .* vacuum wavelengths"),
    "no table": (
        no_table(),
        "has 0 wavelengths in the column wavelength of its WCS-TAB",
    ),
    "table": (
        no_table(wavelength_table([1, 2, 3, 3, 4, 5])),
        "has 6 wavelengths that do not incr",
    ),
    "x1d": (spectrum(wave=(2.0, 1.0)), "has 2 wavelengths that do not increase"),
    "column": (
        spectrum(error="SIGMA"),
        "has 1 EXTRACT1D of WAVELENGTH, FLUX, SIGMA, DQ",
    ),
    "many": (
        two_spectra(),
        "has 2 EXTRACT1D of .* where one of WAVELENGTH, FLUX, FLUX_",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_errors_name_the_file_and_the_cure(path, case):
    hdus, words = BAD[case]
    with pytest.raises(ValueError, match=rf"cube_s3d.fits .*{words}"):
        read(hdus, path)


def test_a_part_of_a_cube_is_no_cube(path):
    """Wherever it was cut, but behind all that tells which voxels are good."""
    whole = pipelines()
    expected = read(whole, path).good
    raw = path.read_bytes()
    with fits.open(path) as hdus:
        without_weights = hdus.fileinfo("WMAP")["hdrLoc"]
    for cut in range(0, len(raw), BLOCK):
        path.write_bytes(raw[:cut])
        if cut == without_weights:
            assert (Cube.read(path).good == expected).all()
            continue
        with pytest.raises(ValueError, match=r"truncated|no extension|no good voxel"):
            Cube.read(path)


def test_a_write_that_fails_leaves_what_was_there(path, monkeypatch):
    cube = read(s3d(), path)
    before = path.read_bytes()

    def fail(*_, **__):
        raise OSError("no space left")

    monkeypatch.setattr(fits.HDUList, "writeto", fail)
    with pytest.raises(OSError, match="no space left"):
        cube.write(path, overwrite=True)
    assert path.read_bytes() == before
    assert [*path.parent.iterdir()] == [path]


def test_a_cube_by_hand_is_checked(path):
    cube = read(s3d(), path)
    given = {name: getattr(cube, name) for name in ("flux", "error", "edges", "good")}
    wrong = {
        r"flux of shape .* with edges of another": {"edges": cube.wave},
        r"flux of a cube has the unit None": {"flux": cube.flux.value},
    }
    for words, change in wrong.items():  # without jaxtyping, as for users
        with pytest.raises(ValueError, match=words):
            Cube.__post_init__(SimpleNamespace(**given | change))
    with pytest.raises(ValueError, match=r"unit MJy / sr where one like .* Cube.read"):
        replace(cube, flux=cube.flux.value * u.Unit("MJy / sr"))


def test_an_angstrom_is_no_ampere(path):
    hdus, other = s3d(), s3d()
    for name in ("SCI", "ERR"):
        hdus[name].header["BUNIT"] = "1e-20 erg s-1 cm-2 A-1 sr-1"
        other[name].header["BUNIT"] = "1e-20 erg s-1 cm-2 Angstrom-1 sr-1"
    assert_allclose(read(hdus, path).flux, read(other, path).flux)


def test_an_axis_without_a_unit_is_in_metres(path):
    with pytest.raises(ValueError, match="are in metres where CUNIT3 says nothing"):
        read(s3d(CUNIT3=None), path)


def test_a_cube_is_told_in_a_line(path):
    expected = "<Cube of 4 x 5 spaxels, 6 bins from 2.850 to 3.450 µm, 100.0% good>"
    assert repr(read(s3d(), path)) == expected

"""Maps in FITS hold the fit's numbers at the right places on the sky."""

import astropy.units as u
import mock_posterior as mock
import numpy as np
import pytest
from astropy.io import fits
from astropy.wcs import WCS
from numpy.testing import assert_allclose
from xarray import open_datatree

from metalgrad.maps import celestial, centre, lay_out, write_maps

NAMES = ["METALLICITY", "METALLICITY_SD", "EBV", "EBV_SD", "HBETA", "OIII"]
FLUX = u.Unit(1e-20 * u.erg / u.s / u.cm**2)


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    path = tmp_path_factory.mktemp("maps") / "maps.fits"
    write_maps(mock.tree(), path)
    with fits.open(path) as hdus:
        yield {hdu.name: (np.array(hdu.data), hdu.header.copy()) for hdu in hdus}


def test_extensions(written):
    assert list(written) == ["PRIMARY", *NAMES]


@pytest.mark.parametrize(
    ("name", "group", "variable", "statistic"),
    [
        ("METALLICITY", "posterior", "metallicity", np.median),
        ("METALLICITY_SD", "posterior", "metallicity", np.std),
        ("EBV", "posterior", "ebv", np.median),
        ("EBV_SD", "posterior", "ebv", np.std),
    ],
)
def test_every_spaxel_is_in_its_place(written, name, group, variable, statistic):
    draws, (index, _) = mock.groups()[group][variable], mock.places()
    image, _ = written[name]
    assert image.shape == mock.SHAPE
    assert np.isfinite(image).sum() == len(index)
    for spaxel, (row, column) in enumerate(index):
        expected = statistic(draws[..., spaxel].ravel())
        assert image[row, column] == pytest.approx(expected, rel=2e-3)


def test_fluxes_are_those_of_their_lines(written):
    flux, (index, _) = (
        mock.groups()["posterior_predictive"]["model_flux"],
        mock.places(),
    )
    for name, line in [("HBETA", 0), ("OIII", 1)]:
        expected = np.median(flux[..., line].reshape(-1, len(index)), axis=0)
        assert_allclose(written[name][0][tuple(index.T)], expected, rtol=1e-6)


@pytest.mark.parametrize(
    ("name", "unit"),
    [("METALLICITY", "dex"), ("EBV_SD", "mag"), ("HBETA", FLUX), ("OIII", FLUX)],
)
def test_units_are_read_by_astropy(written, name, unit):
    assert u.Unit(written[name][1]["BUNIT"]) == u.Unit(unit)


@pytest.mark.parametrize("name", NAMES)
def test_the_centre_lies_where_it_should_on_the_sky(written, name):
    row, column = centre(mock.tree())
    found = WCS(written[name][1]).pixel_to_world(column, row)
    assert_allclose([found.ra.deg, found.dec.deg], mock.SKY, atol=1e-9)


def test_provenance(written):
    header = written["PRIMARY"][1]
    said = {key: header[key] for key in ("OBJECT", "REDSHIFT", "CALREF", "RATIOS")}
    assert said == {
        "OBJECT": "a galaxy",
        "REDSHIFT": 6.3,
        "CALREF": "2024A&A...684A..75C",
        "RATIOS": "R3, N2",
    }
    assert header["DATE"] == "2026-01-02T03:04:05"
    assert '"numpy": "2.5"' in header["VERSIONS"]


def test_unknown_provenance_is_left_out(tmp_path):
    write_maps(mock.tree(redshift=np.nan, target=""), tmp_path / "maps.fits")
    header = fits.getheader(tmp_path / "maps.fits")
    assert not {"REDSHIFT", "OBJECT"} & set(header)


def test_one_ratio_survives_a_file(tmp_path):
    mock.tree(ratios=["R3"]).to_netcdf(tmp_path / "fit.nc", engine="h5netcdf")
    with open_datatree(tmp_path / "fit.nc", engine="h5netcdf") as posterior:
        write_maps(posterior, tmp_path / "maps.fits")
    assert fits.getheader(tmp_path / "maps.fits")["RATIOS"] == "R3"


@pytest.mark.parametrize(
    ("target", "spelt"), [("α Cygni", "\\u03b1 Cygni"), ("two\nlines", "two lines")]
)
def test_names_that_fits_cannot_hold_are_spelt_out(tmp_path, target, spelt):
    write_maps(mock.tree(target=target), tmp_path / "maps.fits")
    assert fits.getheader(tmp_path / "maps.fits")["OBJECT"] == spelt


def test_a_file_is_not_replaced_unless_asked(tmp_path):
    path = tmp_path / "maps.fits"
    path.write_text("dear to me")
    with pytest.raises(FileExistsError, match=r"maps\.fits exists.*overwrite=True"):
        write_maps(mock.tree(), path)
    assert path.read_text() == "dear to me"
    write_maps(mock.tree(), path, overwrite=True)
    assert fits.getdata(path, "EBV").shape == mock.SHAPE


def test_maps_need_rows_and_columns():
    given = mock.groups()
    del given["constant_data"]["x"], given["constant_data"]["y"]
    with pytest.raises(ValueError, match=r"a galaxy knows radii but .*iy and ix"):
        lay_out(mock.tree(given))


def test_another_balmer_line_where_there_is_no_hbeta():
    posterior = mock.tree()
    predicted = posterior["posterior_predictive"].to_dataset()
    posterior["posterior_predictive"].dataset = predicted.sel(line=["NII", "Halpha"])
    assert list(lay_out(posterior))[4:] == ["HALPHA"]


def test_centre():
    assert_allclose(centre(mock.tree()), mock.CENTRE)


def test_no_centre_where_positions_are_not_on_the_grid():
    given = mock.groups()
    position = given["constant_data"]["position"]
    shuffled = np.random.default_rng(0).permutation(position)
    radial = np.stack([np.hypot(*position.T), 0 * position[:, 0]], axis=-1)
    for moved in (shuffled, radial):
        given["constant_data"]["position"] = moved
        assert centre(mock.tree(given)) is None


def test_no_sky_without_a_header():
    assert celestial(mock.tree(wcs="")) is None

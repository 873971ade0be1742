"""The mocks of benchmarks/independent.py: is their story the one that they tell?"""

import ast
import importlib.util
from pathlib import Path

import astropy.units as u
import numpy as np
import pytest
from astropy.coordinates import SkyCoord
from astropy.io import fits
from astropy.wcs import WCS
from numpy.testing import assert_allclose, assert_array_equal

import metalgrad as mg

PATH = Path(__file__).parents[1] / "benchmarks" / "independent.py"
_spec = importlib.util.spec_from_file_location("independent", PATH)
independent = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(independent)

NEAR_OIII = (3.4, 3.8, 81)  # µm; few bins, for speed
CLEAN = {"noise": 0, "flagged": 0, "equivalent_width": np.inf}
UNIFORM = {"scatter": 0, "dispersion": 0, "ebv_scatter": 0, "clumps": 0}


def observe(folder, **settings):
    """Return the truth of a mock, and its file's extensions."""
    settings = {"seed": 7, "slope": -0.05, "wave": NEAR_OIII} | settings
    truth = independent.mock(folder / "mock.fits", **settings)
    with fits.open(folder / "mock.fits") as hdus:
        return truth, {hdu.name: (hdu.header, np.array(hdu.data)) for hdu in hdus}


def line_image(hdus):
    """Flux of each spaxel over all bins [1e-20 erg/s/cm²], by Astropy's units."""
    header, data = hdus["SCI"]
    wave = header["CRVAL3"] + header["CDELT3"] * np.arange(len(data))
    density = (data * u.MJy / u.sr * header["PIXAR_SR"] * u.sr).astype(float)
    density = density.to(
        u.erg / u.s / u.cm**2 / u.um, u.spectral_density(wave[:, None, None] * u.um)
    )
    return (density.sum(0) * header["CDELT3"] * u.um).value / 1e-20


def sky_offsets(shape, pixel, centre):
    """East and north of the galaxy's centre [arcsec], each (y, x)."""
    y, x = np.indices(shape) - (np.array(shape)[:, None, None] - 1) / 2
    return -x * pixel - centre[0], y * pixel - centre[1]


def test_it_shares_no_code_with_metalgrad():
    tree = ast.parse(PATH.read_text())
    names = {
        a.name for n in ast.walk(tree) if isinstance(n, ast.Import) for a in n.names
    }
    names |= {n.module for n in ast.walk(tree) if isinstance(n, ast.ImportFrom)}
    top = {name.split(".")[0] for name in names}
    assert top == {
        "astropy",
        "functools",
        "numpy",
        "pathlib",
        "scipy",
        "sys",
        "tomllib",
    }


def test_the_cube_holds_the_flux_of_the_truth(tmp_path):
    truth, hdus = observe(tmp_path, **CLEAN, wave=independent.GRID)
    # Of the light, 0.1 % lies outside of the field.
    assert_allclose(line_image(hdus).sum(), sum(truth["flux"].values()), rtol=2e-3)
    truth, hdus = observe(tmp_path, **CLEAN, wave=(3.61, 3.78, 35))
    doublet = truth["flux"]["OIII_5008"] + truth["flux"]["OIII_4960"]
    assert_allclose(truth["flux"]["OIII_5008"], 1500)
    assert_allclose(line_image(hdus).sum(), doublet, rtol=4e-3)


def test_metalgrad_reads_it_and_finds_the_centre(tmp_path):
    settings = CLEAN | UNIFORM | {"centre": (0.21, -0.13), "flagged": 0.01}
    truth, hdus = observe(tmp_path, **settings)
    cube = mg.Cube.read(tmp_path / "mock.fits")
    assert cube.meta["MOCK"] is True
    assert cube.meta["TRUTH SLOPE"] == -0.05
    assert_allclose(cube.pixel_scale.to_value(u.arcsec), 0.05)
    assert_allclose(cube.wave.to_value(u.um)[[0, -1]], NEAR_OIII[:2])
    assert_array_equal(cube.good, hdus["DQ"][1] == 0)
    assert 0.008 < 1 - cube.good.mean() < 0.012

    image = cube.flux.value.copy()
    image[~cube.good] = 0
    y, x = np.indices(cube.shape)
    weight = image.sum(0) / image.sum()
    found = cube.wcs.pixel_to_world(np.sum(weight * x), np.sum(weight * y))
    placed = SkyCoord(truth["ra"], truth["dec"], unit="deg")
    assert found.separation(placed).arcsec < 0.01

    target = mg.Target.at(redshift=truth["redshift"], radius=0.4, position=placed)
    assert_allclose(target.kpc_per_arcsec, truth["kpc_per_arcsec"], rtol=1e-6)
    spaxels = mg.Spaxels.select(cube, target)
    assert_allclose(len(spaxels), np.pi * (0.4 / 0.05) ** 2, rtol=0.05)
    # East is to the left: the same offsets as the truth's own.
    east, north = sky_offsets(cube.shape, 0.05, truth["centre"])
    row, column = spaxels.index.T
    distance = np.hypot(east, north)[row, column] * truth["kpc_per_arcsec"]
    assert_allclose(np.hypot(*spaxels.position.T), distance, atol=1e-3)


def test_the_whole_header_is_a_wcs(tmp_path):
    truth, hdus = observe(tmp_path, seed=2)
    wcs = WCS(hdus["SCI"][0])
    # FITS pixels count from 1; the field's centre is between two spaxels here.
    centre = wcs.all_pix2world([[20.5, 20.5, 3]], 1)[0]
    assert_allclose(centre[:2], truth["sky"], atol=1e-9)
    assert_allclose(centre[2] * 1e6, NEAR_OIII[0] + 2 * 0.005, rtol=1e-9)


def test_noise_has_the_correlation_and_errors_that_it_claims(tmp_path):
    settings = {"oiii": 0, "outliers": 0, "flagged": 0, "background": 0}
    _, hdus = observe(tmp_path, **settings, error_scale=0.5, wave=(3.0, 4.0, 201))
    draw = hdus["SCI"][1] / hdus["ERR"][1]
    assert_allclose(draw.std(), 2, rtol=0.02)

    def lag(axis, by):
        ahead = draw.take(np.arange(by, draw.shape[axis]), axis)
        behind = draw.take(np.arange(draw.shape[axis] - by), axis)
        return np.mean(ahead * behind) / np.var(draw)

    assert_allclose([lag(0, n) for n in (1, 2, 3)], [0.74, 0.37, 0.10], atol=0.02)
    assert_allclose([lag(1, n) for n in (1, 2, 3)], [0.58, 0.10, 0.0], atol=0.02)
    assert_allclose([lag(2, n) for n in (1, 2, 3)], [0.58, 0.10, 0.0], atol=0.02)
    assert abs(lag(2, 39)) < 0.05  # opposite edges are strangers

    white = settings | {"spatial": (), "spectral": ()}
    _, hdus = observe(tmp_path, **white, wave=(3.0, 4.0, 201))
    draw = hdus["SCI"][1] / hdus["ERR"][1]
    assert_allclose(draw.std(), 1, rtol=0.01)
    assert_allclose([lag(axis, 1) for axis in range(3)], 0, atol=0.01)


@pytest.mark.parametrize("noise", [{}, {"spatial": (), "spectral": ()}])
def test_line_errors_in_the_aperture_are_those_asked_for(tmp_path, noise):
    settings = {"oiii": 0, "outliers": 0, "flagged": 0, "background": 0}
    settings |= {"wave": (3.6, 3.8, 41), "width": 8.0, "line_error": 3.0}
    _, hdus = observe(tmp_path, **settings, **noise)
    header, data = hdus["SCI"]
    wave = np.linspace(3.6, 3.8, 41)
    power = 148.7  # JDox, at 3.7 µm
    line = np.exp(-0.5 * ((wave - 3.7) / (0.85 * 3.7 / power / 2.3548)) ** 2)
    line /= line.sum() * header["CDELT3"]
    density = (
        (data * header["PIXAR_SR"]) * 1e-17 * 2.99792458e14 / wave[:, None, None] ** 2
    )
    flux = np.einsum("w,wyx->yx", line, density) / (line @ line) / 1e-20
    y, x = np.indices((7, 7)) - 3
    aperture = np.hypot(y, x) * 0.05 < 0.1501
    patches = np.lib.stride_tricks.sliding_window_view(flux, (7, 7))
    assert_allclose((patches * aperture).sum((2, 3)).std(), 3.0, rtol=0.1)


def test_outliers_are_as_many_as_asked_for(tmp_path):
    settings = {"oiii": 0, "flagged": 0, "background": 0, "outliers": 0.01}
    _, hdus = observe(tmp_path, **settings)
    pull = np.abs(hdus["SCI"][1] / hdus["ERR"][1])
    assert 0.008 < np.mean(pull > 7) < 0.012
    assert pull.max() < 55
    assert (hdus["DQ"][1] == 0).all()


@pytest.mark.parametrize("psf_scale", [0, 1, 1.5])
def test_the_psf_has_the_published_widths_along_and_across_slices(tmp_path, psf_scale):
    angle, sigma = 25.0, 0.03
    settings = CLEAN | UNIFORM | {"sersic": 0.5, "axis_ratio": 1.0, "slope": 0.0}
    settings |= {"psf_scale": psf_scale, "slice_angle": angle, "kpc_per_arcsec": 5.0}
    settings |= {"effective_radius": 5.0 * sigma * np.sqrt(2 * np.log(2))}
    truth, hdus = observe(tmp_path, **settings, wave=(3.61, 3.78, 35))
    image = line_image(hdus)
    east, north = sky_offsets(image.shape, 0.05, truth["centre"])
    sine, cosine = np.sin(np.radians(angle)), np.cos(np.radians(angle))
    wave = 3.685  # µm
    for axis, fwhm in (
        (east * sine + north * cosine, 0.125 + 1.88 * wave * np.exp(-24.35 / wave)),
        (east * cosine - north * sine, 0.094 + 0.20 * wave * np.exp(-12.48 / wave)),
    ):
        weight = image / image.sum()
        mean = np.sum(weight * axis)
        assert abs(mean) < 1e-3
        # A spaxel is a row of three points, not a bar: hence the 8 / 9.
        square = sigma**2 + (psf_scale * fwhm / 2.3548) ** 2 + 0.05**2 / 12 * 8 / 9
        assert_allclose(np.sum(weight * (axis - mean) ** 2), square, rtol=0.005)


def test_ratios_are_those_of_calibration_and_dust(tmp_path):
    settings = CLEAN | UNIFORM | {"slope": 0.0, "central": 8.1, "ebv": 0.2}
    flux = observe(tmp_path, **settings)[0]["flux"]
    # Calzetti's k: 3.325 at Hα, 4.597 at Hβ, 4.463 at [O III], 5.856 at [O II].
    balmer = 2.8632 * 10 ** (-0.4 * 0.2 * (3.325 - 4.597))
    assert_allclose(flux["Halpha"] / flux["Hbeta"], balmer, rtol=1e-3)
    x = 8.1 - 8.69
    r3 = -0.2768 - 3.1422 * x - 2.73 * x**2 - 0.6003 * x**3
    r3 -= 0.4 * 0.2 * (4.463 - 4.597)
    assert_allclose(np.log10(flux["OIII_5008"] / flux["Hbeta"]), r3, atol=1e-3)
    ne3o2 = -1.632 - 2.0606 * x - 0.46088 * x**2 - 0.4 * 0.2 * (5.675 - 5.856)
    doublet = flux["OII_3727"] + flux["OII_3730"]
    assert_allclose(np.log10(flux["NeIII_3870"] / doublet), ne3o2, atol=1e-3)


def test_metallicity_falls_with_radius_in_the_image_plane(tmp_path):
    truth, _ = observe(tmp_path, **CLEAN, **UNIFORM, slope=-0.1)
    metallicity = truth["maps"]["metallicity"]
    east, north = sky_offsets(metallicity.shape, 0.05, truth["centre"])
    radius = np.hypot(east, north) * truth["kpc_per_arcsec"]
    assert_allclose(metallicity, 8.2 - 0.1 * radius, atol=0.02)


@pytest.mark.parametrize("length", [0, 0.05, 0.15])
def test_fields_have_unit_variance_and_their_length(length):
    rng = np.random.default_rng(3)
    draws = np.array(
        [independent.gaussian_field(rng, (180, 180), 0.05, length) for _ in range(40)]
    )
    assert_allclose(draws.var(), 1, rtol=0.06)
    by = 3 * 3  # three spaxels
    measured = np.mean(draws[:, by:] * draws[:, :-by])
    expected = np.exp(-0.5 * (0.15 / length) ** 2) if length else 0
    assert_allclose(measured, expected, atol=0.06)


def test_seeds_decide_and_the_galaxy_outlives_its_noise(tmp_path):
    first, hdus = observe(tmp_path)
    again, same = observe(tmp_path)
    assert_array_equal(hdus["SCI"][1], same["SCI"][1])
    assert again["flux"] == first["flux"]
    deeper, other = observe(tmp_path, noise=0.1, spatial=())
    assert_array_equal(deeper["maps"]["metallicity"], first["maps"]["metallicity"])
    assert not np.array_equal(hdus["SCI"][1], other["SCI"][1], equal_nan=True)
    stranger, _ = observe(tmp_path, seed=8)
    assert not np.array_equal(stranger["maps"]["light"], first["maps"]["light"])
    assert stranger["shared"] != first["shared"]


def test_an_impossible_autocorrelation_is_refused(tmp_path):
    with pytest.raises(ValueError, match="is no autocorrelation"):
        observe(tmp_path, spatial=(0.9,))

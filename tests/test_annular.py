"""The classical gradient of a cube, against mocks that share no code with it."""

import importlib.util
from dataclasses import replace
from pathlib import Path

import astropy.units as u
import numpy as np
import pytest
from astropy.coordinates import SkyCoord
from astropy.io import fits
from astropy.table import Table
from numpy.testing import assert_allclose, assert_array_equal

import metalgrad as mg
from metalgrad import cli
from metalgrad.classical import PAPER_RATIOS
from metalgrad.sizes import EffectiveRadius
from metalgrad.spaxels import Spaxels

PATH = Path(__file__).parents[1] / "benchmarks" / "independent.py"
_spec = importlib.util.spec_from_file_location("independent", PATH)
independent = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(independent)

# A galaxy that keeps to the calibrations, in light that only the pixels smear, and
# without noise worth the name.
PURE = {
    "scatter": 0, "dispersion": 0, "ebv_scatter": 0, "clumps": 0, "psf_scale": 0,
    "noise": 1e-3, "background": 0, "outliers": 0, "flagged": 0,
}  # fmt: skip
SLOPE, CENTRAL = -0.12, 8.4


@pytest.fixture(scope="module")
def mock(tmp_path_factory):
    path = tmp_path_factory.mktemp("mock") / "mock_s3d.fits"
    truth = independent.mock(
        path, seed=3, slope=SLOPE, central=CENTRAL, width=1.4, **PURE
    )
    place = SkyCoord(truth["ra"], truth["dec"], unit="deg")
    target = mg.Target.at(
        redshift=truth["redshift"], radius=0.42, position=place, name="mock"
    )
    return path, truth, target


@pytest.fixture(scope="module")
def measured(mock):
    path, _, target = mock
    return mg.annular_gradient(mg.Cube.read(path), target)


def test_the_slope_of_a_clean_mock(measured):
    # What is left: light falls within an annulus, and one E(B-V) is that of all of it.
    assert_allclose(measured.line.slope, SLOPE, atol=0.01)
    assert_allclose(measured.line.central, CENTRAL, atol=0.03)
    kept = np.isfinite(measured.error)
    truth = CENTRAL + SLOPE * measured.radius
    assert_allclose(measured.metallicity.metallicity[kept], truth[kept], atol=0.03)
    assert_allclose(measured.metallicity.ebv[kept], 0.15, atol=0.02)


def test_annuli_are_one_spaxel_wide(measured, mock):
    _, truth, _ = mock
    ring = measured.radius / (0.05 * truth["kpc_per_arcsec"])
    assert_array_equal(np.floor(ring), np.arange(len(ring)))
    # Spaxels whose centres are within the radius: its area, but for the rim.
    assert_allclose(measured.spaxels.sum(), np.pi * (0.42 / 0.05) ** 2, rtol=0.05)


def test_dex_per_effective_radius(measured):
    scaled = measured.line_per_effective_radius
    assert_allclose(scaled.slope, measured.line.slope * measured.size.kpc)
    assert_allclose(scaled.slope_error, measured.line.slope_error * measured.size.kpc)
    assert scaled.central == measured.line.central
    row = measured.summary()[0]
    assert row["gradient_re"] == scaled.slope
    assert row["annuli"] == np.isfinite(measured.error).sum()


def test_a_component_is_masked_and_the_centre_moved(mock):
    path, _, target = mock
    aside = target.position.directional_offset_by(0 * u.deg, 0.25 * u.arcsec)
    masked = replace(target, masks=((aside, 0.15),))
    size = EffectiveRadius(1.0, 0.0, 1.0, 0.0, None)
    cube = mg.Cube.read(path)
    found = mg.annular_gradient(cube, masked, size=size, clip=False)
    assert_allclose(found.line.slope, SLOPE, atol=0.015)
    assert found.spaxels.sum() < 0.9 * np.pi * (0.42 / 0.05) ** 2
    # The light peaks where the gradient is centred, however far off we begin.
    shifted = replace(target, position=aside)
    for peak in ("continuum", "OIII"):
        found = mg.annular_gradient(cube, shifted, size=size, centre=peak, clip=False)
        assert found.target.position.separation(target.position) < 0.01 * u.arcsec


def test_smoothing_flattens(mock):
    path, _, target = mock
    found = mg.annular_gradient(
        mg.Cube.read(path), target, goal_fwhm=0.2, slice_angle=25.0, clip=False
    )
    assert SLOPE < found.line.slope < SLOPE / 2
    assert found.fit.spectra.edges[-1] > 5.2


def test_sums_of_spaxels():
    rng = np.random.default_rng(1)
    flux, error = rng.normal(5, 1, (7, 4)), rng.uniform(0.5, 1, (7, 4))
    error[0, 2], flux[0, 2] = np.inf, 0.0  # one of three
    error[3:5, 1], flux[3:5, 1] = np.inf, 0.0  # two of three
    spaxels = Spaxels(
        flux, error, np.linspace(1, 2, 5), rng.normal(size=(7, 2)),
        np.stack([np.arange(7), np.arange(7)], axis=1), 6.0, (7, 7),
    )  # fmt: skip
    number = np.array([0, 0, 0, 4, 4, 4, -1])
    sums = mg.add_up(spaxels, number)
    assert len(sums) == 2
    assert_allclose(sums.flux[0, 0], flux[:3, 0].sum())
    assert_allclose(sums.error[1, 0], np.sqrt(np.sum(error[3:6, 0] ** 2)))
    assert_allclose(sums.flux[0, 2], 1.5 * flux[1:3, 2].sum())
    assert_allclose(sums.error[0, 2], 1.5 * np.sqrt(np.sum(error[1:3, 2] ** 2)))
    assert sums.error[1, 1] == np.inf
    assert_allclose(sums.radius[1], spaxels.radius[3:6].mean())
    assert len(mg.add_up(spaxels)) == 1
    for wrong in (number[:3], np.full(len(spaxels), -1)):
        with pytest.raises(ValueError, match="number the sums from 0"):
            mg.add_up(spaxels, wrong)


def test_ratios_are_those_that_the_calibration_has(mock):
    path, _, target = mock
    cube, plain = mg.Cube.read(path), {"clip": False, "measure_noise": False}
    calibration = mg.load_calibration("sanders25")
    found = mg.annular_gradient(cube, target, calibration=calibration, **plain)
    used = set(found.metallicity.ratios)
    assert used == {r for r in PAPER_RATIOS if r in calibration.ratios} != set()
    assert np.isfinite(found.line.slope)
    bare = mg.load_calibration("pettini04-n2")
    with pytest.raises(ValueError, match="pettini04-n2 has none of the paper's ratios"):
        mg.annular_gradient(cube, target, calibration=bare, **plain)


def test_a_spectrum_has_no_annuli(mock):
    path, _, target = mock
    cube = replace(mg.Cube.read(path), pixel_scale=None)
    with pytest.raises(ValueError, match="no annuli"):
        mg.annular_gradient(cube, target)


def spell(place):
    return f"{place.ra.deg} {place.dec.deg}"


def test_the_command_writes_what_it_promises(mock, tmp_path, monkeypatch, capsys):
    path, truth, target = mock
    monkeypatch.setattr(cli, "_keep_compiled", lambda: None)
    out = tmp_path / "out"
    aside = target.position.directional_offset_by(0 * u.deg, 0.3 * u.arcsec)
    arguments = [
        "classical", path, "--redshift", truth["redshift"], "--radius", 0.42,
        "--center", spell(target.position), "--out", out,
        "--mask", f"{spell(aside)} 0.1",
    ]  # fmt: skip

    def call():
        monkeypatch.setattr("sys.argv", ["metalgrad", *map(str, arguments)])
        code = 0
        try:
            cli.main()
        except SystemExit as stop:
            code = stop.code
        return code, *capsys.readouterr()

    code, said, wrong = call()
    assert (code, wrong) == (0, "")
    assert "dex/kpc" in said
    row = Table.read(out / "gradient.ecsv")[0]
    assert_allclose(row["gradient"], SLOPE, atol=0.015)
    annuli = Table.read(out / "annuli.ecsv")
    assert annuli["OIII"].unit.is_equivalent("erg / (s cm2)")
    assert annuli["radius"].unit == u.kpc
    assert "R3" in annuli["ratios"][0]
    with fits.open(out / "maps.fits") as hdus:
        flux, cut = hdus["OIII"].data, hdus["OIII_CUT"].data
        keep = hdus["OIII"].data > 3 * hdus["OIII_ERR"].data
        assert_array_equal(np.isfinite(cut), keep)
        assert_allclose(cut[keep], flux[keep])
        assert "CRVAL1" in hdus["OIII"].header
    assert (out / "annuli.png").stat().st_size > 10_000
    code, _, wrong = call()
    assert (code, "--overwrite" in wrong) == (1, True)
    arguments[-1] = "nowhere"
    arguments.append("--overwrite")
    code, _, wrong = call()
    assert (code, "--mask" in wrong) == (1, True)

"""Line fits: against SciPy's, against known truths, and where nothing can be said."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from astropy.table import Table
from numpy.testing import assert_allclose, assert_array_equal
from scipy.linalg import cholesky, toeplitz
from scipy.optimize import curve_fit
from scipy.stats import norm

from metalgrad.calibrations import load_calibration
from metalgrad.classical import chi2_metallicity
from metalgrad.linefit import fit_lines
from metalgrad.linemaps import LineMaps
from metalgrad.spaxels import Spaxels

DATA = Path(__file__).parents[1] / "data"
Z = 6.361
EDGES = np.arange(2.3, 5.2, 0.005)
MIDDLE = (EDGES[1:] + EDGES[:-1]) / 2
CURVE = Table.read(DATA / "nirspec" / "prism_resolution.ecsv")
# Rest wavelengths [µm] and strengths, here by hand: [O II] as in the paper is one line.
MEMBERS = {
    "OII": ((0.3727092, 0.4671), (0.3729875, 0.5329)),
    "NeIII": ((0.3869861, 1.0), (0.3968594, 0.3012)),
    "Hbeta": ((0.4862691, 1.0),),
    "OIII": ((0.5008240, 1.0), (0.4960295, 0.3351)),
    "Halpha": ((0.6564632, 1.0), (0.6679995, 0.0111)),
    "NII": ((0.6585273, 1.0), (0.6549861, 0.3399)),
    "SII": ((0.6718295, 0.5447), (0.6732674, 0.4553)),
}


FLUXES = {2: (55.0, 360.0), 3: (220.0, 30.0, 34.0)}


def gaussians(edges, line, velocity, width, z=Z):
    """Spectrum of unit flux, by SciPy's distribution function."""
    spectrum = np.zeros(len(edges) - 1)
    for rest, share in MEMBERS[line]:
        centre = rest * (1 + z) * (1 + velocity / 299792.458)
        power = np.interp(centre, CURVE["wavelength"], CURVE["resolution"])
        below = norm.cdf(edges, centre, width * centre / power / 2.354820)
        spectrum += share * np.diff(below) / np.diff(edges)
    return spectrum


def spectra(flux, error, z=Z, edges=EDGES):
    flux = np.atleast_2d(flux)
    count = len(flux)
    return Spaxels(
        flux=flux,
        error=np.broadcast_to(error, flux.shape).copy(),
        edges=edges,
        position=np.stack([np.arange(count), np.zeros(count)], axis=1) * 0.1,
        index=np.stack([np.zeros(count, int), np.arange(count)], axis=1),
        redshift=z,
        shape=(1, count),
    )


def paint(fluxes, velocity=80.0, width=0.85, level=40.0, z=Z):
    """Lines over a straight continuum with a break at 3645 Å."""
    spectrum = level * (1 - 0.1 * (MIDDLE - 3.5))
    spectrum -= 0.3 * level * norm.sf(MIDDLE, 0.3645 * (1 + z), 0.0115)
    for line, flux in fluxes.items():
        spectrum = spectrum + flux * gaussians(EDGES, line, velocity, width, z)
    return spectrum


@pytest.mark.parametrize(
    "group", [("Hbeta", "OIII"), ("Halpha", "NII", "SII")], ids=lambda g: g[0]
)
@pytest.mark.parametrize("seed", [1, 2])
def test_fluxes_and_errors_are_those_of_curve_fit(group, seed):
    rng = np.random.default_rng(seed)
    error = 60.0
    true = dict(zip(group, FLUXES[len(group)], strict=True))
    data = paint(true) + error * rng.normal(size=len(MIDDLE))
    found = fit_lines(spectra(data, error), lines=group, integrated=True, starry=False)

    # Where the window is, by its definition: eight widths of the table beyond lines.
    at = [r * (1 + Z) for line in group for r, _ in MEMBERS[line]]
    ends = []
    for centre, sign in ((min(at), -1), (max(at), 1)):
        power = np.interp(centre, CURVE["wavelength"], CURVE["resolution"])
        ends.append(centre + sign * 8 * centre / power / 2.354820)
    first, last = np.searchsorted(EDGES, ends) - [1, 0]
    edges, inside = EDGES[first : last + 1], slice(first, last)

    def model(_, velocity, width, level, slope, *fluxes):
        spectrum = level + slope * (MIDDLE[inside] - np.mean(edges))
        for line, flux in zip(group, fluxes, strict=True):
            spectrum = spectrum + flux * gaussians(edges, line, velocity, width)
        return spectrum

    start = [50.0, 0.9, 40.0, 0.0, *true.values()]
    best, covariance = curve_fit(
        model, MIDDLE[inside], data[inside], start, np.full(len(edges) - 1, error),
        absolute_sigma=True,
    )  # fmt: skip
    spread = np.sqrt(np.diag(covariance))
    for line, value, sigma in zip(group, best[4:], spread[4:], strict=True):
        assert_allclose(found.flux[line], value, rtol=0.01, atol=0.02 * sigma)
        assert_allclose(found.error[line], sigma, rtol=0.01)
    assert_allclose(found.velocity[0, 0], best[0], atol=0.1 * spread[0])
    assert_allclose(found.width[0, 0], best[1], atol=0.1 * spread[1])
    chi2 = np.sum(((data[inside] - model(None, *best)) / error) ** 2)
    assert_allclose(found.chi2[0, 0], chi2, atol=0.1)  # profiles are interpolated
    assert found.dof[0, 0] == len(MIDDLE[inside]) - len(best)


@pytest.fixture(scope="module")
def table_3():
    return Table.read(DATA / "published" / "venturi24.ecsv")


def test_table_3_comes_back_within_its_errors(table_3):
    """All sources of the paper, drawn with noise that gives its error of [O III]."""
    rng = np.random.default_rng(7)
    names = ("OII", "NeIII", "Hbeta", "OIII", "Halpha", "SII")
    pulls = []
    for row in table_3:
        z = row["redshift"]
        seen = [n for n in names if (1 + z) * MEMBERS[n][0][0] < 5.0]
        true = {n: float(np.nan_to_num(row[n])) for n in seen}
        clean = paint(true, rng.uniform(-200, 200), rng.uniform(0.7, 1.0), 20.0, z)
        unit = fit_lines(spectra(clean, 1.0, z)).error["OIII"][0]
        error = row["OIII_err"] / unit
        data = clean + error * rng.normal(size=len(clean))
        found = fit_lines(spectra(data, error, z))
        pulls += [(found.flux[n][0] - true[n]) / found.error[n][0] for n in true]
    chi2 = np.sum(np.square(pulls))
    # The 99 % range of χ² over so many degrees of freedom is narrower than this.
    assert len(pulls) > 60
    assert 0.6 < chi2 / len(pulls) < 1.45


def test_pulls_are_those_of_unit_normals():
    rng = np.random.default_rng(3)
    true = {"OII": 60.0, "NeIII": 15.0, "Hbeta": 25.0, "OIII": 120.0, "Halpha": 70.0}
    error = 80.0
    data = paint(true) + error * rng.normal(size=(300, len(MIDDLE)))
    found = fit_lines(spectra(data, error), starry=False)
    for line, value in true.items():
        pull = (found.flux[line] - value) / found.error[line]
        assert abs(pull.mean()) < 4 / 300**0.5, line
        assert 0.85 < pull.std() < 1.15, line
    assert_allclose(np.median(found.noise), 1.0, atol=0.03)


def test_correlated_noise_is_counted():
    rng = np.random.default_rng(5)
    correlation = np.array([1.0, 0.74, 0.37, 0.1])
    count = len(MIDDLE)
    matrix = toeplitz(np.pad(correlation, (0, count - 4)))
    noise = rng.normal(size=(250, count)) @ cholesky(matrix)
    data = spectra(paint({"Hbeta": 40.0, "OIII": 200.0}) + 50 * noise, 50.0)
    lines = ("Hbeta", "OIII")
    naive = fit_lines(data, lines=lines)
    counted = fit_lines(data, lines=lines, correlation=correlation)
    for line, value in (("Hbeta", 40.0), ("OIII", 200.0)):
        assert_array_equal(naive.flux[line], counted.flux[line])
        assert np.std((naive.flux[line] - value) / naive.error[line]) > 1.3
        assert 0.85 < np.std((counted.flux[line] - value) / counted.error[line]) < 1.15
    assert_allclose(np.median(counted.noise), 1.0, atol=0.1)


def test_errors_that_are_too_small_are_found_and_rescaled():
    rng = np.random.default_rng(6)
    data = paint({"OIII": 200.0}) + 100 * rng.normal(size=(60, len(MIDDLE)))
    trusted = fit_lines(spectra(data, 50.0))
    rescaled = fit_lines(spectra(data, 50.0), rescale=True)
    assert_allclose(np.median(trusted.noise), 2.0, rtol=0.06)
    ratio = rescaled.error["OIII"] / trusted.error["OIII"]
    assert_allclose(ratio, trusted.noise)


def test_what_cannot_be_measured_says_so():
    flux = np.stack([paint({"OIII": 200.0, "Hbeta": 40.0})] * 2)
    data = spectra(flux, 20.0)
    dead = np.abs(MIDDLE - 0.4862691 * (1 + Z)) < 0.02
    data.error[1, dead], data.flux[1, dead] = np.inf, 0.0
    found = fit_lines(data)
    assert np.isnan(found.flux["Hbeta"][1])
    assert found.error["Hbeta"][1] == np.inf
    assert np.isfinite(found.flux["OIII"]).all()
    assert np.isnan(found.limit("OIII")).all()
    assert found.limit("Hbeta")[1] == np.inf
    assert_allclose(found.limit("SII"), 3 * found.error["SII"])
    maps = found.to_linemaps()
    assert_allclose(maps.flux[:, maps.lines.index("OIII")], found.flux["OIII"])
    assert maps.flux[1, maps.lines.index("Hbeta")] == 0
    # No ratio with Hβ can be used in the second spectrum, and none is.
    used = chi2_metallicity(found.flux, found.error, load_calibration("curti23"))
    assert_array_equal(used.used[:, used.ratios.index("R3")], [True, False])


def test_which_lines_are_fitted():
    data = spectra(paint({"OIII": 200.0}), 20.0)
    assert "NII" not in fit_lines(data).flux
    assert "NII" in fit_lines(data, integrated=True).flux
    assert list(fit_lines(data, lines=("OIII", "Hbeta")).flux) == ["Hbeta", "OIII"]
    high = fit_lines(replace(data, redshift=7.9))
    assert "Halpha" not in high.flux
    assert high.complexes[-1] == ("Hbeta", "OIII")


def test_a_table_goes_through_the_other_door():
    data = spectra(paint({"OIII": 200.0, "Hbeta": 40.0}), 20.0)
    table = fit_lines(data).to_table()
    expected = {"velocity_OII", "width_Hbeta_err", "chi2_Halpha", "noise"}
    assert expected <= {*table.colnames}
    table["radius"] = [0.1]
    table["radius"].unit = "kpc"
    maps = LineMaps.from_table(table)
    assert_allclose(maps.flux[0, maps.lines.index("OIII")], table["OIII"][0])


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"lines": ("OIII", "CIV")}, "CIV cannot be fitted"),
        ({"max_velocity": 0.0}, "max_velocity"),
        ({"widths": (1.3, 0.5)}, "widths"),
    ],
)
def test_wrong_wishes_are_refused(settings, said):
    with pytest.raises(ValueError, match=said):
        fit_lines(spectra(paint({}), 20.0), **settings)


def test_a_wrong_redshift_is_refused():
    with pytest.raises(ValueError, match="check the redshift"):
        fit_lines(replace(spectra(paint({}), 20.0), redshift=20.0))

"""The light of stars: its card, its blur, and fluxes of lines that stand on it."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest
from astropy.table import Table
from numpy.testing import assert_allclose
from scipy.stats import norm

from metalgrad import stars
from metalgrad.compression import compress
from metalgrad.linefit import fit_lines
from metalgrad.lsf import constant, prism
from metalgrad.spaxels import Spaxels

ROOT = Path(__file__).parents[1]
CARD = Table.read(ROOT / "data" / "stars.ecsv")
REDSHIFT, ERROR = 6.4, 0.05
EDGES = np.arange(2.3, 5.25, 0.005)
# Vacuum wavelength [µm] and equivalent width [Å]: of the lines, and of all others.
LINES = {"OII": 60.0, "NeIII": 15.0, "Hbeta": 30.0, "OIII": 150.0, "Halpha": 90.0}
PLACES = {
    "OII": (0.3727092, 0.3729875), "NeIII": (0.3869861, 0.3968594),
    "Hbeta": (0.4862691,), "OIII": (0.5008240, 0.4960295),
    "Halpha": (0.6564632, 0.6679995),
}  # fmt: skip
SHARES = {
    "OII": (0.4671, 0.5329), "NeIII": (1.0, 0.3012), "OIII": (1.0, 0.3351),
    "Halpha": (1.0, 0.0111),
}  # fmt: skip


def history(rates, metallicity="0.2", gas=0.5):
    """Light of stars that formed at some rates, from the card; 1 near Hβ."""
    light = np.zeros(len(CARD))
    for name in CARD.colnames[1:]:
        kind, metal, start, _ = name.split("_")
        if metal == metallicity and start in rates:
            share = gas if kind == "gas" else 1.0
            light += share * rates[start] * np.array(CARD[name], float)
    return light / light[np.abs(CARD["wavelength"] - 4800).argmin()]


HISTORIES = {
    "constant": history(dict.fromkeys(("0", "3", "10", "30", "100"), 1.0)),
    "burst": history({"3": 1.0, "10": 0.2, "100": 0.05}, "0.02"),
    "old": history({"0": 0.3, "100": 1.0, "300": 2.0}, "1"),
}


def blur(light, edges):
    """Blur on a fine grid, with the LSF of each bin, by NumPy alone."""
    rest = np.arange(0.30, 0.76, 2e-5)
    fine = np.interp(rest, CARD["wavelength"] * 1e-4, light)
    middle = (edges[1:] + edges[:-1]) / 2 / (1 + REDSHIFT)
    seen = []
    for centre in middle:
        sigma = float(prism().sigma(centre * (1 + REDSHIFT), 0.85)) / (1 + REDSHIFT)
        seen.append(np.average(fine, weights=norm.pdf(rest, centre, sigma)))
    return np.array(seen)


def paint(light, level=1.0, reddening=0.0):
    """Light of stars that dust reddens a little, and lines with no other beside."""
    middle = (EDGES[1:] + EDGES[:-1]) / 2
    spectrum = level * blur(light, EDGES) * (middle / 3.6) ** reddening
    truth = {}
    for line, width in LINES.items():
        truth[line] = level * width * 1e-4 * (1 + REDSHIFT)
        shares = SHARES.get(line, (1.0,))
        for rest, share in zip(PLACES[line], shares, strict=True):
            centre = rest * (1 + REDSHIFT)
            below = norm.cdf(EDGES, centre, float(prism().sigma(centre, 0.85)))
            spectrum += truth[line] * share * np.diff(below) / np.diff(EDGES)
    return spectrum, truth


def observe(spectrum, count, seed, error=ERROR):
    rng = np.random.default_rng(seed)
    noise = error * rng.normal(size=(count, len(spectrum)))
    return Spaxels(
        flux=spectrum + noise,
        error=np.full(noise.shape, error),
        edges=EDGES,
        position=np.stack([np.arange(count), np.zeros(count)], axis=1) * 0.1,
        index=np.stack([np.zeros(count, int), np.arange(count)], axis=1),
        redshift=REDSHIFT,
        shape=(1, count),
    )


def test_blur_is_that_of_a_fine_grid():
    for light in HISTORIES.values():
        wave = np.array(CARD["wavelength"]) * 1e-4
        edges = EDGES[(EDGES > 2.35) & (EDGES < 5.2)]
        found = stars.observe(light, wave, edges, REDSHIFT, prism(), 0.85)
        assert_allclose(found, blur(light, edges), rtol=4e-3)


def test_a_narrow_lsf_leaves_no_comb():
    """Nodes farther apart than the LSF is wide: a constant stays one."""
    wave = np.arange(0.40, 0.45, 4e-4)
    edges = np.linspace(0.41, 0.44, 300) * (1 + REDSHIFT)
    light = np.ones(len(wave))
    found = stars.observe(light, wave, edges, REDSHIFT, constant(30000.0), 1.0)
    assert_allclose(found, 1.0, rtol=1e-12)


@pytest.mark.parametrize("redshift", [4.2, 6.361, 7.879, 9.1])
def test_a_weighted_mean_never_leaves_its_terms(redshift):
    """Also across the table's ends, where bins see part of the light or none."""
    wavelength, light = stars.members()
    edges = np.linspace(0.6, 5.3, 941)
    seen = stars.observe(light[:5], wavelength, edges, redshift, prism(), 1.0)
    assert np.all(seen >= light[:5].min(axis=1, keepdims=True) * (1 - 1e-9))
    assert np.all(seen <= light[:5].max(axis=1, keepdims=True) * (1 + 1e-9))
    beyond = edges[1:] < wavelength[0] * (1 + redshift)
    assert_allclose(seen[:, beyond], light[:5, :1] * np.ones((1, beyond.sum())))


def test_stars_absorb_as_they_do_in_the_literature():
    """Hβ of 3 to 10 Å: Bruzual & Charlot (2003) from some Myr to a Gyr."""
    wavelength, light = stars.members()
    beside = (np.abs(wavelength - 0.479) < 0.002) | (np.abs(wavelength - 0.494) < 0.002)
    near = np.abs(wavelength - 0.48627) < 0.005
    depth = 1 - light[:, near] / light[:, beside].mean(axis=1, keepdims=True)
    width = depth.sum(axis=1) * (wavelength[1] - wavelength[0]) * 1e4
    low, middle, high = np.quantile(width, (0.025, 0.5, 0.975))
    assert 1.0 < low < 4.0 < middle < 8.0 < high < 12.0
    # Older stars have more of a break, and absorb more.
    jump = light[:, np.abs(wavelength - 0.40) < 0.01].mean(axis=1)
    jump /= light[:, np.abs(wavelength - 0.35) < 0.01].mean(axis=1)
    assert np.corrcoef(jump, width)[0, 1] > 0.8


@pytest.mark.parametrize("name", HISTORIES)
def test_five_modes_are_enough(name):
    """In spectra so deep that data tell them: what modes leave is no line."""
    spectrum, truth = paint(HISTORIES[name], reddening=-0.5)
    spaxels = observe(spectrum, 1, 4, error=2e-3)
    found = fit_lines(spaxels, lines=tuple(truth))
    for line, flux in truth.items():
        off = (found.flux[line][0] - flux) / (1e-4 * (1 + REDSHIFT))
        assert abs(off) < 0.6, line  # Å; stars absorb ten times as much


@pytest.mark.parametrize("name", HISTORIES)
def test_line_fits_see_through_stars(name):
    spectrum, truth = paint(HISTORIES[name], reddening=-0.5)
    spaxels = observe(spectrum, 60, 1)
    lines = tuple(truth)
    found = fit_lines(spaxels, lines=lines)
    plain = fit_lines(spaxels, lines=lines, starry=False)
    for line, flux in truth.items():
        pull = (found.flux[line] - flux) / found.error[line]
        # The absorption that each of them guesses is the same: within the prior.
        assert abs(pull.mean()) < 1.0, line
        assert 0.6 < pull.std() < 1.3, line
        assert np.all(found.error[line] < 2.5 * plain.error[line])
    missed = np.mean(plain.flux["Hbeta"]) - truth["Hbeta"]
    assert missed < -2e-4 * (1 + REDSHIFT)  # 2 Å or more


@pytest.mark.parametrize("count", [1, 60])
@pytest.mark.parametrize("name", HISTORIES)
def test_compression_sees_through_stars(name, count):
    spectrum, truth = paint(HISTORIES[name])
    spaxels = observe(spectrum, count, 2)
    names = tuple(truth)
    data, tuning = compress(spaxels, names=names)
    flux, error = data.best_flux()
    for line, value in truth.items():
        column = data.lines.index(line)
        pull = (flux[:, column] - value) / error[:, column]
        assert abs(pull.mean()) < (3.0 if count == 1 else 0.7), line
    assert tuning.stars.shape == (len(data.complexes), stars.MODES)
    # Once more with what was found: the same.
    again, _ = compress(spaxels, names=names, tuning=tuning)
    assert_allclose(again.best_flux()[0], flux)


def test_many_spaxels_tell_more_about_stars_than_one():
    spectrum, _ = paint(HISTORIES["old"])
    spread = []
    for count in (1, 60):
        _, tuning = compress(observe(spectrum, count, 3))
        root = tuning.stars_root[0]
        spread.append(np.trace(root @ root.T))
    within = 0.25 * stars.MODES  # that spaxels differ by, whatever the sum tells
    assert spread[1] - within < 0.5 * spread[0]


@pytest.mark.skipif(
    importlib.util.find_spec("bagpipes") is None, reason="bagpipes is not installed"
)
def test_the_card_is_what_its_script_makes(tmp_path):
    path = ROOT / "benchmarks" / "stars.py"
    spec = importlib.util.spec_from_file_location("stars_script", path)
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    script.main(tmp_path / "stars.ecsv")
    made = Table.read(tmp_path / "stars.ecsv")
    assert made.colnames == CARD.colnames
    for name in made.colnames:
        assert_allclose(made[name], CARD[name], rtol=2e-3)

"""Velocities, widths and fluxes of mocks that Astropy made."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from astropy.modeling.models import Gaussian1D
from numpy.testing import assert_allclose
from scipy.linalg import toeplitz
from scipy.stats import chi2, norm

from metalgrad import cards
from metalgrad.compression import compress
from metalgrad.lsf import prism
from metalgrad.spaxels import Spaxels
from metalgrad.tuning import gain, shrink, tune, weigh
from metalgrad.windows import cut, find_complexes

LIGHT = 299_792.458  # km/s
REDSHIFT, OFFSET, SCALE, SCATTER = 4.9, 140.0, 0.78, 90.0
COUNT, FINE = 250, 6  # spaxels; points per bin

# Mean flux over that of [O III]; the rest is not there at all.
FLUXES = {"OII": 0.4, "NeIII": 0.1, "Hgamma": 0.1, "Hbeta": 0.2, "OIII": 1.0}
FLUXES |= {"Halpha": 0.7, "SII": 0.05}


def bins():
    """Wavelength bins of the detector's own size, and the table that made them."""
    table = cards.table("nirspec/prism_resolution.ecsv")
    edges = [1.6]
    while edges[-1] < 4.6:
        edges.append(
            edges[-1] + np.interp(edges[-1], table["wavelength"], table["dispersion"])
        )
    return np.array(edges), table


def add_line(spectra, edges, rest, flux, velocity, table):
    """Add one transition to every spectrum, averaged over each bin."""
    centre = rest * (1 + REDSHIFT) * (1 + velocity / LIGHT)
    resolution = np.interp(centre, table["wavelength"], table["resolution"])
    sigma = SCALE * centre / resolution / (2 * np.sqrt(2 * np.log(2)))
    near = np.abs(edges[:-1] - rest * (1 + REDSHIFT)) < 9 * sigma.mean()
    low, width = edges[:-1][near], np.diff(edges)[near]
    points = low[:, None] + width[:, None] * (np.arange(FINE) + 0.5) / FINE
    column = (slice(None), None)
    peak = flux / np.sqrt(2 * np.pi) / sigma
    shape = Gaussian1D.evaluate(
        points.ravel(), peak[column], centre[column], sigma[column]
    )
    spectra[:, near] += shape.reshape(len(flux), -1, FINE).mean(axis=2)


@pytest.fixture(scope="module")
def mock():
    rng, (edges, table) = np.random.default_rng(11), bins()
    members = cards.table("lines.ecsv")
    bright = 10 ** rng.normal(0, 0.25, COUNT)
    velocity = rng.normal(0, SCATTER, COUNT)
    truth = {
        name: FLUXES.get(name, 0.0) * bright * 10 ** rng.normal(0, 0.1, COUNT)
        for name in dict.fromkeys(members["line"])
    }
    middle = (edges[1:] + edges[:-1]) / 2
    spectra = bright[:, None] * 3 * (middle / 3) ** rng.normal(-1, 0.3, (COUNT, 1))
    rows = zip(members["line"], members["wavelength"], members["weight"], strict=True)
    for line, rest, weight in rows:
        flux, speed = weight * truth[line], velocity + OFFSET
        add_line(spectra, edges, rest * 1e-4, flux, speed, table)
    error = 0.9 * rng.uniform(0.8, 1.2, spectra.shape)  # [O III] at S/N of some 40
    spectra += rng.normal(0, 1, spectra.shape) * error
    error[rng.uniform(size=error.shape) < 0.02] = np.inf
    spaxels = Spaxels(
        flux=np.where(np.isfinite(error), spectra, 0.0),
        error=error,
        edges=edges,
        position=rng.normal(0.3, 1.0, (COUNT, 2)),
        index=np.stack([np.arange(COUNT), np.arange(COUNT) + 3], axis=1),
        redshift=REDSHIFT,
        shape=(COUNT, COUNT + 3),
    )
    data, tuning = compress(spaxels, starry=False)
    return SimpleNamespace(data=data, tuning=tuning, truth=truth, velocity=velocity)


def index(mock, line):
    """Place of a line's complex."""
    return next(i for i, names in enumerate(mock.data.complexes) if line in names)


@pytest.mark.parametrize("line", ["OII", "OIII", "Halpha"])
def test_width_is_that_of_the_lsf(mock, line):
    # and not of the sum of all spaxels, which their velocities make broader
    c = index(mock, line)
    assert mock.tuning.scale_error[c] < 0.01
    assert_allclose(mock.tuning.scale[c], SCALE, atol=3 * mock.tuning.scale_error[c])


def test_velocities_are_within_their_errors(mock):
    tuning = mock.tuning
    found = tuning.velocity + tuning.offset[index(mock, "OIII")]
    pull = (found - OFFSET - mock.velocity) / tuning.velocity_error
    assert abs(pull.mean()) < 0.2  # the offset is common to all
    assert_allclose(pull.std(), 1.0, atol=0.15)
    assert tuning.velocity_error.mean() < SCATTER / 3


def test_complexes_agree_on_the_offset(mock):
    """All were made with one; what their errors do not tell is common to them."""
    tuning = mock.tuning
    known = [index(mock, line) for line in ("OII", "OIII", "Halpha")]
    offset, error = tuning.offset[known], tuning.offset_error[known]
    assert np.all(error < 10)
    mean = np.average(offset, weights=error**-2)
    assert np.sum(((offset - mean) / error) ** 2) < chi2(len(known) - 1).isf(0.01)
    assert_allclose(mean, OFFSET, atol=3 * SCATTER / np.sqrt(COUNT))


def faint_cut(count, seed):
    """Cut [O III] and Hβ at one velocity, at S/N of some 15, out of mocks."""
    rng, (edges, table) = np.random.default_rng(seed), bins()
    members = cards.table("lines.ecsv")
    spectra = np.full((count, len(edges) - 1), 3.0)
    rows = zip(members["line"], members["wavelength"], members["weight"], strict=True)
    for line, rest, weight in rows:
        if line in ("Hbeta", "OIII"):
            flux, speed = np.full((2, count), [[weight * FLUXES[line]], [OFFSET]])
            add_line(spectra, edges, rest * 1e-4, flux, speed, table)
    error = np.full(spectra.shape, 2.4)
    spaxels = Spaxels(
        flux=spectra + error * rng.normal(size=error.shape),
        error=error,
        edges=edges,
        position=np.zeros((count, 2)),
        index=np.zeros((count, 2), int),
        redshift=REDSHIFT,
        shape=(1, 1),
    )
    (window,) = find_complexes(edges, REDSHIFT, prism(), ("Hbeta", "OIII"))
    return cut(spaxels, window, prism())


def assert_honest(pull):
    """Pulls have mean 0 and sd 1, to three standard errors of either."""
    assert abs(pull.mean()) < 3 / np.sqrt(len(pull))
    assert_allclose(pull.std(), 1.0, atol=3 / np.sqrt(2 * len(pull)))


def test_offsets_are_within_their_errors():
    part = faint_cut(200, seed=12)
    velocity, scale = np.arange(-700.0, 901.0, 80.0), np.arange(0.4, 1.31, 0.06)
    surface = np.array([[gain(part, v, s) for s in scale] for v in velocity])
    found = [weigh(velocity, scale, one, 1.0) for one in np.moveaxis(surface, 2, 0)]
    offset, _, _, _, error = np.array(found).T
    assert error.mean() < 100  # the prior's 500 plays no part
    assert_honest((offset - OFFSET) / error)


def test_many_nodes_at_once():
    part = faint_cut(3, seed=13)
    velocity, scale = np.array([-90.0, 0.0, 200.0]), np.array([0.6, 0.8, 1.1])
    found = gain(part.total(), velocity, scale)
    for node in range(3):
        assert found[node] == gain(part.total(), velocity[node], scale[node])[0]


def test_widths_of_spaxels_that_share_their_noise_are_less_certain():
    part = faint_cut(200, seed=14)
    alone, together = tune([part]), tune([part], 4.0)
    ratio = together.scale_error / alone.scale_error
    assert_allclose(ratio, 2.0, rtol=0.15)
    assert_allclose(together.offset_error / alone.offset_error, 2.0, rtol=0.15)
    assert_allclose(together.velocity_error, alone.velocity_error, rtol=0.2)


def test_offsets_in_correlated_noise_are_within_their_errors():
    part, lags = faint_cut(200, seed=15), np.array([1.0, 0.74, 0.37, 0.10, 0.03])
    rng, channels = np.random.default_rng(15), part.flux.shape[1]
    covariance = toeplitz(np.pad(lags, (0, channels - len(lags))))
    noise = rng.multivariate_normal(np.zeros(channels), covariance, 200)
    clear = part.design(np.array(OFFSET), np.array(SCALE))
    own = [FLUXES[name] for name in part.window.lines] @ clear + 3.0
    part = replace(part, flux=own + noise / np.sqrt(part.weight), correlation=lags)
    velocity, scale = np.arange(-700.0, 901.0, 80.0), np.arange(0.4, 1.31, 0.06)
    surface = np.array([[gain(part.white, v, s) for s in scale] for v in velocity])
    found = [weigh(velocity, scale, one, 1.0) for one in np.moveaxis(surface, 2, 0)]
    offset, _, _, _, error = np.array(found).T
    assert_honest((offset - OFFSET) / error)


@pytest.mark.slow
def test_tuned_offsets_are_within_their_errors():
    """As above, but all of `tune`, on galaxies of four spaxels that do not move."""
    pulls = []
    for seed in range(60):
        tuning = tune([faint_cut(4, seed)])
        found = tuning.offset[0] + tuning.velocity.mean()
        pulls.append((found - OFFSET) / tuning.offset_error[0])
    assert_honest(np.array(pulls))


@pytest.mark.parametrize("line", dict.fromkeys(cards.table("lines.ecsv")["line"]))
def test_fluxes_are_within_their_errors(mock, line):
    """Of every line, also of those that are not there."""
    column = mock.data.lines.index(line)
    flux, error = (values[:, column] for values in mock.data.best_flux())
    pull = (flux - mock.truth[line]) / error
    # three standard errors of a mean and of an sd of 250 draws
    assert abs(pull.mean()) < 3 / np.sqrt(COUNT)
    assert_allclose(pull.std(), 1.0, atol=3 / np.sqrt(2 * COUNT))
    assert (flux < 0).any() == (FLUXES.get(line, 0.0) < 0.15)


def test_all_pulls_together(mock):
    flux, error = mock.data.best_flux()
    truth = np.stack([mock.truth[name] for name in mock.data.lines], axis=1)
    pull = (flux - truth) / error
    assert abs(pull.mean()) < 0.1
    assert_allclose(pull.std(), 1.0, atol=0.1)


def test_noise_is_what_it_was(mock):
    # velocity and width, fitted to the same channels, take up to one each
    data = mock.data
    lines = np.array([len(names) for names in data.complexes])
    free = (data.dof - lines).sum(axis=0)
    luck = 3 * np.sqrt(2 * free)
    chi = data.misfit.sum(axis=0)
    assert np.all(chi < free + luck)
    assert np.all(chi > free - 2 * COUNT - luck)


def test_shrink_is_a_normal_hierarchy():
    """Gaussian likelihoods: the posterior has a closed form given the scatter."""
    rng = np.random.default_rng(5)
    error = rng.uniform(20, 150, 400)
    truth = rng.normal(0, SCATTER, 400)
    best = truth + rng.normal(0, error)
    grid = np.arange(-700.0, 701.0, 100.0)
    mean, sd = shrink(grid, norm.logpdf(grid[:, None], best, error))
    weight = SCATTER**2 / (SCATTER**2 + error**2)
    # the scatter itself is found to some 5 %
    assert_allclose(mean, weight * best, atol=12)
    assert_allclose(sd, np.sqrt(weight) * error, rtol=0.08)


def test_velocities_without_data_are_the_galaxys():
    grid = np.arange(-700.0, 701.0, 100.0)
    told = norm.logpdf(grid[:, None], np.array([-40.0, 60.0, 5.0]), 15.0)
    mean, sd = shrink(grid, np.concatenate([told, 0 * grid[:, None]], axis=1))
    assert_allclose(mean[3], 0.0, atol=1e-6)
    assert sd[3] > 2 * sd[0]

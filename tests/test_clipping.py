"""Outliers: those that were put in are found, and bright lines are left alone."""

from pathlib import Path

import numpy as np
import pytest
from astropy.table import Table
from numpy.testing import assert_array_equal
from scipy.stats import norm

from metalgrad.clipping import clip_outliers
from metalgrad.spaxels import Spaxels

CURVE = Table.read(Path(__file__).parents[1] / "data/nirspec/prism_resolution.ecsv")
EDGES = np.arange(2.3, 5.2, 0.005)
REDSHIFT, COUNT = 6.361, 150


@pytest.fixture(scope="module")
def spaxels():
    """Spectra of [O III] and Hα, from faint to 300 sigma a channel."""
    flux = np.zeros((COUNT, len(EDGES) - 1))
    bright = np.geomspace(1, 600, COUNT)[:, None]
    for rest, share in ((0.5008240, 1.0), (0.4960295, 0.3351), (0.6564632, 0.6)):
        centre = rest * (1 + REDSHIFT)
        power = np.interp(centre, CURVE["wavelength"], CURVE["resolution"])
        sigma = 0.85 * centre / power / 2.354820
        flux += bright * share * np.diff(norm.cdf(EDGES, centre, sigma)) / 0.05
    flux += np.random.default_rng(8).normal(size=flux.shape)
    index = np.stack([np.zeros(COUNT, int), np.arange(COUNT)], axis=1)
    return Spaxels(
        flux, np.ones(flux.shape), EDGES, np.zeros((COUNT, 2)), index, REDSHIFT,
        (1, COUNT),
    )  # fmt: skip


def test_clean_spectra_stay_as_they_are(spaxels):
    clean = clip_outliers(spaxels)
    # One in 1.7 million is beyond five standard deviations.
    assert np.sum(np.isinf(clean.error)) <= 1


def test_outliers_go_and_nothing_else(spaxels):
    rng = np.random.default_rng(9)
    wave = (EDGES[1:] + EDGES[:-1]) / 2
    # Where a line stands, and beside all.
    channels = np.flatnonzero((wave > 3.45) & (wave < 3.75))
    hit = rng.choice(channels, COUNT)
    size = rng.choice([-1, 1], COUNT) * rng.uniform(12, 40, COUNT)
    rows = np.arange(COUNT)
    spaxels.flux[rows, hit] += size
    clean = clip_outliers(spaxels)
    spaxels.flux[rows, hit] -= size
    lost = np.isinf(clean.error)
    faint = spaxels.flux[:, channels].max(axis=1) < 50
    # Some stand where a faint line would, and pass for one.
    assert lost[rows, hit][faint].mean() > 0.85
    lost[rows, hit] = False
    # While a spike bends the fit, a neighbour may stick out of it.
    assert lost.sum() < 0.1 * COUNT
    assert_array_equal(clean.flux[np.isinf(clean.error)], 0)

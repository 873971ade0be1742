"""What is left of spectra: which channels, which pairs, which outliers."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy.linalg import toeplitz
from scipy.stats import norm

from metalgrad.lsf import prism
from metalgrad.residuals import (
    LAGS,
    clean,
    find_outliers,
    line_free,
    neighbour_share,
    spatial_products,
)
from metalgrad.spaxels import Spaxels
from metalgrad.windows import cut, find_complexes

REDSHIFT, COUNT = 5.3, 40
CORRELATION = np.array([1.0, 0.74, 0.37, 0.10, 0.03])


def test_every_line_of_the_table_is_masked():
    edges = np.arange(0.7, 5.2, 0.004)
    free = line_free(edges, REDSHIFT, prism())
    for rest in (0.3727092, 0.3835397, 0.4471479 * 1.0003, 0.6732674):
        assert not free[np.searchsorted(edges, rest * 6.3) - 1]
    assert free[np.searchsorted(edges, 0.55 * 6.3)]


def draw(seed, count=COUNT, channels=48):
    """Correlated noise, a cubic, and some of both lost."""
    rng = np.random.default_rng(seed)
    covariance = toeplitz(np.pad(CORRELATION, (0, channels - len(CORRELATION))))
    noise = rng.multivariate_normal(np.zeros(channels), covariance, count)
    basis = np.polynomial.legendre.legvander(np.linspace(-1, 1, channels), 3)
    kept = rng.uniform(size=noise.shape) > 0.1
    return noise, np.broadcast_to(basis, (count, *basis.shape)), kept, covariance


def test_moments_are_linear_in_the_correlation():
    noise, basis, kept, covariance = draw(1)
    part = clean(noise, basis, kept)
    found = part.moments()[1] @ np.pad(CORRELATION, (0, LAGS + 1 - len(CORRELATION)))
    expected = np.zeros(LAGS + 1)
    for span, seen in zip(part.span, part.kept, strict=True):
        left = np.diag(seen * 1.0) - span @ span.T
        inner = left @ covariance @ left
        for lag in range(LAGS + 1):
            expected[lag] += np.trace(inner, lag) * (1 if lag == 0 else 2)
    assert_allclose(found, expected, rtol=1e-10)


def test_spikes_go_with_their_neighbours():
    noise, basis, kept, _ = draw(2)
    noise[3, 20] += 30.0
    part = clean(noise + 100 * basis[..., 1], basis, kept)
    assert not part.kept[3, 19:22].any()
    assert part.kept.sum() > 0.98 * kept.sum()
    assert 0.8 < part.size < 1.0  # the cubic has taken some


def scattered(seed):
    """Places of spaxels in a field with holes."""
    rng = np.random.default_rng(seed)
    return np.argwhere(rng.uniform(size=(7, 9)) < 0.7) + np.array([4, 2])


def test_neighbours_are_counted():
    index = scattered(3)
    found = neighbour_share(index, 2, 3)
    places = set(map(tuple, index))
    for row, column in np.ndindex(found.shape):
        step = np.array([row - 2, column - 3])
        count = sum(tuple(place) in places for place in index + step)
        assert found[row, column] == count / len(index)
    assert found[2, 3] == 1.0


def test_products_of_neighbours():
    index = scattered(4)
    noise, basis, kept, _ = draw(4, len(index))
    parts = [clean(noise, basis, kept)]
    found, count = spatial_products(parts, index)
    left, right, pairs = [], [], 0
    where = {tuple(place): k for k, place in enumerate(index)}
    for k, place in enumerate(index):
        if (other := where.get((place[0] + 1, place[1] - 2))) is not None:
            both = parts[0].kept[k] & parts[0].kept[other]
            left.append(parts[0].residual[k][both])
            right.append(parts[0].residual[other][both])
            pairs += both.sum()
    left, right = np.concatenate(left), np.concatenate(right)
    assert count[5, 2] == pairs
    power = (left @ left + right @ right) / 2
    assert found[5, 2] == pytest.approx(left @ right / power, rel=1e-10)
    assert found[4, 4] == pytest.approx(1.0)


# ------------------------------------------------------------------------- outliers


def observe(seed, bright, width=1.0):
    """Cut [O III] and Hβ out of spectra with correlated noise of sd 2."""
    rng = np.random.default_rng(seed)
    edges = 2.6 + 0.005 * np.arange(201)
    covariance = toeplitz(np.pad(CORRELATION, (0, 200 - len(CORRELATION))))
    flux = 2.0 * rng.multivariate_normal(np.zeros(200), covariance, COUNT) + 50.0
    for rest, share in ((0.48627, 0.25), (0.49603, 1 / 2.98), (0.50082, 1.0)):
        centre = rest * (1 + REDSHIFT)
        shape = np.diff(norm.cdf(edges, centre, width * prism().sigma(centre)))
        flux += bright * share * shape / np.diff(edges)
    error = np.full(flux.shape, 2.0)
    error[rng.uniform(size=error.shape) < 0.02] = np.inf
    spaxels = Spaxels(
        flux=np.where(np.isfinite(error), flux, 0.0),
        error=error,
        edges=edges,
        position=np.zeros((COUNT, 2)),
        index=np.zeros((COUNT, 2), int),
        redshift=REDSHIFT,
        shape=(1, 1),
    )
    (window,) = find_complexes(edges, REDSHIFT, prism(), ("Hbeta", "OIII"))
    return cut(spaxels, window, prism(), CORRELATION)


@pytest.mark.parametrize("bright", [0.0, 0.3, 100.0])
def test_lines_are_no_outliers(bright):
    """Be they ever so bright (S/N of some 2000), and wider than is thought."""
    part = observe(5, bright, width=1.02)
    assert not find_outliers(part, np.zeros(COUNT), 1.0).any()


def test_spikes_are_found_wherever_they_are():
    part = observe(6, 1.0)
    rng = np.random.default_rng(6)
    row = np.arange(COUNT - 1)
    column = rng.integers(1, part.flux.shape[1] - 1, len(row))
    part.flux[row, column] += rng.choice([-20.0, 20.0], len(row))
    expected = np.zeros(part.flux.shape, dtype=bool)
    expected[row, column] = part.weight[row, column] > 0
    assert_array_equal(find_outliers(part, np.zeros(COUNT), 1.0), expected)


def test_a_huge_spike_takes_no_other_with_it():
    part = observe(9, 1.0)
    part.weight[:, 17] = part.weight[part.weight > 0][0]
    part.flux[:, 17] += 3000.0
    found = find_outliers(part, np.zeros(COUNT), 1.0)
    assert found[:, 17].all()
    assert found.sum() == COUNT


def test_a_cosmic_ray_may_be_wide():
    part = observe(7, 1.0)
    part.weight[1, 15:23] = part.weight[0, 0]
    part.flux[1, 17:20] += np.array([15.0, 60.0, 20.0])
    found = find_outliers(part, np.zeros(COUNT), 1.0)
    assert found[1, 17:20].all()
    assert found.sum() == 3


def test_nothing_is_an_outlier_of_nothing():
    part = observe(8, 1.0)
    part.weight[2:] = 0.0
    part.weight[1, 4:] = 0.0
    assert not find_outliers(part, np.zeros(COUNT), 1.0).any()
    part.weight[:] = 0.0
    assert not find_outliers(part, np.zeros(COUNT), 1.0).any()

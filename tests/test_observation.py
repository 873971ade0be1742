"""Data are drawn as they are scored."""

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy.stats import norm

from metalgrad.likelihood import from_line_maps
from metalgrad.observation import LineData

ERROR, SCALE, FLUX, DRAWS = 0.7, 1.4, 2.5, 4000


@pytest.fixture(autouse=True)
def double():
    with jax.enable_x64(new_val=True):
        yield


@pytest.fixture
def data():
    """Three spaxels of two lines, one of them never measured."""
    rng = np.random.default_rng(4)
    error = np.full((3, 2), ERROR)
    error[1, 0] = np.inf
    position = rng.normal(0.4, 1, (3, 2))
    flux = rng.normal(2, 1, (3, 2))
    maps = SimpleNamespace(
        lines=("OII", "OIII"), flux=flux, error=error, position=position
    )
    return from_line_maps(maps)


@pytest.fixture
def site(data):
    return LineData(data, jnp.full((3, 2), FLUX), jnp.array([SCALE]))


def test_a_spaxel_is_the_unit_of_data(site):
    assert site.batch_shape == (3,)
    assert site.event_shape == (2,)


def test_draws_have_mean_and_noise(site):
    draws = np.asarray(site.sample(jax.random.key(1), (DRAWS,)))
    assert draws.shape == (DRAWS, 3, 2)
    mean, sd = np.full((3, 2), FLUX / ERROR), np.full((3, 2), SCALE)
    mean[1, 0] = sd[1, 0] = 0.0  # nothing is known there, so nothing is drawn
    assert_allclose(draws.mean(axis=0), mean, atol=4 * SCALE / np.sqrt(DRAWS))
    assert_allclose(draws.std(axis=0), sd, rtol=0.05)


def test_residuals_are_in_units_of_the_noise(site, data):
    value = jnp.asarray(data.white) + 0.3
    mean = np.where(np.isfinite(data.best_flux()[1]), FLUX / ERROR, 0.0)
    assert_allclose(site.residuals(value), (mean - value) / SCALE)


def test_score_is_that_of_independent_gaussians(site, data):
    flux, error = data.best_flux()
    found = site.log_prob(jnp.asarray(data.white))
    for spaxel in range(3):
        seen = np.isfinite(error[spaxel])
        score = norm(FLUX, SCALE * error[spaxel, seen]).logpdf(flux[spaxel, seen])
        assert_allclose(found[spaxel], score.sum())

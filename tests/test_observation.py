"""Data are drawn as they are scored."""

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy import integrate, stats
from scipy.stats import norm

from metalgrad.likelihood import LineLikelihood, from_line_maps
from metalgrad.observation import LineData

pytestmark = pytest.mark.usefixtures("double_precision")

ERROR, SCALE, FLUX, DRAWS = 0.7, 1.4, 2.5, 4000


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


# --- clumps ------------------------------------------------------------------------

CLUMP = 0.6


@pytest.fixture
def spectra():
    """Four spaxels of three lines in two complexes; the third says nothing."""
    rng = np.random.default_rng(9)
    root = rng.normal(size=(4, 3, 3))
    root[:, 2, :2] = root[:, :2, 2] = 0.0
    root[2] = 0.0
    white = rng.normal(3.0, 2.0, (4, 3))
    white[2] = 0.0
    return LineLikelihood(
        lines=("Hbeta", "OIII", "Halpha"),
        complexes=(("Hbeta", "OIII"), ("Halpha",)),
        root=root,
        white=white,
        misfit=rng.chisquare(20, (4, 2)),
        dof=np.full((4, 2), 20.0),
        log_norm=rng.normal(size=4),
        position=rng.normal(size=(4, 2)),
    )


NOISE = np.array([1.3, 0.8])
BRIGHT = np.array(
    [[2.0, 6.0, 4.0], [0.1, 0.3, -0.2], [1.0, 3.0, 2.0], [20.0, 60.0, 9.0]]
)


def clumpy(data, clumpiness=CLUMP, flux=BRIGHT):
    return LineData(
        data, jnp.asarray(flux), jnp.asarray(NOISE), jnp.asarray(clumpiness)
    )


def rest(data, spaxel):
    """What is no part of the Gaussian in the whitened data."""
    scale = data.misfit[spaxel] / NOISE**2 + 2 * data.dof[spaxel] * np.log(NOISE)
    noise = np.log(NOISE[data.row_complex]).sum() + 1.5 * np.log(2 * np.pi)
    return data.log_norm[spaxel] - 0.5 * scale.sum() + noise


def law(data, spaxel, flux=BRIGHT):
    """Mean and covariance of whitened data: noise, and brighter or fainter."""
    mean = data.root[spaxel] @ flux[spaxel]
    noise = np.diag(NOISE[data.row_complex] ** 2)
    return mean, noise + CLUMP**2 * np.outer(mean, mean)


def test_clumps_widen_the_noise_along_the_light(spectra):
    found = clumpy(spectra).log_prob(jnp.asarray(spectra.white))
    for spaxel in range(4):
        gauss = stats.multivariate_normal(*law(spectra, spaxel))
        expected = gauss.logpdf(spectra.white[spaxel]) + rest(spectra, spaxel)
        assert_allclose(found[spaxel], expected, rtol=1e-9)


def test_clumps_are_integrated_out(spectra):
    """SciPy's quadrature over how bright the spaxel is."""
    found = clumpy(spectra).log_prob(jnp.asarray(spectra.white))
    for spaxel in range(3):
        mean, noise = spectra.root[spaxel] @ BRIGHT[spaxel], NOISE[spectra.row_complex]

        def density(clump, mean=mean, noise=noise, white=spectra.white[spaxel]):
            seen = norm(mean * (1 + CLUMP * clump), noise).pdf(white)
            return np.prod(seen) * norm.pdf(clump)

        area, _ = integrate.quad(density, -9, 9, epsabs=0, epsrel=1e-10, limit=200)
        expected = np.log(area) + rest(spectra, spaxel)
        assert_allclose(found[spaxel], expected, rtol=1e-8)


def test_a_very_bright_spaxel_keeps_its_precision(spectra):
    """At an S/N of some 1e6 the clump takes all of it, and rounding stays small."""
    white = spectra.root @ np.array([1e6, 3e6, 2e6]) * 1.3 + 0.4
    flux = np.broadcast_to([1e6, 3e6, 2e6], BRIGHT.shape)
    found = clumpy(spectra, flux=flux).log_prob(jnp.asarray(white))
    for spaxel in (0, 1, 3):
        mean = spectra.root[spaxel] @ flux[spaxel]
        # Along the light: a wide Gaussian. Across: two plain ones.
        noise = NOISE[spectra.row_complex]
        unit = mean / noise / np.linalg.norm(mean / noise)
        pull = (white[spaxel] - mean) / noise
        wide = 1 + CLUMP**2 * np.sum((mean / noise) ** 2)
        along = unit @ pull
        across = np.linalg.norm(pull - along * unit) ** 2
        density = -0.5 * (along**2 / wide + across + np.log(wide))
        scale = spectra.misfit[spaxel] / NOISE**2 + 2 * spectra.dof[spaxel] * np.log(
            NOISE
        )
        expected = density + spectra.log_norm[spaxel] - 0.5 * scale.sum()
        assert_allclose(found[spaxel], expected, atol=1e-4)


def test_light_that_is_far_too_bright_keeps_its_precision(spectra):
    """An S/N of some 1e7 where data say 10, as a poor start may have it.

    The reference has longer numbers: what lies across is a small difference in it.
    """
    flux = np.broadcast_to([1e6, 3e6, 2e6], BRIGHT.shape)
    found = clumpy(spectra, flux=flux).log_prob(jnp.asarray(spectra.white))
    owner, long = spectra.row_complex, np.longdouble
    for spaxel in (0, 1, 3):
        mean = spectra.root[spaxel].astype(long) @ flux[spaxel].astype(long)
        mean, white = mean / NOISE[owner], spectra.white[spaxel] / NOISE[owner]
        square, pull = mean @ mean, white - mean
        along = mean @ pull / np.sqrt(square)
        across = pull - along * mean / np.sqrt(square)
        wide = 1 + long(CLUMP) ** 2 * square
        density = -0.5 * (along**2 / wide + across @ across + np.log(wide))
        constant = rest(spectra, spaxel) + norm(0, NOISE[owner]).logpdf(0.0).sum()
        assert_allclose(found[spaxel], float(density) + constant, rtol=1e-13)


def test_without_clumps_the_score_is_the_plain_one(spectra):
    plain = LineData(spectra, jnp.asarray(BRIGHT), jnp.asarray(NOISE))
    value = jnp.asarray(spectra.white)
    assert_allclose(clumpy(spectra, 0.0).log_prob(value), plain.log_prob(value))


@pytest.mark.parametrize("clumpiness", [0.0, -0.7, 0.7, 1e3])
@pytest.mark.parametrize("factor", [0.0, 1e-9, 1.0, 1e6])
def test_gradient_is_finite(spectra, clumpiness, factor):
    """Where nothing is bright, too, and where nothing is known."""

    def total(flux, clumpiness):
        return clumpy(spectra, clumpiness, flux).log_prob(spectra.white).sum()

    value, slopes = jax.value_and_grad(total, (0, 1))(factor * BRIGHT, clumpiness)
    assert np.isfinite(value)
    assert all(np.isfinite(slope).all() for slope in slopes)
    assert_allclose(slopes[0][2], 0.0)


def test_the_sign_of_clumpiness_does_not_matter(spectra):
    value = jnp.asarray(spectra.white)
    assert_allclose(
        clumpy(spectra, -CLUMP).log_prob(value), clumpy(spectra).log_prob(value)
    )


def test_draws_with_clumps_have_their_covariance(spectra):
    count = 20_000
    draws = clumpy(spectra).sample(jax.random.key(2), (count,))
    assert draws.shape == (count, 4, 3)
    for spaxel in (0, 1, 3):
        mean, covariance = law(spectra, spaxel)
        root = np.linalg.inv(np.linalg.cholesky(covariance))
        sphere = (np.asarray(draws[:, spaxel]) - mean) @ root.T
        assert_allclose(sphere.mean(axis=0), 0.0, atol=5 / np.sqrt(count))
        assert_allclose(np.cov(sphere.T), np.eye(3), atol=5 * np.sqrt(2 / count))
    np.testing.assert_array_equal(draws[:, 2], 0.0)

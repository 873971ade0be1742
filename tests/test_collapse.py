"""Spaxels integrated out agree with closed forms and brute force."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from scipy import integrate, special, stats

from metalgrad import collapse
from metalgrad.hierarchy import split
from metalgrad.likelihood import LineLikelihood
from metalgrad.model import LineData

pytestmark = pytest.mark.usefixtures("double_precision")

SPAXELS, LINES, LATENTS = 6, 3, 2
RNG = np.random.default_rng(3)
GALAXY = RNG.normal(size=(LINES,))  # how fluxes move with the galaxy's parameter,
SPAXEL = RNG.normal(size=(LATENTS, LINES))  # with a spaxel's
CONSTANT = RNG.normal(size=(SPAXELS, LINES))
PRIOR = (0.7, 1.5)
LEVEL = 1.1


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(4)
    return LineLikelihood(
        lines=("OII", "Hbeta", "OIII"),
        complexes=(("OII",), ("Hbeta", "OIII")),
        root=rng.normal(size=(SPAXELS, LINES, LINES)),
        white=rng.normal(2.0, 1.0, size=(SPAXELS, LINES)),
        misfit=rng.chisquare(20, (SPAXELS, 2)),
        dof=np.full((SPAXELS, 2), 20.0),
        log_norm=rng.normal(size=SPAXELS),
        position=rng.normal(size=(SPAXELS, 2)),
    )


def story(curve):
    """Make a model whose fluxes are ``curve`` of a linear function."""

    def model(data):
        level = numpyro.sample("level", dist.Normal(*PRIOR))
        with numpyro.plate("spaxel", len(data)):
            z = numpyro.sample("z", dist.Normal().expand([LATENTS]).to_event(1))
            flux = curve(CONSTANT + level * GALAXY + z @ SPAXEL)
            ones = jnp.ones(len(data.complexes))
            numpyro.sample("data", LineData(data, flux, ones), obs=data.white)

    return model


def bend(x):
    """Curve gently, and stay positive, as fluxes do."""
    return jnp.exp(0.5 * x)


@pytest.fixture(scope="module")
def linear(data):
    return split(story(lambda x: x), data)


@pytest.fixture(scope="module")
def bent(data):
    return split(story(bend), data)


def exact(data, level):
    """Log density of each spaxel's data: a Gaussian with its latents integrated out."""
    for s in range(SPAXELS):
        root, mean = data.root[s], CONSTANT[s] + level * GALAXY
        spread = root @ SPAXEL.T
        covariance = np.eye(LINES) + spread @ spread.T
        gauss = stats.multivariate_normal(root @ mean, covariance)
        norm = data.log_norm[s] + 0.5 * LINES * np.log(2 * np.pi)
        yield gauss.logpdf(data.white[s]) + norm - 0.5 * data.misfit[s].sum()


def theta():
    return jnp.array([LEVEL])


def zeros():
    return jnp.zeros((SPAXELS, LATENTS))


def test_laplace_is_exact_for_a_linear_model(linear, data):
    for level in (-1.0, 0.7, 3.0):
        point = linear, data.arrays, jnp.array([level]), zeros()
        potential = collapse.collapse(*point, 4)[0]
        prior = stats.norm(*PRIOR).logpdf(level)
        expected = -prior - sum(exact(data, level))
        np.testing.assert_allclose(potential, expected, rtol=1e-10)


@pytest.mark.parametrize("name", ["linear", "bent"])
def test_gradient_matches_finite_differences(request, data, name):
    hierarchy, step = request.getfixturevalue(name), 1e-4

    def value(level):
        return collapse.collapse(
            hierarchy, data.arrays, jnp.array([level]), zeros(), 30
        )

    for level in (0.2, 1.1):
        slope = (value(level + step)[0] - value(level - step)[0]) / (2 * step)
        np.testing.assert_allclose(value(level)[1][0], slope, rtol=1e-4)


def test_modes_are_where_the_gradient_ends(bent, data):
    z = collapse.collapse(bent, data.arrays, theta(), zeros(), 30)[2]
    slope = jax.grad(bent.potential, argnums=2)(data.arrays, theta(), z)
    np.testing.assert_allclose(slope, 0.0, atol=1e-6)


def test_a_step_never_descends(bent, data):
    z = 4 * jnp.asarray(np.random.default_rng(5).normal(size=(SPAXELS, LATENTS)))
    before = bent.densities(data.arrays, theta(), z)[1]
    after = bent.densities(
        data.arrays, theta(), collapse.climb(bent, data.arrays, theta(), z)
    )[1]
    assert np.all(after >= before)


def test_curvature_is_the_hessian_of_a_linear_model(linear, data):
    gradient, root = collapse.spaxel_curvature(
        linear, data.arrays, theta(), zeros() + 1
    )
    for s in range(SPAXELS):
        spread = data.root[s] @ SPAXEL.T
        np.testing.assert_allclose(
            root[s] @ root[s].T, spread.T @ spread + np.eye(LATENTS), rtol=1e-10
        )
    expected = jax.grad(linear.potential, argnums=2)(data.arrays, theta(), zeros() + 1)
    np.testing.assert_allclose(gradient, -expected, rtol=1e-9)


def brute(data, spaxel):
    """Log of the integral over one spaxel's two latents, on a fine grid."""
    axis = np.linspace(-8, 8, 801)
    z = np.stack(np.meshgrid(axis, axis, indexing="ij"), axis=-1)
    flux = np.exp(0.5 * (CONSTANT[spaxel] + LEVEL * GALAXY + z @ SPAXEL))
    residual = flux @ data.root[spaxel].T - data.white[spaxel]
    log_density = -0.5 * (residual**2).sum(-1) + stats.norm.logpdf(z).sum(-1)
    inner = integrate.simpson(np.exp(log_density), x=axis)
    value = np.log(integrate.simpson(inner, x=axis))
    return value + data.log_norm[spaxel] - 0.5 * data.misfit[spaxel].sum()


def evidence(hierarchy, data, draws):
    noise = collapse.heavy_noise(jax.random.key(0), (SPAXELS, LATENTS), draws)
    function = jax.jit(collapse.spaxel_evidence, static_argnums=0)
    return function(hierarchy, data.arrays, theta(), zeros(), noise)


def test_evidence_matches_quadrature(bent, data):
    found = evidence(bent, data, 6000)
    expected = [brute(data, spaxel) for spaxel in range(SPAXELS)]
    np.testing.assert_allclose(found, expected, atol=1e-2)


def test_evidence_of_a_linear_model_is_a_gaussian(linear, data):
    found = evidence(linear, data, 4000)
    np.testing.assert_allclose(found, list(exact(data, LEVEL)), atol=2e-2)


def test_heavy_noise_is_a_multivariate_student():
    noise, log_density = collapse.heavy_noise(jax.random.key(1), (4, 3), 2000)
    assert noise.shape == (2000, 4, 3)
    reference = stats.multivariate_t(np.zeros(3), np.eye(3), df=8)
    expected = reference.logpdf(np.asarray(noise))
    np.testing.assert_allclose(log_density, expected, rtol=1e-9)
    # One coordinate of a multivariate t is a t; antithetic pairs share |t|.
    half = np.asarray(noise[:1000, :, 0]).ravel()
    assert stats.kstest(half, stats.t(8).cdf).pvalue > 1e-3
    np.testing.assert_array_equal(noise[:1000], -noise[1000:])


def test_starts_are_the_best_of_the_draws(bent, data):
    start = collapse.scatter_start(bent, data.arrays, theta(), jax.random.key(2))
    assert start.shape == (SPAXELS, LATENTS)
    at_zero = bent.densities(data.arrays, theta(), zeros())[1]
    assert np.all(bent.densities(data.arrays, theta(), start)[1] >= at_zero)


def test_no_data_gives_back_the_prior(data):
    """With no information the collapsed density is the prior of the galaxy."""
    blank = data.with_arrays(
        {name: jnp.zeros_like(value) for name, value in data.arrays.items()}
    )
    hierarchy = split(story(bend), blank)
    potential, gradient, z = collapse.collapse(
        hierarchy, blank.arrays, theta(), zeros(), 4
    )
    prior = stats.norm(*PRIOR)
    np.testing.assert_allclose(potential, -prior.logpdf(LEVEL), rtol=1e-10)
    np.testing.assert_allclose(gradient, (theta() - PRIOR[0]) / PRIOR[1] ** 2)
    np.testing.assert_allclose(z, 0.0, atol=1e-12)
    found = evidence(hierarchy, blank, 4000)
    np.testing.assert_allclose(special.expm1(found), 0.0, atol=2e-2)

"""The expansion of a linear-Gaussian model is its exact posterior."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from scipy import stats

from metalgrad import curvature
from metalgrad.hierarchy import split
from metalgrad.likelihood import LineLikelihood
from metalgrad.model import LineData

SPAXELS, LINES, GALAXY, LATENTS = 5, 3, 3, 2
RNG = np.random.default_rng(6)
BY_GALAXY = RNG.normal(size=(SPAXELS, LINES, GALAXY))
BY_SPAXEL = RNG.normal(size=(LINES, LATENTS))
CONSTANT = RNG.normal(size=(SPAXELS, LINES))
MEAN, SD = np.array([0.5, -1.0, 0.3]), np.array([1.5, 0.8, 0.8])


@pytest.fixture(autouse=True, scope="module")
def double_precision():
    with jax.enable_x64(new_val=True):
        yield


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(7)
    return LineLikelihood(
        lines=("OII", "Hbeta", "OIII"),
        complexes=(("OII", "Hbeta", "OIII"),),
        root=rng.normal(size=(SPAXELS, LINES, LINES)),
        white=rng.normal(size=(SPAXELS, LINES)),
        misfit=np.zeros((SPAXELS, 1)),
        dof=np.full((SPAXELS, 1), float(LINES)),
        log_norm=np.full(SPAXELS, -0.5 * LINES * np.log(2 * np.pi)),
        position=np.zeros((SPAXELS, 2)),
    )


def model(data):
    level = numpyro.sample("level", dist.Normal(MEAN[0], SD[0]))
    rest = numpyro.sample("rest", dist.Normal(MEAN[1:], SD[1:]).to_event(1))
    theta = jnp.concatenate([level[None], rest])
    with numpyro.plate("spaxel", len(data)):
        first = numpyro.sample("first", dist.Normal())
        second = numpyro.sample("second", dist.Normal().expand([1]).to_event(1))
        z = jnp.concatenate([first[:, None], second], axis=1)
        flux = CONSTANT + BY_GALAXY @ theta + z @ BY_SPAXEL.T
        numpyro.sample("data", LineData(data, flux, jnp.ones(1)), obs=data.white)


@pytest.fixture(scope="module")
def hierarchy(data):
    return split(model, data)


@pytest.fixture(scope="module")
def expansion(hierarchy, data):
    return curvature.expand(hierarchy, data.arrays, jax.random.key(0), starts=2)


@pytest.fixture(scope="module")
def truth(data):
    """Posterior mean and covariance of (theta, z of every spaxel), and the evidence."""
    size = GALAXY + SPAXELS * LATENTS
    design = np.zeros((SPAXELS, LINES, size))
    for s in range(SPAXELS):
        start = GALAXY + s * LATENTS
        design[s, :, :GALAXY] = data.root[s] @ BY_GALAXY[s]
        design[s, :, start : start + LATENTS] = data.root[s] @ BY_SPAXEL
    design = design.reshape(-1, size)
    constant = np.einsum("srl,sl->sr", data.root, CONSTANT).ravel()
    prior_mean = np.concatenate([MEAN, np.zeros(size - GALAXY)])
    prior_variance = np.concatenate([SD**2, np.ones(size - GALAXY)])
    covariance = np.linalg.inv(design.T @ design + np.diag(1 / prior_variance))
    pull = design.T @ (data.white.ravel() - constant) + prior_mean / prior_variance
    marginal = design @ np.diag(prior_variance) @ design.T + np.eye(len(design))
    gauss = stats.multivariate_normal(design @ prior_mean + constant, marginal)
    return covariance @ pull, covariance, gauss.logpdf(data.white.ravel())


def flatten(theta, z):
    return jnp.concatenate([theta, z.ravel()])


def test_the_mode_is_the_posterior_mean(expansion, truth):
    found = flatten(expansion.theta, expansion.z)
    error = np.sqrt(np.diag(truth[1]))
    np.testing.assert_allclose((found - truth[0]) / error, 0.0, atol=1e-2)


def test_unwhiten_gives_the_posterior_covariance(expansion, truth):
    def affine(white):
        z = white[GALAXY:].reshape(SPAXELS, LATENTS)
        return flatten(*curvature.unwhiten(expansion.arrays, white[:GALAXY], z))

    size = len(truth[0])
    jacobian = np.asarray(jax.jacobian(affine)(jnp.zeros(size)))
    np.testing.assert_allclose(jacobian @ jacobian.T, truth[1], rtol=1e-6, atol=1e-8)
    origin = affine(jnp.zeros(size))
    np.testing.assert_array_equal(origin, flatten(expansion.theta, expansion.z))


def test_the_evidence_is_that_of_a_gaussian(expansion, truth):
    np.testing.assert_allclose(expansion.log_evidence, truth[2], atol=1e-3)


def test_draws_follow_the_posterior(hierarchy, data, expansion):
    """In the whitened coordinates they are independent standard normals."""
    keys = jax.random.split(jax.random.key(1), 3000)
    draws = jax.vmap(
        lambda key: curvature.draw(hierarchy, data.arrays, expansion.arrays, key)
    )(keys)
    white = np.asarray(jax.vmap(flatten)(draws["galaxy"], draws["spaxel"]))
    np.testing.assert_allclose(white.mean(axis=0), 0.0, atol=5 / np.sqrt(len(keys)))
    covariance = np.cov(white.T)
    bound = 5 * np.sqrt(2 / len(keys))
    np.testing.assert_allclose(covariance, np.eye(len(covariance)), atol=bound)


def test_several_starts_find_the_deeper_of_two_modes(data):
    """One start stays in the mode at hand; the expansion must not."""

    def forked(data):
        level = numpyro.sample("level", dist.Normal(0.0, 3.0))
        with numpyro.plate("spaxel", len(data)):
            z = numpyro.sample("z", dist.Normal())
        # level and -level fit alike, but for the tilt
        height = level**2 + 0.02 * level + 0.01 * z
        flux = jnp.broadcast_to(height[:, None], data.white.shape)
        with numpyro.plate("spaxel", len(data)):
            numpyro.sample("data", LineData(data, flux, jnp.ones(1)), obs=data.white)

    root = np.broadcast_to(10 * np.eye(LINES), data.root.shape)
    white = np.full((SPAXELS, LINES), 10 * (4.0 + 0.04))
    pair = data.with_arrays(data.arrays | {"root": root, "white": white})
    hierarchy = split(forked, pair)
    found = curvature.expand(hierarchy, pair.arrays, jax.random.key(2), starts=6)
    np.testing.assert_allclose(found.theta, 2.0, atol=1e-2)
    one = jnp.array([-1.5])
    stuck = curvature.find_mode(hierarchy, pair.arrays, one, jax.random.key(3))
    np.testing.assert_allclose(stuck[0], -2.02, atol=1e-2)

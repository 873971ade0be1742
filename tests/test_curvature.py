"""The expansion of a linear-Gaussian model is its exact posterior."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from scipy import stats

from metalgrad import curvature, modes, settled, whitening
from metalgrad.collapse import collapse
from metalgrad.hierarchy import split
from metalgrad.likelihood import LineLikelihood
from metalgrad.model import LineData

pytestmark = pytest.mark.usefixtures("double_precision")

SPAXELS, LINES, GALAXY, LATENTS = 5, 3, 3, 2
RNG = np.random.default_rng(6)
BY_GALAXY = RNG.normal(size=(SPAXELS, LINES, GALAXY))
BY_SPAXEL = RNG.normal(size=(LINES, LATENTS))
CONSTANT = RNG.normal(size=(SPAXELS, LINES))
MEAN, SD = np.array([0.5, -1.0, 0.3]), np.array([1.5, 0.8, 0.8])


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


def story(data, told):
    level = numpyro.sample("level", dist.Normal(MEAN[0], SD[0]))
    rest = numpyro.sample("rest", dist.Normal(MEAN[1:], SD[1:]).to_event(1))
    theta = jnp.concatenate([level[None], rest])
    with numpyro.plate("spaxel", len(data)):
        first = numpyro.sample("first", dist.Normal())
        second = numpyro.sample("second", dist.Normal().expand([1]).to_event(1))
        z = jnp.concatenate([first[:, None], second], axis=1)
        flux = CONSTANT + BY_GALAXY @ theta + z @ BY_SPAXEL.T
        numpyro.sample("data", LineData(data, flux, jnp.ones(1)), obs=data.white)
    for name in told:
        numpyro.deterministic(f"{name}_amplitude", jnp.ones((len(data), 1)))
        numpyro.deterministic(f"{name}_mean", jnp.full((len(data), 1), 0.7))


TOLD = {"told": ("first", "second"), "one told": ("first",), "untold": ()}


@pytest.fixture(scope="module", params=TOLD.values(), ids=TOLD)
def hierarchy(request, data):
    """What a model tells of its latents is for the sampler: it has one posterior."""
    return split(partial(story, told=request.param), data)


def expand(hierarchy, arrays, key, starts):
    """Expand about the best mode."""
    best = modes.find_branches(hierarchy, arrays, key, starts)[0]
    return curvature.expand_about(hierarchy, arrays, *best)


@pytest.fixture(scope="module")
def expansion(hierarchy, data):
    return expand(hierarchy, data.arrays, jax.random.key(0), starts=2)


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


def unwhiten(hierarchy, data, expansion, white):
    """From white noise to (theta, z of every spaxel), as chains do."""
    arrays = expansion.arrays
    xi = white[GALAXY:].reshape(SPAXELS, LATENTS)
    theta, still = whitening.unwhiten(arrays, white[:GALAXY], xi)
    z, _ = settled.place(hierarchy, data.arrays, arrays["steady"], theta, still)
    return flatten(theta, z)


def test_the_mode_is_the_posterior_mean(hierarchy, data, expansion, truth):
    found = unwhiten(hierarchy, data, expansion, jnp.zeros(len(truth[0])))
    error = np.sqrt(np.diag(truth[1]))
    np.testing.assert_allclose((found - truth[0]) / error, 0.0, atol=1e-2)
    np.testing.assert_array_equal(found[:GALAXY], expansion.theta)


def test_unwhiten_gives_the_posterior_covariance(hierarchy, data, expansion, truth):
    go, size = partial(unwhiten, hierarchy, data, expansion), len(truth[0])
    jacobian = np.asarray(jax.jacobian(go)(jnp.zeros(size)))
    np.testing.assert_allclose(jacobian @ jacobian.T, truth[1], rtol=1e-6, atol=1e-8)
    # and no curve: what holds at the middle holds everywhere
    far = jnp.asarray(3 * np.random.default_rng(9).normal(size=size))
    np.testing.assert_allclose(jax.jacobian(go)(far), jacobian, atol=1e-9)


def test_the_evidence_is_that_of_a_gaussian(hierarchy, data, expansion, truth):
    theta, start = expansion.theta, jnp.zeros((SPAXELS, LATENTS))
    height = collapse(hierarchy, data.arrays, theta, start, 10)[0]
    volume = np.linalg.slogdet(expansion.stretch)[1]
    volume += 0.5 * len(theta) * np.log(2 * np.pi)
    np.testing.assert_allclose(volume - height, truth[2], atol=1e-3)


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
    found = expand(hierarchy, pair.arrays, jax.random.key(2), starts=6)
    np.testing.assert_allclose(found.theta, 2.0, atol=1e-2)
    one = jnp.array([-1.5])
    stuck = modes.find_mode(hierarchy, pair.arrays, one, key=jax.random.key(3))
    np.testing.assert_allclose(stuck[0], -2.02, atol=1e-2)


FAINT, MANY = 0.1, 3  # S/N of a spaxel for the common departure; departures


def funnel(data, middle):
    """Draw departures that all spaxels share, of a width that is latent, too."""
    rho = numpyro.sample("rho", dist.Uniform(0.0, 1.0))
    with numpyro.plate("ratio", MANY):
        shared = numpyro.sample("shared", dist.Normal(middle, jnp.sqrt(rho)))
    with numpyro.plate("spaxel", len(data)):
        z = numpyro.sample("z", dist.Normal())
    flux = FAINT * (shared + 0.1 * z[:, None])
    with numpyro.plate("spaxel", len(data)):
        numpyro.sample("data", LineData(data, flux, jnp.ones(1)), obs=data.white)


@pytest.mark.parametrize("middle", [np.zeros(MANY), 0.0], ids=["each", "of all"])
def test_a_width_that_vanishes_is_no_mode(data, middle):
    """The density of normals grows without bound as their width does, but not its mass.

    The bulk of rho is told by quadrature, with all normals integrated out.
    """
    root = np.broadcast_to(np.eye(LINES), data.root.shape)
    faint = data.with_arrays(
        data.arrays | {"root": root, "white": np.zeros((SPAXELS, LINES))}
    )
    hierarchy = split(partial(funnel, middle=middle), faint)
    found = expand(hierarchy, faint.arrays, jax.random.key(4), modes.STARTS)
    for part in jax.tree.leaves(found.arrays):
        assert np.isfinite(part).all()
    middle, width = bulk()
    start = list(hierarchy.galaxy).index("rho")
    assert start == 0
    assert abs(found.theta[0] - middle) < width
    np.testing.assert_allclose(found.theta[1:], 0.0, atol=0.1)


def bulk():
    """Posterior mean and sd of rho's probit, by quadrature over rho.

    Each line's fluxes of 0 are Gaussian, with its own shared departure integrated out.
    """
    probit = np.linspace(-6, 6, 2001)
    noise = (1 + (0.1 * FAINT) ** 2) * np.eye(SPAXELS)
    weight = stats.norm.pdf(probit)
    for k, rho in enumerate(stats.norm.cdf(probit)):
        covariance = noise + rho * FAINT**2
        gauss = stats.multivariate_normal(np.zeros(SPAXELS), covariance)
        weight[k] *= gauss.pdf(np.zeros(SPAXELS)) ** LINES
    weight /= weight.sum()
    middle = np.sum(weight * probit)
    return middle, np.sqrt(np.sum(weight * (probit - middle) ** 2))


def test_no_latent_is_stretched_beyond_its_prior():
    """At a mode that is nearly flat data take back what the prior says, there alone."""
    signal = np.array([0.0, 0.8, 1.6, 1.66])
    curve = 0.3  # the curvature is 1 - 2 * curve * signal: down to 0.004
    flat = LineLikelihood(
        lines=("Hbeta",),
        complexes=(("Hbeta",),),
        root=np.ones((4, 1, 1)),
        white=signal[:, None],
        misfit=np.zeros((4, 1)),
        dof=np.ones((4, 1)),
        log_norm=np.full(4, -0.5 * np.log(2 * np.pi)),
        position=np.zeros((4, 2)),
    )

    def model(data):
        numpyro.sample("level", dist.Normal())
        with numpyro.plate("spaxel", len(data)):
            z = numpyro.sample("z", dist.Normal().expand([1]).to_event(1))
            numpyro.sample(
                "data", LineData(data, curve * z**2, jnp.ones(1)), obs=data.white
            )

    hierarchy = split(model, flat)
    found = curvature.expand_about(
        hierarchy, flat.arrays, jnp.zeros(1), jnp.zeros((4, 1))
    )
    np.testing.assert_allclose(found.z, 0.0, atol=1e-12)
    np.testing.assert_allclose(abs(found.root[:, 0, 0]), 1.0)

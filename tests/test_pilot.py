"""Where a chain starts: against SciPy's minima and closed forms."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
import scipy.optimize
from test_scene import cut_out, patch, round_psf

from metalgrad import curvature, lines, pilot, steady, whitening
from metalgrad.hierarchy import split
from metalgrad.likelihood import LineLikelihood
from metalgrad.model import LineData, load_model
from metalgrad.scene import lay_out
from metalgrad.starts import prior_points
from metalgrad.straight import sort

pytestmark = pytest.mark.usefixtures("double_precision")

SPAXELS, LINES, GALAXY, WAVES = 4, 3, 3, 7
RNG = np.random.default_rng(11)
BY_GALAXY = RNG.normal(size=(SPAXELS, LINES, GALAXY))
BY_WAVE = RNG.normal(size=(SPAXELS, LINES, WAVES))
BY_WAVE[..., 5:] = 0.0  # waves that nothing sees
CONSTANT = RNG.normal(size=(SPAXELS, LINES))
MEAN, SD = np.array([0.5, -1.0, 0.3]), np.array([0.9, 0.8, 0.7])


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(12)
    return LineLikelihood(
        lines=("OII", "Hbeta", "OIII"),
        complexes=(("OII", "Hbeta", "OIII"),),
        root=2 * rng.normal(size=(SPAXELS, LINES, LINES)),
        white=rng.normal(size=(SPAXELS, LINES)),
        misfit=np.zeros((SPAXELS, 1)),
        dof=np.full((SPAXELS, 1), float(LINES)),
        log_norm=np.full(SPAXELS, -0.5 * LINES * np.log(2 * np.pi)),
        position=np.zeros((SPAXELS, 2)),
    )


def story(curve):
    """Make a galaxy whose waves every spaxel sees, through a ``curve``.

    Its parameters are normal, but not by themselves: coordinates take them as free.
    """

    def model(data):
        normal = dist.MultivariateNormal(jnp.asarray(MEAN), jnp.diag(SD**2))
        theta = numpyro.sample("theta", normal)
        with numpyro.plate("wave", WAVES):
            z = numpyro.sample("z", dist.Normal())
        flux = curve(CONSTANT + BY_GALAXY @ theta + BY_WAVE @ z)
        with numpyro.plate("spaxel", len(data)):
            numpyro.sample("data", LineData(data, flux, jnp.ones(1)), obs=data.white)

    return model


def straight(x):
    return x


def bent(x):
    """Curve gently, for NumPy and JAX alike."""
    return x + 0.1 * x**2


@pytest.fixture(scope="module")
def linear(data):
    return split(story(straight), data)


@pytest.fixture(scope="module")
def truth(data):
    """Posterior mean and covariance of (theta, z) of the linear story."""
    size = GALAXY + WAVES
    design = np.concatenate([BY_GALAXY, BY_WAVE], axis=-1)
    design = (data.root @ design).reshape(-1, size)
    residual = data.white - np.einsum("srl,sl->sr", data.root, CONSTANT)
    prior = np.concatenate([MEAN, np.zeros(WAVES)])
    weight = np.concatenate([SD**-2, np.ones(WAVES)])
    covariance = np.linalg.inv(design.T @ design + np.diag(weight))
    return covariance @ (design.T @ residual.ravel() + weight * prior), covariance


def far():
    return jnp.array([4.0, 3.0, -5.0]), jnp.full((1, WAVES), 2.0)


EVERYTHING = np.ones(GALAXY + WAVES, bool)


def test_descending_ends_at_the_posterior_mean(linear, data, truth):
    theta, z = pilot.descend(linear, data.arrays, *far(), EVERYTHING)
    error = np.sqrt(np.diag(truth[1]))
    found = np.concatenate([theta, z[0]])
    np.testing.assert_allclose((found - truth[0]) / error, 0.0, atol=0.01)


def numpys(data, point):
    """The bent story's potential, but for a constant."""
    theta, z = point[:GALAXY], point[GALAXY:]
    flux = bent(CONSTANT + BY_GALAXY @ theta + BY_WAVE @ z)
    residual = np.einsum("srl,sl->sr", data.root, flux) - data.white
    prior = np.sum(((theta - MEAN) / SD) ** 2) + np.sum(z**2)
    return 0.5 * (np.sum(residual**2) + prior)


def test_descending_finds_what_scipy_finds(data):
    """SciPy's simplex-free Powell, on a potential written in NumPy."""
    hierarchy = split(story(bent), data)
    theta, z = pilot.descend(hierarchy, data.arrays, *far(), EVERYTHING)
    found = np.concatenate([theta, z[0]])
    reference = scipy.optimize.minimize(
        lambda point: numpys(data, point), found + 0.1, method="BFGS"
    )
    assert numpys(data, found) == pytest.approx(reference.fun, abs=1e-3)
    error = np.sqrt(np.diag(reference.hess_inv))
    np.testing.assert_allclose((found - reference.x) / error, 0.0, atol=0.1)


def test_what_is_not_free_stays(linear, data, truth):
    """The rest ends at its mean given that: a Gaussian's conditional."""
    free = np.arange(GALAXY + WAVES) >= GALAXY
    start, _ = far()
    theta, z = pilot.descend(linear, data.arrays, start, jnp.zeros((1, WAVES)), free)
    np.testing.assert_array_equal(theta, start)
    mean, covariance = truth
    bridge = covariance[GALAXY:, :GALAXY] @ np.linalg.inv(covariance[:GALAXY, :GALAXY])
    expected = mean[GALAXY:] + bridge @ (start - mean[:GALAXY])
    np.testing.assert_allclose(z[0], expected, atol=5e-3)


def test_climbing_down_ends_where_departures_are_none(linear, data, truth):
    """The mode with z = 0, by the conditional of a Gaussian."""
    told = np.array([True, True, False])
    start = jnp.array([30.0, -20.0, 0.4])
    found = pilot.climb_down(linear, data.arrays, start, told)
    mean, precision = truth[0], np.linalg.inv(truth[1])
    fixed = np.concatenate([[0.4], np.zeros(WAVES)]) - mean[2:]
    shift = np.linalg.solve(precision[:2, :2], precision[:2, 2:] @ fixed)
    np.testing.assert_allclose(found[:2], mean[:2] - shift, atol=1e-4)
    assert found[2] == 0.4


def affine(hierarchy, data, expansion):
    """Mean and covariance of what an expansion makes of white noise."""

    def push(white):
        moved = whitening.unwhiten(
            expansion.arrays, white[:GALAXY], white[None, GALAXY:]
        )
        own = hierarchy, data.arrays, expansion.steady
        theta, z, _ = steady.place(*own, *moved)
        return jnp.concatenate([theta, z[0]])

    origin = jnp.zeros(GALAXY + WAVES)
    jacobian = np.asarray(jax.jacobian(push)(origin))
    return push(origin), jacobian @ jacobian.T


def test_the_expansion_of_a_linear_story_is_its_posterior(linear, data, truth):
    theta, z = jnp.asarray(truth[0][:GALAXY]), jnp.asarray(truth[0][None, GALAXY:])
    told = np.ones(GALAXY, bool)
    expansion = pilot.expand_at(linear, data.arrays, theta, z, told=told)
    mean, covariance = affine(linear, data, expansion)
    np.testing.assert_allclose(mean, truth[0], rtol=1e-12)
    np.testing.assert_allclose(covariance, truth[1], rtol=1e-6, atol=1e-8)


def test_a_path_corrects_the_galaxy_and_latents_follow(linear, data, truth):
    theta, z = jnp.asarray(truth[0][:GALAXY]), jnp.asarray(truth[0][None, GALAXY:])
    path = np.random.default_rng(13).normal(size=(500, GALAXY)) @ np.diag([1, 2, 3.0])
    expansion = pilot.expand_at(linear, data.arrays, theta, z, path)
    _, found = affine(linear, data, expansion)
    known, inner = found[:GALAXY, :GALAXY], truth[1][:GALAXY, :GALAXY]
    expected = 0.8 * np.cov(path.T) + 0.2 * inner
    np.testing.assert_allclose(known, expected, rtol=1e-9, atol=1e-12)
    bridge = truth[1][GALAXY:, :GALAXY] @ np.linalg.inv(inner)
    np.testing.assert_allclose(found[GALAXY:, :GALAXY], bridge @ known, rtol=1e-6)
    rest = truth[1][GALAXY:, GALAXY:] + bridge @ (known - inner) @ bridge.T
    np.testing.assert_allclose(found[GALAXY:, GALAXY:], rest, rtol=1e-6, atol=1e-8)


def test_what_the_curvature_does_not_tell_keeps_a_share_of_the_prior(
    linear, data, truth
):
    theta, z = jnp.asarray(truth[0][:GALAXY]), jnp.asarray(truth[0][None, GALAXY:])
    told = np.array([True, False, True])
    expansion = pilot.expand_at(linear, data.arrays, theta, z, told=told)
    inner = affine(linear, data, expansion)[1][:GALAXY, :GALAXY]
    np.testing.assert_allclose(inner[1], [0.0, pilot.WIDE**2, 0.0], atol=1e-12)
    schur = np.linalg.inv(truth[1][:GALAXY, :GALAXY])[np.ix_(told, told)]
    expected = np.linalg.inv(schur)
    np.testing.assert_allclose(inner[np.ix_(told, told)], expected, rtol=1e-6)


def test_a_short_path_is_shrunk_towards_the_curvature():
    """By a fifth, and a ridge that the path has not the draws to see stays one."""
    rng = np.random.default_rng(14)
    path = rng.normal(size=(6, 9)) @ rng.normal(size=(9, 9))
    ridge = np.linalg.cholesky(np.full((9, 9), 0.999) + 1e-3 * np.eye(9))
    root = pilot.summarise(path, ridge)
    sample = (path - path.mean(axis=0)).T @ (path - path.mean(axis=0)) / 5
    expected = 0.8 * sample + 0.2 * ridge @ ridge.T
    np.testing.assert_allclose(root @ root.T, expected, rtol=1e-8)


def test_a_path_that_stands_still_has_some_width():
    path = np.random.default_rng(15).normal(size=(20, 3))
    path[:, 1] = 0.7
    root = pilot.summarise(path, np.eye(3))
    assert np.linalg.eigvalsh(root @ root.T).min() > 0.1


def test_amplitudes_of_either_sign_are_expanded_at_their_size(galaxy):
    """A path that went to both signs has a mean where departures have no effect."""
    arrays, at = galaxy.data.arrays, jax.random.key(1)
    ((theta, z, _),) = pilot.first_guess(galaxy, arrays, at, starts=1)
    signs = np.where(np.arange(40) % 2, 1.0, -1.0)[:, None]
    path = np.where(galaxy.is_signed, 0.3 * signs, np.asarray(theta))
    path = path + 0.01 * np.random.default_rng(18).normal(size=path.shape)
    found = pilot.expand_about(galaxy, arrays, path, z)
    mean, free = path.mean(axis=0), sort(galaxy).free
    np.testing.assert_allclose(found.theta, mean[free])
    assert np.all(np.asarray(found.bridge)[0][:, galaxy.is_signed[free]] == 0)
    there = jnp.where(galaxy.is_signed, 0.3, mean)
    reach = steady.amplify(galaxy, arrays, there) / found.steady["scale"]
    np.testing.assert_allclose(reach, 1.0, rtol=1e-2)


def test_the_deeper_of_two_branches_is_found(data):
    """From several starts; what has no effect without departures is not told."""

    def forked(data):
        level = numpyro.sample("level", dist.Normal(0.0, 3.0))
        scatter = numpyro.sample("scatter", dist.Normal())
        with numpyro.plate("wave", WAVES):
            z = numpyro.sample("z", dist.Normal())
        # level and -level fit alike, but for the tilt
        flux = level**2 + 0.02 * level + 0.1 * scatter * BY_WAVE @ z
        with numpyro.plate("spaxel", len(data)):
            numpyro.sample("data", LineData(data, flux, jnp.ones(1)), obs=data.white)

    root = np.broadcast_to(10 * np.eye(LINES), data.root.shape)
    white = np.full((SPAXELS, LINES), 10 * (4.0 + 0.04))
    pair = data.with_arrays(data.arrays | {"root": root, "white": white})
    hierarchy = split(forked, pair)
    ((theta, z, told), *_) = pilot.first_guess(
        hierarchy, pair.arrays, jax.random.key(2)
    )
    np.testing.assert_array_equal(told, [True, False])
    np.testing.assert_allclose(theta[0], 2.0, atol=1e-2)
    assert np.isfinite(z).all()


# A galaxy with all that a model has, on a small cube.

NAMES = ("OII", "Hbeta", "OIII")


@pytest.fixture(scope="module")
def galaxy():
    """Noisy fluxes of a disc of constant ratios."""
    spaxels = cut_out(patch(7, 10))
    rng = np.random.default_rng(16)
    bright = 60 * np.exp(-np.hypot(*spaxels.position.T) / 1.0)
    flux = bright[:, None] * np.array([1.2, 1.0, 5.5])
    data = LineLikelihood(
        lines=NAMES,
        complexes=(NAMES,),
        root=np.broadcast_to(np.eye(3), (len(spaxels), 3, 3)),
        white=flux + rng.normal(size=flux.shape),
        misfit=np.zeros((len(spaxels), 1)),
        dof=np.full((len(spaxels), 1), 3.0),
        log_norm=np.zeros(len(spaxels)),
        position=spaxels.position,
        has_channels=False,
    )
    observed = lines.wavelengths(NAMES) * (1 + spaxels.redshift)
    scene = lay_out(spaxels, data.signal(), observed, round_psf())
    model = load_model("flat")
    return split(model, model.prepare(replace(data, scene=scene)))


IDLE = ("length", "rho", "scatter_signed", "reddening_scatter_signed")


@pytest.fixture(scope="module")
def told(galaxy):
    """What has an effect without departures."""
    sites = galaxy.galaxy.items()
    return np.concatenate(
        [np.full(int(np.prod(shape)), name not in IDLE) for name, (shape, _) in sites]
    )


def test_from_anywhere_a_galaxy_climbs_down_to_sense(galaxy, told):
    """Light wrong by orders of magnitude, ratios by many of their dispersions."""
    arrays, z = galaxy.data.arrays, jnp.zeros((1, galaxy.sizes[1]))
    height = jax.jit(galaxy.potential)
    median = prior_points(galaxy, galaxy.data.arrays, jax.random.key(0), 1)[0]
    away = np.random.default_rng(17).normal(size=told.size)
    heights = []
    for scale in (0.0, 2.0, -30.0):
        start = median + scale * told * away
        found = pilot.climb_down(galaxy, galaxy.data.arrays, start, told)
        assert np.isfinite(found).all()
        np.testing.assert_array_equal(found[~told], start[~told])
        heights.append(float(height(arrays, found, z)))
        assert heights[-1] <= height(arrays, start, z)
        values = galaxy.unpack(found, z)[0]
        if scale > -30:
            assert 6 < values["level"] < 10
            assert 0 <= values["reddening"] < 3
    assert np.isfinite(heights).all()
    assert heights[1] < heights[0] + 20


def test_a_solver_that_breaks_down_leaves_the_best_point(galaxy, monkeypatch):
    """SciPy's trust-exact does so where numbers leave it no step."""
    start = prior_points(galaxy, galaxy.data.arrays, jax.random.key(0), 1)[0]
    told = np.ones(len(start), bool)
    seen = []

    def minimize(fun, x, **kwargs):
        del kwargs
        for shift in (0.3, 0.0, -0.1):
            seen.append((fun(x + shift), x + shift))
        raise UnboundLocalError("cannot access local variable 'p'")

    monkeypatch.setattr(pilot.scipy.optimize, "minimize", minimize)
    found = pilot.climb_down(galaxy, galaxy.data.arrays, start, told)
    np.testing.assert_array_equal(found, min(seen, key=lambda one: one[0])[1])


@pytest.mark.parametrize(
    ("first", "second", "is_settled"),
    [(0.0, 1.0, True), (4.0, 4.2, False), (-1.0, 1.0, False)],
    ids=["at home", "elsewhere", "apart"],
)
def test_short_chains_have_settled_where_they_stay_together(
    galaxy, first, second, is_settled
):
    """By widths of the coordinates found from them: here of two units each."""
    size, every = galaxy.sizes[0], sort(galaxy).free
    one = {"z": jnp.zeros((1, 1)), "root": None}
    middle, width = jnp.linspace(0.0, 1.0, len(every)), 2.0
    one |= {"stretch": width * jnp.eye(len(every))}
    one |= {"bridge": jnp.zeros((1, 1, len(every)))}
    here = curvature.Expansion(middle, **one)
    path = np.zeros((2, 5, size))
    path[..., every] = np.asarray(middle)
    path[0][:, every[1]] += width * first
    path[1][:, every[1]] += width * second
    assert pilot.has_settled(galaxy, path, here, here) == is_settled

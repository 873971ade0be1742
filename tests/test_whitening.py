"""The posterior in a sampler's coordinates, against JAX's own second derivatives."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest

from metalgrad import settled, steady, whitening
from metalgrad.hierarchy import split
from metalgrad.likelihood import LineLikelihood
from metalgrad.model import LineData

pytestmark = pytest.mark.usefixtures("double_precision")

SPAXELS, LINES, GALAXY, WAVES = 4, 3, 3, 5
RNG = np.random.default_rng(21)
BY_GALAXY = RNG.normal(size=(SPAXELS, LINES, GALAXY))
BY_WAVE = RNG.normal(size=(SPAXELS, LINES, WAVES))
BY_SPAXEL = RNG.normal(size=(LINES,))


@pytest.fixture(scope="module")
def data():
    return LineLikelihood(
        lines=("OII", "Hbeta", "OIII"),
        complexes=(("OII", "Hbeta", "OIII"),),
        root=2 * RNG.normal(size=(SPAXELS, LINES, LINES)),
        white=RNG.normal(size=(SPAXELS, LINES)),
        misfit=np.zeros((SPAXELS, 1)),
        dof=np.full((SPAXELS, 1), float(LINES)),
        log_norm=np.full(SPAXELS, -0.5 * LINES * np.log(2 * np.pi)),
        position=np.zeros((SPAXELS, 2)),
    )


def see(data, raw):
    flux = raw + 0.1 * raw**2
    with numpyro.plate("spaxel", len(data)):
        numpyro.sample("data", LineData(data, flux, jnp.ones(1)), obs=data.white)


def together(data):
    """Waves that all spaxels see, of a width that is latent."""
    width = numpyro.sample("width", dist.HalfNormal(1.0))
    pair = numpyro.sample("pair", dist.Normal().expand([2]).to_event(1))
    with numpyro.plate("wave", WAVES):
        z = numpyro.sample("z", dist.Normal())
    see(data, BY_GALAXY @ jnp.append(pair, width) + width * (BY_WAVE @ z))


def apart(data):
    """A departure of each spaxel, of a width that is latent."""
    width = numpyro.sample("width", dist.HalfNormal(1.0))
    pair = numpyro.sample("pair", dist.Normal().expand([2]).to_event(1))
    with numpyro.plate("spaxel", len(data)):
        z = numpyro.sample("z", dist.Normal())
    see(data, BY_GALAXY @ jnp.append(pair, width) + width * z[:, None] * BY_SPAXEL)
    numpyro.deterministic("z_amplitude", jnp.full((len(data), 1), width))
    numpyro.deterministic("z_mean", jnp.zeros((len(data), 1)))


@pytest.fixture(scope="module", params=[together, apart])
def case(request, data):
    """A hierarchy, and coordinates that are neither at a mode nor straight."""
    hierarchy, rng = split(request.param, data), np.random.default_rng(22)
    theta = jnp.asarray(rng.normal(size=GALAXY))
    z = jnp.asarray(0.3 * rng.normal(size=(1, WAVES)))
    if hierarchy.coupled:
        coordinates = steady.find(hierarchy, data.arrays, theta, z)
        free = len(steady.straight.sort(hierarchy).free)
        still = (1, GALAXY + WAVES - free)
    else:
        z, free, still = z[0, :SPAXELS, None], GALAXY, (SPAXELS, 1)
        coordinates = settled.find(hierarchy, data.arrays, theta, z)
    stretch = 0.5 * np.eye(free) + 0.1 * rng.normal(size=(free, free))
    affine = {
        "theta": jnp.asarray(rng.normal(size=free)),
        "z": jnp.asarray(0.3 * rng.normal(size=still)),
        "stretch": jnp.asarray(stretch),
        "bridge": jnp.asarray(0.1 * rng.normal(size=(*still, free))),
        "steady": coordinates,
    }
    if not hierarchy.coupled:
        affine["root"] = jnp.full((SPAXELS, 1, 1), 0.7)
    return hierarchy, affine


def spread(affine, flat):
    free = affine["theta"].size
    return {"galaxy": flat[:free], "spaxel": flat[free:].reshape(affine["z"].shape)}


def height(case, data, flat):
    """Negative log density, the volume by the determinant of the whole map."""
    hierarchy, affine = case

    def reach(flat):
        white = spread(affine, flat)
        theta, z, _ = whitening.reach(hierarchy, data.arrays, affine, white)
        return jnp.concatenate([theta, z.ravel()])

    theta, z = jnp.split(reach(flat), [GALAXY])
    z = z.reshape((1, -1) if hierarchy.coupled else (SPAXELS, 1))
    whole = jnp.linalg.slogdet(jax.jacobian(reach)(flat))[1]
    straight = jnp.linalg.slogdet(affine["stretch"])[1]
    if "root" in affine:
        straight += jnp.linalg.slogdet(affine["root"])[1].sum()
    return hierarchy.potential(data.arrays, theta, z) - (whole - straight)


def test_height_and_slope_are_those_of_the_density(case, data):
    hierarchy, affine = case
    size = affine["theta"].size + affine["z"].size
    flat = jnp.asarray(0.2 * np.random.default_rng(23).normal(size=size))
    white = spread(affine, flat)
    value, slope = whitening.climb(hierarchy, data.arrays, affine, white)
    expected = jax.value_and_grad(lambda x: height(case, data, x))(flat)
    np.testing.assert_allclose(value, expected[0], rtol=1e-11)
    found = np.concatenate([slope["galaxy"], slope["spaxel"].ravel()])
    np.testing.assert_allclose(found, expected[1], rtol=1e-8, atol=1e-9)


@pytest.mark.parametrize("share", [1.0, 0.3])
def test_differences_tell_the_curvature(case, data, share):
    hierarchy, affine = case
    size = affine["theta"].size + affine["z"].size
    along = np.random.default_rng(24).normal(size=(max(1, int(share * size)), size))
    found = whitening.steepen(hierarchy, data.arrays, affine, along)

    def potential(flat):
        return whitening.climb(hierarchy, data.arrays, affine, spread(affine, flat))[0]

    expected = along @ jax.hessian(potential)(jnp.zeros(size))
    assert found.shape == along.shape
    largest = np.abs(expected).max()
    np.testing.assert_allclose(found, expected, rtol=1e-8, atol=1e-9 * largest)

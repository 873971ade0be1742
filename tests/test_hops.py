"""Hops between branches: they leave a posterior as it is, and chains cross by them."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpy.testing import assert_allclose
from scipy import stats

from metalgrad import hops, settled, whitening
from metalgrad.chains import Run
from metalgrad.hierarchy import split
from metalgrad.likelihood import LineLikelihood
from metalgrad.observation import LineData

pytestmark = pytest.mark.usefixtures("double_precision")

SPAXELS = 4000
SCATTER, TURN, WIDTH = 0.8, 0.15, 0.2
SCALES = np.array([1.0, 2.0])


def predict(lead, follow):
    """Two fluxes of a ratio that turns over where ``lead`` is about 0."""
    x = SCATTER * lead - TURN
    return np.e ** (-(x**2) + WIDTH * follow + 0.1 * x)[..., None] * SCALES


def turning(data):
    """Draw a latent that leads another over a turn."""
    about = numpyro.sample("about", dist.Normal(0.0, 1e-3))
    with numpyro.plate("spaxel", len(data)):
        lead = numpyro.sample("lead", dist.Normal())
        follow = numpyro.sample("follow", dist.Normal())
    x = SCATTER * lead - TURN + about
    ratio, every = -(x**2) + 0.1 * x, jnp.ones((len(data), 1))
    numpyro.deterministic("lead_amplitude", SCATTER * every)
    numpyro.deterministic("follow_amplitude", WIDTH * every)
    numpyro.deterministic("follow_mean", ratio[:, None])
    flux = jnp.exp(ratio + WIDTH * follow)[:, None] * SCALES
    numpyro.deterministic("line_flux", flux)
    with numpyro.plate("spaxel", len(data)):
        numpyro.sample("data", LineData(data, flux, jnp.ones(1)), obs=data.white)


def observe(signal, count):
    """Fluxes of a spaxel well off the turn, ``count`` times over."""
    root = np.broadcast_to(signal * np.eye(2), (count, 2, 2))
    white = signal * predict(np.array(1.2), np.array(0.3)) + np.array([0.4, -0.8])
    return LineLikelihood(
        lines=("OIII", "Hbeta"),
        complexes=(("OIII", "Hbeta"),),
        root=root,
        white=np.broadcast_to(white, (count, 2)),
        misfit=np.zeros((count, 1)),
        dof=np.full((count, 1), 2.0),
        log_norm=np.zeros(count),
        position=np.zeros((count, 2)),
    )


def draw_exactly(data, count):
    """Draw both latents of a spaxel by rejection, (draw, latent)."""
    rng, drawn = np.random.default_rng(8), np.zeros((0, 2))
    while len(drawn) < count:
        z = rng.normal(size=(200_000, 2))
        residual = data.root[0, 0, 0] * predict(*z.T) - data.white[0]
        likelihood = np.exp(-0.5 * np.square(residual).sum(axis=1))
        drawn = np.concatenate([drawn, z[rng.uniform(size=len(z)) < likelihood]])
    return drawn[:count]


def coordinates(hierarchy, data, rng):
    """Return still coordinates about one branch, and roots with normal columns."""
    theta, count = jnp.zeros(1), len(data)
    mode = jnp.broadcast_to(jnp.array([1.1, 0.2]), (count, 2))
    axes = np.linalg.qr(rng.normal(size=(count, 2, 2)))[0]
    return {
        "theta": theta,
        "z": jnp.asarray(rng.normal(size=(count, 2))),
        "stretch": 1e-3 * jnp.eye(1),
        "bridge": jnp.zeros((count, 2, 1)),
        "root": jnp.asarray(axes * rng.uniform(0.3, 2.0, (count, 1, 2))),
        "steady": settled.find(hierarchy, data.arrays, theta, mode),
    }


def whiten(hierarchy, data, affine, z):
    """Take latents to a sampler's coordinates: `settled.place` is linear, in turn."""

    def place(still):
        theta, steady = affine["theta"], affine["steady"]
        return settled.place(hierarchy, data.arrays, steady, theta, still)[0]

    still = jnp.zeros_like(z)
    for latent in (0, 1):
        at, beyond = (place(still.at[:, latent].set(v))[:, latent] for v in (0.0, 1.0))
        still = still.at[:, latent].set((z[:, latent] - at) / (beyond - at))
    assert_allclose(place(still), z, rtol=1e-6, atol=1e-8)
    white = jnp.linalg.solve(affine["root"], (still - affine["z"])[..., None])[..., 0]
    return {"galaxy": jnp.zeros(1), "spaxel": white}


def unwhiten(hierarchy, data, affine, white):
    theta, still = whitening.unwhiten(affine, white["galaxy"], white["spaxel"])
    return settled.place(hierarchy, data.arrays, affine["steady"], theta, still)[0]


@pytest.mark.parametrize("signal", [0.5, 4.0, 30.0])
def test_hops_leave_the_posterior_as_it_is(signal):
    """Spaxels drawn by rejection hop; they are still such as are drawn so."""
    data = observe(signal, SPAXELS)
    hierarchy, rng = split(turning, data), np.random.default_rng(5)
    affine = coordinates(hierarchy, data, rng)
    drawn = draw_exactly(data, 2 * SPAXELS)
    z, other = jnp.asarray(drawn[:SPAXELS]), drawn[SPAXELS:]
    white = whiten(hierarchy, data, affine, z)
    for step in range(4):
        key = jax.random.key(step)
        white = hops.hop(hierarchy, data.arrays, affine, key, white)
    moved = np.asarray(unwhiten(hierarchy, data, affine, white))
    for look in (lambda v: v[:, 0], lambda v: v[:, 1], lambda v: predict(*v.T)[:, 0]):
        assert stats.ks_2samp(look(moved), look(other)).pvalue > 1e-3
    crossed = (moved[:, 0] > TURN / SCATTER) != (np.asarray(z)[:, 0] > TURN / SCATTER)
    lower = np.mean(other[:, 0] < TURN / SCATTER)
    # Four hops of a spaxel forget where it was, or nearly so.
    assert crossed.mean() > 0.5 * 2 * lower * (1 - lower)


def test_only_the_leading_latent_is_drawn_and_others_follow():
    data = observe(30.0, 50)
    hierarchy, rng = split(turning, data), np.random.default_rng(6)
    affine = coordinates(hierarchy, data, rng)
    white = whiten(hierarchy, data, affine, jnp.asarray(draw_exactly(data, 50)))
    moved = hops.hop(hierarchy, data.arrays, affine, jax.random.key(0), white)
    stills = [whitening.unwhiten(affine, *w.values())[1] for w in (white, moved)]
    assert_allclose(stills[0][:, 1], stills[1][:, 1], rtol=1e-9, atol=1e-9)
    assert np.ptp(stills[1][:, 0] - stills[0][:, 0]) > 1.0


def draw_below(hierarchy, data):
    """Tell which draws of a chain are under the turn, (chain, draw)."""
    run = Run(hierarchy, 200, 0.8)
    arrays = data.arrays
    affine = run.branches(arrays, jax.random.key(0))[0]
    keys = jax.random.split(jax.random.key(1), 2)
    kept = run.chains(keys, arrays, affine, 1000, progress=False)["kept"]
    return np.asarray(kept["z"][..., 0, 0] < TURN / SCATTER)


def test_chains_cross_where_hardly_any_chain_of_nuts_does():
    data = observe(30.0, 1)
    hierarchy = split(turning, data)
    expected = np.mean(draw_exactly(data, 20_000)[:, 0] < TURN / SCATTER)
    assert 0.1 < expected < 0.9
    below = draw_below(hierarchy, data)
    assert_allclose(below.mean(axis=1), expected, atol=0.08)
    stuck = draw_below(replace(hierarchy, leading=None), data)
    crossed, seldom = (np.sum(np.diff(b, axis=1), axis=1) for b in (below, stuck))
    assert np.all(crossed > 100)
    # Of six chains one crossed, 21 times within a while, and five never did.
    assert np.all(5 * seldom < crossed)
    assert np.any(seldom == 0)

"""Where to start, and in which coordinates, when all spaxels hang together.

The latents of neighbours that share structure cannot be integrated out one spaxel at a
time.  But they are a few hundred, and given the galaxy's parameters nearly Gaussian:
L-BFGS finds their mode, and Hessian-vector products their curvature.  Where the
galaxy's parameters lie is told by the model without departures first, then by a short
run of the sampler itself.
"""

from contextlib import suppress
from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import scipy.optimize

from metalgrad import krylov, steady, straight, whitening
from metalgrad.curvature import Expansion
from metalgrad.hierarchy import Hierarchy
from metalgrad.likelihood import TOLD
from metalgrad.modes import choose_live
from metalgrad.starts import prior_points
from metalgrad.threads import side_by_side

TRUST = {"initial_trust_radius": 0.3, "max_trust_radius": 3.0, "maxiter": 100}
SHRINK = 0.2  # of what a short path says of a covariance, towards curvature
AWAY, APART = 3.0, 1.5  # sd, ours: of means of short chains that are at home
STEP = 1e-4  # unconstrained: between slopes that tell a curvature
WIDE = 0.3  # unconstrained: first guess of the sd of what only departures tell


@partial(jax.jit, static_argnums=0)
def _slope(hierarchy, arrays, theta, z):
    return jax.value_and_grad(hierarchy.potential, argnums=(1, 2))(arrays, theta, z)


def descend(hierarchy: Hierarchy, arrays, theta, z, free):
    """Move to the nearest mode along some of the directions, by L-BFGS.

    Parameters
    ----------
    hierarchy : Hierarchy
    arrays : dict
    theta : array, (galaxy,)
    z : array, (1, latent)
    free : array of bool, (galaxy + latent,)
        What may move.

    Returns
    -------
    theta, z
    """
    size, start = len(theta), np.concatenate([theta, np.ravel(z)])

    def objective(moved):
        point = start.copy()
        point[free] = moved
        value, slopes = _slope(hierarchy, arrays, point[:size], point[None, size:])
        slope = np.concatenate([np.ravel(s) for s in slopes])
        if not (np.isfinite(value) and np.all(np.isfinite(slope))):
            return 1e15, np.zeros(free.sum())
        return float(value), slope[free]

    found = scipy.optimize.minimize(
        objective,
        start[free],
        jac=True,
        method="L-BFGS-B",
        options={"maxiter": 500, "maxcor": 30},
    )
    start[free] = found.x
    return jnp.asarray(start[:size]), jnp.asarray(start[None, size:])


def first_guess(hierarchy: Hierarchy, arrays, key, starts: int = 6) -> list[tuple]:
    """Fit a galaxy without departures from several starts, then its departures.

    What has no effect without departures (scatters, lengths) stays at its prior.

    Parameters
    ----------
    hierarchy : Hierarchy
    arrays : dict
    key : jax.Array
    starts : int
        The prior's median and draws from the prior: calibrations have two branches.

    Returns
    -------
    list of (theta, z, told)
        On each branch that is alive, the best first: array, (galaxy,); array, (1,
        latent); and which of ``theta`` have an effect without departures.

    Raises
    ------
    ValueError
        If no start led to a mode.
    """
    points = prior_points(hierarchy, arrays, key, starts)
    z = jnp.zeros((1, hierarchy.sizes[1]))
    told = _find_told(hierarchy, arrays, points[0], z)
    climb = partial(climb_down, hierarchy, arrays, told=told)
    plain = side_by_side(climb, jnp.where(told, points, points[0]))
    plain = [(t, float(_slope(hierarchy, arrays, t, z)[0])) for t in plain]
    free, found = np.concatenate([told, np.ones(z.size, bool)]), []
    for theta, _ in choose_live(hierarchy, plain):
        theta, latents = descend(hierarchy, arrays, theta, z, free)
        height = float(_slope(hierarchy, arrays, theta, latents)[0])
        found.append((theta, latents, told, height))
    return [mode[:-1] for mode in choose_live(hierarchy, found)]


def _find_told(hierarchy, arrays, theta, z):
    """Which of ``theta`` the data pull at: without them slopes are others."""
    silent = arrays | {name: jnp.zeros_like(arrays[name]) for name in TOLD}
    with_data, without = (
        _slope(hierarchy, given, theta, z)[1][0] for given in (arrays, silent)
    )
    return np.abs(np.asarray(with_data - without)) > 1e-9


def climb_down(hierarchy: Hierarchy, arrays, theta, told):
    """Move a galaxy without departures to the nearest mode, in steps it can trust.

    From a draw of the prior fluxes may be wrong by orders of magnitude, and an
    unguarded step from there leads anywhere.
    """
    start, z = np.array(theta), jnp.zeros((1, hierarchy.sizes[1]))

    def look(moved):
        point = start.copy()
        point[told] = moved
        value, slopes = _slope(hierarchy, arrays, point, z)
        value, slope = float(value), np.asarray(slopes[0])[told]
        if not (np.isfinite(value) and np.isfinite(slope).all()):
            return 1e15, np.zeros(told.sum())
        return value, slope

    last, best = {}, (np.inf, start[told])

    def kept(x, part):
        nonlocal best
        if last.get("x") != x.tobytes():
            last.update(x=x.tobytes(), found=look(x))
            best = min(best, (last["found"][0], x.copy()), key=lambda one: one[0])
        return last["found"][part]

    def curve(x):
        ahead = [look(x + step)[1] for step in STEP * np.eye(len(x))]
        found = (np.array(ahead) - kept(x, 1)) / STEP
        return (found + found.T) / 2

    # SciPy's solver ends with an UnboundLocalError where numbers leave it no step.
    with suppress(UnboundLocalError):
        scipy.optimize.minimize(
            partial(kept, part=0),
            start[told],
            jac=partial(kept, part=1),
            hess=curve,
            method="trust-exact",
            options=TRUST,
        )
    start[told] = best[1]
    return jnp.asarray(start)


def expand_at(hierarchy: Hierarchy, arrays, theta, z, path=None, told=None, least=0):
    """Gaussian approximation about a point that is a mode given what is free.

    Parameters
    ----------
    hierarchy : Hierarchy
    arrays : dict
    theta : array, (galaxy,)
    z : array, (1, latent)
    path : array, (draw, galaxy), optional
        Of a short chain, to correct what curvature says of what is free.
    told : array of bool, (galaxy,), optional
        For which of ``theta`` the curvature may be trusted; for all if None.
    least : int
        As of `steady.find`.

    Returns
    -------
    Expansion
        In what is free and still coordinates, as `steady.place` has them.
    """
    chosen = straight.sort(hierarchy).free
    free, size = jnp.asarray(theta)[chosen], len(chosen)
    coordinates = steady.find(hierarchy, arrays, jnp.asarray(theta), z, least)
    still = jnp.zeros((1, sum(hierarchy.sizes) - size))
    plain = {"theta": free, "z": still, "steady": coordinates}
    plain |= {"stretch": jnp.eye(size), "bridge": jnp.zeros((*still.shape, size))}
    steepen = partial(whitening.steepen, hierarchy, arrays, plain)
    own, cross = np.split(steepen(np.eye(size, size + still.size)), [size], axis=1)

    def push(rows):
        return steepen(np.pad(rows, ((0, 0), (size, 0))))[:, size:]

    bridge = -krylov.solve(push, cross.T)
    schur = (own + own.T) / 2 + cross @ bridge
    # Departures are the same for either sign.
    bridge[:, hierarchy.is_signed[chosen]] = 0.0
    trusted = np.ones(size, bool) if told is None else np.asarray(told)[chosen]
    stretch = _root_of_inverse(schur, trusted)
    if path is not None:
        stretch = summarise(path[:, chosen], stretch)
    return Expansion(
        theta=free,
        z=still,
        stretch=jnp.asarray(stretch),
        bridge=jnp.asarray(bridge[None]),
        root=None,
        steady=coordinates,
    )


def expand_about(hierarchy: Hierarchy, arrays, path, z, least: int = 0):
    """Gaussian approximation from where a short chain went, (draw, galaxy).

    The sign of an amplitude is free, so its mean may be zero, where departures have no
    effect: coordinates are found at its root mean square.
    """
    chosen, mean = straight.sort(hierarchy).free, np.mean(path, axis=0)
    width = np.sqrt(np.mean(path**2, axis=0))
    theta = np.where(hierarchy.is_signed, width, mean)
    free = ~np.isin(np.arange(sum(hierarchy.sizes)), chosen)
    theta, z = descend(hierarchy, arrays, theta, z, free)
    found = expand_at(hierarchy, arrays, theta, z, path, least=least)
    return replace(found, theta=jnp.asarray(mean[chosen]))


def has_settled(
    hierarchy: Hierarchy, path, before: Expansion, after: Expansion
) -> bool:
    """Tell whether short chains stayed where their coordinates were found, together.

    Parameters
    ----------
    hierarchy : Hierarchy
    path : array, (chain, draw, galaxy)
    before, after : Expansion
        In whose coordinates they ran, and those found from where they went.
    """
    went = path[..., straight.sort(hierarchy).free].mean(axis=1)
    inverse = np.linalg.inv(np.asarray(after.stretch))
    away = (went.mean(axis=0) - np.asarray(before.theta)) @ inverse.T
    apart = np.ptp(went @ inverse.T, axis=0)
    return bool(np.abs(away).max() < AWAY and apart.max() < APART)


def _root_of_inverse(curvature, told):
    """Root of a covariance from curvature, as far as that may be trusted."""
    root = np.eye(len(curvature)) * WIDE
    inner = np.ix_(told, told)
    value, axes = np.linalg.eigh(curvature[inner])
    root[inner] = axes / np.sqrt(np.maximum(np.abs(value), 1.0))
    return root


def summarise(path, root):
    """Root of the covariance of ``theta`` by a short chain's path, (draw, galaxy).

    A short path tells variances to some 20 %, and correlations not all: it is shrunk
    towards what curvature says, of which ``root`` is the root.  A ridge is so narrow
    that shrinking towards no correlation would lose it.
    """
    white = np.linalg.solve(root, (path - path.mean(axis=0)).T)
    covariance = np.cov(white)
    shrunk = (1 - SHRINK) * covariance + SHRINK * np.eye(len(white))
    return root @ np.linalg.cholesky(shrunk)

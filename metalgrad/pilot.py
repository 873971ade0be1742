"""Where to start, and in which coordinates, when all spaxels hang together.

The latents of neighbours that share structure cannot be integrated out one spaxel at a
time.  But they are a few hundred, and given the galaxy's parameters nearly Gaussian:
L-BFGS finds their mode, and Hessian-vector products their curvature.  Where the
galaxy's parameters lie is told by the model without departures first, then by a short
run of the sampler itself.
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import scipy.optimize

from metalgrad.curvature import Expansion
from metalgrad.hierarchy import Hierarchy

LEAST = 1e-2  # curvature, where the prior's is 1
SLIGHT = 0.03  # change of a width that is not worth an axis
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


def first_guess(hierarchy: Hierarchy, arrays, key, starts: int = 6):
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
    theta : array, (galaxy,)
    z : array, (1, latent)
    told : array of bool, (galaxy,)
        What has an effect without departures.
    """
    points = hierarchy.prior_points(key, starts)
    z = jnp.zeros((1, hierarchy.sizes[1]))
    told = np.abs(np.asarray(_effect(hierarchy, arrays, points[0], z))) > 1e-9
    plain = [
        climb_down(hierarchy, arrays, jnp.where(told, point, points[0]), told)
        for point in points
    ]
    heights = [float(hierarchy.potential(arrays, theta, z)) for theta in plain]
    theta = plain[int(np.nanargmin(heights))]
    free = np.concatenate([told, np.ones(z.size, bool)])
    return *descend(hierarchy, arrays, theta, z, free), told


@partial(jax.jit, static_argnums=0)
def _effect(hierarchy, arrays, theta, z):
    """Slope of the log likelihood in ``theta``."""
    return jax.grad(lambda t: hierarchy.pointwise(arrays, t, z).sum())(theta)


@partial(jax.jit, static_argnums=0)
def _plain(hierarchy, arrays, theta):
    """Potential, slope and curvature of a galaxy without departures."""
    z = jnp.zeros((1, hierarchy.sizes[1]))

    def potential(t):
        return hierarchy.potential(arrays, t, z)

    return *jax.value_and_grad(potential)(theta), jax.hessian(potential)(theta)


def climb_down(hierarchy: Hierarchy, arrays, theta, told):
    """Move a galaxy without departures to the nearest mode, in steps it can trust.

    From a draw of the prior fluxes may be wrong by orders of magnitude, and an
    unguarded step from there leads anywhere.
    """
    start = np.array(theta)

    def look(moved):
        point = start.copy()
        point[told] = moved
        value, slope, bend = map(np.asarray, _plain(hierarchy, arrays, point))
        fine = (
            np.isfinite(value) and np.isfinite(slope).all() and np.isfinite(bend).all()
        )
        if not fine:
            return 1e15, np.zeros(told.sum()), np.eye(told.sum())
        return float(value), slope[told], bend[np.ix_(told, told)]

    last = {}

    def kept(x, part):
        if last.get("x") != x.tobytes():
            last.update(x=x.tobytes(), found=look(x))
        return last["found"][part]

    start[told] = scipy.optimize.minimize(
        partial(kept, part=0),
        start[told],
        jac=partial(kept, part=1),
        hess=partial(kept, part=2),
        method="trust-exact",
        options={"initial_trust_radius": 0.3, "max_trust_radius": 3.0, "maxiter": 100},
    ).x
    return jnp.asarray(start)


@partial(jax.jit, static_argnums=0)
def _curvature(hierarchy, arrays, theta, z):
    """Hessian of the potential in (theta, z)."""
    size = len(theta)

    def slope(point):
        t, latents = point[:size], point[None, size:]
        down = jax.grad(hierarchy.potential, argnums=(1, 2))(arrays, t, latents)
        return jnp.concatenate([down[0], down[1][0]])

    point = jnp.concatenate([theta, z[0]])

    def column(unit):
        return jax.jvp(slope, (point,), (unit,))[1]

    return jax.lax.map(column, jnp.eye(len(point)), batch_size=32)


def expand_at(hierarchy: Hierarchy, arrays, theta, z, covariance=None, told=None):
    """Gaussian approximation about a point that is a mode in ``z``.

    Parameters
    ----------
    hierarchy : Hierarchy
    arrays : dict
    theta : array, (galaxy,)
    z : array, (1, latent)
    covariance : array, (galaxy, galaxy), optional
        Of ``theta``, where known; from the curvature otherwise.
    told : array of bool, (galaxy,), optional
        For which of ``theta`` the curvature may be trusted.

    Returns
    -------
    Expansion
    """
    size = len(theta)
    hessian = np.asarray(_curvature(hierarchy, arrays, theta, z))
    value, axes = np.linalg.eigh(hessian[size:, size:])
    value = np.maximum(np.abs(value), LEAST)
    cross = axes.T @ hessian[size:, :size]
    bridge = -axes @ (cross / value[:, None])
    if covariance is None:
        schur = hessian[:size, :size] - cross.T @ (cross / value[:, None])
        told = np.ones(size, bool) if told is None else told
        covariance = np.eye(size) * WIDE**2
        inner = np.ix_(told, told)
        some, turn = np.linalg.eigh(schur[inner])
        covariance[inner] = (turn / np.maximum(np.abs(some), 1.0)) @ turn.T
    return Expansion(
        theta=jnp.asarray(theta),
        z=jnp.asarray(z),
        stretch=jnp.asarray(np.linalg.cholesky(covariance)),
        bridge=jnp.asarray(bridge[None]),
        root=_low_rank(value, axes),
        log_evidence=np.nan,
    )


def _low_rank(value, axes):
    """Root of the inverse of a matrix with these eigenvalues, as identity and more."""
    change = value**-0.5 - 1
    told = np.abs(change) > SLIGHT
    some = axes[:, told].T
    return jnp.asarray(change[told, None] * some), jnp.asarray(some)


def summarise(path):
    """Mean and covariance of a short chain's path, (draw, galaxy).

    A short path tells variances to some 20 %, and correlations not all: it is shrunk
    towards its own diagonal.
    """
    covariance = np.atleast_2d(np.cov(path, rowvar=False))
    diagonal = np.diag(np.diag(covariance) + 1e-6)
    return jnp.asarray(path.mean(axis=0)), 0.8 * covariance + 0.2 * diagonal

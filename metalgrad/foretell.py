"""How well each spaxel is foretold by all others, where they share structure.

Leave-one-out needs the density of a spaxel's data given those of the others and the
galaxy's parameters, ``p(y_s | y_-s, theta)``: it is the ratio of two posteriors of
``theta``, so importance sampling over draws of ``theta`` is exact.  The departures are
integrated out of it in the Gaussian approximation at their mode, where taking out one
spaxel is algebra: with whitened residuals ``r`` and the share ``V`` of their variance
that the fit has taken up, ``y_s ~ N(y_s - (1 - V)^-1 r, (1 - V)^-1)``.
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.linalg import cho_solve, solve_triangular
from jaxtyping import Array, Float

from metalgrad.hierarchy import LOG_2PI, Hierarchy
from metalgrad.steady import felt

STEPS = 6  # Gauss and Newton's, towards the mode, at most
CLOSE = 0.1  # of a prior's sd, ours: a step after which what data tell is as before
SHARES = np.array([1.0, 0.5, 0.2, 0.05, 0.0])  # of a step: the best is taken
LONGEST = 3.0  # step of one latent, in standard deviations of its prior


@partial(jax.jit, static_argnums=0)
def foretell(hierarchy: Hierarchy, arrays, steady, theta, z) -> Float[Array, " spaxel"]:
    """Log density of each spaxel's data given all others and ``theta``.

    Parameters
    ----------
    hierarchy : Hierarchy
        Whose spaxels are one unit.
    arrays : dict
    steady : dict
        As of `metalgrad.steady.find`, which knows where data tell nothing.
    theta : array, (galaxy,)
    z : array, (1, latent)
        Where to start towards the mode.
    """
    axes = felt(hierarchy, arrays, steady, theta)
    z, jacobian = _settle(hierarchy, arrays, theta, z, axes)
    seen = hierarchy.seen(arrays, theta, z)
    residual = seen.standardise(hierarchy.residuals(arrays, theta, z))
    flat = jacobian.reshape(len(jacobian), -1)
    half = solve_triangular(_root(jacobian), flat, lower=True)
    half = half.reshape(jacobian.shape)
    left = jnp.eye(residual.shape[1]) - jnp.einsum("zsr,zst->srt", half, half)
    lower = jnp.linalg.cholesky(left)
    error = solve_triangular(lower, residual[..., None], lower=True)[..., 0]
    volume = jnp.sum(jnp.log(jnp.diagonal(lower, axis1=1, axis2=2)), axis=1)
    return seen.log_density_at(jnp.sum(error**2, axis=-1)) + volume


@partial(jax.jit, static_argnums=0)
def log_evidence(hierarchy: Hierarchy, arrays, steady, theta, z) -> Float[Array, ""]:
    """Log of the joint density of data and ``theta``, departures integrated out.

    In the Gaussian approximation at their mode; parameters as of `foretell`.
    """
    axes = felt(hierarchy, arrays, steady, theta)
    z, jacobian = _settle(hierarchy, arrays, theta, z, axes)
    root = _root(jacobian)
    volume = 0.5 * z.size * LOG_2PI - jnp.sum(jnp.log(jnp.diagonal(root)))
    return volume - hierarchy.potential(arrays, theta, z)


def _settle(hierarchy, arrays, theta, z, axes):
    """Descend to the mode of the departures.

    Returns
    -------
    z : array, (1, latent)
    jacobian : array, (axis, spaxel, row)
        Slopes of the residuals in units of noise, where the last step began.
    """

    def is_away(state):
        count, size, *_ = state
        return (count < STEPS) & (size > CLOSE)

    def descend(state):
        count, _, z, _ = state
        slope = jax.grad(hierarchy.potential, argnums=2)(arrays, theta, z)[0]
        jacobian = _slopes(hierarchy, arrays, theta, z, axes)
        along = slope @ axes
        step = slope + axes @ (cho_solve((_root(jacobian), True), along) - along)
        tried = z - SHARES[:, None, None] * jnp.clip(step, -LONGEST, LONGEST)
        below = jax.vmap(partial(hierarchy.potential, arrays, theta))(tried)
        size = jnp.max(jnp.abs(step))
        return count + 1, size, tried[jnp.nanargmin(below)], jacobian

    blank = jnp.zeros((axes.shape[1], *arrays["white"].shape))
    start = 0, jnp.inf, z, blank
    return jax.lax.while_loop(is_away, descend, start)[2:]


def _slopes(hierarchy, arrays, theta, z, axes):
    """Slopes of the residuals in units of noise, (axis, spaxel, row)."""
    seen = hierarchy.seen(arrays, theta, z)

    def push(axis):
        look = partial(hierarchy.residuals, arrays, theta)
        return seen.standardise(jax.jvp(look, (z,), (axis[None],))[1])

    return jax.lax.map(push, axes.T, batch_size=16)


def _root(jacobian):
    """Lower root of the precision along the axes."""
    flat = jacobian.reshape(len(jacobian), -1)
    return jnp.linalg.cholesky(jnp.eye(len(flat)) + flat @ flat.T)

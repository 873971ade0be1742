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

STEPS = 4  # Gauss and Newton's, towards the mode
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
    z = _settle(hierarchy, arrays, theta, z, axes)
    seen, residual, jacobian = _expand(hierarchy, arrays, theta, z, axes)
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
    z = _settle(hierarchy, arrays, theta, z, axes)
    root = _root(_expand(hierarchy, arrays, theta, z, axes)[2])
    volume = 0.5 * z.size * LOG_2PI - jnp.sum(jnp.log(jnp.diagonal(root)))
    return volume - hierarchy.potential(arrays, theta, z)


def _settle(hierarchy, arrays, theta, z, axes):
    """Descend to the mode of the departures."""

    def descend(_, z):
        slope = jax.grad(hierarchy.potential, argnums=2)(arrays, theta, z)[0]
        root = _root(_expand(hierarchy, arrays, theta, z, axes)[2])
        along = slope @ axes
        step = slope + axes @ (cho_solve((root, True), along) - along)
        tried = z - SHARES[:, None, None] * jnp.clip(step, -LONGEST, LONGEST)
        below = jax.vmap(partial(hierarchy.potential, arrays, theta))(tried)
        return tried[jnp.nanargmin(below)]

    return jax.lax.fori_loop(0, STEPS, descend, z)


def _expand(hierarchy, arrays, theta, z, axes):
    """Distribution of the data, its residuals in units of noise, and their slopes."""

    def look(z):
        return hierarchy.residuals(arrays, theta, z)

    def push(axis):
        return jax.jvp(look, (z,), (axis[None],))[1]

    slopes = jax.lax.map(push, axes.T, batch_size=16)
    seen = hierarchy.seen(arrays, theta, z)
    return seen, seen.standardise(look(z)), jax.vmap(seen.standardise)(slopes)


def _root(jacobian):
    """Lower root of the precision along the axes."""
    flat = jacobian.reshape(len(jacobian), -1)
    return jnp.linalg.cholesky(jnp.eye(len(flat)) + flat @ flat.T)

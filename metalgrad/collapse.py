"""Spaxels integrated out: the posterior of a galaxy's parameters alone.

Given the galaxy's parameters each spaxel is a small problem of its own.  Newton's
method finds all their modes at once; the curvature there gives the marginal (Laplace),
its gradient, and a proposal from which importance sampling makes it exact.
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.linalg import solve_triangular

from metalgrad.hierarchy import Hierarchy

STEPS = np.array([1.0, 0.4, 0.1, 0.02, 0.0])  # of Newton's, tried in turn (ours)
TRIALS = 64  # random starts for each spaxel
STILL = 1e-6  # sd of the prior: a step that ends Newton's method, ours


def spaxel_curvature(hierarchy: Hierarchy, arrays, theta, z):
    """Gradient of each spaxel's log density in its latents, and its curvature's root.

    The curvature is Gauss and Newton's: that of whitened residuals that were linear in
    ``z``, plus the identity of the standard normal priors.  It is positive everywhere.

    Returns
    -------
    gradient : array, (spaxel, latent)
    root : array, (spaxel, latent, latent)
        Lower triangular ``C`` with ``C Cᵀ`` the negative Hessian.
    """
    value, jacobian = spaxel_jacobian(hierarchy, arrays, theta, z)
    gradient = -z - jnp.einsum("sr,srj->sj", value, jacobian)
    hessian = jnp.einsum("sri,srj->sij", jacobian, jacobian) + jnp.eye(z.shape[1])
    return gradient, jnp.linalg.cholesky(hessian)


def spaxel_jacobian(hierarchy: Hierarchy, arrays, theta, z):
    """Whitened residuals of each spaxel, and their slopes in its latents.

    Returns
    -------
    residual : array, (spaxel, line)
    jacobian : array, (spaxel, line, latent)
    """

    def residual(z):
        return hierarchy.residuals(arrays, theta, z)

    def column(unit):
        return jax.jvp(residual, (z,), (jnp.broadcast_to(unit, z.shape),))

    return jax.vmap(column, out_axes=(None, -1))(jnp.eye(z.shape[1]))


def solve(root, vector):
    """Solve with the spaxels' Hessians, given their roots; (spaxel, latent)."""
    half = solve_triangular(root, vector[..., None], lower=True)
    return solve_triangular(root, half, lower=True, trans=1)[..., 0]


def climb(hierarchy: Hierarchy, arrays, theta, z):
    """One Newton step in every spaxel, each with the length that serves it best."""
    step = solve(*spaxel_curvature(hierarchy, arrays, theta, z)[::-1])
    size = jnp.linalg.norm(step, axis=1, keepdims=True)
    step = step * jnp.minimum(1.0, 3.0 / (size + 1e-12))
    trials = z + jnp.asarray(STEPS)[:, None, None] * step
    density = jax.vmap(lambda t: hierarchy.densities(arrays, theta, t)[1])(trials)
    best = jnp.argmax(jnp.nan_to_num(density, nan=-jnp.inf), axis=0)
    return jnp.take_along_axis(trials, best[None, :, None], axis=0)[0]


def scatter_start(hierarchy: Hierarchy, arrays, theta, key):
    """Start each spaxel's latents at the best of some draws from their prior."""
    count, width = len(arrays["white"]), hierarchy.sizes[1]
    draws = jax.random.normal(key, (TRIALS, width)).at[0].set(0.0)
    trials = jnp.broadcast_to(draws[:, None], (TRIALS, count, width))
    density = jax.vmap(lambda t: hierarchy.densities(arrays, theta, t)[1])(trials)
    best = jnp.argmax(jnp.nan_to_num(density, nan=-jnp.inf), axis=0)
    return draws[best]


def relax(hierarchy: Hierarchy, arrays, theta, z, steps):
    """Take Newton steps in every spaxel until none moves, at most ``steps``."""

    def is_moving(state):
        count, moved, _ = state
        return (count < steps) & (moved > STILL)

    def move(state):
        count, _, z = state
        ahead = climb(hierarchy, arrays, theta, z)
        return count + 1, jnp.max(jnp.abs(ahead - z)), ahead

    return jax.lax.while_loop(is_moving, move, (0, jnp.inf, z))[2]


@partial(jax.jit, static_argnums=0)
def collapse(hierarchy: Hierarchy, arrays, theta, z, steps):
    """Potential of ``theta`` with the spaxels' latents integrated out (Laplace).

    The mode of the *joint* density is of no use: by letting a scatter grow, hundreds of
    standardised offsets shrink together.  The marginal has no such hole.

    Parameters
    ----------
    hierarchy : Hierarchy
    arrays : dict
    theta : array, (galaxy,)
    z : array, (spaxel, latent)
        Where to start towards the spaxels' modes.
    steps : int
        Newton steps towards them, at most.

    Returns
    -------
    potential : float
    gradient : array, (galaxy,)
    z : array, (spaxel, latent)
        The spaxels' modes.
    """
    z = relax(hierarchy, arrays, theta, z, steps)
    _, root = spaxel_curvature(hierarchy, arrays, theta, z)
    inverse = jnp.moveaxis(inverse_root(root), -1, 0)

    def trace(theta, z):
        """Σ_s tr(H₀⁻¹ H): its gradient is that of the log determinant at H₀ = H."""

        def bend(direction):
            residual = partial(hierarchy.residuals, arrays, theta)
            return jnp.sum(jax.jvp(residual, (z,), (direction,))[1] ** 2)

        return jnp.sum(jax.vmap(bend)(inverse))

    def slopes(z):
        """Slopes of the joint potential, and its value."""
        height = jax.value_and_grad(hierarchy.potential, argnums=(1, 2))
        return height(arrays, theta, z)[::-1]

    (down, _), push, potential = jax.linearize(slopes, z, has_aux=True)
    direct, through_z = jax.grad(trace, argnums=(0, 1))(theta, z)
    indirect = push(_solve_exactly(push, through_z))[0]
    diagonal = jnp.diagonal(root, axis1=1, axis2=2)
    potential += jnp.sum(jnp.log(diagonal)) - 0.5 * z.size * jnp.log(2 * jnp.pi)
    return potential, down + 0.5 * (direct - indirect), z


def _solve_exactly(push, vector):
    """Solve with the spaxels' true Hessians, column by column; (spaxel, latent)."""

    def column(unit):
        return push(jnp.broadcast_to(unit, vector.shape))[1]

    hessian = jax.vmap(column, out_axes=-1)(jnp.eye(vector.shape[1]))
    return jnp.linalg.solve(hessian, vector[..., None])[..., 0]


def inverse_root(root):
    """``C⁻ᵀ``, which takes white noise to the spaxels' Gaussian approximations."""
    eye = jnp.broadcast_to(jnp.eye(root.shape[-1]), root.shape)
    return solve_triangular(root, eye, lower=True, trans=1)


def heavy_noise(key, shape, draws: int = 64, freedom: float = 8.0):
    """Draws of a multivariate Student t in each spaxel, for importance sampling.

    Parameters
    ----------
    key : jax.Array
    shape : tuple of int
        (spaxel, latent)
    draws : int
    freedom : float

    Returns
    -------
    noise : array, (draw, spaxel, latent)
    log_density : array, (draw, spaxel)
    """
    key_normal, key_chi = jax.random.split(key)
    normal = jax.random.normal(key_normal, (draws // 2, *shape))
    chi = 2 * jax.random.gamma(key_chi, freedom / 2, (draws // 2, shape[0], 1))
    half = normal * jnp.sqrt(freedom / chi)
    noise = jnp.concatenate([half, -half])  # antithetic
    gammaln, width = jax.scipy.special.gammaln, shape[1]
    log_density = gammaln((freedom + width) / 2) - gammaln(freedom / 2)
    log_density -= 0.5 * width * jnp.log(freedom * jnp.pi)
    square = jnp.sum(noise**2, axis=-1)
    return noise, log_density - 0.5 * (freedom + width) * jnp.log1p(square / freedom)


def spaxel_evidence(hierarchy: Hierarchy, arrays, theta, z, noise):
    """Likelihood of each spaxel with its own latents integrated out.

    Importance sampling from the Laplace approximation, with heavier tails.

    Parameters
    ----------
    hierarchy : Hierarchy
    arrays : dict
    theta : array, (galaxy,)
    z : array, (spaxel, latent)
        Where to start towards the mode.
    noise : tuple of arrays
        As `heavy_noise` returns.

    Returns
    -------
    array, (spaxel,)
        log p(y_s | theta).
    """
    white, log_proposal = noise
    z = relax(hierarchy, arrays, theta, z, 3)
    _, root = spaxel_curvature(hierarchy, arrays, theta, z)
    stretch = jnp.sum(jnp.log(jnp.diagonal(root, axis1=1, axis2=2)), axis=1)
    points = z + jnp.einsum("sij,dsj->dsi", inverse_root(root), white)
    joint = jax.vmap(lambda p: hierarchy.densities(arrays, theta, p)[1])(points)
    log_weight = joint - log_proposal - stretch
    return jax.scipy.special.logsumexp(log_weight, axis=0) - jnp.log(len(points))

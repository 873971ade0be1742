"""What data tell of a galaxy's normals and waves, as if residuals were linear in both.

The curvature is Gauss and Newton's: that of the data alone, which is never negative.
"""

from functools import partial

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from metalgrad import straight
from metalgrad.hierarchy import Hierarchy

FAINT = 0.1  # of a flux over what it was, ours: above it the logarithm is followed


@partial(jax.jit, static_argnums=0)
def stack(hierarchy: Hierarchy, arrays, theta, z) -> Float[Array, " unit"]:
    """Put the galaxy's normals and the departures in one row."""
    return jnp.concatenate([straight.standardise(hierarchy, arrays, theta), z[0]])


@partial(jax.jit, static_argnums=0)
def measure(hierarchy: Hierarchy, arrays, theta, z) -> Float[Array, "unit unit"]:
    """Information on normals and departures, where their prior's is the identity.

    Parameters
    ----------
    hierarchy : Hierarchy
        Whose spaxels are one unit.
    arrays : dict
    theta : array, (galaxy,)
    z : array, (1, latent)
    """
    push = _slopes(hierarchy, arrays, theta, z)
    unit = stack(hierarchy, arrays, theta, z)
    pull = jax.linear_transpose(push, unit)
    return jax.lax.map(lambda axis: pull(push(axis))[0], jnp.eye(len(unit)))


@partial(jax.jit, static_argnums=0)
def weigh_light(hierarchy: Hierarchy, arrays, theta, z, axes):
    """Weights of each log flux in what data tell along orthogonal ``axes``.

    Parameters
    ----------
    hierarchy, arrays, theta, z
        As for `measure`.
    axes : array, (axis, unit)

    Returns
    -------
    array, (axis, spaxel * line)
        Not yet in units of the information along an axis.
    """
    push = _slopes(hierarchy, arrays, theta, z)
    seen = hierarchy.seen(arrays, theta, z)

    def glow(log_flux):  # whitened residuals hang on fluxes linearly
        flux = seen.flux * log_flux.reshape(seen.flux.shape)
        there = type(seen)(seen.data, flux, seen.noise_scale, seen.clumpiness)
        return seen.standardise(there.residuals(jnp.zeros_like(arrays["white"])))

    back = jax.linear_transpose(glow, jnp.zeros(seen.flux.size, seen.flux.dtype))
    return jax.lax.map(lambda axis: back(push(axis))[0], axes)


def _slopes(hierarchy, arrays, theta, z):
    """Make the map from a shift of normals and departures to whitened residuals."""
    free = theta[straight.sort(hierarchy).free]
    unit = stack(hierarchy, arrays, theta, z)
    count, seen = unit.size - z.size, hierarchy.seen(arrays, theta, z)

    def look(unit):
        theta, _ = straight.join(hierarchy, arrays, free, unit[:count])
        return hierarchy.residuals(arrays, theta, unit[None, count:])

    slope = jax.linearize(look, unit)[1]
    return lambda axis: seen.standardise(slope(axis))


def brighten(flux, bright):
    """Natural log of fluxes over those that were ``bright``, (spaxel * line,).

    Both are (spaxel, line), of any one unit.  A spline may undershoot, and of what is
    below 0 there is no logarithm: below `FAINT` it goes on along its tangent, for its
    own slope, without bound, had made every step too long.
    """
    ratio = flux / jnp.where(bright == 0, 1.0, bright)
    tangent = ratio / FAINT - 1 + jnp.log(FAINT)
    log_ratio = jnp.log(jnp.maximum(ratio, FAINT))
    bent = jnp.where(ratio > FAINT, log_ratio, tangent)
    return jnp.ravel(jnp.where(bright > 0, bent, ratio - 1))


@partial(jax.jit, static_argnums=0)
def bend(hierarchy: Hierarchy, arrays, theta, z, weights):
    """How weighted log fluxes hang on what is free or leads, to second order.

    All else stays as it is, amplified departures among it.  Departures add to log
    fluxes: in these one takes back another for good, in fluxes only to first order.

    Parameters
    ----------
    hierarchy, arrays, theta, z
        As for `measure`.
    weights : array, (axis, spaxel * line)
        As of `weigh_light`.

    Returns
    -------
    slope : array, (axis, told)
        What is free, and after it what leads in units of its prior.
    curve : array, (axis, told, told)
        Half the second derivative.
    """
    order = straight.sort(hierarchy)
    count = len(order.free)
    mean, width, before = hierarchy.scales(arrays, theta)
    mean, width = mean[order.leading], width[order.leading]
    bright = hierarchy.seen(arrays, theta, z).flux

    def look(told):
        there = theta.at[order.free].set(told[:count])
        there = there.at[order.leading].set(mean + width * told[count:])
        now = hierarchy.scales(arrays, there)[2]
        kept = z * jnp.where(now == 0, 0.0, before / jnp.where(now == 0, 1.0, now))
        return weights @ brighten(hierarchy.seen(arrays, there, kept).flux, bright)

    told = jnp.concatenate([theta[order.free], (theta[order.leading] - mean) / width])
    axes = jnp.eye(len(told))

    def slope(told):
        return jax.lax.map(lambda axis: jax.jvp(look, (told,), (axis,))[1], axes).T

    slopes, curve = jax.lax.map(lambda axis: jax.jvp(slope, (told,), (axis,)), axes)
    return slopes[0], 0.5 * jnp.moveaxis(curve, 0, -1)

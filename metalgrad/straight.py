"""Which of a galaxy's parameters are as good as departures: normal, and straight.

What is normal before the data, adds to them, and amplifies nothing, is to the data what
a wave is: they tell combinations of both.  Coordinates that treat them alike know how
well a slope is told at any scatter, which a metric does not.
"""

from dataclasses import dataclass
from functools import lru_cache, partial
from math import prod

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from metalgrad.hierarchy import Hierarchy


@dataclass(frozen=True, eq=False)
class Order:
    """Where each of ``theta`` belongs.

    Attributes
    ----------
    free : array of int
        What is not normal, or amplifies: scatters, lengths, dust, noise.
    leading : array of int
        Normals of a prior that is fixed: level, slope, brightness.
    scaled : array of int
        Normals of one that hangs on others, as a galaxy's shared dispersion does.
    ahead, behind : array of int
        Of the scaled ones and the departures after them: which are placed first, as
        log fluxes bend with them, and all others.
    """

    free: Int[np.ndarray, " free"]
    leading: Int[np.ndarray, " leading"]
    scaled: Int[np.ndarray, " scaled"]
    ahead: Int[np.ndarray, " ahead"]
    behind: Int[np.ndarray, " behind"]

    @property
    def normals(self) -> Int[np.ndarray, " normal"]:
        """The leading ones, and after them the scaled ones."""
        return np.concatenate([self.leading, self.scaled])

    @property
    def others(self) -> Int[np.ndarray, " other"]:
        """Those ahead, and after them those behind."""
        return np.concatenate([self.ahead, self.behind])


@lru_cache(maxsize=32)
def sort(hierarchy: Hierarchy) -> Order:
    """Sort the galaxy's parameters by what the model does with them.

    Parameters
    ----------
    hierarchy : Hierarchy
        Whose spaxels are one unit.
    """
    with jax.ensure_compile_time_eval():  # a trace may be under way
        # Nothing is 0 there.
        given = hierarchy.data.arrays, jnp.linspace(0.1, 0.2, hierarchy.sizes[0])
    look = _slopes.lower(hierarchy, *given).compile()
    with jax.ensure_compile_time_eval():
        slopes, width = look(*given)
    slopes, width = [np.asarray(s) != 0 for s in slopes], np.asarray(width)
    amplifies = slopes[2].any(axis=0)
    normal = (width > 0) & hierarchy.is_plain & ~hierarchy.is_signed & ~amplifies
    normal &= not normal.all()  # a sampler wants some that are free
    is_scaled = (slopes[0] | slopes[1]).any(axis=1)
    waves = [np.full(prod(s), n in hierarchy.ahead) for n, s in hierarchy.unit.items()]
    ahead = np.concatenate([np.zeros((normal & is_scaled).sum(), bool), *waves])
    parts = ~normal, normal & ~is_scaled, normal & is_scaled, ahead, ~ahead
    return Order(*map(np.flatnonzero, parts))


@partial(jax.jit, static_argnums=0)
def _slopes(hierarchy, arrays, theta):
    """How all scales hang on ``theta``, and widths of the galaxy's normals."""

    def look(theta):
        scales = hierarchy.scales(arrays, theta)
        return scales, scales[1]

    return jax.jacfwd(look, has_aux=True)(theta)


@partial(jax.jit, static_argnums=0)
def standardise(hierarchy: Hierarchy, arrays, theta) -> Float[Array, " normal"]:
    """Return the galaxy's normals in units of their priors, leading ones first.

    Parameters
    ----------
    hierarchy : Hierarchy
    arrays : dict
    theta : array, (galaxy,)
    """
    normals = sort(hierarchy).normals
    mean, width, _ = hierarchy.scales(arrays, theta)
    return (theta[normals] - mean[normals]) / width[normals]


def join(hierarchy: Hierarchy, arrays, free, normals):
    """Undo `standardise`, given what is free.

    Returns
    -------
    theta : array, (galaxy,)
    log_volume : float
        Log of the volume of ``theta`` over that of ``free`` and ``normals``.
    """
    theta = spread(hierarchy, free)
    mean, width, _ = hierarchy.scales(arrays, theta)
    return raise_to(sort(hierarchy), theta, mean, width, normals)


def spread(hierarchy: Hierarchy, free) -> Float[Array, " galaxy"]:
    """Put what is free in its places, and nothing elsewhere."""
    theta = jnp.zeros(hierarchy.sizes[0], free.dtype)
    return theta.at[sort(hierarchy).free].set(free)


def raise_to(order: Order, theta, mean, width, normals):
    """Add normals of some mean and width, (galaxy,), as `join` returns them."""
    width = width[order.normals]
    theta = theta.at[order.normals].set(mean[order.normals] + width * normals)
    return theta, jnp.sum(jnp.log(width))

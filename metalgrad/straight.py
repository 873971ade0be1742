"""Which of a galaxy's parameters are as good as departures: normal, and straight.

What is normal before the data, adds to them, and amplifies nothing, is to the data what
a wave is: they tell combinations of both.  Coordinates that treat them alike know how
well a slope is told at any scatter, which a metric does not.
"""

from dataclasses import dataclass
from functools import lru_cache

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
    """

    free: Int[np.ndarray, " free"]
    leading: Int[np.ndarray, " leading"]
    scaled: Int[np.ndarray, " scaled"]

    @property
    def normals(self) -> Int[np.ndarray, " normal"]:
        """The leading ones, and after them the scaled ones."""
        return np.concatenate([self.leading, self.scaled])


@lru_cache(maxsize=32)
def sort(hierarchy: Hierarchy) -> Order:
    """Sort the galaxy's parameters by what the model does with them.

    Parameters
    ----------
    hierarchy : Hierarchy
        Whose spaxels are one unit.
    """
    data, size = hierarchy.data.arrays, hierarchy.sizes[0]

    def look(theta):
        widths = hierarchy.standards(data, theta)
        return *widths, jnp.ravel(hierarchy.amplitudes(data, theta))

    somewhere = jnp.linspace(0.1, 0.2, size)  # no amplitude is 0, nor is its slope
    with jax.ensure_compile_time_eval():  # a trace may be under way
        width = np.asarray(look(somewhere)[1])
        slopes = [np.asarray(s) != 0 for s in jax.jacobian(look)(somewhere)]
    amplifies = slopes[2].any(axis=0)
    normal = (width > 0) & hierarchy.is_plain & ~hierarchy.is_signed & ~amplifies
    normal &= not normal.all()  # a sampler wants some that are free
    is_scaled = (slopes[0] | slopes[1]).any(axis=1)
    parts = ~normal, normal & ~is_scaled, normal & is_scaled
    return Order(*map(np.flatnonzero, parts))


def standardise(hierarchy: Hierarchy, arrays, theta) -> Float[Array, " normal"]:
    """Return the galaxy's normals in units of their priors, leading ones first.

    Parameters
    ----------
    hierarchy : Hierarchy
    arrays : dict
    theta : array, (galaxy,)
    """
    normals = sort(hierarchy).normals
    mean, width = (part[normals] for part in hierarchy.standards(arrays, theta))
    return (theta[normals] - mean) / width


def join(hierarchy: Hierarchy, arrays, free, normals):
    """Undo `standardise`, given what is free.

    Returns
    -------
    theta : array, (galaxy,)
    log_volume : float
        Log of the volume of ``theta`` over that of ``free`` and ``normals``.
    """
    order = sort(hierarchy)
    theta = jnp.zeros(hierarchy.sizes[0], free.dtype).at[order.free].set(free)
    standards = hierarchy.standards(arrays, theta)
    mean, width = (part[order.normals] for part in standards)
    theta = theta.at[order.normals].set(mean + width * normals)
    return theta, jnp.sum(jnp.log(width))

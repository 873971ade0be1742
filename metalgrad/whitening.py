"""The posterior in a sampler's coordinates: white noise, where it is nearly a sphere.

From white noise an affine map leads to what is free and to coordinates that keep still,
and `metalgrad.steady` or `metalgrad.settled` from there to the galaxy.
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from metalgrad import settled, steady
from metalgrad.hierarchy import Hierarchy
from metalgrad.threads import side_by_side

STEP = 5e-4  # of white coordinates
WEIGHTS = {1: 8 / 12, 2: -1 / 12}  # by steps: good to fourth order


def unwhiten(affine, eta, xi):
    """Apply the affine map of an `Expansion`, given its ``arrays``.

    Parameters
    ----------
    affine : dict
    eta : array, (galaxy,)
    xi : array, (unit, latent)

    Returns
    -------
    theta : array, (galaxy,)
    still : array, (unit, latent)
    """
    step = affine["stretch"] @ eta
    bridge = affine["bridge"].reshape(-1, step.size)  # one matrix product is quickest
    centre = affine["z"] + (bridge @ step).reshape(xi.shape)
    if "root" in affine:
        xi = jnp.einsum("sij,sj->si", affine["root"], xi)
    return affine["theta"] + step, centre + xi


def place(hierarchy: Hierarchy, arrays, affine, theta, still):
    """Take coordinates that keep still to the galaxy, the latents, and log volume.

    Parameters
    ----------
    hierarchy : Hierarchy
    arrays : dict
    affine : dict
        As of `metalgrad.curvature.Expansion.arrays`.
    theta : array
        What is free.
    still : array, (unit, latent)
    """
    if hierarchy.coupled:
        return steady.place(hierarchy, arrays, affine["steady"], theta, still)
    return theta, *settled.place(hierarchy, arrays, affine["steady"], theta, still)


def reach(hierarchy: Hierarchy, arrays, affine, white: dict):
    """Take white coordinates, ``galaxy`` and ``spaxel``, to where `place` ends."""
    still = unwhiten(affine, white["galaxy"], white["spaxel"])
    return place(hierarchy, arrays, affine, *still)


def _height(hierarchy, arrays, affine, white):
    theta, z, log_volume = reach(hierarchy, arrays, affine, white)
    return hierarchy.potential(arrays, theta, z) - log_volume


@partial(jax.jit, static_argnums=0)
def climb(hierarchy: Hierarchy, arrays, affine, white: dict):
    """Negative log density at white coordinates, and its slope along them.

    It is most of any program that samples, and traced once for all of them.

    Returns
    -------
    value : float
    slope : dict
        As ``white``.
    """
    return jax.value_and_grad(_height, argnums=3)(hierarchy, arrays, affine, white)


def steepen(
    hierarchy: Hierarchy, arrays, affine, along: Float[np.ndarray, "change all"]
) -> Float[np.ndarray, "change all"]:
    """How slopes change in some directions from the origin, by differences.

    A program of second derivatives would take longer to compile than this to run.

    Parameters
    ----------
    hierarchy, arrays, affine
        As for `place`.
    along : array, (change, all)
        Steps of white coordinates, the galaxy's first, and the others' in a line.

    Returns
    -------
    numpy.ndarray
        ``along`` times the second derivatives.
    """
    size, shape = affine["theta"].size, affine["z"].shape

    def slope(white):
        white = {"galaxy": white[:size], "spaxel": white[size:].reshape(shape)}
        found = climb(hierarchy, arrays, affine, white)[1]
        return np.concatenate([np.ravel(found["galaxy"]), np.ravel(found["spaxel"])])

    def change(one):
        step = STEP * one
        each = ((slope(n * step) - slope(-n * step), w) for n, w in WEIGHTS.items())
        return sum(difference * w for difference, w in each) / STEP

    return np.stack(side_by_side(change, along))

"""Spaxels that are on one branch of a calibration or on the other, each for itself.

Where metallicities scatter about the turn of a ratio, data leave a spaxel two of them,
and no local sampler goes from one to the other.  Given the galaxy spaxels know nothing
of each other, so all can choose at once: each has its leading latent drawn anew from a
ring of candidates, equally spaced in the prior's quantiles, one of which is where it
is.  Rings are the orbits of a rotation, so whichever member one begins from, it is the
same ring, and to draw a member by its density leaves the posterior as it is (Liu &
Sabatti 2000, Biometrika 87, 353).  What follows from the metallicity follows it, since
the coordinates of `metalgrad.settled` are kept.
"""

import jax
import jax.numpy as jnp
from jax import random
from jax.scipy.special import ndtr, ndtri
from jax.scipy.stats import norm

from metalgrad import settled, whitening
from metalgrad.hierarchy import Hierarchy

RING = 16  # candidates: a sixth of the prior's sd apart, and more in its wings (ours)
EDGE = 1e-12  # of quantiles that are told from 0 and 1: 7 sd (ours)


def hop(hierarchy: Hierarchy, arrays, affine, key, white: dict) -> dict:
    """Draw each spaxel's leading latent from a ring of candidates.

    Parameters
    ----------
    hierarchy : Hierarchy
        Whose spaxels are units of their own, with a leading latent.
    arrays : dict
    affine : dict
        As of `metalgrad.curvature.Expansion.arrays`.
    key : jax.Array
    white : dict
        A sampler's coordinates, ``galaxy`` and ``spaxel``.

    Returns
    -------
    dict
        The same, of a point that is distributed as the posterior where ``white`` is.
    """
    lead = hierarchy.leading
    theta, still = whitening.unwhiten(affine, white["galaxy"], white["spaxel"])

    def place(first):
        at = still.at[:, lead].set(first)
        return settled.place(hierarchy, arrays, affine["steady"], theta, at)[0]

    origin, one = (place(jnp.full(len(still), v))[:, lead] for v in (0.0, 1.0))
    slope = one - origin  # the latent is linear in its coordinate
    here = ndtr(origin + slope * still[:, lead])
    turns = jnp.arange(RING)[:, None] / RING
    ring = ndtri(jnp.clip((here + turns) % 1.0, EDGE, 1 - EDGE))
    ring = (ring - origin) / slope

    def weigh(first):
        """Log of the density, over that of the quantiles in which rings are even."""
        z = place(first)
        return hierarchy.densities(arrays, theta, z)[1] - norm.logpdf(z[:, lead])

    weights = jax.lax.map(weigh, ring)
    chosen = random.categorical(key, weights, axis=0)
    moved = jnp.take_along_axis(ring, chosen[None], axis=0)[0] - still[:, lead]
    outside = jnp.abs(here - 0.5) > 0.5 - EDGE  # on no ring
    moved = jnp.where((chosen == 0) | outside, 0.0, moved)
    return white | {"spaxel": white["spaxel"] + _whiten(affine["root"], lead, moved)}


def _whiten(root, lead, moved):
    """Take a step of one still coordinate to white ones, if columns are normal."""
    along = root[:, lead] / jnp.square(root).sum(axis=1)
    return along * moved[:, None]

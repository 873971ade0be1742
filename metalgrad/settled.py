"""Coordinates that keep still, as those of `steady`, for spaxels each on its own.

What varies from spaxel to spaxel is a mean, set by the galaxy's parameters, plus an
amplitude times a standard normal.  Of a bright spaxel the data tell the sum: when mean
or amplitude move, the normal must follow, and a sampler of both is caught in a narrow
valley; of a faint one they tell nothing, and the normal is free.  Here the data's
coordinates are drawn: the normals follow from them by the posterior's mean and the root
of its covariance, were the data linear in the sums, and densities are made exact by the
volume that is returned.

The sum may be a function of another latent that is drawn before it: a ratio departs
from what its calibration says of a spaxel's own metallicity.  That *leading* latent is
placed first, by what the data tell of it when all others are integrated out, and the
others given it; so the curve of a calibration bends no valley.  The curve is taken for
its tangent where the leading latent is at the mode, an *anchor* that stays there.  One
that is *bent* (`metalgrad.bends`) is placed next.

All that data tell is a small matrix for each spaxel, the information on its sums.  Of a
bright one differences of large numbers are taken: at an S/N of 10⁴ means and
covariances are still good to 1e-6.
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax.nn import sigmoid, softplus

from metalgrad import bends, small
from metalgrad.collapse import spaxel_jacobian
from metalgrad.hierarchy import Hierarchy


def place(hierarchy: Hierarchy, arrays, settled, theta, still):
    """Take ``still`` coordinates to latents.

    Parameters
    ----------
    hierarchy : Hierarchy
        Whose spaxels are units of their own.
    arrays : dict
    settled : dict
        As of `find`.
    theta : array, (galaxy,)
    still : array, (spaxel, latent)

    Returns
    -------
    z : array, (spaxel, latent)
    log_volume : float
        Log of the volume of ``z`` over that of ``still``.
    """
    lead, bent = hierarchy.leading, hierarchy.bent
    mean, amplitude = _locate(hierarchy, arrays, theta, jnp.zeros_like(still))
    told, toward = settled["told"], settled["toward"]
    still = small.entries(still.T)
    each = range(len(still))
    others = [k for k in each if k not in (lead, bent)]
    size = [amplitude[k] for k in others]
    known = told[np.ix_(others, others)]
    lower = [[a * b * row[j] for j, b in enumerate(size[: k + 1])]
             for k, (a, row) in enumerate(zip(size, known, strict=True))]  # fmt: skip
    root = small.factor(lower)
    volume = -small.log_volume(root)

    def weigh(column):
        """Take what is told of all to what it tells of others, one by one."""
        own = (column[k] for k in others)
        return small.solve_lower(root, [a * v for a, v in zip(size, own, strict=True)])

    def depart(mean):
        """Tell what the data say about departures from ``mean``, of all."""
        about = [mean[k] for k in others]
        rows = ([told[j, k] for k in others] for j in each)
        return [t - small.dot(row, about) for t, row in zip(toward, rows, strict=True)]

    if bent is not None:
        across = weigh(told[bent])
        precise = _beyond(told[bent, bent], across)
    if lead is not None:
        along = weigh([amplitude[lead] * told[lead, k] for k in each])
        anchor = small.divide(settled["anchor"], amplitude[lead])
        left = depart(_follow(hierarchy, arrays, theta, anchor))
        seen, curve = weigh(left), None
        alone = _beyond(amplitude[lead] ** 2 * told[lead, lead], along)
        pull = amplitude[lead] * left[lead] - small.dot(along, seen)
        if bent is not None:
            shared = amplitude[lead] * told[lead, bent] - small.dot(along, across)
            at_anchor = left[bent] - small.dot(across, seen)
            curve = shared, precise, at_anchor, mean[bent], amplitude[bent]
        still[lead], change = _place_leading(alone, pull, anchor, curve, still[lead])
        volume += change
        mean = _follow(hierarchy, arrays, theta, still[lead])
    left = depart(mean)
    seen = weigh(left)
    if bent is not None:
        about = left[bent] - small.dot(across, seen), mean[bent], amplitude[bent]
        still[bent], value, change = bends.place(precise, *about, still[bent])
        seen = [one - a * value for one, a in zip(seen, across, strict=True)]
        volume += change
    drawn = [one + still[k] for one, k in zip(seen, others, strict=True)]
    for k, one in zip(others, small.solve_upper(root, drawn), strict=True):
        still[k] = one
    return jnp.stack(still, axis=1), jnp.sum(volume)


def _beyond(whole, others):
    """Tell what is told of one when others are integrated out: at least nothing."""
    return small.once(jnp.maximum(whole - small.dot(others, others), 0.0))


def _locate(hierarchy, arrays, theta, z):
    """Mean and amplitude of each latent: vectors, as of `metalgrad.small`."""
    found = hierarchy.locate(arrays, theta, z)
    return tuple(small.entries(values.T) for values in found)


def _follow(hierarchy, arrays, theta, first):
    """Mean of each latent, given the leading one: no other sets a mean."""
    alone = jnp.zeros((len(first), hierarchy.sizes[1])).at[:, hierarchy.leading]
    return _locate(hierarchy, arrays, theta, alone.set(first))[0]


def _place_leading(alone, pull, anchor, curve, still):
    """Place one latent, all others integrated out; with the log volume of it.

    Data tell it with information ``alone``, and pull with ``pull`` at its anchor.  What
    is bent is taken for its tangent where it rests.
    """
    precision, toward = 1 + alone, pull + alone * anchor
    if curve is not None:
        shared, precise, at_anchor, mean, amplitude = curve
        z, value, slope = bends.rest(mean, amplitude, precise, at_anchor)
        width = small.once(1 + slope**2 * precise)
        beyond = value - slope * z  # of the tangent, at 0
        own = slope * (at_anchor + shared * anchor - precise * beyond)
        toward -= shared * beyond + slope * shared * own / width
        precision -= (slope * shared) ** 2 / width
    precision = small.once(jnp.maximum(precision, 1.0))
    found = toward / precision + still / jnp.sqrt(precision)
    return small.once(found), -0.5 * jnp.log(precision)


def blank(hierarchy: Hierarchy) -> dict:
    """Return the keys of `find`, around nothing."""
    del hierarchy
    return {"told": np.zeros(0), "toward": np.zeros(0), "anchor": np.zeros(0)}


@partial(jax.jit, static_argnums=0)
def find(hierarchy: Hierarchy, arrays, theta, z) -> dict:
    """Choose coordinates by what the data tell about ``z``, the mode at ``theta``.

    Returns
    -------
    dict
        ``told`` (latent, latent, spaxel), information on the sums; ``toward`` (latent,
        spaxel), it times what they would be, were the data linear; ``anchor``
        (spaxel,), departure of the leading latent about which others' means are taken
        to be so.  A latent whose amplitude is not told, or is 0, is left as it is.
    """
    residual, jacobian = spaxel_jacobian(hierarchy, arrays, theta, z)
    mean, amplitude = hierarchy.locate(arrays, theta, z)
    sums, anchor = mean + amplitude * z, jnp.zeros(len(z))
    if (bent := hierarchy.bent) is not None:  # what is told is its softplus
        amplitude = amplitude.at[:, bent].multiply(sigmoid(sums[:, bent]))
        sums = sums.at[:, bent].set(softplus(sums[:, bent]))
    rows = small.divide(jacobian, amplitude[:, None])
    if hierarchy.leading is not None:  # the others' means hold what it does
        anchor = sums[:, hierarchy.leading]
        sums = sums.at[:, hierarchy.leading].set(0.0)
    data = jnp.einsum("srl,sl->sr", rows, sums) - residual
    return {
        "told": jnp.einsum("srk,srl->kls", rows, rows),
        "toward": jnp.einsum("srk,sr->ks", rows, data),
        "anchor": anchor,
    }

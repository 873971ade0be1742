"""Coordinates that keep still, as those of `steady`, for spaxels each on its own.

What varies from spaxel to spaxel is a mean, set by the galaxy's parameters, plus an
amplitude times a standard normal.  Of a bright spaxel the data tell the sum: when mean
or amplitude move, the normal must follow, and a sampler of both is caught in a narrow
valley; of a faint one they tell nothing, and the normal is free.  Here the data's
coordinates are drawn: the normals follow from them by the mean of a Kalman filter and
the root of its covariance, exact for data that are linear in the sums, and made exact
for any by the volume that is returned.

The sum may be a function of another latent that is drawn before it: a ratio departs
from what its calibration says of a spaxel's own metallicity.  That *leading* latent is
placed first, by what the data tell of it when all others are integrated out, and the
others given it; so the curve of a calibration bends no valley.  The curve is taken for
its tangent where the leading latent is at the mode, an *anchor* that stays there.  One
that is *bent* (`metalgrad.bends`) is placed next.
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax.nn import sigmoid, softplus

from metalgrad import bends, small
from metalgrad.collapse import spaxel_jacobian
from metalgrad.hierarchy import Hierarchy

MISSED = 0.05  # share of what is told that may be left out, for speed (ours)
FELT = 1.0  # slope, in sd of the data over that of the prior, that may not (ours)


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
    rows, data = [[*row] for row in settled["rows"]], settled["data"]
    still = small.entries(still.T)
    others = [k for k in range(len(still)) if k not in (lead, bent)]
    slopes = [[row[k] * amplitude[k] for k in others] for row in rows]
    lower = small.factor(slopes)
    volume = -small.log_volume(lower)

    def weigh(vector):
        """Take entries for each row to what they tell, others integrated out."""
        return small.solve_lower(lower, vector)

    def depart(mean):
        """Tell what the data say about departures from ``mean``."""
        told = zip(rows, data, strict=True)
        known = [mean[k] for k in others]
        return weigh([d - small.dot([r[k] for k in others], known) for r, d in told])

    across = None if bent is None else weigh([row[bent] for row in rows])
    if lead is not None:
        along = weigh([row[lead] * amplitude[lead] for row in rows])
        anchor = small.divide(settled["anchor"], amplitude[lead])
        mean = _follow(hierarchy, arrays, theta, anchor)
        curve = None if bent is None else (across, mean[bent], amplitude[bent])
        known = anchor, depart(mean)
        still[lead], change = _place_leading(along, *known, curve, still[lead])
        volume += change
        mean = _follow(hierarchy, arrays, theta, still[lead])
    left = depart(mean)
    if bent is not None:
        curve = mean[bent], amplitude[bent], still[bent]
        still[bent], value, change = bends.place(across, left, *curve)
        left = [one - a * value for one, a in zip(left, across, strict=True)]
        volume += change
    drawn = [small.once(small.dot(row, [still[k] for k in others])) for row in slopes]
    shrunk = small.solve_lower(lower, drawn, shift=1.0)
    pull = small.solve_upper(lower, [k - s for k, s in zip(left, shrunk, strict=True)])
    for slot, k in enumerate(others):
        still[k] = small.once(still[k] + small.dot(pull, [row[slot] for row in slopes]))
    return jnp.stack(still, axis=1), jnp.sum(volume)


def _locate(hierarchy, arrays, theta, z):
    """Mean and amplitude of each latent: vectors, as of `metalgrad.small`."""
    found = hierarchy.locate(arrays, theta, z)
    return tuple(small.entries(values.T) for values in found)


def _follow(hierarchy, arrays, theta, first):
    """Mean of each latent, given the leading one: no other sets a mean."""
    alone = jnp.zeros((len(first), hierarchy.sizes[1])).at[:, hierarchy.leading]
    return _locate(hierarchy, arrays, theta, alone.set(first))[0]


def _place_leading(along, anchor, at_anchor, curve, still):
    """Place one latent, all others integrated out; with the log volume of it.

    What is bent is taken for its tangent where it rests.
    """
    left = [d + a * anchor for d, a in zip(at_anchor, along, strict=True)]
    precision, toward = 1 + small.dot(along, along), small.dot(along, left)
    if curve is not None:
        across, mean, amplitude = curve
        precise = small.dot(across, across)
        told = precise, small.dot(across, at_anchor)
        z, value, slope = bends.rest(mean, amplitude, *told)
        shared = small.once(slope * small.dot(along, across))
        width = small.once(1 + slope**2 * precise)
        beyond = value - slope * z  # of the tangent, at 0
        own = slope * (small.dot(across, left) - precise * beyond)
        precision -= shared**2 / width
        toward -= small.dot(along, across) * beyond + shared * own / width
    precision = small.once(precision)
    found = toward / precision + still / jnp.sqrt(precision)
    return small.once(found), -0.5 * jnp.log(precision)


def find(hierarchy: Hierarchy, arrays, theta, z) -> dict:
    """Choose coordinates by what the data tell about ``z``, the mode at ``theta``.

    The cost grows with the square of how many directions are told, and of most spaxels
    data tell few: the best of each are taken, as many as hold nearly all, and as in any
    spaxel outweigh the prior (a twentieth of what very bright ones tell is much).

    Returns
    -------
    dict
        ``rows`` (told, latent, spaxel), slopes of combinations of the whitened
        residuals in the sums; ``data`` (told, spaxel), what the sums would be, were
        they linear; ``anchor`` (spaxel,), departure of the leading latent about which
        others' means are taken to be so.  A latent whose amplitude is not told, or is
        0, is left as it is.
    """
    told, anchor, size = _find(hierarchy, arrays, theta, z)
    count = count_told(np.asarray(size))
    return {name: values[:count] for name, values in told.items()} | {"anchor": anchor}


def count_told(size) -> int:
    """Count the directions that hold nearly all of what the data tell.

    They are made even, since each number of them is a program of its own.

    Parameters
    ----------
    size : array, (spaxel, direction)
        Slopes of whitened residuals in normals, the steepest first: of a direction
        information is half the logarithm of one more than the square.
    """
    held = np.cumsum(np.log1p(np.square(size)).sum(axis=0))
    nearly_all = 1 + int(np.argmax(held >= (1 - MISSED) * held[-1]))
    count = max(nearly_all, int(np.sum(size.max(axis=0) > FELT)))
    return min(count + count % 2, size.shape[1])


def widen(settled, count: int) -> dict:
    """Add directions of which nothing is told, up to ``count``."""
    more = count - len(settled["data"])
    wide = {
        name: jnp.pad(values, [(0, more)] + [(0, 0)] * (values.ndim - 1))
        for name, values in settled.items()
        if name != "anchor"
    }
    return settled | wide


@partial(jax.jit, static_argnums=0)
def _find(hierarchy, arrays, theta, z):
    residual, jacobian = spaxel_jacobian(hierarchy, arrays, theta, z)
    mean, amplitude = hierarchy.locate(arrays, theta, z)
    best, size, _ = jnp.linalg.svd(jacobian, full_matrices=False)
    sums, anchor = mean + amplitude * z, jnp.zeros(len(z))
    if (bent := hierarchy.bent) is not None:  # what is told is its softplus
        amplitude = amplitude.at[:, bent].multiply(sigmoid(sums[:, bent]))
        sums = sums.at[:, bent].set(softplus(sums[:, bent]))
    rows = small.divide(jacobian, amplitude[:, None])
    if hierarchy.leading is not None:  # the others' means hold what it does
        anchor = sums[:, hierarchy.leading]
        sums = sums.at[:, hierarchy.leading].set(0.0)
    data = jnp.einsum("srl,sl->sr", rows, sums) - residual
    told = {
        "rows": jnp.einsum("srt,srl->tls", best, rows),
        "data": jnp.einsum("srt,sr->ts", best, data),
    }
    return told, anchor, size


def blank(hierarchy: Hierarchy) -> dict:
    """Return the keys of `find`, around nothing."""
    del hierarchy
    return {"rows": np.zeros(0), "data": np.zeros(0), "anchor": np.zeros(0)}

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
others given it; so the curve of a calibration bends no valley.
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from metalgrad.collapse import spaxel_jacobian
from metalgrad.hierarchy import Hierarchy
from metalgrad.small import factor, log_volume, solve_lower, solve_upper

MISSED = 0.05  # share of what is told that may be left out, for speed (ours)


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
    lead = hierarchy.leading
    mean, amplitude = hierarchy.locate(arrays, theta, jnp.zeros_like(still))
    rows = settled["rows"] * amplitude.T  # (line, latent, spaxel)
    others = rows if lead is None else rows.at[:, lead].set(0.0)
    # Sums of products: with the batch last einsum would first turn every array.
    lower = factor(jnp.sum(others[:, None] * others[None], axis=2))
    volume = -log_volume(lower)
    if lead is not None:
        first = (lower, rows[:, lead], _data(settled, mean), still[:, lead])
        found, change = _place_leading(*first)
        still, volume = still.at[:, lead].set(found), volume + change
        alone = jnp.zeros_like(still).at[:, lead].set(found)  # no other sets a mean
        mean, _ = hierarchy.locate(arrays, theta, alone)
    known = solve_lower(lower, _data(settled, mean))
    drawn = jnp.sum(others * still.T, axis=1)
    shrunk = solve_lower(lower, drawn, shift=1.0)
    told = [k - s for k, s in zip(known, shrunk, strict=True)]
    told = jnp.stack(solve_upper(lower, told))
    return still + jnp.sum(told[:, None] * others, axis=0).T, volume


def _data(settled, mean):
    """Tell what the data say about departures from ``mean``, (line, spaxel)."""
    return settled["data"] - jnp.sum(settled["rows"] * mean.T, axis=1)


def _place_leading(lower, row, data, still):
    """Place one latent, all others integrated out; with the log volume of it."""
    along = jnp.stack(solve_lower(lower, row))
    toward = jnp.sum(along * jnp.stack(solve_lower(lower, data)), axis=0)
    precision = 1 + jnp.sum(along**2, axis=0)
    found = toward / precision + still / jnp.sqrt(precision)
    return found, -0.5 * jnp.sum(jnp.log(precision))


def find(hierarchy: Hierarchy, arrays, theta, z) -> dict:
    """Choose coordinates by what the data tell about ``z``, the mode at ``theta``.

    The cost grows with the square of how many directions are told, and of most spaxels
    data tell few: the best of each are taken, as many as hold nearly all.

    Returns
    -------
    dict
        ``rows`` (told, latent, spaxel), slopes of combinations of the whitened
        residuals in the sums; ``data`` (told, spaxel), what the sums would be, were
        they linear.  A latent whose amplitude is not told, or is 0, is left as it is.
    """
    told, size = _find(hierarchy, arrays, theta, z)
    count = count_told(np.asarray(size))
    return {name: values[:count] for name, values in told.items()}


def count_told(size) -> int:
    """Count the directions that hold nearly all of what the data tell.

    Parameters
    ----------
    size : array, (spaxel, direction)
        Slopes of whitened residuals in normals, the steepest first: of a direction
        information is half the logarithm of one more than the square.
    """
    held = np.cumsum(np.log1p(np.square(size)).sum(axis=0))
    return 1 + int(np.argmax(held >= (1 - MISSED) * held[-1]))


def widen(settled, count: int) -> dict:
    """Add directions of which nothing is told, up to ``count``."""
    more = count - len(settled["data"])
    return {
        name: jnp.pad(values, [(0, more)] + [(0, 0)] * (values.ndim - 1))
        for name, values in settled.items()
    }


@partial(jax.jit, static_argnums=0)
def _find(hierarchy, arrays, theta, z):
    residual, jacobian = spaxel_jacobian(hierarchy, arrays, theta, z)
    mean, amplitude = hierarchy.locate(arrays, theta, z)
    best, size, _ = jnp.linalg.svd(jacobian, full_matrices=False)
    rows = jnp.where(
        amplitude[:, None] == 0,
        0.0,
        jacobian / jnp.where(amplitude == 0, 1.0, amplitude)[:, None],
    )
    sums = mean + amplitude * z
    if hierarchy.leading is not None:  # the others' means hold what it does
        sums = sums.at[:, hierarchy.leading].set(0.0)
    data = jnp.einsum("srl,sl->sr", rows, sums) - residual
    told = {
        "rows": jnp.einsum("srt,srl->tls", best, rows),
        "data": jnp.einsum("srt,sr->ts", best, data),
    }
    return told, size


def blank(hierarchy: Hierarchy) -> dict:
    """Return the keys of `find`, around nothing."""
    del hierarchy
    return {"rows": np.zeros(0), "data": np.zeros(0)}

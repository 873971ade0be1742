"""Coordinates in which departures keep still while their amplitudes move.

Of a departure that is an amplitude times standard normals data tell the product.  Where
they tell it well, the normals move against the amplitude, in a valley too bent for a
metric; where they tell nothing, they do not.  Were data linear, the normals ``z`` given
amplitudes ``a`` would follow from ``d = R (a z) + noise``: for standard normal ``y``

    ``z = B' M^-1 d + y - B' L^-T (L + 1)^-1 B y``

with ``B = R a`` and ``M = 1 + B B' = L L'``, the mean of a Kalman filter and the root
of its covariance (Andrews 1968, AIAA J. 6, 1165).  `place` takes ``y`` to ``z`` so,
whatever the data: the volume that it returns makes densities exact, and how far a
sampler gets in a step depends on how nearly the data are linear.
"""

from math import prod

import jax.numpy as jnp
import numpy as np
from jax.scipy.linalg import solve_triangular
from jaxtyping import Array, Float

from metalgrad.hierarchy import Hierarchy

# Ours, of mocks of COSMOS24108 with 392 departures: of 57 combinations the data tell
# more than 0.3 of what the prior does, of 94 more than 0.03.
TOLD = 56  # combinations of departures that data may tell
FELT = 128  # combinations of which they may tell anything
BANDS = 3  # of waves, from coarse to fine, in which amplitudes move together
LEAST = 1e-12  # information, in units of the prior's
FEEBLE = 1e-2  # information (ours) below which data are not followed


def blank(hierarchy: Hierarchy) -> dict:
    """Return arrays with which `place` leaves latents where they are.

    Parameters
    ----------
    hierarchy : Hierarchy
        Whose spaxels are one unit.

    Returns
    -------
    dict
        ``rows`` (told, latent), the ``R`` above; ``data`` (told,), the ``d``; ``rest``
        (latent,), what is added to ``z``; ``weight`` (block, wave), with which
        amplitudes are averaged over blocks of latents; ``block`` (latent,), where each
        belongs; ``grams`` (block, told, told), ``R R'`` of each; and ``felt`` (felt,
        latent), all directions along which data tell anything, where amplitudes are 1.
    """
    columns, waves = _columns(hierarchy)
    latents = hierarchy.sizes[1]
    blocks, told = BANDS * columns, min(TOLD, latents)
    return {
        "rows": jnp.zeros((told, latents)),
        "data": jnp.zeros(told),
        "pull": jnp.zeros((told, hierarchy.sizes[0])),
        "centre": jnp.zeros(hierarchy.sizes[0]),
        "rest": jnp.zeros(latents),
        "weight": jnp.zeros((blocks, waves)),
        "block": jnp.zeros(latents, int),
        "grams": jnp.zeros((blocks, told, told)),
        "felt": jnp.eye(min(FELT, latents), latents),
    }


def reaches(hierarchy: Hierarchy, arrays, steady, theta):
    """Amplitudes at ``theta`` over those where ``steady`` was found, (block,)."""
    amplitude = jnp.repeat(hierarchy.amplitudes(arrays, theta), BANDS, axis=0)
    return jnp.sum(steady["weight"] * amplitude, axis=1)


def felt(hierarchy: Hierarchy, arrays, steady, theta) -> Float[Array, "latent felt"]:
    """Orthonormal directions of latents along which data tell anything."""
    each = reaches(hierarchy, arrays, steady, theta)[steady["block"]]
    return jnp.linalg.qr((steady["felt"] * each).T)[0]


def place(hierarchy: Hierarchy, arrays, steady, theta, still):
    """Take ``still`` coordinates to latents.

    Parameters
    ----------
    hierarchy : Hierarchy
    arrays : dict
    steady : dict
        As of `find` or `blank`.
    theta : array, (galaxy,)
    still : array, (1, latent)

    Returns
    -------
    z : array, (1, latent)
    log_volume : float
        Log of the volume of ``z`` over that of ``still``.
    """
    y, rows = still[0], steady["rows"]
    reach = reaches(hierarchy, arrays, steady, theta)
    each = reach[steady["block"]]
    gram = jnp.einsum("b,bij->ij", reach**2, steady["grams"])
    root = jnp.linalg.cholesky(jnp.eye(len(rows)) + gram)
    data = steady["data"] - steady["pull"] @ (theta - steady["centre"])
    known = solve_triangular(root, data, lower=True)
    shrunk = solve_triangular(root + jnp.eye(len(rows)), rows @ (each * y), lower=True)
    told = solve_triangular(root, known - shrunk, lower=True, trans=1)
    z = y + each * (told @ rows) + steady["rest"]
    return z[None], -jnp.sum(jnp.log(jnp.diagonal(root)))


def find(hierarchy: Hierarchy, arrays, theta, z, hessian) -> dict:
    """Choose coordinates by what the data tell where ``z`` is the mode at ``theta``.

    There latents are still at 0.

    Parameters
    ----------
    hierarchy : Hierarchy
    arrays : dict
    theta : array, (galaxy,)
    z : array, (1, latent)
    hessian : array, (latent, latent)
        Of the potential in ``z``.

    Returns
    -------
    dict
        As of `blank`.
    """
    steady = blank(hierarchy)
    value, axes = np.linalg.eigh((hessian + hessian.T) / 2)
    value, axes = value[::-1] - 1, axes[:, ::-1]  # the best told first
    count = len(steady["data"])
    information = np.maximum(value[:count], LEAST)
    rows = np.sqrt(information)[:, None] * axes[:, :count].T
    along = axes[:, :count].T @ np.asarray(z[0])
    amplitude = np.asarray(hierarchy.amplitudes(arrays, theta))
    block = _sort(hierarchy, amplitude)
    parts = [rows * (block == b) for b in range(len(steady["grams"]))]
    return {
        "rows": jnp.asarray(rows),
        "data": jnp.asarray(along * (1 + information) / np.sqrt(information)),
        "pull": jnp.zeros((count, len(theta))),
        "centre": jnp.asarray(theta),
        "rest": jnp.asarray(z[0] - axes[:, :count] @ along),
        "weight": jnp.asarray(_weigh(hierarchy, amplitude, rows, block)),
        "block": jnp.asarray(block),
        "grams": jnp.asarray(np.stack([part @ part.T for part in parts])),
        "felt": jnp.asarray(axes[:, : len(steady["felt"])].T),
    }


def follow(steady, bridge, is_added) -> tuple[dict, np.ndarray]:
    """Have the data follow the galaxy's parameters, where departures were to.

    What a parameter adds to the data departures need not explain.  How much they give
    way then changes with their amplitudes, of which a straight map knows nothing.

    Parameters
    ----------
    steady : dict
        As of `find`.
    bridge : array, (latent, galaxy)
        By how much the still coordinates' mode moves with each parameter.
    is_added : array of bool, (galaxy,)
        Which of these add to the data.

    Returns
    -------
    steady : dict
    bridge : array, (latent, galaxy)
        What is left of it: of other parameters, and along directions of which data
        tell nothing.
    """
    rows = np.asarray(steady["rows"])
    information = np.sum(rows**2, axis=1)[:, None]
    unit = np.where(information > FEEBLE, rows / np.sqrt(information), 0.0)
    along = unit @ bridge * is_added
    pull = -np.sqrt((1 + information) / information) * along
    return steady | {"pull": jnp.asarray(pull)}, bridge - unit.T @ along


def _sort(hierarchy, amplitude):
    """Sort latents in blocks: by site and column, and by how coarse a wave is."""
    rank = np.argsort(np.argsort(-np.abs(amplitude), axis=1), axis=1)
    band = rank * BANDS // amplitude.shape[1]
    block = BANDS * np.arange(len(amplitude))[:, None] + band
    return np.asarray(_in_a_row(hierarchy, block))


def _weigh(hierarchy, amplitude, rows, block):
    """Weights that make each block's amplitude one, by what is told of each wave."""
    told = _by_column(hierarchy, np.sum(rows**2, axis=0) + 1e-9)
    sorted_in = _by_column(hierarchy, block)
    number = np.arange(BANDS * len(told))[:, None]
    share = np.repeat(told, BANDS, axis=0) * (np.repeat(sorted_in, BANDS, 0) == number)
    share /= share.sum(axis=1, keepdims=True)
    return share / np.repeat(np.where(amplitude == 0, 1.0, amplitude), BANDS, axis=0)


def _columns(hierarchy) -> tuple[int, int]:
    """Return how many columns all sites have, and how many waves."""
    waves = next(iter(hierarchy.unit.values()))[0]
    return hierarchy.sizes[1] // waves, waves


def _in_a_row(hierarchy, columns):
    """Put values of (column, wave) in the order of latents."""
    parts, start = [], 0
    for waves, *width in hierarchy.unit.values():
        count = prod(width)
        parts.append(columns[start : start + count].T.reshape(count * waves))
        start += count
    return np.concatenate(parts)


def _by_column(hierarchy, row):
    """Undo `_in_a_row`."""
    parts, start = [], 0
    for waves, *width in hierarchy.unit.values():
        count = prod(width)
        parts.append(row[start : start + count * waves].reshape(waves, count).T)
        start += count * waves
    return np.concatenate(parts)

"""Coordinates in which departures keep still while their amplitudes move.

Of a departure that is an amplitude times standard normals data tell the product.  Where
they tell it well, the normals move against the amplitude, in a valley too bent for a
metric; where they tell nothing, they do not.  A galaxy's own normals, its level, slope
and brightness, are told in sums with them.  Were data linear, the normals ``u`` given
amplitudes ``a`` would follow from ``d = R (a u) + noise``: for standard normal ``y``

    ``u = B' M^-1 d + y - B' L^-T (L + 1)^-1 B y``

with ``B = R a`` and ``M = 1 + B B' = L L'``, the mean of a Kalman filter and the root
of its covariance (Andrews 1968, AIAA J. 6, 1165).  `place` takes ``y`` to ``u`` so,
whatever the data: the volume that it returns makes densities exact, and how far a
sampler gets in a step depends on how nearly the data are linear.  Where they bend, most
of all in metallicity, is known to second order: what leads is placed before all else,
which then follows.
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.linalg import solve, solve_triangular
from jaxtyping import Array, Float

from metalgrad import information, straight
from metalgrad.hierarchy import Hierarchy

# All ours.  Of 392 departures of a mock of COSMOS24108 data tell 96 combinations by
# more than 0.1 of the prior.  A trajectory of 15 steps is worth 0.5 draws of the
# slowest parameter with them, 0.3 with 64, and 0.4 with 128.
TOLD, LEAST = 96, 24  # combinations that data may tell, at most and of few departures
TURNED = 48  # of them, told best, are followed as exactly as light bends
FELT = 128  # combinations of departures of which they may tell anything
FEEBLE = 1e-6  # information, in units of the prior's, below which there is none
FAR = 1.0  # unconstrained, or in widths of the prior: as far as bends are followed


def blank(hierarchy: Hierarchy) -> dict:
    """Return arrays of which data tell nothing, of the shape of `find`'s.

    Parameters
    ----------
    hierarchy : Hierarchy
        Whose spaxels are one unit.

    Returns
    -------
    dict
        ``leads`` (told, leading) and ``rows`` (told, other), the ``R`` above; ``data``
        (told,), the ``d``; ``lead_rest`` and ``rest``, what is added to ``u``; ``left``
        (other,), information on each that no row holds; ``scale`` (other,), amplitudes
        where they were found, and ``centre`` what was free and led there; ``pull`` and
        ``bends``, by how much that moves the data; and ``felt`` (felt, latent), all
        directions along which data tell anything, where amplitudes are 1.
    """
    order, latents = straight.sort(hierarchy), hierarchy.sizes[1]
    free, leading = len(order.free), len(order.leading)
    others = len(order.scaled) + latents
    told = min(max(min(TOLD, latents // 4), LEAST), leading + others)
    return {
        "leads": jnp.zeros((told, leading)),
        "rows": jnp.zeros((told, others)),
        "data": jnp.zeros(told),
        "lead_rest": jnp.zeros(leading),
        "rest": jnp.zeros(others),
        "left": jnp.zeros(others),
        "scale": jnp.ones(others),
        "centre": jnp.zeros(free + leading),
        "pull": jnp.zeros((told, free)),
        "bends": jnp.zeros((told, free + leading, free + leading)),
        "last": jnp.zeros(min(TURNED, told)),
        "light": jnp.zeros((min(TURNED, told), hierarchy.data.white.size)),
        "bright": jnp.ones(hierarchy.data.white.shape),
        "shared": jnp.zeros(len(order.scaled)),
        "reached": jnp.zeros(latents),
        "felt": jnp.eye(min(FELT, latents), latents),
    }


@partial(jax.jit, static_argnums=0)
def amplify(hierarchy: Hierarchy, arrays, theta) -> Float[Array, " other"]:
    """Amplitudes of the galaxy's scaled normals, and of all departures."""
    _, width, reach = hierarchy.scales(arrays, theta)
    return jnp.concatenate([width[straight.sort(hierarchy).scaled], reach])


def felt(hierarchy: Hierarchy, arrays, steady, theta) -> Float[Array, "latent felt"]:
    """Orthonormal directions of latents along which data tell anything."""
    each = amplify(hierarchy, arrays, theta) / steady["scale"]
    latents = each[len(each) - hierarchy.sizes[1] :]
    return jnp.linalg.qr((steady["felt"] * latents).T)[0]


def place(hierarchy: Hierarchy, arrays, steady, free, still):
    """Take ``still`` coordinates to the galaxy's normals and latents.

    Parameters
    ----------
    hierarchy : Hierarchy
    arrays : dict
    steady : dict
        As of `find` or `blank`.
    free : array, (free,)
        Of ``theta``, as `straight.sort` has it.
    still : array, (1, normal + latent)

    Returns
    -------
    theta : array, (galaxy,)
    z : array, (1, latent)
    log_volume : float
        Log of the volume of both over that of ``free`` and ``still``.
    """
    order, leads = straight.sort(hierarchy), steady["leads"]
    y_lead, y = jnp.split(still[0], [leads.shape[1]])
    theta = straight.spread(hierarchy, free)
    mean, width, reach = hierarchy.scales(arrays, theta)
    each = jnp.concatenate([width[order.scaled], reach]) / steady["scale"]
    slim = 1 / jnp.sqrt(1 + each**2 * steady["left"])
    rows = steady["rows"] * (each * slim)[order.others]
    first, last = jnp.split(rows, [len(order.ahead)], axis=1)
    unit = jnp.eye(len(rows))
    rest = unit + last @ last.T
    root = jnp.linalg.cholesky(rest + first @ first.T)

    shift = free - steady["centre"][: free.size]
    data = steady["data"] - steady["pull"] @ shift
    lead, lead_root = _lead(steady, root, data - _bend(steady, shift), y_lead)
    data = data - leads @ lead
    lead = lead + steady["lead_rest"]
    data = data - _bend(steady, shift, lead - steady["centre"][free.size :])

    known = solve_triangular(root, data, lower=True)
    y = y[order.others]
    shrunk = solve_triangular(root + unit, rows @ y, lower=True)
    y = y + solve_triangular(root, known - shrunk, lower=True, trans=1) @ rows
    ahead, behind = jnp.split(y, [len(order.ahead)])
    data = data - first @ ahead
    ahead = slim[order.ahead] * ahead + steady["rest"][order.ahead]
    led = mean[order.leading] + width[order.leading] * lead
    there = theta.at[order.leading].set(led)
    turned = _follow(hierarchy, arrays, steady, there, ahead, reach)
    turned = jnp.zeros_like(data).at[: turned.size].set(turned - data[: turned.size])
    behind = behind + solve(rest, turned, assume_a="pos") @ last
    behind = slim[order.behind] * behind + steady["rest"][order.behind]
    others = jnp.concatenate([ahead, behind])[np.argsort(order.others)]
    shared, z = jnp.split(others, [len(order.scaled)])
    normals = jnp.concatenate([lead, shared])
    theta, volume = straight.raise_to(order, theta, mean, width, normals)
    volume = volume + jnp.sum(jnp.log(slim)) - _log_volume(root)
    return theta, z[None], volume - _log_volume(lead_root)


def _log_volume(root):
    return jnp.sum(jnp.log(jnp.diagonal(root)))


def _lead(steady, root, data, y):
    """Place what leads, all other normals integrated out."""
    along = solve_triangular(root, steady["leads"], lower=True)
    inner = jnp.linalg.cholesky(jnp.eye(y.size) + along.T @ along)
    known = along.T @ solve_triangular(root, data, lower=True)
    mean = solve_triangular(inner, known, lower=True)
    return solve_triangular(inner, mean + y, lower=True, trans=1), inner


def _bend(steady, free, lead=None):
    """By how much the data are moved beyond what is straight."""
    lead = jnp.zeros(steady["leads"].shape[1]) if lead is None else lead
    shift = jnp.clip(jnp.concatenate([free, lead]), -FAR, FAR)
    return (steady["bends"] @ shift) @ shift


def _follow(hierarchy, arrays, steady, theta, ahead, reach):
    """Take off the data what is placed before the last, as exactly as light bends."""
    order, reached = straight.sort(hierarchy), steady["reached"]
    theta = theta.at[order.scaled].set(steady["shared"])
    held = reach != 0  # by an amplitude of none nothing is kept where it was
    z = jnp.where(held, reached / jnp.where(held, reach, 1.0), 0.0)
    z = z.at[order.ahead - len(order.scaled)].set(ahead)
    flux = hierarchy.seen(arrays, theta, z[None]).flux
    moved = steady["light"] @ information.brighten(flux, steady["bright"])
    lost = jnp.where(held, 0.0, reached / steady["scale"][len(order.scaled) :])
    lost = jnp.concatenate([jnp.zeros(len(order.scaled)), lost])[order.others]
    return steady["last"] - moved - steady["rows"][: len(moved)] @ lost


def find(hierarchy: Hierarchy, arrays, theta, z) -> dict:
    """Choose coordinates by what the data tell about a point.

    It is best a mode, given what is free: there latents are then still at 0.

    Parameters
    ----------
    hierarchy : Hierarchy
    arrays : dict
    theta : array, (galaxy,)
    z : array, (1, latent)

    Returns
    -------
    dict
        As of `blank`.
    """
    found, order = blank(hierarchy), straight.sort(hierarchy)
    leading, count = len(order.leading), len(found["data"])
    whole = np.asarray(information.measure(hierarchy, arrays, theta, z))
    value, axes = _principal(whole, count)
    is_told = value > FEEBLE
    value = np.where(is_told, value, 1.0)
    axes = axes * is_told[:, None]
    rows = np.sqrt(value)[:, None] * axes
    point = np.asarray(information.stack(hierarchy, arrays, theta, z))
    along = axes @ point
    rest, left = point - axes.T @ along, np.diag(whole) - np.sum(rows**2, axis=0)
    light = information.weigh_light(hierarchy, arrays, theta, z, jnp.asarray(axes))
    light = light / np.sqrt(value)[:, None]
    slope, curve = information.bend(hierarchy, arrays, theta, z, light)
    latents = whole[-z.size :, -z.size :]
    theta = jnp.asarray(theta)
    scale = amplify(hierarchy, arrays, theta)
    lead = straight.standardise(hierarchy, arrays, theta)[:leading]
    data = along * (1 + value) / np.sqrt(value)
    last = data - rows[:, :leading] @ (point - rest)[:leading]
    last -= rows[:, leading:][:, order.ahead] @ (point - rest)[leading:][order.ahead]
    kept = jnp.concatenate([jnp.zeros(len(order.scaled)), z[0]]) * scale
    kept = kept.at[order.ahead].set(0.0)
    return found | {
        "leads": jnp.asarray(rows[:, :leading]),
        "rows": jnp.asarray(rows[:, leading:][:, order.others]),
        "data": jnp.asarray(data),
        "lead_rest": jnp.asarray(rest[:leading]),
        "rest": jnp.asarray(rest[leading:]),
        "left": jnp.asarray(np.maximum(left[leading:], 0.0)),
        "scale": jnp.where(scale == 0, 1.0, scale),
        "centre": jnp.concatenate([theta[order.free], lead]),
        "pull": slope[:, : len(order.free)],
        "bends": curve,
        "last": jnp.asarray(last)[:TURNED],
        "light": light[:TURNED],
        "bright": hierarchy.seen(arrays, theta, z).flux,
        "shared": theta[order.scaled],
        "reached": kept[len(order.scaled) :],
        "felt": jnp.asarray(_principal(latents, len(found["felt"]))[1]),
    }


def _principal(matrix, count):
    """Largest eigenvalues of a symmetric matrix, and their axes in rows."""
    value, axes = np.linalg.eigh((matrix + matrix.T) / 2)
    return value[::-1][:count], axes[:, ::-1].T[:count]

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
of all in metallicity, what leads is placed before all else, which follows to second
order.  And of departures those go ahead of which light is no product of powers; by
what that is off in the combinations that are told best, the others are moved after
them: a shear, which changes no volume.
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.linalg import solve, solve_triangular
from jaxtyping import Array, Float

from metalgrad import information, straight
from metalgrad.hierarchy import Hierarchy
from metalgrad.symmetric import gram

# All ours.  Of 392 departures of a mock of COSMOS24108 data tell 96 combinations by
# more than 0.1 of the prior.  A trajectory of 15 steps is worth 0.5 draws of the
# slowest parameter with them, 0.3 with 64, and 0.4 with 128.  Half of the prior's small
# cubes tell fewer than 32, where a gradient takes half the time.
LITTLE = 0.3  # information, in units of the prior's, below which no row is needed
STEP, MOST = 32, 128  # rows come in so many, and there are at most
TURNED = 48  # rows, those told best, are followed as exactly as light bends
FELT = 128  # combinations of departures of which they may tell anything
FEEBLE = 1e-6  # information, in units of the prior's, below which there is none
FAR = 1.0  # unconstrained, or in widths of the prior: as far as bends are followed


def blank(hierarchy: Hierarchy, told: int = MOST) -> dict:
    """Return arrays of which data tell nothing, of the shape of `find`'s.

    Parameters
    ----------
    hierarchy : Hierarchy
        Whose spaxels are one unit.
    told : int
        Combinations of normals and departures that data may tell, if there are so many.

    Returns
    -------
    dict
        ``leads`` (told, leading) and ``rows`` (told, other), the ``R`` above, these in
        the order of those ahead and those behind (`straight.Order.others`); ``data``
        (told,), the ``d``; ``lead_rest`` and ``rest``, what is added to ``u``; ``left``
        (other,), information on each that no row holds; ``scale`` (other,), amplitudes
        where they were found, and ``centre`` what was free and led there; ``pull`` and
        ``bends``, by how much that moves the data.  Of the combinations told best
        ``light`` (turned, spaxel * line), what logs of fluxes over ``bright`` ones
        weigh in them, and ``last``, the data less what was ahead; there ``shared``, the
        scaled normals as parameters, and ``reached`` (latent,), what was behind, times
        its amplitude.  And ``felt`` (felt, latent), all directions along which data
        tell anything, where amplitudes are 1.
    """
    order, latents = straight.sort(hierarchy), hierarchy.sizes[1]
    free, leading = len(order.free), len(order.leading)
    others = len(order.scaled) + latents
    told = min(told, leading + others)
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
    order = straight.sort(hierarchy)
    y_lead, y = jnp.split(still[0], [len(order.leading)])
    theta = straight.spread(hierarchy, free)
    mean, width, reach = hierarchy.scales(arrays, theta)
    each = jnp.concatenate([width[order.scaled], reach]) / steady["scale"]
    slim = 1 / jnp.sqrt(1 + each**2 * steady["left"])
    volume = jnp.sum(jnp.log(slim))
    rows = steady["rows"] * (each * slim)[order.others]
    first, last = jnp.split(rows, [len(order.ahead)], axis=1)
    rest = jnp.eye(len(rows)) + gram(last)
    root = jnp.linalg.cholesky(rest + gram(first))

    lead, data, lead_root = _lead(steady, root, free, y_lead)
    y = _settle(root, rows, data, y[order.others])
    slim, middle = slim[order.others], steady["rest"][order.others]
    ahead = (slim * y + middle)[: len(order.ahead)]
    data = data - first @ y[: len(ahead)]

    level = mean[order.leading] + width[order.leading] * lead
    there = theta.at[order.leading].set(level)
    exact = _follow(hierarchy, arrays, steady, there, ahead, reach)
    off = jnp.pad(exact - data[: exact.size], (0, data.size - exact.size))
    y = y.at[len(ahead) :].add(solve(rest, off, assume_a="pos") @ last)
    y = (slim * y + middle)[np.argsort(order.others)]
    shared, z = jnp.split(y, [len(order.scaled)])
    normals = jnp.concatenate([lead, shared])
    theta, more = straight.raise_to(order, theta, mean, width, normals)
    return theta, z[None], volume + more - _log_volume(root) - _log_volume(lead_root)


def _log_volume(root):
    return jnp.sum(jnp.log(jnp.diagonal(root)))


def _lead(steady, root, free, y):
    """Place what leads, all else integrated out; take it and ``free`` off the data."""
    shift, leads = free - steady["centre"][: free.size], steady["leads"]
    data = steady["data"] - steady["pull"] @ shift
    along = solve_triangular(root, leads, lower=True)
    inner = jnp.linalg.cholesky(jnp.eye(y.size) + gram(along.T))
    bent = data - _bend(steady, shift, jnp.zeros(y.size))
    known = along.T @ solve_triangular(root, bent, lower=True)
    mean = solve_triangular(inner, known, lower=True)
    lead = solve_triangular(inner, mean + y, lower=True, trans=1)
    data = data - leads @ lead
    lead = lead + steady["lead_rest"]
    bend = _bend(steady, shift, lead - steady["centre"][free.size :])
    return lead, data - bend, inner


def _settle(root, rows, data, y):
    """Place what the rows are of, as if light were straight in it."""
    known = solve_triangular(root, data, lower=True)
    shrunk = solve_triangular(root + jnp.eye(len(rows)), rows @ y, lower=True)
    return y + solve_triangular(root, known - shrunk, lower=True, trans=1) @ rows


def _bend(steady, free, lead):
    """By how much the data are moved beyond what is straight."""
    shift = jnp.clip(jnp.concatenate([free, lead]), -FAR, FAR)
    return (steady["bends"] @ shift) @ shift


def _follow(hierarchy, arrays, steady, theta, ahead, reach):
    """Return what data tell of those behind, by the light of all that is placed."""
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


def find(hierarchy: Hierarchy, arrays, theta, z, least: int = 0) -> dict:
    """Choose coordinates by what the data tell about a point.

    It is best a mode, given what is free: there latents are then still at 0.

    Parameters
    ----------
    hierarchy : Hierarchy
    arrays : dict
    theta : array, (galaxy,)
    z : array, (1, latent)
    least : int
        Combinations that are kept, however few are told: programs serve again.

    Returns
    -------
    dict
        As of `blank`.
    """
    order = straight.sort(hierarchy)
    whole = np.asarray(information.measure(hierarchy, arrays, theta, z))
    value, axes = _principal(whole, MOST)
    rows_told = STEP * -(-np.sum(value > LITTLE) // STEP)
    found = blank(hierarchy, int(max(rows_told, STEP, least)))
    leading, count = len(order.leading), len(found["data"])
    value, axes = value[:count], axes[:count]
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
        "bright": _shine(hierarchy, arrays, theta, z),
        "shared": theta[order.scaled],
        "reached": kept[len(order.scaled) :],
        "felt": jnp.asarray(_principal(latents, len(found["felt"]))[1]),
    }


def widen(steady: dict, count: int) -> dict:
    """Add combinations of which nothing is told, up to ``count``."""
    wide = {}
    for name in ("leads", "rows", "data", "pull", "bends", "last", "light"):
        values = steady[name]
        whole = min(count, TURNED) if name in ("last", "light") else count
        more = [(0, whole - len(values))] + [(0, 0)] * (values.ndim - 1)
        wide[name] = jnp.pad(values, more)
    return steady | wide


@partial(jax.jit, static_argnums=0)
def _shine(hierarchy, arrays, theta, z):
    return hierarchy.seen(arrays, theta, z).flux


def _principal(matrix, count):
    """Largest eigenvalues of a symmetric matrix, and their axes in rows."""
    value, axes = np.linalg.eigh((matrix + matrix.T) / 2)
    return value[::-1][:count], axes[:, ::-1].T[:count]

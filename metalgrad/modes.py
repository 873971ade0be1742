"""The modes of a galaxy's posterior, its spaxels integrated out: one on each branch.

Bright spaxels pin what they show so well that a climb from afar finds no way: the
posterior is a thin curved sheet, and the spaxels' own modes are as far off.  So the
climb begins with noise that is many times what it is, where the way is plain, and goes
on from the modes found there as the noise is taken back.
"""

import warnings
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import scipy.optimize

from metalgrad import small
from metalgrad.collapse import collapse, relax, scatter_start, spaxel_curvature
from metalgrad.hierarchy import Hierarchy
from metalgrad.starts import prior_points
from metalgrad.threads import side_by_side

FAINT = 10.0  # S/N of a spaxel's best line from which any start finds its way (ours)
STARTS = 9  # of 5, one climb in forty ended in a corner; of 9, none in 120 (ours)
RUNG = 10.0  # times less noise at each step (ours)
CLOSE = 1.5  # times the noise as it is: no step of its own (ours)
NEARLY = 1.0  # nats per unit: the gradient of what is as good as a mode
ROUNDS = 3  # of climbing: spaxels that change their branch may stop it midway
WIDE, TRIED = 3.0, 9  # sd of the prior: where spaxels' modes are looked for (ours)
NEAR = 0.1  # dex, ours: modes of closer levels are on one branch
HOPELESS = 10.0  # nats under the best mode, ours
AFAR = 50.0  # the same, of noisier data, in which priors weigh more (ours)
FIRST, FURTHER = 10, 4  # Newton steps at most, at the start and in a climb (ours)


def find_branches(
    hierarchy: Hierarchy, arrays, key, starts: int = STARTS
) -> list[tuple]:
    """Find a mode of the collapsed posterior on each live branch, the best first.

    Parameters
    ----------
    hierarchy : Hierarchy
        Whose spaxels are units of their own.
    arrays : dict
        `LineLikelihood.arrays`.
    key : jax.Array
    starts : int
        The prior's median and draws from the prior.

    Returns
    -------
    list of (theta, z)

    Raises
    ------
    ValueError
        If no start led to a mode.
    """
    key_points, key_modes = jax.random.split(key)
    points = prior_points(hierarchy, arrays, key_points, starts)
    return [mode[:2] for mode in descend(hierarchy, arrays, points, key_modes)]


def descend(hierarchy: Hierarchy, arrays, points, key) -> list[tuple]:
    """Climb from all ``points`` in noisy data, and follow the modes to less noise.

    Returns
    -------
    list of (theta, z, potential)
        As of `find_mode`, those of `choose_live`.
    """
    modes = [(theta, None) for theta in points]
    for noise in ladder(arrays):
        noisy = arrays | {name: arrays[name] / noise for name in ("root", "white")}
        climb = partial(find_mode, hierarchy, noisy, key=key)
        with warnings.catch_warnings():  # SciPy's own does not hold across threads
            warnings.simplefilter("ignore", RuntimeWarning)
            starts = zip(*(mode[:2] for mode in modes), strict=True)
            found = side_by_side(climb, *starts)
        modes = choose_live(hierarchy, found, AFAR if noise > 1 else HOPELESS)
    return modes


def ladder(arrays) -> list[float]:
    """By how much noise is enlarged, step by step down to 1."""
    signal = np.abs(np.asarray(arrays["white"])).max(axis=1)
    noise, rungs = float(np.sqrt(np.mean(signal**2))) / FAINT, []
    while noise > CLOSE:
        rungs.append(noise)
        noise /= RUNG
    return [*rungs, 1.0]


def find_mode(hierarchy: Hierarchy, arrays, theta, z=None, *, key, tolerance=1e-2):
    """Climb to a mode of the collapsed posterior by BFGS.

    That is a mode in the standardised values of normals: what has a latent width of its
    own would else be drawn to where that vanishes (`Hierarchy.peaks`).

    Parameters
    ----------
    hierarchy : Hierarchy
    arrays : dict
    theta : array, (galaxy,)
        Start.
    z : array, (spaxel, latent), optional
        Where the spaxels' modes are at ``theta``, if that is known.
    key : jax.Array
    tolerance : float
        On the gradient [nats per unit].

    Returns
    -------
    theta : array, (galaxy,)
    z : array, (spaxel, latent)
    potential : float
        Collapsed, and standardised.
    """
    best = theta, z, np.inf
    for each in jax.random.split(key, ROUNDS):
        if z is None:
            z = jax.jit(scatter_start, static_argnums=0)(hierarchy, arrays, theta, each)
            z = collapse(hierarchy, arrays, theta, z, FIRST)[2]
        *found, gradient = _climb(hierarchy, arrays, theta, z, tolerance)
        if found[-1] < best[-1]:
            best = tuple(found)
        if np.isinf(best[-1]):  # nowhere to go from: another draw may have
            z = None
            continue
        z, gain = branch_out(hierarchy, arrays, *best[:2])
        if np.abs(gradient).max() < NEARLY and gain < NEARLY:
            break
        theta, z = best[0], z if gain > NEARLY else None
    return best


@partial(jax.jit, static_argnums=0)
def branch_out(hierarchy: Hierarchy, arrays, theta, z):
    """Look for a better mode of each spaxel, from all over its leading latent.

    Where that starts elsewhere the others start so that the data are met as before.

    Parameters
    ----------
    hierarchy : Hierarchy
    arrays : dict
    theta : array, (galaxy,)
    z : array, (spaxel, latent)
        Their modes as known.

    Returns
    -------
    z : array, (spaxel, latent)
    gain : float
        In the log of the posterior, of all spaxels [nats].
    """
    lead = hierarchy.leading
    if lead is None:
        return z, 0.0
    mean, amplitude = hierarchy.locate(arrays, theta, z)

    def weigh(z):
        _, root = spaxel_curvature(hierarchy, arrays, theta, z)
        volume = jnp.log(jnp.diagonal(root, axis1=1, axis2=2)).sum(axis=1)
        return hierarchy.densities(arrays, theta, z)[1] - volume

    def look(start):
        moved = z.at[:, lead].set(start)
        shift = mean - hierarchy.locate(arrays, theta, moved)[0]
        moved += small.divide(shift, amplitude)
        moved = relax(hierarchy, arrays, theta, moved, FIRST)
        return moved, weigh(moved)

    found, weights = jax.lax.map(look, jnp.linspace(-WIDE, WIDE, TRIED))
    found = jnp.concatenate([z[None], found])
    weights = jnp.concatenate([weigh(z)[None], weights])
    weights = jnp.nan_to_num(weights, nan=-jnp.inf)
    best = jnp.argmax(weights, axis=0)
    z = jnp.take_along_axis(found, best[None, :, None], axis=0)[0]
    return z, jnp.sum(weights.max(axis=0) - weights[0])


def _climb(hierarchy, arrays, theta, latents, tolerance):
    """Climb once; return the gradient at the end, too."""
    lowest = np.inf

    def look(theta, z, steps):
        potential, gradient, z = collapse(hierarchy, arrays, theta, z, steps)
        height, slope = _peaks(hierarchy, arrays, theta)
        return float(potential + height), np.asarray(gradient + slope), z

    def objective(point):
        nonlocal latents, lowest
        potential, gradient, z = look(jnp.asarray(point), latents, FURTHER)
        if not (np.isfinite(potential) and np.all(np.isfinite(gradient))):
            return wall, np.zeros(len(point))
        if potential < lowest:  # a wild trial is no place to start the next from
            latents, lowest = z, potential
        return potential, gradient

    start = look(theta, latents, FURTHER)[0]
    wall = 10 * (abs(start) + 1)  # higher than where the climb begins
    found = scipy.optimize.minimize(
        objective,
        np.asarray(theta),
        jac=True,
        method="BFGS",
        options={"gtol": tolerance},
    )
    theta = jnp.asarray(found.x)
    potential, gradient, z = look(theta, latents, FIRST)
    return theta, z, potential, gradient


@partial(jax.jit, static_argnums=0)
def _peaks(hierarchy, arrays, theta):
    return jax.value_and_grad(hierarchy.peaks, argnums=1)(arrays, theta)


def choose_live(
    hierarchy: Hierarchy, modes: list[tuple], hopeless: float = HOPELESS
) -> list[tuple]:
    """Choose the modes that are not hopeless, the best on each branch, best first.

    Parameters
    ----------
    hierarchy : Hierarchy
    modes : list of (theta, ..., potential)
    hopeless : float
        How far under the best a mode may be [nats].

    Raises
    ------
    ValueError
        If none has a finite potential.
    """
    modes = [mode for mode in modes if np.isfinite(mode[-1])]
    if not modes:
        raise ValueError(
            "no mode of the posterior was found from any start; check the data for "
            "fluxes or errors that are many orders of magnitude off"
        )
    chosen, is_level = [], hierarchy.is_level
    for mode in sorted(modes, key=lambda mode: mode[-1]):
        near = [np.abs((mode[0] - other[0])[is_level]) < NEAR for other in chosen]
        if chosen and (mode[-1] > chosen[0][-1] + hopeless or any(map(np.all, near))):
            continue
        chosen.append(mode)
    return chosen

"""Two solutions: where data leave both branches of a calibration alive.

R3 turns over near 12+log(O/H) = 8.  With few other lines a galaxy may be metal-poor or
metal-rich, and no chain of a local sampler crosses from one to the other.  Chains are
run about every mode that is not hopeless; each branch is weighed by the integral of the
galaxy's posterior about it, all departures integrated out; and draws are taken from
either in proportion.
"""

import os
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import combinations

import jax
import jax.numpy as jnp
import numpy as np

from metalgrad import collapse
from metalgrad.bridge import Folded, log_integral
from metalgrad.chains import Run
from metalgrad.convergence import APART
from metalgrad.foretell import log_evidence
from metalgrad.measures import distance

PROPOSED = 256  # draws with which a spaxel's latents are integrated out
SOME = 0.1  # of a chain that must have stayed at home; ours
LOOKS = 400  # points at which a branch's density is looked at: draws, and proposals
FEWER = 120  # where every look takes waves out


def are_apart(run: Run, outcomes: list[dict]) -> bool:
    """Tell whether chains of different branches are so in level, by Ashman's D.

    Of chains that go to and fro between two modes all groups are alike.
    """
    levels = _levels(run, outcomes).reshape(
        len(outcomes), -1, run.hierarchy.is_level.sum()
    )
    return all(
        max(map(distance, one.T, other.T)) > APART
        for one, other in combinations(levels, 2)
    )


def stay(run: Run, outcomes: list[dict], middles) -> list[dict]:
    """Let every chain be on its own branch, whose draws stand for those beyond.

    The border is half way between the branches' levels.  A chain that has gone over for
    good is left out for the one that has stayed most.
    """
    return [
        _stay(one, _owner(run, middles, one["kept"]["theta"]) == number)
        for number, one in enumerate(outcomes)
    ]


def find_middles(run: Run, outcomes: list[dict]) -> np.ndarray:
    """Return the levels at which the chains of each branch begin, (branch, level)."""
    levels = _levels(run, outcomes)
    levels = levels.reshape(len(outcomes), -1, *levels.shape[1:])
    return np.median(levels[:, :, : max(1, levels.shape[2] // 4)], axis=(1, 2))


def _owner(run, middles, theta):
    """Return the branch on whose side each point is, (...) of (..., galaxy)."""
    level = theta[..., run.hierarchy.is_level]
    return np.linalg.norm(level[..., None, :] - middles, axis=-1).argmin(axis=-1)


def _stay(outcome, at_home):
    """Choose draws of each chain by whether its kept draws, (chain, kept), are home."""
    most, count = at_home.sum(axis=1).argmax(), at_home.shape[1]
    origin, chosen = [], []
    for chain, home in enumerate(at_home):
        source = chain if home.sum() >= SOME * count else most
        places = np.flatnonzero(at_home[source])
        origin.append(source)
        chosen.append(places[np.linspace(0, len(places) - 1, count).astype(int)])

    def take(values):
        step = -(-values.shape[1] // count)
        within = np.arange(values.shape[1]) % step
        rows = [
            values[source, np.minimum(place[np.arange(len(within)) // step] * step
                   + within, values.shape[1] - 1)]
            for source, place in zip(origin, chosen, strict=True)
        ]  # fmt: skip
        return np.stack(rows)

    return _each(take, outcome)


def _levels(run, outcomes):
    """Levels of the kept draws of all chains, (chain, kept, level)."""
    level = run.hierarchy.is_level
    return np.concatenate([one["kept"]["theta"][:, :, level] for one in outcomes])


def _each(take, *outcomes):
    """Do the same to each variable of one or more outcomes."""
    return {
        group: members
        if group == "every"
        else {name: take(*[one[group][name] for one in outcomes]) for name in members}
        for group, members in outcomes[0].items()
    }


def weigh(run: Run, arrays, affines, outcomes, middles, key) -> tuple:
    """Weigh branches that are apart by the integral of the posterior about each.

    Parameters
    ----------
    run : Run
    arrays : dict
    affines, outcomes : list of dict
        Coordinates and draws of each branch, as `Run.branches` and `stay` have them.
    middles : array, (branch, level)
        As of `find_middles`: a branch ends half way to the next.
    key : jax.Array

    Returns
    -------
    weights : array, (branch,)
        Their sum is 1.
    errors : array, (branch,)
        Their Monte Carlo errors.
    """
    keys = jax.random.split(key, 3)
    # Twice: departures are integrated out with noise of its own.
    homes = [partial(_is_home, run, middles, number) for number in range(len(middles))]
    each = [*zip(homes, affines, outcomes, strict=True)]
    found = [[_integrate(run, arrays, *one, key) for one in each] for key in keys[:2]]
    found = np.array(found)
    height = found[..., 0].mean(axis=0)
    error = np.hypot(found[..., 1].mean(axis=0), np.ptp(found[..., 0], axis=0) / 2)
    rng = np.random.default_rng(np.asarray(jax.random.key_data(keys[2])))
    tried = height + error * rng.normal(size=(1000, len(height)))
    return _share(height), _share(tried).std(axis=0)


def _share(height):
    weight = np.exp(height - np.max(height, axis=-1, keepdims=True))
    return weight / weight.sum(axis=-1, keepdims=True)


def _is_home(run, middles, number, theta):
    return _owner(run, middles, theta) == number


def _integrate(run, arrays, is_home, affine, outcome, key):
    """Log integral about one branch, and its error."""
    hierarchy, theta, z = run.hierarchy, *map(outcome["kept"].get, ("theta", "z"))
    looks = FEWER if hierarchy.coupled else LOOKS
    key_draw, key_noise = jax.random.split(key)
    half = theta.shape[1] // 2
    proposal = Folded(np.concatenate(theta[:, :half]), hierarchy.is_signed)
    rng = np.random.default_rng(np.asarray(jax.random.key_data(key_draw)))
    proposed = proposal.draw(looks, rng)
    stride = max(1, len(theta) * (theta.shape[1] - half) // looks)
    drawn, latents = (v[:, half::stride] for v in (theta, z))
    shape = drawn.shape[:2]
    flat = drawn.reshape(-1, drawn.shape[-1])
    starts = latents.reshape(-1, *latents.shape[2:])
    middle = jnp.broadcast_to(_centre(run, arrays, affine), (looks, *z.shape[2:]))
    look = _looker(hierarchy, arrays, affine, key_noise)
    at_draws = look(flat, starts) - proposal.log_density(flat)
    at_proposals = look(proposed, middle) - proposal.log_density(proposed)
    at_proposals = np.where(is_home(proposed), at_proposals, -np.inf)
    return log_integral(at_draws.reshape(shape), at_proposals)


def _centre(run, arrays, affine):
    """Return the latents in the middle of a branch."""
    place = run.still.place
    return place(run.hierarchy, arrays, affine["steady"], affine["theta"], affine["z"])[
        0
    ]


def _looker(hierarchy, arrays, affine, key):
    """Make the log posterior of ``theta`` with departures integrated out, of many."""
    if not hierarchy.coupled:
        shape = len(arrays["white"]), hierarchy.sizes[1]
        noise = collapse.heavy_noise(key, shape, PROPOSED)
        return lambda theta, z: np.asarray(
            _marginals(hierarchy, arrays, jnp.asarray(theta), jnp.asarray(z), noise)
        )
    look = partial(log_evidence, hierarchy, arrays, affine["steady"])

    def one(theta, z):
        with jax.enable_x64(new_val=True):  # a thread begins with the default
            return float(look(theta, z))

    def every(theta, z):
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            return np.array([*pool.map(one, theta, z)])

    return every


@partial(jax.jit, static_argnums=0)
def _marginals(hierarchy, arrays, theta, z, noise):
    def one(point):
        theta, z = point
        seen = collapse.spaxel_evidence(hierarchy, arrays, theta, z, noise)
        return hierarchy.densities(arrays, theta, z)[0] + jnp.sum(seen)

    return jax.lax.map(one, (theta, z))


def alternate(outcomes: list[dict]) -> dict:
    """Take as many chains as one branch has, from each branch in turn."""

    def take(*values):
        chains = np.arange(len(values[0]))
        return np.stack(values)[chains % len(values), chains]

    return _each(take, *outcomes)


def mix(
    outcomes: list[dict], marginals, weights
) -> tuple[dict, np.ndarray, np.ndarray]:
    """Take draws of branches in proportion to their weights.

    Each chain goes from branch to branch a block of draws at a time, all chains in the
    same order: the draws of one branch are as many in each.  A block has one draw at
    which spaxels are integrated out.

    Parameters
    ----------
    outcomes : list of dict
        Of each branch.
    marginals : list of array, (chain, draw, spaxel)
    weights : array, (branch,)

    Returns
    -------
    outcome : dict
    marginal : array, (chain, draw, spaxel)
    branch : array of int, (draw,)
        Where each draw is from.
    """
    order, blocks = _deal(weights, marginals[0].shape[1]), marginals[0].shape[1]

    def take(*values):
        count = values[0].shape[1]
        places = order[np.arange(count) // -(-count // blocks)]
        return np.stack(values)[places, :, np.arange(count)].swapaxes(0, 1)

    draws = outcomes[0]["statistics"]["lp"].shape[1]
    branch = order[np.arange(draws) // -(-draws // blocks)]
    return _each(take, *outcomes), take(*marginals), branch


def _deal(weights, count):
    """Deal ``count`` places to branches, evenly in each part of the whole."""
    due, order = np.zeros(len(weights)), np.zeros(count, int)
    for place in range(count):
        due += weights
        order[place] = np.argmax(due)
        due[order[place]] -= 1
    return order

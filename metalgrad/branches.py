"""Two solutions: where data leave both branches of a calibration alive.

R3 turns over near 12+log(O/H) = 8.  With few other lines a galaxy may be metal-poor or
metal-rich, and no chain of a local sampler crosses from one to the other.  Chains are
run about every mode that is not hopeless; each branch is weighed by the integral of the
galaxy's posterior about it, all departures integrated out; and draws are taken from
either in proportion (`metalgrad.mixing`).
"""

from functools import partial
from itertools import combinations, product

import jax
import jax.numpy as jnp
import numpy as np

from metalgrad import collapse
from metalgrad.bridge import Folded, log_integral
from metalgrad.chains import Run
from metalgrad.checkpoint import UNSAVED
from metalgrad.convergence import APART
from metalgrad.foretell import log_evidence
from metalgrad.measures import distance
from metalgrad.mixing import alternate, mix, stay
from metalgrad.stopping import LONGEST
from metalgrad.threads import side_by_side

PROPOSED = 256  # draws with which a spaxel's latents are integrated out
LOOKS = 400  # points at which a branch's density is looked at: draws, and proposals
FEWER = 120  # where every look takes waves out


def sample(
    run: Run,
    arrays,
    affines,
    keys,
    *,
    integrate,
    chains: int,
    draws: int | None,
    progress: bool,
    kept=UNSAVED,
) -> tuple:
    """Draw about each live branch; put branches that stay apart together by weight.

    Parameters
    ----------
    run : Run
    arrays : dict
    affines : list of dict
        As of `Run.branches`.
    keys : pair of jax.Array
        Of the chains, and of the weights.
    integrate : callable
        Of coordinates and draws of a branch: log likelihood of spaxels at every so
        many of the kept draws, (chain, draw, spaxel), and how many these are.
    chains, draws : int
        Of each branch; where ``draws`` is None, as many as are needed if there is one
        branch, and the most there may be where there are more.
    progress : bool
    kept : Checkpoint

    Returns
    -------
    outcome : dict
        As `Run.chains` has it.
    marginal : numpy.ndarray, (chain, draw, spaxel)
    told : tuple or None
        Where each draw is from, (draw,), and the branches' weights and their errors;
        None where there is one branch, or chains go from one to the other.
    """
    if len(affines) > 1 and draws is None:
        draws = LONGEST
    firsts = range(0, chains * len(affines), chains)
    each = jax.random.split(keys[0], (len(affines), chains))
    outcomes = [
        run.chains(one, arrays, affine, draws, progress, kept, first)
        for affine, first, one in zip(affines, firsts, each, strict=True)
    ]
    if len(outcomes) == 1 or not are_apart(run, outcomes):
        outcome = alternate(outcomes)
        return outcome, integrate(affines[0], outcome)[0], None
    centres = [run.middle(arrays, affine)[0] for affine in affines]
    middles = find_middles(run, outcomes, centres)
    outcomes = [
        stay(one, _owner(run, middles, one["kept"]["theta"]) == number)
        for number, one in enumerate(outcomes)
    ]
    found = [integrate(*one) for one in zip(affines, outcomes, strict=True)]
    marginals, strides = zip(*found, strict=True)
    weights, errors = weigh(run, arrays, affines, outcomes, middles, keys[1])
    outcome, marginal, branch = mix(outcomes, marginals, weights, strides[0])
    return outcome, marginal, (branch, weights, errors)


def unseen(_, outcome) -> tuple:
    """Stand for what spaxels tell, where nobody asks: as ``integrate`` of `sample`."""
    return outcome["kept"]["theta"][..., :0], 1


def are_apart(run: Run, outcomes: list[dict]) -> bool:
    """Tell whether chains of different branches are so in level, by Ashman's D.

    Chains that go to and fro between two modes are all alike.  One that has gone over
    and stays there says nothing of the sort: two that are apart are enough.
    """
    return all(
        max(max(map(distance, one.T, other.T)) for one, other in product(a, b)) > APART
        for a, b in combinations(_levels(run, outcomes), 2)
    )


def find_middles(run: Run, outcomes: list[dict], centres) -> np.ndarray:
    """Return the levels at which the chains of each branch begin, (branch, level).

    Of the chain that begins nearest to its branch's centre, (galaxy,): another may have
    gone over.
    """
    levels = _levels(run, outcomes)
    begun = np.median(levels[:, :, : max(1, levels.shape[2] // 4)], axis=2)
    modes = [np.asarray(theta)[run.hierarchy.is_level] for theta in centres]
    away = np.linalg.norm(begun - np.array(modes)[:, None], axis=-1)
    return np.take_along_axis(begun, away.argmin(axis=1)[:, None, None], axis=1)[:, 0]


def _owner(run, middles, theta):
    """Return the branch on whose side each point is, (...) of (..., galaxy)."""
    level = theta[..., run.hierarchy.is_level]
    return np.linalg.norm(level[..., None, :] - middles, axis=-1).argmin(axis=-1)


def _levels(run, outcomes):
    """Levels of the kept draws of all chains, (branch, chain, kept, level)."""
    level = run.hierarchy.is_level
    return np.stack([one["kept"]["theta"][:, :, level] for one in outcomes])


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
    # Twice, where departures are integrated out with noise of its own.
    passes = keys[:1] if run.hierarchy.coupled else keys[:2]
    homes = [partial(_is_home, run, middles, number) for number in range(len(middles))]
    each = [*zip(homes, affines, outcomes, strict=True)]
    found = [[_integrate(run, arrays, *one, key) for one in each] for key in passes]
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
    middle = run.middle(arrays, affine)[1]
    middle = jnp.broadcast_to(middle, (looks, *z.shape[2:]))
    look = _looker(hierarchy, arrays, affine, key_noise)
    at_draws = look(flat, starts) - proposal.log_density(flat)
    at_proposals = look(proposed, middle) - proposal.log_density(proposed)
    at_proposals = np.where(is_home(proposed), at_proposals, -np.inf)
    return log_integral(at_draws.reshape(shape), at_proposals)


def _looker(hierarchy, arrays, affine, key):
    """Make the log posterior of ``theta`` with departures integrated out, of many."""
    if not hierarchy.coupled:
        shape = len(arrays["white"]), hierarchy.sizes[1]
        noise = collapse.heavy_noise(key, shape, PROPOSED)
        return lambda theta, z: np.asarray(
            _marginals(hierarchy, arrays, jnp.asarray(theta), jnp.asarray(z), noise)
        )
    look = partial(log_evidence, hierarchy, arrays, affine["steady"])
    return lambda theta, z: np.array(side_by_side(look, theta, z), dtype=float)


@partial(jax.jit, static_argnums=0)
def _marginals(hierarchy, arrays, theta, z, noise):
    def one(point):
        theta, z = point
        seen = collapse.spaxel_evidence(hierarchy, arrays, theta, z, noise)
        return hierarchy.densities(arrays, theta, z)[0] + jnp.sum(seen)

    return jax.lax.map(one, (theta, z))

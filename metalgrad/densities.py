"""The log prior and the log likelihood of draws, apart, as power-scaling wants them.

A prior raised to a power is the density of the parameter itself, so these are densities
on the constrained scale: the volume of the sampler's transforms is not in them.
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from numpyro import handlers

from metalgrad.hierarchy import SIGNED, Hierarchy
from metalgrad.priors import DECENTERED


def split_density(hierarchy: Hierarchy, arrays, outcome: dict) -> dict:
    """Take the density of a run's draws apart.

    Returns
    -------
    dict
        ``log_prior``, as `log_priors` of all draws; ``log_likelihood``, as
        `log_likelihoods` of those of which all latents were kept.
    """
    kept = outcome["kept"]
    return {
        "log_prior": log_priors(hierarchy, arrays, outcome["sites"]),
        "log_likelihood": log_likelihoods(hierarchy, arrays, kept["theta"], kept["z"]),
    }


def log_priors(hierarchy: Hierarchy, arrays, sites: dict) -> dict[str, np.ndarray]:
    """Log prior density of each of the galaxy's sites, at every draw.

    Parameters
    ----------
    hierarchy : Hierarchy
    arrays : dict
        `LineLikelihood.arrays`.
    sites : dict of str to array, (chain, draw, ...)
        Draws of the galaxy's sites, amplitudes without their free sign.

    Returns
    -------
    dict of str to numpy.ndarray, (chain, draw, ...)
        Of each number of a site; of an amplitude with a free sign, folded at 0.
    """
    draws = {
        name: jnp.asarray(sites[recorded])
        for name, recorded in zip(hierarchy.galaxy, hierarchy.galaxy_names, strict=True)
    }
    shape = next(iter(draws.values())).shape[:2]
    flat = {name: v.reshape(-1, *v.shape[2:]) for name, v in draws.items()}
    found = {
        name: np.asarray(values).reshape(*shape, *values.shape[1:])
        for name, values in _log_priors(hierarchy, arrays, flat).items()
    }
    folded = {name: np.log(2) if name.endswith(SIGNED) else 0.0 for name in found}
    pairs = zip(hierarchy.galaxy, hierarchy.galaxy_names, strict=True)
    return {recorded: found[name] + folded[name] for name, recorded in pairs}


@partial(jax.jit, static_argnums=0)
def _log_priors(hierarchy, arrays, draws):
    data = hierarchy.data.with_arrays(arrays)

    def one(values):
        # Priors of the galaxy do not look at departures: any will do.
        seeded = handlers.seed(hierarchy.model, jax.random.key(0))
        own = {n: v for n, v in values.items() if not n.endswith(DECENTERED)}
        trace = handlers.trace(handlers.substitute(seeded, own)).get_trace(data)
        laws = {n: trace[n]["infer"].get("law", trace[n]["fn"]) for n in values}
        return {name: law.log_prob(values[name]) for name, law in laws.items()}

    return jax.lax.map(one, draws)


def log_likelihoods(hierarchy: Hierarchy, arrays, theta, z) -> np.ndarray:
    """Log density of all data given all latents, at every draw.

    Parameters
    ----------
    hierarchy : Hierarchy
    arrays : dict
    theta : array, (chain, draw, galaxy)
    z : array, (chain, draw, unit, latent)

    Returns
    -------
    numpy.ndarray, (chain, draw)
    """
    flat = (jnp.asarray(v.reshape(-1, *v.shape[2:])) for v in (theta, z))
    return np.asarray(_totals(hierarchy, arrays, *flat)).reshape(theta.shape[:2])


@partial(jax.jit, static_argnums=0)
def _totals(hierarchy, arrays, theta, z):
    def one(point):
        return jnp.sum(hierarchy.pointwise(arrays, *point))

    return jax.lax.map(one, (theta, z))

"""What a prior says of the galaxy: where to start, how wide parameters may be."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from numpyro import handlers
from numpyro.infer import init_to_median
from numpyro.infer.initialization import init_to_sample

from metalgrad.hierarchy import SIGNED, Hierarchy

SPREAD = 200  # draws of the prior, for its quantiles


def prior_sd(hierarchy: Hierarchy, draws: int = 1000) -> dict[str, float]:
    """Prior standard deviation of each of the galaxy's sites."""
    values = _prior_values(hierarchy, jax.random.split(jax.random.key(0), draws))
    return {name: float(np.std(v)) for name, v in values.items()}


def prior_points(hierarchy: Hierarchy, key, count: int) -> Float[Array, "point galaxy"]:
    """Return ``theta`` at the prior's median, then at draws from the prior.

    Levels of metallicity are spread evenly over their prior, lest all starts should lie
    on one branch of a calibration.
    """
    draws = _prior_draws(hierarchy, jax.random.split(key, SPREAD))
    places = (jnp.arange(count - 1) + 0.5) / max(count - 1, 1)
    spread = jnp.quantile(draws, places, axis=0)
    starts = jnp.where(hierarchy.is_level, spread, draws[: count - 1])
    return jnp.concatenate([_prior_median(hierarchy, key)[None], starts])


def _start(hierarchy, key, *, strategy):
    seeded = handlers.seed(hierarchy.model, key)
    seeded = handlers.substitute(seeded, substitute_fn=strategy)
    trace = handlers.trace(seeded).get_trace(hierarchy.data)
    pieces = []
    for name, (_, transform) in hierarchy.galaxy.items():
        value = trace[name]["value"]
        if name.endswith(SIGNED):  # by symmetry 0 is stationary: no place to start
            value = jnp.where(value == 0, 0.5 * trace[name]["fn"].scale, value)
        pieces.append(transform.inv(value).reshape(-1))
    return jnp.concatenate(pieces)


@partial(jax.jit, static_argnums=0)
def _prior_draws(hierarchy, keys):
    return jax.vmap(partial(_start, hierarchy, strategy=init_to_sample()))(keys)


@partial(jax.jit, static_argnums=0)
def _prior_median(hierarchy, key):
    return _start(hierarchy, key, strategy=init_to_median())


@partial(jax.jit, static_argnums=0)
def _prior_values(hierarchy, keys):
    def one(key):
        seeded = handlers.seed(hierarchy.model, key)
        trace = handlers.trace(seeded).get_trace(hierarchy.data)
        return {name: trace[name]["value"] for name in hierarchy.galaxy_names}

    return jax.lax.map(one, keys)

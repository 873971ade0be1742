"""What a prior says of the galaxy: where to start, how wide parameters may be."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from numpyro import handlers

from metalgrad.hierarchy import Hierarchy

DRAWS = 1000  # of the prior, for its widths and quantiles


def prior_sd(hierarchy: Hierarchy, arrays, draws: int = DRAWS) -> dict:
    """Prior standard deviation of each of the galaxy's sites, number by number.

    Data have a part in priors: the typical ratios are about those of the metallicities
    where there are spaxels.
    """
    _, values = _draw(hierarchy, arrays, jax.random.split(jax.random.key(0), draws))
    return {name: np.std(values[name], axis=0) for name in hierarchy.galaxy_names}


def prior_points(
    hierarchy: Hierarchy, arrays, key, count: int
) -> Float[Array, "point galaxy"]:
    """Return ``theta`` at the prior's median, then at draws from the prior.

    Levels of metallicity are spread evenly over their prior, lest all starts should lie
    on one branch of a calibration.  An amplitude whose sign is free has a median of 0,
    which by symmetry is stationary: no place to start, as its median size is.
    """
    draws = np.asarray(_draw(hierarchy, arrays, jax.random.split(key, DRAWS))[0])
    median = np.median(np.where(hierarchy.is_signed, np.abs(draws), draws), axis=0)
    places = (np.arange(count - 1) + 0.5) / max(count - 1, 1)
    spread = np.quantile(draws, places, axis=0)
    starts = np.where(hierarchy.is_level, spread, draws[: count - 1])
    return jnp.asarray(np.concatenate([median[None], starts]))


@partial(jax.jit, static_argnums=0)
def _draw(hierarchy, arrays, keys):
    """Draw ``theta``, (draw, galaxy), and the values of the sites behind it."""
    data = hierarchy.data.with_arrays(arrays)

    def one(key):
        seeded = handlers.seed(hierarchy.model, key)
        trace = handlers.trace(seeded).get_trace(data)
        values = {name: site["value"] for name, site in trace.items()}
        each = hierarchy.galaxy.items()
        theta = [transform.inv(values[n]).reshape(-1) for n, (_, transform) in each]
        return jnp.concatenate(theta), {n: values[n] for n in hierarchy.galaxy_names}

    return jax.lax.map(one, keys)

"""What every sampler is given, and how it runs several chains."""

from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import jax
import jax.numpy as jnp
from numpyro.infer import init_to_median
from numpyro.infer.util import initialize_model

from metalgrad.hierarchy import split


class Problem(NamedTuple):
    """What a sampler is given.

    Attributes
    ----------
    case : Case
    names : tuple of str
        The galaxy's parameters.
    seed, chains : int
    limit : float
        Seconds after which no further batch will be asked for.
    """

    case: object
    names: tuple[str, ...]
    seed: int
    chains: int
    limit: float

    @classmethod
    def of(cls, case, **settings):
        """Find the galaxy's parameters among the sites of the case's model."""
        names = split(case.model, case.prepared).galaxy_names
        return cls(case, tuple(names), **settings)

    @property
    def key(self):
        """Of all randomness."""
        return jax.random.key(self.seed)


def start_points(problem, count):
    """Return starting points, negative log density, and the galaxy at a point."""
    keys = jax.random.split(problem.key, count)
    found = initialize_model(
        keys, problem.case.compressed, init_strategy=init_to_median, validate_grad=False
    )

    def constrain(point):
        values = found.postprocess_fn(point)
        return {name: values[name] for name in problem.names}

    return found.param_info.z, found.potential_fn, constrain


def each(function):
    """Map over chains: side by side on an accelerator, in threads on a CPU."""
    if jax.default_backend() != "cpu":
        return jax.jit(jax.vmap(function))
    compiled = []

    def run(*arguments):
        count = len(jax.tree.leaves(arguments)[0])
        rows = [
            jax.tree.map(lambda x, n=n: jnp.asarray(x)[n], arguments)
            for n in range(count)
        ]
        if not compiled:  # once, before threads do it at once
            compiled.append(jax.jit(function).lower(*rows[0]).compile())
        with ThreadPoolExecutor(count) as pool:
            found = [*pool.map(lambda row: compiled[0](*row), rows)]
            jax.block_until_ready(found)
        return jax.tree.map(lambda *parts: jnp.stack(parts), *found)

    return run

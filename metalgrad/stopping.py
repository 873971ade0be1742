"""When chains are long enough: as many draws as asked for, or as are needed."""

import numpy as np
import xarray

from metalgrad import thinning
from metalgrad.convergence import convergence

# Draws of a chain after which it is seen whether they are enough: each twice as many as
# before, and whole chunks of chains; ours.
LOOKS = 250, 500, 1000
LONGEST = LOOKS[-1]


def goals(draws: int | None) -> tuple[int, ...]:
    """Return how many draws of a chain there may be in the end."""
    return LOOKS if draws is None else (draws,)


def stride(number: int, draws: int | None, every) -> int:
    """Tell at every how many draws all latents are kept from the ``number``-th on.

    Where chains may go on it is a power of two: what is kept of longer chains, of which
    fewer are, has to be among what was kept of shorter ones.

    Parameters
    ----------
    number : int
    draws : int or None
        As for `goals`.
    every : callable
        Of the number of draws in the end: at every how many there is room.
    """
    goal = next(goal for goal in goals(draws) if number < goal)
    return every(goal) if draws else 1 << (every(goal) - 1).bit_length()


def suffice(hierarchy, logs, draws: int) -> bool:
    """Tell whether so many draws of each chain meet the thresholds of the verdict.

    R-hat, bulk and tail of what the model draws of the galaxy, and of the metallicity
    map, spaxels with which data were filled up among them.

    Parameters
    ----------
    hierarchy : Hierarchy
    logs : list of Log
        One per chain.
    draws : int
    """
    wanted = (*hierarchy.galaxy_names, *hierarchy.derived)
    single = {}
    for name in wanted:
        values = thinning.look(logs, name, draws)
        for index in np.ndindex(values.shape[2:]):
            single[f"{name}{[*index] or ''}"] = values[(..., *index)]
    if not all(np.isfinite(values).all() for values in single.values()):
        return False
    zmap = thinning.look(logs, "metallicity", draws)
    found = convergence(xarray.DataTree(), single, zmap)
    return all(one.passed for one in found)

"""Work side by side, a thread for each core: compiled, it does not hold Python up."""

import os
from concurrent.futures import ThreadPoolExecutor

import jax


def side_by_side(function, *given) -> list:
    """Map in double precision, as ``map`` does.

    The first is done alone: it traces and compiles, for which NumPyro's handlers are
    one for all threads, and the others find it compiled.

    Parameters
    ----------
    function : callable
    *given : sequences of the same length, not 0
        Its arguments.
    """

    def apart(*one):
        with jax.enable_x64(new_val=True):  # a thread begins with the default
            return jax.block_until_ready(function(*one))

    first, *rest = zip(*given, strict=True)
    done = apart(*first)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return [done, *pool.map(lambda one: apart(*one), rest)]

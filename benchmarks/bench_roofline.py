"""Question: how far is a gradient from what this machine could do at best?

What the machine can do is measured in the same process, in the same kind of compiled
loop as the gradient: bytes from memory, multiplications with additions of numbers that
are in cache, and exponentials of them.  What a gradient has to do is counted by XLA's
analysis of its program: operations, transcendental functions; and bytes that must come
from memory once, those of its arguments and results.  The floor is the sum of the times
for operations and functions, or that for bytes if longer: of the program that XLA made,
which may do more than the formula asks for.  All is of one core, as XLA uses one for a
gradient of this size: run ``taskset -c 0 python benchmarks/bench_roofline.py``; the
table goes to ``benchmarks/results/roofline.json``.
"""

import json
import time
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
from bench_gradient import REPEATS, find_potential, prepare, time_gradient

from metalgrad.bench_measures import about

RESULTS = Path(__file__).parent / "results" / "roofline.json"
LARGE, SMALL = 1 << 25, 1 << 11  # numbers beyond any cache, and within the first
DEGREE, TURNS = 64, 2000  # of a polynomial; turns of a loop


def best_seconds(function, *arguments):
    """Least time of a call that is compiled already."""
    jax.block_until_ready(function(*arguments))
    seconds = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        jax.block_until_ready(function(*arguments))
        seconds.append(time.perf_counter() - start)
    return min(seconds)


def measure_machine() -> dict[str, float]:
    """Bytes, operations and exponentials per second, of numbers in double precision."""
    one, other = jnp.ones(LARGE), jnp.full(LARGE, 0.5)
    add = jax.jit(lambda x, y: x + 2.0 * y)
    small = jnp.linspace(0.0, 1e-3, SMALL)

    def horner(_, x):
        value = x
        for _ in range(DEGREE):
            value = value * x + 0.5
        return value

    repeat = jax.jit(
        lambda body, x: jax.lax.fori_loop(0, TURNS, body, x), static_argnums=0
    )
    return {
        "bytes": 3 * one.nbytes / best_seconds(add, one, other),
        "operations": 2 * DEGREE * SMALL * TURNS / best_seconds(repeat, horner, small),
        "functions": SMALL
        * TURNS
        / best_seconds(repeat, lambda _, x: jnp.exp(-x), small),
    }


def count_work(hierarchy, arrays, theta, z, coordinates, *, still) -> dict[str, float]:
    """Count what one gradient has to do: operations, functions, bytes to be fetched."""
    potential = partial(find_potential, hierarchy, coordinates, still)
    gradient = jax.jit(jax.grad(potential, argnums=(1, 2)))
    counted = gradient.lower(arrays, theta, z).compile().cost_analysis()
    read = jax.tree.leaves((arrays, coordinates if still else None, theta, z))
    return {
        "operations": counted["flops"],
        "functions": counted["transcendentals"],
        "bytes": float(sum(part.nbytes for part in read) + theta.nbytes + z.nbytes),
    }


def find_floor(work, machine) -> float:
    """Seconds below which no program could do the work on one core."""
    needed = {kind: work[kind] / machine[kind] for kind in work}
    return max(needed["bytes"], needed["operations"] + needed["functions"])


def main():
    """Measure the machine, count, time, print and keep."""
    with jax.enable_x64(new_val=True):
        machine = measure_machine()
        print(", ".join(f"{kind} {rate:.3g}/s" for kind, rate in machine.items()))
        rows = {"model": {}, "sampled": {}}
        for count in (100, 400, 1600):
            prepared = prepare(count)
            for kind in rows:
                still = kind == "sampled"
                work = count_work(*prepared, still=still)
                seconds = time_gradient(*prepared, still=still)[1]
                floor = find_floor(work, machine)
                rows[kind][count] = {"work": work, "best": seconds, "floor": floor}
                print(
                    f"{count:6} spaxels, {kind:7} {seconds * 1e6:9.1f} us, "
                    f"{seconds / floor:.2f} times the floor of {floor * 1e6:.1f} us",
                    flush=True,
                )
    found = about() | {"machine": machine, "rows": rows}
    RESULTS.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()

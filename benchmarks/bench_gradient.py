"""Question: what does one gradient of the log density cost, against spaxels?

The gradient is timed inside a compiled loop, as a sampler runs it, in double precision,
on tables of spectra with S/N 6 of Hβ (`metalgrad.bench_cases`): that of the model, and
that in the coordinates in which NUTS moves, found at the mode.  Run
``python benchmarks/bench_gradient.py``; the table goes to
``benchmarks/results/gradient.json``.
"""

import json
import os
import time
from datetime import UTC, datetime
from functools import partial
from importlib.metadata import version
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from metalgrad import bench_cases, settled
from metalgrad.hierarchy import split
from metalgrad.modes import find_mode
from metalgrad.starts import prior_points

RESULTS = Path(__file__).parent / "results" / "gradient.json"
LOOP, REPEATS = 200, 7


def prepare(count):
    """Return the density of a table, its arrays, its mode and what is told there."""
    case = bench_cases.table(count, seed=1)
    hierarchy, arrays = split(case.model, case.prepared), case.prepared.arrays
    key = jax.random.key(0)
    start = prior_points(hierarchy, arrays, key, 1)[0]
    theta, z, _ = find_mode(hierarchy, arrays, start, key=key)
    return hierarchy, arrays, theta, z, settled.find(hierarchy, arrays, theta, z)


def find_potential(hierarchy, coordinates, still, arrays, theta, z):
    """Negative log density of the model, or in NUTS's coordinates where ``still``."""
    volume = 0.0
    if still:
        z, volume = settled.place(hierarchy, arrays, coordinates, theta, z)
    return hierarchy.potential(arrays, theta, z) - volume


def time_gradient(hierarchy, arrays, theta, z, coordinates, *, still):
    """Median and best seconds of one gradient."""
    potential = partial(find_potential, hierarchy, coordinates, still, arrays)

    @jax.jit
    def loop(theta, z):
        def step(_, point):
            slope = jax.grad(potential, argnums=(0, 1))(*point)
            return tuple(x - 1e-9 * dx for x, dx in zip(point, slope, strict=True))

        return jax.lax.fori_loop(0, LOOP, step, (theta, z))

    jax.block_until_ready(loop(theta, z))
    seconds = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        jax.block_until_ready(loop(theta, jnp.array(z)))
        seconds.append((time.perf_counter() - start) / LOOP)
    return float(np.median(seconds)), min(seconds)


def main():
    """Time, print and keep."""
    rows = {"model": {}, "sampled": {}}
    with jax.enable_x64(new_val=True):
        for count in (25, 100, 400, 1600, 6400):
            prepared = prepare(count)
            for kind in rows:
                median, best = time_gradient(*prepared, still=kind == "sampled")
                rows[kind][count] = {"median": median, "best": best}
                print(f"{count:6} spaxels, {kind:7} {median * 1e6:9.1f} us", flush=True)
    about = {
        "device": str(jax.devices()[0]),
        "cores": os.cpu_count(),
        "date": datetime.now(UTC).date().isoformat(),
        "versions": {name: version(name) for name in ("jax", "numpyro")},
    }
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(about | {"seconds": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()

"""Question: what is gained by the gradients of many galaxies at once?

The gradient that chains follow is timed in a compiled loop, in double precision: of one
table of spectra (`metalgrad.bench_cases`), and of copies of it side by side by
``jax.vmap``.  Chains of several galaxies that go in step can gain no more than that,
and lose what shorter trajectories wait for the longest.  Run ``python
benchmarks/bench_batch.py``; the table goes to ``benchmarks/results/batch_DEVICE.json``.
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

from metalgrad import bench_cases, whitening
from metalgrad.inference import set_up

RESULTS = Path(__file__).parent / "results"
SPAXELS, GALAXIES = (25, 150), (1, 8, 64)
LOOP, REPEATS = 192, 5


def prepare(count):
    """Return the slope of a table, and a point near its mode, all by copies."""
    case = bench_cases.table(count, seed=1)
    run, arrays = set_up(case.model, case.prepared, 100, 0.8)
    affine = run.coordinates(arrays, jax.random.key(0))
    rng = np.random.default_rng(1)
    white = {
        "galaxy": jnp.asarray(0.1 * rng.normal(size=affine["theta"].shape)),
        "spaxel": jnp.asarray(0.1 * rng.normal(size=affine["z"].shape)),
    }
    return partial(whitening.climb, run.hierarchy), (arrays, affine, white)


def copy(tree, count):
    """Put copies of all arrays along a first axis."""
    return jax.tree.map(lambda x: jnp.repeat(x[None], count, axis=0), tree)


def time_gradient(climb, arrays, affine, white):
    """Median seconds of a gradient of all copies."""
    count = len(affine["theta"])
    loop = max(LOOP // count, 3)
    each = jax.vmap(climb) if count > 1 else climb
    given = arrays, affine, white
    if count == 1:
        given = jax.tree.map(lambda x: x[0], given)

    @jax.jit
    def descend(arrays, affine, white):
        def step(_, point):
            slope = each(arrays, affine, point)[1]
            return jax.tree.map(lambda x, dx: x - 1e-9 * dx, point, slope)

        return jax.lax.fori_loop(0, loop, step, white)

    jax.block_until_ready(descend(*given))
    seconds = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        jax.block_until_ready(descend(*given))
        seconds.append((time.perf_counter() - start) / loop)
    return float(np.median(seconds))


def main():
    """Time, print and keep."""
    rows = {}
    with jax.enable_x64(new_val=True):
        for spaxels in SPAXELS:
            climb, given = prepare(spaxels)
            rows[spaxels] = {}
            for count in GALAXIES:
                seconds = time_gradient(climb, *copy(given, count)) / count
                rows[spaxels][count] = round(1e3 * seconds, 4)
                print(
                    f"{spaxels:5} spaxels, {count:3} galaxies at once: "
                    f"{1e3 * seconds:.3f} ms a galaxy",
                    flush=True,
                )
    device = jax.devices()[0]
    about = {
        "device": device.device_kind,
        "cores": os.cpu_count(),
        "jax": version("jax"),
        "at": datetime.now(UTC).isoformat(timespec="minutes"),
    }
    found = {"about": about, "ms a galaxy, by spaxels and galaxies at once": rows}
    path = RESULTS / f"batch_{device.platform}.json"
    path.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()

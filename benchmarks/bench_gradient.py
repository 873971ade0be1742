"""Question: what does one gradient of the log density cost, against spaxels?

The gradient is timed inside a compiled loop, as a sampler runs it, in double precision,
on mock line maps of the shape that a COSMOS24108 cube gives: that of the model, and
that in the coordinates in which NUTS moves.  Run
``python benchmarks/bench_gradient.py``; the table goes to
``benchmarks/results/gradient.json``.
"""

import json
import os
import time
from datetime import UTC, datetime
from importlib.metadata import version
from itertools import product
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

import metalgrad as mg
from metalgrad import settled
from metalgrad.hierarchy import split
from metalgrad.inference import Shape
from metalgrad.starts import prior_points

RESULTS = Path(__file__).parent / "results" / "gradient.json"
COMPLEXES = (
    ("OII", "NeIII", "Hdelta"),
    ("Hgamma", "OIII_4364"),
    ("Hbeta", "OIII"),
    ("NII", "Halpha", "SII"),
)
LOOP, REPEATS = 200, 7


def time_gradient(count, *, still):
    """Median and best seconds of one gradient with ``count`` spaxels."""
    lines = sum(COMPLEXES, ())
    data = Shape(lines, COMPLEXES, count, has_channels=True).blank()
    hierarchy = split(mg.load_model("gradient"), data)
    arrays = data.arrays
    theta = prior_points(hierarchy, jax.random.key(0), 1)[0]
    z = 0.1 * jax.random.normal(jax.random.key(1), (count, hierarchy.sizes[1]))
    coordinates = settled.find(hierarchy, arrays, theta, z)

    def potential(theta, z):
        volume = 0.0
        if still:
            z, volume = settled.place(hierarchy, arrays, coordinates, theta, z)
        return hierarchy.potential(arrays, theta, z) - volume

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
        for count, kind in product((25, 100, 400, 1600, 6400), rows):
            median, best = time_gradient(count, still=kind == "sampled")
            rows[kind][count] = {"median": median, "best": best}
            print(f"{count:6} spaxels, {kind:7} {median * 1e6:9.1f} us")
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

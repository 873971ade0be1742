"""Question: what does one gradient of the log density cost, against spaxels?

The gradient is timed inside a compiled loop, as a sampler runs it, in double precision,
on mock line maps of the shape that a COSMOS24108 cube gives.  Run
``python benchmarks/bench_gradient.py``; the table goes to
``benchmarks/results/gradient.json``.
"""

import json
import os
import time
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

import metalgrad as mg
from metalgrad.hierarchy import split
from metalgrad.inference import Shape

RESULTS = Path(__file__).parent / "results" / "gradient.json"
COMPLEXES = (
    ("OII", "NeIII", "Hdelta"),
    ("Hgamma", "OIII_4364"),
    ("Hbeta", "OIII"),
    ("NII", "Halpha", "SII"),
)
LOOP, REPEATS = 200, 7


def time_gradient(count):
    """Median and best seconds of one gradient with ``count`` spaxels."""
    lines = sum(COMPLEXES, ())
    data = Shape(lines, COMPLEXES, count, has_channels=True).blank()
    hierarchy = split(mg.load_model("gradient"), data)
    arrays = data.arrays

    @jax.jit
    def loop(theta, z):
        def step(_, point):
            slope = jax.grad(hierarchy.potential, argnums=(1, 2))(arrays, *point)
            return tuple(x - 1e-9 * dx for x, dx in zip(point, slope, strict=True))

        return jax.lax.fori_loop(0, LOOP, step, (theta, z))

    theta = hierarchy.prior_points(jax.random.key(0), 1)[0]
    z = 0.1 * jax.random.normal(jax.random.key(1), (count, hierarchy.sizes[1]))
    jax.block_until_ready(loop(theta, z))
    seconds = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        jax.block_until_ready(loop(theta, jnp.array(z)))
        seconds.append((time.perf_counter() - start) / LOOP)
    return float(np.median(seconds)), min(seconds)


def main():
    """Time, print and keep."""
    rows = {}
    with jax.enable_x64(new_val=True):
        for count in (25, 100, 400, 1600, 6400):
            median, best = time_gradient(count)
            rows[count] = {"median": median, "best": best}
            print(f"{count:6} spaxels {median * 1e6:9.1f} us (best {best * 1e6:.1f})")
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

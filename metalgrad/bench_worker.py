"""One measurement in a process of its own, so that memory and compilation are its own.

Run as ``python -m metalgrad.bench_worker TASK OUT``: a task in JSON, and the file that
its result is written to, again whenever there is more of it.
"""

import json
import sys
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from metalgrad import bench_cases
from metalgrad.bench_measures import ENOUGH, Clock, about, describe, peak_memory
from metalgrad.bench_problem import Problem
from metalgrad.bench_rivals import RIVALS, missing
from metalgrad.files import NewFile
from metalgrad.hierarchy import split
from metalgrad.starts import prior_points

CASES = {"table": bench_cases.table, "cube": bench_cases.cube}
LOOP, REPEATS = 200, 7
LEAST = 4  # draws of a chain that ArviZ can say anything about


def sample(task: dict, *, keep) -> dict:
    """Run a rival until there is enough, or the time is over.

    Parameters
    ----------
    task : dict
        ``case``, ``size``, ``rival``, ``seed``, ``chains`` and ``limit`` [s].
    keep : callable
        Takes the row, whenever there is more to tell.
    """
    row = {key: task[key] for key in ("case", "size", "rival", "chains", "limit")}
    if reason := missing(task["rival"]):
        return row | {"skipped": reason}
    case = CASES[task["case"]](task["size"], task["seed"])
    row["spaxels"] = len(case.prepared)
    settings = {key: task[key] for key in ("seed", "chains", "limit")}
    problem, clock = Problem.of(case, **settings), Clock()
    clock.lap()
    for progress in RIVALS[task["rival"]](problem, clock):
        row |= {"warmup": progress.warmup, "sampling": progress.sampling}
        row["memory"] = peak_memory()
        if _draws(progress.samples) >= LEAST:
            row.setdefault("compilation", clock.compiled)  # once, as a user would
            row |= describe(progress.samples) | {"draws": _draws(progress.samples)}
        keep(row)
        if row.get("ess", 0) >= ENOUGH or clock.elapsed > task["limit"]:
            break
        clock.lap()  # leave the counting out
    return row


def gradient(task: dict, **_) -> dict:
    """Time a gradient of the log density of a table, inside a compiled loop.

    Parameters
    ----------
    task : dict
        ``size`` (spaxels), ``seed`` and ``bits`` (32 or 64).
    """
    with jax.enable_x64(new_val=True):  # random numbers of 32 bits are others
        case = bench_cases.table(task["size"], task["seed"])
        hierarchy = split(case.model, case.prepared)
        given = case.prepared.arrays
        theta = np.asarray(prior_points(hierarchy, given, jax.random.key(0), 1)[0])
    with jax.enable_x64(new_val=task["bits"] == 64):
        kind = jnp.float64 if task["bits"] == 64 else jnp.float32
        arrays = jax.tree.map(lambda x: jnp.asarray(x, kind), case.prepared.arrays)
        z = 0.1 * np.random.default_rng(1).normal(
            size=(len(case.prepared), hierarchy.sizes[1])
        )
        point = jnp.asarray(theta, kind), jnp.asarray(z, kind)
        slope = jax.grad(hierarchy.potential, argnums=(1, 2))

        @jax.jit
        def loop(arrays, point):
            def step(_, point):
                moved = zip(point, slope(arrays, *point), strict=True)
                return tuple(x - 1e-9 * dx for x, dx in moved)

            return jax.lax.fori_loop(0, LOOP, step, point)

        clock = Clock()
        jax.block_until_ready(loop(arrays, point))
        clock.lap()
        seconds = []
        for _ in range(REPEATS):
            start = time.perf_counter()
            jax.block_until_ready(loop(arrays, point))
            seconds.append((time.perf_counter() - start) / LOOP)
        found = jnp.concatenate([x.ravel() for x in slope(arrays, *point)])
    return {
        "size": task["size"],
        "bits": task["bits"],
        "median": float(np.median(seconds)),
        "best": min(seconds),
        "compilation": clock.compiled,
        "memory": peak_memory(),
        "slope": np.asarray(found, float)[: len(theta)].tolist(),
    }


TASKS = {"sample": sample, "gradient": gradient}


def _draws(samples):
    return min((np.shape(values)[1] for values in samples.values()), default=0)


def main(task: str, out: str):
    """Do a task; write its result, with what it was measured with, to ``out``."""
    task = json.loads(task)
    double = task["task"] == "sample"
    settings = {"enable_compilation_cache": False, "enable_x64": double}
    for name, value in settings.items():
        jax.config.update(f"jax_{name}", value)

    def keep(row):
        with NewFile(Path(out)) as fresh:
            fresh.write_text(json.dumps({"row": row, "about": about()}))

    keep(TASKS[task["task"]](task, keep=keep))


if __name__ == "__main__":
    main(*sys.argv[1:])

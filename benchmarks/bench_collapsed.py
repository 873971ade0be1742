"""Question: would it be sooner to integrate spaxels out of every gradient?

A table of spectra (`metalgrad.bench_cases`) is sampled twice, each chain by itself on
one core and from the same coordinates: by metalgrad's chains, which move every spaxel's
latents, too, and by NUTS in the galaxy's parameters alone, dense metric, whose density
is `metalgrad.collapse.collapse`: Newton's method finds the modes of all spaxels, from
where metalgrad's coordinates say that they are, and Laplace's approximation integrates
about them.  Run ``python benchmarks/bench_collapsed.py [COUNT ...]``; what it finds
goes to ``benchmarks/results/collapsed.json``.
"""

import json
import os
import sys
import time
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import arviz_stats
import jax
import jax.numpy as jnp
import numpy as np
from numpyro.infer import MCMC, NUTS
from threadpoolctl import threadpool_limits

from metalgrad import bench_cases, whitening
from metalgrad.bench_measures import Clock
from metalgrad.chains import CHUNK
from metalgrad.collapse import collapse
from metalgrad.inference import set_up

RESULTS = Path(__file__).parent / "results" / "collapsed.json"
CHAINS = 2
JOINT = {"warmup": 300, "draws": 400}
COLLAPSED = {"warmup": 100, "draws": 200}
NEWTON = 4  # steps towards the spaxels' modes, at most


def run_joint(run, arrays, affine, clock):
    """Sample everything; return the galaxy's parameters, steps a draw, and seconds."""
    chains, steps, seconds = [], [], {"warmup": 0.0, "draws": 0.0}
    for key in jax.random.split(jax.random.key(1), CHAINS):
        state = run.start(key, arrays, affine)
        jax.block_until_ready(run.advance(state, arrays, affine, 0))
        clock.lap()
        for part, count in JOINT.items():
            kept = []
            for _ in range(0, count, CHUNK):
                state, store = run.advance(state, arrays, affine, CHUNK)
                kept.append(jax.tree.map(np.asarray, store))
            seconds[part] += clock.lap()
        chains.append(np.concatenate([one["theta"] for one in kept]))
        steps.append([one["statistics"]["tree_steps"].mean() for one in kept])
    return np.stack(chains), np.mean(steps), seconds


def run_collapsed(run, arrays, affine, clock):
    """Sample the galaxy's parameters; return as `run_joint` does."""
    hierarchy, still = run.hierarchy, jnp.zeros_like(affine["z"])

    def climb(eta):
        white = {"galaxy": eta, "spaxel": still}
        theta, z, _ = whitening.reach(hierarchy, arrays, affine, white)
        value, slope, _ = collapse(hierarchy, arrays, theta, z, NEWTON)
        return value, affine["stretch"].T @ slope

    @jax.custom_vjp
    def potential(eta):
        return climb(eta)[0]

    potential.defvjp(climb, lambda slope, change: (change * slope,))
    kernel = NUTS(potential_fn=potential, dense_mass=True)
    chains, steps, seconds = [], [], {"warmup": 0.0, "draws": 0.0}
    for key in jax.random.split(jax.random.key(1), CHAINS):
        count = {"num_warmup": COLLAPSED["warmup"], "num_samples": COLLAPSED["draws"]}
        mcmc = MCMC(kernel, **count, progress_bar=False)
        clock.lap()
        mcmc.warmup(key, init_params=jnp.zeros(len(affine["theta"])))
        jax.block_until_ready(mcmc.last_state)
        seconds["warmup"] += clock.lap()
        mcmc.run(key, extra_fields=("num_steps",))
        jax.block_until_ready(mcmc.last_state)
        seconds["draws"] += clock.lap()
        chains.append(affine["theta"] + mcmc.get_samples() @ affine["stretch"].T)
        steps.append(np.mean(mcmc.get_extra_fields()["num_steps"]))
    return np.stack(chains), np.mean(steps), seconds


def summarise(chains, steps, seconds, settings):
    """Tell how many draws are effective, and what they cost."""
    draws = settings["draws"] * CHAINS
    effective = [float(arviz_stats.ess(chains[..., k])) for k in range(chains.shape[2])]
    return {
        **{f"{part} [s]": round(value / CHAINS, 1) for part, value in seconds.items()},
        "steps a draw": round(float(steps), 1),
        "ms a step": round(1e3 * seconds["draws"] / (steps * draws), 2),
        "effective of a draw": round(min(effective) / draws, 2),
        "s to 100 effective, a chain's": round(
            (seconds["warmup"] + seconds["draws"] * 100 / min(effective)) / CHAINS, 1
        ),
    }


def compare(hierarchy, joint, collapsed):
    """Tell how far one posterior of the galaxy's parameters is from the other."""
    shapes = [int(np.prod(shape)) for shape, _ in hierarchy.galaxy.values()]
    names = np.repeat(hierarchy.galaxy_names, shapes)
    folded = [np.where(hierarchy.is_signed, np.abs(x), x) for x in (joint, collapsed)]
    (mean, sd), (other, wide) = ((x.mean((0, 1)), x.std((0, 1))) for x in folded)
    apart = (other - mean) / sd
    far = np.argsort(-np.abs(apart))[:5]
    return {
        "means apart [sd], rms": round(float(np.sqrt(np.mean(apart**2))), 2),
        "farthest": {str(names[k]): round(float(apart[k]), 2) for k in far},
        "ratio of sds, median": round(float(np.median(wide / sd)), 2),
    }


def main(*counts):
    """Time, print and keep."""
    rows, clock = {}, Clock()
    for count in map(int, counts or (100, 400, 1600)):
        case = bench_cases.table(count, seed=1)
        with jax.enable_x64(new_val=True), threadpool_limits(1, "blas"):
            run, arrays = set_up(case.model, case.prepared, JOINT["warmup"], 0.8)
            affine = run.coordinates(arrays, jax.random.key(0))
            joint = run_joint(run, arrays, affine, clock)
            collapsed = run_collapsed(run, arrays, affine, clock)
        rows[count] = {
            "joint": summarise(*joint, JOINT),
            "collapsed": summarise(*collapsed, COLLAPSED),
            **compare(run.hierarchy, joint[0], collapsed[0]),
        }
        print(count, json.dumps(rows[count], indent=1), flush=True)
    about = {
        "cores": os.cpu_count(),
        "jax": version("jax"),
        "at": datetime.now(UTC).isoformat(timespec="minutes"),
    }
    RESULTS.write_text(json.dumps({"about": about, "spaxels": rows}, indent=1) + "\n")


if __name__ == "__main__":
    start = time.perf_counter()
    main(*sys.argv[1:])
    print(f"{time.perf_counter() - start:.0f} s")

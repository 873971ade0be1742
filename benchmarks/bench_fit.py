"""Question: how long does a whole fit take, and how much memory?

A mock cube of COSMOS24108 of 25 x 25 spaxels, read from its file, is fitted with the
default model and settings (4 chains, as many draws as are needed) in a fresh process,
so that compilation is in the figure.  Run ``python benchmarks/bench_fit.py``; the
answer goes to ``benchmarks/results/fit.json``.
"""

import json
import os
import resource
import subprocess
import sys
import tempfile
import time
import warnings
from dataclasses import replace
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

RESULTS = Path(__file__).parent / "results" / "fit.json"
SIDE = 25  # spaxels


def fit_mock(path):
    """Fit the cube at ``path`` and print what it took, as JSON."""
    start = time.perf_counter()
    import arviz as az
    import numpy as np

    import metalgrad as mg

    target = replace(mg.load_target("cosmos24108"), radius=1.0)
    spaxels = mg.Spaxels.select(mg.Cube.read(path), target)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", mg.ConvergenceWarning)
        posterior = mg.fit(mg.load_model(), spaxels, seed=1, progress=False)
    names = ["slope", "level", "scatter", "rho", "length", "reddening"]
    table = az.summary(posterior, var_names=names, kind="diagnostics", round_to="none")
    steps = posterior.sample_stats["tree_steps"].values
    print(
        json.dumps(
            {
                "seconds": round(time.perf_counter() - start, 1),
                "peak memory [GB]": round(
                    resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6, 2
                ),
                "spaxels": len(spaxels),
                "draws": 4 * posterior.posterior.sizes["draw"],
                "steps per draw": round(float(np.mean(steps)), 1),
                "divergences": int(posterior.sample_stats["diverging"].sum()),
                "bulk ESS": table["ess_bulk"].round().astype(int).to_dict(),
                "R-hat": table["r_hat"].round(3).to_dict(),
            }
        )
    )


def main():
    """Draw the mock, fit it in a process of its own, print and keep the answer."""
    from metalgrad.simulate import PIXEL, simulate
    from metalgrad.targets import load_target

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "mock.fits"
        simulate(load_target("cosmos24108"), seed=1, width=SIDE * PIXEL).write(path)
        command = [sys.executable, __file__, str(path)]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
    about = {
        "cores": os.cpu_count(),
        "date": datetime.now(UTC).date().isoformat(),
        "versions": {name: version(name) for name in ("jax", "numpyro")},
    }
    result = about | json.loads(done.stdout.splitlines()[-1])
    print(result)
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    fit_mock(*sys.argv[1:]) if sys.argv[1:] else main()

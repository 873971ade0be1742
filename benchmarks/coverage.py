"""Question: do the intervals of the slope hold the truth as often as they say?

Mock cubes of COSMOS24108 with slopes from -0.2 to +0.1 dex/kpc, drawn by
``metalgrad.simulate`` and read back as a user would read them; each is fitted, and the
pull of the slope and the coverage of its intervals are counted.  Run
``python benchmarks/coverage.py [COUNT]``; finished mocks are kept in
``benchmarks/results/coverage.jsonl`` and not fitted again.
"""

import json
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

import metalgrad as mg
from metalgrad.simulate import simulate

RESULTS = Path(__file__).parent / "results" / "coverage.jsonl"
SLOPES = (-0.2, 0.1)  # dex/kpc
SETTINGS = {"warmup": 300, "draws": 400, "chains": 2}


def fit_mock(model, target, seed):
    """Draw, write, read and fit one mock; return truth and posterior of the slope."""
    truth = float(np.random.default_rng(seed).uniform(*SLOPES))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "mock.fits"
        simulate(target, seed=seed, truth={"slope": truth}).write(path)
        spaxels = mg.Spaxels.select(mg.Cube.read(path), target)
    start = time.perf_counter()
    posterior = mg.fit(model, spaxels, seed=seed, progress=False, **SETTINGS)
    draws = posterior.posterior["slope"].values.ravel()
    return {
        "seed": seed,
        "truth": truth,
        "mean": float(draws.mean()),
        "sd": float(draws.std()),
        "rank": float(np.mean(draws < truth)),
        "divergences": int(posterior.sample_stats["diverging"].sum()),
        "seconds": round(time.perf_counter() - start, 1),
        **SETTINGS,
    }


def report(rows):
    """Print bias and coverage with their binomial errors."""
    pull = np.array([(row["mean"] - row["truth"]) / row["sd"] for row in rows])
    rank = np.array([row["rank"] for row in rows])
    count = len(rows)
    print(f"{count} mocks; median sd {np.median([r['sd'] for r in rows]):.3f} dex/kpc")
    print(f"mean pull {pull.mean():+.2f} +- {pull.std() / count**0.5:.2f}")
    for level in (0.5, 0.68, 0.9, 0.95):
        share = np.mean(np.abs(rank - 0.5) < level / 2)
        error = (level * (1 - level) / count) ** 0.5
        print(f"{level:.0%} intervals cover {share:.0%} (binomial error {error:.0%})")


def main(count=40):
    """Fit what is missing of ``count`` mocks, and report."""
    RESULTS.parent.mkdir(exist_ok=True)
    lines = RESULTS.read_text().splitlines() if RESULTS.exists() else []
    rows = [json.loads(line) for line in lines]
    model, target = mg.load_model("gradient"), mg.load_target("cosmos24108")
    for seed in sorted(set(range(1, count + 1)) - {row["seed"] for row in rows}):
        rows.append(fit_mock(model, target, seed))
        with RESULTS.open("a") as file:
            file.write(json.dumps(rows[-1]) + "\n")
        print(rows[-1], flush=True)
    report(rows)


if __name__ == "__main__":
    main(*(int(argument) for argument in sys.argv[1:]))

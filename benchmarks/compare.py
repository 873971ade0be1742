"""Question: does leave-one-spaxel-out prefer the right model?

A steep (-0.15 dex/kpc) and a flat mock of COSMOS24108, each fitted with and without a
gradient and compared by ``az.compare``.  Run ``python benchmarks/compare.py``; the
figures go to ``benchmarks/results/compare.json``.
"""

import json
from datetime import UTC, datetime
from pathlib import Path

import arviz as az

import metalgrad as mg
from metalgrad.simulate import simulate

RESULTS = Path(__file__).parent / "results" / "compare.json"
SETTINGS = {"warmup": 300, "draws": 400, "chains": 2, "progress": False}


def main():
    """Fit four times, compare twice, print and keep."""
    target = mg.load_target("cosmos24108")
    models = {name: mg.load_model(name) for name in ("gradient", "flat")}
    found = {"date": datetime.now(UTC).date().isoformat()}
    for truth in (-0.15, 0.0):
        cube = simulate(target, seed=77, truth={"slope": truth})
        spaxels = mg.Spaxels.select(cube, target)
        fits = {n: mg.fit(m, spaxels, seed=1, **SETTINGS) for n, m in models.items()}
        table = az.compare(fits)
        worst = {
            n: float(az.loo(f, pointwise=True).pareto_k.max()) for n, f in fits.items()
        }
        print(f"true slope {truth}:\n{table}\nlargest k: {worst}", flush=True)
        found[str(truth)] = {"table": table.to_dict(), "largest_k": worst}
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(found, indent=1, default=str) + "\n")


if __name__ == "__main__":
    main()

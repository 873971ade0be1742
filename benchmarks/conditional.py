"""Question: what does leave-one-out say if spaxels' own latents are not integrated out?

Most samplers' log likelihood of a spaxel is that given all latents, its own among them:
what was drawn to meet a spaxel's data foretells them well, however poor the galaxy's
model, and importance sampling cannot take the spaxel out again.  The tables of
``loo.py`` are fitted with and without a gradient, and compared by that likelihood (from
the fluxes that the fit keeps) and by metalgrad's, on the same draws.  Run
``python benchmarks/conditional.py [COUNT]``; finished galaxies are kept in
``benchmarks/results/conditional.jsonl``.
"""

import sys
import warnings
from pathlib import Path

import arviz as az
import loo
import numpy as np
import xarray
from scipy.stats import norm

import metalgrad as mg

RESULTS = Path(__file__).parent / "results" / "conditional.jsonl"
HIGH = 0.7


def condition(fit, maps):
    """Make a tree of each spaxel's log likelihood given all latents."""
    drawn = fit["posterior_predictive"]["model_flux"]
    drawn = drawn.transpose("chain", "draw", "spaxel", "line")
    own = [maps.lines.index(str(name)) for name in drawn["line"].values]
    law = norm(drawn.values.astype(float), maps.error[:, own])
    density = xarray.DataArray(
        law.logpdf(maps.flux[:, own]).sum(axis=-1), dims=("chain", "draw", "spaxel")
    )
    group = density.to_dataset(name="spectrum")
    return xarray.DataTree.from_dict({"log_likelihood": group, "posterior": group})


def measure(elpds):
    """Tell by how much the model with a gradient is better, its error, and high k."""
    one, other = (elpd.elpd_i.values for elpd in elpds)
    error = np.sqrt(len(one)) * np.std(one - other)
    high = [int(np.sum(elpd.pareto_k.values > HIGH)) for elpd in elpds]
    return [float(np.sum(one - other)), float(error), *high]


def judge(seed, truth):
    """Fit one galaxy twice; compare in both ways."""
    maps = loo.galaxy(seed, loo.SLOPES[truth])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        fits = [
            mg.fit(mg.load_model(name), maps, seed=seed, **loo.SETTINGS)
            for name in loo.MODELS
        ]
        naive = measure([az.loo(condition(fit, maps), pointwise=True) for fit in fits])
        valid = measure([az.loo(fit, pointwise=True) for fit in fits])
    return {"seed": seed, "truth": truth, "conditional": naive, "integrated": valid}


def report(rows):
    """Count right choices and failures of importance sampling, either way."""
    for truth, sign in (("steep", 1), ("flat", -1)):
        some = [row for row in rows if row["truth"] == truth]
        for way in ("conditional", "integrated") if some else ():
            gain, error, *high = np.array([row[way] for row in some]).T
            print(f"{truth}, {way}: {loo.tell(sign * gain, error)}; ", end="")
            print(f"k > {HIGH} in {np.mean(high) / loo.COUNT:.1%} of spaxels")


def main(count=10):
    """Fit what is missing of ``count`` galaxies of either kind, and report."""
    report(loo.complete(RESULTS, judge, int(count)))


if __name__ == "__main__":
    main(*sys.argv[1:])

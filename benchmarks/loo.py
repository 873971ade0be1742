"""Question: how often does leave-one-spaxel-out prefer the right model?

Tables of 60 spaxels with [O II], [Ne III], Hβ, [O III] and Hα, with a steep (-0.15
dex/kpc) or no gradient, scatter, dust and a dispersion half of which is common to the
galaxy, drawn here with NumPy from the calibration's published curves. Each is fitted
with and without a gradient, and the two compared by ``metalgrad.comparison.compare``.
Run ``python benchmarks/loo.py [COUNT]``; finished galaxies are kept in
``benchmarks/results/loo.jsonl``.
"""

import sys
import time
import warnings
from pathlib import Path

import kept
import numpy as np

import metalgrad as mg
from metalgrad.comparison import compare

RESULTS = Path(__file__).parent / "results" / "loo.jsonl"
CURTI = mg.load_calibration("curti23")
SLOPES = {"steep": -0.15, "flat": 0.0}
MODELS = ("gradient-independent", "flat-independent")
LINES = ("OII", "NeIII", "Hbeta", "OIII", "Halpha")
K = np.array([5.86, 5.67, 4.60, 4.46, 3.33])  # Calzetti et al. (2000) at these lines
COUNT, LEVEL, SCATTER, RHO = 60, (8.0, 0.25), 0.05, 0.5
RANGE = (7.2, 8.6)  # of levels, so that spaxels stay within the calibration's
EBV, PATCHY = (0.2, 0.1), 0.3  # mag, and scatter of ln E(B-V)
SIGNAL = (5, 40)  # S/N of the median spaxel's Hβ
SETTINGS = {"warmup": 300, "draws": 500, "chains": 2, "progress": False}


def galaxy(seed, slope):
    """Draw a table of line fluxes."""
    rng = np.random.default_rng(seed)
    level = np.clip(rng.normal(*LEVEL), *RANGE)
    radius = 3.0 * np.sqrt(rng.uniform(0.01, 1.0, COUNT))
    metallicity = level + slope * (radius - 1.5) + SCATTER * rng.normal(size=COUNT)
    found = {}
    for ratio in ("R3", "R2", "Ne3O2"):
        departure = RHO**0.5 * rng.normal() + (1 - RHO) ** 0.5 * rng.normal(size=COUNT)
        curve = np.asarray(CURTI.log_ratio(ratio, metallicity))
        width = np.asarray(CURTI.dispersion(ratio, metallicity))
        found[ratio] = 10 ** (curve + width * departure)
    hbeta = 100.0 * np.exp(-radius / 1.5) * 10 ** (0.2 * rng.normal(size=COUNT))
    oii = found["R2"]
    rows = [oii, oii * found["Ne3O2"], np.ones(COUNT), found["R3"], 2.86 * oii**0]
    ebv = abs(rng.normal(*EBV)) * np.exp(PATCHY * rng.normal(size=COUNT))
    flux = hbeta[:, None] * np.stack(rows, axis=1) * 10 ** (-0.4 * np.outer(ebv, K))
    error = np.full_like(flux, np.median(flux[:, 2]) / rng.uniform(*SIGNAL))
    angle = rng.uniform(0, 2 * np.pi, COUNT)
    return mg.LineMaps(
        lines=LINES,
        flux=flux + error * rng.normal(size=flux.shape),
        error=error,
        position=radius[:, None] * np.stack([np.cos(angle), np.sin(angle)], axis=1),
        radius_unit="kpc",
    )


def judge(seed, truth):
    """Fit one galaxy twice; tell by how much the model with a gradient is better."""
    maps, start, fits = galaxy(seed, SLOPES[truth]), time.perf_counter(), {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name in MODELS:
            fits[name] = mg.fit(mg.load_model(name), maps, seed=seed, **SETTINGS)
        table = compare(fits)
    worse = table.index[1]
    sign = 1 if worse == MODELS[1] else -1
    slope = fits[MODELS[0]].posterior["slope"].values
    return {
        "seed": seed,
        "truth": truth,
        "gradient_better": sign * float(table.loc[worse, "elpd_diff"]) * -1,
        "error": float(table.loc[worse, "dse"]),
        "high_k": list(table.attrs["high_k"].values()),
        "slope": [float(slope.mean()), float(slope.std())],
        "converged": [bool(fit.attrs["converged"]) for fit in fits.values()],
        "seconds": round(time.perf_counter() - start, 1),
    }


def tell(gain, error):
    """Say how often the right model is better by ``gain``, and by more than that."""
    return (
        f"{len(gain)} galaxies; the right model is better in {np.mean(gain > 0):.0%}, "
        f"by more than the error in {np.mean(gain > error):.0%}; the wrong one so in "
        f"{np.mean(-gain > error):.0%}; median gain {np.median(gain):.2f}"
    )


def report(rows):
    """Count how often the right model is better, and by more than its error."""
    for truth, sign in (("steep", 1), ("flat", -1)):
        some = [row for row in rows if row["truth"] == truth]
        gain = sign * np.array([row["gradient_better"] for row in some])
        error = np.array([row["error"] for row in some])
        print(f"{truth}: {tell(gain, error)}")
        mean, sd = np.transpose([row["slope"] for row in some])
        pull = (mean - SLOPES[truth]) / sd
        print(f"  slopes: mean pull {pull.mean():+.2f} +- ", end="")
        print(f"{pull.std() / len(pull) ** 0.5:.2f}, sd {pull.std():.2f}")
    high = np.array([row["high_k"] for row in rows])
    print(f"k > 0.7 in {high.mean() / COUNT:.2%} of spaxels", end="; ")
    print(f"converged: {np.mean([row['converged'] for row in rows]):.0%} of fits")


def complete(results, judge, count):
    """Judge what is missing of ``count`` galaxies of either kind; return all rows."""
    rows = kept.read(results)
    done = {(row["seed"], row["truth"]) for row in rows}
    for seed in range(1, count + 1):
        for truth in SLOPES:
            if (seed, truth) not in done:
                rows.append(judge(seed, truth))
                kept.add(results, rows[-1])
    return rows


def main(count=50):
    """Fit what is missing of ``count`` galaxies of either kind, and report."""
    report(complete(RESULTS, judge, int(count)))


if __name__ == "__main__":
    main(*sys.argv[1:])

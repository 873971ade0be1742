"""Question: is each of two solutions right as often as its weight says?

Galaxies of which only [O III] and Hβ are measured, with metallicities drawn from the
prior of the level, so that R3 leaves most of them two solutions: half of them are
single spectra, half tables of 25 spaxels with a gradient and scatter. Fluxes are drawn
here with NumPy, from the calibration's published curve; each galaxy is fitted, and the
weight of the branch that it is on is kept. Run ``python benchmarks/branches.py
[COUNT]``; finished galaxies are kept in ``benchmarks/results/branches.jsonl``.
"""

import json
import sys
import time
import warnings
from pathlib import Path

import kept
import numpy as np

import metalgrad as mg

RESULTS = Path(__file__).parent / "results" / "branches.jsonl"
CURTI = mg.load_calibration("curti23")
LEVEL = (8.0, 0.5)  # of the prior, 12+log(O/H)
RANGE = (7.1, 8.8)  # kept within the calibration's
SLOPE, SCATTER, RHO, EBV = 0.05, 0.03, 0.5, (0.15, 0.05)
K = (4.597, 4.463)  # of Calzetti et al. (2000) at Hβ and [O III]
SETTINGS = {"warmup": 300, "draws": 500, "chains": 2, "progress": False}


def galaxy(seed):
    """Draw fluxes of [O III] and Hβ; return them with the true level."""
    rng = np.random.default_rng(seed)
    count = 1 if seed % 2 else 25
    level = rng.normal(*LEVEL)
    while not RANGE[0] < level < RANGE[1]:
        level = rng.normal(*LEVEL)
    radius = 3.0 * np.sqrt(rng.uniform(0.05, 1.0, count))
    offset = rng.normal(0, SLOPE) * (radius - radius.mean())
    metallicity = level + (offset + SCATTER * rng.normal(size=count)) * (count > 1)
    share = 1.0 if count == 1 else RHO
    departure = share**0.5 * rng.normal() + (1 - share) ** 0.5 * rng.normal(size=count)
    ratio = np.asarray(CURTI.log_ratio("R3", metallicity))
    ratio = ratio + np.asarray(CURTI.dispersion("R3", metallicity)) * departure
    hbeta = 100.0 * np.exp(-radius / 2.0)
    dust = np.abs(rng.normal(*EBV)) * np.array(K)
    flux = np.stack([hbeta, hbeta * 10**ratio], axis=1) * 10 ** (-0.4 * dust)
    error = np.full_like(flux, np.median(flux[:, 0]) / rng.uniform(10, 50))
    angle = rng.uniform(0, 2 * np.pi, count)
    maps = mg.LineMaps(
        lines=("Hbeta", "OIII"),
        flux=flux + error * rng.normal(size=flux.shape),
        error=error,
        position=radius[:, None] * np.stack([np.cos(angle), np.sin(angle)], axis=1),
        radius_unit="kpc",
    )
    return maps, level


def judge(seed):
    """Fit one galaxy; tell its branches, and which of them is the true one."""
    maps, truth = galaxy(seed)
    start = time.perf_counter()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", mg.ConvergenceWarning)
        posterior = mg.fit(mg.load_model("gradient"), maps, seed=seed, **SETTINGS)
    level = posterior["posterior"]["level"].values
    told = json.loads(posterior.attrs.get("branches", "[]"))
    row = {"seed": seed, "spaxels": len(maps), "truth": truth}
    row["seconds"] = round(time.perf_counter() - start, 1)
    row["rank"] = float(np.mean(level < truth))
    row["converged"] = bool(posterior.attrs["converged"])
    if told:
        branch = posterior["sample_stats"]["branch"].values[0]
        row["levels"] = [float(np.median(level[:, branch == n])) for n in range(2)]
        right = int(np.argmin(np.abs(np.array(row["levels"]) - truth)))
        row |= {"weight": told[right]["weight"], "error": told[right]["error"]}
    return row


def report(rows):
    """Compare how often a solution was right with the weights."""
    forked = [row for row in rows if "weight" in row]
    right = np.array([row["weight"] for row in forked])
    # Of a galaxy with weights w and 1 - w the true one weighs w² + (1 - w)² on average.
    expected = right**2 + (1 - right) ** 2
    variance = np.sum(right * (1 - right) * (2 * right - 1) ** 2)
    pull = np.sum(right - expected) / variance**0.5
    rank = np.array([row["rank"] for row in rows])
    print(f"{len(rows)} galaxies, {len(forked)} with two solutions")
    print(f"mean weight of the true solution {right.mean():.3f}, expected ", end="")
    print(
        f"{expected.mean():.3f} +- {variance**0.5 / len(right):.3f} (pull {pull:+.2f})"
    )
    heavier = np.mean(right > 0.5)
    mean = np.mean(np.maximum(right, 1 - right))
    print(f"the heavier one was right in {heavier:.0%}, its mean weight {mean:.0%}")
    for share in (0.5, 0.9):
        inside = np.mean(np.abs(rank - 0.5) < share / 2)
        print(f"{share:.0%} intervals of the level hold the truth in {inside:.0%}")
    print(f"converged: {np.mean([row['converged'] for row in rows]):.0%}")


def main(count=50):
    """Fit what is missing of ``count`` galaxies, and report."""
    rows = kept.read(RESULTS)
    for seed in sorted({*range(1, int(count) + 1)} - {row["seed"] for row in rows}):
        rows.append(judge(seed))
        kept.add(RESULTS, rows[-1])
    report(rows)


if __name__ == "__main__":
    main(*sys.argv[1:])

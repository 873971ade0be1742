"""Question: do the intervals of the slope hold the truth as often as they say?

Mock cubes with slopes from -0.2 to +0.1 dex/kpc, read back as a user would read them;
each is fitted, and the pull of the slope, the coverage of its intervals and how
posterior means hang on the truth are told.
Run ``python benchmarks/coverage.py KIND [COUNT]``, where the mocks of KIND are

own
    COSMOS24108 by ``metalgrad.simulate``;
independent
    by ``independent.py``, which shares no code with metalgrad: an inclined disc,
    clumps, structure over 0.1", rotation, drizzled noise and unflagged outliers;
noisy
    the same, errors 1.9 times too small and 0.1 % of the voxels off by 10 to 50 sigma;
shared
    the same, the calibrations' dispersion wholly common to the galaxy;
lopsided
    the same, light elongated (0.5) and its peak 0.1" from the gradient's centre;
drawn
    the same, slope, level, scatter, its length, rho and dust drawn from the default
    model's priors: of such galaxies alone posteriors have to be right on average.

Finished mocks are kept in ``benchmarks/results/coverage_KIND.jsonl`` and not fitted
again; in ``coverage_starless.jsonl`` those of ``independent`` before mocks had stars,
in ``coverage_drawn_coarse.jsonl`` those of ``drawn`` before waves were fine.
"""

import sys
import tempfile
import time
import warnings
from functools import partial
from itertools import pairwise
from pathlib import Path

import independent
import kept
import numpy as np
from astropy.coordinates import SkyCoord
from astropy.cosmology import Planck18

import metalgrad as mg
from metalgrad import inference
from metalgrad.simulate import simulate

RESULTS = Path(__file__).parent / "results"
SLOPES = (-0.2, 0.1)  # dex/kpc
PRIOR = 0.2  # sd of the default model's slope [dex/kpc]
SETTINGS = {"warmup": 100, "draws": 200, "chains": 2}  # as of the cubes' SBC
RADIUS = 0.6  # arcsec
REDSHIFT, LIGHT = 6.361, 1.2  # of the independent mocks; half-light radius [kpc]


def draw_own(path, seed, slope):
    """Write a mock of COSMOS24108; return its target."""
    target = mg.load_target("cosmos24108")
    simulate(target, seed=seed, truth={"slope": slope}).write(path)
    return target


def draw_independent(path, seed, slope, **change):
    """Write a mock of somebody else's; return its target."""
    truth = independent.mock(path, seed=seed, slope=slope, **change)
    centre = SkyCoord(truth["ra"], truth["dec"], unit="deg")
    return mg.Target.at(redshift=truth["redshift"], radius=RADIUS, position=centre)


def draw_nature(seed):
    """Draw slope and nuisances of a galaxy from the default model's priors.

    Of one whose [O III] outshines Hβ: few others are observed, and as data tell that
    of nearly every galaxy, posteriors stay right on average.
    """
    rng = np.random.default_rng(seed)
    while True:
        slope, nature = _draw_nature(rng)
        if _shines(slope, nature["central"]):
            return slope, nature


def _shines(slope, central):
    """Tell whether [O III] outshines Hβ in an exponential disc without scatter."""
    radius = np.linspace(0, 5 * LIGHT, 200)
    weight = radius * np.exp(-1.678 * radius / LIGHT)  # half of it within LIGHT
    card = independent.read_calibration("curti23", "R3")["R3"]
    ratio = independent.mean_log_ratio(card, central + slope * radius, "straight")
    return np.average(10**ratio, weights=weight) > 1


def _draw_nature(rng):
    kpc = 1 / Planck18.arcsec_per_kpc_proper(REDSHIFT).value  # of an arcsec
    slope, level = rng.normal(0.0, PRIOR), rng.normal(8.0, 0.5)
    length = float(np.exp(rng.normal(-0.4, 0.5))) / kpc
    return slope, {
        "central": level - slope * LIGHT,
        "scatter": abs(rng.normal(0.0, 0.15)),
        "scatter_length": length,
        "calibration_length": length,
        "beyond": "straight",
        "rho": rng.uniform(),
        "ebv": abs(rng.normal(0.0, 0.3)),
        "ebv_scatter": abs(rng.normal(0.0, 0.5)),
        "auroral": 10 ** rng.normal(-1.9, 0.3),
    }


CHANGES = {
    "independent": {},
    "noisy": {"error_scale": 1 / 1.9, "outliers": 1e-3},
    "shared": {"rho": 1.0},
    "lopsided": {"axis_ratio": 0.5, "light_offset": (0.08, 0.06)},
}
DRAW = {kind: partial(draw_independent, **some) for kind, some in CHANGES.items()}
DRAW["own"] = draw_own
DRAW["drawn"] = draw_independent


def fit_mock(model, kind, seed):
    """Draw, write, read and fit one mock; return truth and posterior of the slope."""
    truth, nature = float(np.random.default_rng(seed).uniform(*SLOPES)), {}
    if kind == "drawn":
        truth, nature = draw_nature(seed)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "mock.fits"
        target = DRAW[kind](path, seed, truth, **nature)
        spaxels = mg.Spaxels.select(mg.Cube.read(path), target)
    start = time.perf_counter()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", mg.ConvergenceWarning)  # short chains
        posterior = mg.fit(model, spaxels, seed=seed, progress=False, **SETTINGS)
    draws = posterior.posterior["slope"].values.ravel()
    return {
        "seed": seed,
        "truth": truth,
        "mean": float(draws.mean()),
        "sd": float(draws.std()),
        "rank": float(np.mean(draws < truth)),
        "converged": int(posterior.attrs["converged"]),
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
    report_shrinkage(*(np.array([r[k] for r in rows]) for k in ("truth", "mean", "sd")))


def report_shrinkage(truth, mean, sd):
    """Print how posterior means hang on the truth: pulls that cancel show nothing.

    And truths on means: of galaxies of the prior by 1, were posteriors right.
    """
    fit, covariance = np.polyfit(truth, mean, 1, w=1 / sd, cov="unscaled")
    prior = np.mean(1 - sd**2 / PRIOR**2)
    print(f"means go with {fit[0]:.2f} +- {covariance[0, 0] ** 0.5:.2f} of the truth")
    print(f"(a normal prior alone, on normal data, would make it {prior:.2f})")
    fit, covariance = np.polyfit(mean, truth, 1, w=1 / sd, cov="unscaled")
    print(f"truths go with {fit[0]:.2f} +- {covariance[0, 0] ** 0.5:.2f} of the mean")
    for low, high in pairwise(np.linspace(*SLOPES, 5)):
        pull = ((mean - truth) / sd)[(truth >= low) & (truth < high)]
        error = pull.std() / max(len(pull), 1) ** 0.5
        print(
            f"truths {low:+.3f} to {high:+.3f}: pull {pull.mean():+.2f} +- {error:.2f}"
        )


def main(kind, count=40):
    """Fit what is missing of ``count`` mocks, and report."""
    path = RESULTS / f"coverage_{kind}.jsonl"
    rows, model = kept.read(path), mg.load_model("gradient")
    inference.FORETOLD = 16  # leave-one-out, a third of the time, is not asked for
    for seed in sorted(set(range(1, int(count) + 1)) - {row["seed"] for row in rows}):
        rows.append(fit_mock(model, kind, seed))
        kept.add(path, rows[-1])
    report(rows)


if __name__ == "__main__":
    main(*sys.argv[1:])

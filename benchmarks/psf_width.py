"""Question: is a PSF found that is wider than the fit was told, and does it matter?

Compact mock galaxies without a gradient, by ``independent.py``, whose PSF is as
published or 1.15 times as wide, are fitted with the PSF as published (``gradient``) and
with a width that data may correct (``gradient-psf``).  Run ``python
benchmarks/psf_width.py [SEEDS]``; finished fits are kept in
``benchmarks/results/psf_width.jsonl``.
"""

import sys
import tempfile
import time
import warnings
from itertools import product
from pathlib import Path

import independent
import kept
from astropy.coordinates import SkyCoord

import metalgrad as mg
from metalgrad import inference

RESULTS = Path(__file__).parent / "results" / "psf_width.jsonl"
MODELS = ("gradient", "gradient-psf")
SCALES = (1.15, 1.0)
COMPACT = {"slope": 0.0, "effective_radius": 0.35, "clumps": 0, "oiii": 2000.0}
SETTINGS = {"warmup": 300, "draws": 300, "chains": 2}
RADIUS = 0.4  # arcsec


def draw(seed, scale):
    """Draw a galaxy, and read it as a user would."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "mock.fits"
        truth = independent.mock(path, seed=seed, psf_scale=scale, **COMPACT)
        centre = SkyCoord(truth["ra"], truth["dec"], unit="deg")
        target = mg.Target.at(
            redshift=truth["redshift"], radius=RADIUS, position=centre
        )
        return mg.Spaxels.select(mg.Cube.read(path), target)


def fit(model, spaxels, seed):
    """Fit; return slope, width and cost."""
    start = time.perf_counter()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", mg.ConvergenceWarning)  # short chains
        posterior = mg.fit(
            mg.load_model(model), spaxels, seed=seed, progress=False, **SETTINGS
        )
    draws = posterior.posterior
    found = {
        name: [round(float(draws[name].mean()), 4), round(float(draws[name].std()), 4)]
        for name in ("slope", "psf_scale") if name in draws
    }  # fmt: skip
    steps = float(posterior.sample_stats["tree_steps"].mean())
    return found | {
        "divergences": int(posterior.sample_stats["diverging"].sum()),
        "steps": round(steps, 1),
        "seconds": round(time.perf_counter() - start, 1),
        **SETTINGS,
    }


def main(seeds=3):
    """Fit what is missing."""
    inference.FORETOLD = 16  # leave-one-out is not asked for
    done = {(r["seed"], r["scale"], r["model"]) for r in kept.read(RESULTS)}
    for seed, scale in product(range(1, int(seeds) + 1), SCALES):
        left = [model for model in MODELS if (seed, scale, model) not in done]
        spaxels = draw(seed, scale) if left else None
        for model in left:
            row = {"seed": seed, "scale": scale, "model": model}
            kept.add(RESULTS, row | fit(model, spaxels, seed))


if __name__ == "__main__":
    main(*sys.argv[1:])

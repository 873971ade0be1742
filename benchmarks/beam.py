"""Question: how much of a gradient does the PSF take away, and who gives it back?

Smooth exponential discs by ``independent.py``, which shares no code with metalgrad,
with half-light radii of 1, 2 and 4 FWHM of the PSF at [O III] 5008 and a slope of
-0.1 dex/kpc.  Metallicity and dust have no scatter and ratios lie on their calibration,
so that what is missing is the beam's.  Each cube is fitted by the default model:

none
    As if light were seen where it is emitted: the gradient of the image.
matched
    All wavelengths smoothed to the PSF of the reddest line, as Venturi et al. (2024)
    do, then as before: the gradient of a blurrier image, in which every line is as
    blurred as any other.
forward
    The default: the emitted map is blurred at the wavelength of each line.

Run ``python benchmarks/beam.py [SEEDS]``.  Finished fits are kept in
``benchmarks/results/beam.jsonl`` and not repeated, so that a larger number goes on
where a smaller one ended.
"""

import sys
import tempfile
import time
import warnings
from dataclasses import replace
from itertools import product
from pathlib import Path

import independent
import kept
import numpy as np
from astropy import units as u
from astropy.coordinates import SkyCoord

import metalgrad as mg
from metalgrad import inference
from metalgrad.matching import match_psf

RESULTS = Path(__file__).parent / "results" / "beam.jsonl"
SETTINGS = {"warmup": 200, "draws": 300, "chains": 2}
SLOPE = -0.1  # dex/kpc
LEVEL = 8.25  # at the effective radius: between the turns of R3 (7.9) and R2 (8.6)
REACH = {1: 2.0, 2: 1.75, 4: 1.5}  # effective radii fitted, by radius in FWHM
METHODS = ("forward", "none", "matched")
REDSHIFT, ANGLE = 6.361, 25.0
REDDEST = 5.05  # µm: beyond the continuum redwards of [S II]
# What no galaxy of this question has.
PLAIN = {"scatter": 0.0, "dispersion": 0.0, "ebv_scatter": 0.0, "clumps": 0}
PLAIN |= {"rotation": 0.0, "turbulence": 0.0, "outliers": 0.0, "axis_ratio": 1.0}


def fwhm(scale=1.0):
    """Round FWHM of the PSF at [O III] [arcsec], ``scale`` times as wide."""
    wave = independent.OIII * 1e-4 * (1 + REDSHIFT)
    return scale * float(np.sqrt(np.prod(independent.psf_fwhm(wave))))


def without_pixel(pixel=0.05):
    """Scale of a PSF that is the published one once it is binned to spaxels.

    It was measured in drizzled cubes, so that it holds the spaxel already.
    """
    return float(np.sqrt(1 - 8 * np.log(2) * pixel**2 / 12 / fwhm() ** 2))


def draw(path, seed, size):
    """Write the cube of a disc of ``size`` FWHM; return its target."""
    angular = size * fwhm()
    per_arcsec = mg.Target.at(redshift=REDSHIFT, radius=1.0).kpc_per_arcsec
    reach = REACH[size] * angular
    truth = independent.mock(
        path,
        seed=seed,
        slope=SLOPE,
        central=LEVEL - SLOPE * angular * per_arcsec,
        redshift=REDSHIFT,
        kpc_per_arcsec=per_arcsec,
        effective_radius=angular * per_arcsec,
        oiii=4000.0,
        width=0.1 * np.ceil((reach + 0.35) / 0.05),
        psf_scale=without_pixel(),
        slice_angle=ANGLE,
        **PLAIN,
    )
    centre = SkyCoord(truth["ra"], truth["dec"], unit="deg")
    return mg.Target.at(redshift=REDSHIFT, radius=reach, position=centre)


def match(cube):
    """Smooth all wavelengths to the PSF at the reddest."""
    cube = replace(cube, good=cube.good & (cube.wave < REDDEST * u.um)[:, None, None])
    goal = max(mg.nirspec().fwhm(REDDEST))
    return match_psf(cube, goal, angle=ANGLE)


def fit(model, seed, size, method):
    """Draw and fit one disc by one method; return a row of what was found."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "mock.fits"
        target = draw(path, seed, size)
        cube = mg.Cube.read(path)
    spaxels = mg.Spaxels.select(match(cube) if method == "matched" else cube, target)
    given = {} if method == "forward" else {"psf": None}
    start = time.perf_counter()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", mg.ConvergenceWarning)  # short chains
        posterior = mg.fit(
            model, spaxels, seed=seed, progress=False, **given, **SETTINGS
        )
    slope = posterior.posterior["slope"].values
    apart = slope.mean(axis=1)
    return {
        "seed": seed,
        "size": size,
        "method": method,
        "spaxels": len(spaxels),
        "mean": float(slope.mean()),
        "sd": float(slope.std()),
        "chains apart": round(float(np.ptp(apart) / slope.std()), 2),
        "divergences": int(posterior.sample_stats["diverging"].sum()),
        "seconds": round(time.perf_counter() - start, 1),
        **SETTINGS,
    }


def summarise(rows):
    """Mean ratio of recovered and true slope, its error, and how many, by case."""
    found = {}
    for size, method in product(REACH, METHODS):
        chosen = [r for r in rows if (r["size"], r["method"]) == (size, method)]
        if chosen:
            mean, sd = (np.array([r[key] for r in chosen]) for key in ("mean", "sd"))
            error = np.sqrt(np.sum(sd**2)) / len(sd) / abs(SLOPE)
            found[size, method] = mean.mean() / SLOPE, error, len(sd)
    return found


def report(rows):
    """Print the table."""
    print("recovered over true slope, mean over the noise; errors are the posteriors'")
    print("R_e/FWHM", *(f"{method:>22}" for method in METHODS))
    found = summarise(rows)
    for size in REACH:
        cells = (found.get((size, method)) for method in METHODS)
        text = (
            f"{cell[0]:.2f} +- {cell[1]:.2f} ({cell[2]})" if cell else "-"
            for cell in cells
        )
        print(f"{size:8d}", *(f"{cell:>22}" for cell in text))


def main(seeds=1):
    """Fit what is missing, all cases of a seed before the next, and report."""
    rows, model = kept.read(RESULTS), mg.load_model("gradient")
    done = {(row["seed"], row["size"], row["method"]) for row in rows}
    inference.FORETOLD = 16  # leave-one-out, a third of the time, is not asked for
    for case in product(range(1, int(seeds) + 1), REACH, METHODS):
        if case not in done:
            rows.append(fit(model, *case))
            kept.add(RESULTS, rows[-1])
    report(rows)


if __name__ == "__main__":
    main(*sys.argv[1:])

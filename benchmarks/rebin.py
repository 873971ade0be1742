"""Question: is it the same posterior if a cube comes with spaxels twice as large?

Mock cubes of ``independent.py`` (0.05" spaxels, drizzled noise) and the same with 2 x 2
spaxels put together: the galaxy is the same, and no more is known of it, so slope and
level should come out as they were, with errors that are hardly larger. Were neighbours
to depart each for itself, half the spaxels would double the errors; the fits with
``gradient-independent`` show by how much. Run ``python benchmarks/rebin.py [COUNT]``;
finished fits are kept in ``benchmarks/results/rebin.jsonl``.
"""

import sys
import tempfile
import time
import warnings
from pathlib import Path

import coverage
import kept
import numpy as np
from astropy.io import fits
from astropy.nddata import block_reduce

import metalgrad as mg
from metalgrad import inference

RESULTS = Path(__file__).parent / "results" / "rebin.jsonl"
MODELS = ("gradient", "gradient-independent")
SLOPE = -0.1  # dex/kpc
NAMES = ("slope", "level")


def rebin(path, fresh):
    """Write the cube at ``path`` anew, with every 2 x 2 spaxels put together."""
    with fits.open(path) as cube:
        flux, error = (cube[name].data.astype(float) for name in ("SCI", "ERR"))
        lost = ~(np.isfinite(flux) & np.isfinite(error)) | (cube["DQ"].data % 2 == 1)
        even = tuple(slice(None, n - n % 2) for n in flux.shape[1:])
        flux, error, lost = (v[:, *even] for v in (flux, error, lost))
        count = block_reduce(~lost, (1, 2, 2), np.sum)
        total = block_reduce(np.where(lost, 0.0, flux), (1, 2, 2), np.sum)
        square = block_reduce(np.where(lost, 0.0, error**2), (1, 2, 2), np.sum)
        with np.errstate(invalid="ignore", divide="ignore"):
            cube["SCI"].data = (total / count).astype(np.float32)
            cube["ERR"].data = (np.sqrt(square) / count).astype(np.float32)
        cube["DQ"].data = np.where(count == 0, 1, 0).astype(cube["DQ"].data.dtype)
        header = cube["SCI"].header
        for axis in (1, 2):
            header[f"CRPIX{axis}"] = (header[f"CRPIX{axis}"] - 0.5) / 2 + 0.5
            header[f"CDELT{axis}"] *= 2
        for name in {"PIXAR_SR", "PIXAR_A2"} & {*header}:
            header[name] *= 4
        del cube["WMAP"]
        cube.writeto(fresh)


def draw(folder, seed):
    """Draw a mock; return its spaxels as they are, and put together."""
    fine, coarse = folder / "fine.fits", folder / "coarse.fits"
    target = coverage.draw_independent(fine, seed, SLOPE)
    rebin(fine, coarse)
    return [mg.Spaxels.select(mg.Cube.read(path), target) for path in (fine, coarse)]


def fit(name, spaxels, seed):
    """Fit, and return means and errors of the galaxy."""
    start = time.perf_counter()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", mg.ConvergenceWarning)  # short chains
        posterior = mg.fit(
            mg.load_model(name),
            spaxels,
            seed=seed,
            progress=False,
            **coverage.SETTINGS,
        ).posterior
    found = {n: [float(posterior[n].mean()), float(posterior[n].std())] for n in NAMES}
    seconds = round(time.perf_counter() - start, 1)
    return found | {"spaxels": len(spaxels), "seconds": seconds}


def report(rows):
    """Tell how far posteriors moved, and how much wider they became."""
    for model in MODELS:
        pairs = [row[model] for row in rows if model in row]
        for name in NAMES:
            fine, coarse = np.array([[one[name] for one in pair] for pair in pairs]).T
            (mean, other), (sd, wider) = fine, coarse
            shift = (other - mean) / sd
            print(f"{model}, {name}: moved by {shift.round(2)} sd,", end=" ")
            print(f"errors {np.round(wider / sd, 2)} times as large")


def main(count=3):
    """Fit what is missing of ``count`` mocks, and report."""
    rows = kept.read(RESULTS)
    inference.FORETOLD = 16  # leave-one-out, a third of the time, is not asked for
    for seed in sorted(set(range(1, int(count) + 1)) - {row["seed"] for row in rows}):
        with tempfile.TemporaryDirectory() as folder:
            both = draw(Path(folder), seed)
        row = {m: [fit(m, spaxels, seed) for spaxels in both] for m in MODELS}
        rows.append({"seed": seed} | row)
        kept.add(RESULTS, rows[-1])
    report(rows)


if __name__ == "__main__":
    main(*sys.argv[1:])

"""Question: does a fit with bagpipes return the stellar mass of a mock of known mass.

Mocks of three galaxies, of the redshifts and about the masses of the brightest sources
of Venturi et al. (2024), with histories that fade, rise, and are steady: model spectra
of bagpipes, at the prism's resolution, with white noise of the size that the errors of
Table 3 ask for. **Mock and fit are made with the same stellar populations, nebular
grids, dust curve, bins of age and LSF**: what is tested is the fit, not the models.

A seed draws the same noise, in units of the error, for every mock.

Run ``python benchmarks/mass.py FOLDER [MOCK...]``; FOLDER keeps what the fits have come
to (the same call goes on), and ``benchmarks/results/mass.json`` the answers.
"""

import json
import sys
import time
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import astropy.units as u
import numpy as np
from astropy.cosmology import Planck18

from metalgrad import synthesis
from metalgrad.lsf import prism
from metalgrad.sed import FLUX_DENSITY, fit_sed

RESULTS = Path(__file__).parent / "results" / "mass.json"
SEEDS = (1, 2)
LIVE, EFFECTIVE = 150, 300
WAVE = np.arange(0.70, 5.20, 0.005) * 1e4  # Å, the channels of the pipeline's cubes
# erg / (s cm² Å): 3e-20 in a line whose noise is that of four channels (Table 3).
NOISE = 3e-20 / (50 * np.sqrt(4))
MOCKS = {
    "YD4, fading": {
        "redshift": 7.879, "massformed": 9.12, "steps": (0.0, -0.1, -0.4),
        "metallicity": 0.20, "a_v": 0.2, "log_u": -2.0,
    },
    "BDF-3299-a, rising": {
        "redshift": 7.114, "massformed": 8.0, "steps": (0.0, 0.1, 0.3),
        "metallicity": 0.10, "a_v": 0.1, "log_u": -1.5,
    },
    "COSMOS24108-a, steady": {
        "redshift": 6.361, "massformed": 9.4, "steps": (0.0, 0.0, 0.0),
        "metallicity": 0.30, "a_v": 0.8, "log_u": -2.5,
    },
}  # fmt: skip


def draw(pipes, truth):
    """Return the model that bagpipes makes of a mock's parameters."""
    steps = {f"dsfr{i}": step for i, step in enumerate(truth["steps"], start=1)}
    history = {key: truth[key] for key in ("massformed", "metallicity")}
    parts = {
        "redshift": truth["redshift"],
        "continuity": history | steps | {"bin_edges": list(synthesis.AGE_EDGES)},
        "nebular": {"logU": truth["log_u"]},
        "dust": {"type": "Calzetti", "Av": truth["a_v"]},
        "R_curve": synthesis.resolution_curve(prism()),
    }
    with synthesis.quiet():
        return pipes.model_galaxy(parts, spec_wavs=WAVE)


def recover(pipes, name, seed, folder):
    """Fit one noise draw of a mock, and say how far its mass is from the truth."""
    truth, begun = MOCKS[name], time.perf_counter()
    model = draw(pipes, truth)
    clean, error = model.spectrum[:, 1], np.full(len(WAVE), NOISE)
    noise = error * np.random.default_rng(seed).normal(size=len(WAVE))
    found = fit_sed(
        WAVE * u.AA, (clean + noise) * FLUX_DENSITY, error * FLUX_DENSITY,
        redshift=truth["redshift"], seed=seed, live=LIVE, effective=EFFECTIVE,
        out=folder / f"{name.split(',')[0]}-{seed}", progress=sys.stderr.isatty(),
    )  # fmt: skip
    # The mock's mass is in bagpipes' cosmology, the fit's in Planck18.
    theirs = pipes.utils.cosmo.luminosity_distance(truth["redshift"])
    ours = Planck18.luminosity_distance(truth["redshift"])
    true = model.sfh.stellar_mass + 2 * np.log10((ours / theirs).value)
    low, middle, high = np.quantile(found["posterior"]["log_mass"], [0.16, 0.5, 0.84])
    return {
        "mock": name,
        "seed": seed,
        "snr_continuum": round(float(np.median(clean) / NOISE), 2),
        "true": round(float(true), 4),
        "found": [round(float(x), 4) for x in (middle, high - middle, low - middle)],
        "offset": round(float(middle - true), 4),
        "calls": int(found.attrs["calls"]),
        "seconds": round(time.perf_counter() - begun),
    }


def keep(row):
    """Put a row into the file of results, in place of an older one."""
    rows = json.loads(RESULTS.read_text())["rows"] if RESULTS.is_file() else []
    same = ("mock", "seed")
    rows = [old for old in rows if any(old[key] != row[key] for key in same)]
    offsets = [one["offset"] for one in (*rows, row)]
    told = {
        "date": datetime.now(UTC).date().isoformat(),
        "versions": {p: version(p) for p in ("bagpipes", "nautilus-sampler")},
        "same_models_in_mock_and_fit": True,
        "live": LIVE,
        "effective": EFFECTIVE,
        "largest_offset": max(np.abs(offsets)),
        "rms_offset": round(float(np.sqrt(np.mean(np.square(offsets)))), 4),
        "rows": sorted([*rows, row], key=lambda one: [one[key] for key in same]),
    }
    RESULTS.write_text(json.dumps(told, indent=1) + "\n")


def main(folder, *names):
    """Fit every noise draw of the mocks that are named, or of all."""
    pipes = synthesis.load()
    for name in names or MOCKS:
        for seed in SEEDS:
            row = recover(pipes, name, seed, Path(folder))
            print(json.dumps(row), flush=True)
            keep(row)


if __name__ == "__main__":
    main(*sys.argv[1:])

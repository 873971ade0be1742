"""Question: do joint fits of real data give what others measured in them.

Three answers, each printed as a table and kept in ``benchmarks/results``:

ngc4047
    The gradient of a nearby spiral (CALIFA line maps), against the published one.
ceers933
    One NIRSpec PRISM spectrum at z = 4.23, against Nakajima et al. (2023).
table3
    The sources of Venturi et al. (2024), Table 3, against their metallicities.

Run ``python benchmarks/real.py NAME [DATA]``; DATA, the folder of the real files (not
part of this repository), is ``../shared/data`` by default.
"""

import json
import sys
import time
from dataclasses import replace
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import arviz as az
import jax
import numpy as np
import numpyro.distributions as dist
from astropy.table import Table

from metalgrad import cards
from metalgrad.calibrations import load_calibration
from metalgrad.classical import chi2_metallicity
from metalgrad.compression import compress
from metalgrad.cubes import Cube
from metalgrad.curvature import expand
from metalgrad.fields import LinearGradient
from metalgrad.hierarchy import SIGNED, split
from metalgrad.inference import fit, likelihood
from metalgrad.linemaps import LineMaps
from metalgrad.model import load_model
from metalgrad.spaxels import Spaxels
from metalgrad.targets import Target

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results"
QUANTILES = (0.16, 0.5, 0.84)
SEED = 20241

NGC4047 = Path("califa_ngc4047") / "NGC4047_allpix.pipe3d.hdf5"
R_E = 13.21  # arcsec; this and the next line: eCALIFA catalogue (Sanchez et al. 2023)
PUBLISHED_NGC4047 = {"slope": [-0.0512, 0.0116], "level": [8.566, 0.014]}
CEERS933 = Path("nirspec_msa_prism") / "static-test-driz-center-bkg_933.spec.fits"
PUBLISHED_CEERS933 = [7.96, 0.16, -0.17]  # Nakajima et al. (2023)
STRONG = ("Hbeta", "OIII", "NII", "Halpha")


def quantiles(values):
    """Median and its distances to the ends of the central 68 %."""
    low, middle, high = np.quantile(np.asarray(values).ravel(), QUANTILES)
    return [round(float(x), 4) for x in (middle, high - middle, low - middle)]


def run(model, data, names, **settings):
    """Fit; return the posterior and a dictionary of what to keep of it."""
    start = time.perf_counter()
    settings = {"warmup": 250, "draws": 400, "chains": 2} | settings
    posterior = fit(model, data, seed=SEED, progress=False, **settings)
    seconds = time.perf_counter() - start
    table = az.summary(posterior, var_names=names, kind="diagnostics", round_to="none")
    summary = {name: quantiles(posterior.posterior[name]) for name in names}
    return posterior, summary | {
        "spaxels": posterior.posterior.sizes["spaxel"],
        "seconds": round(seconds, 1),
        "r_hat": round(float(table["r_hat"].max()), 3),
        "ess": round(float(table["ess_bulk"].min())),
        "divergences": int(posterior.sample_stats.diverging.sum()),
        **settings,
    }


# ---- NGC 4047 ----------------------------------------------------------------------


def read_ngc4047(data):
    """Fluxes, errors, (pixel, line), radii [R_e], columns and rows of all pixels."""
    table = Table.read(data / NGC4047, path="flux_elines")
    table["radius"] = np.asarray(table["rad_arc"], float) / R_E
    table["star_forming"] = np.asarray(table["SF_BPT"], float) == 1
    return table


def choose_ngc4047(table, selection):
    """Pixels from 0.5 to 2 R_e: ``bright`` (S/N > 3, star-forming) or ``all``."""
    maps = LineMaps.from_table(table, STRONG)
    keep = (maps.radius > 0.5) & (maps.radius < 2.0)
    if selection == "bright":
        keep &= np.all(maps.flux > 3 * maps.error, axis=1)
        flags = np.zeros(maps.shape, bool)
        flags[table["iy"], table["ix"]] = table["star_forming"]
        keep &= flags[tuple(maps.index.T)]
    return maps, keep


def bin_maps(maps, keep, side, phase):
    """Sum the fluxes of chosen pixels in squares of ``side``; errors in quadrature.

    Squares of which less than half is chosen are left out.
    """
    square = (maps.index[keep] + phase) // side
    _, owner, count = np.unique(square, axis=0, return_inverse=True, return_counts=True)
    add = np.zeros((len(count), len(owner)))
    add[owner.ravel(), np.arange(len(owner))] = 1.0
    add = add[count >= side**2 / 2]
    return replace(
        maps,
        flux=add @ maps.flux[keep],
        error=np.sqrt(add @ maps.error[keep] ** 2),
        position=add @ maps.position[keep] / add.sum(axis=1, keepdims=True),
        index=None,
        shape=None,
    )


def marino(flux):
    """12+log(O/H) of the calibration alone, pixel by pixel."""
    hbeta, oiii, nii, halpha = flux.T
    relation = load_calibration("marino13-o3n2")["O3N2"]
    ratio = np.log10(oiii / hbeta * halpha / nii)
    return relation.zero_point + ratio / relation.coefficients[1]


def least_squares(maps, keep, sides=(1, 3, 6), draws=500):
    """Straight line through pixels' metallicities; errors from resampled blocks."""
    rng = np.random.default_rng(SEED)
    keep = keep & np.all(maps.flux > 0, axis=1)
    radius, metallicity = maps.radius[keep], marino(maps.flux[keep])
    slope, central = np.polyfit(radius, metallicity, 1)
    result = {"pixels": int(keep.sum()), "slope": slope, "level": slope + central}
    for side in sides:
        _, block = np.unique(maps.index[keep] // side, axis=0, return_inverse=True)
        block, lines = block.ravel(), []
        for _ in range(draws):
            weight = np.bincount(
                rng.integers(block.max() + 1, size=block.max() + 1),
                minlength=block.max() + 1,
            )
            lines.append(np.polyfit(radius, metallicity, 1, w=weight[block] ** 0.5))
        lines = np.array(lines)
        result[f"block {side}"] = [lines[:, 0].std(), lines.sum(axis=1).std()]
    return result


def galaxy_model():
    """Return a straight gradient for a local spiral, in effective radii."""
    field = LinearGradient(
        level=dist.Normal(8.5, 0.5),
        slope=dist.Normal(0.0, 0.2),
        scatter=dist.HalfNormal(0.1),
    )
    return replace(load_model("gradient", calibration="marino13-o3n2"), field=field)


def residuals(posterior):
    """Rms of (observed - modelled) fluxes over their errors, for each line."""
    modelled = posterior.posterior_predictive["model_flux"].mean(("chain", "draw"))
    error = posterior.constant_data["line_flux_error"]
    pull = (posterior.observed_data["line_flux"] - modelled) / error
    rms = np.sqrt((pull**2).mean("spaxel")).values
    return dict(zip(pull.line.values.tolist(), rms.round(2).tolist(), strict=True))


def expand_ngc4047(maps):
    """Gaussian approximation at the collapsed mode: medians and errors, in seconds.

    Spaxels far brighter than their scatter make the sampler slow here, while slope
    and level are very nearly Gaussian once the spaxels are integrated out.
    """
    start = time.perf_counter()
    model = galaxy_model()
    prepared = model.prepare(likelihood(maps))
    with jax.enable_x64(True):  # noqa: FBT003
        parts = split(model, prepared)
        found = expand(parts, parts.data.arrays, jax.random.key(SEED), starts=3)
        values, _ = parts.unpack(found.theta, found.z)
        pivot = float(prepared.pivot)
    names = list(parts.galaxy)  # every site of this model is one number
    stretch = np.asarray(found.stretch)
    covariance = stretch @ stretch.T
    level, slope = (names.index(name) for name in ("level", "slope"))
    unit = np.eye(len(names))
    at_r_e = unit[level] + (1 - pivot) * unit[slope]
    theta = np.asarray(found.theta)
    result = {
        name: [float(theta @ row), float(np.sqrt(row @ covariance @ row))]
        for name, row in (("slope", unit[slope]), ("level at R_e", at_r_e))
    }
    others = {name.removesuffix(SIGNED): values[name] for name in names}
    return result | {
        "mode": {n: float(np.ravel(v)[0]) for n, v in others.items() if n != "slope"},
        "spaxels": len(maps),
        "seconds": round(time.perf_counter() - start, 1),
    }


def fit_ngc4047(maps, **settings):
    """Joint fit of one set of maps: slope [dex/R_e] and level at R_e."""
    names = ["slope", "level", "central", "scatter", "reddening"]
    posterior, summary = run(galaxy_model(), maps, names, **settings)
    sites = posterior.posterior
    summary["level at R_e"] = quantiles(sites["central"] + sites["slope"])
    return summary | {"residuals": residuals(posterior)}


def ngc4047(data):
    """Gradient of NGC 4047: least squares, and joint fits of pixels and bins."""
    table, result = read_ngc4047(data), {"published": PUBLISHED_NGC4047}
    for selection in ("bright", "all"):
        maps, keep = choose_ngc4047(table, selection)
        result[f"{selection}, least squares"] = least_squares(maps, keep)
        for side, phase in ((1, 0), (3, 0), (3, 1), (3, 2), (5, 0)):
            binned = bin_maps(maps, keep, side, phase)
            key = f"{selection}, {side} x {side} pixels, phase {phase}"
            result[key] = expand_ngc4047(binned)
    result["bright, 3 x 3 pixels, phase 0, sampled"] = fit_ngc4047(
        bin_maps(*choose_ngc4047(table, "bright"), 3, 0)
    )
    return result


# ---- CEERS 933 ---------------------------------------------------------------------


def ceers933(data):
    """Metallicity of one PRISM spectrum, at three redshifts."""
    result = {"published": PUBLISHED_CEERS933}
    for redshift in (4.224, 4.234, 4.244):
        target = Target.at(redshift=redshift, radius=1)
        spaxels = Spaxels.select(Cube.read(data / CEERS933), target)
        likelihood, tuning = compress(spaxels)
        flux, error = (x[0].round(1).tolist() for x in likelihood.best_flux())
        names = ["metallicity", "level", "ebv"]
        posterior, summary = run(load_model("flat"), spaxels, names)
        count = np.array([len(names) for names in likelihood.complexes])
        free = likelihood.dof[0] - count
        scale = posterior.posterior["noise_scale"]
        result[f"z = {redshift}"] = summary | {
            "fluxes": dict(zip(likelihood.lines, flux, strict=True)),
            "errors": dict(zip(likelihood.lines, error, strict=True)),
            "complexes": likelihood.labels,
            "chi2 / dof": (likelihood.misfit[0] / free).round(2).tolist(),
            "dof": free.tolist(),
            "noise scale": [quantiles(scale[..., c]) for c in range(len(count))],
            "offset [km/s]": tuning.offset.round().tolist(),
            "width of LSF": tuning.scale.round(3).tolist(),
            "its error": tuning.scale_error.round(3).tolist(),
        }
    return result


# ---- Table 3 -----------------------------------------------------------------------


def row_maps(row, *, limits):
    """One source as one spaxel, of the lines whose columns end in ``limits`` or hold.

    With ``limits`` a limit of 3 sigma is taken for a flux of 0 with that error; all
    that the paper says is that the flux measured was less.
    """
    names, flux, error = [], [], []
    for line in ("OII", "NeIII", "Hbeta", "OIII", "Halpha", "SII"):
        value, sigma, limit = (row[line + end] for end in ("", "_err", "_limit"))
        if np.isfinite(value) or (limits and np.isfinite(limit)):
            names.append(line)
            flux.append(value if np.isfinite(value) else 0.0)
            error.append(sigma if np.isfinite(value) else limit / 3)
    return LineMaps(
        lines=tuple(names),
        flux=np.array([flux]),
        error=np.array([error]),
        position=np.zeros((1, 2)),
        radius_unit="kpc",
    )


def fit_row(row):
    """Paper, chi-square and joint posteriors of one row of Table 3."""
    maps = row_maps(row, limits=False)
    columns = [
        dict(zip(maps.lines, x[0], strict=True)) for x in (maps.flux, maps.error)
    ]
    classic = chi2_metallicity(*columns, load_calibration("curti23"))
    best, model = float(classic.metallicity), load_model("flat")
    dustless = replace(model, reddening=dist.HalfNormal(1e-3))
    as_paper = model if "Halpha" in maps.lines else dustless
    fits = {
        "posterior": (model, maps),
        "posterior, dust as the paper": (as_paper, maps),
        "posterior, limits as zeros": (as_paper, row_maps(row, limits=True)),
    }
    found = {
        kind: run(*fit, ["metallicity"], draws=1000)[1] for kind, fit in fits.items()
    }
    return {
        "paper": [row["metallicity" + end] for end in ("", "_plus", "_minus")],
        "chi2": [best, float(classic.upper) - best, float(classic.lower) - best],
        **{kind: summary.pop("metallicity") for kind, summary in found.items()},
        "lines": list(maps.lines),
        "sampling": found,
    }


def table3(data):
    """Metallicities of the sources of Venturi et al. (2024), one by one."""
    del data
    table = cards.table("published/venturi24.ecsv")
    rows = [
        dict(zip(table, row, strict=True)) for row in zip(*table.values(), strict=True)
    ]
    rows = [row for row in rows if np.isfinite(row["metallicity"])]
    result = {f"{row['target']} {row['source']}": fit_row(row) for row in rows}
    # R3 alone, double-valued there: the paper's branch is not known.
    usual = [
        row for key, row in result.items() if key not in ("A2744-YD4 s1", "BDF-3299 c")
    ]
    for kind in [name for name in usual[0] if name.startswith(("chi2", "posterior"))]:
        offset = [row[kind][0] - row["paper"][0] for row in usual]
        rms = float(np.sqrt(np.mean(np.square(offset))))
        result[f"{kind} - paper"] = {"rms": rms, "bias": float(np.mean(offset))}
    return result


def main(name, data=ROOT.parent / "shared" / "data"):
    """Run one comparison, print it and keep it."""
    result = {"ngc4047": ngc4047, "ceers933": ceers933, "table3": table3}[name](
        Path(data)
    )
    packages = ("jax", "numpyro", "arviz", "astropy", "numpy")
    record = {
        "question": __doc__.splitlines()[0],
        "machine": "2 CPU cores",
        "date": datetime.now(UTC).date().isoformat(),
        "versions": {package: version(package) for package in packages},
        "result": result,
    }
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"real_{name}.json").write_text(json.dumps(record, indent=1) + "\n")
    for key, value in result.items():
        print(key, value)


if __name__ == "__main__":
    main(*sys.argv[1:])

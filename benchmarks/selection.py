"""Question: what gradient does a cut at S/N > 3 invent, and does a joint fit?

Cubes by ``independent.py``, which shares no code with metalgrad, of galaxies with a
slope of 0 and of -0.1 dex/kpc go through

spaxels
    what is usually done: the lines of each spaxel are fitted, ratios whose lines have
    S/N > 3 give a metallicity by χ², and a straight line goes through those;
annuli
    the same of spectra summed in annuli, of the cube smoothed to one PSF, as Venturi et
    al. (2024) do;
joint
    ``metalgrad.fit``, which cuts nothing.

Errors of lines are those that the cube's own line-free channels tell, so that S/N > 3
is what it says.  Beside metallicities, log([O III]/Hβ) of the spaxels in which both are
detected is compared with that of all, known from a cube of the same galaxy without
noise.  Run ``python benchmarks/selection.py [GALAXIES] [JOINT]`` for this many galaxies
and joint fits of each slope; what is finished is kept in
``benchmarks/results/selection.jsonl``, the picture is ``selection.png`` there.
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
import matplotlib.pyplot as plt
import numpy as np
from astropy.coordinates import SkyCoord

import metalgrad as mg
from metalgrad import inference
from metalgrad.classical import PAPER_RATIOS, chi2_metallicity, classical_gradient
from metalgrad.detection import select_ratios
from metalgrad.lsf import prism
from metalgrad.noise import measure_correlation

RESULTS = Path(__file__).parent / "results"
SETTINGS = {"warmup": 250, "draws": 300, "chains": 2}
SLOPES = (0.0, -0.1)  # dex/kpc
# Seed and slope in the picture: of the first 12 flat galaxies the one whose slopes,
# spaxel by spaxel, are nearest to the means, whatever the joint fit makes of it.
SHOWN = 6, 0.0
RADIUS = 0.6  # arcsec
GOAL = 0.205  # arcsec, above the PSF's FWHM at [S II]
RADII = np.linspace(0, 3.4, 18)  # kpc, of the bands
BOTTOM = 7.5  # of the picture of metallicities; what is below is a triangle
QUANTILES = (0.025, 0.16, 0.5, 0.84, 0.975)
# Colours that the colour-blind tell apart (Okabe & Ito).
TRUE, CUT, OURS = "#4d4d4d", "#d55e00", "#0072b2"


def observe(seed, slope, **changes):
    """Draw one galaxy; return its cube, target and truth."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "mock.fits"
        truth = independent.mock(path, seed=seed, slope=slope, **changes)
        cube = mg.Cube.read(path)
    centre = SkyCoord(truth["ra"], truth["dec"], unit="deg")
    redshift = truth["redshift"]
    return cube, mg.Target.at(redshift=redshift, radius=RADIUS, position=centre), truth


def fit_lines(spaxels):
    """Lines of every spaxel, with the noise that line-free channels tell."""
    correlation = measure_correlation(spaxels, prism()).spectral
    return mg.fit_lines(spaxels, rescale=True, correlation=correlation)


def straight(radius, value, error=None):
    """Slope of a straight line, and its error."""
    keep = np.isfinite(radius + value + (0 if error is None else error))
    if error is None:
        line, covariance = np.polyfit(radius[keep], value[keep], 1, cov=True)
        return float(line[0]), float(covariance[0, 0] ** 0.5)
    line = classical_gradient(radius[keep], value[keep], error[keep])
    return line.slope, line.slope_error


def measure(lines, ratios):
    """Metallicity of every spaxel and its error; NaN where there is none."""
    calibration = mg.load_calibration("curti23")
    found = chi2_metallicity(lines.flux, lines.error, calibration, ratios)
    error = np.where(found.at_edge, np.nan, (found.upper - found.lower) / 2)
    return np.where(np.isfinite(error), found.metallicity, np.nan), error


def log_ratio(lines):
    """Return log([O III]/Hβ) of every spaxel, its error, and whether it is detected."""
    (kept,) = select_ratios(lines.flux, lines.error, ("R3",)).T
    with np.errstate(invalid="ignore", divide="ignore"):
        value = np.log10(lines.flux["OIII"] / lines.flux["Hbeta"])
        noise = [lines.error[name] / lines.flux[name] for name in ("OIII", "Hbeta")]
    return value, np.hypot(*noise) / np.log(10), kept


def classical(seed, slope):
    """All that is not the joint fit, of one galaxy; a row, and what to draw."""
    cube, target, truth = observe(seed, slope)
    quiet = mg.Spaxels.select(observe(seed, slope, noise=0.0)[0], target)
    spaxels = mg.Spaxels.select(cube, target)
    radius, lines = spaxels.radius, fit_lines(spaxels)
    value, error, kept = log_ratio(lines)
    silent = mg.fit_lines(quiet)
    silent = replace(silent, error=lines.error)
    true_value = log_ratio(silent)[0]
    metallicity, sigma = measure(lines, PAPER_RATIOS)
    (all_three,) = select_ratios(lines.flux, lines.error, ("Rhat",)).T
    two = [np.where(all_three, x, np.nan) for x in measure(lines, ("R3", "R2"))]
    annuli = mg.annular_gradient(cube, target, goal_fwhm=GOAL).line
    row = {
        "ratio, true, all": straight(radius, true_value),
        "ratio, true, kept": straight(radius[kept], true_value[kept]),
        "ratio, kept": straight(radius[kept], value[kept]),
        "ratio, kept, weighted": straight(radius[kept], value[kept], error[kept]),
        "spaxels": straight(radius, metallicity, sigma),
        "spaxels, without noise": straight(radius, *measure(silent, PAPER_RATIOS)),
        "spaxels, unweighted": straight(radius, metallicity),
        "spaxels, R3 and R2": straight(radius, *two),
        "annuli": (annuli.slope, annuli.slope_error),
        "kept": float(kept.mean()),
        "with metallicity": float(np.isfinite(metallicity).mean()),
    }
    drawn = {"radius": radius, "kept": kept, "ratio": value, "true ratio": true_value}
    drawn |= {"metallicity": metallicity, "error": sigma}
    return row, drawn | {"central": truth["central"]}


def joint(model, seed, slope):
    """Fit one galaxy jointly; a row with the bands of metallicity against radius."""
    cube, target, _ = observe(seed, slope)
    start = time.perf_counter()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", mg.ConvergenceWarning)  # short chains
        posterior = mg.fit(
            model, mg.Spaxels.select(cube, target),
            seed=seed, progress=False, **SETTINGS,
        )  # fmt: skip
    sites = posterior.posterior
    slopes, central = (sites[name].values.ravel() for name in ("slope", "central"))
    bands = np.quantile(central[:, None] + slopes[:, None] * RADII, QUANTILES, axis=0)
    return {
        "joint": (float(slopes.mean()), float(slopes.std())),
        "bands": bands.round(4).tolist(),
        "divergences": int(posterior.sample_stats["diverging"].sum()),
        "seconds": round(time.perf_counter() - start, 1),
        **SETTINGS,
    }


def label(name, slope, error=None):
    """Write a name, and a slope below it."""
    number = f"{round(slope, 2) + 0.0:+.2f}"  # no minus before zero
    number += "" if error is None else f" ± {error:.2f}"
    return f"{name}\n{number} dex/kpc".replace("-", "−")


def draw_ratios(ax, points, row):
    """Draw log([O III]/Hβ) against radius: all spaxels' truth, and what is kept."""
    radius, true, kept = (points[key] for key in ("radius", "true ratio", "kept"))
    ax.plot(radius, true, ".", color=TRUE, alpha=0.3, ms=4, mew=0)
    ax.plot(radius[kept], points["ratio"][kept], "o", color=CUT, alpha=0.7, ms=5, mew=0)
    true_slope, cut = row["ratio, true, all"][0], row["ratio, kept"]
    name = f"measured, S/N > 3 ({row['kept']:.0%})"
    for slope, x, y, style in (
        (true_slope, radius, true, (TRUE, label("truth, all spaxels", true_slope))),
        (cut[0], radius[kept], points["ratio"][kept], (CUT, label(name, *cut))),
    ):
        ends = np.array([0.0, x.max()])
        line = y.mean() + slope * (ends - x.mean())
        ax.plot(ends, line, lw=2.5, color=style[0], label=style[1])
    ax.set_ylabel("log([O III] 5008 / Hβ)")


def draw_metallicities(ax, points, row):
    """Draw 12+log(O/H) against radius: truth, kept spaxels, and the joint fit."""
    truth = points["central"] + SHOWN[1] * RADII
    ax.plot(RADII, truth, color=TRUE, lw=2, ls=(0, (3, 1)), zorder=4)
    ax.lines[-1].set_label(f"truth\n{SHOWN[1]:g}".replace("-", "−"))
    radius, value, error = (points[x] for x in ("radius", "metallicity", "error"))
    style = {"color": CUT, "mew": 0, "alpha": 0.7, "ls": ""}
    ax.errorbar(radius, value, error, fmt="none", ecolor=CUT, elinewidth=0.6, alpha=0.4)
    ax.plot(radius, value, marker="o", ms=5, **style)
    below = radius[value < BOTTOM]
    ax.plot(below, np.full(len(below), BOTTOM + 0.015), marker="v", ms=7, **style)
    line = classical_gradient(radius, value, error)
    ends = np.array([0.0, radius[np.isfinite(error)].max()])
    name = label("spaxels, S/N > 3", *row["spaxels"])
    ax.plot(ends, line.central + line.slope * ends, color=CUT, lw=2.5, label=name)
    low, lower, middle, upper, high = np.array(row["bands"])
    ax.fill_between(RADII, low, high, color=OURS, alpha=0.18, lw=0)
    ax.fill_between(RADII, lower, upper, color=OURS, alpha=0.3, lw=0)
    name = label("joint fit of all", *row["joint"])
    ax.plot(RADII, middle, color=OURS, lw=2.5, label=name)
    ax.set(ylabel="12 + log(O/H)", ylim=(BOTTOM, BOTTOM + 1.15))


def draw(row):
    """Draw the picture of one galaxy, given all that was found of it."""
    points = classical(*SHOWN)[1]
    style = {"font.size": 13, "axes.spines.top": False, "axes.spines.right": False}
    with plt.rc_context(style):
        figure, axes = plt.subplots(1, 2, figsize=(10.6, 4.7), layout="constrained")
        for ax, fill in zip(axes, (draw_ratios, draw_metallicities), strict=True):
            fill(ax, points, row)
            ax.set(xlim=(0, RADII[-1]), xlabel="radius [kpc]")
            ax.legend(
                loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=3, frameon=False,
                labelcolor="linecolor", fontsize="small", handlelength=1.4,
                handletextpad=0.5, columnspacing=0.9, borderaxespad=0.0,
            )  # fmt: skip
        figure.savefig(RESULTS / "selection.png", dpi=160)
        plt.close(figure)


def report(rows):
    """Print bias, scatter and quoted errors of every slope."""
    for slope in SLOPES:
        chosen = [row for row in rows if row["slope"] == slope]
        print(f"true slope {slope:g} dex/kpc: mean slope, scatter, mean quoted error")
        names = dict.fromkeys(
            key for row in chosen for key, value in row.items()
            if isinstance(value, list | tuple) and len(value) == 2
        )  # fmt: skip
        for name in names:
            found = np.array([row[name] for row in chosen if name in row])
            mean, spread, count = found[:, 0].mean(), found[:, 0].std(), len(found)
            error = found[:, 1].mean()
            print(f"{name:>24}: {mean:+.3f} {spread:.3f} {error:.3f} ({count})")
        for name in ("kept", "with metallicity"):
            share = np.mean([row[name] for row in chosen if name in row])
            print(f"{name:>24}: {share:.0%} of spaxels")


def main(galaxies=12, joints=3):
    """Do what is missing, draw, print."""
    path = RESULTS / "selection.jsonl"
    rows, model = kept.read(path), mg.load_model("gradient")
    inference.FORETOLD = 16  # leave-one-out, a third of the time, is not asked for
    wanted = [
        ("spaxels", *case) for case in product(range(1, int(galaxies) + 1), SLOPES)
    ]
    seeds = [SHOWN[0], *(n for n in range(1, int(galaxies) + 1) if n != SHOWN[0])]
    wanted += [("joint", *case) for case in product(seeds[: int(joints)], SLOPES)]
    for kind, seed, slope in wanted:
        same = (row for row in rows if (row["seed"], row["slope"]) == (seed, slope))
        if any(kind in row for row in same):
            continue
        case = seed, slope
        found = joint(model, *case) if kind == "joint" else classical(*case)[0]
        rows.append({"seed": seed, "slope": slope} | found)
        kept.add(path, rows[-1])
    report(rows)
    shown = [row for row in rows if (row["seed"], row["slope"]) == SHOWN]
    if any("joint" in row for row in shown):
        draw({key: value for row in shown for key, value in row.items()})


if __name__ == "__main__":
    main(*sys.argv[1:])

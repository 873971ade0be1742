"""The numbers of a fit: a table to keep and a text to read."""

import json
import textwrap

import numpy as np
from arviz_stats import hdi
from astropy.table import Table

from metalgrad import checks
from metalgrad.solutions import solutions
from metalgrad.verdict import Verdict, judge

ORDER = (
    "slope",
    "slope_per_R_e",
    "inner_slope",
    "outer_slope",
    "break_radius",
    "dipole",
    "dipole_amplitude",
    "dipole_angle",
    "contrast",
    "source_slope",
    "source_level",
    "level",
    "central",
    "level_at_R_e",
    "scatter",
    "length",
    "rho",
    "reddening",
    "reddening_scatter",
    "noise_scale",
    "shared_dispersion",
    "typical_ratio",
    "mean",
)
HDI = 0.94  # ArviZ' custom
QUANTILES = {"q16": 0.16, "q50": 0.50, "q84": 0.84}
COLUMNS = {
    "name": "quantity; level is at the pivot radius",
    "unit": "1 for pure numbers",
    "mean": "posterior mean",
    "sd": "posterior standard deviation",
    "q16": "16 % quantile",
    "q50": "median",
    "q84": "84 % quantile",
    "hdi_low": f"lower end of the narrowest interval that holds {HDI:.0%}",
    "hdi_high": "upper end of that interval",
    "ess_bulk": "effective draws of the bulk",
    "ess_tail": "effective draws of the tails",
    "r_hat": "rank-normalised split R-hat; NaN for a single chain",
    "prior_ratio": "posterior over prior standard deviation; NaN if derived",
}
WIDTH = 79  # of a terminal
PER_R_E = "radii in effective radii (they came without a unit), and priors per R_e"
LABELS = {
    "slope": "slope",
    "slope_per_R_e": "slope",
    "inner_slope": "slope inside the break",
    "outer_slope": "slope outside the break",
    "break_radius": "radius of the break",
    "dipole_amplitude": "tilt",
    "dipole_angle": "tilt, from the major axis",
    "contrast": "clump over its place",
    "source_slope": "slope about each source",
    "source_level": "12+log(O/H)",
    "level": "12+log(O/H) at the pivot",
    "central": "12+log(O/H) at the centre",
    "level_at_R_e": "12+log(O/H) at R_e",
    "scatter": "scatter of spaxels",
    "reddening": "E(B-V), median",
}


def summary(posterior) -> Table:
    """Put the numbers of a fit into a table, one row for each of the galaxy's.

    Derived are the slope per effective radius and the metallicity there, where the
    radius is known and the field is straight.

    Parameters
    ----------
    posterior : xarray.DataTree
        As `metalgrad.fit` returns it.

    Returns
    -------
    astropy.table.Table
        ``name``, ``unit``, ``mean``, ``sd``, ``q16``, ``q50``, ``q84``, ``hdi_low``
        and ``hdi_high`` (94 %), ``ess_bulk``, ``ess_tail``, ``r_hat`` and
        ``prior_ratio``, the posterior's over the prior's standard deviation (NaN for
        what has no prior of its own).  In ``meta``: target, model, calibration, seed,
        spaxels, versions and the like; ``warnings``, what `checks.diagnose` says;
        ``converged``, ``reasons`` and ``verdict``, what `verdict.judge` finds; and
        ``loo``, the score of `checks.leave_one_out` or None.  ECSV keeps all of it.

    Raises
    ------
    ValueError
        If the tree has no group ``posterior``.
    """
    return _tabulate(posterior, judge(posterior))


def _tabulate(posterior, verdict: Verdict) -> Table:
    draws = quantities(posterior)
    values = np.stack([*draws.values()], axis=-1)
    ratios = checks.prior_ratios(posterior, checks.galaxy_draws(posterior))
    interval = [hdi(one.ravel(), prob=HDI) for one in draws.values()]
    bulk, tail = checks.effective_draws(values)
    columns = {
        "name": list(draws),
        "unit": [_unit(posterior, name) for name in draws],
        "mean": values.mean(axis=(0, 1)),
        "sd": values.std(axis=(0, 1)),
        **{q: np.quantile(values, at, axis=(0, 1)) for q, at in QUANTILES.items()},
        "hdi_low": [low for low, _ in interval],
        "hdi_high": [high for _, high in interval],
        "ess_bulk": bulk,
        "ess_tail": tail,
        "r_hat": checks.r_hat(values),
        "prior_ratio": [ratios.get(name, np.nan) for name in draws],
    }
    return Table(columns, meta=_meta(posterior, values, verdict), descriptions=COLUMNS)


def quantities(posterior) -> dict[str, np.ndarray]:
    """Collect draws of all that a summary tells of, in its order.

    Parameters
    ----------
    posterior : xarray.DataTree

    Returns
    -------
    dict of str to numpy.ndarray, (chain, draw)
        `checks.galaxy_draws`, with ``slope_per_R_e`` [dex / R_e] and ``level_at_R_e``
        [12 + log(O/H)] where they can be had.
    """
    draws = checks.galaxy_draws(posterior)
    length = posterior.attrs.get("length")
    radius = posterior.attrs.get("effective_radius", np.nan)
    if "slope" in draws and length == "kpc" and radius > 0:
        draws["slope_per_R_e"] = draws["slope"] * radius
        draws["level_at_R_e"] = draws["central"] + draws["slope_per_R_e"]
    if "slope" in draws and length == "R_e":
        draws["level_at_R_e"] = draws["central"] + draws["slope"]
    return {name: draws[name] for name in sorted(draws, key=_rank)}  # a stable sort


def describe(posterior) -> str:
    """Tell the result of a fit in a few lines.

    Medians are given with the distances to the 16 % and 84 % quantiles.

    Parameters
    ----------
    posterior : xarray.DataTree
        As `metalgrad.fit` returns it.

    Returns
    -------
    str
        Plain text of 79 columns: slope, levels, scatter, dust, then whether the fit
        has converged and by which criteria, and what `checks.diagnose` says.

    Raises
    ------
    ValueError
        If the tree has no group ``posterior``.
    """
    verdict = judge(posterior)
    table = _tabulate(posterior, verdict)
    meta = table.meta
    rows = {row["name"]: row for row in table}
    lines = [
        f"{meta['target'] or 'a galaxy'}: model {meta['model']}, "
        f"calibration {meta['calibration']}",
        f"{meta['spaxels']} spaxels, {meta['chains']} chains of {meta['draws']} draws, "
        f"seed {meta['seed']}",
        *([PER_R_E] if posterior.attrs.get("length") == "R_e" else []),
        "",
        *(["all solutions together:"] if solutions(posterior) else []),
        *_numbers(rows, meta),
        *_solutions(posterior),
        "",
        *str(verdict).splitlines(),
        "",
    ]
    if not meta["warnings"]:
        lines.append("Nothing to warn of.")
    for sentence in meta["warnings"]:
        lines += textwrap.wrap(f"- {sentence}", WIDTH, subsequent_indent="  ")
    return "\n".join(lines)


def _numbers(rows, meta) -> list[str]:
    labels = dict(LABELS)
    is_flat = not any("slope" in name for name in rows)
    if is_flat:  # one level, so the centre's would be said twice
        labels |= {"level": "12+log(O/H)"}
        del labels["central"]
    lines = [
        _line(label + name.removeprefix(stem).replace("[", " ["), row)
        for stem, label in labels.items()
        for name, row in rows.items()
        if name.partition("[")[0] == stem
    ]
    if "level" in rows and not is_flat and meta["pivot"] is not None:
        lines.append(f"(the pivot is at {meta['pivot']:.3g} {meta['length']})")
    lines += [f"({name} is fixed at {at:g})" for name, at in meta["fixed"].items()]
    return lines


def _solutions(posterior) -> list[str]:
    """Tell the numbers of each solution, where there are several."""
    lines, wanted = [], ("slope", "level", "source_level")
    for one in solutions(posterior):
        lines += ["", f"of weight {one.weight:.2f} ± {max(one.error, 0.01):.2f}:"]
        for name, values in quantities(one.take(posterior)).items():
            if (stem := name.partition("[")[0]) in wanted:
                row = {q: np.quantile(values, at) for q, at in QUANTILES.items()}
                unit = {"unit": _unit(posterior, name)}
                lines.append(_line(LABELS[stem] + name.removeprefix(stem), row | unit))
    return lines


def _line(label, row) -> str:
    up, down = row["q84"] - row["q50"], row["q50"] - row["q16"]
    places = _places(min(up, down))
    numbers = f"{row['q50']:.{places}f} +{up:.{places}f} -{down:.{places}f}"
    # The label of a metallicity says what its number is.
    unit = "" if "O/H" in row["unit"] else row["unit"].replace(" / ", "/")
    return f"{label:<27}{numbers} {unit}".rstrip()


def _places(error) -> int:
    """Return the decimals that show two digits of an error."""
    if not np.isfinite(error) or error <= 0:
        return 3
    return max(0, 1 - int(np.floor(np.log10(error))))


def _rank(name) -> int:
    stem = name.partition("[")[0]
    stem = "mean" if stem.startswith("mean_") else stem
    return ORDER.index(stem) if stem in ORDER else len(ORDER)


def _unit(posterior, name) -> str:
    derived = {"slope_per_R_e": "dex / R_e", "level_at_R_e": "12 + log(O/H)"}
    if name in derived:
        return derived[name]
    if name.startswith("mean_"):
        return "dex"
    variable = posterior["posterior"][name.partition("[")[0]]
    return variable.attrs.get("units", "1")  # ECSV would read "" back as masked


def _meta(posterior, values, verdict) -> dict:
    """Where a fit came from and what is wrong with it, in types that ECSV keeps."""
    attrs, sizes = posterior.attrs, posterior["posterior"].sizes
    text = ("title", "target", "model", "field", "calibration", "length", "created")
    number = ("redshift", "pivot", "effective_radius")
    score = checks.leave_one_out(posterior)
    return {
        **{key: str(attrs.get(key, "")) for key in text},
        **{key: _finite(attrs.get(key)) for key in number},
        "ratios": [str(ratio) for ratio in np.atleast_1d(attrs.get("ratios", []))],
        "valid": [float(end) for end in attrs.get("valid", [])],
        "seed": None if attrs.get("seed") is None else int(attrs["seed"]),
        "spaxels": int(sizes.get("spaxel", 0)),
        "chains": values.shape[0],
        "draws": values.shape[1],
        "versions": json.loads(attrs.get("versions", "{}")),
        "fixed": json.loads(attrs.get("fixed", "{}")),
        "loo": score and {key: float(score[key]) for key in ("elpd", "se", "p")},
        "warnings": verdict.warnings,
        **verdict.meta,
    }


def _finite(value):
    """Return a float, or None for NaN, which would not equal itself when read back."""
    return float(value) if value is not None and np.isfinite(value) else None

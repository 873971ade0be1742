"""Models of the same data, ranked by how well they foretell what they never saw."""

from collections.abc import Mapping
from copy import copy
from pathlib import Path

import numpy as np
import pandas as pd
import xarray
from arviz_stats import compare as arviz_compare
from astropy.table import Table
from xarray import DataTree

from metalgrad.checks import leave_one_out
from metalgrad.groups import MC_ERROR, GroupsOut

SPAXEL = "spaxel"
# Two machines compress alike to so much of a number, and of the largest of all.
ALIKE, LITTLE = 1e-5, 1e-8
TELLS = 2.0  # standard errors
SLIGHT = 4.0  # nats, below which no standard error is to be trusted, arXiv:2008.10296
TINY = 1e-9
FEW = 10  # units, from which no standard error is well known; ours


def compare(fits: Mapping[str, DataTree | GroupsOut | str | Path]) -> pd.DataFrame:
    """Compare models by how well they foretell what they have not seen.

    Parameters
    ----------
    fits : mapping of str to DataTree, GroupsOut or path
        Of two or more models of the same data: what `metalgrad.fit` or
        `metalgrad.leave_groups_out` return, or files (or their folders) of the former.

    Returns
    -------
    pandas.DataFrame
        ArviZ's, unrounded, the best model first: ``elpd_diff``, how much less [nats] a
        model foretells than the best, its standard error ``dse``, stacking weights
        ``weight``, effective number of parameters ``p``, ...  In its ``attrs`` are the
        ``unit`` that is left out at a time, ``high_k``, for how many units of each
        model importance sampling fails, and ``advice``, a list of sentences.

    Raises
    ------
    ValueError
        If there is one fit only, or they are not of the same data and units.
    """
    if len(fits) < 2:
        raise ValueError(f"{len(fits)} fit(s) where two or more can be compared")
    fits = {n: open_fit(f) for n, f in fits.items()}
    check_same({name: identify(fit) for name, fit in fits.items()})
    elpds = {name: _foretell(name, fit) for name, fit in fits.items()}
    table = _tabulate(elpds)
    first = next(iter(fits.values()))
    unit = _unit(first)
    high = {name: _count_high(elpd) for name, elpd in elpds.items()}
    is_map = isinstance(first, DataTree) and len(first.attrs.get("shape", [])) > 1
    table.attrs = {
        "unit": f"one {unit}",
        "high_k": high,
        "advice": _advise(elpds, high, unit, is_map=is_map),
    }
    return table


def verdict(table: pd.DataFrame) -> str:
    """Say in a sentence which model `compare` prefers, and by how much.

    Below two standard errors, or four nats, nothing can be told.
    """
    best, *others = table.index
    said = [_judge(best, name, table.loc[name]) for name in others]
    return f"leaving out {table.attrs['unit']} at a time, " + "; ".join(said)


def to_table(table: pd.DataFrame) -> Table:
    """Turn what `compare` returns into an Astropy table that a file can hold."""
    columns = {"model": list(table.index)}
    columns |= {name: table[name].to_list() for name in table.columns}
    return Table(columns, meta=table.attrs | {"verdict": verdict(table)})


def identify(fit: DataTree | GroupsOut) -> dict:
    """Tell which data a fit is of: galaxy, lines, fluxes and errors, what was left out.

    Raises
    ------
    ValueError
        If a tree is no fit of metalgrad.
    """
    if isinstance(fit, GroupsOut):
        return fit.data | {"unit": fit.unit, "groups": fit.groups}
    missing = {"observed_data", "constant_data", "log_likelihood"} - {*fit.children}
    if missing:
        raise ValueError(
            f"the tree lacks {', '.join(sorted(missing))}; give what metalgrad.fit "
            "returns"
        )
    flux = fit["observed_data"]["line_flux"].transpose("spaxel", "line")
    error = fit["constant_data"]["line_flux_error"].transpose("spaxel", "line")
    return {
        "target": fit.attrs.get("target", ""),
        "lines": tuple(map(str, flux["line"].values)),
        "flux": flux.values,
        "error": error.values,
        "inflation": float(fit.attrs.get("noise_inflation", 1.0)),
        "unit": SPAXEL,
        "groups": np.arange(len(flux)),
    }


def open_fit(fit: DataTree | GroupsOut | str | Path) -> DataTree | GroupsOut:
    """Read a fit from its file or folder, if it is not open yet.

    Raises
    ------
    FileNotFoundError
        If there is none.
    ValueError
        If the file is no netCDF.
    """
    if not isinstance(fit, str | Path):
        return fit
    path = Path(fit)
    path = path / "posterior.nc" if path.is_dir() else path
    if not path.is_file():
        raise FileNotFoundError(
            f"there is no fit at {path}; give the folder of one, or its posterior.nc"
        )
    try:
        with xarray.open_datatree(path, engine="h5netcdf") as tree:
            return tree.load()
    except OSError as error:
        raise ValueError(
            f"{path} is no netCDF file, or is truncated; give the posterior.nc of a fit"
        ) from error


def check_same(identities: dict[str, dict]) -> None:
    """Refuse what would be compared by densities of different data.

    Parameters
    ----------
    identities : dict of str to dict
        From `identify`, by name.

    Raises
    ------
    ValueError
        If they differ.
    """
    (first, one), *others = identities.items()
    for name, other in others:
        wrong = next((what for what in one if not _alike(one[what], other[what])), None)
        if wrong:
            sides = [_show(wrong, given[wrong]) for given in (one, other)]
            remedy = (
                "leave the same groups out for each"
                if wrong in ("unit", "groups")
                else "fit each model to the same data and lines"
            )
            raise ValueError(
                f"{first} and {name} cannot be compared, for their {wrong} differ: "
                f"{sides[0]} and {sides[1]}; {remedy}"
            )


def _alike(one, other):
    if not isinstance(one, np.ndarray | float):
        return one == other
    if np.shape(one) != np.shape(other):
        return False
    largest = np.max(np.abs(one), where=np.isfinite(one), initial=0.0)
    return np.allclose(one, other, rtol=ALIKE, atol=LITTLE * largest)


def _show(what, value):
    if what == "groups":
        return f"{len(np.unique(value))} of {len(value)} spaxels"
    if isinstance(value, np.ndarray):
        return f"{len(value)} spaxels with sum {value[np.isfinite(value)].sum():.6g}"
    return ", ".join(value) if what == "lines" else repr(value)


def _unit(fit):
    return fit.unit if isinstance(fit, GroupsOut) else SPAXEL


def _foretell(name, fit):
    if isinstance(fit, GroupsOut):
        return fit
    found = leave_one_out(fit)
    if found is None:
        raise ValueError(
            f"{name} has no finite log likelihood to compare by; fit it again"
        )
    return found


def _tabulate(elpds):
    """Build ArviZ's table; what models have in common is left out of its exponents.

    Joint densities of many spaxels would underflow.  Neither differences nor weights
    change, but for rounding.
    """
    shared = np.max([elpd.elpd_i.values for elpd in elpds.values()], axis=0)
    moved = {name: _less(elpd, shared) for name, elpd in elpds.items()}
    table = arviz_compare(moved, round_to="none")
    table["elpd_diff"] = -table["elpd_diff"].abs()  # ArviZ 1.0 turns the sign
    for column in ("elpd", "se"):
        table[column] = [getattr(elpds[name], column) for name in table.index]
    return table


def _less(elpd, shared):
    """Copy an ArviZ result, less a constant for each unit."""
    moved = copy(elpd)
    moved.elpd_i = elpd.elpd_i - shared
    moved.elpd = float(moved.elpd_i.sum())
    return moved


def _count_high(elpd):
    if elpd.pareto_k is None:
        return 0
    return int(np.sum(elpd.pareto_k.values > elpd.good_k))


def _advise(elpds, high, unit, *, is_map):
    """Say what keeps a comparison from being taken at face value."""
    first = next(iter(elpds.values()))
    count, advice = first.n_data_points, []
    if any(high.values()):
        of_each = ", ".join(f"{n} of {name}" for name, n in high.items() if n)
        advice.append(
            f"Pareto k exceeds {first.good_k:.2f} in {of_each} ({count} spaxels each): "
            "there leave-one-out favours the model; compare what metalgrad.refit "
            "returns, which fits again without them"
        )
    noisy = [
        name
        for name, elpd in elpds.items()
        if isinstance(elpd, GroupsOut) and (elpd.mc_error > MC_ERROR).any()
    ]
    if noisy:
        advice.append(
            f"Monte Carlo errors of {', '.join(noisy)} exceed {MC_ERROR} nats in some "
            f"{unit}: draw more, or leave out less at a time"
        )
    if count < FEW:
        advice.append(
            f"standard errors from {count} units are rough themselves: take the "
            "number of standard errors with a grain of salt"
        )
    if is_map:
        advice.append(
            "neighbouring spaxels share light and noise, and foretell each other "
            "whatever the model: leave out annuli or blocks to be sure"
        )
    return advice


def _judge(best, name, row):
    far = abs(row["elpd_diff"])
    errors = far / max(row["dse"], TINY)
    by = f"by {far:.1f} nats, {errors:.1f} standard errors"
    if far < SLIGHT or errors < TELLS:
        return f"{best} and {name} cannot be told apart ({best} is ahead {by})"
    return f"{best} is preferred to {name} {by}"

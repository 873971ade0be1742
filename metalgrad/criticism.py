"""Criticism of a fit, in numbers: how it foretells its data, what drives it.

Replicated data are compared with the observed ones draw by draw of the posterior.  At
one draw, the residuals of a model that is right are distributed as its noise is, in
spite of the data having been used to fit (Johnson 2007, Bayesian Analysis 2, 719; Yuan
& Johnson 2012, Biometrics 68, 156).  Averaged over draws they are not: predictions have
seen what they foretell.
"""

import warnings

import numpy as np
import pandas as pd
from arviz_base import dataset_to_dataframe
from arviz_stats import psense
from astropy.table import Table
from scipy.stats import kstwo
from xarray import DataArray, Dataset, DataTree, concat

from metalgrad.maps import Map, placer
from metalgrad.measures import SAMPLE
from metalgrad.record import TOTAL

SENSITIVE = 0.05  # 2024S&C....34...57K, section 4
# The calibration's law, given rho: no prior to choose.
GIVEN = {"shared_dispersion", "typical_ratio"}


def chi2_map(posterior: DataTree) -> Dataset:
    """Compare each spaxel's line fluxes with those of the fit.

    The statistic is the discrepancy ``sum ((observed - model) / error)**2`` over the
    spaxel's measured lines, at each draw of the model's fluxes (Gelman, Meng & Stern
    1996, Statistica Sinica 6, 733).  Errors are those of the spaxel by itself, times
    the noise scale that the fit has found.  Its expected value is the number of lines,
    though the fit has seen the data, and though errors of blended lines are correlated.

    Parameters
    ----------
    posterior : xarray.DataTree
        From `metalgrad.fit`.

    Returns
    -------
    xarray.Dataset, (spaxel,)
        ``chi2``, the mean over draws; ``expected``; and ``p``, the share of draws at
        which replicated fluxes lie farther from the model than the observed ones do.
        That is centred on 0.5, and seldomer near 0 or 1 than a uniform number would be:
        a small one is news.  The noise of a cube is taken to be as smooth as the model
        is; spaxels that depart each for itself have chi2 above what is expected.

    Raises
    ------
    ValueError
        If the tree has no replicated fluxes.
    """
    observed, model, again = _fluxes(posterior)
    error = _scale(posterior, model, again)

    def discrepancy(flux):
        return (((flux - model) / error) ** 2).sum("line")

    chi2 = discrepancy(observed)
    return Dataset(
        {
            "chi2": chi2.mean(SAMPLE),
            "expected": np.isfinite(error).sum("line"),
            "p": (discrepancy(again) >= chi2).mean(SAMPLE),
        }
    )


def chi2_images(posterior: DataTree) -> dict[str, Map]:
    """Lay `chi2_map` out, for `metalgrad.maps.write_maps`.

    Parameters
    ----------
    posterior : xarray.DataTree
        From `metalgrad.fit`.

    Returns
    -------
    dict of str to Map
        ``CHI2`` over its expected value, ``CHI2_P``, and the number of ``LINES``.

    Raises
    ------
    ValueError
        If the fit has no rows and columns of spaxels.
    """
    place, found = placer(posterior), chi2_map(posterior)
    reduced = found["chi2"] / found["expected"]
    return {
        "CHI2": Map(place(reduced), "", "chi2 of line fluxes per line"),
        "CHI2_P": Map(place(found["p"]), "", "share of replicates farther off"),
        "LINES": Map(place(found["expected"].astype(float)), "", "lines measured"),
    }


def pit(posterior: DataTree, *, seed: int) -> Dataset:
    """Tell where observed fluxes fall among those that the fit predicts.

    Parameters
    ----------
    posterior : xarray.DataTree
        From `metalgrad.fit`.
    seed : int
        Ranks among a finite number of draws are made continuous at random.

    Returns
    -------
    xarray.Dataset
        ``predictive``, (spaxel, line): probability integral transform of each flux
        under the posterior predictive, noise included.  It is conservative: the fit has
        seen the flux, and where that is what tells the model's it lies near 0.5 however
        wrong the noise.  ``pit``, (chain, draw, spaxel, line): the same at each draw of
        the model's fluxes, uniform if model and noise are right, and nearly so if what
        is wrong can hide in latents that nothing else tells.  ``distance`` and
        ``p``, (line,): Kolmogorov and Smirnov's distance of ``pit`` from uniform, the
        median over draws, and twice the median of its p-values (at most 1; valid
        whatever their dependence, Rueger 1978, Metrika 25, 171).  ``effective``,
        (line,): number of spaxels, over the inflation of the noise that they share.

        There is no leave-one-out version: the recorded likelihood has latents
        integrated out, but the model's fluxes are drawn with them.

    Raises
    ------
    ValueError
        If the tree has no replicated fluxes.
    """
    observed, model, again = _fluxes(posterior)
    seen = np.isfinite(posterior["constant_data"]["line_flux_error"])
    noise = (again - model).stack(sample=SAMPLE).transpose("sample", ...)
    residual, rng = observed - model, np.random.default_rng(seed)
    below = sum((one.drop_vars([*SAMPLE, "sample"]) < residual) * 1 for one in noise)
    ranks = {"pit": below, "predictive": (again < observed).sum(SAMPLE)}
    found = Dataset(
        {
            name: ((rank + rng.uniform(size=rank.shape)) / (len(noise) + 1)).where(seen)
            for name, rank in ranks.items()
        }
    ).transpose(*SAMPLE, "spaxel", "line")
    count = seen.sum("spaxel") / float(posterior.attrs.get("noise_inflation", 1.0))
    distance = _distance(found["pit"]).transpose(..., "line")
    p = kstwo.sf(distance.values, np.maximum(np.round(count.values), 1))
    found["distance"] = distance.median(SAMPLE)
    found["p"] = np.minimum(1, 2 * distance.copy(data=p).median(SAMPLE))
    found["effective"] = count
    return found


def sensitivity(posterior: DataTree) -> pd.DataFrame:
    """Tell how the posterior moves if priors or the likelihood are raised to a power.

    Power-scaling by ArviZ (Kallioinen et al. 2024, Statistics and Computing 34, 57).
    The likelihood is that of all data given all latents, at each draw for which it was
    kept (what leave-one-out uses would not do: neighbours foretell each other there);
    priors are those of the galaxy's parameters, not those of departures given them, the
    shared ones from the calibration among these.

    Parameters
    ----------
    posterior : xarray.DataTree
        From `metalgrad.fit`.

    Returns
    -------
    pandas.DataFrame
        A row for each number of the galaxy's: ``prior``, for all priors at once, and
        ``likelihood``, sensitive above 0.05; ``strongest``, whose prior by itself moves
        it most, and ``by`` how much; ``diagnosis``, a sentence or nothing.

    Raises
    ------
    ValueError
        If the tree has no log prior or no total log likelihood.
    """
    for group in ("log_prior", TOTAL):
        if group not in posterior.children:
            raise ValueError(
                f"the tree has no group {group!r}, without which sensitivity cannot be "
                "told; fit again with this version of metalgrad"
            )
    draws = posterior["posterior"].dataset
    draws = draws[[name for name in draws if "spaxel" not in draws[name].dims]]
    priors = posterior["log_prior"].dataset
    priors = priors[[name for name in priors if name not in GIVEN]]
    total = posterior[TOTAL].dataset
    kept = draws.sel(draw=total["draw"])
    tree = DataTree.from_dict({"posterior": draws, "log_prior": priors})
    some = DataTree.from_dict({"posterior": kept, "log_likelihood": total})
    moved = {"prior": psense(tree), "likelihood": psense(some, group="likelihood")}
    moved |= {
        name: psense(tree, group_var_names=[name])
        for name in priors
        if float(priors[name].std()) > 0  # a flat prior to a power is the same
    }
    table = concat(moved.values(), "by").assign_coords(by=list(moved))
    table = dataset_to_dataframe(table, sample_dims=["by"]).T
    both = table[["prior", "likelihood"]].copy()
    alone = table.drop(columns=both.columns)
    both["strongest"], both["by"] = alone.idxmax(axis=1), alone.max(axis=1)
    both["diagnosis"] = [
        _diagnose(*row) for row in both[["prior", "likelihood"]].values
    ]
    return both


def tabulate(posterior: DataTree, *, seed: int) -> Table:
    """Put what `chi2_map`, `pit` and `sensitivity` find into one table.

    Parameters
    ----------
    posterior : xarray.DataTree
        From `metalgrad.fit`.
    seed : int

    Returns
    -------
    astropy.table.Table
        ``check``, ``of``, ``value``, ``expected``, ``p`` and ``said``.
    """
    found, lines = chi2_map(posterior), pit(posterior, seed=seed)
    far = float((found["p"] < 0.01).mean())
    whole = float(found["chi2"].sum()), float(found["expected"].sum())
    rows = [("chi2", "all spaxels", *whole, np.nan, f"{far:.1%} of spaxels: p < 0.01")]
    for line in lines["line"].values:
        one = lines.sel(line=line)
        p = float(one["p"])
        said = "not as predicted" if p < SENSITIVE else ""
        rows.append(("pit", str(line), float(one["distance"]), np.nan, p, said))
    if "log_prior" in posterior.children:
        for name, row in sensitivity(posterior).iterrows():
            for what in ("prior", "likelihood"):
                said = row["diagnosis"] if what == "prior" else ""
                rows.append((f"{what} power", name, row[what], np.nan, np.nan, said))
    names = ("check", "of", "value", "expected", "p", "said")
    return Table(rows=rows, names=names, meta={"seed": seed})


def _diagnose(prior, likelihood):
    """Say what Kallioinen et al. (2024), table 1, make of the two."""
    if prior < SENSITIVE:
        return "" if likelihood >= SENSITIVE else "the data say little"
    if likelihood < SENSITIVE:
        return "strong prior or weak likelihood"
    return "prior and data may conflict"


def _fluxes(posterior):
    """Fluxes observed, of the model, and replicated."""
    if {"posterior_predictive", "observed_data"} - {*posterior.children}:
        raise ValueError(
            "the tree has no replicated or no observed fluxes; give what metalgrad.fit "
            "returns"
        )
    drawn = posterior["posterior_predictive"].dataset.astype(float)
    observed = posterior["observed_data"].dataset["line_flux"]
    return observed, drawn["model_flux"], drawn["line_flux"]


def _scale(posterior, model, again) -> DataArray:
    """Errors times each line's noise scale, which replicates have; NaN if unmeasured.

    Returns
    -------
    DataArray, (spaxel, line)
    """
    error = posterior["constant_data"].dataset["line_flux_error"]
    error = error.where(np.isfinite(error))
    square = (((again - model) / error) ** 2).mean((*SAMPLE, "spaxel"))
    return error * np.sqrt(square)


def _distance(values) -> DataArray:
    """Kolmogorov and Smirnov's distance from uniform over spaxels, NaN left out."""
    ordered = np.sort(values.transpose(..., "spaxel").values, axis=-1)  # NaN last
    count = np.isfinite(ordered).sum(axis=-1, keepdims=True)
    step = np.arange(ordered.shape[-1]) / np.maximum(count, 1)
    above = step + 1 / np.maximum(count, 1) - ordered
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # a line that is nowhere seen
        found = np.nanmax([above, ordered - step], axis=(0, -1))
    return values.transpose(..., "spaxel").isel(spaxel=0, drop=True).copy(data=found)

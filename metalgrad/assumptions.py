"""What a fit assumes: ratios that its prior allows, and the ratios that it leans on."""

from dataclasses import replace

import jax.numpy as jnp
import numpy as np
from arviz_base import from_dict
from astropy.table import Table
from jax import random
from numpyro.infer import Predictive
from xarray import DataTree

from metalgrad import lines
from metalgrad.inference import NIRSPEC, fit, prepare
from metalgrad.psf import PSF, ImagePSF

PARAMETERS = "slope", "level", "central"
LN10 = float(np.log(10))


def prior_predictive(
    model,
    data,
    *,
    seed: int,
    draws: int = 1000,
    psf: PSF | ImagePSF | None = NIRSPEC,
    slice_angle: float | None = None,
) -> DataTree:
    """Draw galaxies from a model's prior, and compare their line ratios with the data.

    Ratios are those of the fluxes that arrive, after dust and PSF; those of the prior
    are without noise.  A line that is measured faint in single spaxels is well seen in
    their sum, so the numbers are of all spaxels added up.

    Parameters
    ----------
    model : Model
    data : Spaxels, LineMaps or LineLikelihood
        Brightness is centred on them, ratios are not.
    seed : int
    draws : int
    psf, slice_angle
        As in `metalgrad.fit`.

    Returns
    -------
    xarray.DataTree
        In ``prior_predictive`` ``log_ratio``, (chain, draw, ratio), of all spaxels
        added up, and ``one_log_ratio``, of one of them, taken at random; in
        ``observed_data`` ``log_ratio``, (ratio,), and ``spaxel_log_ratio``,
        (spaxel, ratio), NaN where a flux is negative; in ``constant_data`` the
        ``log_ratio_error`` of the former, and of each spaxel the least S/N of a
        ratio's lines, ``signal``.

    Raises
    ------
    ValueError
        If no calibrated ratio has all its lines in the data.
    """
    prepared = prepare(model, data, psf, slice_angle)
    names, flux, error = prepared.lines, *prepared.best_flux()
    ratios = [
        name for name in model.choose(names)[0] if lines.ratio(name).lines <= {*names}
    ]
    if not ratios:
        raise ValueError(
            f"of {', '.join(model.choose(names)[0])} none has all its lines in the "
            f"data ({', '.join(names)}): there is no observed ratio to compare with"
        )
    drawn = Predictive(model, num_samples=draws, return_sites=["line_flux"])
    drawn = np.asarray(drawn(random.key(seed), prepared)["line_flux"], float)
    one = np.random.default_rng(seed).integers(len(flux), size=draws)
    whole = flux.sum(axis=0)
    measured = np.where(np.isfinite(error), error, 0.0)
    relative = np.sqrt(np.sum(measured**2, axis=0)) / whole
    member = np.array([[n in lines.ratio(r).lines for n in names] for r in ratios])
    weakest = np.where(member, (flux / error)[:, None], np.inf).min(axis=-1)
    return from_dict(
        {
            "prior_predictive": {
                "log_ratio": _log_ratios(ratios, names, drawn.sum(axis=1))[None],
                "one_log_ratio": _log_ratios(
                    ratios, names, drawn[np.arange(draws), one]
                )[None],
            },
            "observed_data": {
                "log_ratio": _log_ratios(ratios, names, whole),
                "spaxel_log_ratio": _log_ratios(ratios, names, flux),
            },
            "constant_data": {
                "log_ratio_error": _errors(ratios, names, relative),
                "signal": weakest,
            },
        },
        dims={
            "log_ratio": ["ratio"],
            "one_log_ratio": ["ratio"],
            "log_ratio_error": ["ratio"],
            "spaxel_log_ratio": ["spaxel", "ratio"],
            "signal": ["spaxel", "ratio"],
        },
        coords={"ratio": ratios},
    )


def tabulate_prior(found: DataTree) -> Table:
    """Say in numbers where observed ratios lie among those that the prior allows.

    Parameters
    ----------
    found : xarray.DataTree
        From `prior_predictive`.

    Returns
    -------
    astropy.table.Table
        For each ``ratio`` its ``observed`` logarithm and its ``error`` [dex] of all
        spaxels added up; the prior's 2.5, 50 and 97.5 % quantiles ``low``, ``median``
        and ``high``; and ``p``, the share of the prior that lies farther out in its
        tail, counted twice.
    """
    prior = found["prior_predictive"]["log_ratio"].stack(sample=("chain", "draw"))
    prior = prior.transpose("ratio", "sample").values
    observed = found["observed_data"]["log_ratio"].values
    below = (prior < observed[:, None]).mean(axis=1)
    low, median, high = np.nanquantile(prior, [0.025, 0.5, 0.975], axis=1)
    return Table(
        {
            "ratio": found["observed_data"]["ratio"].values.astype(str),
            "observed": observed,
            "error": found["constant_data"]["log_ratio_error"].values,
            "low": low,
            "median": median,
            "high": high,
            "p": np.where(
                np.isfinite(observed), 2 * np.minimum(below, 1 - below), np.nan
            ),
        }
    )


def leave_one_ratio_out(model, data, *, seed: int, **settings) -> Table:
    """Fit again without each calibrated ratio, to see whether the slope rests on one.

    No other ratio stands in for one that is left out.  Where it links others to
    Balmer lines (R2 does for Ne3O2) they are lost with it: see the column ``ratios``.

    Parameters
    ----------
    model : Model
    data : Spaxels, LineMaps or LineLikelihood
    seed : int
    **settings
        Of `metalgrad.fit`.

    Returns
    -------
    astropy.table.Table
        A row for the fit with all, and for each ratio ``left_out``: the ``ratios`` that
        were used; ``slope``, ``slope_sd``, ``slope_shift``, from the fit with all in
        units of the sd there, and ``slope_pull``, in units of what leaving data out
        shifts a mean by if all is well, ``sqrt(sd_without**2 - sd_all**2)`` (the law
        of total variance; NaN where the sd did not grow); the same for ``level`` and
        ``central``, as far as the field has them.

    Raises
    ------
    ValueError
        If there are not two calibrated ratios or more.
    """
    prepared = prepare(model, data, **_of_likelihood(settings))
    chosen = model.choose(prepared.lines)[0]
    if len(chosen) < 2:
        raise ValueError(
            f"the data form one calibrated ratio, {chosen[0]}, and without it there is "
            "no metallicity; leave ratios out where there are two or more"
        )
    whole = fit(model, data, seed=seed, **settings)
    rows = [{"left_out": "", "ratios": _used(whole)} | _moments(whole)]
    for name in chosen:
        rest = replace(model, ratios=tuple(r for r in chosen if r != name))
        found = fit(rest, data, seed=seed, **settings)
        rows.append({"left_out": name, "ratios": _used(found)} | _moments(found))
    table = Table(rows)
    for name in PARAMETERS:
        if name in table.colnames:
            _add_shifts(table, name)
    return table


def _add_shifts(table, name):
    mean, sd = np.array(table[name]), np.array(table[f"{name}_sd"])
    shift, wider = mean - mean[0], sd**2 - sd[0] ** 2
    at = table.colnames.index(f"{name}_sd") + 1
    pull = np.where(wider > 0, shift / np.sqrt(np.where(wider > 0, wider, 1)), np.nan)
    table.add_columns(
        [shift / sd[0], pull], [at, at], [f"{name}_shift", f"{name}_pull"]
    )


def _of_likelihood(settings):
    return {k: settings[k] for k in ("psf", "slice_angle") if k in settings}


def _used(posterior):
    return ", ".join(np.ravel(posterior.attrs["ratios"]))


def _moments(posterior):
    draws, found = posterior["posterior"].dataset, {}
    for name in PARAMETERS:
        if name in draws:
            found[name] = float(draws[name].mean())
            found[f"{name}_sd"] = float(draws[name].std(ddof=1))
    return found


def _log_ratios(ratios, names, flux):
    """Log10 of ratios, (..., line) to (..., ratio); NaN where a flux is negative."""
    log_flux = jnp.log10(jnp.where(flux > 0, flux, jnp.nan))
    known = {name: log_flux[..., k] for k, name in enumerate(names)}
    found = [lines.ratio(name).log10(known) for name in ratios]
    return np.stack(found, axis=-1).astype(float)


def _errors(ratios, names, relative):
    """Errors of log10 ratios [dex] from relative ones of their lines."""
    powers = [lines.ratio(name).terms[0] for name in ratios]
    squares = [
        sum((p * relative[names.index(line)]) ** 2 for line, p in term.items())
        for term in powers
    ]
    return np.sqrt(squares) / LN10

"""What can be measured of a fit's draws: their number, their agreement, their reach."""

import warnings
from itertools import cycle

import numpy as np
import xarray
from arviz_stats import bfmi, ess, loo, rhat

TAILS = (0.05, 0.95)  # quantiles whose effective draws count, 2021BayAn..16..667V
SAMPLE = ("chain", "draw")  # axes of draws
REFITTED = "refitted"  # group of what fits without a spaxel found


def galaxy_draws(posterior) -> dict[str, np.ndarray]:
    """Collect the draws of the galaxy's parameters, each number under its own name.

    Parameters
    ----------
    posterior : xarray.DataTree

    Returns
    -------
    dict of str to numpy.ndarray, (chain, draw)
        ``slope``, ..., ``noise_scale[NII+Halpha]``; nothing drawn once per spaxel.

    Raises
    ------
    ValueError
        If the tree has no group ``posterior``.
    """
    if "posterior" not in posterior.children:
        raise ValueError(
            f"the tree has the groups {', '.join(posterior.children) or '(none)'} but "
            "no 'posterior'; give what metalgrad.fit returns"
        )
    draws = {}
    for name, variable in posterior["posterior"].data_vars.items():
        if "spaxel" in variable.dims:
            continue
        variable = variable.transpose("chain", "draw", ...)
        for index in np.ndindex(variable.shape[2:]):
            one = variable[(..., *index)]
            labels = [str(one.coords[dim].item()) for dim in variable.dims[2:]]
            draws[f"{name}[{', '.join(labels)}]" if labels else name] = one.values
    return draws


def spaxel_draws(posterior) -> dict[str, np.ndarray]:
    """Collect the draws of what is drawn in each spaxel, (chain, draw, spaxel)."""
    found = posterior["posterior"].data_vars.items()
    return {
        name: variable.transpose("chain", "draw", ...).values
        for name, variable in found
        if "spaxel" in variable.dims
    }


def spaxel_name(posterior, number) -> str:
    """Name a spaxel by its number and, where it has one, its place in the cube."""
    pixel = [stored(posterior, "constant_data", axis) for axis in "yx"]
    if any(where is None for where in pixel):
        return f"spaxel {number}"
    y, x = (where[number] for where in pixel)
    return f"spaxel {number}, y={y} x={x}"


def prior_ratios(posterior, draws) -> dict[str, float]:
    """Divide sd of `galaxy_draws` by the prior's; NaN for what has no prior."""
    attrs = {n: v.attrs for n, v in posterior["posterior"].data_vars.items()}
    known = {n: cycle(np.ravel(a.get("prior_sd", np.nan))) for n, a in attrs.items()}
    prior = {n: next(known[n.partition("[")[0]]) for n in draws}
    return {n: float(np.std(values) / prior[n]) for n, values in draws.items()}


def leave_one_out(posterior):
    """Estimate how well the model foretells each spaxel from all others.

    The log likelihood of `metalgrad.fit` has each spaxel's own latents integrated out;
    importance sampling fails without that.  Neighbours share a PSF, so they help each
    other more than a spaxel of another galaxy would.  What `metalgrad.refit` found
    stands in the place of importance sampling, with a Pareto k of 0.

    Parameters
    ----------
    posterior : xarray.DataTree

    Returns
    -------
    arviz_stats.ELPDData or None
        With pointwise values; None if the tree has no finite log likelihood.
    """
    found = stored(posterior, "log_likelihood", "spaxel_data")
    if found is None or not np.isfinite(found).all():
        return None
    # ArviZ would take those of the whole posterior, of which this may be a part.
    reff = ess(found, method="mean", relative=True, chain_axis=0, draw_axis=1).mean()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # diagnose says it, with names
        # Chains that stand still have no tail, and a few draws are none.
        try:
            settings = {"pointwise": True, "reff": min(reff, 1)}
            found = loo(posterior, var_name="spaxel_data", **settings)
        except (ValueError, IndexError):
            return None
    return _replace(found, posterior)


def join(posterior, found: xarray.Dataset):
    """Add what a fit without some spaxels found to a copy of the fit with them.

    Parameters
    ----------
    posterior : xarray.DataTree
    found : Dataset
        ``elpd``, ..., (spaxel,), with the numbers of the spaxels as coordinates.
    """
    joined = posterior.copy()
    if REFITTED in joined.children:
        found = xarray.concat([joined[REFITTED].dataset, found], "spaxel")
    joined[REFITTED] = xarray.DataTree(found)
    return joined


def _replace(found, posterior):
    """Put exact densities in the place of those that importance sampling estimates."""
    if REFITTED not in posterior.children:
        return found
    exact, before = posterior[REFITTED], found.elpd_i.values.copy()
    numbers = exact["spaxel"].values
    found.elpd_i.values[numbers] = exact["elpd"].values
    found.pareto_k.values[numbers] = 0.0
    lost = before - found.elpd_i.values
    found.p += lost.sum()  # how well a spaxel foretells itself stays
    if getattr(found, "p_loo_i", None) is not None:  # not in ArviZ 1.0
        found.p_loo_i.values += lost
    found.elpd, found.se = _sum_up(found.elpd_i.values)
    found.warning = bool((found.pareto_k.values > found.good_k).any())
    return found


def _sum_up(values):
    return float(values.sum()), float(np.sqrt(values.size * np.var(values)))


def bulk_draws(values) -> np.ndarray:
    """Count effective draws of the bulk of ``values``, (chain, draw, ...)."""
    return ess(values, chain_axis=0, draw_axis=1)


def effective_draws(values) -> tuple[np.ndarray, np.ndarray]:
    """Count effective draws of bulk and tails of ``values``, (chain, draw, ...)."""
    tail = ess(values, method="tail", prob=TAILS, chain_axis=0, draw_axis=1)
    return bulk_draws(values), tail


def r_hat(values) -> np.ndarray:
    """Compare chains, (chain, draw, ...); NaN if there is one or nothing moves."""
    if len(values) < 2:  # ArviZ would log an error
        return np.full(np.shape(values)[2:], np.nan)
    with np.errstate(divide="ignore", invalid="ignore"):
        return rhat(values, chain_axis=0, draw_axis=1)


def energy_fraction(energy) -> np.ndarray:
    """Return E-BFMI of each chain, (chain, draw); NaN where nothing moves."""
    if np.shape(energy)[1] < 2:  # ArviZ would warn of an empty slice
        return np.full(len(energy), np.nan)
    with np.errstate(divide="ignore", invalid="ignore"):
        return bfmi(energy, chain_axis=0, draw_axis=1)


def separation(values) -> tuple[float, np.ndarray]:
    """Measure how far apart two groups of chains lie, (chain, draw).

    The chains are cut where the gap between their means is widest.

    Returns
    -------
    float
        Ashman's D, the distance over the root mean square of the groups' own standard
        deviations: above 2, two modes are apart (1994AJ....108.2348A).  NaN for one
        chain.
    numpy.ndarray of bool, (chain,)
        Which chains are in the upper group.
    """
    means, variances = values.mean(axis=1), values.var(axis=1)
    if len(means) < 2:
        return np.nan, np.zeros(len(means), bool)
    order = np.argsort(means)
    upper = np.zeros(len(means), bool)
    upper[order[np.diff(means[order]).argmax() + 1 :]] = True
    groups = (means[group].mean() for group in (upper, ~upper))
    spreads = (variances[group].mean() for group in (upper, ~upper))
    return _ashman(*groups, *spreads), upper


def distance(one, other) -> float:
    """Measure how far apart two samples lie, by Ashman's D."""
    samples = one, other
    return _ashman(*map(np.mean, samples), *map(np.var, samples))


def _ashman(mean, other_mean, variance, other_variance):
    if mean == other_mean:  # also where both stand on one number
        return 0.0
    with np.errstate(divide="ignore"):
        spread = np.sqrt((variance + other_variance) / 2)
        return float(np.divide(abs(mean - other_mean), spread))


def stored(posterior, group, name):
    """Return a variable, (chain, draw, ...) if drawn; None if the tree lacks it."""
    if group not in posterior.children or name not in posterior[group].data_vars:
        return None
    variable = posterior[group][name]
    return variable.transpose("chain", "draw", ..., missing_dims="ignore").values

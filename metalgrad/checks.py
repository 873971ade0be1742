"""Judge a fit: whether its chains converged, and whether data or priors speak."""

import warnings
from functools import partial
from pathlib import Path

import numpy as np

from metalgrad.convergence import R_HAT, convergence
from metalgrad.criteria import Criterion, sentences, unmet
from metalgrad.measures import (
    effective_draws,
    galaxy_draws,
    leave_one_out,
    prior_ratios,
    r_hat,
    spaxel_draws,
    spaxel_name,
    stored,
)

__all__ = [
    "R_HAT",
    "ConvergenceWarning",
    "diagnose",
    "effective_draws",
    "examine",
    "galaxy_draws",
    "leave_one_out",
    "prior_ratios",
    "r_hat",
    "verdict_attrs",
    "warn",
]

# Of what data and priors leave open; the limits of convergence are in convergence.py.
OUTSIDE = (0.05, 0.5)  # share of draws outside the calibration's range; ours
K = 0.7  # Pareto k that ArviZ allows long chains, arXiv:1507.02646
BAD_K = 0.01  # share of spaxels beyond ArviZ's limit of k that is grave; ours
NOISE = 1.5  # true errors over the data's, either way; ours
PRIOR = 0.9  # posterior over prior standard deviation; ours


class ConvergenceWarning(UserWarning):
    """The result of a fit should not be taken at face value."""


def diagnose(posterior) -> list[str]:
    """Say what is wrong with a fit, in sentences.

    Looked at are the chains, the calibration's range, the noise, leave-one-spaxel-out,
    and what is told by priors alone; what the tree does not hold is passed over.

    Parameters
    ----------
    posterior : xarray.DataTree
        As `metalgrad.fit` returns it.

    Returns
    -------
    list of str
        The worst first; empty if all is well.

    Raises
    ------
    ValueError
        If the tree has no group ``posterior``.
    """
    return sentences(examine(posterior))


def warn(posterior, criteria=None) -> None:
    """Emit what `diagnose` says as `ConvergenceWarning`, one for each sentence.

    Parameters
    ----------
    posterior : xarray.DataTree
        As `metalgrad.fit` returns it.
    criteria : list of Criterion, optional
        From `examine`, where it has been asked before.
    """
    ours = (str(Path(__file__).parent),)  # blame the line that called the package
    for sentence in sentences(criteria or examine(posterior)):
        warnings.warn(sentence, ConvergenceWarning, skip_file_prefixes=ours)


def verdict_attrs(criteria) -> dict:
    """Say in attributes that netCDF keeps whether a fit has converged.

    Parameters
    ----------
    criteria : list of Criterion
        From `examine`.

    Returns
    -------
    dict
        ``converged``, 1 or 0, and ``reasons``, a line for each thing that says 0.
    """
    reasons = unmet(criteria)
    # Neither a bool nor an empty list comes back from a file as it was.
    return {"converged": int(not reasons), "reasons": "\n".join(reasons)}


def examine(posterior) -> list[Criterion]:
    """Measure all that a fit is judged by; what the tree does not hold is passed over.

    Parameters
    ----------
    posterior : xarray.DataTree
        As `metalgrad.fit` returns it.

    Raises
    ------
    ValueError
        If the tree has no group ``posterior``.
    """
    draws, maps = galaxy_draws(posterior), spaxel_draws(posterior)
    broken = [n for n, v in (draws | maps).items() if not np.isfinite(v).all()]
    draws = {n: v for n, v in draws.items() if n not in broken}
    zmap = maps.get("metallicity")
    likelihood = stored(posterior, "log_likelihood", "spaxel_data")
    whole = None if "metallicity" in broken else zmap
    steps = [
        (_range(posterior.attrs, "validity", "of the spaxels' metallicity"), zmap),
        (
            _range(posterior.attrs, "central validity", "at the centre"),
            draws.get("central"),
        ),
        (_noise, draws),
        (partial(_foresight, posterior), likelihood),
        (_priors, prior_ratios(posterior, draws)),
    ]
    rest = [one for check, found in steps if found is not None for one in check(found)]
    return [*_finite(broken), *convergence(posterior, draws, whole), *rest]


def _finite(names):
    said = f"draws of {', '.join(names)} are not finite; look for bad data"
    bounds = {"threshold": 0, "limit": 0, "where": ", ".join(names)}
    return [Criterion("non-finite", len(names), **bounds, sentences=[said])]


def _range(attrs, name, where):
    def check(values):
        if "valid" not in attrs:
            return []
        low, high = attrs["valid"]
        share = np.mean((values < low) | (values > high))
        said = (
            f"{share:.0%} of the draws {where} lie outside {low:g} to {high:g}, where "
            f"{attrs.get('calibration')} is calibrated; choose one that reaches there"
        )
        return [
            Criterion(
                name,
                share,
                OUTSIDE[0],
                where=f"{low:g} to {high:g}",
                sentences=[said],
                serious=bool(share > OUTSIDE[1]),
            )
        ]

    return check


def _noise(draws):
    scales = {
        n[12:-1]: np.median(v)  # as noise_scale[NII+Halpha]
        for n, v in draws.items()
        if n.startswith("noise_scale")
    }
    if not scales:
        return []
    factors = {n: max(scale, 1 / scale) for n, scale in scales.items()}
    worst = max(factors, key=factors.get)
    said = (
        "errors of complex {} are {}estimated by a factor of {:.2g}; the fit rescaled "
        "them, but look for outliers and for lines that the model lacks"
    ).format
    found = [
        said(name, "under" if scales[name] > 1 else "over", factor)
        for name, factor in factors.items()
        if factor > NOISE
    ]
    return [Criterion("noise", factors[worst], NOISE, where=worst, sentences=found)]


def _foresight(posterior, _):
    result = leave_one_out(posterior)
    if result is None:
        said = (
            "leave-one-out cannot be done: draws are too few, or the log likelihood "
            "of some spaxels is not finite or never changes"
        )
        return [Criterion("Pareto k", np.nan, K, sentences=[said])]
    k = result.pareto_k.values
    bad = ~(k <= result.good_k)
    said = (
        f"Pareto k exceeds {result.good_k:.2f} in {bad.sum()} of {bad.size} spaxels "
        f"(worst: {k.max():.2f} in {k.argmax()}): leave-one-out fails; look at them, "
        "or call metalgrad.refit"
    )
    return [
        Criterion(
            "Pareto k",
            k.max(),
            result.good_k,
            where=spaxel_name(posterior, k.argmax()),
            sentences=[said],
            serious=bool(bad.mean() > BAD_K),
        )
    ]


def _priors(ratios):
    ratios = {name: ratio for name, ratio in ratios.items() if np.isfinite(ratio)}
    if not ratios:
        return []
    idle = {name: ratio for name, ratio in ratios.items() if ratio > PRIOR}
    worst = max(ratios, key=ratios.get)
    where = ", ".join(idle) or worst
    value = ratios[worst]
    found = []
    if "reddening" in idle:
        found.append(
            f"the dust is the prior's, {idle.pop('reddening'):.2f} times as wide: no "
            "Balmer pair constrains it, and ratios of distant lines lean on it"
        )
    if idle:
        found.append(
            f"the data say next to nothing about {', '.join(idle)}: at least {PRIOR} "
            "times as wide as the prior, so quote no measurement of it"
        )
    return [Criterion("prior-dominated", value, PRIOR, where=where, sentences=found)]

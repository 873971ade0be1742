"""Judge a fit: whether its chains converged, and whether data or priors speak."""

import warnings
from contextlib import suppress
from functools import partial
from pathlib import Path

import numpy as np
from arviz_stats import bfmi, ess, loo, rhat

# Beyond the first a fit deserves a warning; beyond the second it is grave.
R_HAT = (1.01, 1.05)  # 2021BayAn..16..667V; the second was the custom before it
ESS = (100, 50)  # effective draws per chain, ibid.; the second is ours
E_BFMI = (0.3, 0.2)  # arXiv:1604.00695; CmdStan's limit, and RStan's
DIVERGENT = (0.0, 0.005)  # share of draws; the second is ours
SATURATED = (0.0, 0.05)  # share of draws; the second is ours
BAD_K = (0.0, 0.01)  # share of spaxels; the second is ours
SPAXELS = (0.05, 1.0)  # share of a map that may fall short; ours
OUTSIDE = (0.05, 0.5)  # share of draws outside the calibration's range; ours
NOISE = 1.5  # true errors over the data's, either way; ours
PRIOR = 0.9  # posterior over prior standard deviation; ours
ANY = (0, np.inf)

LONGEST_TREE = 2**10 - 1  # steps of NumPyro's deepest tree
TAILS = (0.05, 0.95)  # quantiles whose effective draws count, 2021BayAn..16..667V


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
    draws = galaxy_draws(posterior)
    zmap = _values(posterior, "posterior", "metallicity")
    maps = {} if zmap is None else {"metallicity": zmap}
    broken = [n for n, v in (draws | maps).items() if not np.isfinite(v).all()]
    draws = {n: v for n, v in draws.items() if n not in broken}
    steps = [
        (_check_finite, broken),
        (_check_agreement, draws or None),
        (_check_divergences, _values(posterior, "sample_stats", "diverging")),
        (_check_energy, _values(posterior, "sample_stats", "energy")),
        (_check_length, draws or None),
        (_check_map, None if "metallicity" in broken else zmap),
        (_check_trees, _values(posterior, "sample_stats", "tree_steps")),
        (partial(_check_range, posterior.attrs, "of the spaxels' metallicity"), zmap),
        (partial(_check_range, posterior.attrs, "at the centre"), draws.get("central")),
        (_check_noise, draws),
        (_check_leave_one_out, leave_one_out(posterior)),
        (_check_priors, prior_ratios(posterior, draws)),
    ]
    findings = [f for check, v in steps if v is not None for f in check(v)]
    findings.sort(key=lambda finding: not finding[0])  # stable: grave ones first
    return [sentence for _, sentence in findings]


def warn(posterior) -> None:
    """Emit what `diagnose` says as `ConvergenceWarning`, one for each sentence.

    Parameters
    ----------
    posterior : xarray.DataTree
        As `metalgrad.fit` returns it.
    """
    ours = (str(Path(__file__).parent),)  # blame the line that called the package
    for sentence in diagnose(posterior):
        warnings.warn(sentence, ConvergenceWarning, skip_file_prefixes=ours)


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


def prior_ratios(posterior, draws) -> dict[str, float]:
    """Divide sd of `galaxy_draws` by the prior's; NaN for what has no prior."""
    attrs = {n: v.attrs for n, v in posterior["posterior"].data_vars.items()}
    prior = {n: attrs[n.partition("[")[0]].get("prior_sd", np.nan) for n in draws}
    return {n: float(np.std(values) / prior[n]) for n, values in draws.items()}


def leave_one_out(posterior):
    """Estimate how well the model foretells each spaxel from all others.

    The log likelihood of `metalgrad.fit` has each spaxel's own latents integrated out;
    importance sampling fails without that.  Neighbours share a PSF, so they help each
    other more than a spaxel of another galaxy would.

    Parameters
    ----------
    posterior : xarray.DataTree

    Returns
    -------
    arviz_stats.ELPDData or None
        With pointwise values; None if the tree has no finite log likelihood.
    """
    values = _values(posterior, "log_likelihood", "spaxel_data")
    if values is None or not np.isfinite(values).all():
        return None
    # ArviZ would take those of the whole posterior, of which this may be a part.
    reff = ess(values, method="mean", relative=True, chain_axis=0, draw_axis=1).mean()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # diagnose says it, with names
        with suppress(ValueError):  # chains that stand still have no tail
            settings = {"pointwise": True, "reff": min(reff, 1)}
            return loo(posterior, var_name="spaxel_data", **settings)


def effective_draws(values) -> tuple[np.ndarray, np.ndarray]:
    """Count effective draws of bulk and tails of ``values``, (chain, draw, ...)."""
    axes = {"chain_axis": 0, "draw_axis": 1}
    return ess(values, **axes), ess(values, method="tail", prob=TAILS, **axes)


def r_hat(values) -> np.ndarray:
    """Compare chains, (chain, draw, ...); NaN if there is one or nothing moves."""
    if len(values) < 2:  # ArviZ would log an error
        return np.full(np.shape(values)[2:], np.nan)
    with np.errstate(divide="ignore", invalid="ignore"):
        return rhat(values, chain_axis=0, draw_axis=1)


def _values(posterior, group, name):
    """Return a variable as (chain, draw, ...), or None if the tree lacks it."""
    if group not in posterior.children or name not in posterior[group].data_vars:
        return None
    return posterior[group][name].transpose("chain", "draw", ...).values


def _judge(value, limits, sentence):
    """Return a finding, grave or not, if ``value`` exceeds the first limit."""
    return [(bool(value > limits[1]), sentence)] if value > limits[0] else []


def _check_finite(names):
    sentence = f"draws of {', '.join(names)} are not finite; look for bad data"
    return [(True, sentence)] if names else []


def _check_agreement(draws):
    names, values = list(draws), np.stack([*draws.values()], axis=-1)
    if len(values) == 1:
        return [(False, "one chain cannot show what it has missed; run 4 or more")]
    found = np.nan_to_num(r_hat(values), nan=1.0, posinf=np.inf)
    sentence = (
        f"the chains disagree: R-hat of {names[found.argmax()]} is {found.max():.4g} "
        f"(want at most {R_HAT[0]}; {np.sum(found > R_HAT[0])} of {len(names)} exceed "
        "it); run longer, and then suspect the calibration's two branches"
    )
    return _judge(found.max(), R_HAT, sentence)


def _check_divergences(diverging):
    sentence = (
        f"{diverging.sum()} of {diverging.size} draws ({diverging.mean():.2%}) "
        "diverged: a part of the posterior may be missing; raise target_accept to 0.95"
    )
    return _judge(diverging.mean(), DIVERGENT, sentence)


def _check_energy(energy):
    if not energy.std(axis=1).all():
        return []
    found = bfmi(energy, chain_axis=0, draw_axis=1)
    sentence = (
        f"E-BFMI is {found.min():.2f} (want at least {E_BFMI[0]}; "
        f"{np.sum(found < E_BFMI[0])} of {found.size} chains fall short): tails are "
        "hardly reached; run longer, or give scatters tighter priors"
    )
    return _judge(-found.min(), -np.array(E_BFMI), sentence)


def _check_length(draws):
    names, values = list(draws), np.stack([*draws.values()], axis=-1)
    both, limits = np.stack(effective_draws(values)), np.array(ESS) * len(values)
    fewest, worst = both.min(axis=0), both.min(axis=0).argmin()
    sentence = (
        f"the draws are too few: the {('bulk', 'tail')[both[:, worst].argmin()]} of "
        f"{names[worst]} has {fewest[worst]:.0f} effective ones (want {limits[0]}; "
        f"{np.sum(fewest < limits[0])} of {len(names)} fall short); run longer"
    )
    return _judge(-fewest[worst], -limits, sentence)


def _check_map(values):
    draws, wanted = ess(values, chain_axis=0, draw_axis=1), ESS[0] * len(values)
    bad = (draws < wanted) | (r_hat(values) > R_HAT[0])
    sentence = (
        f"the metallicity map has not converged: in {bad.sum()} of {bad.size} spaxels "
        f"R-hat exceeds {R_HAT[0]} or effective draws are under {wanted}; run longer"
    )
    return _judge(bad.mean(), SPAXELS, sentence)


def _check_trees(steps):
    longest = steps >= LONGEST_TREE
    sentence = (
        f"{longest.sum()} of {longest.size} draws ({longest.mean():.2%}) took the "
        f"longest path, {LONGEST_TREE} steps; fit again with a longer warm-up"
    )
    return _judge(longest.mean(), SATURATED, sentence)


def _check_range(attrs, where, values):
    low, high = attrs.get("valid", (-np.inf, np.inf))
    share = np.mean((values < low) | (values > high))
    sentence = (
        f"{share:.0%} of the draws {where} lie outside {low:g} to {high:g}, where "
        f"{attrs.get('calibration')} is calibrated; choose one that reaches there"
    )
    return _judge(share, OUTSIDE, sentence)


def _check_noise(draws):
    scales = {n: np.median(v) for n, v in draws.items() if n.startswith("noise_scale")}
    sentence = (
        "errors of complex {} are {}estimated by a factor of {:.2g}; the fit rescaled "
        "them, but look for outliers and for lines that the model lacks"
    ).format
    return [
        (False, sentence(name[12:-1], "under" if scale > 1 else "over", factor))
        for name, scale in scales.items()  # as noise_scale[NII+Halpha]
        if (factor := max(scale, 1 / scale)) > NOISE
    ]


def _check_leave_one_out(result):
    k = result.pareto_k.values
    bad = k > result.good_k
    sentence = (
        f"Pareto k exceeds {result.good_k:.2f} in {bad.sum()} of {bad.size} spaxels "
        f"(worst: {k.max():.2f} in {k.argmax()}): leave-one-out fails; look at them"
    )
    return _judge(bad.mean(), BAD_K, sentence)


def _check_priors(ratios):
    idle = {name: ratio for name, ratio in ratios.items() if ratio > PRIOR}
    dust = idle.pop("reddening", 0.0)
    of_dust = (
        f"the dust is the prior's, {dust:.2f} times as wide: no Balmer pair constrains "
        "it, and ratios of distant lines lean on it"
    )
    of_others = (
        f"the data say next to nothing about {', '.join(idle)}: at least {PRIOR} times "
        "as wide as the prior, so quote no measurement of it"
    )
    return _judge(dust, ANY, of_dust) + _judge(len(idle), ANY, of_others)

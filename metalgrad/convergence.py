"""The criteria of convergence: chains, branches, and how many draws they are worth."""

from functools import partial

import numpy as np

from metalgrad.criteria import Criterion
from metalgrad.measures import (
    bulk_draws,
    effective_draws,
    energy_fraction,
    r_hat,
    separation,
    spaxel_name,
    stored,
)
from metalgrad.solutions import solutions

# Beyond the first a fit deserves a warning; beyond the second it has not converged.
R_HAT = (1.01, 1.05)  # 2021BayAn..16..667V; the second was the custom before it
ESS = (100, 50)  # effective draws per chain, ibid.; the second is ours
E_BFMI = (0.3, 0.2)  # arXiv:1604.00695; CmdStan's limit, and RStan's
DIVERGENT = (0.0, 0.005)  # share of draws; the second is ours
SATURATED = (0.0, 0.05)  # share of draws; the second is ours
OTHER = 0.05  # weight of solutions but the heaviest; ours
WEIGHT = (0.05, 0.2)  # error of the weight of a solution; ours
JUDGED = 50  # draws of a branch in each chain, by which to judge it; ours
APART = 2.0  # Ashman's D between groups of chains, 1994AJ....108.2348A
SPAXELS = 0.05  # share of a map that may fall short; ours
ESS_SPAXEL = 25  # effective draws per chain in the worst spaxel; ours

LONGEST_TREE = 2**10 - 1  # steps of NumPyro's deepest tree


def convergence(posterior, draws, metallicity=None) -> list[Criterion]:
    """Judge the chains of a fit; what the tree does not hold is passed over.

    Parameters
    ----------
    posterior : xarray.DataTree
        As `metalgrad.fit` returns it.
    draws : dict of str to array, (chain, draw)
        Of the galaxy's parameters; finite.
    metallicity : array, (chain, draw, spaxel), optional
        Draws of 12 + log(O/H); finite.
    """
    branches = solutions(posterior)
    parts = _by_branch(draws, branches)
    energy = stored(posterior, "sample_stats", "energy")
    if branches and energy is not None:
        energy = energy[:, branches[0].chosen]
    steps = [
        (_agreement, parts),
        (partial(_branches, branches), _levels(draws)),
        (_divergences, stored(posterior, "sample_stats", "diverging")),
        (_energy, energy),
        (_length, parts if draws else None),
        (partial(_map, posterior), metallicity),
        (_trees, stored(posterior, "sample_stats", "tree_steps")),
    ]
    return [one for check, found in steps if found is not None for one in check(found)]


def _by_branch(draws, branches):
    """Take the draws of each branch apart, where it has enough of them to be judged."""
    chosen = [one.chosen for one in branches if one.chosen.sum() >= JUDGED]
    if not chosen:
        return [draws]
    return [{name: v[:, mask] for name, v in draws.items()} for mask in chosen]


def _agreement(parts):
    draws = parts[0]
    if not draws:
        said = "no parameter of the galaxy has finite draws, by which to judge the fit"
        return [Criterion("R-hat", np.nan, *R_HAT, "no draws", sentences=[said])]
    each = [np.stack([*part.values()], axis=-1) for part in parts]
    names, values = list(draws), each[0]
    if len(values) == 1:
        said = "one chain cannot show what it has missed; run 4 or more"
        return [Criterion("R-hat", np.nan, *R_HAT, "one chain", sentences=[said])]
    found = np.max([r_hat(values) for values in each], axis=0)
    fixed = np.ptp(values, axis=(0, 1)) == 0
    if not fixed.all():  # a fixed number is fine, but not a chain that never moved
        found = np.where(fixed, 1.0, found)
    worst = found.argmax()  # a NaN, if there is one
    said = (
        f"the chains disagree: R-hat of {names[worst]} is {found[worst]:.4g} "
        f"(want at most {R_HAT[0]}; {np.sum(~(found <= R_HAT[0]))} of {len(names)} "
        "exceed it); run longer, and then suspect the calibration's two branches"
    )
    return [Criterion("R-hat", found[worst], *R_HAT, names[worst], sentences=[said])]


def _levels(draws):
    """Choose what tells branches apart: each source's metallicity at the pivot."""
    for stems in (("level", "source_level"), ("central",)):
        found = {n: v for n, v in draws.items() if n.partition("[")[0] in stems}
        if found:
            return found
    return None


def _branches(branches, levels):
    """Judge whether all chains lie on one branch of the calibration.

    Where branches were weighed, whether that says which is right.
    """
    if branches:
        return _weights(branches, levels)
    found = {name: separation(level) for name, level in levels.items()}
    name = max(found, key=lambda one: found[one][0])
    distance, upper = found[name]
    if np.isnan(distance):
        return [Criterion("branches", np.nan, APART, APART, "one chain")]
    high, low = np.flatnonzero(upper), np.flatnonzero(~upper)
    where = (
        f"{levels[name][high].mean():.2f} in {_chains(high)}, "
        f"{levels[name][low].mean():.2f} in {_chains(low)}"
    )
    said = (
        f"the chains found two solutions, {name} {where}, {distance:.3g} standard "
        "deviations apart; how many chains are on each is no measure of its weight: "
        "add a line that tells them apart, such as [NII] or [OII]"
    )
    where = where if distance > APART else name
    return [Criterion("branches", distance, APART, APART, where, sentences=[said])]


def _weights(branches, levels):
    name, level = next(iter(levels.items()))
    each = [
        f"{np.median(level[:, one.chosen]):.2f} (weight {one.weight:.2f} "
        f"± {max(one.error, 0.01):.2f})"
        for one in branches
    ]
    said = (
        f"the data allow {len(branches)} solutions, {name} {' or '.join(each)}: quote "
        "each with its weight, not their mean, or add a line that tells them apart, "
        "such as [NII] or [OII]"
    )
    other, error = 1 - branches[0].weight, max(one.error for one in branches)
    wide = f"the weights of the solutions are uncertain by {error:.2f}; run longer"
    where = f"{len(branches)} solutions"
    return [
        Criterion("other branch", other, OTHER, where=where, sentences=[said]),
        Criterion("branch weight", error, *WEIGHT, where=where, sentences=[wide]),
    ]


def _chains(numbers):
    return f"chain{'s' * (len(numbers) > 1)} {', '.join(map(str, numbers))}"


def _divergences(diverging):
    count, share = diverging.sum(), diverging.mean()
    said = (
        f"{count} of {diverging.size} draws ({share:.2%}) diverged: a part of the "
        "posterior may be missing; raise target_accept to 0.95"
    )
    where = f"{count} of {diverging.size} draws"
    return [Criterion("divergences", share, *DIVERGENT, where, sentences=[said])]


def _energy(energy):
    found = energy_fraction(energy)
    worst = found.argmin()  # a NaN, if there is one
    said = (
        f"E-BFMI is {found[worst]:.2f} (want at least {E_BFMI[0]}; "
        f"{np.sum(~(found >= E_BFMI[0]))} of {found.size} chains fall short): tails "
        "are hardly reached; run longer, or give scatters tighter priors"
    )
    if np.isnan(found[worst]):
        said = f"the energy of chain {worst} stands still or is not finite: fit again"
    bounds = {"where": f"chain {worst}", "at_least": True}
    return [Criterion("E-BFMI", found[worst], *E_BFMI, **bounds, sentences=[said])]


def _length(parts):
    names, chains = list(parts[0]), len(next(iter(parts[0].values())))
    limits = np.array(ESS) * chains
    each = [np.stack([*part.values()], axis=-1) for part in parts]
    both = sum(np.stack(effective_draws(values)) for values in each)
    worst, fewest = both.argmin(axis=1), both.min(axis=0)
    poorer = both[[0, 1], worst].argmin()
    said = (
        f"the draws are too few: the {('bulk', 'tail')[poorer]} of "
        f"{names[worst[poorer]]} has {both[poorer, worst[poorer]]:.0f} effective ones "
        f"(want {limits[0]}; {np.sum(~(fewest >= limits[0]))} of {len(names)} fall "
        "short); run longer"
    )
    return [
        Criterion(
            f"{('bulk', 'tail')[kind]} ESS",
            both[kind, at],
            *limits,
            where=names[at],
            at_least=True,
            sentences=[said] if kind == poorer else [],
        )
        for kind, at in enumerate(worst)
    ]


def _map(posterior, values):
    draws, wanted = bulk_draws(values), ESS[0] * len(values)
    bad = ~((draws >= wanted) & ~(r_hat(values) > R_HAT[0]))
    least, worst = ESS_SPAXEL * len(values), draws.argmin()
    name = spaxel_name(posterior, worst)
    said = (
        f"the metallicity map has not converged: in {bad.sum()} of {bad.size} spaxels "
        f"R-hat exceeds {R_HAT[0]} or effective draws are under {wanted} (fewest: "
        f"{draws[worst]:.0f} in {name}); run longer"
    )
    few = not draws[worst] >= least
    where = f"{bad.sum()} of {bad.size} spaxels"
    return [
        Criterion(
            "map",
            bad.mean(),
            SPAXELS,
            where=where,
            sentences=[] if few else [said],
        ),
        Criterion(
            "map ESS",
            draws[worst],
            least,
            least,
            name,
            at_least=True,
            sentences=[said],
        ),
    ]


def _trees(steps):
    longest = steps >= LONGEST_TREE
    where = f"{longest.sum()} of {longest.size} draws"
    said = (
        f"{where} ({longest.mean():.2%}) took the longest path, {LONGEST_TREE} steps; "
        "fit again with a longer warm-up"
    )
    share = longest.mean()
    return [Criterion("tree depth", share, *SATURATED, where, sentences=[said])]

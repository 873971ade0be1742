"""Draws of several branches, put together into the chains of one fit."""

import numpy as np
from jaxtyping import Bool, Float

SOME = 0.1  # of a chain that must have stayed on its branch; ours


def stay(outcome: dict, at_home: Bool[np.ndarray, "chain kept"]) -> dict:
    """Let every chain be on its own branch, whose draws stand for those beyond.

    A chain that has gone over for good is left out for the one that has stayed most.

    Parameters
    ----------
    outcome : dict
        As `metalgrad.chains.Run.chains` has it.
    at_home : array of bool, (chain, kept)
        Whether a kept draw, and those up to the next, are of the branch.
    """
    most, count = at_home.sum(axis=1).argmax(), at_home.shape[1]
    origin, chosen = [], []
    for chain, home in enumerate(at_home):
        source = chain if home.sum() >= SOME * count else most
        places = np.flatnonzero(at_home[source])
        origin.append(source)
        chosen.append(places[np.linspace(0, len(places) - 1, count).astype(int)])

    def take(every, values):
        draw = np.arange(values.shape[1])
        rows = np.array(chosen)[:, draw // every] * every + draw % every
        return values[np.array(origin)[:, None], np.minimum(rows, draw[-1])]

    return _each(take, outcome)


def alternate(outcomes: list[dict]) -> dict:
    """Take as many chains as one branch has, from each branch in turn."""
    if len(outcomes) == 1:
        return outcomes[0]

    def take(_, *values):
        chains = np.arange(len(values[0]))
        return np.stack(values)[chains % len(values), chains]

    return _each(take, *outcomes)


def mix(outcomes: list[dict], marginals, weights, stride: int) -> tuple:
    """Take draws of branches in proportion to their weights.

    Each chain goes from branch to branch a block of draws at a time, all chains in the
    same order: the draws of one branch are as many in each.  A block has one draw at
    which spaxels are integrated out.

    Parameters
    ----------
    outcomes : list of dict
        Of each branch.
    marginals : list of array, (chain, draw, spaxel)
    weights : array, (branch,)
    stride : int
        Kept draws from one at which spaxels are integrated out to the next.

    Returns
    -------
    outcome : dict
    marginal : array, (chain, draw, spaxel)
    branch : array of int, (draw,)
        Where each draw is from.
    """
    order = _deal(weights, marginals[0].shape[1])

    def take(every, *values):
        draw = np.arange(values[0].shape[1])
        return np.stack(values)[order[draw // every], :, draw].swapaxes(0, 1)

    def take_kept(every, *values):
        return take(every * stride, *values)

    draws = np.arange(outcomes[0]["statistics"]["lp"].shape[1])
    branch = order[draws // (outcomes[0]["every"] * stride)]
    return _each(take_kept, *outcomes), take(1, *marginals), branch


def _each(take, *outcomes):
    """Do the same to each variable, told how many of its draws go with one kept."""
    every = outcomes[0]["every"]
    steps = {group: 1 if group == "kept" else every for group in outcomes[0]}
    mixed = {
        group: {
            name: take(steps[group], *(one[group][name] for one in outcomes))
            for name in members
        }
        for group, members in outcomes[0].items()
        if group != "every"
    }
    return mixed | {"every": every}


def _deal(weights: Float[np.ndarray, " branch"], count: int) -> np.ndarray:
    """Deal ``count`` places to branches, evenly in each part of the whole."""
    due, order = np.zeros(len(weights)), np.zeros(count, int)
    for place in range(count):
        due += weights
        order[place] = np.argmax(due)
        due[order[place]] -= 1
    return order

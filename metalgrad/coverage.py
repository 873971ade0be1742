"""Are ranks uniform, and do intervals cover?  What repeated fits say of an inference.

If galaxies are drawn from the prior and data from the model, the rank of the truth
among independent draws of the posterior is uniform (Talts et al. 2018,
arXiv:1804.06788), and a central interval of probability p holds the truth in a share p
of all replicas.
"""

from typing import NamedTuple

import numpy as np
from arviz_stats.ecdf_utils import ecdf_pit
from astropy.table import Table
from jaxtyping import Float, Int
from scipy.stats import goodness_of_fit, uniform

LEVELS = (0.5, 0.68, 0.9, 0.95)  # of central intervals
BAND = 0.95  # of sets of ranks that are uniform, within the band everywhere
SIMULATED = 2000  # sets of uniform ranks, for the band and for p-values


class Excess(NamedTuple):
    """By how much an ECDF is above the uniform one, and where it should lie.

    Attributes
    ----------
    place, excess, lower, upper : array, (place,)
    """

    place: Float[np.ndarray, " place"]
    excess: Float[np.ndarray, " place"]
    lower: Float[np.ndarray, " place"]
    upper: Float[np.ndarray, " place"]

    @property
    def inside(self) -> bool:
        """Whether it lies within the band everywhere."""
        within = (self.excess >= self.lower) & (self.excess <= self.upper)
        return bool(within.all())


def rank(draws: Float[np.ndarray, "chain draw"], truth: float, count: int) -> int:
    """Rank a truth among some draws of a posterior.

    Draws that follow each other are alike, and would make ranks pile up at both ends;
    so ``count`` draws are taken that lie evenly far apart in the chains.

    Parameters
    ----------
    draws : array, (chain, draw)
    truth : float
    count : int
        Of draws to take; the rank is from 0 to this.
    """
    flat = np.ravel(draws)
    step = (flat.size - 1) / max(count - 1, 1)
    return int(np.sum(flat[np.round(step * np.arange(count)).astype(int)] < truth))


def place_evenly(
    ranks: Int[np.ndarray, " replica"], count: int, seed: int
) -> Float[np.ndarray, " replica"]:
    """Spread each rank over the interval that it stands for, from 0 to 1.

    What comes back is uniform, and not only on a grid, if ranks are.

    Parameters
    ----------
    ranks : array of int, (replica,)
        From 0 to ``count``.
    count : int
    seed : int
        Of where in its interval a rank falls.
    """
    spread = np.random.default_rng(seed).random(len(ranks))
    return (np.asarray(ranks) + spread) / (count + 1)


def exceed(places: Float[np.ndarray, " replica"], seed: int) -> Excess:
    """Compare places of truths with uniform ones, all along.

    The simultaneous band is that of Säilynoja, Bürkner & Vehtari (2022,
    arXiv:2103.10522), by ArviZ.

    Parameters
    ----------
    places : array, (replica,)
        From `place_evenly`, two at least.
    seed : int
        Of the simulations that set the band.
    """
    rng = np.random.default_rng(seed)
    where, share, lower, upper = ecdf_pit(
        np.asarray(places), ci_prob=BAND, n_simulations=SIMULATED, rng=rng
    )
    return Excess(where, share - where, lower - where, upper - where)


def uniformity(places: Float[np.ndarray, " replica"], seed: int) -> float:
    """Return the p-value of Anderson and Darling's test that places are uniform.

    By simulation, so it is no smaller than 1 / 2001.  It looks at the tails, where a
    posterior that is too narrow or too wide shows first, harder than Kolmogorov and
    Smirnov's.
    """
    found = goodness_of_fit(
        uniform,
        np.asarray(places),
        known_params={"loc": 0, "scale": 1},
        statistic="ad",
        n_mc_samples=SIMULATED,
        rng=np.random.default_rng(seed),
    )
    return float(found.pvalue)


def cover(places: Float[np.ndarray, " replica"], level: float) -> float:
    """Return the share of truths within the central interval of a probability."""
    return float(np.mean(np.abs(np.asarray(places) - 0.5) <= level / 2))


def tabulate(places: dict[str, Float[np.ndarray, " replica"]], seed: int) -> Table:
    """Make the table of coverage, one row per parameter.

    Parameters
    ----------
    places : dict of str to array, (replica,)
        From `place_evenly`.
    seed : int

    Returns
    -------
    Table
        ``parameter``; ``replicas``; ``cover_50`` and so on, and beside each in
        ``error_50`` the standard deviation that its share would have were the
        probability right; ``p_uniform`` from `uniformity`; ``in_band`` from `exceed`.
    """
    rows = []
    for name, values in places.items():
        row = {"parameter": name, "replicas": len(values)}
        for level in LEVELS:
            row[f"cover_{100 * level:.0f}"] = cover(values, level)
            error = np.sqrt(level * (1 - level) / len(values))
            row[f"error_{100 * level:.0f}"] = float(error)
        row["p_uniform"] = uniformity(values, seed)
        row["in_band"] = exceed(values, seed).inside
        rows.append(row)
    table = Table(rows=rows)
    for name in table.colnames:
        if name.startswith(("cover", "error", "p_")):
            table[name].info.format = ".3f"
    return table

"""How much of a posterior lies about one of its modes, by bridge sampling.

The integral of a density that can be drawn from, but is known only up to it, follows
from a second density whose integral is known, here a Gaussian of the draws' mean and
covariance: Meng & Wong (1996, Statistica Sinica 6, 831), as Gronau et al. (2017,
J. Math. Psych. 81, 80) do it.  The proposal is made of half of the draws, and the
bridge is built on the other half.
"""

from itertools import product

import numpy as np
from jaxtyping import Bool, Float
from scipy.special import logsumexp
from scipy.stats import multivariate_normal

from metalgrad.measures import bulk_draws

ROUNDS = 200  # of the iteration, which converges in some ten
CLOSE = 1e-10


class Folded:
    """A Gaussian of draws, folded where the sign of a parameter is free.

    Parameters
    ----------
    draws : array, (draw, parameter)
    signed : array of bool, (parameter,)
        Whose density is the same for either sign.
    """

    def __init__(
        self,
        draws: Float[np.ndarray, "draw parameter"],
        signed: Bool[np.ndarray, " parameter"],
    ):
        self.signed, folded = signed, self.fold(draws, signed)
        covariance = np.cov(folded.T) + 1e-12 * np.eye(folded.shape[1])
        self.law = multivariate_normal(folded.mean(axis=0), covariance)
        choices = [(1.0, -1.0) if free else (1.0,) for free in signed]
        self.signs = np.array([*product(*choices)])

    @staticmethod
    def fold(draws, signed) -> np.ndarray:
        """Take the size of what has a free sign."""
        return np.where(signed, np.abs(draws), draws)

    def draw(self, count: int, rng) -> np.ndarray:
        """Draw points, (count, parameter)."""
        points = self.law.rvs(count, random_state=rng)
        return self.fold(points.reshape(count, -1), self.signed)

    def log_density(self, points) -> np.ndarray:
        """Log density of points of either sign, as of unfolded ones, (point,)."""
        # SciPy would give a bare number for a single point.
        each = [np.atleast_1d(self.law.logpdf(s * points)) for s in self.signs]
        return logsumexp(each, axis=0) - np.log(len(self.signs))


def log_integral(
    at_draws: Float[np.ndarray, "chain draw"], at_proposals: Float[np.ndarray, " point"]
) -> tuple[float, float]:
    """Log of a density's integral, and the error of that.

    Parameters
    ----------
    at_draws : array, (chain, draw)
        Log of the density over the proposal's, at its own draws.
    at_proposals : array, (point,)
        The same at draws of the proposal.

    Returns
    -------
    log_integral, error : float
        The error is of the draws alone (Frühwirth-Schnatter 2004, Econometrics J. 7,
        143): of a density that the draws have not seen it knows nothing.
    """
    middle = np.median(at_draws)
    one, two = at_draws - middle, at_proposals - middle
    worth = min(float(bulk_draws(one[..., None])[0]), one.size)
    share = worth / (worth + two.size)
    r = 0.0  # log of the integral
    for _ in range(ROUNDS):
        above = logsumexp(two - np.logaddexp(np.log(share) + two, _rest(share, r)))
        below = logsumexp(-np.logaddexp(np.log(share) + one, _rest(share, r)))
        fresh = above - np.log(two.size) - below + np.log(one.size)
        done, r = abs(fresh - r) < CLOSE, fresh
        if done:
            break
    first = np.exp(-np.logaddexp(np.log(share) + one - r, np.log(1 - share)))
    second = np.exp(two - r - np.logaddexp(np.log(share) + two - r, np.log(1 - share)))
    variance = first.var() / first.mean() ** 2 / worth
    variance += second.var() / second.mean() ** 2 / two.size
    return float(r + middle), float(np.sqrt(variance))


def _rest(share, r):
    return np.log(1 - share) + r

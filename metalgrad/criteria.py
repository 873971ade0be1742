"""Criterion: one thing that a fit is judged by, and what follows from many."""

from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Real

import numpy as np


@dataclass(frozen=True)
class Criterion:
    """One thing that was looked at: what was found, where, and what it should be.

    A NaN, which stands for what cannot be had, meets no bound.

    Parameters
    ----------
    name : str
    value : float
    threshold : float
        Bound within which all is well.
    limit : float
        Bound beyond which the fit has not converged; NaN where that is not at stake.
    where : str
        Parameter, spaxel or chain of the value.
    at_least : bool
        Whether the value should be large rather than small.
    sentences : sequence of str
        What to tell the user where the threshold is not met.
    serious : bool
        Whether to tell it first though convergence is not at stake.
    """

    name: str
    value: Real
    threshold: Real
    limit: Real = np.nan
    where: str = ""
    at_least: bool = False
    sentences: Sequence[str] = ()
    serious: bool = False

    @property
    def passed(self) -> bool:
        """Whether the value is within its threshold."""
        return self._within(self.threshold)

    @property
    def fails(self) -> bool:
        """Whether the value says that the fit has not converged."""
        return not (np.isnan(self.limit) or self._within(self.limit))

    @property
    def reason(self) -> str:
        """Why the fit has not converged, in few words."""
        place = f" ({self.where})" if self.where else ""
        if np.isnan(self.value):
            return f"{self.name} cannot be had{place}"
        side = "under" if self.at_least else "over"
        return f"{self.name} {self.value:.4g}, {side} {self.limit:.4g}{place}"

    def _within(self, bound):
        good = self.value >= bound if self.at_least else self.value <= bound
        return bool(good)


def unmet(criteria) -> list[str]:
    """Say why a fit has not converged: an empty list if it has.

    Chains and branches decide, at the limits beyond which a finding is grave.  What
    data and priors leave open does not: the posterior of poor data may be sampled
    perfectly.  Nor does leave-one-out, whose failure says nothing about the draws.

    Parameters
    ----------
    criteria : iterable of Criterion
    """
    return [one.reason for one in criteria if one.fails]


def sentences(criteria) -> list[str]:
    """Tell what does not meet its threshold, the worst first."""
    missed = [one for one in criteria if not one.passed]
    missed.sort(key=lambda one: not (one.fails or one.serious))  # stable
    return [sentence for one in missed for sentence in one.sentences]

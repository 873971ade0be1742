"""Maps from the real line, where a sampler moves, to where priors live."""

import jax.scipy.special
import jax.scipy.stats
import numpy as np
from numpyro.distributions import Uniform, biject_to
from numpyro.distributions.constraints import real, unit_interval
from numpyro.distributions.transforms import Transform


def unconstrain(distribution):
    """Choose the map from the real line to the support of a prior."""
    if (
        isinstance(distribution, Uniform)
        and np.all(distribution.low == 0)
        and np.all(distribution.high == 1)
    ):
        return Probit()
    return biject_to(distribution.support)


class Probit(Transform):
    """The normal distribution function: a flat prior has no long tails under it."""

    domain, codomain = real, unit_interval

    def __call__(self, x):
        """Map the real line to (0, 1)."""
        return jax.scipy.stats.norm.cdf(x)

    def _inverse(self, y):
        return jax.scipy.special.ndtri(y)

    def log_abs_det_jacobian(self, x, y, intermediates=None):
        """Log of the normal density."""
        return jax.scipy.stats.norm.logpdf(x)

    def tree_flatten(self):
        """Nothing to flatten."""
        return (), ((), {})

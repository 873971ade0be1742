"""Maps from the real line, where a sampler moves, to where priors live."""

import jax.scipy.special
import jax.scipy.stats
import numpy as np
from numpyro.distributions import Delta, HalfNormal, Uniform, biject_to
from numpyro.distributions.constraints import real, unit_interval
from numpyro.distributions.transforms import (
    AffineTransform,
    ComposeTransform,
    SoftplusTransform,
    Transform,
)

NEAR = 1 / 6  # of a half-normal prior's scale: what is less can hardly be told from 0


def unconstrain(distribution):
    """Choose the map from the real line to the support of a prior.

    What may well be 0 has a long tail in its logarithm; its softplus is straight above
    what can be told from 0, and soon ends below.
    """
    if isinstance(distribution, HalfNormal):
        size = NEAR * distribution.scale
        stretch, shrink = AffineTransform(0.0, size), AffineTransform(0.0, 1 / size)
        return ComposeTransform([shrink, SoftplusTransform(), stretch])
    if (
        isinstance(distribution, Uniform)
        and np.all(distribution.low == 0)
        and np.all(distribution.high == 1)
    ):
        return Probit()
    return biject_to(distribution.support)


def refuse_fixed(name: str, distribution) -> None:
    """Refuse a site that is fixed at a number.

    Raises
    ------
    ValueError
        If it is one.
    """
    if isinstance(getattr(distribution, "base_dist", distribution), Delta):
        raise ValueError(
            f"{name} is fixed at a number, which this model cannot do; give it a "
            "narrow prior, as { Normal = [1.0, 0.01] }"
        )


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

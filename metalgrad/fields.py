"""Metallicity fields: 12+log(O/H) as a random function of position in the galaxy."""

from abc import ABC, abstractmethod
from dataclasses import dataclass

import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from jaxtyping import Array, Float
from numpyro.distributions import Distribution

from metalgrad.geometry import radius
from metalgrad.priors import load_kind

__all__ = ["Flat", "LinearGradient"]


class MetallicityField(ABC):
    """The metallicity of the gas at every spaxel, drawn for all spaxels at once.

    Implementing a field:

    - subclass this as a frozen dataclass whose attributes are priors, each with a
      default, and name the class in ``__all__``: model cards and tests find it there;
    - ``sample`` draws the mean field inside a NumPyro model; scatter about it, of the
      width whose prior is the attribute ``scatter``, is the model's business;
    - record ``central``, the metallicity at the centre, as a deterministic site.
    """

    scatter: Distribution

    @abstractmethod
    def sample(
        self,
        position: Float[Array | np.ndarray, "cell 2"],
        pivot: Float[Array | np.ndarray, ""],
    ) -> Float[Array, "#cell"]:
        """Draw the mean of 12+log(O/H) at ``position``.

        Parameters
        ----------
        position : array, (cell, 2)
            In the plane of the disc, from the centre [kpc].
        pivot : float
            Radius at which level and slope decorrelate in the data at hand [kpc].
        """


def sample_amplitude(name: str, prior: Distribution):
    """Draw the width of a symmetric scatter, with a free sign where that is exact.

    An amplitude times standard normals has the same law as its negative.  Sampling both
    signs of a half-normal amplitude turns the edge at 0, where a sampler of its
    logarithm gets lost, into a place like any other.
    """
    if not isinstance(prior, dist.HalfNormal):
        return numpyro.sample(name, prior)
    signed = numpyro.sample(f"{name}_signed", dist.Normal(0.0, prior.scale))
    numpyro.deterministic(name, jnp.abs(signed))
    return signed


@dataclass(frozen=True, eq=False)
class Flat(MetallicityField):
    """One level and Gaussian scatter, whatever the radius.

    Attributes
    ----------
    level : Distribution
        Prior of 12+log(O/H).
    scatter : Distribution
        Prior of the scatter between spaxels [dex].
    """

    level: Distribution = dist.Normal(8.0, 0.5)
    scatter: Distribution = dist.HalfNormal(0.15)

    def sample(
        self,
        position: Float[Array | np.ndarray, "cell 2"],
        pivot: Float[Array | np.ndarray, ""],
    ) -> Float[Array, "#cell"]:
        """Draw the mean of 12+log(O/H) at ``position``."""
        del pivot
        level = numpyro.sample("level", self.level)
        numpyro.deterministic("central", level)
        return jnp.broadcast_to(level, len(position))


@dataclass(frozen=True, eq=False)
class LinearGradient(MetallicityField):
    """Z(r) = level + slope · (r - pivot), with Gaussian scatter.

    Attributes
    ----------
    level : Distribution
        Prior of 12+log(O/H) at the pivot radius.
    slope : Distribution
        Prior of the gradient [dex/kpc].
    scatter : Distribution
        Prior of the scatter between spaxels [dex].
    """

    level: Distribution = dist.Normal(8.0, 0.5)
    slope: Distribution = dist.Normal(0.0, 0.2)
    scatter: Distribution = dist.HalfNormal(0.15)

    def sample(
        self,
        position: Float[Array | np.ndarray, "cell 2"],
        pivot: Float[Array | np.ndarray, ""],
    ) -> Float[Array, "#cell"]:
        """Draw the mean of 12+log(O/H) at ``position``."""
        level = numpyro.sample("level", self.level)
        slope = numpyro.sample("slope", self.slope)
        numpyro.deterministic("central", level - slope * pivot)
        return level + slope * (radius(position) - pivot)


def load_field(source: str, card) -> MetallicityField:
    """Read the field of a model card, as `load_kind` does."""
    return load_kind(source, "field", card, {name: globals()[name] for name in __all__})

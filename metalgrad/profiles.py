"""What every metallicity field has, and the fields of radius alone."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from jaxtyping import Array, Float
from numpyro.distributions import Distribution

from metalgrad.geometry import radius
from metalgrad.priors import draw

# Share of a break's radius over which one slope becomes the other; ours.  At a sharp
# kink the gradient of the posterior in the break's radius would jump whenever a cell
# comes to lie on its other side: leapfrog steps across a jump err by their length and
# not by its square, and the curvature that chains start from would not exist.  A tenth
# is finer than what a PSF leaves to be seen.
SOFTNESS = 0.1


class MetallicityField(ABC):
    """The metallicity of the gas at every spaxel, drawn for all spaxels at once.

    Implementing a field:

    - subclass this as a frozen dataclass whose attributes are priors, each with a
      default (what must be known, such as where something lies, has none), and name the
      class in ``__all__`` of `metalgrad.fields`: cards and tests find it there;
    - ``sample`` draws the mean field inside a NumPyro model; scatter about it, of the
      width whose prior is the attribute ``scatter``, is the model's business;
    - a site that is not a standard name has that of the attribute, its prior;
    - record ``central``, the metallicity at the centre, as a deterministic site.
    """

    scatter: Distribution
    radial: ClassVar[bool] = True  # whether the radius is all that matters

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

    def check(self, position: Float[Array | np.ndarray, "spaxel 2"]) -> None:
        """Refuse positions that are radii, if the field is more than a profile.

        Raises
        ------
        ValueError
            If all spaxels lie on the major axis, as those of a table of radii do.
        """
        if not self.radial and not np.any(np.asarray(position)[:, 1]):
            raise ValueError(
                f"a field {type(self).__name__} needs positions in two dimensions, but "
                "the data have radii only (all spaxels lie on the major axis); give a "
                "table x and y, or ra and dec and a target, and no radius, or take a "
                "field of radius alone, such as LinearGradient"
            )


def sample_amplitude(name: str, prior: Distribution):
    """Draw the width of a symmetric scatter, with a free sign where that is exact.

    An amplitude times standard normals has the same law as its negative.  Sampling both
    signs of a half-normal amplitude turns the edge at 0, where a sampler of its
    logarithm gets lost, into a place like any other.
    """
    if not isinstance(prior, dist.HalfNormal):
        return draw(name, prior)
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
        level = draw("level", self.level)
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
        level, slope = draw("level", self.level), draw("slope", self.slope)
        numpyro.deterministic("central", level - slope * pivot)
        return level + slope * (radius(position) - pivot)


@dataclass(frozen=True, eq=False)
class Broken(MetallicityField):
    """Two slopes, one inside and one outside a radius that the data tell.

    The profile is continuous, and bends within a tenth of that radius.  Where the data
    end before the break, or begin after it, one of the slopes is that of its prior.

    Attributes
    ----------
    level : Distribution
        Prior of 12+log(O/H) at the pivot radius.
    inner_slope, outer_slope : Distribution
        Prior of the gradient inside and outside the break [dex/kpc].
    break_radius : Distribution
        Prior of the radius of the break, above 0 [kpc]; it should end where the data
        do.
    scatter : Distribution
        Prior of the scatter between spaxels [dex].
    """

    level: Distribution = dist.Normal(8.0, 0.5)
    inner_slope: Distribution = dist.Normal(0.0, 0.2)
    outer_slope: Distribution = dist.Normal(0.0, 0.2)
    break_radius: Distribution = dist.LogNormal(0.3, 0.5)
    scatter: Distribution = dist.HalfNormal(0.15)

    def sample(
        self,
        position: Float[Array | np.ndarray, "cell 2"],
        pivot: Float[Array | np.ndarray, ""],
    ) -> Float[Array, "#cell"]:
        """Draw the mean of 12+log(O/H) at ``position``."""
        names = ("inner_slope", "outer_slope", "break_radius")
        level = draw("level", self.level)
        shape = [draw(name, getattr(self, name)) for name in names]
        central = numpyro.deterministic("central", level - rise(pivot, *shape))
        return central + rise(radius(position), *shape)


def rise(radius, inner_slope, outer_slope, break_radius):
    """Metallicity of a broken profile over that at the centre [dex].

    Parameters
    ----------
    radius : array
        All arguments broadcast.
    inner_slope, outer_slope : array
    break_radius : array
        Above 0.

    Returns
    -------
    array
    """
    width = SOFTNESS * break_radius
    beyond = width * jax.nn.softplus((radius - break_radius) / width)
    beyond -= width * jax.nn.softplus(-1 / SOFTNESS)  # at the centre
    return inner_slope * radius + (outer_slope - inner_slope) * beyond

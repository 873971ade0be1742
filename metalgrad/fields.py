"""Metallicity fields: 12+log(O/H) as a random function of position in the galaxy."""

from dataclasses import dataclass
from typing import ClassVar

import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from jaxtyping import Array, Float
from numpyro.distributions import Distribution

from metalgrad.geometry import radius
from metalgrad.priors import draw, load_kind
from metalgrad.profiles import Broken, Flat, LinearGradient, MetallicityField
from metalgrad.profiles import sample_amplitude as sample_amplitude

__all__ = ["Azimuthal", "Broken", "Clump", "Flat", "LinearGradient", "Sources"]


@dataclass(frozen=True, eq=False)
class Azimuthal(MetallicityField):
    """A gradient, and a tilt: Z = level + slope · (r - pivot) + dipole · position.

    The tilt is drawn by its two components: an angle would have to wrap, and would
    mean nothing where the amplitude is 0.  Recorded with them are its amplitude
    ``dipole_amplitude`` [dex/kpc] and the direction ``dipole_angle`` in which
    metallicity rises, in the plane of the disc from the major axis [deg].

    Attributes
    ----------
    level : Distribution
        Prior of 12+log(O/H) at the pivot radius, in the mean over angles.
    slope : Distribution
        Prior of the gradient in the mean over angles [dex/kpc].
    dipole : Distribution
        Prior of either component of the tilt, along the major axis and across it
        [dex/kpc].
    scatter : Distribution
        Prior of the scatter between spaxels [dex].
    """

    level: Distribution = dist.Normal(8.0, 0.5)
    slope: Distribution = dist.Normal(0.0, 0.2)
    dipole: Distribution = dist.Normal(0.0, 0.1)
    scatter: Distribution = dist.HalfNormal(0.15)
    radial: ClassVar[bool] = False

    def sample(
        self,
        position: Float[Array | np.ndarray, "cell 2"],
        pivot: Float[Array | np.ndarray, ""],
    ) -> Float[Array, "#cell"]:
        """Draw the mean of 12+log(O/H) at ``position``."""
        mean = LinearGradient(self.level, self.slope).sample(position, pivot)
        with numpyro.plate("axis", 2):
            dipole = numpyro.sample("dipole", self.dipole)
        angle = jnp.rad2deg(jnp.arctan2(dipole[1], dipole[0]))
        numpyro.deterministic("dipole_amplitude", radius(dipole))
        numpyro.deterministic("dipole_angle", angle)
        return mean + position @ dipole


@dataclass(frozen=True, eq=False)
class Clump(MetallicityField):
    """A gradient, and a clump at a known place whose gas is of another metallicity.

    A component in place of a mask: the clump's spaxels still tell of dust and noise,
    and what the PSF spreads of its light is accounted for.  ``central``, ``level`` and
    ``slope`` are those of the galaxy without it.

    Attributes
    ----------
    place : tuple of float
        Of the clump in the plane of the disc, from the centre, along the major axis
        and across it (`metalgrad.geometry.deproject`) [kpc].  With an axis ratio of 1
        and a position angle of 0: to the north, and to the east.
    size : float
        Radius at which what the clump adds has fallen to half, as a Gaussian does
        [kpc].
    kpc_per_arcsec : float
        Of ``place`` and ``size``, if they are in arcsec; 1 if they are in the unit of
        the data's positions.
    contrast : Distribution
        Prior of the metallicity at the clump's middle over that of the gradient there
        [dex].
    level, slope, scatter : Distribution
        As in `LinearGradient`.
    """

    place: tuple[float, ...]
    size: float
    kpc_per_arcsec: float = 1.0
    contrast: Distribution = dist.Normal(0.0, 0.3)
    level: Distribution = dist.Normal(8.0, 0.5)
    slope: Distribution = dist.Normal(0.0, 0.2)
    scatter: Distribution = dist.HalfNormal(0.15)
    radial: ClassVar[bool] = False

    def __post_init__(self):
        """Check the numbers."""
        _check_place("the clump", self.place)
        if not (self.size > 0 and self.kpc_per_arcsec > 0):
            raise ValueError(
                f"the clump has the size {self.size} and {self.kpc_per_arcsec} kpc per "
                "arcsec; both must be above 0"
            )

    def sample(
        self,
        position: Float[Array | np.ndarray, "cell 2"],
        pivot: Float[Array | np.ndarray, ""],
    ) -> Float[Array, "#cell"]:
        """Draw the mean of 12+log(O/H) at ``position``."""
        mean = LinearGradient(self.level, self.slope).sample(position, pivot)
        offset = position / self.kpc_per_arcsec - jnp.array(self.place)
        share = jnp.exp2(-jnp.sum((offset / self.size) ** 2, axis=-1))
        return mean + draw("contrast", self.contrast) * share


@dataclass(frozen=True, eq=False)
class Sources(MetallicityField):
    """Several sources, each with a level of its own, and one slope about each.

    A cell belongs to the source that it is nearest to.  That border is sharp, but it is
    fixed: the posterior is smooth in all that is drawn.  ``central`` is the metallicity
    at the galaxy's centre.

    Attributes
    ----------
    places : dict of str to tuple of float
        Of each source by name, as `Clump` has its place.
    kpc_per_arcsec : float
        Of ``places``, if they are in arcsec; 1 if they are in the unit of the data's
        positions.
    source_level : Distribution
        Prior of 12+log(O/H) at the middle of each source.
    source_slope : Distribution
        Prior of the gradient about its source, the same for all [dex/kpc].
    scatter : Distribution
        Prior of the scatter between spaxels [dex].
    """

    places: dict[str, tuple[float, ...]]
    kpc_per_arcsec: float = 1.0
    source_level: Distribution = dist.Normal(8.0, 0.5)
    source_slope: Distribution = dist.Normal(0.0, 0.2)
    scatter: Distribution = dist.HalfNormal(0.15)
    radial: ClassVar[bool] = False

    def __post_init__(self):
        """Check the numbers."""
        if not self.places or self.kpc_per_arcsec <= 0:
            raise ValueError(
                f"the field has {len(self.places)} sources and {self.kpc_per_arcsec} "
                "kpc per arcsec; give places of at least one, and a scale above 0"
            )
        for name, place in self.places.items():
            _check_place(f"source {name}", place)

    def sample(
        self,
        position: Float[Array | np.ndarray, "cell 2"],
        pivot: Float[Array | np.ndarray, ""],
    ) -> Float[Array, "#cell"]:
        """Draw the mean of 12+log(O/H) at ``position``."""
        del pivot  # a radius from the galaxy's centre, which is nobody's here
        with numpyro.plate("source", len(self.places)):
            levels = numpyro.sample("source_level", self.source_level)
        slope = draw("source_slope", self.source_slope)
        centres = jnp.array([*self.places.values()]) * self.kpc_per_arcsec

        def mean(position):
            distance = radius(position[:, None] - centres)
            nearest = jnp.argmin(distance, axis=1)
            return levels[nearest] + slope * jnp.min(distance, axis=1)

        numpyro.deterministic("central", mean(jnp.zeros((1, 2)))[0])
        return mean(position)


def _check_place(what, place):
    if np.shape(place) != (2,) or not np.isfinite(place).all():
        raise ValueError(
            f"{what} has the place {place}; give two numbers, along the major axis and "
            "across it"
        )


def load_field(source: str, card) -> MetallicityField:
    """Read the field of a model card, as `load_kind` does."""
    return load_kind(source, "field", card, {name: globals()[name] for name in __all__})

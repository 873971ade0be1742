"""How what varies within a galaxy varies from place to place."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from math import prod
from typing import ClassVar

import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from jaxtyping import Array, Float
from numpyro.distributions import Distribution

from metalgrad.priors import draw, load_kind

__all__ = ["Independent", "Smooth"]

# Widths at which a PSF is tabulated; between them a polynomial is good to 3e-3 of the
# flux of a point source (5e-3 for images).
SCALES = (0.75, 0.87, 1.0, 1.15, 1.33)


class Texture(ABC):
    """Departures from a galaxy's mean, of unit variance, over the places of light."""

    @property
    def psf_scales(self) -> tuple[float, ...]:
        """Widths of the PSF, over that given, that its scene is laid out with."""
        return (1.0,)

    @abstractmethod
    def sample(self, data):
        """Draw what the texture itself has to draw; return a `Canvas`."""


class Canvas(ABC):
    """Where light is emitted, and how to draw on it.

    Attributes
    ----------
    position : array, (cell, 2)
        In the plane of the disc, from the centre.
    smooth : bool
        Whether neighbours depart alike.
    """

    position: Float[Array, "cell 2"]
    smooth: ClassVar[bool] = False

    def __len__(self) -> int:
        """Return the number of cells."""
        return len(self.position)

    @abstractmethod
    def draw(
        self,
        name: str,
        *width: int,
        length=None,
        amplitude=1.0,
        mean=None,
        bent=False,
        coarse=False,
    ) -> Float[Array, " cell *width"]:
        """Draw departures of unit variance, ``width`` at each cell.

        Over a ``length`` of their own, where one is given and neighbours share any.  By
        what ``amplitude`` the model multiplies them, and about what ``mean`` of a cell,
        helps a sampler to find its way; what is about nothing is what others' means
        depend on, and of what is ``bent`` the softplus is seen.  Of what is ``coarse``
        structure nearly as fine as the PSF is left out, where neighbours share any.
        """

    @abstractmethod
    def see(self, flux: Float[Array, "cell line"]) -> Float[Array, "spaxel line"]:
        """Return what the data's spaxels see of emitted lines."""

    @abstractmethod
    def at_spaxels(self, values: Float[Array, " cell *width"]):
        """Return what lies at the data's spaxels, (spaxel, *width)."""


@dataclass(frozen=True, eq=False)
class Independent(Texture):
    """Every spaxel for itself: regions farther apart than structure is long."""

    def sample(self, data):
        """Nothing to draw."""
        return Spaxelwise(data.position)


@dataclass(frozen=True, eq=False)
class Spaxelwise(Canvas):
    """Cells are spaxels, and each has latents of its own."""

    position: Float[Array | np.ndarray, "cell 2"]

    def draw(
        self,
        name: str,
        *width: int,
        length=None,
        amplitude=1.0,
        mean=None,
        bent=False,
        coarse=False,
    ) -> Float[Array, " cell *width"]:
        """Draw standard normals for each spaxel; zeros where there is only one.

        What a single spectrum departs by from its galaxy's typical value cannot be told
        from that value: drawing both would make a ridge for a sampler to fall off.
        """
        del length, coarse
        if len(self) == 1:
            return jnp.zeros((1, *width))
        shape = len(self), prod(width)
        if bent:
            numpyro.deterministic(f"{name}_bent", jnp.ones(shape))
        for kind, told in (("amplitude", amplitude), ("mean", mean)):
            if told is not None:
                numpyro.deterministic(f"{name}_{kind}", jnp.broadcast_to(told, shape))
        with numpyro.plate("spaxel", len(self)):
            normals = dist.Normal().expand(width).to_event(len(width))
            return numpyro.sample(name, normals)

    def see(self, flux):
        """Without a PSF light is seen where it is emitted."""
        return flux

    def at_spaxels(self, values):
        """Cells are spaxels."""
        return values


@dataclass(frozen=True, eq=False)
class Smooth(Texture):
    """Departures that neighbours share, with a length that the data tell.

    Spaxels are smaller than the PSF and than a galaxy's structure.  Were each to depart
    for itself, departures would average out as if every spaxel were news, and smaller
    spaxels would make smaller errors of the same data.

    Attributes
    ----------
    length : Distribution
        Prior of the length of the Matérn-3/2 correlation [kpc].  Of short structure
        only what is coarser than the PSF is drawn, of long what fits into the data.
    psf_scale : Distribution
        Prior of the PSF's width over the one that a fit is given.  A single number by
        default, 1: to let it free doubles the cost of the blur.
    """

    length: Distribution = dist.LogNormal(-0.4, 0.5)
    psf_scale: Distribution = dist.Delta(1.0)

    @property
    def psf_scales(self):
        """Those about which the prior lets it be."""
        is_fixed = isinstance(self.psf_scale, dist.Delta) and self.psf_scale.v == 1
        return super().psf_scales if is_fixed else SCALES

    def sample(self, data):
        """Draw the length; every spaxel for itself where the data have no scene."""
        if data.scene is None:
            return Spaxelwise(data.position)
        length, scale = numpyro.sample("length", self.length), 1.0
        if len(data.scene.scales) > 1:
            scale = draw("psf_scale", self.psf_scale)
        return Waves(data.scene, length, scale)


@dataclass(frozen=True, eq=False)
class Waves(Canvas):
    """Cells of a `Scene`, and sums of its waves."""

    scene: object
    length: Float[Array, ""]
    psf_scale: Float[Array, ""] | float = 1.0
    smooth: ClassVar[bool] = True

    @property
    def position(self):
        """Of the scene's cells."""
        return self.scene.position

    def draw(
        self,
        name: str,
        *width: int,
        length=None,
        amplitude=1.0,
        mean=None,
        bent=False,
        coarse=False,
    ) -> Float[Array, " cell *width"]:
        """Draw fields of unit variance; those about nothing go ahead of all others."""
        del bent
        scene = self.scene.coarse if coarse else self.scene
        shape, total = scene.frequency.shape, prod(width)
        length = self.length if length is None else length
        root = scene.root_density(length)
        reach = jnp.broadcast_to(amplitude, (total,)) * root.reshape(-1, 1)
        numpyro.deterministic(f"{name}_amplitude", reach)
        if mean is None:
            numpyro.deterministic(f"{name}_ahead", jnp.ones(total))
        with numpyro.plate("wave", shape[0] * shape[1]):
            weights = numpyro.sample(name, dist.Normal().expand([total]).to_event(1))
        field = scene.field(weights.reshape(*shape, total), root)
        return field.reshape(len(field), *width)

    def see(self, flux):
        """Blur what is emitted."""
        return self.scene.see(flux, self.psf_scale)

    def at_spaxels(self, values):
        """Interpolate between cells."""
        return self.scene.at_spaxels(values)


def load_texture(source: str, card) -> Texture:
    """Read the texture of a model card, as `load_kind` does."""
    kinds = {name: globals()[name] for name in __all__}
    return load_kind(source, "texture", card, kinds)

"""A canvas for mocks: the light is given, and departures are drawn exactly."""

from dataclasses import dataclass, replace
from typing import ClassVar

import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from scipy.spatial.distance import cdist

from metalgrad import lines
from metalgrad.blur import blur_for
from metalgrad.likelihood import LineLikelihood
from metalgrad.textures import Canvas, Texture


@dataclass(frozen=True, eq=False)
class Painted(Texture, Canvas):
    """A canvas on which the light is given, and every spaxel of a map is a cell.

    Attributes
    ----------
    light : array, (cell,)
        Log10 brightness in [O III].
    root : array, (cell, cell)
        Square root of the correlation of departures.
    optics : tuple
        The PSF, or None, the shape of the map, and the side of a spaxel [arcsec].
    redshift : float
    """

    light: np.ndarray
    root: np.ndarray
    optics: tuple
    redshift: float
    data: LineLikelihood | None = None
    smooth: ClassVar[bool] = True

    def sample(self, data):
        """Take the place of data."""
        return replace(self, data=data)

    @property
    def position(self):
        """Of the cells."""
        return self.data.position

    def draw(self, name, *width, **about):
        """Draw departures with the one length of this canvas."""
        del about
        with numpyro.plate("cell", len(self.root)):
            normals = dist.Normal().expand(width).to_event(len(width))
            return jnp.tensordot(self.root, numpyro.sample(name, normals), axes=1)

    def see(self, flux):
        """Set the light, and blur it."""
        names = self.data.lines
        flux *= (10**self.light / flux[:, names.index("OIII")])[:, None]
        psf, shape, pixel = self.optics
        if psf is None:
            return flux
        observed = lines.wavelengths(names) * (1 + self.redshift)
        maps = blur_for(psf, observed, pixel, shape)(flux.T.reshape(-1, *shape))
        return maps.reshape(len(names), -1).T

    def at_spaxels(self, values):
        """Cells are spaxels."""
        return values


def correlate(position, length):
    """Square root of a Matérn-3/2 correlation, (cell, cell)."""
    if length == 0:
        return np.eye(len(position))
    distance = np.sqrt(3) * cdist(position, position) / length
    correlation = (1 + distance) * np.exp(-distance)
    return np.linalg.cholesky(correlation + 1e-6 * np.eye(len(position)))

"""The spectrograph's line-spread function and line profiles integrated over bins.

NumPy arrays in, NumPy arrays out, in double precision; JAX arrays in, JAX arrays out.
"""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import jax.scipy.special
import numpy as np
import scipy.special

from metalgrad import cards

FWHM_PER_SIGMA = float(2 * np.sqrt(2 * np.log(2)))
SPEED_OF_LIGHT = 299_792.458  # km/s


@dataclass(frozen=True, eq=False)
class LSF:
    """A Gaussian line-spread function with a tabulated resolving power.

    Attributes
    ----------
    wavelength : numpy.ndarray, (node,)
        Observed wavelength [µm].
    resolution : numpy.ndarray, (node,)
        R = λ / FWHM.
    """

    wavelength: np.ndarray
    resolution: np.ndarray

    def sigma(self, wavelength, scale=1.0):
        """Return the standard deviation [µm] at ``wavelength`` [µm].

        Parameters
        ----------
        wavelength : array_like
        scale : float
            Width relative to the table.  The prism's table is for a uniformly lit
            slit; point sources are sharper by 1.2 to 1.9.
        """
        xp = jnp if isinstance(wavelength, jax.Array) else np
        resolution = xp.interp(wavelength, self.wavelength, self.resolution)
        return scale * wavelength / (FWHM_PER_SIGMA * resolution)


def prism() -> LSF:
    """Return the LSF of NIRSpec PRISM/CLEAR (JDox dispersion curve, pre-launch)."""
    table = cards.table("nirspec/prism_resolution.ecsv")
    return LSF(np.array(table["wavelength"]), np.array(table["resolution"]))


def constant(resolution: float) -> LSF:
    """Return an LSF of the same R = λ / FWHM at every wavelength."""
    return LSF(np.array([0.1, 30.0]), np.array([resolution, resolution], float))


def cumulative(x, centre, sigma):
    """Gaussian distribution function at ``x`` (all broadcast)."""
    if any(isinstance(value, jax.Array) for value in (x, centre, sigma)):
        erf, root = jax.scipy.special.erf, jnp.sqrt(2.0)
    else:
        erf, root = scipy.special.erf, np.sqrt(2.0)
    return 0.5 * (1 + erf((x - centre) / (root * sigma)))


def profile(edges, centre, sigma):
    """Gaussian of unit area, averaged over each wavelength bin [1/µm].

    Integrating over the bin keeps the flux of lines that are narrower than it.

    Parameters
    ----------
    edges : array, (pixel + 1,)
        Bin edges [µm].
    centre, sigma : array, (...,)
        Of the line [µm].

    Returns
    -------
    array, (..., pixel)
    """
    below = cumulative(edges, centre[..., None], sigma[..., None])
    return (below[..., 1:] - below[..., :-1]) / (edges[1:] - edges[:-1])

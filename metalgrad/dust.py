"""Dust attenuation of emission lines."""

import jax.numpy as jnp
import numpy as np

R_V = 4.05  # Calzetti et al. (2000, ApJ 533, 682), eq. 5


def calzetti(wavelength):
    """Attenuation curve k(λ) = A(λ) / E(B-V) of Calzetti et al. (2000), eq. 4.

    Parameters
    ----------
    wavelength : array_like
        Rest-frame wavelength [µm], between 0.12 and 2.2.

    Returns
    -------
    numpy.ndarray
        k(λ), of the shape of ``wavelength``.

    Raises
    ------
    ValueError
        If a wavelength is outside the curve's range.
    """
    x = np.asarray(wavelength, float)
    if np.any((x < 0.12) | (x > 2.2)):
        raise ValueError(
            "the Calzetti curve holds from 0.12 to 2.2 µm in the rest frame; "
            f"got {x.min():g} to {x.max():g} µm: are the wavelengths observed ones?"
        )
    blue = -2.156 + 1.509 / x - 0.198 / x**2 + 0.011 / x**3
    red = -1.857 + 1.040 / x
    return 2.659 * np.where(x < 0.63, blue, red) + R_V


def bend(median):
    """Mean, and steepness, of what E(B-V) of a galaxy's places is the softplus of.

    ``E(B-V) = softplus(mean + steepness * departure)``, where departures are small, has
    the logarithm ``log(median) + departure``.  Beyond 1 mag E(B-V) departs itself: were
    it the logarithm everywhere, patchy galaxies would hold places of tens of
    magnitudes, which nobody sees.

    Parameters
    ----------
    median : array
        E(B-V), positive [mag].

    Returns
    -------
    mean, steepness : array
    """
    below = -jnp.expm1(-median)
    return median + jnp.log(below), median / below

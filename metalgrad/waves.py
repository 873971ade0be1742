"""Sines whose sums are what varies smoothly over a galaxy: where they are, how fine."""

import numpy as np
from jaxtyping import Bool, Float
from scipy.ndimage import maximum_filter, uniform_filter

# All ours.  Where waves end at 0.2", a steep gradient under clumpy light comes out too
# flat: of a mock with +0.27 dex/kpc 0.06 +- 0.07 was left, with 0.15" 0.16, with 0.12"
# 0.20 +- 0.05 and with 0.1" (and cells half as large) 0.22.
FINEST = 0.12  # arcsec, half the shortest wave
COARSE = 0.2  # arcsec, the same of what data tell less of
MOST = 24  # waves a side
WIDER = 1.25  # box of the waves over what is lit: they vanish at its edge
LIT = 60  # S/N squared of 3 x 3 spaxels but the brightest; of ten lines' noise 8 +- 6
DIM = 0.2  # arcsec around what is lit, in which spaxels tell of light together


def is_lit(signal: Float[np.ndarray, "y x"]) -> Bool[np.ndarray, "y x"]:
    """Tell which spaxels have light: all, if none has.

    Parameters
    ----------
    signal : array, (y, x)
        S/N squared of each spaxel; 0 where there is none.
    """
    patch = 9 * uniform_filter(signal, 3, mode="constant")
    patch -= maximum_filter(signal, 3, mode="constant")  # alone, it is no light
    lit = (patch > LIT) & (signal > 0)
    return lit if lit.any() else np.ones_like(lit)


def find_lit(signal: Float[np.ndarray, "y x"], pixel_scale) -> list[np.ndarray]:
    """Return the first and last row, and column, where there is light.

    Sky around a galaxy would take waves that the galaxy needs.

    Parameters
    ----------
    signal : array, (y, x)
        S/N squared of each spaxel.
    pixel_scale : float
        Side of a spaxel [arcsec].
    """
    lit, dim = is_lit(signal), round(DIM / pixel_scale)
    ends = [np.flatnonzero(lit.any(axis=other))[[0, -1]] for other in (1, 0)]
    return [
        np.clip(np.add(pair, (-dim, dim)), 0, size - 1)
        for pair, size in zip(ends, signal.shape, strict=True)
    ]


def make_waves(places, ends, pixel_scale, kpc_per_arcsec) -> tuple:
    """Return sines that vanish at the ends of a box somewhat wider than what is lit.

    Parameters
    ----------
    places : array, (cell,)
        Rows, or columns, of cells [spaxel].
    ends : array, (2,)
        Of what is lit, as `find_lit` has them [spaxel].
    pixel_scale, kpc_per_arcsec : float
        Side of a spaxel [arcsec], and the scale.

    Returns
    -------
    waves : array, (cell, wave)
        Orthonormal over the box, and 0 beyond it [kpc^-1/2].
    frequency : array, (wave,)
        The lowest first [rad/kpc].
    """
    half = WIDER * (np.ptp(ends) + 1) * pixel_scale / 2  # arcsec
    count = min(max(int(half / FINEST) * 2, 2), MOST)  # even: programs serve again
    frequency = np.arange(1, count + 1) * np.pi / (2 * half)
    x = np.clip((places - np.mean(ends)) * pixel_scale, -half, half)  # they end there
    waves = np.sin(frequency * (x[:, None] + half))
    return waves / np.sqrt(kpc_per_arcsec * half), frequency / kpc_per_arcsec


def thin(count: int) -> int:
    """How many of ``count`` waves are coarse: the first, but two at least."""
    return max(int(count * FINEST / COARSE + 1e-6), 2)

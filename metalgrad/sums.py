"""Sums of spaxels: the spectrum of an aperture or of every annulus, and their noise."""

from dataclasses import replace

import numpy as np
from jaxtyping import Float, Int
from scipy.signal import fftconvolve

from metalgrad.spaxels import Spaxels

LEAST = 0.5  # share of spaxels good in a channel without which a sum is not: ours


def add_up(
    spaxels: Spaxels, number: Int[np.ndarray, " spaxel"] | None = None
) -> Spaxels:
    """Sum spectra of spaxels: those of an aperture, or of every annulus.

    A voxel that is not good is replaced by the mean of the others in its sum, and a
    channel is not good where that are fewer than half.  Errors are added as those of
    independent voxels, which they are not in a drizzled or smoothed cube: let
    `fit_lines` rescale them.

    Parameters
    ----------
    spaxels : Spaxels
    number : array of int, (spaxel,), optional
        Of the sum that a spaxel belongs to, from 0, and negative for none; by default
        all are summed.

    Returns
    -------
    Spaxels
        One "spaxel" for each sum, at the mean radius of its members; numbers that no
        spaxel has are left out.

    Raises
    ------
    ValueError
        If there is not one number per spaxel, or none that is 0 or above.
    """
    number = np.zeros(len(spaxels), int) if number is None else np.asarray(number)
    if number.shape != (len(spaxels),) or not (number >= 0).any():
        raise ValueError(
            f"numbers of shape {number.shape} where one for each of {len(spaxels)} "
            "spaxels is expected, 0 or above for at least one; number the sums from 0"
        )
    member = _members(number)
    good = np.isfinite(spaxels.error)
    count, total = member @ good, member.sum(axis=1)
    enough = count >= LEAST * total[:, None]
    gain = total[:, None] / np.maximum(count, 1)
    variance = member @ np.where(good, spaxels.error, 0.0) ** 2
    flux = gain * (member @ np.where(good, spaxels.flux, 0.0))
    radius = member @ spaxels.radius / total
    rows = np.arange(len(total))
    return replace(
        spaxels,
        flux=np.where(enough, flux, 0.0),
        error=np.where(enough, gain * np.sqrt(variance), np.inf),
        position=np.stack([radius, 0 * radius], axis=1),
        index=np.stack([0 * rows, rows], axis=1),
        shape=(1, len(rows)),
        header="",
        pixel_scale=None,
        dropped=0,
    )


def correlate_sums(
    index: Int[np.ndarray, "spaxel 2"],
    number: Int[np.ndarray, " spaxel"],
    spatial: Float[np.ndarray, "row column"],
) -> Float[np.ndarray, "sum sum"]:
    """Correlation of the noise of sums whose spaxels share noise.

    Parameters
    ----------
    index : array of int, (spaxel, 2)
        Row and column.
    number : array of int, (spaxel,)
        As in `add_up`.
    spatial : array, (row, column)
        Correlation of spaxels at offsets, 1 in the middle
        (`metalgrad.noise.NoiseCorrelation.spatial`); all are as noisy as each other.
    """
    member = _members(np.asarray(number))
    y, x = (index - index.min(axis=0)).T
    maps = np.zeros((len(member), y.max() + 1, x.max() + 1))
    maps[:, y, x] = member
    around = fftconvolve(maps, spatial[None], mode="same", axes=(1, 2))
    covariance = np.einsum("ayx,byx->ab", maps, around, optimize=True)
    # A measured correlation need not be one: its negative powers are noise.
    power, vectors = np.linalg.eigh((covariance + covariance.T) / 2)
    covariance = (vectors * np.maximum(power, 1e-9 * power.max())) @ vectors.T
    size = np.sqrt(np.diag(covariance))
    return covariance / np.outer(size, size)


def _members(number):
    """Which spaxels each sum has, (sum, spaxel)."""
    kept = np.unique(number[number >= 0])
    return (number == kept[:, None]).astype(float)

"""Voxels that no fit of their own spectrum can explain."""

from dataclasses import replace

import numpy as np

from metalgrad.complexes import MAX_VELOCITY, WIDTHS, choose, fit_complexes, within
from metalgrad.lsf import LSF
from metalgrad.spaxels import Spaxels

SPIKES = 8  # rounds in which outliers of a spectrum are found, largest first
HEIGHT = 0.1  # of the model, by which an outlier is off at least: lines may misfit
SIGMA_PER_MAD = 1.4826  # of a Gaussian


def clip_outliers(
    spaxels: Spaxels, *, limit: float = 5.0, lsf: LSF | None = None
) -> Spaxels:
    """Mark voxels as bad that lie far from the fit of their own spectrum.

    Venturi et al. (2024, Sect. 2.1) clip their cubes; how is not said.  Here each
    spaxel's lines are fitted, and voxels go that are off by more than ``limit`` robust
    standard deviations and by more than a tenth of the model's height, the largest
    first, and the fit is repeated.  Do so before spectra are summed, which hides them.

    Parameters
    ----------
    spaxels : Spaxels
    limit : float
    lsf : LSF, optional
        That of the spaxels by default.

    Returns
    -------
    Spaxels
        The same, with infinite errors and flux 0 there.
    """
    lsf, lost = lsf or spaxels.lsf, np.zeros(spaxels.flux.shape, bool)
    for group in within(spaxels, choose(None, integrated=False), lsf):
        rows = np.arange(len(spaxels))
        for _ in range(SPIKES):
            pixels, spike = _spikes(_take(spaxels, rows, lost), group, lsf, limit)
            lost[rows, pixels] |= spike
            rows = rows[spike.any(axis=1)]
            if not len(rows):
                break
    return _take(spaxels, np.arange(len(spaxels)), lost)


def _spikes(spaxels, group, lsf, limit):
    """Channels of a complex, and which voxels of them are the worst of outliers."""
    bounds = np.array([[-MAX_VELOCITY, MAX_VELOCITY], WIDTHS])
    [(found, pixels, *_)] = fit_complexes(spaxels, (group,), lsf, bounds, None)
    flux, error = spaxels.flux[:, pixels], spaxels.error[:, pixels]
    good, off = np.isfinite(error), np.abs(found.residual)
    sigma = SIGMA_PER_MAD * np.ma.median(np.ma.array(off, mask=~good), axis=1)
    model = np.where(good, flux - found.residual * np.where(good, error, 0.0), 0.0)
    height = HEIGHT * np.abs(model).max(axis=1, keepdims=True) / error
    spike = (off > limit * np.maximum(sigma.filled(0.0), 1.0)[:, None]) & (off > height)
    return pixels, spike & (off >= 0.5 * off.max(axis=1, keepdims=True))


def _take(spaxels, rows, lost):
    """Take some of the spaxels, less the voxels that are lost."""
    return replace(
        spaxels,
        flux=np.where(lost[rows], 0.0, spaxels.flux[rows]),
        error=np.where(lost[rows], np.inf, spaxels.error[rows]),
        position=spaxels.position[rows],
        index=spaxels.index[rows],
    )

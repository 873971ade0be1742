"""Noise that neighbours share: measure its correlation, and count it honestly.

A drizzled cube has more voxels than independent measurements.  What its line-free
channels say about that is measured here, and turned into factors by which the
information of a likelihood that treats voxels as independent is too large.
"""

from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float, Int
from scipy.signal import convolve2d

from metalgrad.likelihood import LineLikelihood
from metalgrad.lsf import LSF, cumulative
from metalgrad.residuals import (
    LAGS,
    OFFSETS,
    neighbour_share,
    spatial_products,
    stretches,
)

SIGNIFICANT = 2.0  # standard errors


@dataclass(frozen=True, eq=False)
class NoiseCorrelation:
    """How the noise of a voxel goes with that of its neighbours.

    The two correlations multiply: noise is taken to be separable.

    Attributes
    ----------
    spatial : array, (row, column)
        Correlation at offsets (dy, dx) [spaxels]; offset 0, in the middle, is 1.
    spectral : array, (lag,)
        Correlation at lags 0, 1, ... [channels]; the first is 1.
    spatial_error, spectral_error : array or None
        Standard errors; inf where no pair was seen.  Where a correlation was less than
        twice its error it has been set to 0.
    wavelength : array, (stretch,), or None
        Middles of the stretches of spectrum it was measured in [µm].
    local : array, (stretch, lag), or None
        ``spectral`` in each stretch: bins of constant width are wider or narrower than
        the detector's.
    noise_scale : array, (stretch,), or None
        Robust standard deviation of the noise over the errors of the data.
    """

    spatial: Float[np.ndarray, "row column"]
    spectral: Float[np.ndarray, " lag"]
    spatial_error: Float[np.ndarray, "row column"] | None = None
    spectral_error: Float[np.ndarray, " lag"] | None = None
    wavelength: Float[np.ndarray, " stretch"] | None = None
    local: Float[np.ndarray, "stretch lag"] | None = None
    noise_scale: Float[np.ndarray, " stretch"] | None = None

    def spatial_inflation(
        self,
        smoothing_sigma: float = 0.0,
        index: Int[np.ndarray, "spaxel 2"] | None = None,
    ) -> float:
        """Return the variance of a mean over spaxels relative to independent ones.

        It is the sum of the correlation over all offsets: that of a wide field, or of
        anything smooth on the correlation's length.  Never less than 1: resampling
        does not make noise that averages faster than white noise.

        Parameters
        ----------
        smoothing_sigma : float
            Width of a Gaussian by which the spectra are smoothed *after* the
            correlation was measured [spaxels]; errors are those after smoothing.
        index : array of int, (spaxel, 2)
            Row and column of the spaxels averaged: those at the rim of a small field
            lack neighbours.
        """
        blur = _blur(smoothing_sigma)
        covariance = convolve2d(self.spatial, np.outer(blur, blur))
        rows, columns = (size // 2 for size in covariance.shape)
        variance = max(covariance[rows, columns], blur[len(blur) // 2] ** 2)
        if index is not None:
            covariance = covariance * neighbour_share(index, rows, columns)
        return float(max(covariance.sum() / variance, 1.0))

    def line_inflation(
        self, profile_sigma: float, wavelength: float | None = None
    ) -> float:
        """Return the variance of a line's flux relative to that in white noise.

        The flux is fitted with white weights to a known continuum: hᵀRh / hᵀh, ``h``
        the profile and ``R`` the spectral correlation; not less than 1.

        Parameters
        ----------
        profile_sigma : float
            Standard deviation of the line's Gaussian [channels].
        wavelength : float, optional
            Where the line is [µm]; by default the mean correlation is used.
        """
        reach = int(np.ceil(4 * profile_sigma)) + len(self.spectral)
        profile = np.diff(
            cumulative(np.arange(-reach, reach + 2) - 0.5, 0.0, profile_sigma)
        )
        overlap = np.correlate(profile, profile, "full")[len(profile) - 1 :]
        overlap = overlap[: len(self.spectral)] / overlap[0]
        correlation = self.spectral_at(wavelength)
        return float(max(1.0 + 2 * correlation[1:] @ overlap[1:], 1.0))

    def spectral_at(self, wavelength: float | None) -> Float[np.ndarray, " lag"]:
        """Return the spectral correlation at a wavelength [µm]; the mean one without.

        Parameters
        ----------
        wavelength : float or None
        """
        if wavelength is None or self.local is None or not len(self.local):
            return self.spectral
        return np.array(
            [np.interp(wavelength, self.wavelength, r) for r in self.local.T]
        )


def _blur(sigma):
    """Autocorrelation of a normalised Gaussian sampled at spaxels, (offset,)."""
    if sigma <= 0:
        return np.ones(1)
    offset = np.arange(-np.ceil(4 * sigma), np.ceil(4 * sigma) + 1)
    weight = np.exp(-0.5 * (offset / sigma) ** 2)
    return np.convolve(weight, weight) / weight.sum() ** 2


def _about(reach):
    return range(-reach, reach + 1)


def measure_correlation(spaxels, lsf: LSF | None = None) -> NoiseCorrelation:
    """Measure how noise is correlated, from the line-free channels of the spaxels.

    Every stretch of some 50 channels loses a cubic continuum in each spaxel, channels
    near a line and outliers left out.  Residuals are in units of the errors.  What the
    continuum took with it (a correlation at lag 2 of 0.50 would look like 0.30) is
    undone exactly for the spectral correlation, see `Stretch.moments`, and divides out
    of the spatial one.  Stretches with twice the noise of most, a sign of structure
    that no cubic follows, do not count.

    Standard errors are those of Bartlett (1946): pairs of voxels are themselves
    correlated.  An estimate ``r`` with error ``e`` is multiplied by
    ``max(1 - (2 e / r)², 0)`` (Breiman 1995), so that white noise, or too few spaxels
    to tell, give no correlation.  That of each stretch is drawn to the mean by the
    stretches' common scatter (empirical Bayes).

    Parameters
    ----------
    spaxels : Spaxels
    lsf : LSF, optional
        Tells how far lines reach; that of the spaxels by default.
    """
    found = stretches(spaxels, lsf or spaxels.lsf)
    if not found:
        return _unknown()
    parts = [part for _, part in found]
    spatial, neighbours = spatial_products(parts, spaxels.index)
    sums, response = (
        np.stack(m) for m in zip(*(part.moments() for part in parts), strict=True)
    )
    size = np.array([part.size for part in parts])
    sums = sums / size[:, None] ** 2
    total = np.linalg.pinv(response.sum(axis=0)) @ sums.sum(axis=0)
    spectral = np.clip(total / total[0], -1.0, 1.0)
    each = np.einsum("skm,sm->sk", np.linalg.pinv(response), sums)
    variance = np.maximum(each[:, 0], total[0] / 2)
    each = np.clip(each / variance[:, None], -1.0, 1.0)
    mirrored = np.concatenate([spectral[:0:-1], spectral])
    spread = _bartlett(mirrored[None])[0, LAGS:] * np.sum(spatial**2)
    error = _spectral_error(spread, response.sum(axis=0))
    with np.errstate(divide="ignore"):
        spatial_error = np.sqrt(_bartlett(spatial) * np.sum(mirrored**2) / neighbours)
    mean = _shrink(spectral, error)
    local = _draw_together(each, mean, _spectral_error(spread, response))
    middles = [spaxels.edges[[c.start, c.stop]].mean() for c, _ in found]
    return NoiseCorrelation(
        spatial=_shrink(spatial, spatial_error),
        spectral=mean,
        spatial_error=spatial_error,
        spectral_error=error,
        wavelength=np.array(middles),
        local=local,
        noise_scale=size * np.sqrt(variance),
    )


def _unknown():
    """White noise of which nothing is known."""
    side, lag = 2 * OFFSETS + 1, np.arange(LAGS + 1)
    spatial = np.zeros((side, side))
    spatial[OFFSETS, OFFSETS] = 1.0
    return NoiseCorrelation(
        spatial=spatial,
        spectral=np.where(lag == 0, 1.0, 0.0),
        spatial_error=np.where(spatial > 0, 0.0, np.inf),
        spectral_error=np.where(lag == 0, 0.0, np.inf),
    )


def _bartlett(correlation):
    """Variance of correlations times the number of pairs, (row, column).

    Bartlett (1946): ``Σ_j [r_j² (1 + 2 r²) + r_{j+k} r_{j-k} - 4 r r_j r_{j-k}]`` at
    offset ``k`` with ``r = r_k``; 0 at offset 0.
    """
    reach = [3 * size // 2 for size in correlation.shape]
    rows, columns = (size // 2 for size in correlation.shape)
    overlap = np.pad(convolve2d(correlation, correlation), [(n, n) for n in reach])
    middle = [size // 2 for size in overlap.shape]
    offset = np.meshgrid(_about(rows), _about(columns), indexing="ij")
    near, far = (
        overlap[middle[0] + step * offset[0], middle[1] + step * offset[1]]
        for step in (1, 2)
    )
    same = overlap[tuple(middle)] * (1 + 2 * correlation**2)
    return np.maximum(same + far - 4 * correlation * near, 0.0)


def _spectral_error(spread, response):
    """Return standard errors of what `Stretch.moments` is solved for, (..., lag).

    Sums of products of white noise have twice the response for covariance.
    """
    null = np.einsum("...kk->...k", np.linalg.pinv(response))
    seen = np.einsum("...kk->...k", response) > 0
    return np.where(seen, np.sqrt(2 * spread * np.maximum(null, 0.0)), np.inf)


def _shrink(correlation, error):
    """Draw correlations to 0, those that are not significant all the way."""
    clear = np.abs(correlation) > SIGNIFICANT * error
    noise = SIGNIFICANT * np.where(clear, error, 0.0)
    share = 1 - (noise / np.where(clear, correlation, 1.0)) ** 2
    return np.where(clear, correlation * share, 0.0)


def _draw_together(local, mean, error):
    """Draw the stretches' correlations to their mean by how much they truly differ."""
    noise = np.mean(np.minimum(error, 1.0) ** 2, axis=0)
    scatter = np.maximum(np.var(local, axis=0) - noise, 0.0)
    return mean + (local - mean) * scatter / np.maximum(scatter + error**2, 1e-30)


def temper(
    likelihood: LineLikelihood, factor: float | Float[np.ndarray, " complex"]
) -> LineLikelihood:
    """Let N correlated voxels tell the fluxes of lines no more than N / factor would.

    The information in the fluxes, the precision ``rootᵀ root``, is divided by
    ``factor``; channels without lines go on telling the noise scale.  To inflate the
    errors of the data instead would do nothing: the sampled noise scale, which the
    scatter of *single* voxels determines, would fall by as much as they rise.  Nor are
    misfit and dof divided: dof counts the lines too, and ``(dof / factor - lines)``,
    which is what fluxes free in each spaxel leave of it, falls below zero in a narrow
    window, so that the noise scale runs away.  As it is, the posterior of the noise
    scale with free fluxes is to the letter what it was, and the density stays
    normalised.

    This is a calibrated inflation and not the likelihood of correlated data.  The
    spatial part is exact for what is smooth on the correlation's length, as the mean
    of a field is; how neighbouring spaxels differ is known better than it says.  The
    spectral part is exact for single lines under which the continuum is known.

    Parameters
    ----------
    likelihood : LineLikelihood
    factor : float or array, (complex,)
        Variance of a flux over that for independent voxels:
        `NoiseCorrelation.spatial_inflation` times `NoiseCorrelation.line_inflation`.

    Raises
    ------
    ValueError
        If a factor is not positive and finite.
    """
    factor = np.broadcast_to(np.asarray(factor, float), (len(likelihood.complexes),))
    if not (np.isfinite(factor) & (factor > 0)).all():
        raise ValueError(
            f"the variance inflation {factor.tolist()} is not positive and finite in "
            "every complex; take it from NoiseCorrelation, or leave 1"
        )
    rows = factor[likelihood.row_complex]
    root, white = np.asarray(likelihood.root), np.asarray(likelihood.white)
    informed = np.any(root != 0, axis=2)
    return replace(
        likelihood,
        root=root / np.sqrt(rows)[:, None],
        white=white / np.sqrt(rows),
        log_norm=np.asarray(likelihood.log_norm) - 0.5 * informed @ np.log(rows),
        inflation=likelihood.inflation * float(np.mean(factor)),
    )

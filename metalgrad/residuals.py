"""What is left of spectra without their lines and continua: noise, and outliers."""

from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Bool, Float
from scipy.ndimage import maximum_filter1d

from metalgrad import lines
from metalgrad.lsf import LSF

OFFSETS = 4  # spaxels
LAGS = 5  # channels
MASK = 5.0  # half-width of what a line covers, in widths of the LSF
STRETCH = 48  # channels under one polynomial ...
TERMS = 4  # ... with so many coefficients
LEAST = 16  # good channels of a spectrum without which a stretch says nothing
CLIP = 5.0  # robust standard deviations
ROUNDS = 5  # of fit and clip
BLOCK = 256  # spaxels worked on at a time
SPIKES = 20  # rounds in which those of a spectrum are found, largest first
ROUGH = 2.0  # times the usual scatter: no noise, but structure
TOLERANCE = 0.05  # of the height of the spectrum close by
SIGMA_PER_MAD = 1.4826  # of a Gaussian


def line_free(edges, redshift: float, lsf: LSF) -> Bool[np.ndarray, " pixel"]:
    """Tell the channels that no line of ``data/lines.ecsv`` reaches, fitted or not.

    Parameters
    ----------
    edges : array, (pixel + 1,)
        [µm]
    redshift : float
    lsf : LSF
    """
    free = np.ones(len(edges) - 1, dtype=bool)
    for line in lines.catalogue().values():
        for centre in line.wavelengths * (1 + redshift):
            reach = MASK * lsf.sigma(centre)
            free &= (edges[1:] < centre - reach) | (edges[:-1] > centre + reach)
    return free


@dataclass(frozen=True, eq=False)
class Stretch:
    """What is left of a stretch of spectra without their continuum.

    Attributes
    ----------
    residual : array, (spaxel, pixel)
        Over the errors; 0 where not ``kept``.
    kept : array of bool, (spaxel, pixel)
    span : array, (spaxel, pixel, term)
        Orthonormal basis of the continuum that was taken out.
    """

    residual: Float[np.ndarray, "spaxel pixel"]
    kept: Bool[np.ndarray, "spaxel pixel"]
    span: Float[np.ndarray, "spaxel pixel term"]

    @property
    def size(self) -> float:
        """Robust standard deviation of the residuals."""
        return SIGMA_PER_MAD * float(np.median(np.abs(self.residual[self.kept])))

    def moments(self):
        """Sum products at each lag, and what unit correlations would make them.

        Taking a continuum out leaves ``M e`` of noise ``e``, and the expectation of
        ``(Me)ᵀ D_k (Me)``, with ``D_k`` the sum of the shifts by ``k`` either way, is
        ``Σ_m γ_m tr(D_k M D_m M)``: exactly linear in the covariances ``γ``.

        Returns
        -------
        sums : array, (lag,)
        response : array, (lag, lag)
        """
        lags = range(LAGS + 1)
        seen = self.kept.astype(float)
        sums = np.array([np.sum(self.residual * _both(self.residual, k)) for k in lags])
        pairs = np.array([np.sum(seen * _both(seen, k)) for k in lags])
        moved = np.stack([_both(self.span, k) for k in lags])
        inner = np.einsum("snp,ksnq->kspq", self.span, moved, optimize=True)
        seen_moved = (moved * seen[..., None]).reshape(LAGS + 1, -1)
        twice = np.einsum("kspq,msqp->km", inner, inner, optimize=True)
        response = np.diag(pairs) - 2 * seen_moved @ seen_moved.T + twice
        return sums, response


def _both(values, lag):
    """Sum of ``values`` shifted by a lag either way along axis 1 (itself at lag 0)."""
    if lag == 0:
        return values
    shifted = np.zeros_like(values)
    shifted[:, lag:] += values[:, :-lag]
    shifted[:, :-lag] += values[:, lag:]
    return shifted


def clean(values, basis, kept) -> Stretch:
    """Take continua out of spectra, and voxels out that lie far from them.

    A voxel more than 5 robust standard deviations of its own spectrum away goes with
    its neighbours; so does a spectrum with twice the scatter of most.

    Parameters
    ----------
    values : array, (spaxel, pixel)
        Flux over error, 0 where there is none.
    basis : array, (spaxel, pixel, term)
        Continuum over error.
    kept : array of bool, (spaxel, pixel)
    """
    for _ in range(ROUNDS):
        kept = kept & (kept.sum(axis=1) >= LEAST)[:, None]
        span = np.linalg.qr(basis * kept[..., None])[0] * kept[..., None]
        fit = np.einsum("snp,smp,sm->sn", span, span, values, optimize=True)
        residual = (values - fit) * kept
        size = SIGMA_PER_MAD * _median(np.abs(residual), kept)
        far = np.abs(residual) > CLIP * size[:, None]
        used = kept
        kept = kept & ~(far | (_both(far.astype(int), 1) > 0))
    rough = size > ROUGH * np.median(size[size > 0]) if (size > 0).any() else size > 0
    used = used & ~rough[:, None]
    return Stretch(residual * used, used, span * used[..., None])


def _median(values, kept):
    """Median of what is kept of each row; 0 for a row of which nothing is."""
    bare = ~kept.any(axis=1, keepdims=True)
    return np.nanmedian(np.where(kept, values, np.where(bare, 0.0, np.nan)), axis=1)


def _stretches(spaxels, free):
    """Cut spectra into stretches, and clean them: their channels, and what is left."""
    good = np.isfinite(spaxels.error) & np.isfinite(spaxels.flux) & free
    weight = np.where(good, 1 / np.where(good, spaxels.error, 1.0), 0.0)
    values = np.where(good, spaxels.flux, 0.0) * weight
    count = max(round(len(free) / STRETCH), 1)
    cuts = np.linspace(0, len(free), count + 1).astype(int)
    for channels in map(slice, cuts[:-1], cuts[1:]):
        power = np.linspace(-1.0, 1.0, channels.stop - channels.start)
        basis = np.polynomial.legendre.legvander(power, TERMS - 1)
        size = weight[:, channels]
        size = size / np.maximum(size.max(axis=1, keepdims=True), 1e-300)
        basis = basis * size[..., None]
        found = clean(values[:, channels], basis, good[:, channels])
        if found.kept.any():
            yield channels, found


def _unshared(parts, free):
    """Free channels less those in which most spaxels deviate alike.

    Such are lines that are not in the table, breaks, and stripes of the detector.
    """
    shared = np.zeros(len(free))
    for channels, part in parts:
        shared[channels] = _median(part.residual.T, part.kept.T) / part.size
    usual = np.median(np.abs(shared[shared != 0])) if shared.any() else np.inf
    return free & ~(np.abs(shared) > CLIP * SIGMA_PER_MAD * usual)


def stretches(spaxels, lsf: LSF) -> list[tuple[slice, Stretch]]:
    """Channels of each stretch of spectra that is noise, and what is left of it.

    Parameters
    ----------
    spaxels : Spaxels
    lsf : LSF
        Tells how far lines reach.
    """
    free = line_free(spaxels.edges, spaxels.redshift, lsf)
    free = _unshared(list(_stretches(spaxels, free)), free)
    found = list(_stretches(spaxels, free))
    usual = np.median([part.size for _, part in found]) if found else 0.0
    return [pair for pair in found if 0 < pair[1].size < ROUGH * usual]


def spatial_products(parts, index):
    """Correlation at each offset, and the number of pairs of voxels, (row, column)."""
    side = 2 * OFFSETS + 1
    spatial, count = np.zeros((side, side)), np.zeros((side, side))
    for row, column in np.ndindex(side, side):
        one, other = _pairs(index, row - OFFSETS, column - OFFSETS)
        product = power = 0.0
        for part in parts:
            left, right = (part.residual[s] / part.size for s in (one, other))
            both = part.kept[one] & part.kept[other]
            product += np.sum(left * right)
            power += np.sum((left**2 + right**2) * both) / 2
            count[row, column] += np.count_nonzero(both)
        spatial[row, column] = product / power if power > 0 else 0.0
    return spatial, count


def _pairs(index, dy, dx):
    """Spaxels with a neighbour at an offset, and those neighbours: two index arrays."""
    place = index - index.min(axis=0)
    lookup = np.full(place.max(axis=0) + 1, -1)
    lookup[tuple(place.T)] = np.arange(len(place))
    other = place + np.array([dy, dx])
    inside = np.flatnonzero(((other >= 0) & (other < lookup.shape)).all(axis=1))
    found = lookup[tuple(other[inside].T)]
    return inside[found >= 0], found[found >= 0]


def neighbour_share(index, rows, columns):
    """Share of the spaxels that have a neighbour at each offset, (row, column)."""
    share = np.zeros((2 * rows + 1, 2 * columns + 1))
    for row, column in np.ndindex(share.shape):
        share[row, column] = len(_pairs(index, row - rows, column - columns)[0])
    return share / len(index)


def find_outliers(part, velocity, scale) -> Bool[np.ndarray, "spaxel pixel"]:
    """Tell the voxels of a complex that the rest of their spectrum does not foresee.

    A voxel is compared with what lines and continuum, fitted to all others, and the
    others' noise foretell.  It is an outlier 5 standard deviations (or 5 times their
    usual size) and a twentieth of the model's height close by away: neither the LSF nor
    what resampling does to bright spectra is known better.  The worst go first.

    Parameters
    ----------
    part : Cut
    velocity : array, (spaxel,)
        [km/s]
    scale : float
        Width of the LSF relative to its table.
    """
    count = len(part.flux)
    blocks = np.array_split(np.arange(count), -(-count // BLOCK))
    return np.concatenate(
        [_spikes(part.take(rows), velocity[rows], scale) for rows in blocks]
    )


def _spikes(part, velocity, scale):
    """Find one outlier of a neighbourhood after the other, (spaxel, pixel)."""
    found = np.zeros(part.flux.shape, dtype=bool)
    rows, size = np.flatnonzero(part.weight.any(axis=1)), None
    for _ in range(SPIKES if len(rows) else 0):
        left = replace(part, weight=np.where(found, 0.0, part.weight)).take(rows)
        off, height = _deviations(left, velocity[rows], scale)
        size = size or max(SIGMA_PER_MAD * np.median(off[left.weight > 0]), 1.0)
        worst = off == maximum_filter1d(off, 2 * LAGS + 1, axis=1)
        worst &= off > off.max(axis=1, keepdims=True) / 2  # it bends the fit to others
        worst &= off > CLIP * size + TOLERANCE * height
        found[rows] |= worst
        rows = rows[worst.any(axis=1)]
        if not len(rows):
            break
    return found


def _deviations(part, velocity, scale):
    """Deviation of each voxel from what is foretold, and height of the model close by.

    Both in standard deviations foretold.  With ``P`` the inverse covariance less what
    the model takes of it, the former is ``(P y)_i / √P_ii``.
    """
    white, scales = part.white, np.full(len(part.flux), scale)
    design = white.design(velocity, scales)
    basis = np.broadcast_to(white.basis, (len(design), *white.basis.shape[-2:]))
    model = np.concatenate([design, basis], axis=1) * white.weight[:, None, :]
    inverse = np.linalg.pinv(model, rcond=1e-10)
    best = np.einsum("sp,spt->st", white.flux * white.weight, inverse)
    left = white.flux * white.weight - np.einsum("st,stp->sp", best, model)
    unit = part.whiten(np.eye(model.shape[2])[None])
    taken = np.einsum("sit,sit->si", unit @ np.swapaxes(model, 1, 2), unit @ inverse)
    whole = np.einsum("sip,sip->si", unit, unit)
    told = np.where(whole - taken > 1e-6 * whole, whole - taken, np.inf)
    off = np.abs(np.einsum("sip,sp->si", unit, left)) / np.sqrt(told)
    raw = part.design(velocity, scales), np.broadcast_to(part.basis, basis.shape)
    height = np.einsum("st,stp->sp", best, np.concatenate(raw, axis=1))
    height = maximum_filter1d(np.abs(height), 2 * LAGS + 1, axis=1)
    return off, height * np.sqrt(np.where(np.isfinite(told), told, 0.0))

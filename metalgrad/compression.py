"""Compress spectra to a Gaussian in line fluxes, exactly.

With Gaussian noise a spectrum ``y = A f + B c + noise`` is quadratic in the line fluxes
``f``.  The continuum (flat prior) and the nuisances (Gaussian prior) in ``B c`` are
integrated out, and 30 numbers per spaxel replace its hundreds of channels.  What the
line's velocity, the width of the LSF and the stars' absorption lines leave uncertain
after `tune` enters ``B`` to first order.
"""

from dataclasses import replace

import numpy as np

from metalgrad.likelihood import LineLikelihood
from metalgrad.lsf import LSF
from metalgrad.noise import measure_correlation, temper
from metalgrad.normal import normal_equations, square_root, whiten
from metalgrad.residuals import find_outliers
from metalgrad.tuning import light_up, measure_signal, tune
from metalgrad.waves import is_lit
from metalgrad.windows import Cut, cut_all, find_complexes


def compress_window(part: Cut, velocity, velocity_error, scale, scale_error):
    """Integrate continuum and nuisances out of the normal equations of one complex.

    With the best fluxes of a spaxel held in the columns ``D`` of slopes in velocity
    and width, and its best continuum in those of what stars add, the spectrum is ``y ~
    N(A f + B c, κ² (N + D P Dᵀ))``: ``N`` the errors squared, ``P`` the variances of
    velocity, width and stars, ``c`` the continuum with a flat prior, and ``κ`` the
    noise scale.  ``N`` is not diagonal where the part has a
    correlation: all is then done in channels made white, see `Cut.white`.

    Parameters
    ----------
    part : Cut
    velocity, velocity_error : numpy.ndarray, (spaxel,)
        About the redshift [km/s].
    scale, scale_error : float
        Width of the LSF relative to its table.

    Returns
    -------
    precision, vector, square
        As `normal_equations`.
    dof, log_norm : numpy.ndarray, (spaxel,)
    """
    log_det, part = part.log_det, part.white
    scales = np.full(len(part.flux), scale)
    design = part.design(velocity, scales)
    part = part.shine(design)
    root, white = square_root(
        *normal_equations(design, part.basis, part.prior, part.flux, part.weight)[:2]
    )
    best = np.einsum("slr,sr->sl", np.linalg.pinv(root), white)
    slopes = (
        (part.design(velocity + 1, scales) - part.design(velocity - 1, scales)) / 2,
        (part.design(velocity, scales + 1e-3) - part.design(velocity, scales - 1e-3))
        / 2e-3,
    )
    nuisance = np.stack([np.einsum("sl,sln->sn", best, d) for d in slopes], axis=1)
    tight = np.stack(
        [velocity_error**-2.0, np.full(len(scales), scale_error**-2.0)], axis=1
    )
    precision, vector, square, told, rank = normal_equations(
        design,
        np.concatenate([part.basis, nuisance], axis=1),
        np.concatenate([part.prior, tight], axis=1),
        part.flux,
        part.weight,
    )
    # A prior tells each nuisance from the rest.
    flat_rank = rank - tight.shape[1] - part.firm
    dof = np.count_nonzero(part.weight, axis=1) - flat_rank
    log_norm = log_det + np.log(tight).sum(axis=1) - told
    log_norm = 0.5 * (log_norm - dof * np.log(2 * np.pi))
    some = dof > 0
    return precision, vector, square * some, dof, np.where(some, log_norm, 0.0)


def compress(
    spaxels,
    lsf: LSF | None = None,
    *,
    names=None,
    tuning=None,
    correlation=None,
    starry=True,
):
    """Compress spectra to a Gaussian likelihood of their line fluxes.

    Parameters
    ----------
    spaxels : Spaxels
    lsf : LSF, optional
        That of the spaxels by default.
    names : tuple of str, optional
        The lines to fit; all those within range by default.
    tuning : Tuning, optional
        Velocities, widths and stars; found by `tune` by default.
    correlation : NoiseCorrelation, optional
        Its spectral part is taken into account exactly: the noise of a complex has
        the covariance ``ERR R ERR`` with ``R`` that at the complex's middle.  Its
        spatial part, for which one Gaussian per spaxel has no place, widens what
        `tune` learns from many spaxels; `temper` the result.  None by default.
    starry : bool
        Whether stars may have absorption lines; else the continuum is straight.  A
        ``tuning`` that is given has them or not.

    Returns
    -------
    likelihood : LineLikelihood
    tuning : Tuning

    Raises
    ------
    ValueError
        If no line is within range.
    """
    lsf = lsf or spaxels.lsf
    starry = starry if tuning is None else tuning.stars is not None
    parts = _cuts(spaxels, lsf, names, correlation, starry=starry)
    tuning = tuning or _tune(spaxels, parts, correlation)
    parts = light_up(parts, tuning)
    pieces = [
        compress_window(
            part,
            tuning.velocity + tuning.offset[c],
            np.hypot(tuning.velocity_error, tuning.offset_error[c]),
            tuning.scale[c],
            tuning.scale_error[c],
        )
        for c, part in enumerate(parts)
    ]
    windows = [part.window for part in parts]
    return _assemble(windows, pieces, spaxels.position), tuning


def _cuts(spaxels, lsf, names, correlation, *, starry=True):
    """Cut every complex out, with the correlation of the noise at its middle."""
    windows = find_complexes(spaxels.edges, spaxels.redshift, lsf, names)
    if correlation is None:
        return cut_all(spaxels, windows, lsf, starry=starry)
    ends = [[window.pixels.start, window.pixels.stop] for window in windows]
    found = [correlation.spectral_at(spaxels.edges[end].mean()) for end in ends]
    found = [lags if lags[1:].any() else None for lags in found]
    return cut_all(spaxels, windows, lsf, found, starry=starry)


def _tune(spaxels, parts, correlation):
    """Find where lines are, how wide, and what stars there are, from what is lit."""
    lit, spatial = slice(None), 1.0
    if spaxels.pixel_scale is not None:
        place = tuple((spaxels.index - spaxels.index.min(axis=0)).T)
        signal = np.zeros(np.max(place, axis=1) + 1)
        signal[place] = measure_signal(parts)
        lit = np.flatnonzero(is_lit(signal)[place])
    if correlation is not None:
        spatial = correlation.spatial_inflation(index=spaxels.index[lit])
    return tune(parts, spatial, lit)


def _assemble(windows, parts, position):
    names = tuple(name for window in windows for name in window.lines)
    count = len(position)
    precision = np.zeros((count, len(names), len(names)))
    vector = np.zeros((count, len(names)))
    start = 0
    for part, window in zip(parts, windows, strict=True):
        own = slice(start, start + len(window.lines))
        precision[:, own, own], vector[:, own] = part[0], part[1]
        start = own.stop
    owner = np.repeat(np.arange(len(windows)), [len(w.lines) for w in windows])
    root, white = whiten(precision, vector, owner)
    square = np.stack([np.asarray(part[2]) for part in parts], axis=1)
    explained = [(white[:, owner == c] ** 2).sum(axis=1) for c in range(len(windows))]
    return LineLikelihood(
        lines=names,
        complexes=tuple(window.lines for window in windows),
        root=root,
        white=white,
        misfit=np.maximum(square - np.stack(explained, axis=1), 0.0),
        dof=np.stack([np.asarray(part[3], float) for part in parts], axis=1),
        log_norm=np.sum([np.asarray(part[4]) for part in parts], axis=0),
        position=np.asarray(position, float),
    )


def correlated(spaxels, lsf: LSF | None = None, *, names=None):
    """Compress spectra whose noise neighbours share, as their own channels tell it.

    The correlation is measured where there are no lines.  Along the spectrum it is
    taken into account exactly (`compress`), between spaxels by a factor (`temper`), and
    voxels far from what their spectrum foretells are left out (`drop_outliers`).  Where
    the data are too few to tell, or where the noise is white, no correlation is found,
    and what `compress` alone would return comes back.  One spectrum has neighbours in
    wavelength only.

    Parameters
    ----------
    spaxels : Spaxels
    lsf : LSF, optional
        That of the spaxels by default.
    names : tuple of str, optional
        The lines to fit; all those within range by default.

    Returns
    -------
    likelihood : LineLikelihood
    tuning : Tuning
    correlation : NoiseCorrelation

    Raises
    ------
    ValueError
        If no line is within range.
    """
    lsf = lsf or spaxels.lsf
    correlation = measure_correlation(spaxels, lsf)
    cleaned, tuning = drop_outliers(spaxels, lsf, names=names, correlation=correlation)
    tuning = tuning if cleaned is spaxels else None
    likelihood, tuning = compress(
        cleaned, lsf, names=names, tuning=tuning, correlation=correlation
    )
    factor = correlation.spatial_inflation(index=spaxels.index)
    likelihood = temper(likelihood, factor) if factor > 1 else likelihood
    return likelihood, tuning, correlation


def drop_outliers(spaxels, lsf: LSF | None = None, *, names=None, correlation=None):
    """Take voxels out that the rest of their spectrum does not foresee.

    In the windows of the lines, see `find_outliers`.  Noise that is smooth along the
    spectrum makes spikes stand out: left in, they would set the noise scale.

    Parameters
    ----------
    spaxels, lsf, names, correlation
        As for `compress`.

    Returns
    -------
    spaxels : Spaxels
        The same object if nothing was dropped.
    tuning : Tuning
        Of the spectra as they came.
    """
    parts = _cuts(spaxels, lsf or spaxels.lsf, names, correlation)
    tuning = _tune(spaxels, parts, correlation)
    lost = np.zeros(spaxels.flux.shape, dtype=bool)
    for c, part in enumerate(light_up(parts, tuning)):
        velocity = tuning.velocity + tuning.offset[c]
        lost[:, part.window.pixels] = find_outliers(part, velocity, tuning.scale[c])
    if not lost.any():
        return spaxels, tuning
    flux, error = np.where(lost, [[[0.0]], [[np.inf]]], [spaxels.flux, spaxels.error])
    return replace(spaxels, flux=flux, error=error), tuning

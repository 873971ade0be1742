"""Compress spectra to a Gaussian in line fluxes, exactly.

With Gaussian noise a spectrum ``y = A f + B c + noise`` is quadratic in the line fluxes
``f``.  The continuum (flat prior) and the nuisances (Gaussian prior) in ``B c`` are
integrated out, and 30 numbers per spaxel replace its hundreds of channels.  What the
line's velocity and the width of the LSF leave uncertain after `tune` enters ``B`` to
first order.
"""

import numpy as np

from metalgrad.likelihood import LineLikelihood
from metalgrad.lsf import LSF, prism
from metalgrad.normal import normal_equations, square_root, whiten
from metalgrad.tuning import tune
from metalgrad.windows import Cut, cut, find_complexes


def compress_window(part: Cut, velocity, velocity_error, scale, scale_error):
    """Integrate continuum and nuisances out of the normal equations of one complex.

    With the best fluxes of a spaxel held in the columns ``D`` of slopes in velocity
    and width, the spectrum is ``y ~ N(A f + B c, κ² (N + D P Dᵀ))``: ``N`` the errors
    squared, ``P`` the variances of velocity and width, ``c`` the continuum with a flat
    prior, and ``κ`` the noise scale.

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
    count, terms = len(part.flux), len(part.basis)
    scales = np.full(count, scale)
    design = part.design(velocity, scales)
    flat = np.zeros((count, terms))
    basis = np.broadcast_to(part.basis, (count, *part.basis.shape))
    root, white = square_root(
        *normal_equations(design, basis, flat, part.flux, part.weight)[:2]
    )
    best = np.einsum("slr,sr->sl", np.linalg.pinv(root), white)
    slopes = (
        (part.design(velocity + 1, scales) - part.design(velocity - 1, scales)) / 2,
        (part.design(velocity, scales + 1e-3) - part.design(velocity, scales - 1e-3))
        / 2e-3,
    )
    nuisance = np.stack([np.einsum("sl,sln->sn", best, d) for d in slopes], axis=1)
    tight = np.stack([velocity_error**-2.0, np.full(count, scale_error**-2.0)], axis=1)
    precision, vector, square, log_det, rank = normal_equations(
        design,
        np.concatenate([basis, nuisance], axis=1),
        np.concatenate([flat, tight], axis=1),
        part.flux,
        part.weight,
    )
    flat_rank = rank - tight.shape[1]  # a prior tells each nuisance from the rest
    dof = np.count_nonzero(part.weight, axis=1) - flat_rank
    log_weight = np.log(np.where(part.weight > 0, part.weight, 1.0)).sum(axis=1)
    log_norm = log_weight + np.log(tight).sum(axis=1) - log_det
    log_norm = 0.5 * (log_norm - dof * np.log(2 * np.pi))
    some = dof > 0
    return precision, vector, square * some, dof, np.where(some, log_norm, 0.0)


def compress(spaxels, lsf: LSF | None = None, *, names=None, tuning=None):
    """Compress spectra to a Gaussian likelihood of their line fluxes.

    Parameters
    ----------
    spaxels : Spaxels
    lsf : LSF, optional
        That of NIRSpec PRISM/CLEAR by default.
    names : tuple of str, optional
        The lines to fit; all those within range by default.
    tuning : Tuning, optional
        Velocities and widths; found by `tune` by default.

    Returns
    -------
    likelihood : LineLikelihood
    tuning : Tuning

    Raises
    ------
    ValueError
        If no line is within range.
    """
    lsf = lsf or prism()
    windows = find_complexes(spaxels.edges, spaxels.redshift, lsf, names)
    parts = [cut(spaxels, window, lsf) for window in windows]
    tuning = tuning or tune(parts)
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
    return _assemble(windows, pieces, spaxels.position), tuning


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

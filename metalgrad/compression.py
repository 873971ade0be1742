"""Compress spectra to a Gaussian in line fluxes, exactly.

With Gaussian noise a spectrum ``y = A f + B c + noise`` is quadratic in the line fluxes
``f``.  The continuum (flat prior) and the nuisances (Gaussian prior) in ``B c`` are
integrated out, and 30 numbers per spaxel replace its hundreds of channels.  What the
line's velocity and the width of the LSF leave uncertain after `tune` enters ``B`` to
first order.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
from jaxtyping import Float
from scipy.interpolate import CubicSpline

from metalgrad import continuum, lines
from metalgrad.likelihood import LineLikelihood, square_root
from metalgrad.lsf import LSF, SPEED_OF_LIGHT, prism, profile

REACH = 5.0  # half-width of a line's window, in widths of the LSF ...
LEAST_REACH = 0.008  # ... but no less than this fraction of the wavelength
SCALE = (0.85, 0.25)  # LSF relative to the table: points 0.53-0.83, uniform slit 1
OFFSET = 500.0  # km/s: prior width of the offset between a complex and the redshift
RIDGE = 1e-12


@dataclass(frozen=True, eq=False)
class Complex:
    """A wavelength window whose lines are fitted together.

    Attributes
    ----------
    lines : tuple of str
    pixels : slice
        Channels of the window.
    """

    lines: tuple[str, ...]
    pixels: slice


@dataclass(frozen=True, eq=False)
class Tuning:
    """Where the lines are and how wide, as the data have them.

    Attributes
    ----------
    velocity, velocity_error : numpy.ndarray, (spaxel,)
        Line-of-sight velocity about the galaxy's [km/s].
    offset : numpy.ndarray, (complex,)
        Velocity of each complex about the redshift [km/s]: the redshift's error and
        the wavelength calibration's.
    scale, scale_error : numpy.ndarray, (complex,)
        Width of the LSF relative to its table.
    """

    velocity: Float[np.ndarray, " spaxel"]
    velocity_error: Float[np.ndarray, " spaxel"]
    offset: Float[np.ndarray, " complex"]
    scale: Float[np.ndarray, " complex"]
    scale_error: Float[np.ndarray, " complex"]


def find_complexes(edges, redshift, lsf, names=None) -> list[Complex]:
    """Group the lines within range into windows that do not overlap.

    Parameters
    ----------
    edges : array, (pixel + 1,)
        [µm]
    redshift : float
    lsf : LSF
    names : tuple of str, optional
        The lines to use; every known one by default.

    Raises
    ------
    ValueError
        If no line is within range.
    """
    spans = []
    for name in names or lines.catalogue():
        observed = lines.catalogue()[name].wavelengths * (1 + redshift)
        reach = np.maximum(REACH * lsf.sigma(observed), LEAST_REACH * observed)
        low, high = float(np.min(observed - reach)), float(np.max(observed + reach))
        if edges[0] < low and high < edges[-1]:
            spans.append((low, high, name))
    if not spans:
        raise ValueError(
            f"no emission line lies between {edges[0]:.3f} and {edges[-1]:.3f} µm at "
            f"redshift {redshift:g}; check the redshift and the wavelength unit"
        )
    groups = []
    for low, high, name in sorted(spans):
        if groups and low < groups[-1][1]:
            groups[-1][1] = max(high, groups[-1][1])
            groups[-1][2].append(name)
        else:
            groups.append([low, high, [name]])
    return [_window(edges, *group) for group in groups]


def _window(edges, low, high, names):
    start, stop = np.searchsorted(edges, [low, high])
    return Complex(tuple(names), slice(int(start), int(stop)))


def templates(edges, names, redshift, lsf, velocity, scale):
    """Spectrum of unit flux of each line [1/µm].

    Parameters
    ----------
    edges : array, (pixel + 1,)
        [µm]
    names : tuple of str
    redshift : float
    lsf : LSF
    velocity : array, (...,)
        [km/s]
    scale : array, (...,)
        Width of the LSF relative to its table.

    Returns
    -------
    array, (..., line, pixel)
    """
    stretch = (1 + redshift) * (1 + velocity[..., None] / SPEED_OF_LIGHT)
    spectra = []
    for line in (lines.catalogue()[name] for name in names):
        centres = line.wavelengths * stretch
        members = profile(edges, centres, lsf.sigma(centres, scale[..., None]))
        spectra.append((line.weights[:, None] * members).sum(axis=-2))
    return np.stack(spectra, axis=-2)


@dataclass(frozen=True, eq=False)
class Cut:
    """The part of every spectrum that one complex covers.

    Attributes
    ----------
    window : Complex
    flux, weight : numpy.ndarray, (spaxel, pixel)
        Weight is the inverse variance, 0 where there is no datum.
    basis : numpy.ndarray, (term, pixel)
        Continuum.
    design : callable
        ``design(velocity, scale)``: `templates` of the complex.
    """

    window: Complex
    flux: Float[np.ndarray, "spaxel pixel"]
    weight: Float[np.ndarray, "spaxel pixel"]
    basis: Float[np.ndarray, "term pixel"]
    design: Callable

    def total(self) -> "Cut":
        """Return the weighted mean of all spectra, as one spaxel."""
        weight = self.weight.sum(axis=0)
        summed = (self.weight * self.flux).sum(axis=0)
        flux = np.divide(summed, weight, out=np.zeros_like(summed), where=weight > 0)
        return replace(self, flux=flux[None], weight=weight[None])


def cut(spaxels, window, lsf) -> Cut:
    """Cut the channels of one complex out of the spectra."""
    edges = spaxels.edges[window.pixels.start : window.pixels.stop + 1]
    limit = continuum.BALMER_LIMIT * (1 + spaxels.redshift)
    width = float(lsf.sigma(limit, SCALE[0]))
    return Cut(
        window,
        np.asarray(spaxels.flux[:, window.pixels], float),
        1 / np.asarray(spaxels.error[:, window.pixels], float) ** 2,
        continuum.basis(edges, spaxels.redshift, width),
        partial(templates, edges, window.lines, spaxels.redshift, lsf),
    )


def normal_equations(design, basis, prior, flux, weight):
    """Normal equations of line fluxes with the columns of ``basis`` integrated out.

    Parameters
    ----------
    design : array, (spaxel, line, pixel)
    basis : array, (spaxel, term, pixel)
        Continuum and nuisances.
    prior : array, (spaxel, term)
        Prior precision of each term's coefficient; 0 for a flat prior.
    flux, weight : array, (spaxel, pixel)

    Returns
    -------
    precision : numpy.ndarray, (spaxel, line, line)
    vector : numpy.ndarray, (spaxel, line)
    square : numpy.ndarray, (spaxel,)
        What is left of the data's own weighted square.
    log_det : numpy.ndarray, (spaxel,)
        Log determinant of the terms' posterior precision.
    """
    weighted = basis * weight[:, None, :]
    inner = weighted @ np.swapaxes(basis, 1, 2)
    terms = np.arange(inner.shape[1])
    inner[:, terms, terms] += prior
    size = np.sqrt(inner[:, terms, terms]) + 1e-150
    scaled = inner / (size[:, :, None] * size[:, None, :])
    scaled[:, terms, terms] += RIDGE
    rows = np.concatenate([design, flux[:, None, :]], axis=1)
    onto = weighted @ np.swapaxes(rows, 1, 2) / size[:, :, None]
    gram = (rows * weight[:, None, :]) @ np.swapaxes(rows, 1, 2)
    gram -= np.swapaxes(onto, 1, 2) @ np.linalg.solve(scaled, onto)
    log_det = np.linalg.slogdet(scaled)[1] + 2 * np.log(size).sum(axis=1)
    return gram[:, :-1, :-1], gram[:, :-1, -1], gram[:, -1, -1], log_det


def gain(part: Cut, velocity, scale) -> Float[np.ndarray, " spaxel"]:
    """Half the drop of χ² that lines at one velocity and width bring each spaxel."""
    count = len(part.flux)
    design = part.design(np.asarray(velocity), np.asarray(scale))
    precision, vector, _, _ = normal_equations(
        np.broadcast_to(design, (count, *design.shape)),
        np.broadcast_to(part.basis, (count, *part.basis.shape)),
        np.zeros((count, len(part.basis))),
        part.flux,
        part.weight,
    )
    return 0.5 * (square_root(precision, vector)[1] ** 2).sum(axis=1)


def tune(parts: list[Cut]) -> Tuning:
    """Find the velocity of every spaxel and the width of the LSF in every complex.

    Offset and width of a complex come from the sum of all spaxels; the spaxels' own
    velocities are drawn towards the galaxy's by their common scatter (empirical Bayes).

    Parameters
    ----------
    parts : list of Cut
        One for each complex.
    """
    grid = np.arange(-700.0, 701.0, 100.0)
    summed = [tune_sum(part.total()) for part in parts]
    gains = sum(
        np.stack([gain(part, offset + v, scale) for v in grid]) / inflation
        for part, (offset, scale, _, inflation) in zip(parts, summed, strict=True)
    )
    velocity, error = shrink(grid, gains)
    offset, scale, scale_error, _ = np.array(summed).T
    return Tuning(velocity, error, offset, scale, scale_error)


def tune_sum(part: Cut) -> tuple[float, float, float, float]:
    """Offset [km/s], width, its error and χ² per channel of a summed spectrum."""
    velocity = np.arange(-1500.0, 1501.0, 75.0)
    scale = np.arange(0.4, 1.41, 0.025)
    surface = np.array([[gain(part, v, s)[0] for s in scale] for v in velocity])
    terms = len(part.basis)
    square = normal_equations(
        np.zeros((1, 0, part.flux.shape[1])),
        part.basis[None],
        np.zeros((1, terms)),
        part.flux,
        part.weight,
    )[2]
    channels = max(np.count_nonzero(part.weight) - terms, 1)
    inflation = max((square[0] - 2 * surface.max()) / channels, 1.0)
    prior = ((scale - SCALE[0]) / SCALE[1]) ** 2 + (velocity[:, None] / OFFSET) ** 2
    log_post = surface / inflation - 0.5 * prior
    weight = np.exp(log_post - log_post.max())
    weight /= weight.sum()
    offset, width = weight.sum(axis=1) @ velocity, weight.sum(axis=0) @ scale
    spread = weight.sum(axis=0) @ (scale - width) ** 2
    return offset, width, np.sqrt(spread + np.diff(scale)[0] ** 2 / 12), inflation


def shrink(grid, gains):
    """Posterior mean and sd of each spaxel's velocity under a common scatter.

    Parameters
    ----------
    grid : array, (node,)
        [km/s]
    gains : array, (node, spaxel)
        Log likelihood.
    """
    fine = np.arange(grid[0], grid[-1] + 1, 10.0)
    log_like = CubicSpline(grid, gains)(fine)
    scatter = 100.0
    for _ in range(20):
        log_post = log_like - 0.5 * (fine[:, None] / scatter) ** 2
        weight = np.exp(log_post - log_post.max(axis=0))
        weight /= weight.sum(axis=0)
        mean = fine @ weight
        variance = fine**2 @ weight - mean**2
        scatter = max(np.sqrt(np.mean(mean**2 + variance)), 10.0)
    return mean, np.sqrt(np.maximum(variance, 5.0**2))


def compress_window(part: Cut, velocity, velocity_error, scale, scale_error):
    """Normal equations of one complex with continuum and nuisances integrated out.

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
    precision, vector, square, log_det = normal_equations(
        design,
        np.concatenate([basis, nuisance], axis=1),
        np.concatenate([flat, tight], axis=1),
        part.flux,
        part.weight,
    )
    dof = np.maximum(np.count_nonzero(part.weight, axis=1) - terms, 0)
    log_weight = np.log(np.where(part.weight > 0, part.weight, 1.0)).sum(axis=1)
    log_norm = log_weight + np.log(tight).sum(axis=1) - log_det
    log_norm = 0.5 * (log_norm - dof * np.log(2 * np.pi))
    return precision, vector, square, dof, np.where(dof > 0, log_norm, 0.0)


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
            tuning.velocity_error,
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
    root, white = _block_roots(windows, precision, vector)
    square = np.stack([np.asarray(part[2]) for part in parts], axis=1)
    explained = [np.sum(white[:, own] ** 2, axis=1) for own in _blocks(windows)]
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


def _blocks(windows):
    stops = np.cumsum([len(window.lines) for window in windows])
    return [
        slice(int(stop) - len(window.lines), int(stop))
        for stop, window in zip(stops, windows, strict=True)
    ]


def _block_roots(windows, precision, vector):
    root, white = np.zeros_like(precision), np.zeros_like(vector)
    for own in _blocks(windows):
        root[:, own, own], white[:, own] = square_root(
            precision[:, own, own], vector[:, own]
        )
    return root, white

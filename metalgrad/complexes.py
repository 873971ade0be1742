"""The complexes of lines that are fitted together, and the fit of one of them."""

from dataclasses import replace

import numpy as np

from metalgrad import lines, stars
from metalgrad.projection import Problem, Solution
from metalgrad.scaling import invert
from metalgrad.windows import SCALE, templates

# Venturi et al. (2024), Sect. 2.2.1; Hδ, with the Balmer lines that [Ne III] is blended
# with, and [O III] 4364, which Hγ is, are ours.
COMPLEXES = (
    ("OII", "NeIII", "Hdelta", "Hgamma", "OIII_4364"),
    ("Hbeta", "OIII"),
    ("Halpha", "NII", "SII"),
)
INTEGRATED = "NII"  # fitted in integrated spectra only (Sect. 2.2.1)
# Ours: the paper says neither how much continuum it fitted nor what it let lines do.
MAX_VELOCITY = 600.0  # km/s
# Of the LSF: points have 0.53 to 0.83 of its table, uniform slits 1.
WIDTHS = (0.5, 1.3)
REACH = 8.0  # of a window beyond its lines, in widths of the LSF
BLUE_END = 0.335  # µm, rest frame: of the window with the Balmer break
FREE = 3.0  # widths of the LSF from all lines, where channels are free of them
SEEN = 0.5  # share of a line's profile that good channels hold where it is measured
# Where velocity and width are tabulated: steps of 30 km/s and 0.025, between which the
# interpolation errs by some 1e-3 of a line's height, and less of its flux.
NODES = (41, 33)
BLOCK = 400  # spectra worked on at a time
LEAST = 1e-3  # errors of the continuum: stars of none have a prior of no width else


def choose(names, *, integrated):
    """Return the lines to fit.

    Parameters
    ----------
    names : sequence of str or None
        All that are known, if None, but [N II] only if ``integrated``.
    integrated : bool

    Raises
    ------
    ValueError
        If a line is in no complex.
    """
    known = [line for group in COMPLEXES for line in group]
    if names is None:
        return [line for line in known if integrated or line != INTEGRATED]
    if unknown := sorted({*names} - {*known}):
        raise ValueError(
            f"lines {', '.join(unknown)} cannot be fitted; choose among "
            f"{', '.join(known)}"
        )
    return names


def within(spectra, names, lsf):
    """Return the lines of each complex whose cores lie within the spectra.

    Parameters
    ----------
    spectra : Spaxels
    names : sequence of str
    lsf : LSF

    Returns
    -------
    tuple of tuple of str

    Raises
    ------
    ValueError
        If there is none.
    """
    edges, stretch, groups = spectra.edges, 1 + spectra.redshift, []
    for group in COMPLEXES:
        centres = {line: _centres(line, stretch) for line in group if line in names}
        kept = tuple(
            line
            for line, at in centres.items()
            if edges[0] < np.min(at - lsf.sigma(at))
            and np.max(at + lsf.sigma(at)) < edges[-1]
        )
        groups += [kept] if kept else []
    if not groups:
        raise ValueError(
            f"none of {', '.join(names)} lies between {edges[0]:.3f} and "
            f"{edges[-1]:.3f} µm at redshift {spectra.redshift:g}; check the redshift "
            "and the unit of wavelength"
        )
    return tuple(groups)


def _centres(line, stretch):
    """Observed wavelengths of a line's members [µm]."""
    return lines.catalogue()[line].wavelengths * stretch


def _window(spectra, group, lsf):
    """Channels of a complex, and which of them no line reaches."""
    stretch = 1 + spectra.redshift
    centres = np.concatenate([_centres(line, stretch) for line in group])[:, None]
    sigma = lsf.sigma(centres)
    low, high = np.min(centres - REACH * sigma), np.max(centres + REACH * sigma)
    low = min(low, BLUE_END * stretch) if "OII" in group else low
    start, stop = np.searchsorted(spectra.edges, [low, high])
    pixels = slice(max(start - 1, 0), min(stop, len(spectra.edges) - 1))
    edges = spectra.edges[pixels.start : pixels.stop + 1]
    near = FREE * sigma
    free = (edges[1:] < centres - near) | (edges[:-1] > centres + near)
    return pixels, edges, free.all(axis=0)


def fit_complexes(spectra, groups, lsf, bounds, correlation, *, starry=True):
    """Fit every complex in all spectra, a block of them at a time.

    A complex is fitted by itself; only what stars absorb in it the others tell, too,
    so that each is fitted twice.

    Parameters
    ----------
    spectra : Spaxels
    groups : tuple of tuple of str
        Lines of each complex.
    lsf : LSF
    bounds : array, (2, 2)
        Least and largest velocity [km/s], and width of the LSF relative to its table.
    correlation : array, (lag,), or None
        Of the noise of channels.
    starry : bool
        Whether stars may have absorption lines.

    Returns
    -------
    list of (found, pixels, chi2, expected)
        Of each complex: a `Solution` whose shape is velocity and width, the channels of
        its window, and of those that no line reaches χ² and what it is in the mean,
        (spectrum,).
    """
    windows = [_window(spectra, group, lsf) for group in groups]
    edges = [window[1] for window in windows]
    shine = stars.illuminate if starry else stars.straight
    lights = shine(edges, spectra.redshift, lsf, SCALE[0])
    axes = tuple(np.linspace(*b, n) for b, n in zip(bounds, NODES, strict=True))
    shapes = np.meshgrid(*axes, indexing="ij")
    tables = [
        templates(ends, group, spectra.redshift, lsf, *shapes)
        for ends, group in zip(edges, groups, strict=True)
    ]
    parts = []
    for first in range(0, len(spectra), BLOCK):
        rows = slice(first, first + BLOCK)
        problems = [
            _pose(spectra, rows, window[0], axes, table, light)
            for window, table, light in zip(windows, tables, lights, strict=True)
        ]
        parts.append(_solve_together(problems, correlation))
    found = [Solution.join(list(one)) for one in zip(*parts, strict=True)]
    fits = []
    for one, (pixels, _, free) in zip(found, windows, strict=True):
        squares = (one.residual**2, one.expected)
        fits.append((one, pixels, *(np.sum(v, axis=1, where=free) for v in squares)))
    return fits


def _pose(spectra, rows, pixels, axes, table, light):
    """Pose the problem of one complex, in some of the spectra.

    The prior of what stars add is in proportion to their light.
    """
    weight = 1 / np.asarray(spectra.error[rows, pixels], float) ** 2
    flux = np.asarray(spectra.flux[rows, pixels], float)
    middle = table[NODES[0] // 2, NODES[1] // 2]
    seen = (weight > 0) @ middle.T**2 >= SEEN * (middle**2).sum(axis=1)
    level, error = _level(flux, weight, np.concatenate([light.basis, middle]))
    count = len(light.modes)
    unit = np.maximum(level, LEAST * error)
    prior = np.zeros((len(flux), *(len(light.basis) + count,) * 2))
    first = len(light.basis)
    prior[:, first:, first:] = np.eye(count) / unit[:, None, None] ** 2
    basis = np.concatenate([light.basis, light.modes])
    return Problem(flux, weight, axes, table, basis, seen, prior)


def _level(flux, weight, terms):
    """Amplitude of the first term, and its error."""
    normal = np.einsum("tp,sp,up->stu", terms, weight, terms)
    inverse = invert(normal)
    vector = (flux * weight) @ terms.T
    level = np.einsum("st,st->s", inverse[:, 0], vector)
    return level, np.sqrt(inverse[:, 0, 0])


def _solve_together(problems, correlation):
    """Solve for all complexes of the same spectra; each knows stars from the others."""
    if len(problems) == 1 or not problems[0].prior.any():
        return [problem.solve(correlation) for problem in problems]
    shapes = [problem.seek() for problem in problems]
    units = [problem.prior[:, -1, -1] ** -0.5 for problem in problems]
    told = [
        _tell(problem, shape, unit)
        for problem, shape, unit in zip(problems, shapes, units, strict=True)
    ]
    total = [sum(one[k] for one in told) for k in range(2)]
    solved = []
    for problem, shape, unit, own in zip(problems, shapes, units, told, strict=True):
        precision, vector = (t - o for t, o in zip(total, own, strict=True))
        count = vector.shape[1]
        prior, pull = problem.prior.copy(), problem.pull.copy()
        prior[:, -count:, -count:] += precision / unit[:, None, None] ** 2
        pull[:, -count:] += vector / unit[:, None]
        informed = replace(problem, prior=prior, pull=pull)
        solved.append(informed.solve(correlation, shape))
    return solved


def _tell(problem, shape, unit):
    """Precision and vector of the coefficients of modes of unit light."""
    precision, vector = problem.tell(shape, stars.MODES)
    noise = stars.excess(problem.data, problem.weight)[:, None]
    return precision * (unit[:, None] ** 2 / noise)[..., None], vector * unit[
        :, None
    ] / noise

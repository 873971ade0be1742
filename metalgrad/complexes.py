"""The complexes of lines that are fitted together, and the fit of one of them."""

import numpy as np

from metalgrad import continuum, lines
from metalgrad.projection import Problem, Solution
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


def fit_complex(spectra, group, lsf, bounds, correlation):
    """Fit one complex in all spectra, a block of them at a time.

    Parameters
    ----------
    spectra : Spaxels
    group : tuple of str
        Lines.
    lsf : LSF
    bounds : array, (2, 2)
        Least and largest velocity [km/s], and width of the LSF relative to its table.
    correlation : array, (lag,), or None
        Of the noise of channels.

    Returns
    -------
    found : Solution
        Its shape is velocity and width.
    pixels : slice
        Channels of the window.
    chi2, expected : array, (spectrum,)
        Of the channels that no line reaches, and what it is in the mean.
    """
    pixels, edges, free = _window(spectra, group, lsf)
    limit = continuum.BALMER_LIMIT * (1 + spectra.redshift)
    basis = continuum.basis(edges, spectra.redshift, float(lsf.sigma(limit, SCALE[0])))
    axes = tuple(np.linspace(*b, n) for b, n in zip(bounds, NODES, strict=True))
    shapes = np.meshgrid(*axes, indexing="ij")
    table = templates(edges, group, spectra.redshift, lsf, *shapes)
    middle = table[NODES[0] // 2, NODES[1] // 2] ** 2
    parts = []
    for first in range(0, len(spectra), BLOCK):
        rows = slice(first, first + BLOCK)
        weight = 1 / np.asarray(spectra.error[rows, pixels], float) ** 2
        flux = np.asarray(spectra.flux[rows, pixels], float)
        seen = (weight > 0) @ middle.T >= SEEN * middle.sum(axis=1)
        problem = Problem(flux, weight, axes, table, basis, seen)
        parts.append(problem.solve(correlation))
    found = Solution.join(parts)
    squares = (found.residual**2, found.expected)
    return found, pixels, *(np.sum(v, axis=1, where=free) for v in squares)

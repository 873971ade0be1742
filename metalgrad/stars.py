"""The light that lines stand on: stars with absorption lines, and the gas about them.

Hydrogen that stars absorb lies under every Balmer line and, towards the limit, under
[O II]: a straight continuum takes it for missing emission.  How much they absorb is not
known beforehand, so it has a prior: the light of many histories of star formation,
summed up by what they have in common and a few modes by which they differ.
"""

from dataclasses import dataclass
from functools import cache

import numpy as np
from jaxtyping import Float
from scipy.stats import t as student_t

from metalgrad import cards, continuum, dust
from metalgrad.lsf import LSF, profile

# Priors of a galaxy's stars.  Steps of log10 of the rate from one bin of age to the
# next: Student's t of 2 degrees and scale 1, for bursty histories (Tacchella et al.
# 2022, after Leja et al. 2019).  Ours: metallicities of the card alike, E(B-V) [mag],
# and how much of the gas's light is seen.
DEGREES, SCALE, LIMIT = 2, 1.0, 10.0
REDDENING, SEEN = (0.0, 0.5), (0.0, 1.0)
MEMBERS = 400
MODES = 5  # leave out some 1e-3 of the light, under all lines of a complex alike
ACCURACY = 5e-3  # of the light, to which modes can say what stars are; ours
PIVOT = 0.48  # µm, rest frame: where the members are equally bright
KIND = {"stars": 0, "gas": 1}


@dataclass(frozen=True, eq=False)
class Light:
    """What the continuum of one window may look like.

    Attributes
    ----------
    basis : array, (term, pixel)
        With free coefficients: light of typical stars, the same times a straight line,
        and what the Balmer limit adds, as `metalgrad.continuum.basis`.
    modes : array, (mode, pixel)
        What is added for each unit of the first term, times coefficients with a prior
        of N(0, 1): those of all windows of a galaxy are the same.
    """

    basis: Float[np.ndarray, "term pixel"]
    modes: Float[np.ndarray, "mode pixel"]


def excess(flux, weight):
    """Return χ² per channel when stars' models are as good as ``ACCURACY``.

    Parameters
    ----------
    flux, weight : array, (spectrum, pixel)

    Returns
    -------
    array, (spectrum,)
        Times that of noise alone: most channels have continuum and no more.
    """
    return 1 + ACCURACY**2 * np.median(flux**2 * weight, axis=1)


@cache
def members() -> tuple[Float[np.ndarray, " node"], Float[np.ndarray, "member node"]]:
    """Rest-frame wavelengths [µm], and the light of histories drawn from the prior.

    The draws are always the same: they stand for an integral.
    """
    table = cards.table("stars.ecsv")
    wavelength = np.array(table.pop("wavelength")) * 1e-4
    rng = np.random.default_rng(0)
    names = [name.split("_") for name in table]
    young = sorted({float(name[2]) for name in names})
    metals = sorted({float(name[1]) for name in names})
    rate = _rates(rng, len(young))
    own, seen = rng.integers(len(metals), size=MEMBERS), rng.uniform(*SEEN, MEMBERS)
    light = np.zeros((MEMBERS, len(wavelength)))
    for (kind, metal, start, _), column in zip(names, table.values(), strict=True):
        weight = rate[:, young.index(float(start))] * seen ** KIND[kind]
        weight = weight * (own == metals.index(float(metal)))
        light += weight[:, None] * np.array(column)
    reddening = rng.uniform(*REDDENING, MEMBERS)
    light *= 10 ** (-0.4 * reddening[:, None] * dust.calzetti(wavelength))
    return wavelength, light / light[:, [np.abs(wavelength - PIVOT).argmin()]]


def _rates(rng, count):
    """Rates of star formation in bins of age, from the youngest, (member, bin)."""
    shape = (MEMBERS, count - 1)
    steps = student_t.rvs(DEGREES, scale=SCALE, size=shape, random_state=rng)
    steps = np.clip(steps, -LIMIT, LIMIT)
    log_rate = np.pad(np.cumsum(steps, axis=1), [(0, 0), (1, 0)])[:, ::-1]
    return 10 ** (log_rate - log_rate.max(axis=1, keepdims=True))


def observe(light, wavelength, edges, redshift, lsf: LSF, scale):
    """Blur spectra by the LSF and average them over bins; flat beyond their ends.

    Parameters
    ----------
    light : array, (spectrum, node)
    wavelength : array, (node,)
        Rest frame [µm], evenly spaced.
    edges : array, (pixel + 1,)
        [µm, observed]
    redshift : float
    lsf : LSF
    scale : float
        Width of the LSF relative to its table.

    Returns
    -------
    array, (spectrum, pixel)
    """
    observed = wavelength * (1 + redshift)
    step = observed[1] - observed[0]
    # Where the LSF is narrower than the nodes are apart, one must reach the next.
    sigma = np.hypot(lsf.sigma(observed, scale), step / 2)
    reached = profile(edges, observed, sigma)
    for node, beyond in ((0, edges[1:] < observed[0]), (-1, edges[:-1] > observed[-1])):
        reached[:, beyond] = 0.0
        reached[node, beyond] = 1.0
    return light @ (reached / reached.sum(axis=0))


def illuminate(windows, redshift: float, lsf: LSF, scale: float) -> list[Light]:
    """Return the light under lines, window by window of one galaxy.

    Parameters
    ----------
    windows : list of array, (pixel + 1,)
        Edges of each window's bins [µm, observed].
    redshift : float
    lsf : LSF
    scale : float
        Width of the LSF relative to its table.
    """
    wavelength, light = members()
    width = float(lsf.sigma(continuum.BALMER_LIMIT * (1 + redshift), scale))
    terms, left = [], []
    for edges in windows:
        seen = observe(light, wavelength, edges, redshift, lsf, scale)
        typical = np.mean(seen / seen.mean(axis=1, keepdims=True), axis=0)
        basis = continuum.basis(edges, redshift, width, typical)
        best = np.linalg.lstsq(basis.T, seen.T)[0].T
        terms.append(basis)
        left.append((seen - best @ basis) / best[:, :1])
    # What members have in common beyond the typical light is a mode like another.
    _, size, modes = np.linalg.svd(np.concatenate(left, axis=1), full_matrices=False)
    modes = size[:MODES, None] / np.sqrt(MEMBERS) * modes[:MODES]
    ends = np.cumsum([part.shape[1] for part in left])[:-1]
    parts = np.split(modes, ends, axis=1)
    return [Light(*pair) for pair in zip(terms, parts, strict=True)]


def straight(windows, redshift: float, lsf: LSF, scale: float) -> list[Light]:
    """Return a continuum without absorption lines; arguments as in `illuminate`."""
    width = float(lsf.sigma(continuum.BALMER_LIMIT * (1 + redshift), scale))
    bases = [continuum.basis(edges, redshift, width) for edges in windows]
    return [Light(basis, basis[:0]) for basis in bases]


def typical(edges, redshift: float, lsf: LSF, scale: float):
    """Return the mean of all histories, 1 near Hβ, (pixel,); as in `observe`."""
    wavelength, light = members()
    return observe(light.mean(axis=0), wavelength, edges, redshift, lsf, scale)

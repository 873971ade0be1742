"""Find where the lines are and how wide, and what the stars under them absorb."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from scipy.interpolate import CubicSpline, RectBivariateSpline

from metalgrad.normal import normal_equations, square_root
from metalgrad.stars import excess
from metalgrad.windows import SCALE, Cut

OFFSET = 500.0  # km/s: prior width of the offset between a complex and the redshift
WITHIN = 0.5  # ours: how spaxels' stars differ, over how galaxies' do


@dataclass(frozen=True, eq=False)
class Tuning:
    """Where the lines are and how wide, and what stars there are, as the data have it.

    Attributes
    ----------
    velocity, velocity_error : numpy.ndarray, (spaxel,)
        Line-of-sight velocity about the galaxy's [km/s].
    offset, offset_error : numpy.ndarray, (complex,)
        Velocity of each complex about the redshift [km/s]: the redshift's error and
        the wavelength calibration's.
    scale, scale_error : numpy.ndarray, (complex,)
        Width of the LSF relative to its table.
    stars : numpy.ndarray, (complex, mode), optional
        Mean of the coefficients of `metalgrad.stars.Light.modes`; None where the
        continuum is straight.
    stars_root : numpy.ndarray, (complex, mode, mode), optional
        Root of their covariance.
    """

    velocity: Float[np.ndarray, " spaxel"]
    velocity_error: Float[np.ndarray, " spaxel"]
    offset: Float[np.ndarray, " complex"]
    offset_error: Float[np.ndarray, " complex"]
    scale: Float[np.ndarray, " complex"]
    scale_error: Float[np.ndarray, " complex"]
    stars: Float[np.ndarray, "complex mode"] | None = None
    stars_root: Float[np.ndarray, "complex mode mode"] | None = None


def measure_signal(parts: list[Cut]) -> Float[np.ndarray, " spaxel"]:
    """S/N squared of all lines of each spaxel, where and as wide as they should be.

    What noise alone gives is taken off, and nothing is below 0.

    Parameters
    ----------
    parts : list of Cut
        One for each complex.
    """
    at_rest = np.zeros(1), np.full(1, SCALE[0])
    square = sum(2 * gain(part.white, *at_rest) for part in parts)
    return np.maximum(square - sum(len(part.window.lines) for part in parts), 0.0)


def gain(part: Cut, velocity, scale) -> Float[np.ndarray, " spaxel"]:
    """Half the drop of χ² that lines bring each spaxel.

    Parameters
    ----------
    part : Cut
        Of all spaxels, or of one that is tried with many velocities and widths.
    velocity : float or array, (spaxel,)
        [km/s]
    scale : float or array, (spaxel,)
        Width of the LSF relative to its table.
    """
    design = part.design(*np.broadcast_arrays(velocity, scale))
    count = np.broadcast_shapes(design.shape[:-2], part.flux.shape[:1])
    precision, vector = normal_equations(
        np.broadcast_to(design, count + design.shape[-2:]),
        np.broadcast_to(part.basis, count + part.basis.shape[-2:]),
        np.broadcast_to(part.prior, count + part.basis.shape[-2:-1]),
        np.broadcast_to(part.flux, count + part.flux.shape[1:]),
        np.broadcast_to(part.weight, count + part.flux.shape[1:]),
    )[:2]
    return 0.5 * (square_root(precision, vector)[1] ** 2).sum(axis=1)


def tune(parts: list[Cut], spatial: float = 1.0, lit=slice(None)) -> Tuning:
    """Find the velocity of every spaxel and the width of the LSF in every complex.

    Offset and width of a complex come from the sum of what is lit, then, with every
    spaxel at its own velocity, from its spaxels themselves.  Their velocities are drawn
    towards the galaxy's by their common scatter (empirical Bayes).  What the sum tells
    about the galaxy's stars is what its spaxels begin with.

    Parameters
    ----------
    parts : list of Cut
        One for each complex.
    spatial : float
        Variance of a mean over the lit spaxels relative to independent ones.
    lit : slice or array of int, (lit,)
        Spaxels with light, those of sky being noise in any sum; all by default.
    """
    sums = [part.take(lit).total().white for part in parts]
    first = [tune_sum(part) for part in sums]
    stars = weigh_stars(sums, first, is_alone=len(parts[0].flux) == 1)
    parts = [part.starlit(*one) for part, *one in zip(parts, *stars, strict=True)]
    bright, parts = ([p.take(s).white for p in parts] for s in (lit, slice(None)))
    velocity, _ = tune_velocities(bright, first, spatial)
    found = [
        tune_spaxels(part, velocity, spatial, *start)
        for part, start in zip(bright, first, strict=True)
    ]
    velocity, error = tune_velocities(parts, found)
    offset, scale, scale_error, _, offset_error = np.array(found).T
    stars = stars if stars[0].size else ()
    return Tuning(velocity, error, offset, offset_error, scale, scale_error, *stars)


def weigh_stars(sums: list[Cut], found, *, is_alone):
    """Find what sums of spectra tell about stars: that and its root, as in `Tuning`.

    Each complex of a spectrum that is alone takes it from the others, as its own
    channels have their say later.

    Parameters
    ----------
    sums : list of Cut
        Of one spaxel each.
    found : list
        What `tune_sum` returns of each.
    is_alone : bool
        Whether there is but one spaxel.
    """
    noise = np.mean([one[3] for one in found])
    told = [_tell(part, *one[:2], noise) for part, one in zip(sums, found, strict=True)]
    total = [sum(one[k] for one in told) for k in range(2)]
    unit, means, roots = np.eye(len(total[1])), [], []
    for own in told:
        precision, vector = (t - is_alone * o for t, o in zip(total, own, strict=True))
        covariance = np.linalg.inv(unit + precision)
        means.append(covariance @ vector)
        spread = covariance + (not is_alone) * WITHIN**2 * unit
        roots.append(np.linalg.cholesky(spread))
    return np.array(means), np.array(roots)


def _tell(part, offset, scale, noise):
    """Precision and vector of the coefficients of modes, of one spectrum."""
    shapes = [(offset, scale), (offset + 75.0, scale), (offset, scale + 0.05)]
    design, *moved = (part.design(*np.array(shape)[:, None]) for shape in shapes)
    terms = part.shine(design)
    basis, light = np.split(terms.basis, [part.basis.shape[-2]], axis=1)
    others = np.concatenate([basis, design, *(m - design for m in moved)], axis=1)
    flat = np.zeros(others.shape[:2])
    equations = normal_equations(light, others, flat, part.flux, part.weight)
    noise = noise * excess(part.flux, part.weight)[0]
    return equations[0][0] / noise, equations[1][0] / noise


def light_up(parts: list[Cut], tuning: Tuning) -> list[Cut]:
    """Give every complex the stars that were found, if any were sought.

    Parameters
    ----------
    parts : list of Cut
    tuning : Tuning
    """
    if tuning.stars is None:
        return parts
    return [
        part.starlit(mean, root)
        for part, mean, root in zip(parts, tuning.stars, tuning.stars_root, strict=True)
    ]


def tune_velocities(parts, found, spatial=1.0):
    """Velocity of each spaxel and its error, given what `tune_sum` returns.

    The χ² per channel of a sum is ``spatial`` times that of its spaxels.
    """
    grid = np.arange(-700.0, 701.0, 100.0)
    gains = sum(
        np.stack([gain(part, offset + v, scale) for v in grid])
        / max(noise / spatial, 1.0)
        for part, (offset, scale, _, noise, _) in zip(parts, found, strict=True)
    )
    return shrink(grid, gains)


def tune_sum(part: Cut) -> tuple[float, float, float, float, float]:
    """Find the offset [km/s], width, its error and χ² per channel of a summed spectrum.

    Parameters
    ----------
    part : Cut
        Of one spaxel.
    """
    velocity = np.arange(-1500.0, 1501.0, 75.0)
    scale = np.arange(0.4, 1.41, 0.025)
    part = part.shine(part.design(np.zeros(1), np.full(1, SCALE[0])))
    nodes = np.meshgrid(velocity, scale, indexing="ij")
    surface = gain(part, *(node.ravel() for node in nodes)).reshape(nodes[0].shape)
    return weigh(velocity, scale, surface, inflation(part, surface.max()))


def tune_spaxels(part: Cut, velocity, spatial, offset, scale, error, _, offset_error):
    """Refine `tune_sum`: the sum is broader than the LSF by the spaxels' velocities.

    Where the sum does not tell the width to some percent there is nothing to refine.

    Parameters
    ----------
    part : Cut
    velocity : array, (spaxel,)
        About the offset [km/s].
    spatial : float
        As in `tune`.
    offset, scale, error, offset_error : float
        As `tune_sum` returns them.
    """
    steps = np.linspace(-1.0, 1.0, 5)
    shift, width = offset + 75.0 * steps, scale + 0.05 * steps
    surface = np.array(
        [[gain(part, velocity + v, s).sum() for s in width] for v in shift]
    )
    noise = inflation(part, surface.max())
    if error > np.ptp(width) / 8:
        return offset, scale, error, noise, offset_error
    found = weigh(shift, width, surface, noise * spatial)
    return *found[:3], noise, found[4]


def inflation(part: Cut, explained: float) -> float:
    """χ² per channel if the lines explain ``explained``; 1 at least."""
    shape = len(part.flux), *part.basis.shape[-2:]
    square, _, rank = normal_equations(
        np.zeros((shape[0], 0, shape[2])),
        np.broadcast_to(part.basis, shape),
        part.prior,
        part.flux,
        part.weight,
    )[2:]
    channels = np.count_nonzero(part.weight) - (rank - part.firm).sum()
    return max((square.sum() - 2 * explained) / max(channels, 1), 1.0)


def weigh(velocity, scale, surface, noise):
    """Posterior mean of offset and width, the latter's sd, ``noise``, the former's sd.

    Parameters
    ----------
    velocity, scale : array, (node,)
    surface : array, (node, node)
        Log likelihood for errors as they are given.
    noise : float
        χ² per channel.
    """
    # Bright lines tell width and offset much better than the nodes' distance.
    smooth = RectBivariateSpline(velocity, scale, surface)
    velocity = np.linspace(velocity[0], velocity[-1], 401)
    scale = np.linspace(scale[0], scale[-1], 401)
    prior = ((scale - SCALE[0]) / SCALE[1]) ** 2 + (velocity[:, None] / OFFSET) ** 2
    log_post = smooth(velocity, scale) / noise - 0.5 * prior
    weight = np.exp(log_post - log_post.max())
    weight /= weight.sum()
    offset, width = weight.sum(axis=1) @ velocity, weight.sum(axis=0) @ scale
    spread = weight.sum(axis=0) @ (scale - width) ** 2
    error = np.sqrt(spread + (scale[1] - scale[0]) ** 2 / 12)
    offset_error = np.sqrt(weight.sum(axis=1) @ (velocity - offset) ** 2)
    return offset, width, error, noise, offset_error


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

"""The wavelength windows around emission lines, and what a line looks like in them."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property, partial

import numpy as np
from jaxtyping import Float

from metalgrad import lines, stars
from metalgrad.lsf import SPEED_OF_LIGHT, profile
from metalgrad.normal import (
    band_cholesky,
    band_solve,
    make_definite,
    normal_equations,
)

REACH = 5.0  # half-width of a line's window, in widths of the LSF ...
LEAST_REACH = 0.008  # ... but no less than this fraction of the wavelength
SCALE = (0.85, 0.25)  # LSF relative to the table: points 0.53-0.83, uniform slit 1


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
        If a line is not known, or none is within range.
    """
    spans, known = [], lines.catalogue()
    lines.check_known(names or ())
    for name in names or known:
        observed = known[name].wavelengths * (1 + redshift)
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
    basis : numpy.ndarray, (..., term, pixel)
        Continuum, with free coefficients.
    modes : numpy.ndarray, (..., mode, pixel)
        What stars may add to it, as in `metalgrad.stars.Light`.
    design : callable
        ``design(velocity, scale)``: `templates` of the complex.
    correlation : numpy.ndarray, (lag,), optional
        Of the noise of channels 0, 1, ... apart; they are independent by default.
    firm : int
        How many of the last terms of ``basis`` have coefficients with a prior of
        N(0, 1) and not a flat one.
    """

    window: Complex
    flux: Float[np.ndarray, "spaxel pixel"]
    weight: Float[np.ndarray, "spaxel pixel"]
    basis: Float[np.ndarray, "... term pixel"]
    modes: Float[np.ndarray, "... mode pixel"]
    design: Callable
    correlation: Float[np.ndarray, " lag"] | None = None
    firm: int = 0

    @property
    def prior(self) -> Float[np.ndarray, "spaxel term"]:
        """Prior precision of the coefficients of ``basis``."""
        found = np.zeros((len(self.flux), self.basis.shape[-2]))
        found[:, found.shape[1] - self.firm :] = 1.0
        return found

    @cached_property
    def white(self) -> "Cut":
        """The same in combinations of channels with independent noise of variance 1.

        Every spaxel then has a continuum of its own, (spaxel, term, pixel), and modes.
        """
        if self.correlation is None:
            return self
        return replace(
            self,
            flux=self.whiten(self.flux[:, None, :])[:, 0],
            weight=np.where(self.weight > 0, 1.0, 0.0),
            basis=self.whiten(self.basis),
            modes=self.whiten(self.modes),
            design=lambda velocity, scale: self.whiten(self.design(velocity, scale)),
            correlation=None,
        )

    def whiten(self, rows) -> Float[np.ndarray, "spaxel row pixel"]:
        """Multiply spectra with a square root ``W`` of the inverse covariance.

        Parameters
        ----------
        rows : array, (..., row, pixel)
            For every spaxel, or the same ones for all.
        """
        rows = rows * np.sqrt(self.weight)[:, None, :]
        return rows if self.correlation is None else band_solve(self._factor, rows)

    @property
    def log_det(self) -> Float[np.ndarray, " spaxel"]:
        """Log determinant of the inverse covariance of the noise."""
        found = np.log(np.where(self.weight > 0, self.weight, 1.0)).sum(axis=1)
        if self.correlation is None:
            return found
        return found - 2 * np.log(self._factor[:, 0]).sum(axis=0)

    @cached_property
    def _factor(self):
        definite = make_definite(self.correlation, self.weight.shape[1])
        return band_cholesky(definite, self.weight > 0)

    def starlit(self, mean, root) -> "Cut":
        """Return the same with stars of which more is known than their prior.

        Parameters
        ----------
        mean : array, (mode,)
            Of the modes' coefficients.
        root : array, (mode, mode)
            Of their covariance ``root rootᵀ``; coefficients of the modes returned have
            a prior of N(0, 1) again.
        """
        basis = self.basis.copy()
        basis[..., 0, :] += mean @ self.modes
        return replace(self, basis=basis, modes=root.T @ self.modes)

    def shine(self, design) -> "Cut":
        """Return the same with the modes in the basis: times how bright spaxels are.

        Parameters
        ----------
        design : array, (spaxel, line, pixel)
            `templates` of the complex, where the lines are.
        """
        count = len(self.flux)
        basis = np.broadcast_to(self.basis, (count, *self.basis.shape[-2:]))
        others = np.concatenate([design, basis[:, 1:]], axis=1)
        flat = np.zeros(others.shape[:2])
        equations = basis[:, :1], others, flat, self.flux, self.weight
        precision, vector = (
            one.reshape(count) for one in normal_equations(*equations)[:2]
        )
        told = precision > 0
        level = np.divide(vector, precision, out=np.zeros(count), where=told)
        light = np.maximum(level, 0.0)[:, None, None] * self.modes
        whole = np.concatenate([basis, light], axis=1)
        return replace(self, basis=whole, modes=light[:, :0], firm=light.shape[1])

    def take(self, rows) -> "Cut":
        """Return the same of some spaxels.

        Parameters
        ----------
        rows : slice or array of int, (spaxel,)
        """
        return replace(self, flux=self.flux[rows], weight=self.weight[rows])

    def total(self) -> "Cut":
        """Return the weighted mean of all spectra, as one spaxel."""
        weight = self.weight.sum(axis=0)
        summed = (self.weight * self.flux).sum(axis=0)
        flux = np.divide(summed, weight, out=np.zeros_like(summed), where=weight > 0)
        return replace(self, flux=flux[None], weight=weight[None])


def cut(spaxels, window, lsf, correlation=None, *, light=None) -> Cut:
    """Cut the channels of one complex out of the spectra.

    Parameters
    ----------
    spaxels : Spaxels
    window : Complex
    lsf : LSF
    correlation : array, (lag,), optional
        As in `Cut`.
    light : metalgrad.stars.Light, optional
        The continuum; straight by default.
    """
    edges, redshift = _edges(spaxels, window), spaxels.redshift
    if light is None:
        (light,) = stars.straight([edges], redshift, lsf, SCALE[0])
    return Cut(
        window,
        np.asarray(spaxels.flux[:, window.pixels], float),
        1 / np.asarray(spaxels.error[:, window.pixels], float) ** 2,
        light.basis,
        light.modes,
        partial(templates, edges, window.lines, redshift, lsf),
        correlation,
    )


def cut_all(spaxels, windows, lsf, correlations=None, *, starry=True) -> list[Cut]:
    """Cut the channels of every complex out of the spectra.

    Parameters
    ----------
    spaxels : Spaxels
    windows : list of Complex
    lsf : LSF
    correlations : list of array, (lag,), optional
        Of each complex, as in `Cut`.
    starry : bool
        Whether stars may have absorption lines; else the continuum is straight.
    """
    shine = stars.illuminate if starry else stars.straight
    edges = [_edges(spaxels, window) for window in windows]
    lights = shine(edges, spaxels.redshift, lsf, SCALE[0])
    correlations = correlations or [None] * len(windows)
    return [
        cut(spaxels, window, lsf, correlation, light=light)
        for window, correlation, light in zip(
            windows, correlations, lights, strict=True
        )
    ]


def _edges(spaxels, window):
    """Edges of a complex's channels [µm]."""
    return spaxels.edges[window.pixels.start : window.pixels.stop + 1]

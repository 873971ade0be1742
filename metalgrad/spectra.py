"""The spectra that a fit predicts, beside those that it saw."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from xarray import DataTree

from metalgrad.compression import drop_outliers
from metalgrad.lsf import LSF
from metalgrad.measures import SAMPLE
from metalgrad.noise import measure_correlation
from metalgrad.tuning import Tuning, light_up
from metalgrad.windows import Cut, cut_all, find_complexes

CUT_OFF = 1e-10  # a continuum term that the data cannot tell stays zero


@dataclass(frozen=True, eq=False)
class Prediction:
    """Data and model of some spaxels in one complex of lines.

    Attributes
    ----------
    lines : tuple of str
        The lines that the model sets.
    wavelength : numpy.ndarray, (pixel,)
        Centres of the bins [um, vacuum, observed].
    flux, error : numpy.ndarray, (spaxel, pixel)
        Data, and their errors times the posterior median of the noise scale
        [1e-20 erg/s/cm2/um]; the error is inf where there is no datum.
    model : numpy.ndarray, (draw, spaxel, pixel)
        Spectra of the posterior's draws, without noise.
    """

    lines: tuple[str, ...]
    wavelength: Float[np.ndarray, " pixel"]
    flux: Float[np.ndarray, "spaxel pixel"]
    error: Float[np.ndarray, "spaxel pixel"]
    model: Float[np.ndarray, "draw spaxel pixel"]

    @property
    def residual(self) -> Float[np.ndarray, "spaxel pixel"]:
        """Data less the median model, over the error; NaN where there is no datum."""
        difference = self.flux - np.median(self.model, axis=0)
        seen = np.isfinite(self.error)
        return np.where(seen, difference / np.where(seen, self.error, 1.0), np.nan)


def brightest(posterior: DataTree, count: int) -> np.ndarray:
    """Find the spaxels whose lines are brightest by the model, brightest first.

    Parameters
    ----------
    posterior : xarray.DataTree
        From `metalgrad.fit`.
    count : int
        How many; fewer where there are fewer.

    Returns
    -------
    numpy.ndarray of int, (count,)
    """
    flux = posterior["posterior_predictive"].dataset["model_flux"]
    total = flux.sum("line").median(SAMPLE).values
    return np.argsort(total)[::-1][:count]


def predict(
    posterior: DataTree,
    spaxels,
    chosen,
    *,
    lsf: LSF | None = None,
    tuning: Tuning | None = None,
) -> list[Prediction]:
    """Predict the spectra of some spaxels, one complex of lines after another.

    Line fluxes are those of the draws. What the fit integrated out is put at its best
    value given them, by weighted least squares: the continuum, lines that the model
    does not set, and, to first order, velocity, width and stars within their errors.

    Parameters
    ----------
    posterior : xarray.DataTree
        From `metalgrad.fit`.
    spaxels : Spaxels
        The data of that fit.
    chosen : array of int, (spaxel,)
        Which spaxels.
    lsf : LSF, optional
        That of the spaxels by default.
    tuning : Tuning, optional
        From `metalgrad.compression.correlated`; found again by default, as in a fit,
        which takes seconds.

    Returns
    -------
    list of Prediction

    Raises
    ------
    ValueError
        If ``spaxels`` are not those of the fit.
    """
    flux = posterior["posterior_predictive"].dataset["model_flux"]
    if len(spaxels) != flux.sizes["spaxel"]:
        raise ValueError(
            f"spaxels has {len(spaxels)} spectra where the fit has "
            f"{flux.sizes['spaxel']}; pass the Spaxels that were fitted"
        )
    chosen, lsf = np.asarray(chosen), lsf or spaxels.lsf
    if tuning is None:
        noise = measure_correlation(spaxels, lsf)
        spaxels, tuning = drop_outliers(spaxels, lsf, correlation=noise)
    windows = find_complexes(spaxels.edges, spaxels.redshift, lsf)
    starry = tuning.stars is not None
    parts = light_up(cut_all(spaxels, windows, lsf, starry=starry), tuning)
    flux = flux.isel(spaxel=chosen).stack(sample=SAMPLE)
    noise = _noise(posterior)
    found = []
    for number, part in enumerate(one.take(chosen) for one in parts):
        lines = tuple(n for n in part.window.lines if n in flux.line.values)
        if not lines:
            continue
        drawn = flux.sel(line=list(lines)).transpose("sample", "spaxel", "line")
        model = _spectra(
            part, lines, drawn.values.astype(float), chosen, tuning, number
        )
        pixels = part.window.pixels
        edges = spaxels.edges[pixels.start : pixels.stop + 1]
        error = spaxels.error[chosen, pixels] * noise.get(lines[0], 1.0)
        centres = (edges[1:] + edges[:-1]) / 2
        found.append(Prediction(lines, centres, part.flux, error, model))
    return found


def _noise(posterior):
    """Posterior median of the noise scale of each line's complex."""
    draws = posterior["posterior"].dataset
    if "noise_scale" not in draws:
        return {}
    scale = draws["noise_scale"].median(SAMPLE)
    return {
        name: float(scale.sel(complex=label))
        for label in scale["complex"].values
        for name in str(label).split("+")
    }


def _spectra(part: Cut, lines, drawn, chosen, tuning, number):
    """Spectra of draws of line fluxes, (draw, spaxel, pixel)."""
    velocity = tuning.velocity[chosen] + tuning.offset[number]
    scale = np.full(len(chosen), tuning.scale[number])
    own = [part.window.lines.index(name) for name in lines]
    rest = [k for k in range(len(part.window.lines)) if k not in own]
    design = part.design(velocity, scale)
    steps = (
        part.design(velocity + 1, scale) - part.design(velocity - 1, scale),
        (part.design(velocity, scale + 1e-3) - part.design(velocity, scale - 1e-3))
        * 1e3,
    )
    typical = np.median(drawn, axis=0)
    shifts = [np.einsum("sl,slp->sp", typical, step[:, own]) / 2 for step in steps]
    part = part.shine(design)
    free = np.concatenate(
        [design[:, rest], np.stack(shifts, axis=1), part.basis], axis=1
    )
    error = np.hypot(tuning.velocity_error[chosen], tuning.offset_error[number])
    prior = np.zeros((len(chosen), len(rest) + 2))
    prior[:, -2] = error**-2.0
    prior[:, -1] = tuning.scale_error[number] ** -2.0
    prior = np.concatenate([prior, part.prior], axis=1)
    fixed = np.einsum("dsl,slp->dsp", drawn, design[:, own])
    residual = part.flux - fixed
    best = _least_squares(free, prior, part.weight, residual)
    return fixed + np.einsum("dst,stp->dsp", best, free)


def _least_squares(free, prior, weight, residual):
    """Best coefficients of the free terms, (draw, spaxel, term)."""
    weighted = free * weight[:, None, :]
    inner = weighted @ np.swapaxes(free, 1, 2)
    terms = np.arange(inner.shape[1])
    inner[:, terms, terms] += prior
    # Terms differ in size by many orders: scale them before what is small is cut off.
    size = np.sqrt(inner[:, terms, terms]) + 1e-150
    scaled = inner / (size[:, :, None] * size[:, None, :])
    inverse = np.linalg.pinv(scaled, rcond=CUT_OFF, hermitian=True)
    onto = np.einsum("stp,dsp->dst", weighted, residual) / size
    return np.einsum("stu,dsu->dst", inverse, onto) / size

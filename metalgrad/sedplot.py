"""Pictures of a fit of stellar populations: posterior in, axes or figure out."""

import matplotlib.pyplot as plt
import numpy as np
from corner import corner as draw_corner
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from xarray import DataTree

from metalgrad import panels

__all__ = ["corner", "history", "spectrum"]

BANDS = ((0.025, 0.975, 0.2), (0.16, 0.84, 0.4))  # of the posterior, and how opaque
SHOWN = 0.99  # of the draws, in a panel of the corner
NAMES = {
    "log_mass": r"log $M_*$",
    "stellar_metallicity": r"$Z/Z_\odot$",
    "a_v": r"$A_V$",
    "log_u": "log U",
    "sfr": r"SFR$_{100}$",
}
UNITS = {"log_mass": r"$M_\odot$", "a_v": "mag", "sfr": r"$M_\odot$ yr$^{-1}$"}


def spectrum(posterior: DataTree) -> Figure:
    """Draw the spectrum, what the fit makes of it, and the residuals.

    Parameters
    ----------
    posterior : xarray.DataTree
        From `metalgrad.sed.fit_sed`.

    Returns
    -------
    matplotlib.figure.Figure
        Data with their errors, the model (median and 95 %), and below them the
        residuals from the median in units of the error.
    """
    data = posterior["observed_data"].dataset
    wave, flux, error = (data[name].values for name in ("wavelength", "flux", "error"))
    model = _draws(posterior, "spectrum")
    scale = 10.0 ** np.floor(np.log10(np.nanmax(np.abs(flux))))
    figure, (upper, lower) = plt.subplots(
        2, 1, figsize=(8.6, 4.8), height_ratios=[3, 1], sharex=True, layout="compressed"
    )
    middle = np.median(model, axis=0)
    upper.fill_between(
        wave, (flux - error) / scale, (flux + error) / scale, step="mid", color="0.85",
        label="error",
    )  # fmt: skip
    upper.step(wave, flux / scale, where="mid", color=panels.GREY, lw=0.8, label="data")
    low, high = np.quantile(model, BANDS[0][:2], axis=0) / scale
    upper.fill_between(wave, low, high, color=panels.BLUE, alpha=0.3, lw=0)
    upper.plot(wave, middle / scale, color=panels.BLUE, lw=1.2, label="fit, 95 %")
    residual = (flux - middle) / error
    lower.step(wave, residual, where="mid", color=panels.GREY, lw=0.8)
    lower.axhspan(-1, 1, color="0.9", lw=0)
    lower.axhline(0, color=panels.BLUE, lw=1)
    limit = 1.1 * max(3.0, np.nanmax(np.abs(residual)))
    lower.set(ylim=(-limit, limit), ylabel=r"resid. [$\sigma$]")
    lower.set(xlabel="observed wavelength [µm]", xlim=(wave[0], wave[-1]))
    power = int(np.log10(scale))
    unit = rf"[$10^{{{power}}}$ erg s$^{{-1}}$ cm$^{{-2}}$ $\AA^{{-1}}$]"
    upper.set_ylabel(f"flux density\n{unit}")
    chi2 = np.nansum(residual**2) / np.isfinite(residual).sum()
    upper.set_title(f"z = {posterior.attrs['redshift']:.3f}, χ² per channel {chi2:.2f}")
    upper.legend(frameon=False, fontsize="small")
    return figure


def history(posterior: DataTree, *, ax: Axes | None = None) -> Axes:
    """Draw the star formation rate against age: median, and 68 and 95 %.

    Parameters
    ----------
    posterior : xarray.DataTree
        From `metalgrad.sed.fit_sed`.
    ax : matplotlib.axes.Axes, optional
        Where to draw; a new figure by default.

    Returns
    -------
    matplotlib.axes.Axes
    """
    ax = ax if ax is not None else plt.subplots(figsize=(6.0, 4.0), layout="tight")[1]
    edges = posterior["constant_data"]["age_edges"].values
    rates = _draws(posterior, "rate")
    for low, high, alpha in BANDS:
        ends = np.quantile(rates, [low, high], axis=0)
        label = f"{100 * (high - low):.0f} %"
        ax.stairs(
            ends[1], edges, baseline=ends[0], fill=True, color=panels.BLUE,
            alpha=alpha, lw=0, label=label,
        )  # fmt: skip
    ax.stairs(
        np.median(rates, axis=0), edges, baseline=None, color=panels.BLUE, lw=1.8,
        label="median",
    )  # fmt: skip
    ax.set(xlabel="age [Myr]", ylabel=r"star formation rate [$M_\odot$ yr$^{-1}$]")
    ax.set(xlim=(edges[0], edges[-1]), yscale="log")
    ax.yaxis.set_major_formatter("{x:g}")
    ax.yaxis.set_minor_formatter("{x:g}")
    ax.tick_params(axis="y", which="minor", labelsize="small")
    low, middle, high = np.quantile(_draws(posterior, "log_mass"), [0.16, 0.5, 0.84])
    ax.set_title(
        rf"log $M_*/M_\odot$ = {middle:.2f} $^{{+{high - middle:.2f}}}"
        rf"_{{-{middle - low:.2f}}}$",
        fontsize="medium",
    )
    ax.legend(frameon=False, fontsize="small")
    return ax


def corner(posterior: DataTree) -> Figure:
    """Draw the joint posterior of mass, metallicity, dust, log U and rate.

    Parameters
    ----------
    posterior : xarray.DataTree
        From `metalgrad.sed.fit_sed`.

    Returns
    -------
    matplotlib.figure.Figure
        Contours that hold 39 and 86 % (one and two sigma of a plane), medians with
        68 %.
    """
    draws = np.stack([_draws(posterior, name) for name in NAMES], axis=-1)
    labels = [
        f"{text} [{UNITS[name]}]" if name in UNITS else text
        for name, text in NAMES.items()
    ]
    return draw_corner(
        draws,
        range=[SHOWN] * len(NAMES),
        labels=labels,
        titles=list(NAMES.values()),
        color=panels.BLUE,
        levels=1 - np.exp(-(np.array([1.0, 2.0]) ** 2) / 2),
        quantiles=[0.16, 0.5, 0.84],
        show_titles=True,
        title_kwargs={"fontsize": "small"},
        plot_datapoints=False,
        smooth=1.0,
        max_n_ticks=4,
    )


def _draws(posterior, name):
    """All draws of one variable, (draw, ...)."""
    values = posterior["posterior"][name].values
    return values.reshape(-1, *values.shape[2:])

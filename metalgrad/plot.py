"""Pictures of a fit: posterior in, axes or figure out."""

from collections.abc import Sequence

import matplotlib.pyplot as plt
import numpy as np
from corner import corner as draw_corner
from corner import overplot_points
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from xarray import DataTree

from metalgrad import checks, panels
from metalgrad.maps import celestial, centre, lay_out
from metalgrad.measures import SAMPLE
from metalgrad.sheets import against_annuli as against_annuli
from metalgrad.sheets import overview as overview
from metalgrad.spectra import brightest, predict

FIELD = ("slope", "inner_slope", "outer_slope", "break_radius", "level", "dipole")
FIELD += ("contrast", "source_level", "source_slope")
PARAMETERS = (*FIELD, "scatter", "rho", "reddening")
NAMES = {
    "slope": "slope",
    "inner_slope": "inner slope",
    "outer_slope": "outer slope",
    "break_radius": "break radius",
    "contrast": "contrast of the clump",
    "source_slope": "slope about sources",
    "level": "12 + log(O/H) at pivot",
    "central": "central 12 + log(O/H)",
    "scatter": "scatter",
    "rho": r"shared dispersion $\rho$",
    "reddening": "median E(B−V)",
}


def gradient(
    posterior: DataTree, *, ax: Axes | None = None, points: Sequence | None = None
) -> Axes:
    """Draw metallicity against radius.

    The mean field (median, and bands that hold 68 and 95 %; of each solution where
    there are several), and each spaxel's metallicity (median and 68 %). What lies
    outside the calibration's range is hatched.

    Parameters
    ----------
    posterior : xarray.DataTree
        From `metalgrad.fit`.
    ax : matplotlib.axes.Axes, optional
        Where to draw; a new figure by default.
    points : tuple of array, optional
        Other people's radius [as the fit's], 12+log(O/H), and its error (or a pair of
        errors, down and up).

    Returns
    -------
    matplotlib.axes.Axes
    """
    ax = ax if ax is not None else plt.subplots(figsize=(6.4, 4.6), layout="tight")[1]
    length = posterior.attrs.get("length", "kpc")
    radius = posterior["constant_data"].dataset["radius"].values
    panels.draw_spaxels(ax, radius, posterior["posterior"].dataset["metallicity"])
    farthest = np.max([radius.max(), *np.ravel(points[0] if points is not None else 0)])
    # A spectrum of one spaxel at the centre needs some length of axis, too.
    radii = np.linspace(0, 1.04 * farthest or 1.0, 100)
    panels.draw_field(ax, posterior, radii)
    if points is not None:
        panels.draw_points(ax, *points)
    ax.set_xlim(0, radii[-1])
    panels.hatch_invalid(ax, np.ravel(posterior.attrs.get("valid", [])))
    ax.set(xlabel=panels.label("radius", length), ylabel="12 + log(O/H)")
    ax.set_title(panels.title(posterior), fontsize="medium")
    panels.add_effective_radii(ax, posterior.attrs)
    panels.add_legend(ax)
    return ax


def maps(posterior: DataTree) -> Figure:
    """Draw maps of metallicity, its uncertainty, dust and line flux.

    They are cropped to the galaxy; a cross marks its centre.

    Parameters
    ----------
    posterior : xarray.DataTree
        From `metalgrad.fit`.

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    ValueError
        If the fit has no rows and columns of spaxels.
    """
    found, wcs, middle = lay_out(posterior), celestial(posterior), centre(posterior)
    wanted = ["METALLICITY", "METALLICITY_SD", "EBV"]
    wanted += [name for name in found if name not in (*wanted, "EBV_SD")][:1]
    figure = plt.figure(figsize=(8.6, 6.8), layout="compressed")
    for place, name in enumerate(wanted):
        ax = figure.add_subplot(2, 2, place + 1, projection=wcs)
        panels.draw_map(ax, found[name], name)
        if middle is not None:
            panels.mark_centre(ax, *middle)
        panels.label_sky(ax, wcs, bottom=place > 1, left=place % 2 == 0)
    figure.suptitle(posterior.attrs.get("target", ""))
    return figure


def spectra(posterior: DataTree, spaxels, *, count: int = 4, tuning=None) -> Figure:
    """Draw the spectra of the brightest spaxels and what the fit makes of them.

    Parameters
    ----------
    posterior : xarray.DataTree
        From `metalgrad.fit`.
    spaxels : Spaxels
        The data of that fit.
    count : int
        How many spaxels, one row each.
    tuning : Tuning, optional
        From `metalgrad.compress`; found again by default, which takes seconds.

    Returns
    -------
    matplotlib.figure.Figure
        Data with their errors times the noise scale, the model (median and 95 %), and
        below them the residuals in units of that error.

    Raises
    ------
    ValueError
        If ``spaxels`` are not those of the fit.
    """
    chosen = brightest(posterior, count)
    found = predict(posterior, spaxels, chosen, tuning=tuning)
    figure, axes = plt.subplots(
        2 * len(chosen),
        len(found),
        figsize=(3.0 * len(found) + 0.8, 2.3 * len(chosen) + 0.8),
        height_ratios=[3, 1] * len(chosen),
        width_ratios=[len(one.wavelength) ** 0.5 for one in found],
        sharex="col",
        squeeze=False,
        layout="constrained",
    )
    for row, spaxel in enumerate(chosen):
        for one, upper, lower in zip(found, *axes[2 * row : 2 * row + 2], strict=True):
            panels.draw_spectrum(upper, lower, one, row)
            panels.mark_lines(upper, one, spaxels.redshift, with_names=row == 0)
        axes[2 * row, 0].set_ylabel(_place(spaxels, spaxel), fontsize="small")
        axes[2 * row + 1, 0].set_ylabel(r"resid. [$\sigma$]", fontsize="small")
    figure.get_layout_engine().set(hspace=0.0, h_pad=0.04)
    figure.supxlabel("observed wavelength [µm]", fontsize="medium")
    unit = r"[$10^{-20}$ erg s$^{-1}$ cm$^{-2}$ µm$^{-1}$]"
    figure.supylabel(f"flux density\n{unit}", fontsize="medium")
    return figure


def corner(posterior: DataTree, names: Sequence[str] | None = None) -> Figure:
    """Draw the joint posterior of the galaxy's parameters, pair by pair.

    Parameters
    ----------
    posterior : xarray.DataTree
        From `metalgrad.fit`.
    names : sequence of str, optional
        Parameters, or entries such as ``noise_scale[Hbeta+OIII]``; by default those of
        the field, scatter, rho and reddening, where the model draws them.

    Returns
    -------
    matplotlib.figure.Figure
        Contours that hold 39 and 86 % (one and two sigma of a plane), medians with
        68 %, and divergent transitions as crosses.

    Raises
    ------
    ValueError
        If the fit has no such parameter.
    """
    chosen = _choose(posterior, names)
    draws = np.stack([values.ravel() for values in chosen.values()], axis=-1)
    figure = draw_corner(
        draws,
        labels=list(chosen),
        titles=[label.partition(" [")[0] for label in chosen],
        color=panels.BLUE,
        levels=1 - np.exp(-(np.array([1.0, 2.0]) ** 2) / 2),
        quantiles=[0.16, 0.5, 0.84],
        show_titles=True,
        title_fmt=".3f",
        title_kwargs={"fontsize": "small"},
        plot_datapoints=False,
        smooth=1.0,
        max_n_ticks=4,
    )
    wild = _divergent(posterior)
    if wild is not None and wild.any():
        overplot_points(figure, draws[wild.ravel()], marker="x", color=panels.RED, ms=5)
    return figure


def trace(posterior: DataTree, names: Sequence[str] | None = None) -> Figure:
    """Draw the chains of the galaxy's parameters, and how evenly their ranks fall.

    Chains that agree have flat histograms of ranks (Vehtari et al. 2021, Bayesian
    Analysis 16, 667).

    Parameters
    ----------
    posterior : xarray.DataTree
        From `metalgrad.fit`.
    names : sequence of str, optional
        As in `corner`.

    Returns
    -------
    matplotlib.figure.Figure
        One row per parameter: chains with divergent transitions as ticks, and ranks
        among all draws, relative to even.

    Raises
    ------
    ValueError
        If the fit has no such parameter.
    """
    chosen, wild = _choose(posterior, names), _divergent(posterior)
    figure, axes = plt.subplots(
        len(chosen), 2, figsize=(9.0, 1.5 * len(chosen) + 0.6), width_ratios=[3, 2],
        sharex="col", squeeze=False, layout="constrained",
    )  # fmt: skip
    for row, (label, values) in zip(axes, chosen.items(), strict=True):
        panels.draw_chains(*row, values, wild)
        row[0].set_ylabel(label.replace(" [", "\n["), fontsize="small")
    axes[-1, 0].set_xlabel("draw")
    axes[-1, 1].set_xlabel("rank among all draws")
    axes[0, 1].set_title("draws per bin, relative to even", fontsize="small")
    return figure


def _place(spaxels, number):
    row, column = spaxels.index[number]
    return f"spaxel ({column}, {row})\n{spaxels.radius[number]:.2f} kpc"


def _choose(posterior, names):
    """Draws of the parameters asked for, (chain, draw) each, by their labels."""
    known = checks.galaxy_draws(posterior)
    stems = {name: name.partition("[")[0] for name in known}
    wanted = (
        PARAMETERS if names is None else [names] if isinstance(names, str) else names
    )
    missing = [name for name in wanted if name not in {*known, *stems.values()}]
    if missing and names is not None:
        raise ValueError(
            f"the fit has no parameter {', '.join(missing)}; choose among "
            f"{', '.join(known)}"
        )
    units = {n: v.attrs.get("units", "") for n, v in posterior["posterior"].items()}
    return {
        panels.label(NAMES.get(name, name), units[stem]): known[name]
        for want in wanted
        for name, stem in stems.items()
        if want in (name, stem)
    }


def _divergent(posterior):
    """Which draws diverged, (chain, draw), if it is known."""
    if "sample_stats" not in posterior.children:
        return None
    statistics = posterior["sample_stats"].dataset
    if "diverging" not in statistics:
        return None
    return statistics["diverging"].transpose(*SAMPLE).values.astype(bool)

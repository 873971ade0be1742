"""Criticism of a fit, in pictures: numbers of it in, figure out."""

from itertools import pairwise

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure
from scipy.stats import kstwo
from xarray import Dataset, DataTree

from metalgrad import lines, panels
from metalgrad.maps import Map, celestial
from metalgrad.measures import SAMPLE

BAND = 0.95
SHOWN = 12  # draws, of a line's
COLUMNS = 4  # panels in a row
FAINT = 3.0  # S/N of a line below which a spaxel's ratio is noise, and is not drawn


def pit(found: Dataset) -> Figure:
    """Draw how far observed fluxes are from falling evenly among predicted ones.

    Parameters
    ----------
    found : xarray.Dataset
        From `metalgrad.criticism.pit`.

    Returns
    -------
    matplotlib.figure.Figure
        For each line the share of fluxes below a probability, less that probability:
        at some draws of the model's fluxes (blue), of which 95 % stay inside the grey
        band all the way if model and noise are right (Kolmogorov and Smirnov's); and of
        the posterior predictive (orange), which has seen the data and bends from above
        on the right to below on the left in any good fit.
    """
    names = [str(name) for name in found["line"].values]
    figure, axes = _grid(len(names), (2.5, 2.2), sharex=True, sharey=True)
    for ax, name in zip(axes, names, strict=True):
        one = found.sel(line=name)
        _draw_band(ax, float(one["effective"]))
        draws = one["pit"].stack(sample=SAMPLE).transpose("sample", "spaxel").values
        for number, values in enumerate(draws[:: -(-len(draws) // SHOWN)]):
            said = "at draws of the model" if number == 0 else None
            _draw_excess(ax, values, color=panels.BLUE, lw=0.6, alpha=0.6, label=said)
        _draw_excess(
            ax, one["predictive"].values, color=panels.ORANGE, lw=1.6,
            label="predictive, conservative",
        )  # fmt: skip
        p = float(one["p"])
        ax.set_title(f"{_name(name)}: p = {p:.2g}", fontsize="small")
    figure.legend(
        *axes[0].get_legend_handles_labels(), loc="outside upper center", ncols=3,
        frameon=False, fontsize="small",
    )  # fmt: skip
    figure.supxlabel("probability integral transform", fontsize="medium")
    figure.supylabel("share below it, less itself", fontsize="medium")
    return figure


def chi2_map(posterior: DataTree, images: dict[str, Map]) -> Figure:
    """Draw the map of chi2 per line, and of its p-value.

    Parameters
    ----------
    posterior : xarray.DataTree
        From `metalgrad.fit`.
    images : dict of str to Map
        From `metalgrad.criticism.chi2_images`.

    Returns
    -------
    matplotlib.figure.Figure
    """
    wcs = celestial(posterior)
    figure = plt.figure(figsize=(8.6, 3.7), layout="compressed")
    for place, name in enumerate(("CHI2", "CHI2_P")):
        ax = figure.add_subplot(1, 2, place + 1, projection=wcs)
        panels.draw_map(ax, images[name], name)
        panels.label_sky(ax, wcs, bottom=True, left=place == 0)
    figure.suptitle(posterior.attrs.get("target", ""))
    return figure


def prior_ratios(found: DataTree) -> Figure:
    """Draw line ratios that the prior allows, and those observed.

    Parameters
    ----------
    found : xarray.DataTree
        From `metalgrad.assumptions.prior_predictive`.

    Returns
    -------
    matplotlib.figure.Figure
        Each ratio against the one before it (a single one: its distribution).  Grey:
        a spaxel of each galaxy of the prior, without noise; blue: spaxels of the data
        in which every line of both has S/N above 3; red: all spaxels added up.
    """
    ratios = [str(name) for name in found["observed_data"]["ratio"].values]
    pairs = list(pairwise(ratios)) or [(ratios[0],)]
    figure, axes = _grid(len(pairs), (3.4, 3.2))
    for ax, pair in zip(axes, pairs, strict=True):
        _draw_cloud(ax, found, pair)
    axes[0].legend(frameon=False, fontsize="small")
    return figure


def _draw_cloud(ax, found, pair):
    observed, known = found["observed_data"], found["constant_data"]
    prior = found["prior_predictive"]["one_log_ratio"].sel(ratio=list(pair))
    prior = prior.stack(sample=SAMPLE).transpose("ratio", "sample").values
    whole = observed["log_ratio"].sel(ratio=list(pair)).values
    labels = [lines.ratio(name).label for name in pair]
    ax.set_xlabel(labels[0], fontsize="small")
    if len(pair) == 1:
        seen = prior[0][np.isfinite(prior[0])]
        ax.hist(seen, 40, density=True, color="0.7", label="prior")
        ax.axvline(whole[0], color=panels.RED, label="all spaxels")
        return
    bright = (known["signal"].sel(ratio=list(pair)) > FAINT).all("ratio").values
    spaxels = observed["spaxel_log_ratio"].sel(ratio=list(pair)).values[bright].T
    ax.plot(*prior, ".", color="0.7", ms=3, mew=0, zorder=1, label="prior")
    ax.plot(*spaxels, "o", color=panels.BLUE, ms=3, mew=0, zorder=2, label="spaxels")
    ax.plot(*whole, "*", color=panels.RED, ms=9, zorder=3, label="all spaxels")
    ax.set_ylabel(labels[1], fontsize="small")
    for limit, values in zip((ax.set_xlim, ax.set_ylim), prior, strict=True):
        low, high = np.nanquantile(values, [0.005, 0.995])
        limit(low - 0.1, high + 0.1)


def _draw_band(ax, count):
    reach = kstwo.ppf(BAND, max(1, round(count)))
    probability = np.linspace(0, 1, 101)
    low, high = np.maximum(-reach, -probability), np.minimum(reach, 1 - probability)
    said = f"{BAND:.0%} of draws stay inside"
    ax.fill_between(probability, low, high, color="0.88", lw=0, label=said)
    ax.axhline(0, color=panels.GREY, lw=0.8)
    ax.set_xticks([0, 0.5, 1])


def _draw_excess(ax, values, **style):
    ordered = np.sort(values[np.isfinite(values)])
    share = np.arange(len(ordered) + 2) / max(len(ordered), 1)
    share[-1] = 1.0
    place = np.concatenate([[0], ordered, [1]])
    # Every step has a corner above and one below.
    twice = np.repeat(share, 2)
    ax.plot(np.repeat(place, 2)[1:], (twice[:-1] - np.repeat(place, 2)[1:]), **style)


def _name(line):
    return panels.LINES.get(line, line)


def _grid(count, size, **shared):
    """Axes for ``count`` panels, in rows."""
    columns = min(count, COLUMNS)
    rows = -(-count // columns)
    figure, axes = plt.subplots(
        rows, columns, squeeze=False, layout="constrained",
        figsize=(size[0] * columns + 0.4, size[1] * rows + 0.4), **shared,
    )  # fmt: skip
    for spare in axes.flat[count:]:
        spare.remove()
    return figure, axes.flat[:count]

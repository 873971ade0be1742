"""Pictures of ranks: how far from uniform they are."""

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure

from metalgrad import panels
from metalgrad.coverage import BAND, exceed

COLUMNS = 4  # panels in a row


def ranks(places: dict, seed: int) -> Figure:
    """Draw where the truths of replicas fall in their posteriors.

    Parameters
    ----------
    places : dict of str to array, (replica,)
        From `metalgrad.coverage.place_evenly`.
    seed : int
        Of the simulations that set the band.

    Returns
    -------
    matplotlib.figure.Figure
        For each parameter the share of truths below a quantile of their posteriors,
        less that quantile.  A curve from above on the left to below on the right: the
        posteriors are too narrow; the other way round: too wide; an arch or a bowl:
        biased.  95 % of curves stay within the grey band all the way if all is well;
        those that do not are red.
    """
    columns = min(len(places), COLUMNS)
    rows = -(-len(places) // columns)
    figure, axes = plt.subplots(
        rows, columns, squeeze=False, sharex=True, sharey=True, layout="constrained",
        figsize=(2.5 * columns + 0.4, 1.9 * rows + 0.5),
    )  # fmt: skip
    for ax, (name, values) in zip(axes.flat, places.items(), strict=False):
        found = exceed(values, seed)
        ax.fill_between(found.place, found.lower, found.upper, color="0.88", lw=0)
        ax.axhline(0, color=panels.GREY, lw=0.8)
        colour = panels.BLUE if found.inside else panels.RED
        ax.plot(*_corners(values), color=colour, lw=1.2)
        ax.set_title(name.replace("_", " "), fontsize="small")
        ax.set_xticks([0, 0.5, 1])
    for spare in axes.flat[len(places) :]:
        spare.remove()
    count = len(next(iter(places.values())))
    figure.suptitle(
        f"{count} galaxies of the prior; grey: {BAND:.0%} simultaneous band",
        fontsize="medium",
    )
    figure.supxlabel("rank of the truth in its posterior", fontsize="medium")
    figure.supylabel("share below it, less itself", fontsize="medium")
    return figure


def _corners(values):
    """Return the corners of an ECDF's steps, less the uniform one."""
    ordered = np.concatenate([[0], np.sort(values), [1]])
    share = np.arange(len(ordered) - 1) / len(values)
    place = np.repeat(ordered, 2)[1:-1]
    return place, np.repeat(share, 2) - place

"""Pictures of a gradient measured in annuli: its result in, axes or figure out."""

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes

from metalgrad import panels


def annuli(result, *, ax: Axes | None = None, color: str = panels.BLUE) -> Axes:
    """Draw metallicities of annuli, and the straight line through them.

    As Fig. 6 of Venturi et al. (2024): error bars hold the central 68 %, arrows are
    limits where the calibration ends, the band is the line's standard error.

    Parameters
    ----------
    result : AnnularGradient
        From `metalgrad.annular_gradient`.
    ax : matplotlib.axes.Axes, optional
        Where to draw; a new figure by default.
    color : str
        Of the straight line.

    Returns
    -------
    matplotlib.axes.Axes
    """
    ax = ax if ax is not None else plt.subplots(figsize=(6.4, 4.6), layout="tight")[1]
    found, line, used = result.metallicity, result.line, np.isfinite(result.error)
    down, up = (
        np.maximum(sign * (end - found.metallicity), 0)[used]
        for sign, end in ((-1, found.lower), (1, found.upper))
    )
    panels.draw_points(
        ax, result.radius[used], found.metallicity[used], np.array([down, up])
    )
    limits = found.at_edge & np.isfinite(found.metallicity)
    if limits.any():
        ax.plot(
            result.radius[limits], found.metallicity[limits], "x", color=panels.GREY,
            label="at the calibration's end",
        )  # fmt: skip
    radius = np.linspace(0, 1.05 * result.radius[used | limits].max(), 100)
    terms = np.stack([radius, np.ones_like(radius)])
    middle = line.central + line.slope * radius
    error = np.sqrt(np.einsum("ir,ij,jr->r", terms, line.covariance, terms))
    ax.fill_between(
        radius, middle - error, middle + error, color=color, alpha=0.25, lw=0
    )
    ax.plot(radius, middle, color=color, lw=2, label="straight line (68 %)")
    ax.set(
        xlim=(0, radius[-1]),
        xlabel=panels.label("radius", "kpc"),
        ylabel="12 + log(O/H)",
    )
    said = rf"{line.slope:.3f} $\pm$ {line.slope_error:.3f} dex / kpc"
    ax.set_title(f"{result.target.name}: {said}", fontsize="medium")
    panels.add_effective_radii(
        ax, {"length": "kpc", "effective_radius": result.size.kpc}
    )
    ax.legend(frameon=False, fontsize="small", loc="best")
    return ax

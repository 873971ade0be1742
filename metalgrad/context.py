"""Pictures of galaxies among those of others: posteriors in, axes out.

Each draws the galaxies it is given over the tables of `metalgrad.literature`. Galaxies
come by name, with a list of points each; a coordinate of a point is whatever
`metalgrad.literature.summarise` takes: a posterior, draws, or ``(value, error)``.

Figure 5 of Venturi et al. (2024), with a galaxy of one's own::

    figure, (left, right) = plt.subplots(1, 2, figsize=(15, 4.8), layout="constrained")
    context.main_sequence({"mine": [(mass, (3.5, 0.2))]}, ax=left)
    context.mass_metallicity({"mine": [(mass, posterior)]}, ax=right)
"""

from collections.abc import Mapping

import matplotlib.pyplot as plt
import numpy as np
from astropy.cosmology import Planck18
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from xarray import DataTree

from metalgrad import backdrop, literature, panels

__all__ = ["gradient_evolution", "main_sequence", "mass_metallicity"]

MASSES = (6.3, 10.3)  # of the panels [log solMass]
RATES = (0.02, 500.0)  # [solMass / yr]
METALLICITIES = (6.8, 9.0)  # 12 + log(O/H)
REDSHIFTS = (0.0, 9.0)
GRADIENTS = (-0.45, 0.35)  # [dex / kpc]: all that others measured
MARGIN = 0.05  # of a panel, about a point that would fall outside
AGES = (13, 8, 5, 3, 2, 1.5, 1, 0.7, 0.5)  # ticks of cosmic time [Gyr]
COLOURS = (panels.RED, panels.GREEN, panels.BLUE, panels.ORANGE)
MARKERS = "oDs^v"
MASS = r"log ($M_*$ / $M_\odot$)"


def main_sequence(
    galaxies: Mapping | None = None, *, redshift: float = 8.0, ax: Axes | None = None
) -> Axes:
    """Draw star formation rate against stellar mass.

    Behind are galaxies at z of 3 to 10 and the main sequence of Popesso et al. (2023),
    of today and at ``redshift``, dotted where it is extrapolated.

    Parameters
    ----------
    galaxies : mapping of str to sequence of (mass, rate), optional
        Stellar mass [log solMass], or a posterior of `metalgrad.fit_sed`; and star
        formation rate [solMass / yr], or such a posterior, which knows it.
    redshift : float
        Of the main sequence.
    ax : matplotlib.axes.Axes, optional
        Where to draw; a new figure by default.

    Returns
    -------
    matplotlib.axes.Axes

    Raises
    ------
    ValueError
        If a point is no pair of measurements, or a rate is not above 0.
    """
    points = _read(galaxies, ("log_mass",), ("sfr",))
    for name, found in points.items():
        if (found[:, 1, 0] <= 0).any():
            raise ValueError(
                f"{name} has a star formation rate that is not above 0; give rates in "
                "solMass / yr, not their logarithms, and leave out limits"
            )
    ax = _axes(ax)
    ax.set(yscale="log", xlim=_cover(MASSES, points, 0), xlabel=MASS)
    ax.set_ylim(_cover(RATES, points, 1))
    ax.set_ylabel(r"star formation rate [$M_\odot$ yr$^{-1}$]")
    ax.yaxis.set_major_formatter("{x:g}")
    backdrop.draw_surveys(ax, "log_sfr")
    backdrop.draw_sequences(ax, ax.get_xlim(), (0.0, redshift))
    return _finish(ax, points)


def mass_metallicity(
    galaxies: Mapping | None = None, *, redshift: float = 8.0, ax: Axes | None = None
) -> Axes:
    """Draw metallicity against stellar mass.

    Behind are galaxies at z of 3 to 10, relations fitted to samples of galaxies (black)
    and predicted by simulations (coloured). A relation is thin, and crosses the panel,
    where the source of its numbers states no range; simulations are not cut at their
    resolution.

    Parameters
    ----------
    galaxies : mapping of str to sequence of (mass, metallicity), optional
        Stellar mass [log solMass], or a posterior of `metalgrad.fit_sed`; and
        12 + log(O/H), or a posterior of `metalgrad.fit`, of which the level at the
        pivot radius is taken, or that at the centre if it has no such level.
    redshift : float
        Of the simulations, which are there at 0, 3, 5 and 8: the nearest is drawn.
    ax : matplotlib.axes.Axes, optional
        Where to draw; a new figure by default.

    Returns
    -------
    matplotlib.axes.Axes

    Raises
    ------
    ValueError
        If a point is no pair of measurements.
    """
    points = _read(galaxies, ("log_mass",), ("level", "central"))
    ax = _axes(ax)
    ax.set(xlim=_cover(MASSES, points, 0), ylim=_cover(METALLICITIES, points, 1))
    ax.set(xlabel=MASS, ylabel="12 + log(O/H)")
    backdrop.draw_surveys(ax, "metallicity")
    backdrop.draw_relations(ax, ax.get_xlim())
    backdrop.draw_simulations(ax, redshift)
    return _finish(ax, points)


def gradient_evolution(
    galaxies: Mapping | None = None, *, ax: Axes | None = None
) -> Axes:
    """Draw metallicity gradients against redshift and cosmic time.

    Behind are gradients that others measured (grey: a hatched box is what a sample
    spans, an open symbol was digitised and has no error) and predicted (coloured: a
    band holds 68 %, a thin line was digitised).

    Parameters
    ----------
    galaxies : mapping of str to sequence, optional
        Posteriors of `metalgrad.fit` that have a slope in dex / kpc; or pairs of
        redshift and gradient [dex / kpc].
    ax : matplotlib.axes.Axes, optional
        Where to draw; a new figure by default.

    Returns
    -------
    matplotlib.axes.Axes
        Even in log(1 + z); the axis above is the age of the Universe (Planck18).

    Raises
    ------
    ValueError
        If a posterior has no slope in dex / kpc or no redshift, or a point is no pair.
    """
    placed = {
        n: [_place(one, n) for one in many] for n, many in (galaxies or {}).items()
    }
    points = _read(placed, (), ("slope",))
    ax = _axes(ax, (11.0, 6.0))
    ax.set_xscale("function", functions=(_stretch, _shrink))
    ax.set(xlim=_cover(REDSHIFTS, points, 0), ylim=_cover(GRADIENTS, points, 1))
    ax.set(xticks=range(int(ax.get_xlim()[1]) + 1), xlabel="redshift")
    ax.set_ylabel("metallicity gradient [dex / kpc]")
    ax.axhline(0, color="0.6", lw=0.8, zorder=0)
    backdrop.draw_tracks(ax)
    backdrop.draw_gradients(ax)
    _add_ages(ax)
    return _finish(ax, points)


def _read(galaxies, *names):
    """Read the points of every galaxy: (point, axis, (value, plus, minus)) by name."""
    found = {}
    for galaxy, many in (galaxies or {}).items():
        for pair in many:
            if not isinstance(pair, tuple | list) or len(pair) != len(names):
                raise ValueError(
                    f"a point of {galaxy} is {pair!r:.60}; give a list of pairs "
                    "(x, y), each a posterior, draws, a number or (value, error)"
                )
            each = zip(pair, names, strict=True)
            point = [literature.summarise(one, *wanted) for one, wanted in each]
            found.setdefault(galaxy, []).append(point)
    return {galaxy: np.array(points) for galaxy, points in found.items()}


def _place(one, galaxy):
    """Put the gradient of a posterior at its redshift."""
    if not isinstance(one, DataTree):
        return one
    slope = one["posterior"].dataset.get("slope")
    unit = "none" if slope is None else slope.attrs.get("units", "none")
    redshift = one.attrs.get("redshift", np.nan)
    if unit != "dex / kpc" or not np.isfinite(redshift):
        raise ValueError(
            f"the posterior of {galaxy} has a slope in {unit} at redshift {redshift}; "
            "this picture needs dex / kpc and a redshift: give (redshift, (value, "
            "error)), or fit with a redshift and kpc_per_arcsec"
        )
    return redshift, one


def _axes(ax, size=(9.0, 4.8)):
    """Make axes where none are given, with room for a legend on their right."""
    return ax if ax is not None else plt.subplots(figsize=size, layout="tight")[1]


def _cover(limits, points, axis):
    """Widen the limits of an axis to all of the points and their errors."""
    ends = [limits]
    for found in points.values():
        value, plus, minus = np.nan_to_num(found[:, axis]).T
        pad = MARGIN * np.ptp(limits)
        is_out = (value + plus > limits[1]) | (value - minus < limits[0])
        ends += list(np.c_[value - minus - pad, value + plus + pad][is_out])
    return min(low for low, _ in ends), max(high for _, high in ends)


def _finish(ax, points):
    """Draw the galaxies over what is there, and explain all of it beside the axes."""
    for number, (name, found) in enumerate(points.items()):
        (x, *x_errors), (y, *y_errors) = found.transpose(1, 2, 0)
        ax.errorbar(
            x, y, np.nan_to_num(y_errors[::-1]), np.nan_to_num(x_errors[::-1]),
            fmt=MARKERS[number % len(MARKERS)], color=COLOURS[number % len(COLOURS)],
            ms=8, mec="black", mew=0.8, lw=1.6, zorder=6, label=name,
        )  # fmt: skip
    # Galaxies first, then what others measured, then their curves.
    entries = sorted(
        zip(*ax.get_legend_handles_labels(), strict=True),
        key=lambda entry: (entry[1] not in points) + isinstance(entry[0], Line2D),
    )
    ax.legend(
        *zip(*entries, strict=True), frameon=False,
        fontsize="x-small", loc="upper left", bbox_to_anchor=(1.01, 1.0),
        borderaxespad=0.0, handlelength=2.6,
    )  # fmt: skip
    return ax


def _stretch(redshift):
    """Scale of the redshifts: log(1 + z), in which cosmic time is less crowded."""
    return np.log10(np.maximum(1 + redshift, 1e-3))


def _shrink(stretched):
    return 10**stretched - 1


def _add_ages(ax):
    """Add an axis above with the age of the Universe."""
    low, high = ax.get_xlim()
    grid = np.geomspace(1 + low, 1 + high, 200) - 1
    age = Planck18.age(grid).to_value("Gyr")
    shown = [one for one in AGES if age[-1] <= one <= age[0]]
    upper = ax.secondary_xaxis("top")
    upper.set_xticks(np.interp(shown, age[::-1], grid[::-1]), [f"{a:g}" for a in shown])
    upper.set_xlabel("age of the Universe [Gyr]")

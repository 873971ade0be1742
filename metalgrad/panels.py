"""What a picture is made of: each function draws one thing into axes it is given."""

import numpy as np
from matplotlib.colors import LogNorm
from scipy.stats import rankdata

from metalgrad import lines
from metalgrad.measures import SAMPLE
from metalgrad.profiles import rise
from metalgrad.solutions import solutions

# Okabe & Ito (2008): eight colours that the colour-blind tell apart.
BLUE, RED, GREEN, ORANGE = "#0072B2", "#D55E00", "#009E73", "#E69F00"
SKY, PINK, YELLOW, BLACK = "#56B4E9", "#CC79A7", "#F0E442", "#000000"
CHAINS = (BLUE, ORANGE, GREEN, PINK, SKY, RED, YELLOW, BLACK)
GREY = "0.4"

LINES = {
    "OII": "[O II]",
    "NeIII": "[Ne III]",
    "Hdelta": "Hδ",
    "Hgamma": "Hγ",
    "OIII_4364": "[O III]",
    "Hbeta": "Hβ",
    "OIII": "[O III]",
    "NII": "[N II]",
    "Halpha": "Hα",
    "SII": "[S II]",
}
COLOURS = {"METALLICITY": "viridis", "EBV": "cividis"}  # of maps; of others: magma
BROKEN = ("inner_slope", "outer_slope", "break_radius")
PROFILE = ("central", "slope", *BROKEN)
CROWDED = 100  # spaxels beyond which error bars must be faint
CLOSE = 0.09  # of a panel's width: names of lines nearer than that share a place
RANKS = 20  # bins of a histogram of ranks


def spell(unit: str) -> str:
    """Set a unit as the journals do."""
    for plain, set_ in {
        "R_e": r"$R_\mathrm{e}$",
        "10**-20 erg s-1 cm-2": r"$10^{-20}$ erg s$^{-1}$ cm$^{-2}$",
    }.items():
        unit = unit.replace(plain, set_)
    return unit.replace(" / ", "/").replace("/", " / ")


def label(name: str, unit: str) -> str:
    """Label an axis with a name and, where it has one, a unit."""
    bare = unit in ("", "1") or "log" in unit
    return name if bare else f"{name} [{spell(unit)}]"


def draw_field(ax, posterior, radius):
    """Draw the mean field at some radii: median, and bands of 68 and 95 %.

    Of several solutions each is drawn, with its weight beside its end.  A tilt is
    averaged over, and a clump left out.  A field of several sources has no such curve:
    nothing is drawn.
    """
    branches = solutions(posterior)
    parts = [(one.take(posterior), f"weight {one.weight:.2f}") for one in branches]
    for part, said in parts or [(posterior, "")]:
        mean = _profile(part, radius)
        if mean is None:
            return
        low, inner, middle, outer, high = np.quantile(
            mean, [0.025, 0.16, 0.5, 0.84, 0.975], axis=0
        )
        band = {"color": BLUE, "lw": 0, "zorder": 1}
        ax.fill_between(radius, low, high, alpha=0.25, **band)
        ax.fill_between(radius, inner, outer, alpha=0.4, **band)
        said_of_all = "mean field (68, 95 %)"
        ax.plot(radius, middle, color=BLUE, lw=2, zorder=4, label=said_of_all)
        ax.annotate(
            said, (radius[-1], middle[-1]), (-4, 4), textcoords="offset points",
            ha="right", color=BLUE, zorder=6,
        )  # fmt: skip


def add_legend(ax):
    """Name what was drawn, once."""
    handles, names = ax.get_legend_handles_labels()
    once = dict(zip(names, handles, strict=True))
    ax.legend(once.values(), once, frameon=False, fontsize="small", loc="best")


def _profile(posterior, radius):
    """Mean field of every draw, (draw, radius), where it is one of radius."""
    group = posterior["posterior"].dataset
    draws = {n: group[n].values.reshape(-1, 1) for n in PROFILE if n in group}
    central, *broken = (draws.get(name) for name in ("central", *BROKEN))
    if "slope" in draws:
        return central + draws["slope"] * radius
    if all(values is not None for values in broken):
        return central + np.asarray(rise(radius, *broken))
    return central + 0 * radius if posterior.attrs.get("field") == "Flat" else None


def draw_spaxels(ax, radius, metallicity):
    """Draw each spaxel's metallicity, median and 68 %, from (chain, draw, spaxel)."""
    low, middle, high = metallicity.quantile([0.16, 0.5, 0.84], SAMPLE).values
    is_crowded = len(radius) > CROWDED
    ax.vlines(radius, low, high, color=GREY, lw=0.6, alpha=0.15 if is_crowded else 0.6)
    ax.plot(
        radius, middle, "o", color=GREY, ms=3 if is_crowded else 4.5, mew=0,
        alpha=0.8, zorder=2, label="spaxels (68 %)",
    )  # fmt: skip


def draw_points(ax, radius, metallicity, error):
    """Draw somebody else's metallicities, with error bars."""
    ax.errorbar(
        radius, metallicity, error, fmt="D", ms=6, color=RED, mec="white", lw=1.4,
        capsize=2, zorder=5, label="annuli",
    )  # fmt: skip


def mark_centre(ax, row, column):
    """Mark the galaxy's centre without a change of view."""
    ax.plot(column, row, "+", color=RED, ms=12, mew=2, scalex=False, scaley=False)


def title(posterior) -> str:
    """Name the galaxy and its slope (or level), with two digits of the errors.

    Of several solutions no number is that of the galaxy.
    """
    draws, target = posterior["posterior"].dataset, posterior.attrs.get("target", "")
    if count := len(solutions(posterior)):
        return f"{target}: {count} solutions" if target else f"{count} solutions"
    name = "slope" if "slope" in draws else "central"
    low, middle, high = np.quantile(draws[name].values, [0.16, 0.5, 0.84])
    digits = int(np.clip(1 - np.floor(np.log10((high - low) / 2 + 1e-9)), 0, 6))
    up, down = (f"{error:.{digits}f}" for error in (high - middle, middle - low))
    value = rf"${middle:.{digits}f}^{{+{up}}}_{{-{down}}}$"
    if name == "slope":
        said = f"slope = {value} {spell(draws[name].attrs.get('units', ''))}"
    else:
        where = "" if posterior.attrs.get("field") == "Flat" else "central "
        said = f"{where}12 + log(O/H) = {value}"
    return f"{target}: {said}" if target else said


def add_effective_radii(ax, attrs):
    """Add an axis above in effective radii, where they are known in kpc."""
    effective_radius = attrs.get("effective_radius", np.nan)
    if attrs.get("length") != "kpc" or not np.isfinite(effective_radius):
        return
    upper = ax.secondary_xaxis(
        "top", (lambda r: r / effective_radius, lambda r: r * effective_radius)
    )
    upper.set_xlabel(label("radius", "R_e"))


def hatch_invalid(ax, valid):
    """Hatch the metallicities that a calibration was not made for."""
    low, high = ax.get_ylim()
    ax.set_ylim(low, high)  # the data set the range, not what is invalid
    said = "outside the calibration"
    for bottom, top in [(low, valid[0]), (valid[1], high)] if len(valid) else []:
        if bottom < top:
            ax.axhspan(
                bottom, top, facecolor="none", edgecolor="0.75", hatch="//", lw=0,
                zorder=0, label=said,
            )  # fmt: skip
            said = None  # one entry of the legend is enough


def draw_map(ax, found, name, bar_at="right"):
    """Draw a map and its colour bar, cropped to the spaxels.

    Parameters
    ----------
    ax : Axes
        Pixel coordinates are those of the whole map.
    found : metalgrad.maps.Map
    name : str
        Name of the map; it decides on colours.
    bar_at : str
        Side of the colour bar.
    """
    is_seen = np.isfinite(found.values)
    seen = found.values[is_seen]
    low, high = np.quantile(seen, [0.01, 0.99])
    is_flux = "erg" in found.unit
    is_wide = is_flux and low > 0 and high > 10 * low
    scale = {"norm": LogNorm(low, high)} if is_wide else {"vmin": low, "vmax": high}
    image = ax.imshow(
        found.values, origin="lower", interpolation="nearest",
        cmap=COLOURS.get(name, "magma"), **scale,
    )  # fmt: skip
    for axis, limit in enumerate((ax.set_ylim, ax.set_xlim)):
        where = np.nonzero(is_seen)[axis]
        limit(where.min() - 1.5, where.max() + 1.5)
    bar = ax.figure.colorbar(
        image, ax=ax, extend="both", extendfrac=0.02, pad=0.02, location=bar_at
    )
    said = " ".join(LINES.get(word, word) for word in found.said.split(" "))
    bar.set_label(label(said, found.unit), fontsize="small")
    bar.ax.tick_params(labelsize="small")


def label_sky(ax, wcs, *, bottom, left):
    """Name the axes of a map, at the edges of a figure only, and place their ticks."""
    names = (
        ("x [pixel]", "y [pixel]")
        if wcs is None
        else ("right ascension", "declination")
    )
    ax.set_xlabel(names[0] if bottom else " ")
    ax.set_ylabel(names[1] if left else " ")
    if wcs is None:
        ax.locator_params(integer=True)
        return
    for axis, side in zip(ax.coords, "bl", strict=True):
        axis.set_ticks_position(side)
        axis.set_ticklabel_position(side)
        axis.set_axislabel_position(side)
        axis.set_ticklabel(size="x-small", exclude_overlapping=True)


def draw_spectrum(upper, lower, prediction, row):
    """Draw data and model of one spaxel above, residuals below."""
    wavelength = prediction.wavelength
    seen = np.isfinite(prediction.error[row])
    low, middle, high = np.quantile(
        prediction.model[:, row], [0.025, 0.5, 0.975], axis=0
    )
    upper.errorbar(
        wavelength[seen], prediction.flux[row][seen], prediction.error[row][seen],
        fmt="o", color=GREY, ms=2.5, mew=0, lw=0.8, zorder=2,
    )  # fmt: skip
    upper.fill_between(
        wavelength, low, high, step="mid", color=BLUE, alpha=0.35, lw=0, zorder=3
    )
    upper.step(wavelength, middle, where="mid", color=BLUE, lw=1.2, zorder=3)
    lower.axhspan(-1, 1, color="0.88", lw=0)
    lower.axhline(0, color=BLUE, lw=1)
    residual = prediction.residual[row]
    lower.plot(wavelength, residual, "o", color=GREY, ms=2.5, mew=0)
    reach = max(4.0, 1.1 * np.nanmax(np.abs(residual), initial=0.0))
    lower.set_ylim(-reach, reach)
    for ax in (upper, lower):
        ax.tick_params(labelsize="x-small")
        ax.margins(x=0.01)


def mark_lines(ax, prediction, redshift, *, with_names):
    """Mark where the lines are, those of a blend by one name."""
    table = lines.catalogue()
    place = {n: table[n].wavelength * (1 + redshift) for n in prediction.lines}
    for where in place.values():
        ax.axvline(where, color=ORANGE, lw=0.8, ls=":", zorder=0)
    if not with_names:
        return
    for where, said in name_groups(place, CLOSE * np.ptp(prediction.wavelength)):
        ax.annotate(
            said, (where, 1.03), xycoords=("data", "axes fraction"), ha="center",
            fontsize="x-small",
        )  # fmt: skip


def name_groups(place, apart):
    """Put names of lines nearer than ``apart`` together: mean place and words."""
    groups = []
    for name in sorted(place, key=place.get):
        if groups and place[name] - place[groups[-1][-1]] < apart:
            groups[-1].append(name)
        else:
            groups.append([name])
    return [
        (np.mean([place[n] for n in group]), " + ".join(LINES.get(n, n) for n in group))
        for group in groups
    ]


def draw_chains(left, right, values, divergent):
    """Draw chains, (chain, draw), on the left and their ranks on the right."""
    count, length = values.shape
    ranks = rankdata(values).reshape(values.shape)
    bins = np.linspace(0.5, values.size + 0.5, RANKS + 1)
    for chain in range(count):
        colour = CHAINS[chain % len(CHAINS)]
        left.plot(values[chain], color=colour, lw=0.5, alpha=0.8)
        share = np.histogram(ranks[chain], bins)[0] * RANKS / length
        right.stairs(share, bins, color=colour, lw=1.2, baseline=None)
    right.axhline(1.0, color=BLACK, lw=0.8, ls="--")
    right.set_ylim(0, None)
    if divergent is not None and divergent.any():
        floor = np.zeros(int(divergent.sum()))
        left.plot(
            np.nonzero(divergent)[1], floor, "|", color=BLACK, ms=8, mew=1.2,
            transform=left.get_xaxis_transform(),
        )  # fmt: skip
    for ax in (left, right):
        ax.tick_params(labelsize="small")
    left.margins(x=0.01)

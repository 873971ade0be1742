"""What others found, drawn behind a galaxy of one's own, into axes that are given."""

import numpy as np

from metalgrad import literature, panels

SURVEYS = {"JADES": "o", "CEERS, GLASS, EROs": "s", "EROs": "D"}
COLOURS = {  # of simulations: what is alike shares a colour, and differs in dashes
    "EAGLE": (panels.ORANGE, "-"),
    "TNG50": (panels.BLUE, "-"),
    "TNG100": (panels.BLUE, "--"),
    "COLIBRE m6": (panels.PINK, "-"),
    "COLIBRE m5": (panels.PINK, "--"),
    "FIRE": (panels.GREEN, "-"),
    "Illustris": (panels.SKY, "--"),
    "SIMBA": (panels.PINK, "-"),
    "FIRE-2": (panels.GREEN, "--"),
    "FOGGIE": (panels.RED, "-."),
    "MUGS": (panels.RED, ":"),
    "MaGICC": (panels.GREEN, ":"),
    "RaDES, steep": (panels.YELLOW, "-"),
    "RaDES, flat": (panels.YELLOW, "--"),
    "constant efficiency": (panels.BLACK, ":"),
}
DASHES = ("-", "--", "-.", ":")  # of observed relations, in black
BANDS = ("TNG50", "EAGLE")  # two tell how wide predictions scatter; more would hide it
MARKERS = {True: "sDv^<>o", False: "o*^XPsD"}  # of gradients with errors, without
HATCHES = ("//", "\\\\")  # of what samples span
FILL, EDGE = "0.8", "0.45"


def draw_surveys(ax, quantity):
    """Draw galaxies at z of 3 to 10 against stellar mass: their ``quantity``."""
    for (survey, reference), rows in literature.published("galaxies").groupby(
        ["survey", "reference"], sort=False
    ):
        seen = rows[np.isfinite(rows[quantity])]
        if seen.empty:
            continue
        is_log = quantity.startswith("log")  # rates have no errors, and a log axis
        ax.errorbar(
            seen["log_mass"],
            10 ** seen[quantity] if is_log else seen[quantity],
            xerr=_errors(seen, "log_mass"),
            yerr=None if is_log else _errors(seen, quantity),
            fmt=SURVEYS[survey], ms=4, color=FILL, mec=EDGE, mew=0.5, lw=0.5, zorder=1,
            label=f"{survey} ({_cite(reference)})",
        )  # fmt: skip


def draw_sequences(ax, masses, redshifts):
    """Draw main sequences of star formation, dotted where they are extrapolated."""
    fit = literature.published("main_sequence").iloc[0]
    mass = np.linspace(*masses, 200)
    is_fitted = (mass >= fit["low"]) & (mass <= fit["high"])
    for redshift, colour in zip(redshifts, (panels.ORANGE, panels.BLACK), strict=True):
        rate = literature.main_sequence(mass, redshift)
        is_known = is_fitted & (redshift <= fit["redshift_high"])
        ax.plot(mass, rate, color=colour, lw=1.2, ls=":", zorder=2)
        ax.plot(
            mass, np.where(is_known, rate, np.nan), color=colour, lw=1.8, zorder=2,
            ls="-" if is_known.any() else ":",
            label=f"main sequence, z = {redshift:g} ({_cite(fit['reference'])})",
        )  # fmt: skip


def draw_relations(ax, masses):
    """Draw mass-metallicity relations where they hold; thin if nobody says where."""
    table = literature.published("mass_metallicity")
    dashes = iter(DASHES)
    for _, row in table.iterrows():
        colour, style = COLOURS.get(row["sample"]) or (panels.BLACK, next(dashes))
        low, high = (
            end if np.isnan(row[name]) else row[name]
            for name, end in zip(("low", "high"), masses, strict=True)
        )
        mass = np.linspace(max(low, masses[0]), min(high, masses[1]), 100)
        ax.plot(
            mass, literature.mass_metallicity(row, mass), color=colour, ls=style,
            lw=1.0 if np.isnan(row["low"]) else 1.8, zorder=3,
            label=f"{row['sample']}, z = {row['epoch']} ({_cite(row['reference'])})",
        )  # fmt: skip


def draw_simulations(ax, redshift):
    """Draw simulated mass-metallicity relations at the nearest epoch there is."""
    table = literature.published("mass_metallicity_simulations")
    epochs = table["redshift"].unique()
    nearest = epochs[np.abs(epochs - redshift).argmin()]
    for name, rows in table[table["redshift"] == nearest].groupby(
        "simulation", sort=False
    ):
        colour, style = COLOURS[name]
        mass, low, high = (
            rows[column]
            for column in ("log_mass", "metallicity_low", "metallicity_high")
        )
        ax.fill_between(mass, low, high, color=colour, alpha=0.15, lw=0, zorder=0)
        ax.plot(
            mass, rows["metallicity"], color=colour, ls=style, lw=1.5, zorder=2,
            label=f"{name}, z = {nearest:g} (Sharda+ 2026)",
        )  # fmt: skip


def draw_tracks(ax):
    """Draw predicted gradients against redshift."""
    drawn = set()
    for (name, reference), rows in literature.published("gradient_tracks").groupby(
        ["model", "reference"], sort=False
    ):
        colour, style = COLOURS[name]
        style = "-." if name in drawn else style  # another paper on the same models
        drawn.add(name)
        z = rows["redshift"]
        is_tabulated = rows["kind"].iloc[0] == "tabulated"
        if name in BANDS:
            low, high = rows["gradient_low"], rows["gradient_high"]
            ax.fill_between(z, low, high, color=colour, alpha=0.12, lw=0, zorder=0)
        ax.plot(
            z, rows["gradient"], color=colour, ls=style, zorder=1,
            lw=2.0 if is_tabulated else 1.3, label=f"{name} ({_cite(reference)})",
        )  # fmt: skip


def draw_gradients(ax):
    """Draw measured gradients against redshift, a marker to each paper."""
    groups = literature.published("gradients").groupby(
        ["survey", "reference"], sort=False
    )
    markers = {known: iter(every) for known, every in MARKERS.items()}
    hatches = iter(HATCHES)
    for (survey, reference), rows in groups:
        said = survey if survey == reference else f"{survey} ({_cite(reference)})"
        if rows["kind"].iloc[0] == "range":
            _draw_range(ax, rows.iloc[0], said, next(hatches))
            continue
        has_errors = bool(np.isfinite(rows["gradient_plus"]).all())
        z, ends = rows["redshift"], rows[["redshift_low", "redshift_high"]]
        span = np.abs(ends.sub(z, axis=0)).T
        ax.errorbar(
            z, rows["gradient"],
            xerr=np.nan_to_num(span) if has_errors else None,
            yerr=_errors(rows, "gradient") if has_errors else None,
            fmt=next(markers[has_errors]), ms=6.5 if has_errors else 4.5, color=EDGE,
            mfc=FILL if has_errors else "white", mec=EDGE, mew=0.8, lw=1.0, zorder=2,
            label=said,
        )  # fmt: skip


def _draw_range(ax, row, said, hatch):
    """Draw the box that a sample spans, without a middle."""
    low, high = row["redshift_low"], row["redshift_high"]
    bottom = row["gradient"] - row["gradient_minus"]
    top = row["gradient"] + row["gradient_plus"]
    ax.fill_between(
        [low, high], bottom, top, facecolor="none", edgecolor="0.8", lw=0.8, zorder=0,
        hatch=hatch, label=said,
    )  # fmt: skip


def _errors(rows, name):
    """Errors down and up, (2, row); nothing where the source has none."""
    return np.nan_to_num([rows[f"{name}_minus"], rows[f"{name}_plus"]])


def _cite(reference):
    """Shorten a reference for a legend."""
    return reference.replace(" et al. (", "+ ").rstrip(")")

"""What others measured and predicted of galaxies: the tables of ``data/published``.

To compare with, in pictures and in tests: no fit reads them.
"""

import numpy as np
import pandas as pd
from astropy.cosmology import Planck18
from xarray import DataTree

from metalgrad import cards

__all__ = ["main_sequence", "mass_metallicity", "published", "summarise", "venturi24"]

QUANTITIES = ("gradient", "metallicity", "sfr")  # of Venturi et al. (2024)
CENTRAL = [0.16, 0.5, 0.84]  # quantiles: median and 68 %
FEWEST = 4  # draws; three numbers are a value and its errors


def published(name: str) -> pd.DataFrame:
    """Read a table of ``data/published``.

    Parameters
    ----------
    name : str
        ``"galaxies"``, ``"mass_metallicity"``, ``"mass_metallicity_simulations"``,
        ``"main_sequence"``, ``"gradients"``, ``"gradient_tracks"``, ``"venturi24"`` or
        ``"venturi24_gradients"``.

    Returns
    -------
    pandas.DataFrame
        Columns as the file names them; it says their units, and where they are from.

    Raises
    ------
    ValueError
        If there is no such table.
    """
    known = sorted(p.stem for p in (cards.folder("data") / "published").glob("*.ecsv"))
    if name not in known:
        raise ValueError(
            f"there is no published table {name!r}; choose from {', '.join(known)}"
        )
    return pd.DataFrame(cards.table(f"published/{name}.ecsv"))


def venturi24(quantity: str) -> dict[str, list[tuple]]:
    """Take what Venturi et al. (2024) found, as `metalgrad.context` draws it.

    Parameters
    ----------
    quantity : str
        ``"sfr"`` [solMass / yr] or ``"metallicity"`` [12 + log(O/H)] of the components
        in Table 3, against their stellar mass [log solMass], or ``"gradient"`` of the
        four systems in Table 4 [dex / kpc], against redshift.

    Returns
    -------
    dict of str to list of (x, y)
        By target; x and y are a number, or value and errors up and down. Components
        without the quantity are left out, upper limits too.

    Raises
    ------
    ValueError
        If the quantity is another.
    """
    if quantity not in QUANTITIES:
        raise ValueError(
            f"there is no {quantity!r} of Venturi et al. (2024); choose from "
            f"{', '.join(QUANTITIES)}"
        )
    is_gradient = quantity == "gradient"
    found = {}
    for _, row in published("venturi24" + "_gradients" * is_gradient).iterrows():
        y = _with_errors(row, quantity)
        if is_gradient:
            x = cards.read("targets", row["target"].lower())["redshift"]
        else:
            x = _with_errors(row, "log_mass")
        if np.isfinite(y).all():
            found.setdefault(row["target"], []).append((x, y))
    return found


def mass_metallicity(relation, log_mass) -> np.ndarray | np.floating:
    """Evaluate a mass-metallicity relation.

    Parameters
    ----------
    relation : mapping
        A row of ``published("mass_metallicity")``; the formula is in that file.
    log_mass : array_like
        Stellar mass [log solMass].

    Returns
    -------
    numpy.ndarray or numpy.floating
        12 + log(O/H), in the shape of the masses.
    """
    level, slope, pivot, bend = (
        relation[name] for name in ("level", "slope", "pivot", "bend")
    )
    excess = np.asarray(log_mass, dtype=float) - pivot
    if np.isnan(bend):
        return level + slope * excess
    return level - slope / bend * np.log10(1 + 10 ** (-bend * excess))


def main_sequence(log_mass, redshift: float) -> np.ndarray | np.floating:
    """Evaluate the main sequence of star formation of Popesso et al. (2023), Eq. 15.

    Fitted to masses of 10^8.5 to 10^11.5 and redshifts of 0 to 6; beyond them it is an
    extrapolation.

    Parameters
    ----------
    log_mass : array_like
        Stellar mass [log solMass].
    redshift : float
        Not negative; the age of the Universe is that of Planck18.

    Returns
    -------
    numpy.ndarray or numpy.floating
        Star formation rate [solMass / yr], in the shape of the masses.
    """
    fit = published("main_sequence").iloc[0]
    age = Planck18.age(redshift).to_value("Gyr")
    excess = fit["a2"] + fit["a3"] * age - np.asarray(log_mass, dtype=float)
    return 10 ** (fit["a0"] + fit["a1"] * age) / (1 + 10**excess)


def summarise(measure, *names: str) -> tuple[float, float, float]:
    """Reduce a measurement to its value and errors up and down.

    Parameters
    ----------
    measure : xarray.DataTree, array, float or tuple
        A posterior; or at least four draws; or a number without error, ``(value,
        error)`` or ``(value, plus, minus)``, with errors that are not negative.
    *names : str
        The variable of a posterior to take: the first of them that it has.

    Returns
    -------
    tuple of float
        Of draws the median, and the way to their 84 and 16 %; of a number its errors
        are nan.

    Raises
    ------
    ValueError
        If it is none of these, or not finite.
    """
    draws = np.ravel(_draws(measure, names)).astype(float)
    if not np.isfinite(draws).all():
        raise ValueError(f"{_called(names)} has entries that are not finite; drop them")
    if draws.size >= FEWEST:
        low, middle, high = np.quantile(draws, CENTRAL)
        return float(middle), float(high - middle), float(middle - low)
    if draws.size == 0 or (draws[1:] < 0).any():
        raise ValueError(
            f"{_called(names)} is {measure!r}; give a posterior, at least {FEWEST} "
            "draws, a number, (value, error) or (value, plus, minus), errors not "
            "negative"
        )
    errors = {1: [np.nan, np.nan], 2: [draws[-1]] * 2, 3: draws[1:]}[draws.size]
    return float(draws[0]), *(float(error) for error in errors)


def _draws(measure, names):
    """Draws of the first of the variables that a posterior has; else the measure."""
    if not isinstance(measure, DataTree):
        return measure
    known = measure["posterior"].dataset.data_vars
    for name in names:
        if name in known:
            return known[name].values
    raise ValueError(
        f"the posterior has no {' or '.join(names)} but {', '.join(known)}; "
        "give another posterior, or (value, error)"
    )


def _called(names):
    return f"the measured {names[0]}" if names else "what was measured"


def _with_errors(row, name):
    return tuple(row[f"{name}{end}"] for end in ("", "_plus", "_minus"))

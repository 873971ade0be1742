"""What the columns of a table of line fluxes hold: fluxes, positions, units."""

import re
from math import prod
from pathlib import Path

import astropy.units as u
import numpy as np
from astropy.io.registry import IORegistryError
from astropy.table import Table

from metalgrad import geometry

LINE_FLUX = u.Unit(1e-20 * u.erg / u.s / u.cm**2)
RA_DEC = "ra", "dec"
ROW_COLUMN = "iy", "ix"
PLACES = "radius", "x", "y", *RA_DEC, *ROW_COLUMN
_PER_SPAXEL = re.compile(r"[ /*.]*(spaxel|pixel|pix)\b(\^?-1)?")


def plain(values) -> np.ndarray:
    """Plain floats, NaN where masked."""
    bare = np.array(getattr(values, "unmasked", values), dtype=float)
    return np.where(getattr(values, "mask", False), np.nan, bare)


def read_table(given) -> Table:
    """Read a table from whatever holds one: a file, a DataFrame, arrays by name.

    Names of places (`PLACES`) are known in any case.

    Raises
    ------
    ValueError
        If it is no table, or a file that Astropy cannot read.
    """
    try:
        if isinstance(given, str | Path):
            table = Table.read(given)
        elif hasattr(given, "to_numpy"):  # a DataFrame
            table = Table.from_pandas(given)
        else:
            table = Table(given)
    except (IORegistryError, TypeError, ValueError) as error:
        said = given if isinstance(given, str | Path) else type(given).__name__
        raise ValueError(
            f"{said} is no table of line fluxes ({str(error).splitlines()[0]}); give "
            "an astropy Table, a DataFrame, or a file of a table (ECSV, FITS, CSV)"
        ) from error
    for name in table.colnames:
        if name.lower() in {*PLACES} - {*table.colnames}:
            table.rename_column(name, name.lower())
    return table


def read_fluxes(table, names) -> tuple[dict[str, np.ndarray], str]:
    """Read fluxes and errors, and their unit.

    Parameters
    ----------
    table : Table
    names : sequence of str
        Of the columns.

    Returns
    -------
    values : dict of str to array
        NaN where masked.
    unit : str
        `LINE_FLUX`; empty where no column has a unit, and values are as they are.

    Raises
    ------
    ValueError
        If some have a unit and others do not, or a unit is none of flux.
    """
    bare = [name for name in names if table[name].unit in (None, "")]
    if bare and len(bare) < len(names):
        raise ValueError(
            f"the fluxes and errors {bare} have no unit while others have one; give "
            "units to all of them, or to none"
        )
    scale = {k: 1.0 if bare else _to_line_flux(table[k].unit, k) for k in names}
    values = {name: _numbers(table[name]) * factor for name, factor in scale.items()}
    return values, "" if bare else str(LINE_FLUX)


def _numbers(column):
    try:
        return plain(column)
    except ValueError as error:
        raise ValueError(
            f"the column {column.name} holds what is no number ({error}); give NaN, or "
            "a mask, where a line was not measured"
        ) from error


def _to_line_flux(unit, name):
    # Surveys write "per spaxel", which changes nothing here, and several slashes.
    top, *under = re.sub(_PER_SPAXEL, "", str(unit)).split("/")
    try:
        return (u.Unit(top) / prod(map(u.Unit, under), start=u.one)).to(LINE_FLUX)
    except (TypeError, ValueError) as problem:
        raise ValueError(
            f"the flux {name} has the unit {unit} where a flux, erg / (s cm2), is "
            "expected; convert it, or remove the units of all lines"
        ) from problem


def find_index(table, keep) -> tuple:
    """Row and column of each spaxel that is kept, and the shape of all of the map.

    Parameters
    ----------
    table : Table
    keep : array of bool, (row,)

    Returns
    -------
    index : array of int, (spaxel, 2), or None
        None if the table has none.
    shape : (int, int) or None

    Raises
    ------
    ValueError
        If one of those kept is not a whole number from 0.
    """
    if not set(ROW_COLUMN) <= set(table.colnames):
        return None, None
    index = np.stack([plain(table[name]) for name in ROW_COLUMN], axis=-1)
    is_wrong = ~(index >= 0) | (index % 1 != 0)
    if len(wrong := np.argwhere(is_wrong & keep[:, None])):
        row, axis = wrong[0]
        raise ValueError(
            f"{ROW_COLUMN[axis]} is {index[row, axis]:g} in row {row} of the table "
            "where rows and columns are whole numbers from 0; mend it, or remove iy "
            "and ix"
        )
    whole = index[~is_wrong.any(axis=1)].astype(int)
    return index[keep].astype(int), tuple(int(n) for n in whole.max(axis=0) + 1)


def find_positions(table, target, radius) -> tuple[np.ndarray, str]:
    """Coordinates in the plane of the disc, (spaxel, 2), and their unit.

    Raises
    ------
    ValueError
        If the table has none, or in another unit than lengths and angles.
    """
    names = set(table.colnames)
    if radius in names:
        along, unit = _length(table[radius], target)
        return np.stack([along, np.zeros_like(along)], axis=-1), unit
    if set(RA_DEC) <= names and target is not None:
        sky = [plain(table[k]) * (table[k].unit or u.deg).to(u.deg) for k in RA_DEC]
        return find_plane(*sky, target) * target.kpc_per_arcsec, "kpc"
    if {"x", "y"} <= names:
        (along, unit), (across, other) = (_length(table[k], target) for k in ("x", "y"))
        if unit == other:
            return np.stack([along, across], axis=-1), unit
    raise ValueError(
        f"the table has no positions among {', '.join(table.colnames)}; give it "
        f"{radius}, or ra and dec and a target, or x and y in one unit"
    )


def _length(column, target):
    unit, values = column.unit, plain(column)
    if unit is None or unit == u.dimensionless_unscaled:
        return values, "R_e"
    if unit.is_equivalent(u.kpc):
        return values * unit.to(u.kpc), "kpc"
    if unit.is_equivalent(u.arcsec):
        values = values * unit.to(u.arcsec)
        return (values * target.kpc_per_arcsec, "kpc") if target else (values, "arcsec")
    raise ValueError(
        f"the column {column.name} has the unit {unit} where a length, an angle or "
        "none (effective radii) is expected; convert it"
    )


def find_plane(ra, dec, target) -> np.ndarray:
    """Coordinates in the plane of the disc [arcsec], (*shape, 2), from degrees."""
    centre = target.centre.icrs
    offset = geometry.sky_offset(ra, dec, (centre.ra.deg, centre.dec.deg))
    return geometry.deproject(offset, target.axis_ratio, target.position_angle)

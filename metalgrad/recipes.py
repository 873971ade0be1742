"""Which columns of a table are which line: spellings of surveys, sums of doublets."""

import re
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from jaxtyping import Float

# How surveys spell each line, in air or in vacuum, after ``_normalise``. The first
# recipe whose members are all there is taken; several members are added up. Pipe3D and
# CALIFA name the whole doublet [OII]3727, MaNGA's DAP only its first line.
RECIPES = {
    "OII": (
        ["oii"],
        ["oii3726 oii3727", "oii3729 oii3730"],
        ["oii3727 oii3728"],
    ),
    "NeIII": (["neiii neiii3868 neiii3869 neiii3870"],),
    "Hdelta": (["hdelta hd hd4101 hd4102 hd4103"],),
    "Hgamma": (["hgamma hg hg4340 hg4341 hg4342"],),
    "OIII_4364": (["oiii4363 oiii4364"],),
    "Hbeta": (["hbeta hb hb4861 hb4862 hb4863"],),
    "OIII": (["oiii oiii5007 oiii5008"],),
    "NII": (["nii nii6583 nii6584 nii6585"],),
    "Halpha": (["halpha ha ha6562 ha6563 ha6564 ha6565"],),
    "SII": (["sii"], ["sii6716 sii6717 sii6718", "sii6730 sii6731 sii6732 sii6733"]),
}

GREEK = str.maketrans({"α": "alpha", "β": "beta", "γ": "gamma", "δ": "delta"})
_ERROR = re.compile(r"(?:e|err)_(.*)|(.*)_(?:err|error)", re.IGNORECASE)
_FLUX = re.compile(r"^(flux|f)_|_flux$", re.IGNORECASE)


def check_names(lines: Iterable[str]) -> None:
    """Refuse lines that have no recipe.

    Parameters
    ----------
    lines : iterable of str
        Names of lines.

    Raises
    ------
    ValueError
        If one of them is unknown.
    """
    if unknown := sorted(set(lines) - set(RECIPES)):
        raise ValueError(
            f"{', '.join(unknown)} is not a line of metalgrad; name it as one of "
            f"{', '.join(RECIPES)}"
        )


def find(
    columns: Sequence[str], lines: Sequence[str] | None = None
) -> dict[str, list[tuple[str, str]]]:
    """Find the columns of each line.

    Parameters
    ----------
    columns : sequence of str
        Names of all columns.
    lines : sequence of str or None
        Names of the lines to find; None takes all that are there.

    Returns
    -------
    dict of str to list of (str, str)
        For each line the columns of flux and error of its members.

    Raises
    ------
    ValueError
        If a line is unknown or lacks its flux or error, if columns compete for it, or
        if there is no line at all.
    """
    check_names(lines or ())
    fluxes, errors = {}, {}
    for column in columns:
        error = _ERROR.fullmatch(column)
        bare = (error[1] or error[2]) if error else column
        key = _normalise(_FLUX.sub("", bare))
        (errors if error else fluxes).setdefault(key, []).append(column)
    found = {line: _members(line, fluxes, errors) for line in lines or RECIPES}
    lacking = [line for line, members in found.items() if not members]
    if len(lacking) == len(found) or (lines and lacking):
        raise ValueError(
            f"the table has no flux of {', '.join(lacking)} among its columns "
            f"{', '.join(columns)}; name it so, and its error with _err after it"
        )
    return {line: members for line, members in found.items() if members}


def add_up(
    found: Mapping, values: Mapping
) -> tuple[Float[np.ndarray, "spaxel line"], Float[np.ndarray, "spaxel line"]]:
    """Add up the members of each line.

    Parameters
    ----------
    found : mapping of str to list of pairs
        For each line the keys of flux and error of its members.
    values : mapping to array, (spaxel)
        Fluxes and errors, in one unit.

    Returns
    -------
    flux, error : array, (spaxel, line)
        Sums, and errors in quadrature; 0 and inf where a member is not finite: the
        line was not measured. Negative fluxes stay as they are.

    Raises
    ------
    ValueError
        If an error is zero or negative where its flux is finite.
    """
    fluxes, errors = [], []
    for line, members in found.items():
        flux = np.sum([values[key] for key, _ in members], axis=0)
        error = np.stack([values[key] for _, key in members])
        _check_errors(line, np.isfinite(flux) & (error <= 0).any(axis=0))
        measured = np.isfinite(flux) & np.isfinite(error).all(axis=0)
        total = np.sqrt(np.sum(error**2, axis=0))
        fluxes.append(np.where(measured, flux, 0.0))
        errors.append(np.where(measured, total, np.inf))
    return np.stack(fluxes, axis=-1), np.stack(errors, axis=-1)


def _check_errors(line, wrong):
    if wrong.any():
        raise ValueError(
            f"the error of {line} is zero or negative in row {np.argmax(wrong)} and "
            f"{wrong.sum() - 1} others; set its flux to NaN where it was not measured"
        )


def _normalise(name):
    """Bring '[OIII]5006.84', 'OIII_5007' and 'oiii-5007' to one spelling."""
    name = re.sub(r"[^a-z0-9.]", "", name.lower().translate(GREEK))
    name = re.sub(r"\d+\.\d+", lambda number: f"{float(number[0]):.0f}", name)
    return re.sub(r"^h([abgd])(lpha|eta|amma|elta)(?=\d)", r"h\1", name)


def _members(line, fluxes, errors):
    """Flux and error columns of the first recipe that is complete, or none."""
    for recipe in RECIPES[line]:
        keys = [[key for key in names.split() if key in fluxes] for names in recipe]
        if all(keys):
            return [_pair(line, spellings, fluxes, errors) for spellings in keys]
    return []


def _pair(line, spellings, fluxes, errors):
    """Return the one column of flux, and the one of its error."""
    columns = [column for key in spellings for column in fluxes[key]]
    if len(columns) > 1:
        raise ValueError(
            f"the columns {' and '.join(columns)} all give {line}; keep one of them"
        )
    found = errors.get(spellings[0], [])
    if len(found) != 1:
        raise ValueError(
            f"the flux {columns[0]} of {line} has {len(found)} columns of errors where "
            f"one is expected; name it {columns[0]}_err"
        )
    return columns[0], found[0]

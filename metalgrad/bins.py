"""Wavelength bins: from centres to edges, and from edges to a FITS axis."""

from collections.abc import Mapping

import numpy as np
from jaxtyping import Float


def between(
    centres: Float[np.ndarray, " pixel"], source: str
) -> Float[np.ndarray, " pixel+1"]:
    """Edges half-way between neighbouring centres; the end bins are symmetric.

    Parameters
    ----------
    centres : array, (pixel)
        Wavelengths of the bins, any unit, increasing.
    source : str
        Where they come from, for the error.

    Returns
    -------
    array, (pixel + 1)
        Edges, in the unit of ``centres``.

    Raises
    ------
    ValueError
        If there are fewer than two wavelengths, or they do not increase.
    """
    if len(centres) < 2 or not np.all(np.diff(centres) > 0):
        raise ValueError(
            f"{source} has {len(centres)} wavelengths that do not increase where two "
            "or more that do are expected; sort them"
        )
    middle = (centres[1:] + centres[:-1]) / 2
    first, last = 2 * centres[0] - middle[0], 2 * centres[-1] - middle[-1]
    return np.concatenate([[first], middle, [last]])


def to_axis(edges: Float[np.ndarray, " edge"]) -> tuple[dict, dict]:
    """Describe bins as the third axis of a FITS cube.

    Parameters
    ----------
    edges : array, (pixel + 1)
        Edges of the bins [um].

    Returns
    -------
    cards : dict
        The axis' header cards: WAVE if it is linear, WAVE-TAB if it is not
        (Greisen et al. 2006, section 6; table and column as the jwst pipeline has
        them).
    cells : dict
        Columns of the table of wavelengths, empty if the axis is linear. The edges
        have one of their own, since centres alone do not tell them.
    """
    step = (edges[-1] - edges[0]) / (len(edges) - 1)
    cards = {"CUNIT3": "um", "CRPIX3": 1.0}
    # Linear means to rounding: a billionth of a bin moves no line.
    if np.allclose(np.diff(edges), step, rtol=1e-9, atol=0):
        linear = {"CTYPE3": "WAVE", "CRVAL3": edges[0] + step / 2, "CDELT3": step}
        return cards | linear, {}
    tabulated = {"CTYPE3": "WAVE-TAB", "CRVAL3": 1.0, "CDELT3": 1.0}
    names = {"PS3_0": "WCS-TABLE", "PS3_1": "wavelength"}
    cells = {"wavelength": (edges[1:] + edges[:-1]) / 2, "edges": edges}
    return cards | tabulated | names, cells


def from_axis(cards: Mapping, cells: Mapping, source: str) -> Float[np.ndarray, " n"]:
    """Read bins from the third axis of a FITS cube, the inverse of ``to_axis``.

    Parameters
    ----------
    cards : mapping
        Header of the image.
    cells : mapping of str to array
        Columns of its table of wavelengths, if it has one.
    source : str
        Where they come from, for the errors.

    Returns
    -------
    array, (pixel + 1)
        Edges of the bins, in the unit CUNIT3.

    Raises
    ------
    ValueError
        If the axis is not one of increasing vacuum wavelengths, or its table does not
        have one wavelength per plane.
    """
    count, kind = cards["NAXIS3"], cards.get("CTYPE3")
    if kind == "WAVE-TAB":
        column = cards.get("PS3_1", "wavelength")
        wave = np.ravel(cells.get(column, [])).astype(float)
        if len(wave) != count:
            raise ValueError(
                f"{source} has {len(wave)} wavelengths in the column {column} of its "
                f"WCS-TABLE for {count} planes; keep the table written with the cube"
            )
        return np.ravel(cells.get("edges", between(wave, source))).astype(float)
    step = cards.get("CD3_3", cards.get("CDELT3", 1.0) * cards.get("PC3_3", 1.0))
    if kind != "WAVE" or "CRVAL3" not in cards or step <= 0:
        raise ValueError(
            f"{source} has a third axis {kind} with step {step} where increasing "
            "vacuum wavelengths, WAVE or WAVE-TAB, are expected; resample the cube"
        )
    pixel = np.arange(count + 1) + 0.5 - cards.get("CRPIX3", 1.0)
    return cards["CRVAL3"] + step * pixel

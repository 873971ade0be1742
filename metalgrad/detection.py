"""What the classical pipeline makes of a table of fluxes: dust off, ratios chosen.

As in Sect. 2.2.1 of Venturi et al. (2024): a line counts where its S/N is above 3, be
it for the Balmer ratio that tells the dust or for the ratios that tell the metallicity.
"""

from collections.abc import Mapping, Sequence

import jax
import numpy as np
from jaxtyping import Bool, Float

from metalgrad import dust, lines

__all__ = ["PAPER_RATIOS", "correct_dust", "select_ratios"]

# NumPy's own ArrayLike is a protocol that cannot be checked while running.
Numbers = np.ndarray | jax.Array | np.number | float | int | Sequence
Fluxes = Mapping[str, Numbers]

# Venturi et al. (2024), Table 2.
PAPER_RATIOS = ("R2", "R3", "O3O2", "Rhat", "Ne3O2", "RS32", "O3S2")
# Venturi et al. (2024), Sect. 2.2.1: relative to Hβ, case B at 10⁴ K (Osterbrock &
# Ferland 2006); the first that is detected is used.
_DECREMENTS = {"Halpha": 2.87, "Hgamma": 0.466}
# Venturi et al. (2024), Sect. 2.2.1: for Balmer lines and for ratios alike.
_THRESHOLD = 3.0


def correct_dust(
    fluxes: Fluxes, errors: Fluxes
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray], Float[np.ndarray, "*row"]]:
    """Correct line fluxes for dust with Hα/Hβ, or else with Hγ/Hβ.

    A Balmer ratio is used where both of its lines have S/N > 3. Where neither can be
    used, or where it asks for negative dust, nothing is corrected. The attenuation is
    that of Calzetti et al. (2000) with R_V = 4.05. Flux and error are scaled alike: the
    uncertainty of E(B-V) is not propagated, as in the paper.

    Parameters
    ----------
    fluxes, errors
        Flux and standard error of each line in each spectrum, any unit of flux.

    Returns
    -------
    fluxes, errors
        The same lines, corrected.
    ebv
        E(B-V) [mag] of each spectrum.

    Raises
    ------
    ValueError
        If a flux has no error, or the shapes of the columns differ.
    """
    fluxes, errors = _columns(fluxes, errors)
    ebv = _ebv(fluxes, errors)
    gain = {line: 10 ** (0.4 * ebv * _extinction(line)) for line in fluxes}
    corrected = [
        {line: np.asarray(table[line] * gain[line]) for line in table}
        for table in (fluxes, errors)
    ]
    return (*corrected, ebv)


def select_ratios(
    fluxes: Fluxes, errors: Fluxes, ratios: Sequence[str] = PAPER_RATIOS
) -> Bool[np.ndarray, "*row ratio"]:
    """Tell which ratios can be used: those whose lines all have S/N > 3.

    Parameters
    ----------
    fluxes, errors
        Flux and standard error of each line in each spectrum, any unit of flux.
    ratios
        Names of line ratios.

    Returns
    -------
    used
        One flag to each spectrum and ratio.

    Raises
    ------
    ValueError
        If a flux has no error, the shapes of the columns differ, or a ratio is unknown.
    """
    fluxes, errors = _columns(fluxes, errors)
    detected = _detected(fluxes, errors)
    nowhere = np.zeros_like(next(iter(detected.values())))
    return np.stack(
        [
            np.all(
                [detected.get(line, nowhere) for line in lines.ratio(ratio).lines],
                axis=0,
            )
            for ratio in ratios
        ],
        axis=-1,
    )


def _columns(fluxes, errors):
    """Return both tables as float arrays of one shape."""
    if not fluxes:
        raise ValueError(
            "no line has a flux where at least one is expected; give columns named "
            f"as {', '.join(lines.catalogue())}"
        )
    for line in fluxes:
        if line not in errors:
            raise ValueError(
                f"line {line} has a flux and no error where both are expected; add "
                f"errors['{line}'], infinite where it was not measured"
            )
    tables = [
        {line: np.asarray(table[line], dtype=float) for line in fluxes}
        for table in (fluxes, errors)
    ]
    first = next(iter(fluxes))
    shape = tables[0][first].shape
    for line, column in (item for table in tables for item in table.items()):
        if column.shape != shape:
            raise ValueError(
                f"line {line} has a column of shape {column.shape} where {shape} is "
                f"expected as for {first}; give one entry to each spectrum"
            )
    return tables


def _detected(fluxes, errors):
    """Tell where each line is detected; NaN compares false, as it should."""
    return {
        line: np.asarray(
            (errors[line] >= 0) & (fluxes[line] > _THRESHOLD * errors[line])
        )
        for line in fluxes
    }


def _extinction(line):
    """Return k = A / E(B-V) at a line."""
    if line not in lines.catalogue():
        raise ValueError(
            f"unknown line {line!r}; rename it to one of {', '.join(lines.catalogue())}"
        )
    return float(dust.calzetti(lines.catalogue()[line].wavelength))


def _ebv(fluxes, errors):
    """E(B-V) [mag] from the first of the Balmer ratios that is detected, or zero."""
    detected = _detected(fluxes, errors)
    ebv = np.zeros_like(next(iter(fluxes.values())))
    for line, intrinsic in reversed(_DECREMENTS.items()):
        if not {line, "Hbeta"} <= fluxes.keys():
            continue
        usable = detected[line] & detected["Hbeta"]
        # The placeholder keeps undetected, perhaps negative, fluxes off the logarithm.
        ratio = np.full_like(ebv, intrinsic)
        np.divide(fluxes[line], fluxes["Hbeta"], out=ratio, where=usable)
        reddening = _extinction("Hbeta") - _extinction(line)
        estimate = 2.5 / reddening * np.log10(ratio / intrinsic)
        ebv = np.where(usable, np.maximum(estimate, 0), ebv)
    return ebv

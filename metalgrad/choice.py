"""Which ratios the lines of the data can form, one new line each."""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from metalgrad import cards, lines
from metalgrad.calibrations import Calibration


def choose_ratios(
    calibration: Calibration,
    wanted: tuple[str, ...],
    free: tuple[str, ...],
    names: tuple[str, ...],
) -> tuple[tuple, tuple]:
    """Choose ratios of which each sets one line that none before it has set.

    Parameters
    ----------
    calibration : Calibration
    wanted : tuple of str
        Calibrated ratios in order of preference; all products that the calibration has
        if it has none of them.
    free : tuple of str
        Ratios without calibration.
    names : tuple of str
        The lines of the data.

    Returns
    -------
    calibrated, free : tuple of str

    Raises
    ------
    ValueError
        If the lines can form no ratio of the calibration.
    """
    known, calibrated, chosen = set(lines.case_b()), [], []
    wanted = [r for r in wanted if r in calibration.relations]
    wanted = wanted or [r for r in calibration.ratios if _is_product(r)]
    spare = [r for r in free if r not in wanted]

    def unset(ratio):
        return lines.ratio(ratio).lines - known

    def admit(ratio, accepted):
        new = unset(ratio)
        if len(new) == 1 and new <= set(names):
            accepted.append(ratio)
            known.update(new)

    for ratio in wanted:
        # O3N2 is one fact about two new lines: a free ratio must set the other.
        partners = [r for r in spare if unset(r) < unset(ratio)]
        for partner in partners[: len(unset(ratio)) - 1]:
            admit(partner, chosen)
        admit(ratio, calibrated)
    for ratio in spare:
        admit(ratio, chosen)
    if not calibrated:
        _refuse(calibration, names, wanted)
    return tuple(calibrated), tuple(chosen)


def _is_product(ratio):
    """Whether a ratio can set a line: a sum of lines cannot."""
    return len(lines.ratio(ratio).terms) == 1


def _refuse(calibration, names, wanted):
    needs = "; ".join(
        f"{r} needs {', '.join(sorted(lines.ratio(r).lines))}" for r in wanted
    )
    found = ", ".join(names) or "no line"
    raise ValueError(
        f"the data have {found}, from which no ratio of calibration "
        f"{calibration.name} can be formed ({needs}); check the redshift or choose "
        "another calibration"
    )


def tell_ratios(ratios: tuple[str, ...], data) -> Float[Array, " ratio"]:
    """S/N squared of the fainter line of each ratio; 0 where data have none of them.

    Parameters
    ----------
    ratios : tuple of str
    data : LineLikelihood
    """
    told = []
    for name in ratios:
        there = np.isin(data.lines, [*lines.ratio(name).lines])
        told.append(jnp.min(data.told[there]) if there.any() else 0.0)
    return jnp.array(told)


def read_ratios(name: str, given) -> tuple[str, ...]:
    """Take the ratios of a model card, none of them misspelt.

    Raises
    ------
    ValueError
        If they are no list of known ones.
    """
    known = cards.read("data", "ratios")
    strange = [r for r in given if r not in known] if isinstance(given, list) else given
    if strange or not given:
        raise ValueError(
            f"ratios of model card {name} are {given!r}, of which {strange!r} are "
            f"unknown; give a list of some of {', '.join(known)}"
        )
    return tuple(given)

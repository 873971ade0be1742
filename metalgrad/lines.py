"""Emission lines: wavelengths, blends of fixed ratio, and the algebra of line ratios.

A *line* here is one free flux: a single transition or a blend whose members keep a
fixed ratio at the resolution of the prism, such as ``"OII"`` (3727 + 3730).  Members
and their sources are in ``data/lines.ecsv``, the ratios in ``data/ratios.toml``.
"""

from dataclasses import dataclass
from functools import cache

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from metalgrad import cards

REFERENCE = "Hbeta"


@dataclass(frozen=True, eq=False)
class Line:
    """One free flux and the transitions that share it.

    Attributes
    ----------
    name : str
    wavelengths : numpy.ndarray, (member,)
        Rest-frame vacuum wavelengths [µm].
    weights : numpy.ndarray, (member,)
        Flux of each member relative to the line's own.
    """

    name: str
    wavelengths: np.ndarray
    weights: np.ndarray

    @property
    def wavelength(self) -> float:
        """Rest-frame vacuum wavelength of the strongest member [µm]."""
        return float(self.wavelengths[np.argmax(self.weights)])


@cache
def catalogue() -> dict[str, Line]:
    """Every line that metalgrad knows, from blue to red."""
    table = cards.table("lines.ecsv")
    owner = np.array(table["line"])
    angstrom, weight = np.array(table["wavelength"]), np.array(table["weight"])
    found = [
        Line(name, angstrom[owner == name] * 1e-4, weight[owner == name])
        for name in dict.fromkeys(table["line"])
    ]
    return {line.name: line for line in sorted(found, key=lambda line: line.wavelength)}


def wavelengths(names: tuple[str, ...]) -> np.ndarray:
    """Rest-frame vacuum wavelengths of ``names`` [µm], (line,)."""
    return np.array([catalogue()[name].wavelength for name in names])


@cache
def case_b(temperature: float = 1e4, density: float = 100.0) -> dict[str, float]:
    """Case B fluxes of the Balmer lines relative to Hβ.

    Parameters
    ----------
    temperature : float
        Electron temperature [K].
    density : float
        Electron density [cm⁻³].

    Raises
    ------
    ValueError
        If the pair is not tabulated in ``data/caseb.ecsv`` (PyNeb, Storey & Hummer
        1995).
    """
    table = cards.table("caseb.ecsv")
    pairs = list(zip(table["temperature"], table["density"], strict=True))
    if (temperature, density) not in pairs:
        raise ValueError(
            f"case B at {temperature:g} K and {density:g} cm-3 is not tabulated; "
            f"choose one of {', '.join(f'({t:g}, {n:g})' for t, n in pairs)}"
        )
    row = pairs.index((temperature, density))
    balmer = ("Halpha", "Hgamma", "Hdelta")
    return {REFERENCE: 1.0} | {line: table[line][row] for line in balmer}


@dataclass(frozen=True)
class Ratio:
    """A line ratio: the logarithm of a weighted sum of products of line fluxes."""

    name: str
    label: str
    terms: tuple[dict[str, float | int], ...]
    weights: tuple[float | int, ...]

    @property
    def lines(self) -> frozenset[str]:
        """The lines that take part."""
        return frozenset(line for term in self.terms for line in term)

    def log10(self, log_flux: dict[str, Array]) -> Array:
        """Log10 of the ratio from log10 line fluxes, in any common unit."""
        terms = [
            np.log10(weight) + sum(power * log_flux[line] for line, power in t.items())
            for t, weight in zip(self.terms, self.weights, strict=True)
        ]
        return (
            jnp.log10(sum(10**term for term in terms)) if len(terms) > 1 else terms[0]
        )


def check_known(names) -> None:
    """Refuse names of lines that are not in the catalogue.

    Raises
    ------
    ValueError
        If there is one.
    """
    known = catalogue()
    if strange := [name for name in names if name not in known]:
        raise ValueError(
            f"unknown lines {', '.join(strange)}; known are {', '.join(known)}"
        )


@cache
def ratio(name: str) -> Ratio:
    """Look up a ratio of ``data/ratios.toml`` by name.

    Raises
    ------
    ValueError
        If there is none of that name.
    """
    known = cards.read("data", "ratios")
    if name not in known:
        raise ValueError(f"unknown ratio {name!r}; known are {', '.join(known)}")
    card = known[name]
    weights = card.get("weights", [1.0] * len(card["terms"]))
    return Ratio(name, card["label"], tuple(card["terms"]), tuple(weights))


@dataclass(frozen=True, eq=False)
class Tree:
    """Line fluxes as a linear function of the log ratios that set them.

    ``log10(F_line / F_Hβ) = offset + log_ratios @ matrix``.

    Attributes
    ----------
    ratios, lines : tuple of str
    matrix : numpy.ndarray, (ratio, line)
    offset : numpy.ndarray, (line,)
    """

    ratios: tuple[str, ...]
    lines: tuple[str, ...]
    matrix: np.ndarray
    offset: np.ndarray

    def __call__(
        self, log_ratios: Float[Array, "spaxel ratio"]
    ) -> Float[Array, "spaxel line"]:
        """Intrinsic log10 fluxes relative to Hβ."""
        return self.offset[None] + log_ratios @ self.matrix

    def select(self, names: tuple[str, ...]) -> "Tree":
        """Return the branch that ends in ``names``, in their order."""
        columns = [self.lines.index(name) for name in names]
        return Tree(self.ratios, names, self.matrix[:, columns], self.offset[columns])


def grow_tree(ratios: tuple[str, ...], balmer: dict[str, float]) -> Tree:
    """Let each ratio set one new line, starting from the Balmer lines.

    Ratios that share their lines (R2, R3 and O3O2, say) are fewer facts than ratios:
    counting all of them would count the data twice, so the tree refuses them.

    Parameters
    ----------
    ratios : tuple of str
    balmer : dict
        Fluxes relative to Hβ that need no ratio, as from `case_b`.

    Raises
    ------
    ValueError
        If a ratio is a sum, sets no new line, or needs a line that no other sets.
    """
    known = {
        line: (np.zeros(len(ratios)), np.log10(value)) for line, value in balmer.items()
    }
    waiting = dict(enumerate(ratios))
    while waiting:
        ready = [k for k, name in waiting.items() if len(_unset(name, known)) <= 1]
        if not ready:
            _refuse_orphans(waiting.values(), known)
        index = ready[0]
        line, solution = _solve(waiting.pop(index), index, known)
        known[line] = solution
    matrix = np.stack([row for row, _ in known.values()], axis=1)
    offset = np.array([constant for _, constant in known.values()])
    return Tree(ratios, tuple(known), matrix, offset)


def _unset(name, known):
    return sorted(ratio(name).lines - set(known))


def _solve(name, index, known):
    """Express the one line that ratio ``name`` sets through those already known."""
    if len(ratio(name).terms) > 1:
        raise ValueError(
            f"ratio {name} is a sum of lines and cannot set one in a generative chain; "
            "keep it for the classical analysis and use R2, R3, O3O2, ... here"
        )
    new = _unset(name, known)
    if not new:
        lines = ", ".join(sorted(ratio(name).lines))
        raise ValueError(
            f"ratio {name} sets no new line: {lines} are set already by the others; "
            "leave it out (R2, R3 and O3O2 are two facts, not three)"
        )
    powers, (line,) = ratio(name).terms[0], new
    row = np.zeros_like(known[REFERENCE][0])
    constant = -np.log10(ratio(name).weights[0])
    row[index] = 1.0
    for other in (name for name in powers if name != line):
        row = row - powers[other] * known[other][0]
        constant -= powers[other] * known[other][1]
    return line, (row / powers[line], constant / powers[line])


def _refuse_orphans(names, known):
    wanted = "; ".join(f"{n} needs {', '.join(_unset(n, known))}" for n in names)
    raise ValueError(
        f"no chain of ratios reaches these lines: {wanted}; "
        "add a ratio that sets all but one of them, or give one a free prior"
    )

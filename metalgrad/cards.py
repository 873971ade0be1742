"""Find, list and read the cards of ``models/`` and ``data/`` (TOML and ECSV).

Numbers live in cards, structure lives in code. ``models/`` is what we assume,
``data/`` is what was measured. Only the standard library is needed here.
"""

import csv
import difflib
import os
import tomllib
from collections.abc import Iterable
from pathlib import Path

__all__ = ["check_keys", "folder", "names", "read", "table"]

# kind of card -> top-level folder and the part below it
KINDS = {
    "calibrations": ("models", "calibrations"),
    "models": ("models", ""),
    "targets": ("data", "targets"),
    "data": ("data", ""),
}


def folder(kind: str) -> Path:
    """Return the folder of shipped ``"models"`` or ``"data"``.

    Parameters
    ----------
    kind : str
        ``"models"`` or ``"data"``.

    Returns
    -------
    Path
        Inside the package in a wheel, beside the package in a checkout.

    Raises
    ------
    ValueError
        If ``kind`` is neither of the two.
    """
    if kind not in ("models", "data"):
        raise ValueError(
            f"there is no shipped folder {kind!r}; ask for 'models' or 'data'"
        )
    shipped = Path(__file__).parent / kind
    return shipped if shipped.is_dir() else Path(__file__).parents[1] / kind


def names(kind: str) -> list[str]:
    """List the shipped cards of one kind.

    Parameters
    ----------
    kind : str
        ``"calibrations"``, ``"models"``, ``"targets"``, or ``"data"`` for the
        cards that lie directly in ``data/``.

    Returns
    -------
    list of str
        Card names (file names without ``.toml``), in alphabetical order.

    Raises
    ------
    ValueError
        If the kind is unknown.
    """
    return sorted(path.stem for path in _place(kind).glob("*.toml"))


def read(kind: str, name: str | os.PathLike) -> dict:
    """Read a shipped card by its name, or a card of your own by its path.

    Parameters
    ----------
    kind : str
        As in `names`.
    name : str or path
        Name of a shipped card, or the path of a ``.toml`` file.

    Returns
    -------
    dict
        The card as TOML gives it; nothing is checked but the syntax.

    Raises
    ------
    ValueError
        If no shipped card has this name, or the file is not valid TOML.
    FileNotFoundError
        If a path was given and nothing is there.
    """
    path = _path(kind, name)
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ValueError(
            f"card {path} is not valid TOML ({error}); correct that line"
        ) from error


def check_keys(
    card: dict,
    source: str | os.PathLike,
    required: Iterable[str],
    optional: Iterable[str] = (),
) -> None:
    """Check that a card, or a table of it, has the keys it should.

    Parameters
    ----------
    card : dict
        The card or one of its tables.
    source : str or path
        What the error should name: the card's file, and the table in it.
    required, optional : iterable of str
        Keys that must and may be there.

    Raises
    ------
    ValueError
        At the first unknown key, then at the first missing one. The message
        names the source, the key and the nearest key that is known.
    """
    required, optional = list(required), list(optional)
    known = [*required, *optional]
    for key in card:
        if key not in known:
            raise ValueError(
                f"{source} has an unknown key {key!r}; {_suggest(key, known)}"
            )
    for key in required:
        if key not in card:
            raise ValueError(
                f"{source} lacks the key {key!r}; add it "
                f"(every such card needs {', '.join(required)})"
            )


def table(path: str | os.PathLike) -> dict[str, list]:
    """Read an ECSV table of ``data/`` into plain lists.

    Parameters
    ----------
    path : str or path
        Relative to ``data/``, or absolute.

    Returns
    -------
    dict of str to list
        One list per column, in the order of the file: floats where every entry
        is a number (``nan`` counts as one), strings otherwise.

    Raises
    ------
    ValueError
        If a row has another number of entries than the header.
    FileNotFoundError
        If there is no such file.
    """
    path = folder("data") / path
    lines = path.read_text(encoding="utf-8").splitlines()
    comma = any(line.replace('"', "'").startswith("# delimiter: ','") for line in lines)
    rows = [line.strip() for line in lines if line.strip() and line[0] != "#"]
    reader = csv.reader(rows, delimiter="," if comma else " ", skipinitialspace=True)
    header, *entries = reader
    for number, row in enumerate(entries, start=1):
        if len(row) != len(header):
            raise ValueError(
                f"row {number} of table {path} has {len(row)} entries where its "
                f"header has {len(header)}; quote entries that contain the delimiter"
            )
    return {
        name: _numbers([row[i] for row in entries]) for i, name in enumerate(header)
    }


def _place(kind: str) -> Path:
    if kind not in KINDS:
        raise ValueError(f"unknown kind of card {kind!r}; {_suggest(kind, KINDS)}")
    top, below = KINDS[kind]
    return folder(top) / below


def _path(kind: str, name: str | os.PathLike) -> Path:
    # A name never ends in .toml, so that a user's file cannot hide a shipped card.
    place = _place(kind)
    if isinstance(name, os.PathLike) or str(name).endswith(".toml"):
        path = Path(name)
        if not path.is_file():
            raise FileNotFoundError(
                f"there is no card {path}; give the path of a TOML file or one of "
                f"the shipped {kind}: {', '.join(names(kind))}"
            )
        return path
    if name not in names(kind):
        raise ValueError(
            f"there is no card {name!r} in {kind}; {_suggest(name, names(kind))}, "
            "or give the path of your own .toml file"
        )
    return place / f"{name}.toml"


def _suggest(word: str, known: Iterable[str]) -> str:
    known = list(known)
    near = difflib.get_close_matches(word, known, n=1, cutoff=0.5)
    hint = f"did you mean {near[0]!r}? " if near else ""
    return f"{hint}choose from {', '.join(known)}"


def _numbers(entries: list[str]) -> list:
    try:
        return [float(entry) for entry in entries]
    except ValueError:
        return entries

"""What a fit has come to, on disk: one that is killed goes on where it was.

A checkpoint is a folder: a card that says which fit it is of, the coordinates in which
the fit samples, and for each chain one file per span of iterations, with the draws of
the span and the sampler's state at its end.  A file is written beside its place and
moved there, and begins with a checksum of the card and itself: what is damaged, or
another fit's, is not read.
"""

import hashlib
import json
import os
import warnings
from contextlib import suppress
from io import BytesIO
from pathlib import Path
from threading import Lock

import jax
import jax.numpy as jnp
import numpy as np

from metalgrad.logs import LastingLog, Log, SavedLog

CARD = "fit.json"
FORMAT = "8"  # another whenever states of chains, or what is kept, are others
NEW = ".new"  # ends the name of a file that is being written
CHECKSUM = hashlib.sha256().digest_size
KEPT = 1000  # draws, of all chains, for which spaxels are integrated out


class Store:
    """What a fit has come to, in memory alone, and only while it runs."""

    def recall(self, name: str, structure, find):
        """Find a tree of arrays."""
        return find()

    def log(self, number: int, state) -> Log:
        """Begin the log of a chain."""
        return Log(state)

    def every(self, draws: int, chains: int) -> int:
        """Tell at every how many draws of a chain all latents are kept."""
        return max(1, draws // max(1, KEPT // chains))


UNSAVED = Store()


class Memory(Store):
    """What a fit has come to, for a call with more draws to go on with."""

    def __init__(self):
        self.logs = {}

    def log(self, number, state):
        """Begin the log of a chain, or take it up again."""
        return self.logs.setdefault(number, LastingLog(state))

    def every(self, draws, chains):
        """Keep all, however many there will be."""
        return 1


class Checkpoint(Store):
    """A folder that keeps what one fit has come to.

    Parameters
    ----------
    folder : str or path
        Made when there is something to write.
    fingerprint : dict of str to str
        What the draws depend on.

    Raises
    ------
    ValueError
        If the folder holds another fit, or something else.

    Warns
    -----
    UserWarning
        Once, if something cannot be written; the fit goes on in memory.
    """

    def __init__(self, folder, fingerprint: dict[str, str]):
        self.folder = Path(folder)
        fingerprint = fingerprint | {"format": FORMAT}
        self.card = json.dumps(fingerprint, indent=1).encode()
        self.first_failure = Lock()  # taken once, and kept
        path = self.folder / CARD
        if path.exists():
            _refuse_another(path, fingerprint)
        elif self.folder.is_file() or _holds_anything(self.folder):
            raise ValueError(
                f"{folder} is there and no checkpoint of a fit; give another path"
            )

    def recall(self, name: str, structure, find):
        """Read a tree of arrays; find and write it the first time.

        Parameters
        ----------
        name : str
        structure : jax.tree_util.PyTreeDef
        find : callable
        """
        if arrays := self.read(f"{name}.part"):
            return jax.tree.unflatten(structure, map(jnp.asarray, arrays.values()))
        tree = find()
        leaves = enumerate(jax.tree.leaves(tree))
        self.write(f"{name}.part", {str(number): leaf for number, leaf in leaves})
        return tree

    def log(self, number: int, state) -> SavedLog:
        """Begin the log of a chain, or take it up again."""
        return SavedLog(state, f"chain{number}", self)

    def read(self, name: str) -> dict | None:
        """Return the arrays of a file; None if it is not there, damaged or foreign."""
        try:
            content = (self.folder / name).read_bytes()
        except OSError:
            return None
        body = content[CHECKSUM:]
        if content[:CHECKSUM] != self._checksum(body):
            return None
        with np.load(BytesIO(body), allow_pickle=False) as file:
            return dict(file)

    def write(self, name: str, arrays: dict) -> bool:
        """Write arrays to a file; return whether that went well."""
        body = BytesIO()
        try:
            np.savez(body, **arrays)
            if not (self.folder / CARD).exists():
                self.folder.mkdir(parents=True, exist_ok=True)
                _replace(self.folder / CARD, self.card)
            checksum = self._checksum(body.getbuffer())
            _replace(self.folder / name, checksum, body.getbuffer())
        except OSError as error:
            if self.first_failure.acquire(blocking=False):
                warnings.warn(
                    f"the checkpoint {self.folder} cannot be written ({error}); the "
                    "fit goes on, and if it is killed what was not written is lost",
                    stacklevel=2,
                )
            return False
        return True

    def _checksum(self, body):
        digest = hashlib.sha256(self.card)
        digest.update(body)
        return digest.digest()


def _refuse_another(path, here):
    """Raise unless the card at ``path`` is that of the fit ``here``."""
    try:
        there = dict(json.loads(path.read_bytes()))
    except ValueError as error:
        raise ValueError(
            f"{path} cannot be read; give the checkpoint another path, or delete it"
        ) from error
    names = [name for name in here | there if here.get(name) != there.get(name)]
    if names:
        each = (f"{name} is {there.get(name)}, not {here.get(name)}" for name in names)
        raise ValueError(
            f"{path.parent} is the checkpoint of another fit ({'; '.join(each)}); "
            "give another path, or delete it"
        )


def _holds_anything(folder):
    """Tell whether there are files, but for the remains of an unfinished write."""
    return any(path.suffix != NEW for path in folder.glob("*"))


def _replace(path, *pieces):
    """Write a file whole or not at all."""
    fresh = path.with_name(path.name + NEW)
    try:
        with fresh.open("wb") as file:
            for piece in pieces:
                file.write(piece)
            file.flush()
            os.fsync(file.fileno())
        os.replace(fresh, path)
    except OSError:
        with suppress(OSError):
            fresh.unlink()
        raise

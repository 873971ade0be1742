"""A file that grows by a line, so that long work can be killed and gone on with."""

import json
import os
from pathlib import Path


class Ledger:
    """Results by number, a JSON object a line, under a line that says of what.

    Parameters
    ----------
    path : str or path
        Its folder is made when the first line is written.
    about : dict of str to str
        What the results depend on.
    key : str
        The name of the number in each object.

    Raises
    ------
    ValueError
        If the file is there and about something else, or no such file.
    """

    def __init__(self, path: str | Path, about: dict[str, str], key: str):
        self.path, self.about, self.key = Path(path), about, key
        self.entries = {}
        if self.path.exists():
            self._read()

    def add(self, entry: dict) -> None:
        """Write an entry, to stay; a number that is no number becomes null."""
        first = [] if self.path.exists() else [self.about]
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("ab") as file:
            for line in (*first, entry):
                file.write(json.dumps(_plain(line), allow_nan=False).encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())
        self.entries[entry[self.key]] = entry

    def _read(self):
        """Take up what is there; cut off a last line that was not written in full."""
        content = self.path.read_bytes()
        whole, newline, _ = content.rpartition(b"\n")
        if not newline:  # killed within the first line
            self.path.unlink()
            return
        first, *lines = self._parse(whole)
        self._refuse_another(first)
        if len(whole) + 1 < len(content):
            os.truncate(self.path, len(whole) + 1)
        self.entries = {line[self.key]: line for line in lines}

    def _parse(self, content):
        try:
            return [json.loads(line) for line in content.splitlines()]
        except ValueError as error:
            raise ValueError(
                f"{self.path} holds what is not JSON ({error}); give another folder"
            ) from error

    def _refuse_another(self, first):
        other = [name for name in self.about if first.get(name) != self.about[name]]
        if other:
            raise ValueError(
                f"{self.path} was begun with another {', '.join(other)}; give another "
                "folder, or call it as it was"
            )


def _plain(thing):
    if isinstance(thing, dict):
        return {name: _plain(value) for name, value in thing.items()}
    if isinstance(thing, float) and not abs(thing) < float("inf"):
        return None
    return thing

"""Files for users: none is replaced unasked, and no half of one is left behind."""

import os
import tempfile
from pathlib import Path


def refuse_to_overwrite(path: Path, *, overwrite: bool) -> None:
    """Make the folder of ``path``, which must not be there unless that is wanted.

    Raises
    ------
    ValueError
        If the file is there.
    """
    if path.exists() and not overwrite:
        raise ValueError(
            f"{path} is there already; choose another place, or say --overwrite"
        )
    path.parent.mkdir(parents=True, exist_ok=True)


def refuse_to_replace(path: str | Path, *, overwrite: bool) -> None:
    """Refuse to write where a file is, unless that is wanted.

    Raises
    ------
    FileExistsError
        If the file is there.
    """
    if Path(path).exists() and not overwrite:
        raise FileExistsError(
            f"{path} exists and is not replaced; choose another name or pass "
            "overwrite=True"
        )


class NewFile:
    """Write beside ``path`` and move into place, so that no half file is left."""

    def __init__(self, path: str | Path):
        self.path = Path(path)

    def __enter__(self) -> Path:
        """Return where to write."""
        self.folder = tempfile.TemporaryDirectory(dir=self.path.parent, prefix=".new-")
        return Path(self.folder.name) / self.path.name

    def __exit__(self, kind, *_):
        """Move what was written into place, if all went well."""
        if kind is None:
            os.replace(Path(self.folder.name) / self.path.name, self.path)
        self.folder.cleanup()

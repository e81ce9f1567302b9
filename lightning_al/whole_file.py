"""WHOLE FILE: a file that is replaced: whoever looks finds the old one or the new one, never half of one.

history.csv, query_3.csv, initial_weights.pt, ... -> [replacing] -> the file, on disk
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

__all__ = ["replacing"]


@contextmanager
def replacing(path: Path, what: str) -> Iterator[Path]:
    """For the block, a file beside `path` to write to; after it, that file is on disk in its place.

    Args:
        path: The file to be made or replaced.
        what: What it is, for the message.

    Raises:
        OSError: If it cannot be written; what was there before is still there.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "notes.txt"
        >>> with replacing(path, "Notes") as part:
        ...     _ = part.write_text("labelled 20")
        >>> path.read_text(), [file.name for file in path.parent.iterdir()]
        ('labelled 20', ['notes.txt'])
    """
    part = path.with_suffix(".part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield part
        _to_disk(part, os.O_RDWR)
        os.replace(part, path)
    except OSError as error:
        with suppress(OSError):
            part.unlink(missing_ok=True)
        raise OSError(
            f"{what} cannot be written to {path} ({error}); needed is a folder that can be written, with "
            "room on its disk. Labels are safe in the ledger: free disk space or mend the folder, then run "
            "the same command again."
        ) from error
    with suppress(OSError):  # where folders cannot be opened, as on Windows
        _to_disk(path.parent, os.O_RDONLY)


def _to_disk(path: Path, flags: int) -> None:
    """Else a power failure may leave the new name with nothing behind it."""
    place = os.open(path, flags)
    try:
        os.fsync(place)
    finally:
        os.close(place)

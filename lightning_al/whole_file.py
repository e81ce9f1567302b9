"""WHOLE FILE: a file that is replaced: whoever looks finds the old one or the new one, never half of one.

history.csv, query_3.csv, initial_weights.pt, ... -> [replacing] -> the file, on disk
"""

from __future__ import annotations

import os
import re
import secrets
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from lightning_al.ledger.owner import may_live

__all__ = ["replacing"]

_LONGEST_NAME, _LONGEST_HOST = 40, 30  # of 255 bytes that a name may have
#: Seconds after which nobody writes to a part any more: those of other hosts cannot be asked.
_FORGOTTEN = 86_400


@contextmanager
def replacing(path: Path, what: str, *, keep_old: bool = False) -> Iterator[Path]:
    """For the block, a new file beside `path` to write to; after it, that file is on disk in its place.

    The file beside it is hidden and has a name that nothing else has, so two writers and a user's own files
    are safe from it. It is removed if the block fails, and by the next writer if this process is killed.

    Args:
        path: The file to be made or replaced.
        what: What it is, for the message.
        keep_old: Let an older file become `<name>.old1<suffix>`.

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
    part = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _remove_forgotten(path)
        part = _new_part(path)
        yield part
        _to_disk(part, os.O_RDWR)
        if keep_old and os.path.lexists(path):
            os.replace(path, _unused(path))
        os.replace(part, path)
    except OSError as error:
        raise OSError(
            f"{what} cannot be written to {path} ({error}); needed is a folder that can be written, with "
            "room on its disk. Labels are safe in the ledger: free disk space or mend the folder, then run "
            "the same command again."
        ) from error
    finally:
        if part is not None:
            with suppress(OSError):  # it has its own name by now, or nothing can be done
                part.unlink(missing_ok=True)
    with suppress(OSError):  # where folders cannot be opened, as on Windows
        _to_disk(path.parent, os.O_RDONLY)


def _new_part(path: Path) -> Path:
    """An empty file of a name that tells whose it is; `O_EXCL` follows no link and opens no other file."""
    part = path.with_name(f".{path.name[:_LONGEST_NAME]}.{_host()}-{os.getpid()}-{secrets.token_hex(4)}.part")
    # With the rights of any new file, unlike those of `tempfile`: annotators read what is written here.
    os.close(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666))
    return part


def _host() -> str:
    return re.sub(r"[^A-Za-z0-9.]", "_", socket.gethostname())[:_LONGEST_HOST]


def _remove_forgotten(path: Path) -> None:
    """Parts of the same file whose writer was killed: of weights, each may be gigabytes."""
    pattern = re.compile(rf"\.{re.escape(path.name[:_LONGEST_NAME])}\.(.+)-(\d+)-[0-9a-f]{{8}}\.part")
    with suppress(OSError), os.scandir(path.parent) as entries:
        for entry in entries:
            found = pattern.fullmatch(entry.name)
            if found is None:
                continue
            with suppress(OSError):  # another writer was quicker
                here = found[1] == _host() and not may_live(socket.gethostname(), int(found[2]), None, None)
                if here or time.time() - entry.stat(follow_symlinks=False).st_mtime > _FORGOTTEN:
                    os.unlink(entry.path)


def _unused(path: Path) -> Path:
    number = 1
    while os.path.lexists(kept := path.with_name(f"{path.stem}.old{number}{path.suffix}")):
        number += 1
    return kept


def _to_disk(path: Path, flags: int) -> None:
    """Else a power failure may leave the new name with nothing behind it."""
    place = os.open(path, flags)
    try:
        os.fsync(place)
    finally:
        os.close(place)

"""FILES: what lies on rank 0's disk, on every rank."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from lightning_al.together.agreement import agree, gathered, shared

__all__ = ["on_every_rank"]


@contextmanager
def on_every_rank(path: str | None) -> Iterator[str | None]:
    """A file of rank 0 for the block: where this rank's disk has none like it, a copy.

    Args:
        path: The same on all ranks; what is no file on rank 0 is passed on as it is.
    """
    if path is None or not shared():
        yield path
        return
    mine = _kind_of(path)
    seen = gathered(lambda: mine, "Looking for a file")
    if seen[0] is None or all(other == seen[0] for other in seen):
        yield path
        return
    content = agree(lambda: Path(path).read_bytes())
    if mine == seen[0]:
        yield path
        return
    with TemporaryDirectory() as folder:
        copy = Path(folder) / Path(path).name
        copy.write_bytes(content)
        del content
        yield str(copy)


def _kind_of(path: str) -> tuple[int, int] | None:
    """By which a file is known on another disk; an older one of the same name is another."""
    try:
        file = Path(path)
        return (file.stat().st_size, file.stat().st_mtime_ns) if file.is_file() else None
    except OSError:
        return None

"""WRITING: a query into a file, whole or not at all, and nothing of a user's is overwritten.

[new_file] -> a text file beside the target -> in its place; what was there is kept beside it
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from lightning_al.ledger.book import Book
from lightning_al.target import check_target
from lightning_al.whole_file import replacing

__all__ = ["new_file"]


@contextmanager
def new_file(book: Book, path: Path) -> Iterator[TextIO]:
    """For the block, a text file to write to; after it, it is at `path`.

    Nothing is written anywhere else: a link at `path` is replaced and not followed. An older file at `path`
    becomes `<name>.old1<suffix>`.

    Args:
        book: Whose ledger must not be written over.
        path: Where to.

    Raises:
        ValueError: If a run keeps something there, or a folder is there.
        OSError: If the disk is full, or the folder cannot be written.
    """
    check_target(path, "the query", folders=[book.folder], is_query=True)
    with (
        replacing(path, "The query", keep_old=True) as part,
        # Halves of characters, which UTF-8 has no bytes for, are only ever in what annotators are shown.
        part.open("w", newline="", encoding="utf-8", errors="backslashreplace") as file,
    ):
        yield file

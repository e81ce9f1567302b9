"""WRITING: a query into a file, whole or not at all, and nothing of a user's is overwritten.

[new_file] -> a text file beside the target -> in its place; what was there is kept beside it
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from lightning_al.ledger.book import Book
from lightning_al.whole_file import replacing

__all__ = ["new_file"]


@contextmanager
def new_file(book: Book, path: Path) -> Iterator[TextIO]:
    """For the block, a text file to write to; after it, it is at `path`.

    Nothing is written anywhere else: a link at `path` is replaced and not followed, nor is one in the place
    of the file beside it. An older file at `path` becomes `<name>.old1<suffix>`.

    Args:
        book: Whose ledger must not be written over.
        path: Where to.

    Raises:
        ValueError: If the ledger, its copies or a folder are there.
        OSError: If the disk is full, or the folder cannot be written.
    """
    _check_target(book, path)
    with replacing(path, "The query") as part:
        part.unlink(missing_ok=True)
        # Halves of characters, which UTF-8 has no bytes for, are only ever in what annotators are shown.
        with part.open("x", newline="", encoding="utf-8", errors="backslashreplace") as file:
            yield file
        if path.exists():
            os.replace(path, _unused(path))


def _check_target(book: Book, path: Path) -> None:
    folder = book.folder.resolve()
    real = path.parent.resolve() / path.name
    ours = (real.parent, real.parent.parent, real.resolve().parent)
    taken = real.name.startswith(book.ledger.path.name) and real.parent == folder
    if taken or folder / "backups" in ours:
        raise ValueError(
            f"{path} belongs to the ledger; needed is another place for the query. Choose a file of its own, "
            f"such as {book.folder / 'query.csv'}."
        )
    if path.exists() and not path.is_file():
        raise ValueError(f"{path} is no file; needed is one to write the query to. Choose another name.")


def _unused(path: Path) -> Path:
    number = 1
    while (kept := path.with_name(f"{path.stem}.old{number}{path.suffix}")).exists():
        number += 1
    return kept

"""SAMPLES: one sample by index or id, and how it and its labels are shown."""

from __future__ import annotations

import getpass
import json
from collections.abc import Sequence

from lightning_al.ledger.answer import check_annotator
from lightning_al.ledger.book import Book
from lightning_al.ledger.label_values import NoLabel, decode
from lightning_al.ledger.status import printable

__all__ = ["annotator", "find", "find_all", "label_text", "name_of"]

_LONGEST = 80


def find(book: Book, text: str) -> int:
    """The index of a sample. Where samples have ids, a number is an index only if no id is a number too.

    Raises:
        ValueError: If there is no such sample.
    """
    names = book.names
    if names is not None:
        place = names.find(text)
        if place is not None:
            return place
    is_index = text.isascii() and text.isdecimal() and len(text) < 20 and int(text) < book.size
    if is_index and (names is None or not any(name.strip().isdecimal() for name in names)):
        return int(text)
    what = f"an index from 0 to {book.size - 1:,}"
    if names is not None:
        what = f"an id, such as {names[0]!r}" if is_index else f"an id, such as {names[0]!r}, or {what}"
    raise ValueError(
        f"There is no sample {text[:200]!r} in {book.folder}; needed is {what}. Check `--sample`."
    )


def find_all(book: Book, texts: Sequence[str]) -> list[int]:
    """The same for several, each once."""
    return list(dict.fromkeys(find(book, text) for text in texts))


def name_of(book: Book, index: int) -> str:
    """How messages name a sample."""
    return f"sample {index}" if book.names is None else f"sample {index} ({printable(book.names[index])})"


def label_text(book: Book, text: str | None) -> str:
    """A label on record as people write it: a class by its name; the data set's own may not be there."""
    if text is None:
        return "its own label"
    value, names = decode(text), book.kind.class_names
    if isinstance(value, NoLabel):
        return value.what
    if (
        names is not None
        and isinstance(value, int)
        and not isinstance(value, bool)
        and 0 <= value < len(names)
    ):
        return printable(str(names[value]))
    shown = value if isinstance(value, str) else json.dumps(json.loads(text), ensure_ascii=False)
    return printable(shown if len(shown) <= _LONGEST else f"{shown[:_LONGEST]}...")


def annotator(who: str | None) -> str:
    """The name given, else that of the account.

    Raises:
        ValueError: If it is no name, or reserved.
    """
    try:
        name = getpass.getuser() if who is None else who
    except (OSError, KeyError, ImportError):
        name = "user"
    try:
        check_annotator(name)
    except ValueError as error:
        raise ValueError(f"`--who` cannot be used: {error}. Give your own name.") from None
    return name

"""QUERIES: which samples wait, and what an annotator is shown of them."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from lightning_al.ledger.book import Book
from lightning_al.ledger.state import ASKED

__all__ = ["Query", "plainly", "waiting_queries"]


@dataclass(frozen=True)
class Query:
    """A sample that waits for its label.

    Args:
        index: In the data set.
        id: The user's name of it, or `None`.
        round: Of the query.
        rank: Place in the query, most wanted first.
        score: The strategy's, or `None`.
        strategy: What asked for it.
        shown: What an annotator is shown of it: texts and numbers.
    """

    index: int
    id: str | None
    round: int
    rank: int
    score: float | None = None
    strategy: str | None = None
    shown: dict[str, Any] = field(default_factory=dict)


def waiting_queries(book: Book) -> list[Query]:
    """The samples that wait, by query, most wanted first."""
    state, names = book.state, book.names
    asked = state.indices(ASKED).tolist()
    return [
        Query(index, None if names is None else names[index], int(state.query[index]), int(state.rank[index]),
              event.score, event.strategy, shown)
        for index, (event, shown) in zip(asked, book.shown(asked), strict=True)
    ]  # fmt: skip


def plainly(described: Any) -> dict[str, Any]:
    """What `describe` returned as a mapping of texts and numbers.

    Example:
        >>> from pathlib import Path
        >>> plainly("a text"), plainly({"page": 3, "path": Path("scans/7.png"), "tensor": [1, 2]})
        ({'sample': 'a text'}, {'page': 3, 'path': 'scans/7.png'})
    """
    described = described if isinstance(described, Mapping) else {"sample": described}
    found = {}
    for key, value in described.items():
        if isinstance(value, os.PathLike):
            value = os.fspath(value)
        elif getattr(value, "ndim", 1) == 0 and hasattr(value, "item"):
            value = value.item()
        if isinstance(value, str | int | float):
            found[str(key)] = value
    return found

"""PROGRESS: a bar over many rows, where somebody looks."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Sized
from typing import TypeVar

__all__ = ["with_progress"]

T = TypeVar("T")

_MANY = 10_000


def with_progress(rows: Iterable[T], name: str) -> Iterator[T]:
    """The rows, with a bar on a terminal if they are more than 10,000."""
    if not (isinstance(rows, Sized) and len(rows) > _MANY and sys.stderr.isatty()):
        return iter(rows)
    from tqdm import tqdm

    return iter(tqdm(rows, desc=name, unit=" rows", unit_scale=True))

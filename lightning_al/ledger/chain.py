"""CHAIN: every event carries a digest over the one before, so that a changed, missing or moved one shows.

the digest before + the row as JSON -> sha256 -> the row's digest
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterable, Iterator
from json.encoder import encode_basestring_ascii as _quoted
from typing import Any

from lightning_al.ledger.schema import Event

__all__ = ["GENESIS", "Row", "digest", "linked", "verified"]

GENESIS = "0" * 64

#: The values of `COLUMNS`, then `said`.
Row = tuple[Any, ...]


def digest(previous: str, row: Row) -> str:
    """The chain's next link: `row` holds the values of `COLUMNS`, in that order, and perhaps `said`."""
    return hashlib.sha256(f"{previous}{_text(row)}".encode()).hexdigest()


def _text(row: Row) -> str:
    """What `json.dumps(row, separators=(",", ":"))` gives, in a third of the time."""
    seq, kind, sample, name, value, who, at, number, strategy, seed, score, rank, *rest = row
    text = (
        f"[{seq},{_quoted(kind)},{sample},{_or_null(name)},{_or_null(value)},"
        f"{_tail(who, at, number, strategy, seed)},"
        f"{'null' if score is None else repr(score)},{'null' if rank is None else rank}"
    )
    said = rest[0] if rest else None
    return f"{text}]" if said is None else f"{text},{_quoted(said)}]"


def _or_null(text: str | None) -> str:
    return "null" if text is None else _quoted(text)


def linked(events: Iterable[Event], last: tuple[int, str], at: str) -> list[Row]:
    """Rows to be written after the `last` number and digest: `COLUMNS`, the digest, `said`."""
    seq, previous = last
    rows = []
    for event in events:
        seq += 1
        row = (
            seq, event.kind, event.sample, event.id, event.value, event.who, at, event.round,
            event.strategy, event.seed, _real(event.score), event.rank,
        )  # fmt: skip
        previous = digest(previous, row if event.said is None else (*row, event.said))
        rows.append((*row, previous, event.said))
    return rows


def _real(score: float | None) -> float | None:
    """SQLite stores NaN as NULL; write it so that the digest sees what will be read back."""
    return None if score is None or math.isnan(score) else float(score)


def verified(
    parts: Iterable[list[Row]], last: tuple[int, str], broken: Callable[[int, str], Exception]
) -> Iterator[list[Row]]:
    """The rows as they were read: `COLUMNS`, `said`, the digest; each part is checked before it is passed on.

    Args:
        parts: Rows in order, some at a time.
        last: Number and digest of the row before the first.
        broken: Makes the error for a number and what is wrong with it.
    """
    seq, previous = last
    sha256, quoted = hashlib.sha256, _quoted
    tails: dict[Any, str] = {}
    try:
        for part in parts:
            for row in part:
                (
                    number, kind, sample, name, value, who, at, of_round, strategy, seed, score, rank,
                    said, link,
                ) = row  # fmt: skip
                seq += 1
                if number != seq:
                    raise broken(seq, "is missing")
                if said is None:  # as in `_text`; what the rows of one call have in common is made once
                    key = (who, at, of_round, strategy, seed)
                    tail = tails.get(key)
                    if tail is None:
                        tail = tails[key] = _tail(*key)
                    text = (
                        f"{previous}[{number},{quoted(kind)},{sample},"
                        f"{'null' if name is None else quoted(name)},"
                        f"{'null' if value is None else quoted(value)},{tail},"
                        f"{'null' if score is None else repr(score)},{'null' if rank is None else rank}]"
                    )
                    found = sha256(text.encode()).hexdigest()
                else:
                    found = digest(previous, row[:13])
                if found != link:
                    raise broken(seq, "was changed after it was written")
                previous = link
            yield part
    except TypeError as error:  # bytes or a number where there was text
        raise broken(seq, "was changed after it was written") from error


def _tail(who: str | None, at: str, number: int | None, strategy: str | None, seed: int | None) -> str:
    return (
        f"{_or_null(who)},{_quoted(at)},{'null' if number is None else number},{_or_null(strategy)},"
        f"{'null' if seed is None else seed}"
    )

"""CHAIN: every event carries a digest over the one before, so that a changed, missing or moved one shows.

the digest before + the row as JSON -> sha256 -> the row's digest
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Iterable, Iterator
from json.encoder import encode_basestring_ascii as _quoted
from typing import Any, NamedTuple

from lightning_al.ledger.schema import Event

__all__ = ["CHECKED", "GENESIS", "Call", "Calls", "Row", "digest", "linked", "verified"]

GENESIS = "0" * 64
_KEPT_CALLS = 5000

#: The values of `COLUMNS`, then `said`.
Row = tuple[Any, ...]

#: What is read of `events` to check them. What the events of one call have in common comes as one text:
#: a column less is a twentieth of the time it takes to open a ledger.
CHECKED = (
    "seq, kind, sample, id, value, json_array(who, at, round, strategy, seed), score, rank, {said}, digest"
)


class Call(NamedTuple):
    """What the events of one call have in common, and the piece of JSON that it is."""

    who: str | None
    at: str
    round: int | None
    strategy: str | None
    seed: int | None
    text: str


class Calls(dict[str, Call]):
    """By the sixth column of `CHECKED`; those of late are kept."""

    def __missing__(self, common: str) -> Call:
        if len(self) >= _KEPT_CALLS:  # a call an event, where people label one by one
            self.clear()
        who, at, number, strategy, seed = json.loads(common)
        text = _tail(who, at, number, strategy, seed)
        call = self[common] = Call(who, at, number, strategy, seed, text)
        return call


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
    parts: Iterable[list[Row]], last: tuple[int, str], broken: Callable[[int, str], Exception], calls: Calls
) -> Iterator[list[Row]]:
    """The rows as they were read, of the columns `CHECKED`; each part is checked before it is passed on.

    Args:
        parts: Rows in order, some at a time.
        last: Number and digest of the row before the first.
        broken: Makes the error for a number and what is wrong with it.
        calls: Takes in what rows have in common.
    """
    seq, previous = last
    sha256, quoted = hashlib.sha256, _quoted
    try:
        for part in parts:
            for number, kind, sample, name, value, common, score, rank, said, link in part:
                seq += 1
                if number != seq:
                    raise broken(seq, "is missing")
                text = (  # as in `_text`, without a call
                    f"{previous}[{number},{quoted(kind)},{sample},"
                    f"{'null' if name is None else quoted(name)},"
                    f"{'null' if value is None else quoted(value)},{calls[common].text},"
                    f"{'null' if score is None else repr(score)},{'null' if rank is None else rank}"
                    f"{']' if said is None else f',{quoted(said)}]'}"
                )
                if sha256(text.encode()).hexdigest() != link:
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

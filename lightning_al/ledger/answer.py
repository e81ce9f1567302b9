"""ANSWER: what one annotator said of one sample, and which rule makes a label of several."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Any, Literal, TypeVar

__all__ = [
    "RESERVED",
    "UNNAMED",
    "Answer",
    "Opinion",
    "Resolve",
    "bare",
    "check_annotator",
    "check_opinion",
    "latest",
    "moment",
    "name_of_rule",
]

_T = TypeVar("_T")
#: Whose answers are that nobody was named for, in Python.
UNNAMED = "user"
#: Who labels that is no person: a label by one of these is treated otherwise.
RESERVED = ("dataset", "oracle", "resolve")
_LONGEST_NAME = 200
_AHEAD = timedelta(days=1)


@dataclass(frozen=True)
class Answer:
    """An answer on record.

    Args:
        value: The target.
        who: The annotator.
        at: When it was said, ISO 8601 in UTC.
    """

    value: Any
    who: str | None
    at: str


#: How several answers become one label; a function is given the newest of each annotator, oldest first.
Resolve = Literal["newest"] | Callable[[list[Answer]], Any]


@dataclass(frozen=True)
class Opinion:
    """What an annotator says now, before it is held against the record.

    Args:
        index: The sample.
        kind: `"label"`, `"skip"` or `"unsure"`.
        text: The target as JSON; `None`: there is none, or the data set holds it.
        who: The annotator, or where the answer came from.
        named: `who` is a person's name: another person's answer is no conflict.
        said: When, by the clock of the annotator's tool; see `moment`.
        given: The answer as it was given, for messages.
        file: Where it was read from: an answer under that name is this one, before anybody said whose.

    Example:
        >>> Opinion(3, "label", "0", "Ada ", named=True).who
        'Ada'
    """

    index: int
    kind: Literal["label", "skip", "unsure"]
    text: str | None
    who: str
    named: bool = False
    said: str | None = None
    given: str = ""
    file: str = ""

    def __post_init__(self) -> None:
        if self.named and (who := bare(self.who)) != self.who:
            object.__setattr__(self, "who", who)


def moment(when: datetime | str) -> str:
    """A time in UTC as the ledger writes it, so that times are compared as text.

    Raises:
        ValueError: If it is no time.

    Example:
        >>> moment("2026-11-28T14:00:00Z"), moment("2026-11-28 16:00:00.5+02:00")
        ('2026-11-28T14:00:00.000000+00:00', '2026-11-28T14:00:00.500000+00:00')
    """
    try:
        found = datetime.fromisoformat(when) if isinstance(when, str) else when
    except ValueError as error:
        raise ValueError(f"{when!r} is no time; needed is ISO 8601, such as 2026-11-28T14:00:00Z") from error
    if found.tzinfo is None:
        found = found.replace(tzinfo=UTC)
    try:
        return found.astimezone(UTC).isoformat(timespec="microseconds")
    except OverflowError as error:
        raise ValueError(f"{when!r} is no time in UTC; needed is one between the years 1 and 9999") from error


def bare(who: _T) -> _T:
    """An annotator's name without outer spaces: "Ada " is nobody else than Ada. What is no text stays.

    Example:
        >>> bare("Ada ")
        'Ada'
    """
    return who.strip() if isinstance(who, str) else who  # type: ignore[return-value]  # text is text


def check_annotator(who: str) -> None:
    """Refuse a name that would be taken for something else, or that no table shows.

    Raises:
        ValueError: If it is reserved, empty, too long or not printable.

    Example:
        >>> check_annotator("Ada"), check_annotator("ada@example.org")
        (None, None)
    """
    if not isinstance(who, str):
        raise ValueError(f"the annotator's name is {who!r:.40}; needed is text")
    _check_name(who)


@lru_cache(maxsize=1000)  # few people give many answers
def _check_name(who: str) -> None:
    if who in RESERVED:
        raise ValueError(
            f"the annotator's name is {who!r}, which stands for labels that no person gave; needed is another"
        )
    if not who.strip() or len(who) > _LONGEST_NAME or not who.isprintable():
        raise ValueError(
            f"the annotator's name is {who[:40]!r}; needed are 1 to {_LONGEST_NAME} letters that can be shown"
        )


def latest() -> str:
    """The latest moment that an answer can be of now, as `moment` writes it: clocks differ by a day."""
    return moment(datetime.now(UTC) + _AHEAD)


def check_opinion(opinion: Opinion, latest: str) -> None:
    """Refuse what would win over every later answer, or be taken for what it is not.

    Args:
        opinion: The opinion.
        latest: What `latest()` gave.

    Raises:
        ValueError: If its annotator's name cannot be one, or it was said in the future.
    """
    if opinion.named:
        check_annotator(opinion.who)
    if opinion.said is not None and opinion.said > latest:
        raise ValueError(f"it was said at {opinion.said}, which is yet to come; needed is when it was given")


def name_of_rule(resolve: Any) -> str:
    """What the ledger records of a rule: a function by its qualified name."""
    if isinstance(resolve, str):
        return resolve
    kind = resolve if hasattr(resolve, "__qualname__") else type(resolve)
    return f"{kind.__module__}.{kind.__qualname__}"

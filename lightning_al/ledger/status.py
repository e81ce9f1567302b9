"""STATUS: how far a run is, in one look: labels, classes, what waits, and who holds the ledger.

Book -> [Status.of] -> text for people, plain values for programs
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lightning_al.ledger.owner import Holder
from lightning_al.ledger.state import ASKED, IGNORED, LABELED, POOL
from lightning_al.ledger.waiting import Waiting

if TYPE_CHECKING:
    from lightning_al.ledger.record import Record

__all__ = ["Status"]

_BAR = 30
_SHOWN_CLASSES = 30


@dataclass(frozen=True)
class Status:
    """How far a run is.

    Args:
        folder: The state directory.
        run: The ledger's `run_id`.
        round: The newest.
        finished: How many rounds were trained and tested.
        rounds: How many queries are planned; `None`: nobody said.
        samples: All of them: the four kinds below.
        labeled: Labelled.
        asked: Asked for, waiting.
        ignored: Never asked for again.
        pool: Still to choose from.
        budget: Labels in all; `None`: no limit, or not known yet.
        strategy: What asks.
        classes: Labels a class, by name; `None`: targets are no classes, or only the data set has them.
        waiting: What waits, and whether training may go on.
        holder: The run that may write now, or `None`.

    Example:
        >>> import tempfile
        >>> from lightning_al.ledger import Book, Event, Ledger
        >>> folder = tempfile.mkdtemp()
        >>> meta = {"size": 9, "class_names": ["cat", "dog"], "label_kind": "class", "budget": 4}
        >>> _ = Ledger(f"{folder}/ledger.sqlite3").create(meta, [Event("asked", 4, round=0, rank=0)])
        >>> book = Book(folder)
        >>> _ = book.label([4, 5], ["dog", "dog"], who="Ada")
        >>> status = book.status()
        >>> status.labeled, status.budget, status.classes
        (2, 4, {'cat': 0, 'dog': 2})
    """

    folder: Path
    run: str
    round: int
    finished: int
    rounds: int | None
    samples: int
    labeled: int
    asked: int
    ignored: int
    pool: int
    budget: int | None
    strategy: str | None
    classes: Mapping[str, int] | None
    waiting: Waiting
    holder: Holder | None

    @classmethod
    def of(cls, book: Record) -> Status:
        """As the ledger is now."""
        state, meta = book.current(), book.ledger.meta()
        labeled = state.indices(LABELED)
        asked, ignored, pool = (int((state.status == kind).sum()) for kind in (ASKED, IGNORED, POOL))
        return cls(
            book.folder, state.run_id, state.last_round, len(book.ledger.rounds()), meta.get("rounds"),
            book.size, len(labeled), asked, ignored, pool, meta.get("budget"), meta.get("strategy"),
            _by_name(state.class_counts(labeled), meta.get("class_names")),
            book.waiting(), book.ledger.holder(),
        )  # fmt: skip

    def as_dict(self) -> dict[str, Any]:
        """Of plain values, for JSON."""
        waiting = self.waiting
        return {
            "folder": str(self.folder), "run": self.run, "round": self.round, "finished": self.finished,
            "rounds": self.rounds, "samples": self.samples, "labeled": self.labeled, "asked": self.asked,
            "ignored": self.ignored, "pool": self.pool, "budget": self.budget, "strategy": self.strategy,
            "classes": None if self.classes is None else dict(self.classes),
            "waiting": {
                "count": waiting.count, "answered": waiting.answered, "needed": waiting.needed,
                "blocks": waiting.blocks, "unsure": waiting.unsure, "undecided": waiting.undecided,
                "message": waiting.message,
            },
            "holder": None if self.holder is None else self.holder.as_dict(),
        }  # fmt: skip

    def __str__(self) -> str:
        planned = "" if self.rounds is None else f" of {self.rounds}"
        budget = "" if self.budget is None else f" of a budget of {self.budget:,}"
        lines = [
            f"{self.folder} (run {self.run})",
            f"round      {self.round}{planned}; {self.finished} finished"
            + ("" if self.strategy is None else f"; {self.strategy}"),
            f"labelled   {self.labeled:,}{budget}",
            f"waiting    {self.asked:,}",
            f"ignored    {self.ignored:,}",
            f"pool       {self.pool:,} of {self.samples:,} samples",
        ]
        if self.classes:
            lines += ["", *_table(self.classes)]
        return "\n".join([*lines, "", self.waiting.message, _held(self.holder)])


def _by_name(counts: Mapping[Any, int] | None, names: list[str] | None) -> dict[str, int] | None:
    """Every class that has a name, the others by their number."""
    if counts is None:
        return None
    if names is None:
        return {str(value): counts[value] for value in sorted(counts, key=lambda v: (str(type(v)), v))}
    found = dict.fromkeys(names, 0)
    for value, count in counts.items():
        name = names[value] if isinstance(value, int) and value < len(names) else str(value)
        found[name] = found.get(name, 0) + count
    return found


def _table(classes: Mapping[str, int]) -> list[str]:
    """A bar a class; of many the most frequent ones."""
    shown = dict(classes)
    if len(shown) > _SHOWN_CLASSES:
        shown = dict(sorted(shown.items(), key=lambda item: -item[1])[:_SHOWN_CLASSES])
    names = {name: printable(name)[:24] for name in shown}
    most = max(1, *shown.values()) if len(shown) > 1 else max([1, *shown.values()])
    wide, digits = max(map(len, names.values())), len(f"{most:,}")
    lines = [
        f"{names[name]:<{wide}}  {count:>{digits},}  {'#' * round(_BAR * count / most)}".rstrip()
        for name, count in shown.items()
    ]
    return lines + ([f"and {len(classes) - len(shown):,} more"] if len(shown) < len(classes) else [])


def printable(text: str) -> str:
    r"""Text that a terminal shows and does not obey: no escape sequences, no line ends.

    Example:
        >>> print(printable("a cat"), printable("red\x1b[2J"))
        a cat red\x1b[2J
    """
    return text if text.isprintable() else "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def _held(holder: Holder | None) -> str:
    if holder is None:
        return "No run holds the ledger."
    return f"{holder}."

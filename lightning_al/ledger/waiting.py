"""WAITING: a query whose answers are not all there, and how a run ends that waits for people."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from lightning_al.ledger.state import ASKED, LABELED, POOL, PoolState

__all__ = ["AwaitingLabels", "Waiting"]


@dataclass(frozen=True)
class Waiting:
    """What waits for labels, and whether training may go on without them.

    Args:
        count: How many samples wait, of all queries; the object is false if none does.
        round: Of the newest query.
        total: How many samples the newest query asked for; with `needed == total`, older ones that wait too.
        answered: How many of these are labelled or skipped.
        needed: How many of these must be, before training goes on.
        unsure: How many of those that wait somebody could not tell yet.
        undecided: How many of those that wait have answers of which the rule makes no label yet.
        labeled: How many samples are labelled in all.
        place: Where the labels go.

    Example:
        >>> waiting = Waiting(count=8, round=0, total=20, answered=12, needed=16, labeled=11)
        >>> waiting.blocks, waiting.missing
        (True, 4)
        >>> print(waiting.at("ask Ada").message.split(": ", 1)[0])
        8 samples wait for their labels, 11 are labelled; 12 of 20 answered, 16 are needed
    """

    count: int
    round: int = 0
    total: int = 0
    answered: int = 0
    needed: int = 0
    unsure: int = 0
    undecided: int = 0
    labeled: int = 0
    place: str = ""

    @classmethod
    def of(cls, state: PoolState, min_answered: float = 1.0) -> Waiting:
        """What waits in a state.

        Args:
            state: Of the ledger.
            min_answered: Share of the newest query that must be answered before training goes on.
        """
        asked = state.indices(ASKED)
        number = int(state.query.max(initial=-1))
        newest = state.query == number
        total = int((newest & (state.status != POOL)).sum()) if number >= 0 else 0
        open_ = int((state.query[asked] == number).sum())
        if min_answered >= 1:  # then all that were ever asked for must be
            total, open_ = total + len(asked) - open_, len(asked)
        waits = set(asked.tolist())
        return cls(
            count=len(asked), round=max(number, 0), total=total, answered=total - open_,
            needed=math.ceil(round(min_answered * total, 6)),
            unsure=len(waits & set(state.unsure)), undecided=len(waits & state.answered),
            labeled=int(np.count_nonzero(state.status == LABELED)),
        )  # fmt: skip

    def at(self, place: str) -> Waiting:
        """The same with the place where labels go."""
        return replace(self, place=place)

    @property
    def missing(self) -> int:
        """How many more answers training needs."""
        return max(0, self.needed - self.answered)

    @property
    def blocks(self) -> bool:
        """Whether training must wait."""
        return self.missing > 0

    def __bool__(self) -> bool:
        return self.count > 0

    @property
    def message(self) -> str:
        """All of it in one line."""
        if not self:
            return f"No sample waits for its label, {self.labeled:,} are labelled."
        waits = (
            "1 sample waits for its label"
            if self.count == 1
            else f"{self.count:,} samples wait for their labels"
        )
        said = f"{waits}, {self.labeled:,} are labelled"
        if self.blocks and self.needed < self.total:
            said += (
                f"; {self.answered:,} of {self.total:,} answered, {self.needed:,} are needed: "
                f"{self.missing:,} more"
            )
        if self.unsure:
            said += f"; of {self.unsure:,} an annotator could not tell yet"
        if self.undecided:
            said += f"; {self.undecided:,} have answers that make no label yet"
        then = "then run the same command again"
        if not self.blocks:
            then = "to be trained on when the same command is run again"
        return f"{said}: {self.place}, {then}." if self.place else f"{said}."

    def __str__(self) -> str:
        return self.message


class AwaitingLabels(SystemExit):
    """Samples were asked for and are not labelled yet: the run ends here, with exit status 0.

    The same command goes on once the labels are there.

    Args:
        waiting: What waits, and where labels go.
    """

    def __init__(self, waiting: Waiting) -> None:
        self.waiting = waiting
        super().__init__(0)

    @property
    def count(self) -> int:
        """How many samples wait."""
        return self.waiting.count

    @property
    def labeled(self) -> int:
        """How many are labelled."""
        return self.waiting.labeled

    @property
    def place(self) -> str:
        """Where labels go."""
        return self.waiting.place

    def __reduce__(self) -> tuple[type[AwaitingLabels], tuple[Waiting]]:
        return AwaitingLabels, (self.waiting,)

    def __str__(self) -> str:
        return str(self.waiting)

"""OVERVIEW: which samples are labelled, asked, ignored or in the pool, and what a training sees of them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from lightning_al.data.book import LabelBook
from lightning_al.ledger.answer import Answer
from lightning_al.ledger.indices import Indices
from lightning_al.ledger.ledger import Ledger
from lightning_al.ledger.state import ASKED, IGNORED, LABELED, POOL, PoolState
from lightning_al.ledger.status import Status

__all__ = ["Overview", "TrainingSet"]


@dataclass(frozen=True)
class TrainingSet:
    """What one training sees.

    Args:
        indices: Its samples, in order.
        labeled: All labelled samples, of older rounds too: the labels spent until then.
        digest: A hash of its samples and targets.
    """

    indices: Indices
    labeled: Indices
    digest: str


class Overview:
    """The part of `ActiveDataModule` that only looks.

    Attributes:
        book: Ledger and state, kept in step.
        last_rounds: Train on the labels of the newest rounds only; `None`: on all.
        training: What the last training saw, or `None`.
    """

    book: LabelBook
    last_rounds: int | None
    training: TrainingSet | None = None
    _repeated: int | None = None

    @property
    def state(self) -> PoolState:
        """Status, round and target of every sample, as of the last look at the ledger."""
        return self.book.state

    @property
    def ledger(self) -> Ledger:
        """The record of every query and label."""
        return self.book.ledger

    @property
    def state_dir(self) -> Path | None:
        """Folder of the ledger; `None` until the first write where none was named."""
        return self.book.state_dir

    @property
    def labeled_indices(self) -> Indices:
        """Labelled samples, in the order of round and rank in the query."""
        return self.state.indices(LABELED)

    @property
    def pool_indices(self) -> Indices:
        """Samples that can be asked for, ascending."""
        return self.state.indices(POOL)

    @property
    def asked_indices(self) -> Indices:
        """Samples asked for and not labelled yet, in the order of the query."""
        return self.state.indices(ASKED)

    @property
    def ignored_indices(self) -> Indices:
        """Samples never to be asked for, ascending."""
        return self.state.indices(IGNORED)

    @property
    def round(self) -> int:
        """The round that is trained: the newest, or the one that is trained again."""
        return self.state.last_round if self._repeated is None else self._repeated

    @property
    def repeats_round(self) -> bool:
        """Whether an older round is trained again, see `as_of`."""
        return self._repeated is not None

    def answers(self, index: int) -> list[Answer]:
        """The answers of a sample that stand, oldest first: value, annotator and time of each.

        Args:
            index: Data set index.
        """
        return self.book.answers(index)

    def status(self) -> Status:
        """How far the run is: labels, classes, what waits, and who holds the ledger."""
        return self.book.status()

    def training_set(self) -> TrainingSet:
        """What the next training sees."""
        first = 0 if self.last_rounds is None else self.round - self.last_rounds + 1
        indices = self.state.labeled_up_to(self.round, first)
        labeled = self.state.labeled_up_to(self.round)
        return TrainingSet(indices, labeled, self.state.digest(indices))

    @contextmanager
    def as_of(self, number: int) -> Iterator[None]:
        """Train round `number`, an older one as well, on the labels that it had; for the block."""
        self._repeated = None if number == self.state.last_round else number
        try:
            yield
        finally:
            self._repeated = None

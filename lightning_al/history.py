"""HISTORY: one row a round, from the ledger to a table."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from lightning_al.ledger.book import Book
from lightning_al.ledger.waiting import Waiting
from lightning_al.tables import frame_of, write_table

if TYPE_CHECKING:
    from lightning_al.data import ActiveDataModule

__all__ = ["COLUMNS", "History"]

#: What only `fit_rounds` needs to know, to see what is left to do.
_INNER = ("tested", "trained")

#: What every row has; the test metrics follow.
COLUMNS = ("round", "labeled", "asked", "train_s", "score_s", "select_s", "label_entropy")


class History:
    """One row a round: what it was trained on, what it asked for, how long it took, how it tested.

    Args:
        rows: Mappings with the keys `COLUMNS`, then the test metrics.
        waiting: What was asked for and waits for labels: the run goes on when it is called again and they
            are there. False if nothing waits.

    Example:
        >>> history = History([{"round": 0, "labeled": 20, "test_acc": 0.5}])
        >>> len(history), history.column("test_acc")
        (1, [0.5])
    """

    def __init__(self, rows: list[dict[str, Any]], *, waiting: Waiting | None = None) -> None:
        self.waiting = Waiting(0) if waiting is None else waiting
        self.rows = [{key: value for key, value in row.items() if key not in _INNER} for row in rows]

    @classmethod
    def of(cls, source: ActiveDataModule | str | os.PathLike[str]) -> History:
        """What the ledger knows of the rounds so far, however they were looped.

        Args:
            source: The data module, or a state directory: then neither torch nor the data set is needed.

        Raises:
            LedgerError: If there is no ledger.
        """
        if isinstance(source, str | os.PathLike):
            book = Book(source)
            return cls(book.ledger.rounds(), waiting=book.waiting())
        return cls(source.ledger.rounds(), waiting=source.waiting)

    def __len__(self) -> int:
        return len(self.rows)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return iter(self.rows)

    @property
    def columns(self) -> list[str]:
        """The fixed columns, then the test metrics."""
        return list(dict.fromkeys([*COLUMNS, *(key for row in self.rows for key in row)]))

    def column(self, name: str) -> list[Any]:
        """One value a round; NaN where a round has none."""
        return [row.get(name, float("nan")) for row in self.rows]

    def to_frame(self) -> Any:
        """As a pandas `DataFrame`.

        Raises:
            ModuleNotFoundError: If pandas is not installed.
        """
        return frame_of(self.rows, self.columns, "history.rows")

    def write_csv(self, path: str | os.PathLike[str], *, keep_old: bool = False) -> None:
        """Write the rows, whole or not at all.

        Args:
            path: Where to.
            keep_old: Let an older file there become `<name>.old1<suffix>`.

        Raises:
            ValueError: If a run keeps something else there: its ledger, weights, answers of people.
            OSError: If the disk is full, or the folder cannot be written.
        """
        write_table(path, self.rows, self.columns, "history of the rounds", keep_old=keep_old)

    def __repr__(self) -> str:
        waiting = f", {self.waiting.count} samples wait for labels" if self.waiting else ""
        return f"History({len(self)} rounds, columns {self.columns}{waiting})"

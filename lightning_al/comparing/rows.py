"""ROWS: all runs of a comparison as one table, and the classes of their labels.

RunTable of every run -> [Runs] -> rows, files, histories, counts of classes
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from lightning_al.comparing.settings import FailedRun
from lightning_al.comparing.table import FIXED, RunTable
from lightning_al.history import History
from lightning_al.reaching import is_accuracy
from lightning_al.tables import frame_of, write_table
from lightning_al.target import check_target
from lightning_al.whole_file import replacing

__all__ = ["Runs"]


class Runs:
    """The table of a comparison.

    Args:
        tables: Of every run that has rounds.
        strategies: Names, the baseline first.
        seeds: Of the runs.
        rounds: Queries a run.
        baseline: Name of random sampling.
        failures: Runs that failed just now.
        metric: The one that is meant if none is named; `None`: the first accuracy, else the first of all.
    """

    def __init__(
        self,
        tables: Sequence[RunTable],
        *,
        strategies: Sequence[str],
        seeds: Sequence[int],
        rounds: int,
        baseline: str,
        failures: Sequence[FailedRun] = (),
        metric: str | None = None,
    ) -> None:
        self.tables = [table for table in tables if table.rows]
        self.strategies, self.seeds, self.rounds = list(strategies), list(seeds), rounds
        self.baseline, self.failures = baseline, list(failures)
        self._metric = metric
        self.rows = [row for table in self.tables for row in table.rows]

    # ------------------------------------------------------------------ the table

    @property
    def columns(self) -> list[str]:
        """Of the table: what every row has, with the test metrics in the middle."""
        first, last = list(FIXED[:5]), list(FIXED[5:])
        return [*first, *self.metrics, *last]

    @property
    def metrics(self) -> list[str]:
        """The test metrics."""
        return [key for key in dict.fromkeys(k for row in self.rows for k in row) if key not in FIXED]

    @cached_property
    def metric(self) -> str:
        """The one that is meant if none is named: that of `compare`, the first accuracy, or the first of all.

        Raises:
            ValueError: If there is none.
        """
        if not self.metrics:
            raise ValueError(
                "No round has a test metric, so there is nothing to compare by. Log one in the module's "
                "`test_step`; if no round has ended yet, wait for one."
            )
        if self._metric in self.metrics:
            return self._metric
        return next(filter(is_accuracy, self.metrics), self.metrics[0])

    def to_frame(self) -> Any:
        """The rows as a pandas `DataFrame`.

        Raises:
            ModuleNotFoundError: If pandas is not installed.
        """
        return frame_of(self.rows, self.columns, "comparison.rows")

    def write_csv(self, path: str | os.PathLike[str]) -> None:
        """Write the rows, whole or not at all.

        Raises:
            ValueError: If a run keeps something else there: its ledger, weights, answers of people.
            OSError: If the disk is full, or the folder cannot be written.
        """
        write_table(path, self.rows, self.columns, "table of the comparison")

    def write_parquet(self, path: str | os.PathLike[str]) -> None:
        """Write the rows as Parquet.

        Raises:
            ModuleNotFoundError: If pandas or pyarrow is not installed.
            ValueError: If a run keeps something else there: its ledger, weights, answers of people.
        """
        try:
            import pyarrow  # type: ignore[import-not-found,unused-ignore]  # noqa: F401
        except ModuleNotFoundError as error:
            raise ModuleNotFoundError(
                "`write_parquet` needs pandas and pyarrow, which is not installed. `pip install pandas "
                "pyarrow`, or use `write_csv`."
            ) from error
        check_target(Path(path), "the table of the comparison")
        with replacing(Path(path), "The table of the comparison") as part:
            self.to_frame().to_parquet(part)

    # ------------------------------------------------------------------ runs

    def histories(self) -> dict[str, list[History]]:
        """One history a seed, of every strategy that has any: what plots take."""
        found: dict[str, list[History]] = {name: [] for name in self.strategies}
        for table in self.tables:
            found[table.run.strategy].append(History(table.rows))
        return {name: runs for name, runs in found.items() if runs}

    def class_counts(self) -> dict[str, npt.NDArray[np.int64]]:
        """How often each class is among the labels that came with a round's query.

        Returns:
            Of every strategy `(seeds, rounds, classes)`, for the rounds that all its runs have; round 0 is
            the initial set. The classes are in the order of `classes`.

        Raises:
            ValueError: If targets are not classes.
        """
        places = {name: place for place, name in enumerate(self.classes)}
        found = {}
        for name in self.strategies:
            runs = [table.classes or [] for table in self.tables if table.run.strategy == name]
            if not runs:
                continue
            counts = np.zeros((len(runs), min(map(len, runs)), len(places)), np.int64)
            for s, run in enumerate(runs):
                for r, classes in enumerate(run[: counts.shape[1]]):
                    for value, count in classes.items():
                        counts[s, r, places[value]] = count
            found[name] = counts
        return found

    @cached_property
    def classes(self) -> list[Any]:
        """The classes among all labels, in order.

        Raises:
            ValueError: If targets are not classes.
        """
        if not self.tables or any(table.classes is None for table in self.tables):
            raise ValueError(
                "The targets are not classes, or no round has ended, so classes cannot be counted. Look at "
                "`rows` instead."
            )
        found = {value for table in self.tables for counts in table.classes or [] for value in counts}
        return sorted(found, key=lambda value: (str(type(value)), value))

    @property
    def class_names(self) -> list[str]:
        """Their names, where the data module has them."""
        names = next((table.facts.get("class_names") for table in self.tables), None)
        return [names[c] if names and isinstance(c, int) and c < len(names) else str(c) for c in self.classes]

    @property
    def ended(self) -> list[RunTable]:
        """The runs that statistics are of."""
        return [table for table in self.tables if table.ended]

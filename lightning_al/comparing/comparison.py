"""COMPARISON: what came of all runs, as a table and as what may be said of it.

ledgers -> RunTable -> [Comparison] -> rows, summary, penalties, plots
"""

from __future__ import annotations

import csv
import os
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from lightning_al.comparing.penalties import Penalties
from lightning_al.comparing.settings import FailedRun, Settings
from lightning_al.comparing.statistics import median, penalty_matrix
from lightning_al.comparing.summary import ComparisonSummary, summarize
from lightning_al.comparing.table import FIXED, RunTable, read
from lightning_al.history import History
from lightning_al.whole_file import replacing

__all__ = ["Comparison"]

_LOWER = ("loss", "err", "mse", "mae", "nll", "perplexity", "brier", "ece")


class Comparison:
    """All runs of a comparison: one row a round, and what may be said of the strategies.

    Args:
        tables: Of every run that has rounds.
        strategies: Names, the baseline first.
        seeds: Of the runs.
        rounds: Queries a run.
        baseline: Name of random sampling.
        failures: Runs that failed just now.

    Attributes:
        rows: Mappings with `strategy`, `seed`, `round`, `labeled` (what the model was trained on), `asked`,
            the test metrics, the entropies in nats of the classes that the round's query brought
            (`query_entropy`), of all that queries brought until then (`acquired_entropy`) and of all labels
            (`label_entropy`), and seconds: `train_s`, `test_s`, `score_s`, `select_s`, and `round_s` in all.
        strategies: Names, the baseline first.
        seeds: Of the runs.
        baseline: Name of random sampling.

    Example:
        >>> comparison = Comparison.of_rows([
        ...     {"strategy": name, "seed": seed, "round": r, "labeled": 10 + 10 * r, "test_acc": a + r / 10}
        ...     for name, a in (("Random", 0.5), ("Margin", 0.6)) for seed in (0, 1) for r in range(4)
        ... ])
        >>> [row["aubc"] for row in comparison.summary("test_acc")]
        [0.65, 0.75]
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
    ) -> None:
        self.tables = [table for table in tables if table.rows]
        self.strategies, self.seeds, self.rounds = list(strategies), list(seeds), rounds
        self.baseline, self.failures = baseline, list(failures)
        self.rows = [row for table in self.tables for row in table.rows]

    @classmethod
    def load(cls, state_dir: str | os.PathLike[str]) -> Comparison:
        """What there is so far of all runs that calls of `compare` with this folder asked for.

        Args:
            state_dir: The folder; neither torch nor the data are needed, and runs may be going on.

        Raises:
            ValueError: If it holds no comparison.
        """
        place = Path(state_dir).absolute()
        return cls.of(Settings.read(place), place)

    @classmethod
    def of(cls, settings: Settings, state_dir: Path, failures: Sequence[FailedRun] = ()) -> Comparison:
        """Of the runs of these settings in a folder."""
        return cls(
            [read(run, settings.rounds) for run in settings.runs(state_dir)],
            strategies=list(settings.strategies), seeds=settings.seeds, rounds=settings.rounds,
            baseline=settings.baseline, failures=failures,
        )  # fmt: skip

    @classmethod
    def of_rows(cls, rows: Sequence[Mapping[str, Any]], baseline: str = "Random") -> Comparison:
        """Of a table that was made elsewhere, or read from a file.

        Args:
            rows: With `strategy`, `seed`, `round`, `labeled` and a metric each.
            baseline: Name of random sampling.

        Raises:
            ValueError: If there is no row, or none of the baseline.
        """
        grouped: dict[tuple[str, int], list[dict[str, Any]]] = {}
        for row in rows:
            grouped.setdefault((row["strategy"], row["seed"]), []).append(dict(row))
        names = list(dict.fromkeys(name for name, _ in grouped))
        if baseline not in names:
            raise ValueError(
                f"The rows are of the strategies {names}; needed is {baseline!r} too, which the others are "
                "measured against. Add its rows, or name another `baseline`."
            )
        last = max(row["round"] for row in rows)
        return cls(
            [RunTable.of_rows(name, seed, found, last) for (name, seed), found in grouped.items()],
            strategies=sorted(names, key=lambda name: name != baseline),
            seeds=sorted({seed for _, seed in grouped}), rounds=last, baseline=baseline,
        )  # fmt: skip

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
        """The one that is meant if none is named: the first accuracy, else the first of all.

        Raises:
            ValueError: If there is none.
        """
        if not self.metrics:
            raise ValueError(
                "No round has a test metric, so there is nothing to compare by. Log one in the module's "
                "`test_step`; if no round has ended yet, wait for one."
            )
        return next((name for name in self.metrics if "acc" in name.lower()), self.metrics[0])

    def to_frame(self) -> Any:
        """The rows as a pandas `DataFrame`.

        Raises:
            ModuleNotFoundError: If pandas is not installed.
        """
        try:
            import pandas as pd
        except ModuleNotFoundError as error:
            raise ModuleNotFoundError(
                "`to_frame` needs pandas, which is not installed. `pip install lightning-al[frame]`, or use "
                "`comparison.rows`."
            ) from error
        return pd.DataFrame(self.rows, columns=self.columns)

    def write_csv(self, path: str | os.PathLike[str]) -> None:
        """Write the rows, whole or not at all."""
        with (
            replacing(Path(path), "The table of the comparison") as part,
            part.open("w", newline="", encoding="utf-8") as file,
        ):
            writer = csv.DictWriter(file, self.columns, lineterminator="\n")
            writer.writeheader()
            writer.writerows(self.rows)

    def write_parquet(self, path: str | os.PathLike[str]) -> None:
        """Write the rows as Parquet.

        Raises:
            ModuleNotFoundError: If pandas or pyarrow is not installed.
        """
        try:
            import pyarrow  # type: ignore[import-not-found,unused-ignore]  # noqa: F401
        except ModuleNotFoundError as error:
            raise ModuleNotFoundError(
                "`write_parquet` needs pandas and pyarrow, which is not installed. `pip install pandas "
                "pyarrow`, or use `write_csv`."
            ) from error
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

    # ------------------------------------------------------------------ what may be said

    def summary(
        self,
        metric: str | None = None,
        target: float | Literal["random"] | None = None,
        *,
        higher_is_better: bool | None = None,
        seed: int = 0,
    ) -> ComparisonSummary:
        """One row a strategy: how good, how many labels, and whether that differs from random sampling.

        Args:
            metric: Column of the rows; `None`: `metric`.
            target: That labels are counted to: the first of two consecutive rounds at it or beyond;
                `"random"`: what random sampling just reaches, its median in the last round but one. `None`:
                they are not counted.
            higher_is_better: `None`: unless the metric's name speaks of a loss or an error.
            seed: Of the bootstrap.

        Raises:
            ValueError: If no run has ended, or has the metric.
        """
        name = self.metric if metric is None else metric
        higher = self.rises(name) if higher_is_better is None else higher_is_better
        goal = self.reached_at_random(name) if target == "random" else target
        summary = summarize(self, name, goal, higher, seed)
        summary.facts["of_random"] = target == "random"
        return summary

    def penalties(self, metric: str | None = None, *, higher_is_better: bool | None = None) -> Penalties:
        """Which strategy is beaten by which, and how often.

        At every number of labels, strategy j beats strategy i if the paired t-test over seeds says so, two
        sides, 0.05: t = sqrt(n) m / s > t(0.975, n - 1), with m and s mean and standard deviation of the n
        differences j - i. P[i, j] is the share of label counts at which that is so; ties count for nobody.
        A row's mean says how often the strategy was beaten: the lower, the better. The paper's matrix, a sum
        over several data sets, has winners in rows: it is this one transposed.

        Args:
            metric: Column of the rows; `None`: `metric`.
            higher_is_better: As in `summary`.

        Returns:
            The matrix, with the names of its rows and columns.

        Raises:
            ValueError: If there are fewer than two seeds that all strategies have.

        References:
            Ash et al., "Deep Batch Active Learning by Diverse, Uncertain Gradient Lower Bounds", 2020
            (arXiv:1906.03671), section 4.
        """
        name = self.metric if metric is None else metric
        sign = 1 if (self.rises(name) if higher_is_better is None else higher_is_better) else -1
        curves = self.curves(name)
        names = [n for n in self.strategies if any(strategy == n for strategy, _ in curves)]
        seeds = [s for s in self.seeds if all((n, s) in curves for n in names)]
        if len(seeds) < 2 or len(names) < 2:
            raise ValueError(
                f"{len(seeds)} seeds have ended for each of the strategies {names}; a test by seed needs two "
                "of each, and says something from five on. Run more seeds."
            )
        shared = sorted(set.intersection(*(set(curves[n, s]) for n in names for s in seeds)))
        values = [sign * np.array([[curves[n, s][x] for x in shared] for s in seeds]) for n in names]
        return Penalties(names, penalty_matrix(values), len(seeds), len(shared), name)

    def curves(self, metric: str) -> dict[tuple[str, int], dict[int, float]]:
        """Of every run that has ended, the metric by number of labels.

        Raises:
            ValueError: If there is none, or none has the metric.
        """
        found = {
            (table.run.strategy, table.run.seed): {
                row["labeled"]: row[metric]
                for row in table.rows
                if metric in row and np.isfinite(row[metric])
            }
            for table in self.ended
        }
        if not found or not all(found.values()):
            raise ValueError(
                f"{len(found)} runs have ended, and not all have {metric!r}; needed are runs with that "
                f"metric. Name one of {self.metrics}, or let more runs end."
            )
        return found

    def reached_at_random(self, metric: str | None = None) -> float | None:
        """A target that the baseline just reaches: its median in the last round but one.

        Args:
            metric: Column of the rows; `None`: `metric`.

        Returns:
            The median over seeds, so that the last round can confirm it; `None` of a single round.
        """
        name = self.metric if metric is None else metric
        curves = [curve for (strategy, _), curve in self.curves(name).items() if strategy == self.baseline]
        before_last = [curve[sorted(curve)[-2]] for curve in curves if len(curve) > 1]
        return median(before_last) if before_last else None

    @staticmethod
    def rises(metric: str) -> bool:
        """Whether higher is better, by the metric's name."""
        return not any(word in metric.lower() for word in _LOWER)

    def __str__(self) -> str:
        if not self.ended:
            return repr(self)
        return str(self.summary(target="random"))

    def __repr__(self) -> str:
        return (
            f"Comparison({len(self.strategies)} strategies, {len(self.seeds)} seeds, {self.rounds} rounds; "
            f"{len(self.ended)} of {len(self.strategies) * len(self.seeds)} runs have ended)"
        )

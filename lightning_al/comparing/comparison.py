"""COMPARISON: what came of all runs, as a table and as what may be said of it.

ledgers -> RunTable -> [Comparison] -> rows, summary, penalties, plots
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import islice
from numbers import Real
from pathlib import Path
from typing import Any, Literal

import numpy as np

from lightning_al.comparing.penalties import Penalties
from lightning_al.comparing.rows import Runs
from lightning_al.comparing.settings import FailedRun, Settings
from lightning_al.comparing.statistics import median, penalty_matrix
from lightning_al.comparing.summary import ComparisonSummary, summarize
from lightning_al.comparing.table import RunTable, checked_rows, read
from lightning_al.comparing.telling import told_of
from lightning_al.reaching import rises

__all__ = ["Comparison"]

#: Runs without the metric that an error names; the others are alike, and would hide what to do.
_TOLD = 3


class Comparison(Runs):
    """All runs of a comparison: one row a round, and what may be said of the strategies.

    Args:
        tables: Of every run that has rounds.
        strategies: Names, the baseline first.
        seeds: Of the runs.
        rounds: Queries a run.
        baseline: Name of random sampling.
        failures: Runs that failed just now.
        metric: The one that is meant if none is named.

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

    @classmethod
    def load(cls, state_dir: str | os.PathLike[str], *, rounds: int | None = None) -> Comparison:
        """What there is so far of all runs that calls of `compare` with this folder asked for.

        Args:
            state_dir: The folder; neither torch nor the data are needed, and runs may be going on.
            rounds: Look at so many queries of each run, after which it counts as ended; `None`: at all.

        Raises:
            ValueError: If it holds no comparison, or `rounds` is not positive.
        """
        place = Path(state_dir).absolute()
        settings = Settings.read(place)
        if rounds is not None:
            if rounds < 1:
                raise ValueError(f"`rounds` is {rounds!r}; needed is how many queries, 1 or more.")
            settings = replace(settings, rounds=min(rounds, settings.rounds))
        return cls.of(settings, place)

    @classmethod
    def of(cls, settings: Settings, state_dir: Path, failures: Sequence[FailedRun] = ()) -> Comparison:
        """Of the runs of these settings in a folder."""
        return cls(
            [read(run, settings.rounds) for run in settings.runs(state_dir)],
            strategies=list(settings.strategies), seeds=settings.seeds, rounds=settings.rounds,
            baseline=settings.baseline, failures=failures, metric=settings.metric,
        )  # fmt: skip

    @classmethod
    def of_rows(cls, rows: Sequence[Mapping[str, Any]], baseline: str = "Random") -> Comparison:
        """Of a table that was made elsewhere, or read from a file.

        Args:
            rows: With `strategy`, `seed`, `round`, `labeled` and a metric each: numbers, but for the name.
            baseline: Name of random sampling.

        Raises:
            TypeError: If they are no mappings.
            ValueError: If there is no row, none of the baseline, two of one round of a run, or a value is no
                number.
        """
        grouped: dict[tuple[str, int], list[dict[str, Any]]] = {}
        for row in checked_rows(rows):
            grouped.setdefault((row["strategy"], row["seed"]), []).append(row)
        names = list(dict.fromkeys(name for name, _ in grouped))
        if baseline not in names:
            raise ValueError(
                f"The rows are of the strategies {names}; needed is {baseline!r} too, which the others are "
                "measured against. Add its rows, or name another `baseline`."
            )
        last = max(row["round"] for found in grouped.values() for row in found)
        return cls(
            [RunTable.of_rows(name, seed, found, last) for (name, seed), found in grouped.items()],
            strategies=sorted(names, key=lambda name: name != baseline),
            seeds=sorted({seed for _, seed in grouped}), rounds=last, baseline=baseline,
        )  # fmt: skip

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
            ValueError: If no run has ended, or has the metric in every round; or `target` is something else.
        """
        if not (target is None or target == "random" or _is_finite(target)):
            raise ValueError(
                f'`target` is {target!r}; needed is a number in the metric\'s units, "random", or `None`. '
                "Pass one of them."
            )
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
                f"{len(names)} strategies have runs that ended with {name!r} in every round, {names}, and "
                f"{len(seeds)} seeds have all of these; a test by seed needs two of both, and says something "
                "from five seeds on. Run more seeds."
            )
        shared = sorted(set.intersection(*(set(curves[n, s]) for n in names for s in seeds)))
        if not shared:
            raise ValueError(
                f"The runs of {names} have no number of labels in common; needed are some at which all were "
                "tested. Use the same `initial` and `query_size` for all."
            )
        values = [sign * np.array([[curves[n, s][x] for x in shared] for s in seeds]) for n in names]
        return Penalties(names, penalty_matrix(values), len(seeds), len(shared), name)

    def curves(self, metric: str) -> dict[tuple[str, int], dict[int, float]]:
        """Of every run that has ended and has the metric in all its rounds, that by number of labels.

        Raises:
            ValueError: If there is none.
        """
        lacking = self.lacking(metric)
        found = {
            (table.run.strategy, table.run.seed): {row["labeled"]: row[metric] for row in table.rows}
            for table in self.ended
            if (table.run.strategy, table.run.seed) not in lacking
        }
        if not found:
            raise ValueError(self._why_none(metric, lacking))
        return found

    def _why_none(self, metric: str, lacking: Mapping[tuple[str, int], list[int]]) -> str:
        if self.metrics and metric not in self.metrics:
            return (
                f"No run logs {metric!r}; there are {self.metrics}. Name one of these, or log {metric!r} in "
                "every test."
            )
        where = f"; it is not there in {told_of(dict(islice(lacking.items(), _TOLD)))}" if lacking else ""
        where += f"; nor in {len(lacking) - _TOLD} more runs" if len(lacking) > _TOLD else ""
        return (
            f"{len(self.ended)} runs have ended, and none has {metric!r} in every round{where}. Needed are "
            f"runs that have. Name one of {self.metrics}, log it in every test, or let more runs end."
        )

    def lacking(self, metric: str) -> dict[tuple[str, int], list[int]]:
        """Of runs that have ended, the rounds without the metric, or with NaN: such a run has no area.

        Nor has one that lacks a round which others have, before its last.

        Args:
            metric: Column of the rows.

        Returns:
            Rounds by strategy and seed, of the runs that lack any.
        """
        rounds = {row["round"] for table in self.ended for row in table.rows}
        found = {}
        for table in self.ended:
            known = {row["round"] for row in table.rows if _is_finite(row.get(metric))}
            last = table.rows[-1]["round"]
            found[table.run.strategy, table.run.seed] = sorted(r for r in rounds - known if r <= last)
        return {run: lacked for run, lacked in found.items() if lacked}

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
        return rises(metric)

    def __str__(self) -> str:
        if not self.ended:
            return repr(self)
        try:
            return str(self.summary(target="random"))
        except ValueError as error:  # what cannot be told of can be printed
            return f"{self!r}\n{error}"

    def __repr__(self) -> str:
        return (
            f"Comparison({len(self.strategies)} strategies, {len(self.seeds)} seeds, {self.rounds} rounds; "
            f"{len(self.ended)} of {len(self.strategies) * len(self.seeds)} runs have ended)"
        )


def _is_finite(value: Any) -> bool:
    return isinstance(value, Real) and math.isfinite(value)

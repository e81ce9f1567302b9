"""Stopping by a metric that the fits log: at a target, or when it rises no more."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import Any

from lightning_al.data.checks import check_flag, check_positive
from lightning_al.reaching import reaches, rises
from lightning_al.stopping.base import Ended, Row, StopCriterion, value_of

__all__ = ["Plateau", "TargetMetric"]


class _Metric(StopCriterion):
    """What both have: a metric and its better end."""

    def __init__(self, metric: str, higher_is_better: bool | None) -> None:
        if not isinstance(metric, str) or not metric:
            raise ValueError(f'`metric` is {metric!r}; needed is a name that is logged, such as "val_acc".')
        if re.split(r"[^a-z]", metric.lower())[0] == "test":
            raise ValueError(
                f"`metric` is {metric!r}, of the test: labels that decide when to stop are no test of the "
                "result any more. Take some of the labelled samples for validation, and name a metric of "
                '`validation_step`, such as "val_acc".'
            )
        if higher_is_better is not None:
            check_flag(higher_is_better=higher_is_better)
        self.metric = metric
        self.higher_is_better = rises(metric) if higher_is_better is None else higher_is_better

    @property
    def columns(self) -> tuple[str, ...]:  # type: ignore[override]
        # Not its own name: the test of a round may log one of the same.
        return (f"stop_{self.metric}",)

    def measure(self, ended: Ended) -> dict[str, float]:
        return {self.columns[0]: ended.metric(self.metric)}

    def _values(self, rows: Sequence[Row]) -> list[float]:
        """Signed so that more is better."""
        sign = 1 if self.higher_is_better else -1
        return [sign * value_of(row, self.columns[0]) for row in rows]


class TargetMetric(_Metric):
    """Stops when a metric is good enough.

    Its value is that of the fit's last validation; with `ActiveLearning(score_with="best")` and a checkpoint
    that monitors it, the best.

    Args:
        metric: Its name, as logged in `validation_step`.
        target: The value to reach.
        higher_is_better: Else the target is reached at or below it; `None`: unless the metric's name speaks
            of a loss or an error.

    Raises:
        ValueError: If an argument does not fit; so is a metric of the test, whose labels must not decide.

    Example:
        >>> TargetMetric("val_acc", 0.95).decide([{"stop_val_acc": 0.93}, {"stop_val_acc": 0.96}])
        'val_acc is 0.96, of 0.95 to reach'
    """

    def __init__(self, metric: str, target: float, *, higher_is_better: bool | None = None) -> None:
        super().__init__(metric, higher_is_better)
        self.target = _number("target", target)

    def decide(self, rows: Sequence[Row]) -> str | None:  # noqa: D102
        value = value_of(rows[-1], self.columns[0])
        if not reaches(value, self.target, higher_is_better=self.higher_is_better):
            return None
        return f"{self.metric} is {value:.6g}, of {self.target:g} to reach"


class Plateau(_Metric):
    """Stops when some rounds in a row did not better a metric.

    Args:
        metric: As in `TargetMetric`.
        rounds: How many.
        min_delta: By how much the best value of the rounds before must be exceeded to count as better.
        higher_is_better: As in `TargetMetric`.

    Raises:
        ValueError: If an argument does not fit.

    Example:
        >>> rows = [{"stop_val_loss": value} for value in (0.9, 0.5, 0.499, 0.52)]
        >>> criterion = Plateau("val_loss", rounds=2, min_delta=0.002)
        >>> criterion.decide(rows[:3]), criterion.decide(rows)
        (None, 'val_loss is no better than 0.5 since 2 rounds')
    """

    def __init__(
        self, metric: str, rounds: int = 3, *, min_delta: float = 0.002, higher_is_better: bool | None = None
    ) -> None:
        super().__init__(metric, higher_is_better)
        check_positive(rounds=rounds)
        self.rounds, self.min_delta = rounds, _number("min_delta", min_delta)
        if self.min_delta < 0:
            raise ValueError(f"`min_delta` is {min_delta!r}; needed is a number from 0 on.")

    def decide(self, rows: Sequence[Row]) -> str | None:  # noqa: D102
        # Rounds before one that it did not see do not count; a NaN that it saw is no better.
        gap = max((i for i, row in enumerate(rows) if self.columns[0] not in row), default=-1)
        values = [-math.inf if math.isnan(value) else value for value in self._values(rows[gap + 1 :])]
        before, last = values[: -self.rounds], values[-self.rounds :]
        if max(before, default=-math.inf) == -math.inf or max(last) > max(before) + self.min_delta:
            return None
        best = max(before) if self.higher_is_better else -max(before)
        return f"{self.metric} is no better than {best:.6g} since {self.rounds} rounds"


def _number(name: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError(f"`{name}` is {value!r}; needed is a number, such as 0.9.")
    return float(value)

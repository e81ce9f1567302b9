"""JUDGING: the criteria of a run, held against the round that ended and the rows before it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from lightning_al.history import COLUMNS
from lightning_al.stopping.base import Ended, Row, StopCriterion

__all__ = ["Stopping", "checked_criteria"]


@dataclass(frozen=True)
class Stopping:
    """Criteria, any of which ends the rounds, and what is on record.

    Args:
        criteria: In the order that they are asked.
        rows: Of the rounds up to this one.
    """

    criteria: tuple[StopCriterion, ...] = ()
    rows: tuple[Row, ...] = ()

    def rehearse(self, ended: Ended) -> None:
        """Refuse what cannot be measured."""
        for criterion in self.criteria:
            criterion.rehearse(ended)

    def judge(self, ended: Ended, row: Row) -> dict[str, Any]:
        """What is measured of a round, and under `stopped` why no more is asked, or no text.

        What is on record of the same training stands: the round may be trained again for its test, or since
        it may ask after all, and arithmetic on a GPU is not the same twice.

        Args:
            ended: Its fit.
            row: Of the round, without that.
        """
        recorded: Row = next((r for r in self.rows if r["round"] == row["round"]), {})
        if not self.criteria:
            return {"stopped": ""} if recorded.get("stopped") else {}
        found: dict[str, Any] = {}
        stands = recorded.get("trained") == row["trained"]
        for criterion in self.criteria:
            if stands and set(criterion.columns) <= set(recorded):
                found |= {name: recorded[name] for name in criterion.columns}
            elif not set(criterion.columns) <= set(found):
                found |= criterion.measure(ended)
        return {**found, "stopped": self.reason({**row, **found}) or ""}

    def reason(self, row: Row) -> str | None:
        """Why to stop after a round, by its row and those before it; `None`: not yet."""
        before = [r for r in self.rows if r["round"] < row["round"]]
        for criterion in self.criteria:
            why = criterion.decide([*before, row])
            if why is not None:
                return f"{type(criterion).__name__}: {why}"
        return None


def checked_criteria(stop: StopCriterion | Sequence[StopCriterion] | None) -> tuple[StopCriterion, ...]:
    """Criteria as they were given, one or several.

    Raises:
        TypeError: If one is none.
        ValueError: If one would write over the history's own columns.
    """
    listed = () if stop is None else (stop,) if isinstance(stop, StopCriterion) else stop
    if not isinstance(listed, list | tuple) or not all(isinstance(one, StopCriterion) for one in listed):
        raise TypeError(
            f"`stop` is {stop!r}; needed is a criterion, or a list of them, any of which ends the rounds, "
            'such as `TargetMetric("val_acc", 0.95)`.'
        )
    for criterion in listed:
        taken = {*COLUMNS, "tested", "trained", "stopped"} & set(criterion.columns)
        if taken:
            raise ValueError(
                f"`{type(criterion).__name__}.columns` has {sorted(taken)}, which are the history's own. "
                "Take other names, such as `stop_...`."
            )
    return tuple(listed)

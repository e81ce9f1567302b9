"""REPORT: what is told of a round, to the loggers and in one line."""

from __future__ import annotations

from typing import Any

import lightning as L
import numpy as np

from lightning_al.data import ActiveDataModule
from lightning_al.exchange import place_of_answers
from lightning_al.querying import Query

__all__ = ["log_round", "said_of_round"]


def log_round(trainer: L.Trainer, row: dict[str, Any], query: Query | None) -> None:
    """Against the number of labels: the x axis of every curve of active learning."""
    values = {f"active/{key}": float(value) for key, value in row.items() if not isinstance(value, str)}
    if query is not None and np.isfinite(query.scores).all():
        values |= {
            "active/score_max": float(query.scores.max()),
            "active/score_min": float(query.scores.min()),
        }
    for logger in trainer.loggers:
        logger.log_metrics(values, step=row["labeled"])


def said_of_round(
    data: ActiveDataModule, number: int, asked: int, budget: int | None, *, driven: bool, stopped: str = ""
) -> str:
    """The line on a round that ended.

    Args:
        data: After the query.
        number: Of the round.
        asked: How many samples it asked for.
        budget: Labels in all.
        driven: Whether `fit_rounds` goes on by itself.
        stopped: Why no more is asked, should a criterion say so.
    """
    labeled, waiting = len(data.labeled_indices), len(data.asked_indices)
    of_budget = "" if budget is None else f" of budget {budget:,}"
    said = f"round {number}: asked {asked}, {labeled:,} labelled{of_budget}"
    if not asked:
        if stopped:
            return f"{said}; stopped by {stopped}"
        why = "the pool is empty" if not len(data.pool_indices) else "the budget is spent"
        return f"{said}; {why}"
    if waiting and data.oracle == "people":
        where = place_of_answers(data.book)
        return f"{said}; {waiting} wait: fill in the column `label` of {where}, then fit again"
    if waiting:
        return f"{said}; {waiting} wait for the oracle; fit again when it has them"
    return said if driven else f"{said}; fit again to train on them"

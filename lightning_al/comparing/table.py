"""TABLE: the ledgers of all runs as one table.

Run -> [read] -> a row for every round that was tested, and how often each class is among its labels
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lightning_al.comparing.settings import Run
from lightning_al.history import COLUMNS
from lightning_al.ledger.book import Book
from lightning_al.ledger.state import LABELED

__all__ = ["FIXED", "RunTable", "entropy", "read"]

#: What every row begins and ends with; the test metrics are between.
_FIRST = ("strategy", "seed", "round", "labeled", "asked")
_LAST = ("query_entropy", "acquired_entropy", "label_entropy")
_TIMES = ("train_s", "test_s", "score_s", "select_s", "round_s")
FIXED = (*_FIRST, *_LAST, *_TIMES)
_INNER = ("tested", "trained")


@dataclass(frozen=True)
class RunTable:
    """What is known of one run.

    Args:
        run: Which.
        rows: A mapping for every round that was tested.
        classes: For every round, how often each class is among the labels that came with its query; `None`
            where targets are not classes.
        facts: Numbers of samples: `pool`, `val`, `test`, as far as known; `class_names`.
        ended: Whether it made all its queries.
    """

    run: Run
    rows: list[dict[str, Any]]
    classes: list[Mapping[Any, int]] | None
    facts: Mapping[str, Any] = field(default_factory=dict)
    ended: bool = False

    @classmethod
    def of_rows(cls, strategy: str, seed: int, rows: list[dict[str, Any]], rounds: int) -> RunTable:
        """Of rows that were made elsewhere."""
        ordered = sorted(rows, key=lambda row: row["round"])
        return cls(Run(strategy, seed, Path()), ordered, None, {}, ended=ordered[-1]["round"] >= rounds)


def read(run: Run, rounds: int) -> RunTable:
    """One run, as far as it went, up to so many queries."""
    rows = [row for row in run.rows() if row["round"] <= rounds]
    if not rows:
        return RunTable(run, [], None)
    classes = _classes(run, len(rows))
    times = _times(run)
    table = []
    for place, row in enumerate(rows):
        found = {"strategy": run.strategy, "seed": run.seed}
        found |= {key: row.get(key, math.nan) for key in ("round", "labeled", "asked")}
        found |= {key: value for key, value in row.items() if key not in (*COLUMNS, *_INNER)}
        found |= _entropies(classes, place)
        found |= {"label_entropy": row.get("label_entropy", math.nan)}
        found |= {key: {**row, **times.get(row["round"], {})}.get(key, math.nan) for key in _TIMES}
        table.append(found)
    return RunTable(run, table, classes, _facts(run), ended=run.has_ended(rounds))


def _classes(run: Run, rounds: int) -> list[Mapping[Any, int]] | None:
    state = Book(run.folder).state
    labeled = state.indices(LABELED)
    by_round = state.round[labeled]
    found = [state.class_counts(labeled[by_round == number]) for number in range(rounds)]
    known: list[Mapping[Any, int]] = [counts for counts in found if counts is not None]
    return known if len(known) == len(found) else None


def _entropies(classes: list[Mapping[Any, int]] | None, place: int) -> dict[str, float]:
    """Of the classes that the round's query brought, and of all that queries brought until then."""
    if classes is None or place == 0:
        return {"query_entropy": math.nan, "acquired_entropy": math.nan}
    all_of_them: Counter[Any] = sum(map(Counter, classes[1 : place + 1]), Counter())
    return {"query_entropy": entropy(classes[place]), "acquired_entropy": entropy(all_of_them)}


def entropy(counts: Mapping[Any, int]) -> float:
    """In nats, of classes by how often each occurs; NaN of none.

    Example:
        >>> round(entropy({"cat": 5, "dog": 5}), 4), entropy({"cat": 5})
        (0.6931, 0.0)
    """
    total = sum(counts.values())
    if not total:
        return math.nan
    return sum(-n / total * math.log(n / total) for n in counts.values() if n) + 0.0


def _times(run: Run) -> dict[int, dict[str, float]]:
    """Of every round, the newest attempt; a line that was cut off by a kill is none."""
    found: dict[int, dict[str, float]] = {}
    if not run.times.exists():
        return found
    for line in run.times.read_text(encoding="utf-8").splitlines():
        try:
            row = json.loads(line)
        except ValueError:
            continue
        found[row.pop("round")] = row
    return found


def _facts(run: Run) -> dict[str, Any]:
    facts: dict[str, Any] = json.loads(run.facts.read_text("utf-8")) if run.facts.exists() else {}
    meta = run.ledger.meta()
    return {**facts, "pool": int(meta.get("samples", meta["size"])), "class_names": meta.get("class_names")}

"""TABLE: the ledgers of all runs as one table.

Run -> [read] -> a row for every round that was tested, and how often each class is among its labels
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from numbers import Real
from pathlib import Path
from typing import Any

from lightning_al.class_entropy import class_entropy
from lightning_al.comparing.settings import Run
from lightning_al.history import COLUMNS
from lightning_al.ledger.book import Book
from lightning_al.ledger.state import LABELED

__all__ = ["FIXED", "RESERVED", "RunTable", "metrics_of", "read"]

#: What every row begins and ends with; the test metrics are between.
_FIRST = ("strategy", "seed", "round", "labeled", "asked")
_LAST = ("query_entropy", "acquired_entropy", "label_entropy")
_TIMES = ("train_s", "test_s", "score_s", "select_s", "round_s")
FIXED = (*_FIRST, *_LAST, *_TIMES)
_INNER = ("tested", "trained")
#: What no metric may be named.
RESERVED = frozenset((*FIXED, *COLUMNS, *_INNER, "stopped"))


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
        """Of rows that were made elsewhere.

        Raises:
            ValueError: If two are of one round.
        """
        ordered = sorted(rows, key=lambda row: row["round"])
        twice = [one["round"] for one, other in pairwise(ordered) if one["round"] == other["round"]]
        if twice:
            raise ValueError(
                f"There are two rows of {strategy!r} with seed {seed} in round {twice[0]}; needed is one of "
                "each round of a run. If tables were joined, leave out what is in both."
            )
        return cls(Run(strategy, seed, Path()), ordered, None, {}, ended=ordered[-1]["round"] >= rounds)


def checked_rows(rows: Any) -> list[dict[str, Any]]:
    """Rows that were made elsewhere, without what is empty.

    Raises:
        TypeError: If they are no mappings.
        ValueError: If one lacks what every row has, or has a value that is no number.
    """
    if isinstance(rows, str | bytes | Mapping) or not isinstance(rows, Iterable):
        rows = [rows]
    found = []
    for place, row in enumerate(rows):
        if not isinstance(row, Mapping):
            raise TypeError(
                f"Row {place} is {row!r}; needed are mappings from columns to values, one a round. Of a "
                "table in pandas pass `table.to_dict('records')`."
            )
        kept = {name: value for name, value in row.items() if value is not None}
        lacking = [name for name in ("strategy", "seed", "round", "labeled") if name not in kept]
        wrong = {n: v for n, v in kept.items() if n != "strategy" and not isinstance(v, Real)}
        if lacking or wrong or not isinstance(kept["strategy"], str):
            raise ValueError(
                f"Row {place} lacks {lacking} and has {wrong or kept.get('strategy')!r}; needed are the name "
                "of a `strategy`, and numbers as `seed`, `round`, `labeled` and in all other columns. Turn "
                "texts into numbers, and leave out what is none."
            )
        found.append(kept)
    return found


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
        found |= {key: row[key] for key in metrics_of(row)}
        found |= _entropies(classes, place)
        found |= {"label_entropy": row.get("label_entropy", math.nan)}
        found |= {key: {**row, **times.get(row["round"], {})}.get(key, math.nan) for key in _TIMES}
        table.append(found)
    return RunTable(run, table, classes, _facts(run), ended=run.has_ended(rounds))


def metrics_of(row: Mapping[str, Any]) -> list[str]:
    """The names of a round's test metrics."""
    return [key for key in row if key not in RESERVED]


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
    found = {"query_entropy": classes[place], "acquired_entropy": all_of_them}
    return {name: float(class_entropy(list(counts.values()))) for name, counts in found.items()}


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
    meta = run.ledger.meta()
    return {
        **run.known(),
        "pool": int(meta.get("samples", meta["size"])),
        "class_names": meta.get("class_names"),
    }

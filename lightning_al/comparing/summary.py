"""SUMMARY: one row a strategy, and how it is told.

curves by seed -> [summarize] -> areas, labels to a target, savings, p-values -> text
"""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from lightning_al.comparing.statistics import (
    RESAMPLES,
    bootstrap_mean,
    bootstrap_ratio,
    holm,
    mean_height,
    quantile,
    sign_flip,
)
from lightning_al.history import History
from lightning_al.reaching import labels_to_target
from lightning_al.tables import frame_of

if TYPE_CHECKING:
    from lightning_al.comparing.comparison import Comparison
    from lightning_al.comparing.table import RunTable

__all__ = ["ComparisonSummary", "summarize"]

_FEW = 5
_TIMES = ("train_s", "test_s", "score_s", "select_s", "round_s")
#: Of the runs' sets and loaders, and how they are named here.
_COUNTED = {
    "test": "number of test samples", "val": "number of validation samples", "batches": "batches an epoch",
}  # fmt: skip
_QUARTILES = (("", 0.5), ("_q1", 0.25), ("_q3", 0.75))


class ComparisonSummary:
    """One row a strategy, the baseline first; print it for a table that says what it means.

    Args:
        rows: See `rows`.
        facts: What they are of.

    Attributes:
        rows: Mappings with `strategy` and `seeds`; medians over seeds, with quartiles `_q1` and `_q3`, of
            the mean height of the curve (`aubc`), of the metric after the last round (`final`), and of
            `labels_to_target`, where infinity means more than the `budget`, the smallest of the runs
            that did not reach it; how many seeds `missed` it; the
            mean difference `aubc_gain` to the baseline, and `label_ratio_low` to `label_ratio_high`, the
            labels needed over the baseline's, which are the same unless a median was not reached; their
            intervals `_ci_low` to `_ci_high`; `p`, `p_holm` and `smallest_p`; mean seconds of a round; and
            the entropy of the classes of all `acquired` labels.

    Example:
        >>> from lightning_al.comparing import Comparison
        >>> rows = [{"strategy": name, "seed": 0, "round": r, "labeled": 10 + r, "acc": height + r / 10}
        ...         for name, height in (("Random", 0.1), ("Margin", 0.2)) for r in range(3)]
        >>> summary = Comparison.of_rows(rows).summary("acc", target=0.3)
        >>> [(row["strategy"], row["labels_to_target"]) for row in summary]
        [('Random', inf), ('Margin', 11.0)]
    """

    def __init__(self, rows: Sequence[Mapping[str, Any]], facts: Mapping[str, Any]) -> None:
        self.rows, self.facts = [dict(row) for row in rows], dict(facts)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return iter(self.rows)

    def __len__(self) -> int:
        return len(self.rows)

    def to_frame(self) -> Any:
        """As a pandas `DataFrame`, one row a strategy.

        Raises:
            ModuleNotFoundError: If pandas is not installed.
        """
        return frame_of(self.rows, None, "summary.rows")

    def __str__(self) -> str:
        from lightning_al.comparing.telling import told

        return told(self)


def summarize(
    comparison: Comparison, metric: str, target: float | None, higher: bool, seed: int
) -> ComparisonSummary:
    """See `Comparison.summary`."""
    curves = comparison.curves(metric)
    shared = sorted(set.intersection(*(set(curve) for curve in curves.values())))
    areas = {run: mean_height(shared, [curve[x] for x in shared]) for run, curve in curves.items()}
    needed = {} if target is None else _needed(comparison, curves, metric, target, higher)
    budgets = {run: max(curve) for run, curve in curves.items()}
    rows = []
    for name in comparison.strategies:
        own = {s: area for (n, s), area in areas.items() if n == name}
        if not own:
            continue
        row: dict[str, Any] = {"strategy": name, "seeds": len(own)}
        row |= _quartiles("aubc", list(own.values()))
        row |= _quartiles("final", [curves[name, s][max(curves[name, s])] for s in own])
        if target is not None:
            labels = [needed[name, s] for s in own]
            missed = [budgets[name, s] for s in own if math.isinf(needed[name, s])]
            row |= _quartiles("labels_to_target", labels)
            row |= {"missed": len(missed), "budget": min(missed, default=math.nan)}
        if name != comparison.baseline:
            row |= _against(name, comparison.baseline, areas, needed, budgets, higher, seed)
        rows.append(row | _costs(comparison, name))
    corrected = holm({row["strategy"]: row["p"] for row in rows if "p" in row})
    for row in rows:
        if "p" in row:
            row["p_holm"] = corrected[row["strategy"]]
    facts = _facts(comparison, metric, target, higher, shared, sorted(set(budgets.values())))
    facts["most_points"] = max(map(len, curves.values()))
    return ComparisonSummary(rows, facts)


def _quartiles(name: str, values: Sequence[float]) -> dict[str, float]:
    return {f"{name}{end}": quantile(values, q) for end, q in _QUARTILES}


def _needed(
    comparison: Comparison, runs: Collection[tuple[str, int]], metric: str, target: float, higher: bool
) -> dict[tuple[str, int], float]:
    return {
        run: labels_to_target(History(table.rows), metric, target, higher_is_better=higher)
        for table in comparison.ended
        if (run := (table.run.strategy, table.run.seed)) in runs
    }


def _against(
    name: str,
    baseline: str,
    areas: Mapping[tuple[str, int], float],
    needed: Mapping[tuple[str, int], float],
    budgets: Mapping[tuple[str, int], float],
    higher: bool,
    seed: int,
) -> dict[str, float]:
    """Paired by the seeds that both have; a gain is one whatever way the metric goes."""
    seeds = [s for n, s in areas if n == name and (baseline, s) in areas]
    if not seeds:
        return {}
    sign = 1 if higher else -1
    gains = [sign * (areas[name, s] - areas[baseline, s]) for s in seeds]
    low, high = bootstrap_mean(gains, seed=seed)
    p, smallest = sign_flip(gains, seed=seed)
    row = {
        "aubc_gain": sum(gains) / len(gains), "aubc_gain_ci_low": low, "aubc_gain_ci_high": high,
        "p": p, "smallest_p": smallest, "pairs": len(seeds),
    }  # fmt: skip
    if needed:
        own, base = ([needed[n, s] for s in seeds] for n in (name, baseline))
        most = [budgets[name, s] for s in seeds], [budgets[baseline, s] for s in seeds]
        known, interval = bootstrap_ratio(own, base, most, seed=seed)
        row |= {"label_ratio_low": known[0], "label_ratio_high": known[1]}
        row |= {"label_ratio_ci_low": interval[0], "label_ratio_ci_high": interval[1]}
    return row


def _costs(comparison: Comparison, name: str) -> dict[str, float]:
    """Mean seconds of a round that asked; the newest entropy."""
    tables = [table for table in comparison.ended if table.run.strategy == name]
    rows = [row for table in tables for row in table.rows if row.get("asked", 0)]
    found = {}
    for column in _TIMES:
        values = [row[column] for row in rows if not math.isnan(row.get(column, math.nan))]
        found[column] = sum(values) / len(values) if values else math.nan
    last = [table.rows[-1].get("acquired_entropy", math.nan) for table in tables]
    return {**found, **_quartiles("acquired_entropy", last)}


def _facts(
    comparison: Comparison,
    metric: str,
    target: float | None,
    higher: bool,
    shared: Sequence[int],
    budgets: Sequence[int],
) -> dict[str, Any]:
    tables = comparison.ended
    classes = [table.classes for table in tables]
    return {
        "metric": metric, "target": target, "higher": higher, "baseline": comparison.baseline,
        "first": shared[0] if shared else math.nan, "last": shared[-1] if shared else math.nan,
        "points": len(shared), "budgets": budgets, "resamples": RESAMPLES,
        "runs": len(tables), "asked_for": len(comparison.strategies) * len(comparison.seeds),
        "failed": len(comparison.failures), "few": _FEW,
        "lacking": comparison.lacking(metric), "unlike": _unlike(tables),
        "val": _one_or_range([table.facts.get("val", math.nan) for table in tables]),
        "test": _one_or_range([table.facts.get("test", math.nan) for table in tables]),
        "classes": len(comparison.classes) if classes and all(c is not None for c in classes) else None,
    }  # fmt: skip


def _unlike(tables: Sequence[RunTable]) -> list[str]:
    """Names of what not all rounds of all runs were trained with alike, as far as it is known.

    Rounds may differ from one another, if `make_trainer` says so: each is held against the same one of other
    runs. A change within a run was noted when it was accepted. Of seeds, numbers of samples may differ.
    """
    values: dict[tuple[str, Any], set[str]] = {}
    changed = set()
    for table in tables:
        facts = table.facts
        for number in (str(row["round"]) for row in table.rows):
            changed |= set(facts.get("accepted", {}).get(number, ()))
            for name, value in facts.get("training", {}).get(number, {}).items():
                values.setdefault((name, number), set()).add(value)
            for name, value in facts.get("made_with", {}).get(number, {}).items():
                values.setdefault((name, "made_with"), set()).add(json.dumps(value))
        for name in _COUNTED:
            if facts.get(name) is not None:
                values.setdefault((name, table.run.seed), set()).add(str(facts[name]))
    changed |= {name for (name, _), found in values.items() if len(found) > 1}
    names = dict.fromkeys([*(name for name, _ in values), *_COUNTED, *sorted(changed)])
    return [_COUNTED.get(name, name) for name in names if name in changed]


def _one_or_range(values: Sequence[float | None]) -> str | None:
    """`None`: unknown."""
    known = sorted({value for value in values if value is not None and not math.isnan(value)})
    if len(known) == 0 or any(value is None for value in values):
        return None
    return f"{known[0]:,}" if len(known) == 1 else f"{known[0]:,} to {known[-1]:,}"

"""CLASS TABLES: what is told of the classes of acquired labels, one row a strategy.

counts of classes -> [collapse_rows], [fine_rows], [rare_rows] -> tell.py
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any

import numpy as np

from benchmarks.evidence.classes import chance, fallen
from lightning_al import Comparison
from lightning_al.class_entropy import class_entropy

__all__ = ["all_classes", "class_rows", "collapse_rows", "fine_rows", "rare_rows"]


def all_classes(comparison: Comparison, classes: int) -> dict[str, Any]:
    """With a column for every class of the data set, also one that no label is of."""
    found = {}
    for name, array in comparison.class_counts().items():
        whole = np.zeros((*array.shape[:2], classes), np.int64)
        whole[..., comparison.classes] = array
        found[name] = whole
    return found


def class_rows(counts: Mapping[str, Any], names: Sequence[str]) -> list[dict[str, Any]]:
    """After every query of every run, how many labels each class has of those acquired."""
    return [
        {"strategy": strategy, "run": run, "query": query + 1, **dict(zip(names, row.tolist(), strict=True))}
        for strategy, array in counts.items()
        for run, rows in enumerate(array)
        for query, row in enumerate(rows)
    ]


def collapse_rows(counts: Mapping[str, Any], pool: Any) -> list[dict[str, Any]]:
    """How far below chance, at three numbers of acquired labels."""
    rows = []
    sizes = next(iter(counts.values()))[0].sum(axis=1)
    places = sorted({0, len(sizes) // 3, len(sizes) - 1})
    least = chance(pool, sizes)[0]
    for name, array in counts.items():
        below, values = fallen(array, pool), np.median(class_entropy(array), axis=0)
        row = {"": name}
        for p in places:
            row[f"entropy, {sizes[p]} acquired"] = f"{values[p]:.3f}"
            row[f"seeds below chance ({least[p]:.3f})"] = f"{below[p]} of {len(array)}"
        row["largest class"] = percent(np.median(array[:, -1].max(axis=1) / sizes[-1]))
        row["smallest class"] = percent(np.median(array[:, -1].min(axis=1) / sizes[-1]))
        rows.append(row)
    return rows


def fine_rows(
    fine: Mapping[str, Any], coarse: Mapping[str, Any], pool: Any, of_coarse: Any, words: Mapping[str, float]
) -> list[dict[str, Any]]:
    """At the end, what was acquired of coarse and of fine classes."""
    rows = []
    for name, array in fine.items():
        last, rough = array[:, -1], coarse[name][:, -1]
        values = class_entropy(last)
        low, high = np.quantile(values, [0.25, 0.75])
        row = {"": name, f"entropy of {len(of_coarse)} classes": f"{np.median(class_entropy(rough)):.3f}"}
        row[f"entropy of {len(pool)} fine classes"] = f"{np.median(values):.3f} [{low:.3f}, {high:.3f}]"
        row["fine classes found"] = f"{np.median((last > 0).sum(axis=1)):g}"
        row["seeds below chance"] = f"{fallen(array, pool)[-1]} of {len(array)}"
        row["words a question"] = f"{words[name]:.1f}"
        rows.append(row)
    size = np.array([next(iter(fine.values()))[0, -1].sum()])
    low, middle, high = chance(pool, size)[:, 0]
    row = {
        "": "random draws, 95 %",
        f"entropy of {len(of_coarse)} classes": f"{chance(of_coarse, size)[1, 0]:.3f}",
    }
    row[f"entropy of {len(pool)} fine classes"] = f"{middle:.3f} [{low:.3f}, {high:.3f}]"
    return [*rows, row]


def rare_rows(comparison: Comparison, counts: Mapping[str, Any], pool: Any) -> list[dict[str, Any]]:
    """Of two classes the rarer one, and what else was measured at the end."""
    rare = int(pool.argmin())
    rows = []
    for name, array in counts.items():
        shares = array[..., rare] / array.sum(axis=2)
        last = shares[:, -1]
        ends = [
            row for row in comparison.rows if row["strategy"] == name and row["round"] == comparison.rounds
        ]
        row = {
            "": name,
            "first query": percent(np.median(shares[:, 0])),
            "all queries": percent(np.median(last)),
        }
        row["lowest to highest"] = f"{percent(last.min())} to {percent(last.max())}"
        for metric in ("test_bal_acc", "test_acc", "test_auroc"):
            row[f"{metric} at the end"] = f"{median(one[metric] for one in ends):.3f}"
        rows.append(row)
    return rows


def percent(share: Any) -> str:
    return f"{100 * float(share):.0f} %"

"""DRAW: the pictures of docs/evidence.md.

Comparison, counts of classes -> [curves], [collapse], [sub_categories], [penalties] -> Figure
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmarks.evidence.classes import Counts, chance
from lightning_al import Comparison, History, plotting
from lightning_al.class_entropy import class_entropy

__all__ = ["collapse", "curves", "penalties", "sub_categories"]

#: Those that look at samples one by one; the others choose a query as a whole. Seven lines in one picture are
#: too many.
ONE_BY_ONE = ("Margin", "Entropy", "PowerMargin", "BALD")


def _halves(names: Sequence[str]) -> list[tuple[str, list[str]]]:
    first = [name for name in names if name in ("Random", *ONE_BY_ONE)]
    second = [name for name in names if name not in ONE_BY_ONE]
    return [("Samples one by one", first), ("A query as a whole", second)]


def curves(comparison: Comparison, metric: str, heading: str, target: float | None) -> Figure:
    """Learning curves; of many strategies in two panels with random sampling in both."""
    parts = _halves(comparison.strategies)
    if len(comparison.strategies) <= 7:
        parts = [("", comparison.strategies)]
    figure = Figure(figsize=(7.2 if len(parts) == 1 else 12.4, 4.6), layout="constrained", dpi=110)
    panels = figure.subplots(1, len(parts), sharey=True, squeeze=False)[0]
    runs = comparison.histories()
    for ax, (title, names) in zip(panels, parts, strict=True):
        chosen = {name: runs[name] for name in names if name in runs}
        plotting.learning_curves(chosen, metric, target=target, percent=True, ax=ax)
        ax.set_title(title, loc="left", fontsize=11)
        if metric == "test_bal_acc":
            ax.set_ylabel("mean recall of the classes")
    lowest = min(row[metric] for row in comparison.rows)
    for ax in panels:
        ax.set_ylim(np.floor(lowest * 20) / 20, _ceiling(comparison, metric))
    for ax in panels[1:]:
        ax.set_ylabel("")
    figure.suptitle(heading, x=0.01, ha="left", fontsize=12)
    return figure


def _ceiling(comparison: Comparison, metric: str) -> float:
    return float(min(1.0, np.ceil(max(row[metric] for row in comparison.rows) * 20) / 20))


def collapse(
    counts: Mapping[str, Counts], pool: npt.NDArray[Any], names: Sequence[str], start: int
) -> Figure:
    """Above what the acquired labels are of, below their entropy against that of random draws.

    Args:
        counts: Acquired until each round, `(seeds, queries, classes)`.
        pool: Samples a class.
        names: Of the classes.
        start: Labels before the first query.
    """
    figure = Figure(figsize=(14.5, 7.4), layout="constrained", dpi=110)
    above, below = figure.subfigures(2, 1, squeeze=False, height_ratios=(3.2, 4.2))[:, 0]
    plotting.class_balance(
        {name: array[:, -1] for name, array in counts.items()},
        pool=pool.tolist(),
        class_names=names,
        figure=above,
    )
    panels = below.subplots(1, 2)
    whole, single = panels
    _entropy_lines(whole, counts, pool, start)
    whole.set_title("Of all acquired labels", loc="left", fontsize=11)
    one = {name: np.diff(array, axis=1, prepend=0) for name, array in counts.items()}
    _entropy_lines(single, one, pool, start)
    single.set_title("Of each query by itself", loc="left", fontsize=11)
    single.get_legend().remove()  # the same as on the left, where no curve is under it
    for ax in panels:
        ax.set_ylim(top=np.log(len(pool)) * 1.02)
    return figure


def sub_categories(counts: Mapping[str, Counts], pool: npt.NDArray[Any], start: int) -> Figure:
    """Entropy of the finer classes among labels acquired on the coarse ones."""
    figure = Figure(figsize=(12.4, 4.6), layout="constrained", dpi=110)
    panels = figure.subplots(1, 2, sharey=True)
    for ax, (title, names) in zip(panels, _halves(list(counts)), strict=True):
        _entropy_lines(ax, {name: counts[name] for name in names}, pool, start)
        ax.set_title(title, loc="left", fontsize=11)
    panels[1].set_ylabel("")
    return figure


def _entropy_lines(ax: Axes, counts: Mapping[str, Counts], pool: npt.NDArray[Any], start: int) -> None:
    """The median over seeds with quartiles, over the band that 95 % of random draws lie in."""
    sizes = next(iter(counts.values()))[0].sum(axis=1)
    steps = np.diff(sizes, prepend=0)
    asked = sizes if (np.diff(sizes) > 0).all() else np.cumsum(steps.max() * np.ones_like(sizes))
    histories = {
        name: [
            History(
                [{"labeled": int(n), "entropy": float(v)} for n, v in zip(start + asked, run, strict=True)]
            )
            for run in class_entropy(array)
        ]
        for name, array in counts.items()
    }
    low, middle, high = chance(pool, sizes)
    ax.fill_between(
        start + asked, low, high, color="#DDDDDD", linewidth=0, zorder=0.5, label="95 % of random draws"
    )
    ax.plot(start + asked, middle, color="#BBBBBB", linewidth=1, zorder=0.6)
    plotting.learning_curves(histories, "entropy", percent=False, ax=ax)
    ax.set_ylabel("entropy of the classes (nats)")


def penalties(comparisons: Mapping[str, tuple[Comparison, str]]) -> Figure:
    """One matrix a study, side by side.

    Args:
        comparisons: By title, with the metric.
    """
    count = len(comparisons)
    figure = Figure(figsize=(6.6 * count, 5.6), layout="constrained", dpi=90)
    panels = figure.subplots(1, count, squeeze=False)[0]
    for ax, (title, (comparison, metric)) in zip(panels, comparisons.items(), strict=True):
        plotting.penalty_matrix(comparison, metric=metric, ax=ax)
        ax.set_title(title, loc="left", fontsize=12)
    return figure

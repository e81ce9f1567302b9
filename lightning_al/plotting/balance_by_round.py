"""The classes of the labels as they came, round by round: where a strategy collapses onto a few."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from lightning_al.class_entropy import class_entropy
from lightning_al.comparing.rows import Runs
from lightning_al.plotting.given import baseline_of, check_named, numbers
from lightning_al.plotting.style import (
    BASELINE,
    INK,
    calm,
    draw_legend,
    folded,
    legend_tall,
    new_figure,
    percent_ticks,
    root_of,
    styles_of,
    told_of_seeds,
    width_of,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure, SubFigure

    from lightning_al.comparing import Comparison

Counts = npt.NDArray[np.float64]


def class_balance_by_round(
    counts: Mapping[str, Any] | Comparison,
    *,
    class_names: Sequence[str] | None = None,
    baseline: str | None = None,
    heading: str | None = None,
    figure: Figure | SubFigure | None = None,
) -> Figure:
    """What share of all labels acquired until a round each class has, and how even that is.

    Strategies and runs whose queries have brought no label yet are left out.

    Above, a panel for every strategy, classes from top to bottom and rounds from left to right: a class that
    is hardly asked for stays pale. Below, the entropy of those shares: a strategy far below the baseline has
    collapsed onto a few classes. The initial set, round 0, is no strategy's choice and is left out.

    Args:
        counts: A comparison; or of every strategy how often each class is among the labels that came with a
            round's query, `(rounds, classes)`, or `(seeds, rounds, classes)`; round 0 is the initial set.
        class_names: Names of the classes; default those of the comparison, or 0, 1, ...
        baseline: Name that is drawn in grey; `None`: the comparison's own, or "Random".
        heading: Above all.
        figure: Where to draw; `None`: a figure of its own.

    Returns:
        The figure: an axes a strategy, and one for the entropies.

    Raises:
        ModuleNotFoundError: If matplotlib is not installed.
        TypeError: If `counts` are neither a mapping nor a comparison.
        ValueError: If no query has brought labels, the numbers of classes differ, or `baseline` is none of
            the strategies.

    Example:
        >>> counts = {"Random": [[2, 2], [5, 5], [5, 5]], "Entropy": [[2, 2], [9, 1], [10, 0]]}
        >>> figure = class_balance_by_round(counts)
        >>> [ax.get_title(loc="left") for ax in figure.axes[:2]]
        ['Random', 'Entropy']
    """
    if isinstance(counts, Runs):
        baseline = baseline_of(baseline, counts.strategies, counts.baseline)
        class_names = counts.class_names if class_names is None else class_names
        acquired = acquired_of(counts)
    else:
        check_named("counts", counts, "counts")
        acquired = _acquired(counts)
        baseline = baseline_of(baseline, counts)
    classes = next(iter(acquired.values())).shape[2]
    names = [str(c) for c in range(classes)] if class_names is None else list(class_names)
    if len(names) != classes:
        raise ValueError(
            f"There are {len(names)} `class_names` and {classes} classes; needed are as many. Leave them out "
            "for 0, 1, ..."
        )
    rows = math.ceil(len(acquired) / 4)
    columns = math.ceil(len(acquired) / rows)
    beside = 1.6 + 0.07 * max(map(len, names))  # what the names of the classes, and the bar, need
    wide = max(6.4, 2.0 * columns + beside) if figure is None else width_of(figure)
    titles = {name: folded(name, (wide - beside) / columns, 11) for name in acquired}
    tall = 0.34 + 0.17 * max(title.count("\n") + 1 for title in titles.values())
    tall += 0.17 * min(max(classes, 5), 40)
    heights = rows * (tall + 0.5), max(2.5, legend_tall(acquired))
    figure = new_figure((wide, sum(heights) + 0.2)) if figure is None else figure
    above, below = figure.subfigures(2, 1, squeeze=False, height_ratios=heights)[:, 0]
    _draw_shares(above, acquired, titles, names, rows, columns)
    _draw_entropies(below, acquired, baseline)
    if heading:
        figure.suptitle(heading, x=0.01, ha="left", fontsize=12, color=INK)
    return root_of(figure)


def acquired_of(comparison: Runs) -> dict[str, Counts]:
    """How often each class is among the labels that queries have brought until a round.

    Args:
        comparison: With runs that may be going on.

    Returns:
        Of every strategy `(seeds, rounds, classes)` from round 1 on; strategies and runs without are left
        out, and rounds that not all its other runs have.

    Raises:
        ValueError: If no query has brought labels, or targets are not classes.
    """
    return _acquired(_begun(comparison).class_counts())


def _begun(comparison: Runs) -> Runs:
    """Without the runs that have round 0 alone, to whose length the others of their strategy would be cut."""
    begun = [t for t in comparison.tables if t.classes is None or any(map(len, t.classes[1:]))]
    runs = Runs(
        begun or comparison.tables,
        strategies=comparison.strategies, seeds=comparison.seeds, rounds=comparison.rounds,
        baseline=comparison.baseline,
    )  # fmt: skip
    runs.classes = comparison.classes  # those of what is left out are classes too
    return runs


def _acquired(counts: Mapping[str, Any]) -> dict[str, Counts]:
    """Labels since the initial set, of every class: `(seeds, rounds, classes)`."""
    found = {}
    for name, values in counts.items():
        given = numbers(values)
        array = np.zeros(0) if given is None else given[None] if given.ndim == 2 else given
        if array.ndim != 3 or not (np.isfinite(array) & (array >= 0)).all():
            what = f"a {type(values).__name__}" if given is None else f"of the shape {given.shape}"
            raise ValueError(
                f"The counts of {name!r} are {what}; needed are (rounds, classes) or "
                "(seeds, rounds, classes), none negative. `Comparison.class_counts` makes them."
            )
        array = array[:, 1:].cumsum(axis=1)
        array = array[array.any(axis=(1, 2))]  # the seeds that have acquired any
        if array.size:
            found[name] = array
    if counts and not found:
        raise ValueError(
            f"No query of {list(counts)} has brought labels yet; needed are counts of a round after round 0. "
            "Wait for round 1 of a run, or pass the counts of more rounds."
        )
    sizes = {name: array.shape[2] for name, array in found.items()}
    if not found or len(set(sizes.values())) > 1:
        raise ValueError(
            f"The numbers of classes are {sizes}; needed is one strategy or more, and the same number "
            "everywhere."
        )
    return found


def _draw_shares(
    figure: SubFigure,
    acquired: Mapping[str, Counts],
    titles: Mapping[str, str],
    names: Sequence[str],
    rows: int,
    columns: int,
) -> None:
    shares = {
        name: (array / np.maximum(array.sum(axis=2, keepdims=True), 1)).mean(axis=0)
        for name, array in acquired.items()
    }
    most = max(float(share.max()) for share in shares.values())
    panels = figure.subplots(rows, columns, squeeze=False, sharey=True)
    images = []
    for ax, (name, share) in zip(panels.ravel(), shares.items(), strict=False):
        image = ax.imshow(
            share.T, aspect="auto", cmap="Blues", vmin=0, vmax=most, interpolation="nearest",
            extent=(0.5, len(share) + 0.5, len(names) - 0.5, -0.5),
        )  # fmt: skip
        images.append(image)
        ax.set_title(titles[name], loc="left", fontsize=11, color=INK)
        ax.set_xticks(_few(list(range(1, len(share) + 1)), 8))
        ax.set_yticks(_few(list(range(len(names))), 20), _few(list(names), 20))
        ax.tick_params(colors=INK, length=0, labelsize=9)
        for side in ax.spines.values():
            side.set_visible(False)
    for ax in panels.ravel()[len(shares) :]:
        ax.remove()
    for ax in panels[:, 0]:
        ax.set_ylabel("class", color=INK)
    panels[rows - 1, 0].set_xlabel("round", loc="left", color=INK)
    bar = figure.colorbar(images[0], ax=list(figure.axes), fraction=0.03, pad=0.02, format=percent_ticks())
    bar.outline.set_visible(False)
    bar.ax.tick_params(colors=INK, length=0, labelsize=9)
    bar.set_label("share of\nacquired labels", color=INK, fontsize=9.5)


def _few(values: list[Any], most: int) -> list[Any]:
    """Every one, or every second, third, ... of many."""
    return values[:: max(1, math.ceil(len(values) / most))]


def _draw_entropies(figure: SubFigure, acquired: Mapping[str, Counts], baseline: str) -> None:
    ax = figure.subplots()
    styles = styles_of(acquired, baseline)
    lowest = math.inf
    for name, array in acquired.items():
        values = np.nan_to_num(class_entropy(array))
        color, marker = styles[name]
        x = np.arange(1, values.shape[1] + 1)
        ax.plot(
            x, np.median(values, axis=0), color=color, marker=marker, markersize=4.5, markeredgewidth=0,
            linewidth=2, linestyle="--" if color == BASELINE else "-", label=name, zorder=3,
        )  # fmt: skip
        if len(values) > 1:
            low, high = np.quantile(values, [0.25, 0.75], axis=0)
            ax.fill_between(x, low, high, color=color, alpha=0.15, linewidth=0, zorder=2)
        lowest = min(lowest, float(values.min()))
    even = math.log(next(iter(acquired.values())).shape[2])
    ax.axhline(even, color=INK, linewidth=0.8, linestyle=(0, (1, 2)), zorder=1.5)
    ax.annotate(
        "every class alike", (1, even), xycoords=("axes fraction", "data"), xytext=(0, 3), ha="right",
        textcoords="offset points", fontsize=9, color=INK,
    )  # fmt: skip
    scale = even or 1  # of one class all entropies are 0
    ax.set_ylim(min(lowest, even) - 0.05 * scale, even + 0.12 * max(even - lowest, 0.25 * scale))
    ax.set_xticks(_few(list(range(1, max(array.shape[1] for array in acquired.values()) + 1)), 12))
    ax.set_xlabel("round", loc="left", color=INK)
    ax.set_ylabel("entropy (nats)", color=INK)
    calm(ax)
    title = told_of_seeds([len(array) for array in acquired.values()], "quartiles")
    draw_legend(ax, title, loc="center left", bbox_to_anchor=(1.01, 0.5))

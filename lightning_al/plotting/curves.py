"""A metric against the number of labels, for every strategy."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from lightning_al.comparing.rows import Runs
from lightning_al.history import History
from lightning_al.plotting.bracket import check_saving, draw_saving
from lightning_al.plotting.given import baseline_of, check_emphasis, grouped
from lightning_al.plotting.style import (
    BASELINE,
    INK,
    SMALL,
    calm,
    draw_legend,
    legend_tall,
    new_figure,
    percent_ticks,
    root_of,
    styles_of,
    told_of_seeds,
    width_of,
)
from lightning_al.reaching import check_metric, finite, rises

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from lightning_al.comparing import Comparison

Histories = Mapping[str, History | Sequence[History]]

_BANDS = {"quartiles": "quartiles", "range": "lowest to highest"}


def learning_curves(
    histories: Histories | Comparison,
    metric: str | None = None,
    *,
    target: float | None = None,
    saving: tuple[str, str] | None = None,
    bands: Literal["quartiles", "range"] | None = "quartiles",
    emphasize: Collection[str] | None = None,
    baseline: str | None = None,
    percent: bool | None = None,
    higher_is_better: bool | None = None,
    ax: Axes | None = None,
) -> Figure:
    """A metric against the number of labels: the median over seeds, and a band around it.

    A run without any value of the metric, such as one that diverged, is left out, and the legend names it.

    Args:
        histories: Of every strategy, one history a seed, or a single one; or a comparison.
        metric: Column of the histories, such as `"test_acc"`; a comparison knows which is meant.
        target: Draws a line at this value.
        saving: Two names, a strategy and what it is measured against: marks on the line of `target` how
            many labels fewer the first needed, by `labels_to_target` and the medians over seeds.
        bands: Between the quartiles of the seeds, or between the lowest and highest; `None`: no band.
        emphasize: Names whose bands are drawn; `None`: all. Many bands on one another hide all.
        baseline: Name that is drawn in grey and dashed; `None`: the comparison's own, or "Random".
        percent: Show values between 0 and 1 in percent; `None`: where the metric's name speaks of accuracy.
            Where a value lies beyond, all are plain numbers.
        higher_is_better: By which `saving` counts; `None`: unless the metric's name speaks of a loss or an
            error.
        ax: Where to draw; `None`: a figure of its own, with the legend beside it.

    Returns:
        The figure.

    Raises:
        ModuleNotFoundError: If matplotlib is not installed.
        TypeError: If `histories` are none.
        ValueError: If there is no history, no round has the metric, `bands` or `saving` does not fit, or
            `emphasize` or `baseline` names what is none of the strategies.

    Example:
        >>> runs = {name: [History([{"labeled": n, "test_acc": 1 - scale / n} for n in (10, 20, 40)])
        ...                for scale in scales] for name, scales in (("Random", (5, 6)), ("Margin", (3, 4)))}
        >>> figure = learning_curves(runs, "test_acc", target=0.8, saving=("Margin", "Random"))
        >>> [line.get_label() for line in figure.axes[0].lines][:2]
        ['Random', 'Margin']
    """
    if isinstance(histories, Runs):
        names, usual = histories.strategies, histories.baseline
        metric, histories = metric or histories.metric, histories.histories()
        given = grouped("histories", histories)
    else:
        given = grouped("histories", histories)
        names, usual = list(given), "Random"
    if metric is None:
        raise ValueError(
            "`metric` is not given, and only a comparison knows which is meant. Name a column of the "
            'histories, such as "test_acc".'
        )
    _check_bands(bands)
    check_emphasis(emphasize, names)
    styles = styles_of(given, baseline_of(baseline, names, usual))
    check_metric([run for runs in given.values() for run in runs], metric)
    drawn, left_out = _with_values(given, metric)
    check_saving(saving, target, drawn)
    beside = ax is None
    tall = max(4.6, 0.3 + legend_tall([*drawn, *left_out]))
    ax = new_figure((8.6, tall)).subplots() if ax is None else ax
    for name, runs in drawn.items():
        shown = emphasize is None or name in emphasize
        _draw_curve(ax, name, runs, metric, bands if shown else None, shown, styles[name])
    every = [history for runs in drawn.values() for history in runs]
    shares = _are_shares(every, metric, target)
    if target is not None:  # before the axis of shares is fixed, for it to be seen
        ax.axhline(target, color=INK, linewidth=0.8, linestyle=(0, (1, 2)), zorder=1.5)
    _label_axes(ax, every, metric, shares and ("acc" in metric.lower() if percent is None else percent))
    if saving is not None and target is not None:
        higher = rises(metric) if higher_is_better is None else higher_is_better
        draw_saving(ax, drawn, metric, target, saving, higher_is_better=higher)
    _legend(ax, drawn, bands, left_out, beside=beside)
    return root_of(ax.figure)


def _draw_curve(
    ax: Axes,
    name: str,
    runs: Sequence[History],
    metric: str,
    bands: str | None,
    strong: bool,
    style: tuple[str, str],
) -> None:
    x, values = _aligned(runs, metric)
    color, marker = style
    ax.plot(
        x, np.nanmedian(values, axis=0), label=name, color=color, marker=marker, markersize=4.5,
        linestyle="--" if color == BASELINE else "-", linewidth=2 if strong else 1.1,
        alpha=1 if strong else 0.75, zorder=3 if strong else 2.5, markeredgewidth=0,
    )  # fmt: skip
    if bands is None or len(runs) < 2:
        return
    low, high = (0.25, 0.75) if bands == "quartiles" else (0.0, 1.0)
    with np.errstate(invalid="ignore"):  # between two infinite ones there is no band
        low, high = np.nanquantile(values, [low, high], axis=0)
    ax.fill_between(x, low, high, color=color, alpha=0.17, linewidth=0, zorder=2)


def _aligned(runs: Sequence[History], metric: str) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    """Label counts that any run has, and a row of values for every run, NaN where it has none."""
    points = [
        {
            n: value
            for n, value in zip(run.column("labeled"), run.column(metric), strict=True)
            if value == value
        }
        for run in runs
    ]
    x = sorted({n for point in points for n in point})
    return np.array(x), np.array([[point.get(n, np.nan) for n in x] for point in points])


def _label_axes(ax: Axes, every: Sequence[History], metric: str, percent: bool) -> None:
    from matplotlib.ticker import MaxNLocator

    counts = sorted({n for history in every for n in history.column("labeled")})
    # Every curve ends at its budget, so the axis shows that number too.
    some = [counts[::-step][::-1] for step in (1, 2)] if len(counts) <= 14 else []
    round_numbers = MaxNLocator(10, integer=True).tick_values(counts[0], counts[-1])
    ticks = next((few for few in some if _have_room(ax, few)), round_numbers)
    ax.set_xticks([t for t in ticks if counts[0] <= t <= counts[-1]])
    ax.set_xlabel("labels", color=INK)
    ax.set_ylabel(_readable(metric), color=INK)
    if percent:
        ax.yaxis.set_major_formatter(percent_ticks())
        ax.set_ylim(top=1)
    calm(ax)


def _have_room(ax: Axes, counts: Sequence[float]) -> bool:
    """Whether all can be written below the axis, the closest two included."""
    if len(counts) < 2:
        return True
    wide = 0.9 * ax.get_position().width * width_of(ax.figure) * 72  # a legend takes some
    closest = min(abs(a - b) for a, b in pairwise(counts)) / (max(counts) - min(counts))
    return closest * wide > 0.64 * SMALL * (len(str(max(counts))) + 2)


def _are_shares(every: Sequence[History], metric: str, target: float | None) -> bool:
    """Whether all lie between 0 and 1, up to what a mean in float32 is beyond."""
    values = [value for run in every for value in finite(run.column(metric))]
    return all(-1e-6 <= value <= 1 + 1e-6 for value in [*values, 0 if target is None else target])


def _legend(
    ax: Axes,
    drawn: Mapping[str, Sequence[History]],
    bands: str | None,
    left_out: Sequence[str],
    *,
    beside: bool,
) -> None:
    """Beside axes of our own, where it hides no curve; within those of others, whose neighbours need room."""
    title = told_of_seeds([len(runs) for runs in drawn.values()], _BANDS[bands] if bands else None)
    title += ["left out, without values:", *left_out] if left_out else []
    place = {"loc": "upper left", "bbox_to_anchor": (1.01, 1.0)} if beside else {"loc": "best"}
    draw_legend(ax, title, **place)


def _readable(metric: str) -> str:
    words = metric.replace("/", " ").replace("_", " ")
    return {"test acc": "test accuracy", "val acc": "validation accuracy"}.get(words, words)


def _with_values(
    given: Mapping[str, Sequence[History]], metric: str
) -> tuple[dict[str, list[History]], list[str]]:
    """The runs that have a value of the metric, and what to call the others."""
    drawn = {name: [run for run in runs if finite(run.column(metric))] for name, runs in given.items()}
    left_out = [
        f"{name}, seed {next((row['seed'] for row in run if 'seed' in row), place)}" if drawn[name] else name
        for name, runs in given.items()
        for place, run in enumerate(runs)
        if not finite(run.column(metric))
    ]
    return {name: runs for name, runs in drawn.items() if runs}, list(dict.fromkeys(left_out))


def _check_bands(bands: str | None) -> None:
    if bands not in (None, *_BANDS):
        raise ValueError(
            f"`bands` is {bands!r}; needed is one of {list(_BANDS)}, or `None` for no band. Pass one of them."
        )

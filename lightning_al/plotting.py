"""PLOTTING: what a run has shown, as figures.

histories -> labels_to_target, learning_curves; label counts -> class_balance; a query -> selected_samples

Needs matplotlib (`pip install lightning-al[plot]`), which is imported by the first call that draws. Every
function takes the place to draw on, or makes a `Figure` of its own; none touches `pyplot` or its state.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from itertools import cycle
from statistics import median
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from lightning_al.rounds import History

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure, SubFigure

__all__ = ["class_balance", "labels_to_target", "learning_curves", "selected_samples"]

Histories = Mapping[str, History | Sequence[History]]

#: Okabe & Ito's palette, which stays apart under every form of colour blindness; without its pale yellow.
_PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
_MARKERS = ("o", "D", "^", "v", "P", "X")
_BASELINE = "#7A7A7A"
_INK, _FAINT = "#333333", "#D9D9D9"


# ---------------------------------------------------------------------- the rule


def labels_to_target(history: History, metric: str, target: float, *, rounds: int = 2) -> float:
    """How many labels a run needed until a metric stayed at a target.

    The target counts as reached at the first of `rounds` consecutive rounds at or above it: one lucky
    round is not enough, and a last round that nothing confirms is not either.

    Args:
        history: Of one run.
        metric: Column of the history; higher = better.
        target: In the metric's own units.
        rounds: How many rounds in a row.

    Returns:
        Labels that the model was trained on; infinity if the run never got there.

    Raises:
        ValueError: If no round has the metric, or `rounds` is not positive.

    Example:
        >>> history = History([{"round": r, "labeled": 20 + 10 * r, "test_acc": acc}
        ...                    for r, acc in enumerate([0.6, 0.91, 0.88, 0.90, 0.93])])
        >>> labels_to_target(history, "test_acc", 0.9), labels_to_target(history, "test_acc", 0.92)
        (50.0, inf)
    """
    if rounds < 1:
        raise ValueError(f"`rounds` is {rounds}; needed is how many rounds in a row, 1 or more.")
    _check_metric([history], metric)
    labeled, in_a_row = history.column("labeled"), 0
    for place, value in enumerate(history.column(metric)):
        in_a_row = in_a_row + 1 if value >= target else 0
        if in_a_row == rounds:
            return float(labeled[place - rounds + 1])
    return math.inf


# ---------------------------------------------------------------------- figures


def learning_curves(
    histories: Histories,
    metric: str,
    *,
    target: float | None = None,
    saving: tuple[str, str] | None = None,
    bands: Literal["quartiles", "range"] | None = "quartiles",
    emphasize: Collection[str] | None = None,
    baseline: str = "Random",
    percent: bool | None = None,
    ax: Axes | None = None,
) -> Figure:
    """A metric against the number of labels: the median over seeds, and a band around it.

    Args:
        histories: Of every strategy, one history a seed, or a single one.
        metric: Column of the histories, such as `"test_acc"`.
        target: Draws a line at this value.
        saving: Two names, a strategy and what it is measured against: marks on the line of `target` how
            many labels fewer the first needed, by `labels_to_target` and the medians over seeds.
        bands: Between the quartiles of the seeds, or between the lowest and highest; `None`: no band.
        emphasize: Names whose bands are drawn; `None`: all. Many bands on one another hide all.
        baseline: Name that is drawn in grey and dashed.
        percent: Show values between 0 and 1 in percent; `None`: where the metric's name speaks of accuracy.
        ax: Where to draw; `None`: a figure of its own.

    Returns:
        The figure.

    Raises:
        ModuleNotFoundError: If matplotlib is not installed.
        ValueError: If there is no history, no round has the metric, or `saving` does not fit.

    Example:
        >>> runs = {name: [History([{"labeled": n, "test_acc": 1 - scale / n} for n in (10, 20, 40)])
        ...                for scale in scales] for name, scales in (("Random", (5, 6)), ("Margin", (3, 4)))}
        >>> figure = learning_curves(runs, "test_acc", target=0.8, saving=("Margin", "Random"))
        >>> [line.get_label() for line in figure.axes[0].lines][:2]
        ['Random', 'Margin']
    """
    grouped = _grouped(histories)
    every = [history for runs in grouped.values() for history in runs]
    _check_metric(every, metric)
    _check_saving(saving, target, grouped)
    ax = _new_axes((7.2, 4.6)) if ax is None else ax
    percent = "acc" in metric.lower() if percent is None else percent
    styles = _styles(grouped, baseline)
    for name, runs in grouped.items():
        shown = emphasize is None or name in emphasize
        _draw_curve(ax, name, runs, metric, bands if shown else None, shown, styles[name])
    _label_axes(ax, every, metric, percent)
    if target is not None:
        ax.axhline(target, color=_INK, linewidth=0.8, linestyle=(0, (1, 2)), zorder=1.5)
    if saving is not None and target is not None:
        _draw_saving(ax, grouped, metric, target, saving)
    _legend(ax, grouped, bands)
    return _figure_of(ax)


def class_balance(
    counts: Mapping[str, Any],
    *,
    pool: Sequence[float] | None = None,
    class_names: Sequence[str] | None = None,
    baseline: str = "Random",
    figure: Figure | SubFigure | None = None,
) -> Figure:
    """What share of a strategy's labels each class has: a panel for every strategy.

    Args:
        counts: Of every strategy, labels a class `(classes,)`, or one row a seed `(seeds, classes)`; then
            bars are the mean share and whiskers the lowest and highest.
        pool: Samples a class in the pool; drawn as a line over every class.
        class_names: Names of the classes; default 0, 1, ...
        baseline: Name that is drawn in grey.
        figure: Where to draw; `None`: a figure of its own.

    Returns:
        The figure, one axes a strategy.

    Raises:
        ModuleNotFoundError: If matplotlib is not installed.
        ValueError: If the numbers of classes differ, a count is negative, or there is nothing to show.

    Example:
        >>> figure = class_balance({"Random": [5, 5], "Margin": [2, 8]}, pool=[50, 50])
        >>> [float(bar.get_height()) for bar in figure.axes[1].patches]
        [0.2, 0.8]
    """
    shares = {name: _shares(name, values) for name, values in counts.items()}
    pool_share = None if pool is None else _shares("pool", pool)[0]
    names = _class_names(shares, pool_share, class_names)
    wide = max(6.4, len(shares) * (0.9 + 0.19 * len(names)))
    figure = _new_figure((wide, 3.3)) if figure is None else figure
    from matplotlib.ticker import MaxNLocator

    panels = figure.subplots(1, len(shares), sharey=True, squeeze=False)[0]
    styles = _styles(shares, baseline)
    for ax, (name, share) in zip(panels, shares.items(), strict=True):
        _draw_shares(ax, share, pool_share, styles[name][0])
        ax.set_title(name, loc="left", fontsize=11, color=_INK)
        ax.set_xticks(range(len(names)), names)
        _calm(ax)
    panels[0].yaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10]))
    panels[0].yaxis.set_major_formatter(_percent())
    panels[0].set_ylabel("share of the labels", color=_INK)
    figure.supxlabel("class", fontsize=10, color=_INK)
    handles, labels = panels[0].get_legend_handles_labels()
    if handles:
        figure.legend(
            handles,
            labels,
            loc="outside upper right",
            ncols=len(labels),
            frameon=False,
            fontsize=9.5,
            labelcolor=_INK,
        )
    return _root(figure)


def selected_samples(
    images: Any,
    scores: Sequence[float],
    titles: Sequence[Any] | None = None,
    *,
    columns: int = 5,
    decimals: int = 2,
    heading: str | None = None,
    figure: Figure | SubFigure | None = None,
) -> Figure:
    r"""The images that a strategy asked for, most wanted first, each with its score.

    Args:
        images: Grey `(H, W)` or `(1, H, W)`, or coloured `(H, W, 3)` or `(3, H, W)`: tensors or arrays.
            Grey ones share one range from black to white.
        scores: One each; NaN: shown without.
        titles: A line above the score each, such as the label.
        columns: Images in a row.
        decimals: Of the scores.
        heading: Above all.
        figure: Where to draw; `None`: a figure of its own.

    Returns:
        The figure, one axes an image.

    Raises:
        ModuleNotFoundError: If matplotlib is not installed.
        ValueError: If there is no image, an image has another shape, or the lengths differ.

    Example:
        >>> import torch
        >>> figure = selected_samples(torch.rand(3, 1, 8, 8), [0.9, 0.8, 0.75], titles=["a 3", "a 5", "an 8"])
        >>> figure.axes[0].get_title()
        'a 3\n0.90'
    """
    pictures = [_picture(image) for image in images]
    _check_lengths(pictures, scores=scores, titles=titles)
    if columns < 1:
        raise ValueError(f"`columns` is {columns}; needed is how many images stand in a row, 1 or more.")
    columns = min(columns, len(pictures))
    rows = math.ceil(len(pictures) / columns)
    figure = _new_figure((1.15 * columns + 0.2, 1.5 * rows + 0.5)) if figure is None else figure
    panels = figure.subplots(rows, columns, squeeze=False).ravel()
    grey = [picture for picture in pictures if picture.ndim == 2]
    span = {"vmin": min(p.min() for p in grey), "vmax": max(p.max() for p in grey)} if grey else {}
    for place, (ax, picture) in enumerate(zip(panels, pictures, strict=False)):
        ax.imshow(picture, cmap="gray", interpolation="nearest", **(span if picture.ndim == 2 else {}))
        score = "" if math.isnan(scores[place]) else f"{scores[place]:.{decimals}f}"
        lines = [str(titles[place])] if titles is not None else []
        ax.set_title("\n".join([*lines, score]).strip("\n"), fontsize=10, color=_INK, pad=3)
    for ax in panels:
        ax.set_axis_off()
    for ax in panels[len(pictures) :]:
        ax.remove()
    if heading:
        figure.suptitle(heading, fontsize=11, color=_INK)
    return _root(figure)


# ---------------------------------------------------------------------- curves


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
        linestyle="--" if color == _BASELINE else "-", linewidth=2 if strong else 1.1,
        alpha=1 if strong else 0.75, zorder=3 if strong else 2.5, markeredgewidth=0,
    )  # fmt: skip
    if bands is None or len(runs) < 2:
        return
    low, high = (0.25, 0.75) if bands == "quartiles" else (0.0, 1.0)
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
    few = len(counts) <= 14
    ticks = counts if few else MaxNLocator(10, integer=True).tick_values(counts[0], counts[-1])
    ax.set_xticks([t for t in ticks if counts[0] <= t <= counts[-1]])
    ax.set_xlabel("labels", color=_INK)
    ax.set_ylabel(_readable(metric), color=_INK)
    if percent:
        ax.yaxis.set_major_formatter(_percent())
        ax.set_ylim(top=1)
    _calm(ax)


def _draw_saving(
    ax: Axes, grouped: Mapping[str, Sequence[History]], metric: str, target: float, saving: tuple[str, str]
) -> None:
    """A bracket on the target's line between the two medians, and what it means in words."""
    name, other = saving
    needed, base = (median(labels_to_target(run, metric, target) for run in grouped[n]) for n in saving)
    counts = [n for runs in grouped.values() for run in runs for n in run.column("labeled")]
    first, last = min(counts), max(counts)
    left, right = sorted((min(needed, last), min(base, last)))
    if left < right:
        ends = {"arrowstyle": "|-|,widthA=0.4,widthB=0.4", "shrinkA": 0, "shrinkB": 0}
        ax.annotate(
            "", (left, target), (right, target), zorder=5,
            arrowprops={**ends, "color": _INK, "linewidth": 1.8},
        )  # fmt: skip
    # Before the curves reach the line nothing is above it; after, nothing is right below it.
    late = left - first > 0.35 * (last - first)
    where: dict[str, Any] = {"xy": (right, target), "xytext": (8, -4), "va": "top"}
    if late:
        where = {"xy": (0, target), "xycoords": ("axes fraction", "data"), "xytext": (6, 4), "va": "bottom"}
    said = f"{_verdict(needed, base, last)}\n{name} {_count(needed, last)}, {other} {_count(base, last)}"
    ax.annotate(
        said, textcoords="offset points", fontsize=9.5, color=_INK, linespacing=1.3, zorder=5, **where
    )  # fmt: skip


def _count(labels: float, last: float) -> str:
    return f"> {last:g}" if math.isinf(labels) else f"{labels:g}"


def _verdict(needed: float, base: float, last: float) -> str:
    """In words: infinity is a median that never got there."""
    if needed == base:
        return "no labels saved"
    saved = min(base, last) - min(needed, last)
    more = "more than " if math.isinf(max(needed, base)) else ""
    return f"{more}{saved:g} labels saved" if needed < base else f"{more}{-saved:g} labels more"


def _legend(ax: Axes, grouped: Mapping[str, Sequence[History]], bands: str | None) -> None:
    sizes = {len(runs) for runs in grouped.values()}
    title = None
    if max(sizes) > 1:
        seeds = f"{min(sizes)} to {max(sizes)}" if len(sizes) > 1 else f"{max(sizes)}"
        title = f"median of {seeds} seeds"
        meaning = {"quartiles": "quartiles", "range": "lowest to highest"}
        title += f"; band: {meaning[bands]}" if bands else ""
    curves = [np.asarray(line.get_ydata()) for line in ax.get_lines() if line.get_label() in grouped]
    rising = sum(float(y[-1] - y[0]) for y in curves) >= 0
    legend = ax.legend(
        loc="lower right" if rising else "upper right", frameon=False, title=title, fontsize=9.5,
        title_fontsize=9, labelcolor=_INK, alignment="left",
    )  # fmt: skip
    legend.get_title().set_color(_INK)


# ---------------------------------------------------------------------- bars and images


def _draw_shares(
    ax: Axes, share: npt.NDArray[np.float64], pool: npt.NDArray[np.float64] | None, color: str
) -> None:
    mean, places = share.mean(axis=0), np.arange(share.shape[1])
    ax.bar(places, mean, width=0.72, color=color, alpha=0.85, zorder=2)
    if len(share) > 1:
        ends = np.stack([mean - share.min(axis=0), share.max(axis=0) - mean])
        label = f"lowest and highest of {len(share)} seeds"
        ax.errorbar(
            places, mean, ends, fmt="none", ecolor=_INK, elinewidth=0.9, capsize=0, zorder=4, label=label
        )  # fmt: skip
    if pool is not None:
        ax.hlines(pool, places - 0.45, places + 0.45, color="black", linewidth=1.6, zorder=3, label="pool")


def _shares(name: str, counts: Any) -> npt.NDArray[np.float64]:
    rows = np.atleast_2d(np.asarray(counts, dtype=np.float64))
    if rows.ndim != 2 or not rows.size or (rows < 0).any() or not (rows.sum(axis=1) > 0).all():
        raise ValueError(
            f"The counts of {name!r} are {counts!r}; needed are numbers of labels a class, (classes,) or "
            "(seeds, classes), none negative and not all 0. `numpy.bincount(targets, minlength=classes)` "
            "makes them."
        )
    share: npt.NDArray[np.float64] = rows / rows.sum(axis=1, keepdims=True)
    return share


def _class_names(
    shares: Mapping[str, npt.NDArray[np.float64]],
    pool: npt.NDArray[np.float64] | None,
    names: Sequence[str] | None,
) -> list[str]:
    sizes = {name: share.shape[1] for name, share in shares.items()}
    sizes |= {} if pool is None else {"pool": len(pool)}
    sizes |= {} if names is None else {"class_names": len(names)}
    if not shares or len(set(sizes.values())) > 1:
        raise ValueError(
            f"The numbers of classes are {sizes}; needed is one strategy or more, and the same number "
            "everywhere. Count with `numpy.bincount(targets, minlength=classes)`."
        )
    return list(names) if names is not None else [str(n) for n in range(next(iter(sizes.values())))]


def _picture(image: Any) -> npt.NDArray[Any]:
    picture = np.asarray(image.detach().cpu() if hasattr(image, "detach") else image)
    if picture.ndim == 3 and picture.shape[0] == 1:
        picture = picture[0]
    elif picture.ndim == 3 and picture.shape[-1] not in (1, 3, 4) and picture.shape[0] in (3, 4):
        picture = np.moveaxis(picture, 0, -1)
    elif picture.ndim == 3 and picture.shape[-1] == 1:
        picture = picture[..., 0]
    if picture.ndim != 2 and not (picture.ndim == 3 and picture.shape[-1] in (3, 4)):
        raise ValueError(
            f"An image has the shape {tuple(np.shape(image))}; needed is (H, W), (1, H, W), (3, H, W) or "
            "(H, W, 3). Index or reduce it to one of these."
        )
    return picture


def _check_lengths(pictures: Sequence[Any], **others: Sequence[Any] | None) -> None:
    lengths = {name: len(values) for name, values in others.items() if values is not None}
    if not pictures or any(length != len(pictures) for length in lengths.values()):
        raise ValueError(
            f"There are {len(pictures)} images, and {lengths}; needed is one image or more and one of each "
            "for every image. Take them all by the same indices."
        )


# ---------------------------------------------------------------------- histories


def _grouped(histories: Histories) -> dict[str, list[History]]:
    grouped = {name: [runs] if isinstance(runs, History) else list(runs) for name, runs in histories.items()}
    empty = [name for name, runs in grouped.items() if not runs]
    if empty or not grouped:
        raise ValueError(
            f"`histories` has no run of {empty or 'any strategy'}; needed is a history or more of each. "
            "`fit_rounds` returns one."
        )
    return grouped


def _check_metric(every: Sequence[History], metric: str) -> None:
    lacking = next((history for history in every if not _finite(history.column(metric))), None)
    if lacking is not None:
        raise ValueError(
            f"No round of {lacking} has a value of {metric!r}. Name one of its columns; test metrics are "
            "there if the data module has a test set and the module logs them in `test_step`."
        )


def _check_saving(saving: tuple[str, str] | None, target: float | None, names: Collection[str]) -> None:
    if saving is None or (target is not None and len(saving) == 2 and set(saving) <= set(names)):
        return
    raise ValueError(
        f"`saving` is {saving!r} and `target` {target!r}; needed are two of the names {sorted(names)} and a "
        "target that both are measured at. Pass both, or leave out `saving`."
    )


def _finite(values: Sequence[Any]) -> list[float]:
    return [value for value in values if isinstance(value, int | float) and math.isfinite(value)]


# ---------------------------------------------------------------------- looks


def _styles(names: Collection[str], baseline: str) -> dict[str, tuple[str, str]]:
    others = cycle(zip(_PALETTE, _MARKERS, strict=True))
    return {name: (_BASELINE, "s") if name == baseline else next(others) for name in names}


def _calm(ax: Axes) -> None:
    ax.spines[["top", "right"]].set_visible(False)
    ax.spines[["left", "bottom"]].set_color(_FAINT)
    ax.tick_params(colors=_INK, length=0, labelsize=9.5)
    ax.grid(axis="y", color=_FAINT, linewidth=0.6)
    ax.set_axisbelow(True)


def _percent() -> Any:
    from matplotlib.ticker import PercentFormatter

    return PercentFormatter(xmax=1, decimals=0, symbol=" %")


def _readable(metric: str) -> str:
    words = metric.replace("/", " ").replace("_", " ")
    return {"test acc": "test accuracy", "val acc": "validation accuracy"}.get(words, words)


# ---------------------------------------------------------------------- where to draw


def _new_figure(size: tuple[float, float]) -> Figure:
    try:
        from matplotlib.figure import Figure
        from matplotlib.layout_engine import ConstrainedLayoutEngine
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "Drawing needs matplotlib, which is not installed. `pip install lightning-al[plot]`, or draw the "
            "columns of `history.rows` with what you have."
        ) from error
    return Figure(figsize=size, layout=ConstrainedLayoutEngine(w_pad=0.1, h_pad=0.1), dpi=150)


def _new_axes(size: tuple[float, float]) -> Axes:
    return _new_figure(size).subplots()


def _figure_of(ax: Axes) -> Figure:
    return _root(ax.figure)


def _root(figure: Figure | SubFigure) -> Figure:
    root: Figure = figure.figure
    return root

"""What share of a strategy's labels each class has, against the pool."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from lightning_al.comparing.rows import Runs
from lightning_al.plotting.balance_by_round import acquired_of
from lightning_al.plotting.given import baseline_of, check_named, numbers
from lightning_al.plotting.style import (
    INK,
    calm,
    folded,
    new_figure,
    percent_ticks,
    root_of,
    styles_of,
    width_of,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure, SubFigure

    from lightning_al.comparing import Comparison


def class_balance(
    counts: Mapping[str, Any] | Comparison,
    *,
    pool: Sequence[float] | None = None,
    class_names: Sequence[str] | None = None,
    baseline: str | None = None,
    heading: str | None = None,
    figure: Figure | SubFigure | None = None,
) -> Figure:
    """What share of a strategy's labels each class has: a panel for every strategy.

    Args:
        counts: Of every strategy, labels a class `(classes,)`, or one row a seed `(seeds, classes)`; then
            bars are the mean share and whiskers the lowest and highest. Or a comparison, for all labels that
            queries have brought, until the last round that a strategy's runs have in common.
        pool: Samples a class in the pool; drawn as a line over every class.
        class_names: Names of the classes; default those of the comparison, or 0, 1, ...
        baseline: Name that is drawn in grey; `None`: the comparison's own, or "Random".
        heading: Above all.
        figure: Where to draw; `None`: a figure of its own.

    Returns:
        The figure, one axes a strategy.

    Raises:
        ModuleNotFoundError: If matplotlib is not installed.
        TypeError: If `counts` are neither a mapping nor a comparison.
        ValueError: If the numbers of classes differ, what should be a count is none, there is nothing to
            show, or `baseline` is none of the strategies.

    Example:
        >>> figure = class_balance({"Random": [5, 5], "Margin": [2, 8]}, pool=[50, 50])
        >>> [float(bar.get_height()) for bar in figure.axes[1].patches]
        [0.2, 0.8]
    """
    if isinstance(counts, Runs):
        baseline = baseline_of(baseline, counts.strategies, counts.baseline)
        class_names = counts.class_names if class_names is None else class_names
        counts = {name: array[:, -1] for name, array in acquired_of(counts).items()}
    else:
        check_named("counts", counts, "counts")
        baseline = baseline_of(baseline, counts)
    shares = {name: _shares(name, values) for name, values in counts.items()}
    pool_share = None if pool is None else _shares("pool", pool)[0]
    names = _class_names(shares, pool_share, class_names)
    longest = max(map(len, names))
    each = max(0.9 + 0.19 * len(names), 0.11 * min(24, max(map(len, shares))))
    wide = max(6.4, len(shares) * each) if figure is None else width_of(figure)
    each = wide / len(shares) - 0.25
    turned = longest * len(names) > 12 * each  # side by side they would run together
    titles = {name: folded(name, each, 11) for name in shares}
    tall = 3.3 + (0.06 * longest if turned else 0) + 0.17 * max(t.count("\n") for t in titles.values())
    figure = new_figure((wide, tall)) if figure is None else figure
    from matplotlib.ticker import MaxNLocator

    panels = figure.subplots(1, len(shares), sharey=True, squeeze=False)[0]
    styles = styles_of(shares, baseline)
    for ax, (name, share) in zip(panels, shares.items(), strict=True):
        _draw_shares(ax, share, pool_share, styles[name][0])
        ax.set_title(titles[name], loc="left", fontsize=11, color=INK)
        ax.set_xticks(range(len(names)), names)
        if turned:
            ax.tick_params(axis="x", rotation=90)
        calm(ax)
    panels[0].yaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10]))
    panels[0].yaxis.set_major_formatter(percent_ticks())
    panels[0].set_ylabel("share of the labels", color=INK)
    # Both axes are named once, at the first panel; the rest of that row is free for the legend.
    panels[0].set_xlabel("class", loc="left", color=INK)
    handles, labels = panels[0].get_legend_handles_labels()
    if handles:
        figure.legend(
            handles, labels, loc="lower right", borderpad=0, borderaxespad=0.76, ncols=len(labels),
            frameon=False, fontsize=9.5, labelcolor=INK,
        )  # fmt: skip
    if heading:
        figure.suptitle(heading, x=0.01, ha="left", fontsize=12, color=INK)
    return root_of(figure)


def _draw_shares(
    ax: Axes, share: npt.NDArray[np.float64], pool: npt.NDArray[np.float64] | None, color: str
) -> None:
    mean, places = share.mean(axis=0), np.arange(share.shape[1])
    ax.bar(places, mean, width=0.72, color=color, alpha=0.85, zorder=2)
    if len(share) > 1:
        ends = np.stack([mean - share.min(axis=0), share.max(axis=0) - mean])
        label = f"lowest and highest of {len(share)} seeds"
        ax.errorbar(
            places, mean, ends, fmt="none", ecolor=INK, elinewidth=0.9, capsize=0, zorder=4, label=label
        )  # fmt: skip
    if pool is not None:
        ax.hlines(pool, places - 0.45, places + 0.45, color="black", linewidth=1.6, zorder=3, label="pool")


def _shares(name: str, counts: Any) -> npt.NDArray[np.float64]:
    given = numbers(counts)
    rows = np.zeros((0, 0)) if given is None else np.atleast_2d(given)
    if rows.ndim != 2 or not rows.size or not _are_counts(rows):
        raise ValueError(
            f"The counts of {name!r} are {counts!r}; needed are numbers of labels a class, (classes,) or "
            "(seeds, classes), none negative and not all 0. `numpy.bincount(targets, minlength=classes)` "
            "makes them."
        )
    share: npt.NDArray[np.float64] = rows / rows.sum(axis=1, keepdims=True)
    return share


def _are_counts(rows: npt.NDArray[np.float64]) -> bool:
    return bool(np.isfinite(rows).all() and (rows >= 0).all() and rows.any(axis=1).all())


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

"""Which strategy is beaten by which, as a matrix."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import numpy as np

from lightning_al.comparing.penalties import Penalties
from lightning_al.comparing.rows import Runs
from lightning_al.plotting.style import INK, folded, new_figure, root_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from lightning_al.comparing import Comparison


def penalty_matrix(
    penalties: Penalties | Comparison,
    metric: str | None = None,
    *,
    higher_is_better: bool | None = None,
    ax: Axes | None = None,
) -> Figure:
    """Which strategy is beaten by which, at what share of label counts; see `Comparison.penalties`.

    A row is the beaten one, a column the one that beats it; the last column is the row's mean: pale rows are
    good strategies, dark columns too.

    Args:
        penalties: Of a comparison, or the comparison.
        metric: Column of the comparison's rows; `None`: its `metric`.
        higher_is_better: As in `Comparison.summary`.
        ax: Where to draw; `None`: a figure of its own.

    Returns:
        The figure.

    Raises:
        ModuleNotFoundError: If matplotlib is not installed.
        TypeError: If `penalties` are neither penalties nor a comparison.
        ValueError: If the comparison has fewer than two seeds, or not the metric; or if penalties are given,
            and they are not of `metric`, or `higher_is_better` says how to count.

    Example:
        >>> from lightning_al import Comparison
        >>> rows = [{"strategy": name, "seed": seed, "round": r, "labeled": 10 + r, "acc": r * slope + seed}
        ...         for name, slope in (("Random", 0.1), ("Margin", 0.2)) for seed in (0, 1) for r in (0, 1)]
        >>> figure = penalty_matrix(Comparison.of_rows(rows))
        >>> [text.get_text() for text in figure.axes[0].texts]
        ['50 %', '50 %', '0 %', '0 %']
    """
    found = _counted(penalties, metric, higher_is_better)
    size = len(found.names)
    names = [folded(name, 2.4, 9.5) for name in found.names]
    longest = max(len(line) for name in names for line in name.split("\n"))
    side = 0.62 * (size + 1)
    shape = max(4.6, side + 0.09 * longest + 1.1), max(3.0, 0.8 * side + 0.09 * longest + 1)
    ax = new_figure(shape).subplots() if ax is None else ax
    values = np.concatenate([found.matrix, np.array([[found.means[name]] for name in found.names])], axis=1)
    shown = np.ma.masked_where(np.eye(size, size + 1, dtype=bool), values)
    ax.pcolormesh(
        np.arange(size + 1), np.arange(size + 1),
        shown[:, :size], cmap="Blues", vmin=0, vmax=1, edgecolors="white", linewidth=1.5,
    )  # fmt: skip
    ax.pcolormesh(
        [size + 0.25, size + 1.25], np.arange(size + 1), values[:, size:], cmap="Blues", vmin=0, vmax=1,
        edgecolors="white", linewidth=1.5,
    )  # fmt: skip
    for i in range(size):
        for j in range(size + 1):
            if i != j:
                x = j + 0.5 + 0.25 * (j == size)
                color = "white" if values[i, j] > 0.55 else INK
                ax.text(x, i + 0.5, f"{values[i, j]:.0%}".replace("%", " %"), ha="center", va="center",
                        color=color, fontsize=9.5)  # fmt: skip
    _label(ax, found, names, longest)
    return root_of(ax.figure)


def _counted(penalties: Any, metric: str | None, higher_is_better: bool | None) -> Penalties:
    if isinstance(penalties, Runs):
        comparison = cast("Comparison", penalties)
        return comparison.penalties(metric, higher_is_better=higher_is_better)
    if not isinstance(penalties, Penalties):
        raise TypeError(
            f"`penalties` is a {type(penalties).__name__}; needed is a comparison, or its `penalties()`. "
            "Pass what `compare` or `Comparison.load` returned."
        )
    if metric not in (None, penalties.metric) or higher_is_better is not None:
        raise ValueError(
            f"`metric` is {metric!r} and `higher_is_better` {higher_is_better}, but the penalties are "
            f"counted already, by {penalties.metric!r}; needed is a comparison to count by others. Pass it, "
            "or leave both out."
        )
    return penalties


def _label(ax: Axes, found: Penalties, names: list[str], longest: int) -> None:
    size = len(found.names)
    ax.set_xlim(0, size + 1.25)
    ax.set_ylim(size, 0)
    turn = 90 if any("\n" in name for name in names) else 35 if longest > 6 else 0
    ax.set_xticks(
        [*(np.arange(size) + 0.5), size + 0.75], [*names, "mean"], rotation=turn,
        ha="right" if turn else "center", va="center" if turn == 90 else "top", rotation_mode="anchor",
    )  # fmt: skip
    ax.set_yticks(np.arange(size) + 0.5, names)
    ax.set_xlabel("is beaten by", loc="left", color=INK)
    test = "paired t-test at 5 %".replace(" ", "\u00a0")  # not to be broken
    ax.set_title(
        f"{found.metric}: share of {found.counts} label counts, {found.seeds} seeds, {test}",
        loc="left", fontsize=9.5, color=INK, wrap=True,
    )  # fmt: skip
    ax.tick_params(colors=INK, length=0, labelsize=9.5)
    for side in ax.spines.values():
        side.set_visible(False)

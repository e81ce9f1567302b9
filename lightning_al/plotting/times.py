"""What a round's time goes into, for every strategy."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from lightning_al.comparing.rows import Runs
from lightning_al.plotting.given import grouped
from lightning_al.plotting.style import INK, calm, folded, new_figure, root_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from lightning_al.comparing import Comparison

#: Dark where a strategy makes the difference, pale where it does not.
_PARTS = {
    "train_s": ("train", "#C9D3DC"), "test_s": ("test", "#E4E8EC"), "score_s": ("score the pool", "#0072B2"),
    "select_s": ("select", "#D55E00"), "rest": ("all else", "#F2F2F2"),
}  # fmt: skip


def time_split(
    comparison: Comparison | Mapping[str, Any], *, heading: str | None = None, ax: Axes | None = None
) -> Figure:
    """What a round's time goes into: a bar for every strategy, means over its rounds that asked.

    Args:
        comparison: The comparison; or of every strategy one history or several.
        heading: Above all.
        ax: Where to draw; `None`: a figure of its own.

    Returns:
        The figure.

    Raises:
        ModuleNotFoundError: If matplotlib is not installed.
        TypeError: If `comparison` is none, and no histories by name either.
        ValueError: If no round asked for anything.

    Example:
        >>> from lightning_al import History
        >>> history = History([{"asked": 5, "train_s": 3.0, "score_s": 0.5, "select_s": 0.1}])
        >>> figure = time_split({"Margin": history})
        >>> [round(float(bar.get_width()), 2) for bar in figure.axes[0].patches]
        [3.0, 0.5, 0.1]
    """
    named = comparison.histories() if isinstance(comparison, Runs) else grouped("comparison", comparison)
    means = {name: _means(runs) for name, runs in named.items()}
    if not any(means.values()):
        raise ValueError(
            "No round has asked for labels, so there is no time to split. Needed are histories of "
            "`fit_rounds`, or a comparison, of one query or more."
        )
    names = [folded(name, 2.4, 9.5) for name in means]
    if ax is None:
        # Beside long names the bars keep the width that the legend above them needs.
        longest = max(len(line) for name in names for line in name.split("\n"))
        tall = sum(0.2 + 0.16 * len(name.split("\n")) for name in names)
        ax = new_figure((7.2 + 0.08 * max(0, longest - 10), 1.5 + tall)).subplots()
    places = np.arange(len(means))
    left = np.zeros(len(means))
    for part, (label, color) in _PARTS.items():
        wide = np.array([mean.get(part, 0.0) for mean in means.values()])
        if wide.any():
            ax.barh(places, wide, left=left, height=0.66, color=color, label=label, zorder=2)
            left += wide
    for place, total in zip(places, left, strict=True):
        ax.annotate(
            f"{total:.3g} s", (total, place), xytext=(5, 0), textcoords="offset points", va="center",
            fontsize=9.5, color=INK,
        )  # fmt: skip
    _label(ax, names, float(left.max()), heading)
    return root_of(ax.figure)


def _label(ax: Axes, names: list[str], longest: float, heading: str | None) -> None:
    ax.set_yticks(range(len(names)), names)
    ax.set_ylim(len(names) - 0.4, -0.6)
    ax.set_xlim(0, 1.1 * longest or 1.0)
    ax.set_xlabel("seconds of a round", loc="left", color=INK)
    calm(ax)
    ax.grid(axis="y", visible=False)
    ax.spines[["left"]].set_visible(False)
    if longest:
        ax.legend(
            loc="lower left", bbox_to_anchor=(0, 1.0), ncols=5, frameon=False, fontsize=9.5, labelcolor=INK,
            borderaxespad=0.3, handlelength=1.1, columnspacing=1.4,
        )  # fmt: skip
    if heading:
        ax.set_title(heading, loc="left", fontsize=12, color=INK, pad=28)


def _means(runs: list[Any]) -> dict[str, float]:
    """Seconds a part; what is left of the whole round, where that was measured."""
    rows = [row for run in runs for row in run.rows if row.get("asked", 0)]
    found = {}
    for column in ("train_s", "test_s", "score_s", "select_s", "round_s"):
        values = [row[column] for row in rows if row.get(column, np.nan) == row.get(column, np.nan)]
        if values:
            found[column] = float(np.mean(values))
    whole = found.pop("round_s", None)
    if whole is not None:
        found["rest"] = max(0.0, whole - sum(found.values()))
    return found

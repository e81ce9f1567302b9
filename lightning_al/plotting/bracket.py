"""The mark of what a strategy saved: how many labels fewer it needed to a target."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from numbers import Real
from statistics import median
from typing import TYPE_CHECKING, Any

from lightning_al.history import History
from lightning_al.plotting.style import INK
from lightning_al.reaching import labels_to_target

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def draw_saving(
    ax: Axes,
    grouped: Mapping[str, Sequence[History]],
    metric: str,
    target: float,
    saving: tuple[str, str],
    *,
    higher_is_better: bool = True,
) -> None:
    """A bracket on the target's line between the two medians, and what it means in words."""
    name, other = saving
    needed, base = (
        median(labels_to_target(run, metric, target, higher_is_better=higher_is_better) for run in grouped[n])
        for n in saving
    )
    counts = [n for runs in grouped.values() for run in runs for n in run.column("labeled")]
    first, last = min(counts), max(counts)
    left, right = sorted((min(needed, last), min(base, last)))
    neither = math.isinf(needed) and math.isinf(base)
    if left < right:
        ends = {"arrowstyle": "|-|,widthA=0.4,widthB=0.4", "shrinkA": 0, "shrinkB": 0}
        ax.annotate(
            "", (left, target), (right, target), zorder=5,
            arrowprops={**ends, "color": INK, "linewidth": 1.8},
        )  # fmt: skip
    # Before the curves reach the line nothing is beyond it; after, nothing is right before it.
    beyond, before = ((4, "bottom"), (-4, "top")) if higher_is_better else ((-4, "top"), (4, "bottom"))
    where: dict[str, Any] = {"xy": (right, target), "xytext": (8, before[0]), "va": before[1]}
    if neither or left - first > 0.35 * (last - first):
        free = {"xytext": (6, beyond[0]), "va": beyond[1]}
        where = {"xy": (0, target), "xycoords": ("axes fraction", "data"), **free}
    if where["va"] == "top":
        _make_room_below(ax, target)
    said = f"{_verdict(needed, base, last)}\n{name} {_count(needed, last)}, {other} {_count(base, last)}"
    ax.annotate(
        said, textcoords="offset points", fontsize=9.5, color=INK, linespacing=1.3, zorder=5, **where
    )  # fmt: skip


def _make_room_below(ax: Axes, target: float) -> None:
    """For two lines of words, which else lie on the axis where no value is below the target."""
    low, high = ax.get_ylim()
    ax.set_ylim(bottom=min(low, target - 0.2 * (high - target)))


def _count(labels: float, last: float) -> str:
    return f"> {last:g}" if math.isinf(labels) else f"{labels:g}"


def _verdict(needed: float, base: float, last: float) -> str:
    """In words: infinity is a median that never got there, and of two such none is known to be less."""
    if math.isinf(needed) and math.isinf(base):
        return "neither reached the target"
    if needed == base:
        return "no labels saved"
    saved = min(base, last) - min(needed, last)
    more = "more than " if math.isinf(max(needed, base)) else ""
    return f"{more}{saved:g} labels saved" if needed < base else f"{more}{-saved:g} labels more"


def check_saving(saving: tuple[str, str] | None, target: Any, names: Collection[str]) -> None:
    """An error if it names other strategies than there are, or has no target; or that is no number."""
    if target is not None and not (isinstance(target, Real) and math.isfinite(target)):
        raise ValueError(
            f"`target` is {target!r}; needed is a number in the units of the metric. Pass one, such as 0.9."
        )
    if saving is None or (target is not None and len(saving) == 2 and set(saving) <= set(names)):
        return
    raise ValueError(
        f"`saving` is {saving!r} and `target` {target!r}; needed are two of the names that have values, "
        f"{sorted(names)}, and a target that both are measured at. Pass both, or leave out `saving`."
    )

"""How many labels a run needed until a metric stayed at a target, and what a strategy saved by that."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from numbers import Real
from statistics import median
from typing import TYPE_CHECKING, Any

from lightning_al.history import History, reaches
from lightning_al.plotting.style import INK

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def labels_to_target(
    history: History, metric: str, target: float, *, rounds: int = 2, higher_is_better: bool = True
) -> float:
    """How many labels a run needed until a metric stayed at a target.

    The target counts as reached at the first of `rounds` consecutive rounds at or above it: one lucky
    round is not enough, and a last round that nothing confirms is not either.

    Args:
        history: Of one run.
        metric: Column of the history.
        target: In the metric's own units.
        rounds: How many rounds in a row.
        higher_is_better: Else the target is reached at or below it, as by a loss.

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
    check_metric([history], metric)
    labeled, in_a_row = history.column("labeled"), 0
    for place, value in enumerate(history.column(metric)):
        reached = reaches(value, target, higher_is_better=higher_is_better)
        in_a_row = in_a_row + 1 if reached else 0
        if in_a_row == rounds:
            return float(labeled[place - rounds + 1])
    return math.inf


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


def check_metric(every: Sequence[History], metric: str) -> None:
    """An error if no history has a value of it."""
    if not any(finite(history.column(metric)) for history in every):
        raise ValueError(
            f"No round of {every[0]} has a value of {metric!r}. Name one of its columns; test metrics are "
            "there if the data module has a test set and the module logs them in `test_step`."
        )


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


def finite(values: Sequence[Any]) -> list[Any]:
    """Those of a column that are numbers, and neither NaN nor infinite."""
    return [value for value in values if isinstance(value, Real) and math.isfinite(value)]

"""How every figure looks: colours, calm axes, long names in lines, and a figure where none is given."""

from __future__ import annotations

import itertools
import re
from collections.abc import Collection, Iterable
from textwrap import TextWrapper
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure, SubFigure

#: Okabe & Ito's palette, which stays apart under every form of colour blindness; without its pale yellow.
_PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
_MARKERS = ("o", "D", "^", "v", "P", "X")
BASELINE = "#7A7A7A"
INK = "#333333"
#: Letters of axes and legends, in points; and a legend beside its axes, in inches.
SMALL, LEGEND_WIDE = 9.5, 2.1
_FAINT = "#D9D9D9"


def styles_of(names: Collection[str], baseline: str) -> dict[str, tuple[str, str]]:
    """Colour and marker of each, the same in every figure that shows the same names in order.

    From the seventh on colours come again, with other markers.
    """
    count = len(_PALETTE)
    others = ((_PALETTE[n % count], _MARKERS[(n + n // count) % len(_MARKERS)]) for n in itertools.count())
    return {name: (BASELINE, "s") if name == baseline else next(others) for name in names}


def calm(ax: Axes) -> None:
    """Keep axes in the background: no frame, faint lines across."""
    ax.spines[["top", "right"]].set_visible(False)
    ax.spines[["left", "bottom"]].set_color(_FAINT)
    ax.tick_params(colors=INK, length=0, labelsize=9.5)
    ax.grid(axis="y", color=_FAINT, linewidth=0.6)
    ax.set_axisbelow(True)


def percent_ticks() -> Any:
    """Formatter of an axis whose values lie between 0 and 1."""
    from matplotlib.ticker import PercentFormatter

    return PercentFormatter(xmax=1, decimals=0, symbol=" %")


class _Folder(TextWrapper):
    """Breaks names of strategies and metrics too, which are words without a blank."""

    wordsep_simple_re = re.compile(r"(\s+)|(?<=[(_/])")


def folded(text: str, inches: float, size: float) -> str:
    """A long name in lines of at most so many inches, in letters of `size` points."""
    letters = max(8, int(inches * 72 / (0.57 * size)))  # DejaVu's are 0.57 of their size wide on average
    return "\n".join(_Folder(letters, break_on_hyphens=False).wrap(text)) or text


def legend_tall(names: Iterable[str]) -> float:
    """Inches of a legend of these names beside its axes, with a title of two lines."""
    more = [folded(name, LEGEND_WIDE, SMALL).count("\n") for name in names]
    return 0.7 + 0.22 * len(more) + 0.16 * sum(more)


def draw_legend(ax: Axes, title: Iterable[str], **place: Any) -> None:
    """Names of what is drawn, and a title, both in lines that fit beside the axes."""
    handles, names = ax.get_legend_handles_labels()
    legend = ax.legend(
        handles, [folded(name, LEGEND_WIDE, SMALL) for name in names], **place, frameon=False,
        title="\n".join(folded(line, LEGEND_WIDE, 9) for line in title) or None,
        fontsize=SMALL, title_fontsize=9, labelcolor=INK, alignment="left",
    )  # fmt: skip
    legend.get_title().set_color(INK)


def told_of_seeds(sizes: Collection[int], band: str | None) -> list[str]:
    """What lines and bands are of, for a legend's title; nothing where every strategy has one run."""
    if max(sizes) < 2:
        return []
    seeds = f"{min(sizes)} to {max(sizes)}" if min(sizes) < max(sizes) else f"{max(sizes)}"
    return [f"median of {seeds} seeds", *([f"band: {band}"] if band else [])]


def new_figure(size: tuple[float, float]) -> Figure:
    """With a layout that keeps labels apart; without `pyplot`, so nothing of it stays in memory."""
    try:
        from matplotlib.figure import Figure
        from matplotlib.layout_engine import ConstrainedLayoutEngine
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "Drawing needs matplotlib, which is not installed. `pip install lightning-al[plot]`, or draw the "
            "columns of `history.rows` with what you have."
        ) from error
    return Figure(figsize=size, layout=ConstrainedLayoutEngine(w_pad=0.1, h_pad=0.1), dpi=150)


def width_of(figure: Figure | SubFigure) -> float:
    """In inches."""
    return figure.bbox.width / root_of(figure).dpi


def root_of(figure: Figure | SubFigure) -> Figure:
    """The whole figure: what has `savefig`."""
    root: Figure = figure.figure
    return root

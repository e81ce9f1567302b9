"""Histories as a run leaves them, and the curves drawn of them."""

from matplotlib.text import Text
from matplotlib.transforms import Bbox

from lightning_al import History


def history(*values, first=10, step=10, metric="test_acc"):
    return History(
        [{"round": r, "labeled": first + step * r, metric: value} for r, value in enumerate(values)]
    )


SEEDS = [history(0.1, 0.5, 0.9), history(0.2, 0.5, 0.6), history(0.3, 0.4, 0.7), history(0.4, 0.9, 0.8)]


def lines_of(ax):
    return {line.get_label(): line for line in ax.get_lines() if not line.get_label().startswith("_")}


#: Names as `compare` makes them, and of classes.
LONG = (
    "Random",
    "PowerSampling(Margin(multilabel=False, reduction='mean'), beta=1.0)",
    "BatchBALD(MCDropout(passes=50, masks='shared'))",
)
CLASSES = ("pneumonia bacterial", "pneumonia viral", "normal")


def illegible(figure):
    """What is written beyond the figure's edges, and pairs of words that overlap; their lines may touch."""
    figure.draw_without_rendering()
    out_of_sight = {label for ax in figure.axes for label in _undrawn(ax.xaxis) | _undrawn(ax.yaxis)}
    texts = [text for text in figure.findobj(Text) if text.get_visible() and text not in out_of_sight]
    whole = figure.bbox
    found = [(t.get_text(), t.get_window_extent().padded(-1)) for t in texts if t.get_text().strip()]
    cut = [text for text, box in found if (Bbox.union([box, whole]).extents != whole.extents).any()]
    return cut + [(a, b) for n, (a, one) in enumerate(found) for b, other in found[:n] if one.overlaps(other)]


def _undrawn(axis):
    """Labels of ticks that matplotlib keeps beyond the ends of the axis."""
    low, high = sorted(axis.get_view_interval())
    return {tick.label1 for tick in axis.get_major_ticks() if not low <= tick.get_loc() <= high}

"""Bars show the counts, under their names and heading."""

import numpy as np
import pytest
from matplotlib.colors import to_hex

from lightning_al.plotting import class_balance
from lightning_al.plotting.style import BASELINE
from unit.plotting.runs import CLASSES, LONG, illegible


def heights(ax):
    return [bar.get_height() for bar in ax.patches]


def test_bars_are_mean_shares_and_whiskers_reach_the_seeds():
    figure = class_balance({"Random": [10, 30], "Margin": [[1, 3], [8, 2]]}, pool=[50, 150])
    random, margin = figure.axes
    assert (random.get_title("left"), margin.get_title("left")) == ("Random", "Margin")
    np.testing.assert_allclose(heights(random), [0.25, 0.75])
    np.testing.assert_allclose(heights(margin), [(0.25 + 0.8) / 2, (0.75 + 0.2) / 2])
    pool, whiskers = (
        next(c for c in margin.collections if c.get_label() == "pool"),
        next(c for c in margin.collections if c.get_label() != "pool"),
    )
    assert [segment[0, 1] for segment in pool.get_segments()] == [0.25, 0.75]
    np.testing.assert_allclose([s[:, 1] for s in whiskers.get_segments()], [[0.25, 0.8], [0.2, 0.75]])


def test_classes_have_their_names_under_every_panel():
    figure = class_balance({"Random": [1, 1], "Margin": [2, 1]}, class_names=["cat", "dog"])
    for ax in figure.axes:
        assert [text.get_text() for text in ax.get_xticklabels()] == ["cat", "dog"]


@pytest.mark.parametrize("heading", [None, "Classes of the labels"])
def test_heading_is_above_all_and_the_legend_beside_the_word_class(heading):
    counts = {"Random": [[1, 3], [8, 2]], "Margin": [[2, 3], [1, 2]]}
    figure = class_balance(counts, pool=[1, 1], heading=heading)
    figure.draw_without_rendering()
    first, last = figure.axes
    top = first._left_title.get_window_extent().y1
    if heading is None:
        assert top > 0.93 * figure.bbox.height  # no empty row above the panels
    else:
        assert figure.get_suptitle() == heading
        assert figure._suptitle.get_window_extent().y0 > top
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.texts] == ["pool", "lowest and highest of 2 seeds"]
    place, word = legend.get_window_extent(), first.xaxis.label.get_window_extent()
    assert place.x0 > word.x1
    assert (place.y0, place.y1) == pytest.approx((word.y0, word.y1), abs=3)
    assert place.y1 < min(tick.get_window_extent().y0 for tick in last.get_xticklabels())


@pytest.mark.parametrize(
    ("counts", "options", "message"),
    [
        ({}, {}, "needed is one strategy or more"),
        ({"A": [1, 2], "B": [1, 2, 3]}, {}, r"'A': 2, 'B': 3"),
        ({"A": [1, 2]}, {"pool": [1, 2, 3]}, r"'pool': 3"),
        ({"A": [1, 2]}, {"class_names": ["one"]}, r"'class_names': 1"),
        ({"A": [1, -2]}, {}, "none negative"),
        ({"A": [[1, 2], [0, 0]]}, {}, "not all 0"),
        ({"A": []}, {}, "numbers of labels a class"),
        ({"A": {0: 3}}, {}, r"The counts of 'A' are \{0: 3\}; needed are numbers of labels"),
        ({"A": "many"}, {}, "The counts of 'A' are 'many'"),
        ({"A": [[1, 2], [3]]}, {}, "numbers of labels a class"),
        ({"A": [1, float("inf")]}, {}, "numbers of labels a class"),
        ({"A": [1, 2]}, {"pool": {0: 3}}, "The counts of 'pool'"),
        ({"A": [1, 2]}, {"baseline": "B"}, r"`baseline` is 'B'; needed is one of \['A'\]"),
    ],
)
def test_wrong_counts_are_named(counts, options, message):
    with pytest.raises(ValueError, match=message):
        class_balance(counts, **options)


@pytest.mark.parametrize("wrong", [[1, 2, 3], None, 3])
def test_counts_that_are_not_by_strategy_are_named(wrong):
    with pytest.raises(TypeError, match=r"`counts` is a .*; needed is a mapping from names to counts, or a"):
        class_balance(wrong)


def test_a_baseline_is_grey_and_the_usual_one_need_not_be_there():
    bar = class_balance({"A": [1, 2]}, baseline="A").axes[0].patches[0]
    assert to_hex(bar.get_facecolor()) == BASELINE.lower()
    assert class_balance({"A": [1, 2]}).axes[0].patches


@pytest.mark.parametrize("names", [(*LONG, "Margin", "Entropy", "BADGE"), ("Random", LONG[1])])
@pytest.mark.parametrize("classes", [CLASSES, ["airplane", "automobile", "bird", "cat", "deer", "dog"]])
def test_long_names_are_whole_and_apart(names, classes):
    counts = {name: [range(1, len(classes) + 1)] * 2 for name in names}
    figure = class_balance(counts, pool=[1] * len(classes), class_names=classes, heading="Classes")
    assert not illegible(figure)

"""A saving is marked as measured."""

import math

import pytest

from lightning_al.plotting import learning_curves
from unit.plotting.runs import history


@pytest.mark.parametrize(
    ("margin", "random", "said", "ends"),
    [
        ((0.5, 0.9, 0.9, 0.9, 0.9), (0.5, 0.6, 0.7, 0.9, 0.9), "20 labels saved\nM 20, R 40", (20, 40)),
        ((0.5, 0.6, 0.7, 0.9, 0.9), (0.5, 0.9, 0.9, 0.9, 0.9), "20 labels more\nM 40, R 20", (20, 40)),
        ((0.5, 0.9, 0.9, 0.9, 0.9), (0.5,) * 5, "more than 30 labels saved\nM 20, R > 50", (20, 50)),
        ((0.5,) * 5, (0.9,) * 5, "more than 40 labels more\nM > 50, R 10", (10, 50)),
        ((0.9,) * 5, (0.9,) * 5, "no labels saved\nM 10, R 10", None),
        ((0.5,) * 5, (0.5,) * 5, "neither reached the target\nM > 50, R > 50", None),
    ],
)
def test_saving_is_marked_as_measured_good_or_bad(margin, random, said, ends):
    runs = {"R": history(*random), "M": history(*margin)}
    ax = learning_curves(runs, "test_acc", target=0.9, saving=("M", "R"), baseline="R").axes[0]
    texts = [text for text in ax.texts if text.get_text()]
    assert [text.get_text() for text in texts] == [said]
    brackets = [text for text in ax.texts if not text.get_text()]
    assert [(b.xy[0], b.xyann[0]) for b in brackets] == ([] if ends is None else [ends])
    assert all(b.xy[1] == b.xyann[1] == 0.9 for b in brackets)


@pytest.mark.parametrize("options", [{}, {"higher_is_better": False}])
def test_saving_of_a_metric_that_falls(options):
    name = "test_x" if options else "test_loss"
    runs = {
        "R": history(0.9, 0.8, 0.7, 0.3, 0.3, metric=name), "M": history(0.9, 0.3, 0.3, 0.2, 0.2, metric=name)
    }  # fmt: skip
    ax = learning_curves(runs, name, target=0.4, saving=("M", "R"), baseline="R", **options).axes[0]
    assert "20 labels saved\nM 20, R 40" in [text.get_text() for text in ax.texts]


def test_a_target_that_is_no_number_is_named():
    for target in ("random", math.nan):
        with pytest.raises(ValueError, match=r"`target` is .*; needed is a number"):
            learning_curves({"R": history(0.5, 0.9)}, "test_acc", target=target)


def test_saving_takes_the_median_of_the_seeds_with_misses_as_infinity():
    reached, missed = history(0.5, 0.9, 0.9, 0.9), history(0.5, 0.5, 0.5, 0.5)
    runs = {"Random": [missed, missed, reached], "Margin": [reached, reached, missed]}
    ax = learning_curves(runs, "test_acc", target=0.9, saving=("Margin", "Random")).axes[0]
    assert "more than 20 labels saved\nMargin 20, Random > 40" in [text.get_text() for text in ax.texts]


@pytest.mark.parametrize(("random", "margin"), [((0.9, 0.95, 0.96), (0.9, 0.96, 0.97)), ((0.9,), (0.97,))])
def test_the_note_does_not_lie_on_the_axis(random, margin):
    runs = {"R": history(*random), "M": history(*margin)}
    figure = learning_curves(runs, "test_acc", target=0.9, saving=("M", "R"), baseline="R")
    figure.draw_without_rendering()
    ax = figure.axes[0]
    (note,) = (text for text in ax.texts if text.get_text())
    assert note.get_window_extent().y0 > ax.get_window_extent().y0

"""What the figures show is what was measured."""

import builtins
import math

import numpy as np
import pytest
import torch
from matplotlib.colors import to_hex
from matplotlib.figure import Figure

from lightning_al import History
from lightning_al.plotting import class_balance, labels_to_target, learning_curves, selected_samples


def history(*values, first=10, step=10, metric="test_acc"):
    return History(
        [{"round": r, "labeled": first + step * r, metric: value} for r, value in enumerate(values)]
    )


# ---------------------------------------------------------------------- labels to a target


@pytest.mark.parametrize(
    ("values", "labels"),
    [
        ((0.5, 0.9, 0.9, 0.9), 20),  # the first of two, not the second
        ((0.9, 0.9), 10),
        ((0.5, 0.95, 0.8, 0.9, 0.91), 40),  # one lucky round does not count
        ((0.5, 0.6, 0.7, 0.95), math.inf),  # nothing confirms the last round
        ((0.9, 0.8, 0.9, 0.8), math.inf),
        ((0.9, float("nan"), 0.9, 0.9), 30),  # a round without a value breaks the row
        ((0.5, 0.92, 0.93, 0.1), 20),  # what comes later does not undo it
        ((0.9,), math.inf),
    ],
)
def test_target_is_reached_at_the_first_of_two_rounds_in_a_row(values, labels):
    assert labels_to_target(history(*values), "test_acc", 0.9) == labels


def test_number_of_rounds_in_a_row_can_be_chosen():
    run = history(0.9, 0.5, 0.9, 0.9, 0.9)
    assert [labels_to_target(run, "test_acc", 0.9, rounds=n) for n in (1, 2, 3, 4)] == [10, 30, 30, math.inf]


def test_labels_are_those_of_the_history_not_counted_rounds():
    assert labels_to_target(history(0.1, 0.9, 0.9, first=7, step=13), "test_acc", 0.9) == 20


def test_wrong_arguments_of_the_rule_are_named():
    with pytest.raises(ValueError, match=r"'test_f1'.*Name one of its columns"):
        labels_to_target(history(0.9), "test_f1", 0.9)
    with pytest.raises(ValueError, match="`rounds` is 0"):
        labels_to_target(history(0.9), "test_acc", 0.9, rounds=0)


# ---------------------------------------------------------------------- learning curves


SEEDS = [history(0.1, 0.5, 0.9), history(0.2, 0.5, 0.6), history(0.3, 0.4, 0.7), history(0.4, 0.9, 0.8)]


def lines_of(ax):
    return {line.get_label(): line for line in ax.get_lines() if not line.get_label().startswith("_")}


def band_of(ax, number=0):
    """Lowest and highest of the band at every x."""
    corners = ax.collections[number].get_paths()[0].vertices
    xs = sorted(set(corners[:, 0]))
    return {x: (corners[corners[:, 0] == x, 1].min(), corners[corners[:, 0] == x, 1].max()) for x in xs}


def test_curve_is_the_median_over_seeds_against_labels():
    ax = learning_curves({"Random": SEEDS[:3], "Margin": SEEDS}, "test_acc").axes[0]
    lines = lines_of(ax)
    assert list(lines) == ["Random", "Margin"]
    assert lines["Random"].get_xdata().tolist() == [10, 20, 30]
    np.testing.assert_allclose(lines["Random"].get_ydata(), [0.2, 0.5, 0.7])
    np.testing.assert_allclose(lines["Margin"].get_ydata(), [0.25, 0.5, 0.75])


@pytest.mark.parametrize(("bands", "low", "high"), [("quartiles", 0.175, 0.325), ("range", 0.1, 0.4)])
def test_band_holds_the_seeds_it_names(bands, low, high):
    ax = learning_curves({"Margin": SEEDS}, "test_acc", bands=bands).axes[0]
    np.testing.assert_allclose(band_of(ax)[10], (low, high))
    title = ax.get_legend().get_title().get_text()
    assert "4 seeds" in title
    assert {"quartiles": "quartiles", "range": "lowest to highest"}[bands] in title


def test_bands_are_left_out_for_one_seed_on_request_and_beside_the_emphasis():
    assert not learning_curves({"Margin": SEEDS[0]}, "test_acc").axes[0].collections
    assert not learning_curves({"Margin": SEEDS}, "test_acc", bands=None).axes[0].collections
    both = learning_curves({"Random": SEEDS, "Margin": SEEDS}, "test_acc", emphasize=["Margin"]).axes[0]
    assert len(both.collections) == 1
    assert to_hex(both.collections[0].get_facecolor()) == to_hex(lines_of(both)["Margin"].get_color())


def test_seeds_of_unequal_length_count_where_they_have_a_value():
    runs = [history(0.1, 0.2), history(0.3, 0.4, 0.9), history(0.5, float("nan"))]
    line = lines_of(learning_curves({"Margin": runs}, "test_acc").axes[0])["Margin"]
    assert line.get_xdata().tolist() == [10, 20, 30]
    np.testing.assert_allclose(line.get_ydata(), [0.3, 0.3, 0.9])


def test_axes_are_labelled_and_end_at_the_budget():
    ax = learning_curves({"Margin": SEEDS}, "test_acc").axes[0]
    assert ax.get_xlabel() == "labels"
    assert ax.get_ylabel() == "test accuracy"
    assert ax.get_xticks().tolist() == [10, 20, 30]
    assert ax.yaxis.get_major_formatter()(0.9, 0) == "90 %"
    assert ax.get_ylim()[1] == 1


def test_a_loss_is_not_shown_in_percent():
    ax = learning_curves({"Margin": history(0.9, 0.4, metric="test_loss")}, "test_loss").axes[0]
    assert ax.get_ylabel() == "test loss"
    assert "%" not in ax.yaxis.get_major_formatter()(0.5, 0)


@pytest.mark.parametrize(
    ("margin", "random", "said", "ends"),
    [
        ((0.5, 0.9, 0.9, 0.9, 0.9), (0.5, 0.6, 0.7, 0.9, 0.9), "20 labels saved\nM 20, R 40", (20, 40)),
        ((0.5, 0.6, 0.7, 0.9, 0.9), (0.5, 0.9, 0.9, 0.9, 0.9), "20 labels more\nM 40, R 20", (20, 40)),
        ((0.5, 0.9, 0.9, 0.9, 0.9), (0.5,) * 5, "more than 30 labels saved\nM 20, R > 50", (20, 50)),
        ((0.5,) * 5, (0.9,) * 5, "more than 40 labels more\nM > 50, R 10", (10, 50)),
        ((0.9,) * 5, (0.9,) * 5, "no labels saved\nM 10, R 10", None),
        ((0.5,) * 5, (0.5,) * 5, "no labels saved\nM > 50, R > 50", None),
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


def test_saving_takes_the_median_of_the_seeds_with_misses_as_infinity():
    reached, missed = history(0.5, 0.9, 0.9, 0.9), history(0.5, 0.5, 0.5, 0.5)
    runs = {"Random": [missed, missed, reached], "Margin": [reached, reached, missed]}
    ax = learning_curves(runs, "test_acc", target=0.9, saving=("Margin", "Random")).axes[0]
    assert "more than 20 labels saved\nMargin 20, Random > 40" in [text.get_text() for text in ax.texts]


def test_strategies_differ_in_colour_and_marker_and_the_baseline_is_grey():
    names = ["Random", "A", "B", "C", "D", "E", "F"]
    lines = lines_of(learning_curves(dict.fromkeys(names, SEEDS), "test_acc").axes[0])
    assert len({line.get_color() for line in lines.values()}) == len(names)
    assert len({line.get_marker() for line in lines.values()}) == len(names)
    red, green, blue = (int(lines["Random"].get_color()[i : i + 2], 16) for i in (1, 3, 5))
    assert red == green == blue


def test_given_axes_are_drawn_on_and_nothing_else():
    figure = Figure()
    inner, other = figure.subfigures(1, 2)
    ax = inner.subplots()
    assert learning_curves({"Margin": SEEDS}, "test_acc", ax=ax) is figure
    assert lines_of(ax)
    assert not other.axes


def test_wrong_histories_are_named():
    with pytest.raises(ValueError, match="no run of \\['Margin'\\]"):
        learning_curves({"Random": SEEDS, "Margin": []}, "test_acc")
    with pytest.raises(ValueError, match="no run of any strategy"):
        learning_curves({}, "test_acc")
    with pytest.raises(ValueError, match="'val_acc'"):
        learning_curves({"Random": SEEDS}, "val_acc")
    for options in (
        {"saving": ("Margin", "Random"), "target": 0.9},
        {"saving": ("Random", "Random")},
    ):
        with pytest.raises(ValueError, match="`saving` is"):
            learning_curves({"Random": SEEDS}, "test_acc", **options)


# ---------------------------------------------------------------------- class balance


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


def test_a_strategy_has_the_same_colour_in_curves_and_balance():
    names = ["Random", "Margin", "Entropy"]
    lines = lines_of(learning_curves(dict.fromkeys(names, SEEDS), "test_acc").axes[0])
    panels = class_balance({name: [1, 1] for name in names}).axes
    for name, ax in zip(names, panels, strict=True):
        assert to_hex(ax.patches[0].get_facecolor()) == to_hex(lines[name].get_color())


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
    ],
)
def test_wrong_counts_are_named(counts, options, message):
    with pytest.raises(ValueError, match=message):
        class_balance(counts, **options)


# ---------------------------------------------------------------------- selected samples


def test_images_stand_in_the_order_of_choice_with_title_and_score():
    images = torch.arange(6.0).reshape(6, 1, 1, 1).expand(6, 1, 4, 4)
    figure = selected_samples(
        images, [0.9, 0.8, 0.7, 0.6, 0.5, math.nan], list("abcdef"), columns=4, decimals=1
    )
    assert len(figure.axes) == 6
    assert [float(ax.images[0].get_array().max()) for ax in figure.axes] == [0, 1, 2, 3, 4, 5]
    assert [ax.get_title() for ax in figure.axes] == ["a\n0.9", "b\n0.8", "c\n0.7", "d\n0.6", "e\n0.5", "f"]
    assert {ax.images[0].get_clim() for ax in figure.axes} == {(0, 5)}


@pytest.mark.parametrize(
    ("shape", "shown"),
    [
        ((4, 5), (4, 5)),
        ((1, 4, 5), (4, 5)),
        ((4, 5, 1), (4, 5)),
        ((3, 4, 5), (4, 5, 3)),
        ((4, 5, 3), (4, 5, 3)),
    ],
)
@pytest.mark.parametrize("make", [np.ones, torch.ones])
def test_grey_and_coloured_images_of_either_order_are_shown(shape, shown, make):
    figure = selected_samples([make(shape)], [0.5])
    assert figure.axes[0].images[0].get_array().shape == shown


def test_wrong_images_are_named():
    with pytest.raises(ValueError, match=r"shape \(2, 8, 9\)"):
        selected_samples(torch.ones(1, 2, 8, 9), [0.5])
    with pytest.raises(ValueError, match=r"2 images, and \{'scores': 1, 'titles': 3\}"):
        selected_samples(torch.ones(2, 8, 9), [0.5], ["a", "b", "c"])
    with pytest.raises(ValueError, match="0 images"):
        selected_samples([], [])
    with pytest.raises(ValueError, match="`columns` is 0"):
        selected_samples(torch.ones(2, 8, 9), [0.5, 0.5], columns=0)


# ---------------------------------------------------------------------- all of them


def test_figures_are_written_without_a_display(tmp_path):
    learning_curves(
        {"Random": SEEDS, "Margin": SEEDS}, "test_acc", target=0.5, saving=("Margin", "Random")
    ).savefig(tmp_path / "curves.png")
    class_balance({"Random": [1, 2]}, pool=[1, 1]).savefig(tmp_path / "balance.png")
    selected_samples(torch.rand(7, 8, 8), [0.5] * 7, heading="first").savefig(tmp_path / "first.png")
    assert all(path.stat().st_size > 5_000 for path in tmp_path.iterdir())
    assert len(list(tmp_path.iterdir())) == 3


def test_missing_matplotlib_is_told_with_the_way_out(monkeypatch):
    real = builtins.__import__

    def without(name, *args, **kwargs):
        if name.startswith("matplotlib"):
            raise ModuleNotFoundError(f"No module named {name!r}")
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    for draw in (
        lambda: learning_curves({"Margin": SEEDS}, "test_acc"),
        lambda: class_balance({"Margin": [1, 2]}),
        lambda: selected_samples(torch.ones(1, 8, 8), [0.5]),
    ):
        with pytest.raises(ModuleNotFoundError, match=r"needs matplotlib.*pip install lightning-al\[plot\]"):
            draw()
    assert labels_to_target(SEEDS[0], "test_acc", 0.9) == math.inf

"""Curves and bands show what was measured."""

import numpy as np
import pytest
from matplotlib.colors import to_hex
from matplotlib.figure import Figure

from lightning_al import History
from lightning_al.plotting import learning_curves
from lightning_al.plotting.style import BASELINE, styles_of
from unit.plotting.runs import LONG, SEEDS, history, illegible, lines_of


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


@pytest.mark.parametrize("heights", [(0.5, 0.95), (0.95, 0.5), (0.2, 0.22)])
@pytest.mark.parametrize("number", [2, 14])
def test_the_legend_hides_no_curve(number, heights):
    runs = {f"Strategy {n}": [history(*(h + n / 50 for h in heights))] * 2 for n in range(number)}
    figure = learning_curves(runs, "test_acc")
    figure.draw_without_rendering()
    ax = figure.axes[0]
    assert ax.get_legend().get_window_extent().x0 > ax.get_window_extent().x1
    assert ax.get_legend().get_window_extent().x1 <= figure.bbox.x1


def test_what_are_no_histories_is_named():
    with pytest.raises(TypeError, match=r"`histories` is a list; needed is a mapping"):
        learning_curves([SEEDS[0]], "test_acc")
    for wrong in ("a", None, [SEEDS[0], 3]):
        with pytest.raises(TypeError, match=r"no history: .*; needed is a `History`"):
            learning_curves({"Random": wrong}, "test_acc")


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


def test_a_dozen_strategies_are_told_apart_by_colour_and_marker():
    names = ["Random", *(f"strategy {n}" for n in range(30))]
    styles = styles_of(names, "Random")
    assert len(set(styles.values())) == len(names)
    assert {colour for colour, _ in list(styles.values())[1:7]} == {c for c, _ in list(styles.values())[7:13]}


def test_a_run_without_values_is_left_out_by_name():
    diverged = history(*[float("nan")] * 3)
    known = [{**row, "seed": 7} for row in diverged]
    runs = {"Random": SEEDS, "A": [SEEDS[0], diverged, History(known)], "B": [diverged]}
    ax = learning_curves(runs, "test_acc").axes[0]
    lines = lines_of(ax)
    assert list(lines) == ["Random", "A"]
    np.testing.assert_allclose(lines["A"].get_ydata(), [0.1, 0.5, 0.9])
    assert lines["A"].get_color() == styles_of(runs, "Random")["A"][0]
    title = ax.get_legend().get_title().get_text().split("\n")
    assert title[0] == "median of 1 to 4 seeds"
    assert title[2:] == ["left out, without values:", "A, seed 1", "A, seed 7", "B"]
    with pytest.raises(ValueError, match=r"two of the names that have values, \['A', 'Random'\]"):
        learning_curves(runs, "test_acc", target=0.5, saving=("B", "Random"))


@pytest.mark.parametrize("options", [{}, {"percent": True}])
def test_an_accuracy_of_0_to_100_is_shown_in_plain_numbers(options):
    ax = learning_curves({"Margin": history(50.0, 70.0)}, "test_acc", target=60, **options).axes[0]
    ax.figure.draw_without_rendering()
    assert "70.0" in [text.get_text() for text in ax.get_yticklabels()]
    low, high = ax.get_ylim()
    assert low < 50 < 70 < high
    hair = learning_curves({"Margin": history(0.5, 1.0000001)}, "test_acc").axes[0]  # a mean in float32
    assert hair.yaxis.get_major_formatter()(0.9, 0) == "90 %"


def test_a_target_below_all_values_is_in_sight():
    ax = learning_curves({"Margin": SEEDS}, "test_acc", target=0.02).axes[0]
    assert ax.get_ylim()[0] < 0.02


def test_infinite_values_are_gaps_and_do_not_fail():
    """A loss may overflow in some seeds; the rest of the run is worth looking at."""
    inf = float("inf")
    runs = [history(2.0, inf, 1.0, metric="loss"), history(3.0, inf, 1.5, metric="loss")]
    figure = learning_curves({"Margin": runs}, "loss")
    figure.canvas.draw()
    assert lines_of(figure.axes[0])["Margin"].get_ydata().tolist() == [2.5, inf, 1.25]


def test_bands_that_are_none_are_named():
    with pytest.raises(ValueError, match=r"`bands` is 'foo'; needed is one of \['quartiles', 'range'\]"):
        learning_curves({"Margin": SEEDS}, "test_acc", bands="foo")


@pytest.mark.parametrize("emphasize", [["typo"], ["Margin", "typo"], "Margin", 3])
def test_an_emphasis_on_what_is_not_there_is_named(emphasize):
    with pytest.raises(
        ValueError, match=r"`emphasize` is .*; needed is a list of some of \['Random', 'Margin'"
    ):
        learning_curves({"Random": SEEDS, "Margin": SEEDS}, "test_acc", emphasize=emphasize)


def test_a_baseline_that_is_not_there_is_a_mistake_if_it_was_asked_for():
    with pytest.raises(ValueError, match=r"`baseline` is 'typo'; needed is one of \['Margin', 'chance'\]"):
        learning_curves({"Margin": SEEDS, "chance": SEEDS}, "test_acc", baseline="typo")
    lines = lines_of(learning_curves({"Margin": SEEDS}, "test_acc").axes[0])
    assert lines["Margin"].get_color() != BASELINE


@pytest.mark.parametrize("number", [1, 4])
def test_long_names_leave_the_curves_their_room(number):
    names = [f"{name} {n}" for n in range(number) for name in LONG]
    figure = learning_curves(dict.fromkeys(names, SEEDS), "test_acc")
    assert not illegible(figure)
    assert figure.axes[0].get_window_extent().width > 0.55 * figure.bbox.width
    assert list(lines_of(figure.axes[0])) == names


@pytest.mark.parametrize("count", [9, 14, 20])
@pytest.mark.parametrize("first", [10, 10_000])
def test_label_counts_do_not_run_together(first, count):
    run = history(*np.linspace(0.1, 0.9, count), first=first, step=first // 10)
    figure = learning_curves(dict.fromkeys(LONG, run), "test_acc")
    assert not illegible(figure)
    if count <= 14:
        assert figure.axes[0].get_xticks()[-1] == first + (count - 1) * (first // 10)


def test_uneven_label_counts_do_not_run_together():
    doubled = History([{"labeled": 10 * 2**n, "test_acc": n / 10} for n in range(9)])
    assert not illegible(learning_curves({"Margin": doubled}, "test_acc"))

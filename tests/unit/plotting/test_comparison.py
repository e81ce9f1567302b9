"""Pictures of a comparison show its numbers."""

from pathlib import Path

import numpy as np
import pytest
from matplotlib.colors import to_hex

from lightning_al import Comparison, History
from lightning_al.comparing.settings import Run
from lightning_al.comparing.table import RunTable
from lightning_al.plotting import (
    class_balance,
    class_balance_by_round,
    learning_curves,
    penalty_matrix,
    time_split,
)
from lightning_al.plotting.style import BASELINE
from unit.plotting.runs import CLASSES, LONG, SEEDS, illegible, lines_of

COUNTS = {"Random": [[9, 9], [5, 5], [5, 5]], "Entropy": [[9, 9], [8, 2], [10, 0]]}


def comparison(seeds=2, **more):
    return Comparison.of_rows(
        [
            {"strategy": name, "seed": seed, "round": r, "labeled": 10 + 10 * r, "asked": 5, **more}
            | {"test_acc": height + r / 10 + seed / 100}
            for name, height in (("chance", 0.5), ("Margin", 0.6))
            for seed in range(seeds)
            for r in range(3)
        ],
        baseline="chance",
    )


def test_curves_of_a_comparison_are_those_of_its_runs_with_its_baseline():
    lines = lines_of(learning_curves(comparison()).axes[0])
    assert list(lines) == ["chance", "Margin"]
    assert lines["chance"].get_color() == BASELINE
    np.testing.assert_allclose(lines["Margin"].get_ydata(), [0.605, 0.705, 0.805])
    with pytest.raises(ValueError, match="only a comparison knows"):
        learning_curves({"Random": SEEDS})


def test_penalties_are_written_into_their_cells_and_shaded():
    figure = penalty_matrix(comparison(seeds=3))
    (ax,) = figure.axes
    # Margin is ahead by the same everywhere, so beats chance at every label count.
    assert [(t.get_position(), t.get_text()) for t in ax.texts] == [
        ((1.5, 0.5), "100 %"), ((2.75, 0.5), "100 %"), ((0.5, 1.5), "0 %"), ((2.75, 1.5), "0 %"),
    ]  # fmt: skip
    cells, means = ax.collections
    assert cells.get_array().filled(-1).tolist() == [[-1, 1], [0, -1]]
    assert means.get_array().ravel().tolist() == [1, 0]
    assert "3 label counts, 3 seeds" in ax.get_title(loc="left")


def test_penalties_are_by_the_metric_and_in_the_way_that_is_asked_for():
    found = comparison(seeds=3, test_f1=0.5)
    penalties = found.penalties("test_acc", higher_is_better=False)
    (ax,) = penalty_matrix(found, "test_acc", higher_is_better=False).axes
    assert [t.get_text() for t in ax.texts] == ["0 %", "0 %", "100 %", "100 %"]
    assert [t.get_text() for t in penalty_matrix(penalties, "test_acc").axes[0].texts] == [
        t.get_text() for t in ax.texts
    ]
    for wrong in ({"metric": "test_f1"}, {"higher_is_better": True}):
        with pytest.raises(ValueError, match="the penalties are counted already, by 'test_acc'"):
            penalty_matrix(penalties, **wrong)
    for nothing in ({}, None, [found]):
        with pytest.raises(TypeError, match=r"`penalties` is a .*; needed is a comparison, or its"):
            penalty_matrix(nothing)


def test_times_of_what_are_no_histories_are_refused_by_name():
    for wrong in ([], None, 3):
        with pytest.raises(TypeError, match=r"`comparison` is a .*; needed is a mapping from names to hist"):
            time_split(wrong)
    for wrong in (3, "a", [3]):
        with pytest.raises(TypeError, match="`comparison` has what is no history"):
            time_split({"Random": wrong})


def test_bars_of_time_are_means_of_the_rounds_that_asked():
    runs = [
        History([{"asked": 5, "train_s": t, "score_s": 0.5, "select_s": 0.0}, {"asked": 0, "train_s": 99.0}])
        for t in (1.0, 3.0)
    ]
    (ax,) = time_split({"Random": runs[0], "Margin": runs}).axes
    found = {c.get_label(): [bar.get_width() for bar in c] for c in ax.containers}
    assert found == {"train": [1, 2], "score the pool": [0.5, 0.5]}
    assert [text.get_text() for text in ax.texts] == ["1.5 s", "2.5 s"]
    whole = comparison(train_s=3.0, test_s=0.5, score_s=0.25, select_s=0.25, round_s=4.5)
    (ax,) = time_split(whole, heading="Times").axes
    rest = next(c for c in ax.containers if c.get_label() == "all else")
    assert [bar.get_width() for bar in rest] == [0.5, 0.5]
    with pytest.raises(ValueError, match="No round has asked"):
        time_split({"Random": History([{"asked": 0, "train_s": 1.0}])})


def test_rounds_that_took_no_time_are_drawn_too():
    """As of a clock that does not tell so little."""
    (ax,) = time_split({"Random": History([{"asked": 4, "train_s": 0.0}])}).axes
    assert (ax.get_xlim(), ax.get_legend()) == ((0, 1), None)


def test_shares_are_of_all_that_was_acquired_until_a_round():
    figure = class_balance_by_round(COUNTS, class_names=["cat", "dog"])
    random, entropy = figure.axes[:2]
    np.testing.assert_allclose(random.images[0].get_array(), [[0.5, 0.5], [0.5, 0.5]])
    np.testing.assert_allclose(entropy.images[0].get_array(), [[0.8, 0.9], [0.2, 0.1]])
    assert [text.get_text() for text in random.get_yticklabels()] == ["cat", "dog"]
    lines = lines_of(figure.axes[-2] if lines_of(figure.axes[-2]) else figure.axes[-1])
    np.testing.assert_allclose(lines["Random"].get_ydata(), np.log(2))
    expected = [-(p * np.log(p) + (1 - p) * np.log(1 - p)) for p in (0.8, 0.9)]
    np.testing.assert_allclose(lines["Entropy"].get_ydata(), expected)


def test_seeds_are_averaged_and_have_a_band():
    figure = class_balance_by_round({"Random": [COUNTS["Random"], COUNTS["Entropy"]]})
    np.testing.assert_allclose(figure.axes[0].images[0].get_array(), [[0.65, 0.7], [0.35, 0.3]])
    curves = next(ax for ax in figure.axes if lines_of(ax))
    assert len(curves.collections) == 1
    assert "median of 2 seeds" in curves.get_legend().get_title().get_text()


@pytest.mark.parametrize("number", [1, 2, 5, 9])
def test_there_is_a_panel_for_every_strategy_and_no_empty_one(number):
    counts = {f"Strategy {n}": COUNTS["Random"] for n in range(number)}
    figure = class_balance_by_round(counts, baseline="Strategy 0", heading="Classes")
    figure.draw_without_rendering()
    assert len(figure.axes) == number + 2  # the scale, and the entropies
    first = next(iter(lines_of(next(ax for ax in figure.axes if lines_of(ax))).values()))
    assert to_hex(first.get_color()) == to_hex(BASELINE)


def going_on(**rounds):
    """A comparison of which some runs have not got far: counts of classes a round, a run each."""
    tables = [
        RunTable(Run(name, seed, Path()), [{"round": r} for r in range(len(run))], run)
        for name, runs in rounds.items()
        for seed, run in enumerate(runs)
    ]
    return Comparison(tables, strategies=list(rounds), seeds=[0, 1], rounds=2, baseline="Random")


def test_what_has_acquired_nothing_yet_is_left_out():
    full, begun = [{0: 9, 1: 9}, {0: 5, 1: 5}, {0: 5, 1: 5}], [{0: 9, 1: 8, 2: 1}]
    figure = class_balance_by_round(going_on(Random=[full, begun], Margin=[full, full], Entropy=[begun]))
    assert [ax.get_title(loc="left") for ax in figure.axes[:2]] == ["Random", "Margin"]
    np.testing.assert_allclose(figure.axes[0].images[0].get_array(), [[0.5, 0.5], [0.5, 0.5], [0, 0]])
    curves = next(ax for ax in figure.axes if lines_of(ax))
    assert "median of 1 to 2 seeds" in curves.get_legend().get_title().get_text()
    with pytest.raises(ValueError, match=r"No query of \['Random', 'Margin'\] has brought labels yet"):
        class_balance_by_round(going_on(Random=[begun], Margin=[begun]))


def test_class_balance_of_a_comparison_is_of_all_that_its_queries_brought():
    runs = [{0: 9, 1: 9}, {0: 4, 1: 6}, {0: 2, 1: 8}], [{0: 9, 1: 9}, {0: 9, 1: 1}, {0: 9, 1: 1}]
    begun = [{0: 9, 1: 8, 2: 1}]
    found = going_on(Random=[*runs, begun], Margin=[runs[1], begun], Entropy=[begun])
    figure = class_balance(found)
    assert [ax.get_title(loc="left") for ax in figure.axes] == ["Random", "Margin"]
    bars = [[bar.get_height() for bar in ax.patches] for ax in figure.axes]
    np.testing.assert_allclose(bars, [[0.6, 0.4, 0], [0.9, 0.1, 0]])
    assert to_hex(figure.axes[0].patches[0].get_facecolor()) == to_hex(BASELINE)
    for draw in (class_balance, class_balance_by_round):
        assert draw(found, baseline="Entropy").axes  # which has only begun
        with pytest.raises(
            ValueError, match=r"`baseline` is 'B'; needed is one of \['Random', 'Margin', 'Ent"
        ):
            draw(found, baseline="B")
        with pytest.raises(ValueError, match="targets are not classes"):
            draw(comparison())


@pytest.mark.parametrize("rounds", [1, 5])
@pytest.mark.parametrize("classes", [1, 2, 3])
def test_few_classes_and_rounds_are_labelled_whole(classes, rounds):
    figure = class_balance_by_round(dict.fromkeys(["Random", "A"], [[1] * classes] * (rounds + 1)))
    assert not illegible(figure)
    labelled = [ax for ax in figure.axes if ax.get_xlabel() == "round"]  # a panel, and the entropies
    assert [ax.get_xticks().tolist() for ax in labelled] == [list(range(1, rounds + 1))] * 2


@pytest.mark.parametrize(
    "names",
    [(*LONG, "Margin", "Entropy", "BADGE"), ("Random", LONG[1]), [f"{LONG[1]} {n}" for n in range(9)]],
)
def test_long_names_are_whole_and_apart(names):
    counts = dict.fromkeys(names, [[[1, 2, 3]] * 6] * 2)
    figure = class_balance_by_round(counts, class_names=CLASSES, heading="Classes")
    assert not illegible(figure)


@pytest.mark.parametrize("names", [LONG, LONG[:2], ("Random", "A")])
def test_words_of_penalties_and_times_are_whole_and_apart(names):
    rows = [
        {"strategy": n, "seed": s, "round": r, "labeled": 10 + r, "test_acc": (len(n) + s + r) / 99}
        | {"asked": 5, "train_s": 1.0, "test_s": 0.2, "score_s": 0.3, "select_s": 0.1, "round_s": 2.0}
        for n in names for s in range(2) for r in range(3)
    ]  # fmt: skip
    found = Comparison.of_rows(rows)
    for figure in (penalty_matrix(found), time_split(found, heading="Seconds"), time_split(found)):
        assert not illegible(figure)


@pytest.mark.parametrize(
    ("counts", "names", "message"),
    [
        ({}, None, "one strategy or more"),
        ({"a": [[1, 2]]}, None, "a round after round 0"),
        ({"a": {0: 3}}, None, r"The counts of 'a' are a dict; needed are \(rounds, classes\)"),
        ({"a": [[1, 2], [1]]}, None, "The counts of 'a' are a list"),
        ({"a": [[1, 2], [float("nan"), 1]]}, None, "none negative"),
        ({"a": [1, 2]}, None, r"of the shape \(2,\); needed are \(rounds, classes\)"),
        ({"a": [[1, 2], [-1, 2]]}, None, "needed are"),
        ({"a": [[1, 2], [1, 2]], "b": [[1, 2, 3], [1, 2, 3]]}, None, "the same number everywhere"),
        ({"a": [[1, 2], [1, 2]]}, ["cat"], "1 `class_names` and 2 classes"),
    ],
)
def test_counts_that_are_none(counts, names, message):
    with pytest.raises(ValueError, match=message):
        class_balance_by_round(counts, class_names=names)


def test_counts_by_round_that_are_not_by_strategy_are_named():
    with pytest.raises(TypeError, match="`counts` is a list; needed is a mapping from names to counts, or a"):
        class_balance_by_round([[1, 2]])
    with pytest.raises(ValueError, match=r"`baseline` is 'B'; needed is one of \['Random', 'Entropy'\]"):
        class_balance_by_round(COUNTS, baseline="B")


def test_names_that_a_comparison_has_are_known_before_their_first_round():
    found = comparison()
    found.strategies.append("Entropy")
    assert lines_of(learning_curves(found, baseline="Margin").axes[0])["Margin"].get_color() == BASELINE
    assert learning_curves(found, emphasize=["Entropy"], baseline="Entropy").axes
    with pytest.raises(ValueError, match=r"`baseline` is 'B'; needed is one of \['chance', 'Margin', 'Ent"):
        learning_curves(found, baseline="B")

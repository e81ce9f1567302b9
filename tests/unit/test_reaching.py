"""When a metric is at a target, and how many labels that took."""

import math

import pytest

from lightning_al import labels_to_target
from lightning_al.reaching import is_accuracy
from unit.plotting.runs import history


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


def test_a_loss_reaches_its_target_from_above():
    run = history(0.9, 0.4, 0.2, 0.3, metric="test_loss")
    assert labels_to_target(run, "test_loss", 0.3) == 30
    assert labels_to_target(run, "test_loss", 0.3, higher_is_better=True) == 10


def test_number_of_rounds_in_a_row_can_be_chosen():
    run = history(0.9, 0.5, 0.9, 0.9, 0.9)
    assert [labels_to_target(run, "test_acc", 0.9, rounds=n) for n in (1, 2, 3, 4)] == [10, 30, 30, math.inf]


def test_labels_are_those_of_the_history_not_counted_rounds():
    assert labels_to_target(history(0.1, 0.9, 0.9, first=7, step=13), "test_acc", 0.9) == 20


def test_wrong_arguments_of_the_rule_are_named():
    with pytest.raises(TypeError, match=r"`history` is a list; needed is the `History` of one run"):
        labels_to_target([history(0.9)], "test_acc", 0.9)
    with pytest.raises(ValueError, match=r"'test_f1'.*Name one of its columns"):
        labels_to_target(history(0.9), "test_f1", 0.9)
    with pytest.raises(ValueError, match="`rounds` is 0"):
        labels_to_target(history(0.9), "test_acc", 0.9, rounds=0)


@pytest.mark.parametrize("name", ["test_accs", "accuracies", "valAccuracies", "top1_accs"])
def test_several_accuracies_are_accuracies(name):
    assert is_accuracy(name)
    assert not is_accuracy(f"{name}_loss")

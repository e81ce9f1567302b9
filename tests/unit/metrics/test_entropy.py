import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lightning_al.metrics import LabelEntropy


@given(st.lists(st.integers(0, 6), min_size=1, max_size=60), st.integers(1, 59))
def test_it_is_the_entropy_of_all_batches_together(labels, cut):
    metric = LabelEntropy(7)
    for part in (labels[:cut], labels[cut:]):
        metric.update(torch.tensor(part, dtype=torch.long))
    shares = [labels.count(c) / len(labels) for c in set(labels)]
    expected = -sum(p * math.log(p) for p in shares)
    assert float(metric.compute()) == pytest.approx(expected, abs=1e-6)


def test_its_ends():
    even = LabelEntropy(5)
    even.update(torch.arange(5))
    assert float(even.compute()) == pytest.approx(math.log(5))
    part = LabelEntropy(5, normalize=True)
    part.update(torch.arange(5))
    assert float(part.compute()) == pytest.approx(1)
    part.reset()
    part.update(torch.zeros(9, dtype=torch.int8).view(3, 3))  # pixels
    assert float(part.compute()) == 0
    alone = LabelEntropy(1, normalize=True)
    alone.update(torch.zeros(3, dtype=torch.bool))
    assert float(alone.compute()) == 1


def test_without_a_label_there_is_none():
    metric = LabelEntropy(3)
    metric.update(torch.empty(0, dtype=torch.long))
    assert metric.compute().isnan()


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (torch.tensor([0, 3]), r"`labels` has \[3\]; needed are classes from 0 to 2"),
        (torch.tensor([-1]), r"`labels` has \[-1\]"),
        (torch.tensor([0.5]), r"of type torch.float32; needed are classes"),
    ],
)
def test_what_is_no_class_is_refused(labels, message):
    metric = LabelEntropy(3)
    with pytest.raises(ValueError, match=message):
        metric.update(labels)
    assert metric.counts.sum() == 0


@pytest.mark.parametrize("wrong", [0, -2, 2.5, "3", True])
def test_what_is_no_number_of_classes_is_refused(wrong):
    with pytest.raises(ValueError, match="needed is how many classes there are"):
        LabelEntropy(wrong)


def test_it_is_drawn():
    metric = LabelEntropy(3)
    metric.update(torch.tensor([0, 1]))
    _, ax = metric.plot()
    assert ax.lines

"""Whether outputs can be read as classes, by labels of every kind."""

import numpy as np
import pytest
import torch

from lightning_al.inference.misreading import misread

NUMBERS, SEVERAL = "numbers", "labels"


@pytest.mark.parametrize(
    ("shape", "labels", "kind"),
    [
        ((1,), [0.0, 1.0], None),
        ((1,), [-1.0, 1.0], None),
        ((1,), [0, 1, 1], None),
        ((1,), [True, False], None),
        ((1,), ["cat", "dog"], None),
        ((1,), [{"boxes": 1}], None),
        ((1,), [], None),
        ((1,), [0.0, 0.3], NUMBERS),
        ((), [2.5], NUMBERS),
        ((1,), [torch.tensor([2.5])], NUMBERS),
        ((1,), [np.float32(2.5)], NUMBERS),
        ((1,), [0, 1, 2], NUMBERS),
        ((2,), [2.5, 0.1], None),  # such as a mean and its deviation, or bins
        ((3,), [0, 1, 2], None),
        ((3,), [torch.tensor([2.5, 0.1, -7])], NUMBERS),
        ((3,), [torch.tensor([1, 0, 0]), torch.tensor([0, 0, 1])], None),
        ((3,), [torch.tensor([0.2, 0.3, 0.5])], None),
        ((3,), [torch.tensor([1, 0, 0]), torch.tensor([0, 1, 1])], SEVERAL),
        ((3,), [torch.zeros(3), torch.tensor([1, 0, 0])], SEVERAL),
        ((3,), [[1, 0, 1]], SEVERAL),
        ((3,), [torch.tensor([0.2, 0.9, 0.8])], SEVERAL),
        ((3,), [torch.tensor([1.0, torch.nan, 0.0]), torch.tensor([1.0, 0.0, 0.0])], None),
        ((3,), [torch.tensor([1, 0])], None),
        ((2,), [[1], [1, 0]], None),
        ((3, 8, 8), [torch.ones(8, 8)], None),
        ((4,), [torch.full((2, 2), 7.0)], None),
    ],
)
def test_what_is_read_wrongly(shape, labels, kind):
    found = misread(shape, labels)
    assert (None if found is None else found.kind) == kind


def test_the_example_is_one_that_shows_it():
    assert misread((1,), [0.0, 1.0, 2.5]).example == 2.5
    assert misread((2,), [[1, 0], [1, 1]]).example == [1, 1]
    assert misread((2,), [[1, 0], [7, 1]]).example == [7, 1]

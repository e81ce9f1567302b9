"""Against scipy."""

import math

import numpy as np
import pytest
from scipy import stats

from lightning_al.class_entropy import class_entropy


def test_it_is_scipys():
    counts = np.random.default_rng(0).integers(0, 9, size=(5, 4, 3))
    assert class_entropy(counts) == pytest.approx(stats.entropy(counts, axis=-1))


def test_one_class_has_none_and_of_no_label_nothing_is_known():
    found = class_entropy([[7, 0, 0], [0, 0, 0], [1, 1, 1]])
    assert found.tolist() == pytest.approx([0, math.nan, math.log(3)], nan_ok=True)
    assert math.copysign(1, found[0]) == 1
    assert math.isnan(class_entropy([]))

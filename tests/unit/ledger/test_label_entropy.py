import math

import numpy as np
import pytest

from lightning_al.ledger import state
from lightning_al.ledger.schema import Event
from lightning_al.ledger.state import PoolState


def labelled(*values):
    found = PoolState(len(values))
    found.apply((n + 1, Event("labeled", n, value=value)) for n, value in enumerate(values))
    return found


def test_classes_are_counted():
    found = labelled("1", "0", "1", '"cat"')
    assert found.class_counts(np.arange(4)) == {1: 2, 0: 1, "cat": 1}
    assert found.class_counts(np.array([1, 0])) == {0: 1, 1: 1}
    assert found.label_entropy(np.arange(4)) == pytest.approx(1.5 * math.log(2))
    assert math.isnan(found.label_entropy(np.empty(0, np.int64)))


@pytest.mark.parametrize("value", ["0.5", "true", "[1, 2]", None])
def test_what_is_no_class_is_not_counted(value):
    found = labelled("1", value)
    assert found.class_counts(np.arange(2)) is None
    assert math.isnan(found.label_entropy(np.arange(2)))


def test_a_class_is_read_once_however_many_have_it(monkeypatch):
    read = []
    monkeypatch.setattr(state, "decode", lambda text: read.append(text) or int(text))
    found = labelled(*[str(n % 3) for n in range(300)])
    assert found.class_counts(np.arange(300)) == {0: 100, 1: 100, 2: 100}
    assert sorted(read) == ["0", "1", "2"]

import copy
import pickle

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lightning_al import History
from lightning_al.metrics import AreaUnderBudgetCurve

POINTS = st.lists(
    st.tuples(st.integers(0, 1000), st.floats(-5, 5, width=32)),
    min_size=2,
    max_size=20,
    unique_by=lambda p: p[0],
)


def of(points):
    metric = AreaUnderBudgetCurve()
    for labels, value in points:
        metric.update(labels, value)
    return metric


@given(POINTS, st.randoms())
def test_it_is_the_area_over_the_length_in_whatever_order_rounds_come(points, random):
    x, y = np.array(sorted(points)).T
    area = float(((y[1:] + y[:-1]) / 2 * np.diff(x)).sum()) / (x[-1] - x[0])
    random.shuffle(points)
    assert float(of(points).compute()) == pytest.approx(area, abs=1e-5)


@given(POINTS)
def test_it_lies_between_the_lowest_and_the_highest_value(points):
    values = [value for _, value in points]
    assert min(values) - 1e-4 <= float(of(points).compute()) <= max(values) + 1e-4


def test_values_at_one_number_of_labels_count_as_their_mean():
    assert of([(10, 0.2), (30, 1.0), (10, 0.6)]).compute() == pytest.approx(0.7)
    several = AreaUnderBudgetCurve()
    several.update(torch.tensor([10, 30, 10]), torch.tensor([0.2, 1.0, 0.6]))
    assert several.compute() == pytest.approx(0.7)
    x, y = several.curve()
    assert x.tolist() == [10, 30]
    assert y.tolist() == pytest.approx([0.4, 1.0])


def test_a_single_round_and_none():
    assert of([(10, 0.25)]).compute() == 0.25
    metric = AreaUnderBudgetCurve()
    with pytest.warns(UserWarning, match="before the ``update`` method"):
        assert metric.compute().isnan()
    metric.update(10, 0.5)
    metric.reset()
    metric.update(10, 0.1)
    assert pickle.loads(pickle.dumps(copy.deepcopy(metric))).compute() == pytest.approx(0.1)


@pytest.mark.parametrize(
    ("labels", "value", "message"),
    [
        (torch.tensor([1, 2]), 0.5, "2 `labels` came with 1 values"),
        (-1, 0.5, "needed are numbers of labels from 0 on"),
        (5, float("nan"), "and finite values"),
        (float("nan"), 0.5, r"`labels` is \[nan\].*needed are numbers of labels from 0 on"),
        (torch.tensor([10.0, torch.inf]), torch.tensor([0.1, 0.2]), r"`labels` is \[10.0, inf\]"),
    ],
)
def test_what_is_no_point_is_refused(labels, value, message):
    with pytest.raises(ValueError, match=message):
        AreaUnderBudgetCurve().update(labels, value)


@pytest.mark.parametrize("labels", ["20", History([]), {"labels": 3}])
def test_what_is_no_number_is_refused(labels):
    with pytest.raises(TypeError, match=r"`labels` is a \w+ and `value` a float; needed are numbers"):
        AreaUnderBudgetCurve().update(labels, 0.5)


def test_the_curve_is_drawn_with_its_mean_height():
    figure, ax = of([(20, 0.5), (30, 0.7), (50, 0.8)]).plot()
    curve, mean = ax.lines
    assert curve.get_xdata().tolist() == [20, 30, 50]
    assert mean.get_ydata()[0] == pytest.approx(0.7)
    assert figure is ax.figure
    figure, ax = of([(20, 0.5)]).plot([torch.tensor(0.5), torch.tensor(0.7)])
    assert len(ax.lines) >= 1

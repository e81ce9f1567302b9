import copy
import pickle

import pytest
import torch

from lightning_al.functional import ranking_accuracy
from lightning_al.metrics import LossRankingAccuracy

PREDICTED = torch.randn(40, generator=torch.Generator().manual_seed(0))
TARGET = PREDICTED + torch.randn(40, generator=torch.Generator().manual_seed(1))


def test_batches_are_compared_with_each_other():
    metric = LossRankingAccuracy()
    for size in (1, 7, 16, 16):
        seen = sum(len(part) for part in metric.predicted)
        metric.update(PREDICTED[seen : seen + size], TARGET[seen : seen + size])
    assert metric.compute() == ranking_accuracy(PREDICTED, TARGET)
    assert pickle.loads(pickle.dumps(copy.deepcopy(metric))).compute() == metric.compute()
    metric.reset()
    metric.update(torch.tensor([0.0, 1.0]), torch.tensor([0.0, 1.0]))
    assert metric.compute() == 1


def test_nothing_to_compare_is_no_number():
    metric = LossRankingAccuracy()
    with pytest.warns(UserWarning, match="before the ``update`` method"):
        assert metric.compute().isnan()
    metric.update(torch.ones(1), torch.ones(1))
    metric = LossRankingAccuracy()
    metric.update(torch.zeros(0), torch.zeros(0))
    assert metric.compute().isnan()


def test_what_is_kept_is_apart_from_the_graph():
    predicted = torch.ones(2, requires_grad=True, dtype=torch.float64)
    metric = LossRankingAccuracy()
    metric.update(predicted, torch.ones(2))
    assert not metric.predicted[0].requires_grad
    assert metric.predicted[0].dtype == torch.float64
    metric.update(torch.ones(2, dtype=torch.bfloat16), torch.ones(2, dtype=torch.float16))
    assert metric.predicted[1].dtype == metric.target[1].dtype == torch.float32


def test_losses_that_differ_in_double_precision_only_are_two():
    losses = torch.linspace(1, 1 + 1e-9, 50, dtype=torch.float64)
    metric = LossRankingAccuracy()
    metric.update(losses, losses)
    assert metric.compute() == 1


def test_shapes_that_do_not_fit():
    with pytest.raises(ValueError, match=r"\(2, 1\) and `target` \(2,\); needed is one number a sample"):
        LossRankingAccuracy().update(torch.zeros(2, 1), torch.zeros(2))
    with pytest.raises(TypeError, match=r"`predicted` is a list; needed is a tensor"):
        LossRankingAccuracy().update([1.0], [1.0])


def test_what_is_no_number_is_refused_at_once():
    metric = LossRankingAccuracy()
    with pytest.raises(ValueError, match="is NaN, which has no place"):
        metric.update(torch.tensor([float("nan")]), torch.ones(1))

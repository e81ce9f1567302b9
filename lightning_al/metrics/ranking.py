"""Whether predicted losses are in the order of the true ones."""

from __future__ import annotations

import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities import dim_zero_cat

from lightning_al.functional.ranking import check_not_nan, check_pairs, ranking_accuracy

__all__ = ["LossRankingAccuracy"]


class LossRankingAccuracy(Metric):
    """How many pairs of samples the predicted losses put in the order of the true ones.

    1 is the right order, 0.5 chance; see `functional.ranking_accuracy`. It keeps two numbers a sample, and
    compares samples of all batches and processes with each other. The rank correlation is
    `torchmetrics.SpearmanCorrCoef`.

    Example:
        >>> metric = LossRankingAccuracy()
        >>> metric.update(torch.tensor([0.3, 0.9]), torch.tensor([1.0, 2.0]))
        >>> metric.update(torch.tensor([0.1]), torch.tensor([3.0]))
        >>> metric.compute()
        tensor(0.3333)
    """

    is_differentiable = False
    higher_is_better = True
    full_state_update = False
    plot_lower_bound = 0.0
    plot_upper_bound = 1.0

    predicted: list[Tensor]
    target: list[Tensor]

    def __init__(self, **kwargs: object) -> None:
        super().__init__(**kwargs)
        self.add_state("predicted", [], dist_reduce_fx="cat")
        self.add_state("target", [], dist_reduce_fx="cat")

    def update(self, predicted: Tensor, target: Tensor) -> None:
        """Add a batch: predicted and true losses, `(B,)` each.

        Raises:
            TypeError: If they are no tensors of real numbers.
            ValueError: If they are not one number a sample each, or one is NaN; on other devices than the
                CPU, which would have to be waited for, `compute` says so.
        """
        check_pairs(predicted, target)
        if predicted.device.type == "cpu":
            check_not_nan(predicted, target)
        self.predicted.append(_at_least_float32(predicted.detach()))
        self.target.append(_at_least_float32(target.detach()))

    def compute(self) -> Tensor:
        """The share of pairs in the right order; NaN if no two true losses differ."""
        if not len(self.predicted):
            return torch.tensor(float("nan"), device=self.device)
        return ranking_accuracy(dim_zero_cat(self.predicted), dim_zero_cat(self.target))


def _at_least_float32(values: Tensor) -> Tensor:
    return values.to(torch.promote_types(values.dtype, torch.float32))

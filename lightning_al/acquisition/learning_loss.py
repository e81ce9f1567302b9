"""LEARNING LOSS: what a head of the module predicts of its loss."""

from __future__ import annotations

from torch import Tensor

from lightning_al.acquisition.base import ScoreAcquisition
from lightning_al.inference.outputs import Outputs

__all__ = ["LearningLoss"]


class LearningLoss(ScoreAcquisition):
    """Asks where the module expects its loss to be high; see `LearningLossMixin`.

    The scores are predictions of which only the order was learned; they may be negative, so to draw by them
    takes `PowerSampling(LearningLoss(), form="softrank")`. The paper scores a random subset each round, which
    spreads the query: `ActiveLearning(LearningLoss(), candidates=10_000, ...)`.

    References:
        Yoo & Kweon, "Learning Loss for Active Learning", 2019 (arXiv:1905.03677). Cost: one pass.

    Example:
        >>> import torch
        >>> LearningLoss().score(Outputs(predicted_loss=torch.tensor([-0.5, 2.0])))
        tensor([-0.5000,  2.0000])
    """

    needs = ("predicted_loss",)

    def score(self, outputs: Outputs) -> Tensor:  # noqa: D102
        predicted: Tensor = outputs.predicted_loss
        return predicted

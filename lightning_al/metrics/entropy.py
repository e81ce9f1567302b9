"""How evenly the classes are among labels."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric

__all__ = ["LabelEntropy"]


class LabelEntropy(Metric):
    """The entropy of the classes among labels, in nats: low where a strategy asks for few classes only.

    From 0, one class, to `log(num_classes)`, all equally often; what a random draw gives is the entropy of
    the pool. It keeps one number a class.

    Args:
        num_classes: How many classes there are.
        normalize: Divide by `log(num_classes)`, so that 1 is the most.
        **kwargs: Of `torchmetrics.Metric`.

    Raises:
        ValueError: If there is no class.

    Example:
        >>> metric = LabelEntropy(4)
        >>> metric.update(torch.tensor([0, 0, 1, 1]))
        >>> metric.compute()  # log 2
        tensor(0.6931)
    """

    is_differentiable = False
    higher_is_better = True
    full_state_update = False
    plot_lower_bound = 0.0

    counts: Tensor

    def __init__(self, num_classes: int, *, normalize: bool = False, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if isinstance(num_classes, bool) or not isinstance(num_classes, int) or num_classes < 1:
            raise ValueError(
                f"`num_classes` is {num_classes!r}; needed is how many classes there are, 1 or more."
            )
        self.num_classes, self.normalize = num_classes, normalize
        self.add_state("counts", torch.zeros(num_classes, dtype=torch.long), dist_reduce_fx="sum")

    def update(self, labels: Tensor) -> None:
        """Add labels.

        Args:
            labels: Classes, `(n,)`, or of pixels, of any shape.

        Raises:
            ValueError: If one is no class.
        """
        labels = torch.as_tensor(labels, device=self.device).reshape(-1)
        if labels.is_floating_point() or labels.is_complex():
            raise ValueError(
                f"`labels` are of type {labels.dtype}; needed are classes, as whole numbers. Convert with "
                "`.long()`, of probabilities take `argmax`."
            )
        labels = labels.long()
        wrong = labels[(labels < 0) | (labels >= self.num_classes)]
        if len(wrong):
            raise ValueError(
                f"`labels` has {wrong[:5].tolist()}; needed are classes from 0 to {self.num_classes - 1}. "
                "Leave out what is to be ignored, or raise `num_classes`."
            )
        self.counts += torch.bincount(labels, minlength=self.num_classes)

    def compute(self) -> Tensor:
        """The entropy; NaN without a label."""
        shares = self.counts.double() / self.counts.sum()
        if bool(shares.isnan().any()):
            return torch.tensor(float("nan"), device=self.device)
        found: Tensor = torch.special.entr(shares).sum().float()
        if not self.normalize:
            return found
        return found / math.log(self.num_classes) if self.num_classes > 1 else torch.ones_like(found)

    def plot(self, val: Any = None, ax: Any = None) -> Any:
        """Draw one value of `compute` or several; `None`: the present one. Returns figure and axes."""
        return self._plot(val, ax)

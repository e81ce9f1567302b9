"""A whole curve of a metric against the number of labels, as one number."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities import dim_zero_cat

__all__ = ["AreaUnderBudgetCurve"]


class AreaUnderBudgetCurve(Metric):
    """The mean height of a curve of a metric against the number of labels (AUBC).

    The area by the trapezoidal rule, divided by the length of the budget: the metric that a run had on
    average, whichever number of labels one stops at; as high as the metric itself is. Curves can be compared
    if they begin and end at the same numbers of labels. It keeps two numbers a point; several values at one
    number of labels, as of several processes or seeds, count as their mean.

    Args:
        **kwargs: Of `torchmetrics.Metric`.

    References:
        Zhan et al., "A Comparative Survey of Deep Active Learning", 2022 (arXiv:2203.13450), section 4.1.

    Example:
        >>> metric = AreaUnderBudgetCurve()
        >>> for labels, accuracy in [(20, 0.5), (30, 0.7), (50, 0.8)]:
        ...     metric.update(labels, accuracy)
        >>> metric.compute()  # (0.6 * 10 + 0.75 * 20) / 30
        tensor(0.7000)
    """

    is_differentiable = False
    higher_is_better = True
    full_state_update = False

    labels: list[Tensor]
    values: list[Tensor]

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.add_state("labels", [], dist_reduce_fx="cat")
        self.add_state("values", [], dist_reduce_fx="cat")

    def update(self, labels: int | Tensor, value: float | Tensor) -> None:
        """Add a point, or several.

        Args:
            labels: Numbers of labels, one or `(n,)`.
            value: What the metric was with these, as many.

        Raises:
            TypeError: If they are no numbers.
            ValueError: If they are not as many, a number of labels is negative, or one is not finite.
        """
        try:
            count = torch.as_tensor(labels, device=self.device).reshape(-1)
            found = torch.as_tensor(value, device=self.device).detach().reshape(-1)
        except (TypeError, ValueError, RuntimeError) as error:
            raise TypeError(
                f"`labels` is a {type(labels).__name__} and `value` a {type(value).__name__}; needed are "
                "numbers, or as many in both. Of a history pass its columns: `update(history.column("
                '"labeled"), history.column("test_acc"))`.'
            ) from error
        if count.shape != found.shape:
            raise ValueError(
                f"{len(count)} `labels` came with {len(found)} values; needed is one value for each number "
                "of labels. Call `update` once a round."
            )
        if not bool(((count >= 0) & count.isfinite() & found.isfinite()).all()):
            raise ValueError(
                f"`labels` is {count.tolist()} and `value` {found.tolist()}; needed are numbers of labels "
                "from 0 on, and finite values. Leave a round out that was not tested."
            )
        # Of one type: torchmetrics has floats for a process without a point.
        self.labels.append(count.float())
        self.values.append(found.float())

    def curve(self) -> tuple[Tensor, Tensor]:
        """Numbers of labels, ascending, and the mean value at each.

        Of the points of all processes, which all must call it.
        """
        apart = not self._is_synced
        with self.sync_context(
            dist_sync_fn=self.dist_sync_fn, should_sync=self._to_sync and apart, should_unsync=apart
        ):
            return self._curve()

    def _curve(self) -> tuple[Tensor, Tensor]:
        """Of the points that are there now."""
        if not len(self.labels):
            return torch.empty(0), torch.empty(0)
        labels, values = dim_zero_cat(self.labels), dim_zero_cat(self.values)
        x, place, count = torch.unique(labels, return_inverse=True, return_counts=True)
        total = torch.zeros(len(x), dtype=torch.float64, device=values.device)
        return x, (total.index_add_(0, place, values.double()) / count).float()

    def compute(self) -> Tensor:
        """The mean height; the value itself of a single point, NaN of none."""
        x, y = self._curve()
        if len(x) < 2:
            return y[0] if len(x) else torch.tensor(float("nan"), device=self.device)
        return torch.trapezoid(y, x) / (x[-1] - x[0])

    def plot(self, val: Any = None, ax: Any = None) -> Any:
        """Draw the curve, and its mean height as a line; of all processes, which all must call it.

        Args:
            val: Values of `compute`, of several runs: then these are drawn as of any metric.
            ax: Where to draw; `None`: a figure of its own.

        Returns:
            Figure and axes.
        """
        if val is not None:
            return self._plot(val, ax)
        figure, ax = self._plot(self.compute(), ax)
        ax.clear()
        x, y = (part.cpu().numpy() for part in self.curve())
        ax.plot(x, y, marker="o", markersize=4)
        ax.axhline(float(self.compute()), linestyle="--", linewidth=1, color="0.5")
        ax.set_xlabel("labels")
        ax.set_ylabel("metric")
        ax.set_title(f"area under the budget curve {float(self.compute()):.4f}", fontsize=10)
        return figure, ax

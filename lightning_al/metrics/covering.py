"""How far the farthest sample is from a labelled one."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric

from lightning_al.functional import covering_radius
from lightning_al.functional.vectors import Metric as Distance

__all__ = ["CoveringRadius"]


class CoveringRadius(Metric):
    """The largest distance of a sample's embedding to the nearest labelled one: what core-set makes small.

    The bound of Sener & Savarese on the loss over the pool grows with it. One number is kept, whatever the
    size of the pool; the labelled rows are the same on every process.

    Args:
        centers: Embeddings of the labelled samples, `(L, D)`.
        metric: `"euclidean"`, or `"cosine"` for one minus the cosine.
        **kwargs: Of `torchmetrics.Metric`.

    Raises:
        TypeError: If `centers` are no floating-point tensor.
        ValueError: If they are no matrix, or not finite.

    References:
        Sener & Savarese, 2018 (arXiv:1708.00489), theorem 1 and eq. 3. Cost: that of the distances of a
        batch to all centres.

    Example:
        >>> metric = CoveringRadius(torch.tensor([[0.0], [10.0]]))
        >>> metric.update(torch.tensor([[1.0], [4.0]]))
        >>> metric.update(torch.tensor([[9.0]]))
        >>> metric.compute()
        tensor(4.)
    """

    is_differentiable = False
    higher_is_better = False
    full_state_update = False
    plot_lower_bound = 0.0

    centers: Tensor
    radius: Tensor

    def __init__(self, centers: Tensor, *, metric: Distance = "euclidean", **kwargs: Any) -> None:
        super().__init__(**kwargs)
        is_tensor = isinstance(centers, Tensor) and centers.ndim > 0
        nothing = torch.empty(0, centers.shape[-1], device=centers.device) if is_tensor else torch.empty(0, 1)
        covering_radius(nothing, centers, metric=metric)  # refuses what cannot be compared
        self.metric: Distance = metric
        self.register_buffer("centers", centers.detach(), persistent=False)
        self.add_state("radius", torch.tensor(0.0), dist_reduce_fx="max")

    def update(self, embeddings: Tensor) -> None:
        """Add a batch of embeddings, `(B, D)`.

        Raises:
            ValueError: If they have another width than the centres, or one is not finite (named by its row).
        """
        found = covering_radius(embeddings, self.centers, metric=self.metric)
        self.radius = torch.maximum(self.radius, self.radius.new_tensor(found))

    def compute(self) -> Tensor:
        """The radius; 0 without a sample, infinity without a centre."""
        return self.radius

    def plot(self, val: Any = None, ax: Any = None) -> Any:
        """Draw one value of `compute` or several; `None`: the present one. Returns figure and axes."""
        return self._plot(val, ax)

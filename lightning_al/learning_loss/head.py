"""HEAD: from what some layers gave to one number a sample.

pooled features of each layer -> linear, ReLU -> side by side -> linear -> (B,)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["LossHead"]


class LossHead(nn.Module):
    """Predicts a loss from the pooled features of several layers.

    Args:
        widths: Of the features of each layer.
        hidden: Of each layer's branch.

    References:
        Yoo & Kweon, "Learning Loss for Active Learning", 2019, section 3.2 and figure 2.

    Example:
        >>> head = LossHead([64, 128], hidden=16)
        >>> head([torch.zeros(5, 64), torch.zeros(5, 128)]).shape
        torch.Size([5])
    """

    def __init__(self, widths: Sequence[int], hidden: int = 128) -> None:
        super().__init__()
        self.branches = nn.ModuleList(nn.Linear(width, hidden) for width in widths)
        self.out = nn.Linear(hidden * len(widths), 1)

    @classmethod
    def like(cls, state: Mapping[str, Any], prefix: str) -> LossHead | None:
        """Of the shape of the weights that a state dict has under `prefix`; `None` if it has none."""
        shapes: list[tuple[int, int]] = []
        while (name := f"{prefix}branches.{len(shapes)}.weight") in state:
            shapes.append(state[name].shape)
        return cls([shape[1] for shape in shapes], shapes[0][0]) if shapes else None

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        """Predicted losses `(B,)`, in float32 or better, of features `(B, width)`; no autocasting."""
        with torch.autocast(features[0].device.type, enabled=False):
            dtype = self.out.weight.dtype
            hidden = [
                branch(part.to(dtype)).relu() for branch, part in zip(self.branches, features, strict=True)
            ]
            predicted: Tensor = self.out(torch.cat(hidden, 1)).squeeze(1)
        return predicted.to(torch.promote_types(predicted.dtype, torch.float32))

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

    Attributes:
        layers: Names of the layers, where they are known; a part of its state.
        learned: Whether it ever learned from a pair, `()`; a part of its state. No bool: it may be averaged.

    References:
        Yoo & Kweon, "Learning Loss for Active Learning", 2019, section 3.2 and figure 2.

    Example:
        >>> head = LossHead([64, 128], hidden=16)
        >>> head([torch.zeros(5, 64), torch.zeros(5, 128)]).shape
        torch.Size([5])
    """

    learned: Tensor

    branches: Any  # an `nn.ModuleList` of `nn.Linear`

    def __init__(self, widths: Sequence[int], hidden: int = 128) -> None:
        super().__init__()
        self.layers: tuple[str, ...] = ()
        self.branches = nn.ModuleList(nn.Linear(width, hidden) for width in widths)
        self.out = nn.Linear(hidden * len(widths), 1)
        self.register_buffer("learned", torch.zeros(()))

    @property
    def widths(self) -> list[int]:
        """Of the features of each layer."""
        return [branch.weight.shape[1] for branch in self.branches]

    @property
    def hidden(self) -> int:
        """Of each layer's branch."""
        return self.out.in_features // len(self.branches)

    @staticmethod
    def shape_in(state: Mapping[str, Any], prefix: str) -> tuple[list[int], int] | None:
        """Widths and `hidden` of the weights that a state dict has under `prefix`; `None` if it has none."""
        shapes: list[tuple[int, int]] = []
        while (name := f"{prefix}branches.{len(shapes)}.weight") in state:
            shapes.append(state[name].shape)
        return ([shape[1] for shape in shapes], shapes[0][0]) if shapes else None

    @staticmethod
    def layers_in(state: Mapping[str, Any], prefix: str) -> tuple[str, ...]:
        """Names of the layers that saved weights are for; none if the weights do not say."""
        names = state.get(f"{prefix}_extra_state", torch.empty(0))
        text = bytes(names.to(torch.uint8).tolist()).decode()
        return tuple(text.split("\n")) if text else ()

    def get_extra_state(self) -> Tensor:  # noqa: D102
        # A tensor, as whoever copies or sends a state dict expects.
        return torch.tensor(list("\n".join(self.layers).encode()), dtype=torch.uint8, device="cpu")

    def set_extra_state(self, state: Tensor) -> None:
        """The names are the module's, which has compared them."""

    def _load_from_state_dict(self, state_dict: Any, prefix: str, *args: Any, **kwargs: Any) -> None:
        if f"{prefix}out.weight" in state_dict:  # weights of a version that did not say
            state_dict.setdefault(f"{prefix}_extra_state", self.get_extra_state())
            state_dict.setdefault(f"{prefix}learned", torch.ones(()))
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        """Predicted losses `(B,)`, in float32 or better, of features `(B, width)`; no autocasting."""
        with torch.autocast(features[0].device.type, enabled=False):
            dtype = self.out.weight.dtype
            hidden = [
                branch(part.to(dtype)).relu() for branch, part in zip(self.branches, features, strict=True)
            ]
            predicted: Tensor = self.out(torch.cat(hidden, 1)).squeeze(1)
        return predicted.to(torch.promote_types(predicted.dtype, torch.float32))

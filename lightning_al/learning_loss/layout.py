"""LAYOUT: which axis of a layer's output holds the samples, and which the channels.

the part that makes the output, else the widths of the parts inside -> `Layout` -> features `(B, width)`

What is inside of a layer does not tell: a patch embedding has a convolution and gives `(B, T, D)`, a block
may turn the axes for an attention that wants time first, and turn them back.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["Layout"]

_CHANNELS_FIRST = (
    nn.modules.conv._ConvNd,
    nn.modules.batchnorm._BatchNorm,
    nn.modules.instancenorm._InstanceNorm,
    nn.modules.pooling._AvgPoolNd,
    nn.modules.pooling._MaxPoolNd,
    nn.modules.pooling._AdaptiveAvgPoolNd,
    nn.modules.pooling._AdaptiveMaxPoolNd,
    nn.GroupNorm,
    nn.Upsample,
)
_SEQUENCE_LAYERS = (
    nn.RNNBase,
    nn.MultiheadAttention,
    nn.TransformerEncoderLayer,
    nn.TransformerDecoderLayer,
    nn.TransformerEncoder,
    nn.TransformerDecoder,
    nn.Transformer,
)
_KEEPS_AXES = ("torch.nn.modules.activation", "torch.nn.modules.dropout")


class Layout:
    """Of the output of one layer.

    Args:
        layer: The layer.
        channels: Which axis holds the channels: "first" (after the samples), "last", or "auto".

    Attributes:
        batch_axis: Where the samples are in an output of three axes.
        is_sure: Whether that is known. Not so if a part inside wants time first: the layer may turn the axes
            for it, or not.
        width: Of the last part inside that has one.
        is_ambiguous: Whether two axes were as wide, and no shape before had shown which has the channels.
    """

    def __init__(self, layer: nn.Module, channels: str) -> None:
        end = _end(layer)
        self.batch_axis = int(_has_time_first(end))
        self.is_sure = self.batch_axis == 1 or not any(_has_time_first(part) for part in layer.modules())
        self._channels = _channels_of(end) if channels == "auto" else channels
        inside = [part for part in layer.modules() if _width(part) is not None]
        self.width = _width(inside[-1]) if inside else None
        self.is_ambiguous = False
        self._was_told = False
        self._last_channels = _channels_of(inside[-1]) if inside else "auto"
        self._shown: dict[int, bool] = {}  # by number of axes: whether the last has the channels

    def settle(self, batch_axis: int) -> None:
        """A batch has shown where the samples are."""
        self.batch_axis, self.is_sure = batch_axis, True

    def pooled(self, tensor: Tensor, batch_axis: int) -> Tensor:
        """`(B, width)`: the mean over all places, in float32 or better; a copy in any case."""
        if tensor.ndim < 3:  # a later layer may work in place
            return tensor.clone()[:, None] if tensor.ndim == 1 else tensor.clone()
        if tensor.ndim == 3 and batch_axis:
            tensor = tensor.transpose(0, 1)
        places = (
            range(1, tensor.ndim - 1)
            if self._has_channels_last(tensor, batch_axis)
            else range(2, tensor.ndim)
        )
        return tensor.mean(tuple(places), dtype=torch.promote_types(tensor.dtype, torch.float32))

    def _has_channels_last(self, tensor: Tensor, batch_axis: int) -> bool:
        if self._channels != "auto":
            return self._channels == "last"
        axes, usual = tensor.ndim, tensor.ndim == 3
        told = {"first": tensor.shape[1], "last": tensor.shape[-1]}.get(self._last_channels)
        by_width = self._last_channels == "last" if told is not None and told == self.width else usual
        if tensor.shape[1] != tensor.shape[-1]:
            if batch_axis == self.batch_axis and self._shown.get(axes) is not by_width:
                self._shown[axes] = by_width
            return by_width
        if axes not in self._shown and by_width != usual and not self._was_told:
            self.is_ambiguous = self._was_told = True
        return self._shown.get(axes, usual)


def _end(layer: nn.Module) -> nn.Module:
    """The part that makes the output, as far as that is certain; else the layer."""
    layer = getattr(layer, "_orig_mod", layer)  # what `torch.compile` wraps
    if isinstance(layer, nn.Sequential):
        for part in reversed(list(layer)):
            if not _keeps_axes(part):
                return _end(part)
    return layer


def _keeps_axes(part: nn.Module) -> bool:
    if isinstance(part, nn.MultiheadAttention):
        return False
    return isinstance(part, nn.Identity) or type(part).__module__ in _KEEPS_AXES


def _channels_of(part: nn.Module) -> str:
    if isinstance(part, _CHANNELS_FIRST):
        return "first"
    return "last" if isinstance(part, _SEQUENCE_LAYERS) or _width(part) is not None else "auto"


def _width(part: nn.Module) -> int | None:
    """How wide the output of such a part is."""
    if isinstance(part, nn.Linear):
        return part.out_features
    if isinstance(part, nn.Embedding):
        return part.embedding_dim
    if isinstance(part, nn.LayerNorm):
        return part.normalized_shape[0] if len(part.normalized_shape) == 1 else None
    if isinstance(part, nn.modules.conv._ConvNd):
        return part.out_channels
    if isinstance(part, nn.modules.batchnorm._BatchNorm | nn.modules.instancenorm._InstanceNorm):
        return part.num_features
    return part.num_channels if isinstance(part, nn.GroupNorm) else None


def _has_time_first(part: nn.Module) -> bool:
    """Whether a part itself takes and gives `(T, B, D)`; of its parts only those that it is made of."""
    if isinstance(part, nn.TransformerEncoder | nn.TransformerDecoder):
        layer: Any = next(iter(part.layers), None)
        return layer is not None and _has_time_first(layer)
    if isinstance(part, nn.TransformerEncoderLayer | nn.TransformerDecoderLayer):
        return _has_time_first(part.self_attn)
    return getattr(part, "batch_first", True) is False

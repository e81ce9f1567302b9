"""LAYOUT: where the samples of a batch are inside of a model, seen by leaving one out.

    the model on a batch, and on the batch without a sample -> the axis that is shorter -> the samples'

One shape cannot tell: there may be as many channels or tokens as samples.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves, tree_map

__all__ = ["Layout", "Seen", "first_of", "without_first"]


@dataclass(frozen=True)
class Layout:
    """The samples are on `axis`, one or more rows each; or there are none.

    Attributes:
        axis: Of the samples; `None`: the tensor is the same for all of them, such as a parameter.
        minor: Where a sample has several rows, these are as far apart as there are samples; else they
            follow each other.

    Example:
        >>> Layout(0).split((8, 3), 4), Layout(0, minor=True).split((8, 3), 4), Layout(None).split((8, 3), 4)
        (((4, 2, 3), 0), ((2, 4, 3), 1), ((8, 3), None))
    """

    axis: int | None
    minor: bool = False

    def split(self, shape: Sequence[int], samples: int) -> tuple[tuple[int, ...], int | None]:
        """The shape with an axis of its own for the samples, and which one that is."""
        if self.axis is None:
            return tuple(shape), None
        rows = shape[self.axis] // samples
        if rows == 1:
            return tuple(shape), self.axis
        both = (rows, samples) if self.minor else (samples, rows)
        return (*shape[: self.axis], *both, *shape[self.axis + 1 :]), self.axis + int(self.minor)

    def fits(self, shape: Sequence[int], samples: int) -> bool:
        """Whether a tensor of this shape can be laid out so."""
        return self.axis is None or (self.axis < len(shape) and shape[self.axis] % samples == 0)

    @classmethod
    def guessed(cls, shape: Sequence[int], samples: int) -> Layout | None:
        """By shape: the first or second axis, if as long as the batch; else the first, if a multiple."""
        for axis in range(min(2, len(shape))):
            if shape[axis] == samples:
                return cls(axis)
        return cls(0) if shape and shape[0] and shape[0] % samples == 0 else None

    @classmethod
    def seen(cls, whole: Seen, fewer: Seen, samples: int) -> Layout | None:
        """Of a tensor as it was for a batch, and for the batch without its first sample, in reverse.

        `None` if it cannot be told.
        """
        if len(whole.shape) != len(fewer.shape):
            return None
        if whole.shape == fewer.shape:
            return cls(None)
        lengths = zip(whole.shape, fewer.shape, strict=True)
        axes = [axis for axis, (n, m) in enumerate(lengths) if n and n * (samples - 1) == m * samples]
        if len(axes) != 1:
            return None
        if whole.shape[axes[0]] == samples:
            return cls(axes[0])
        major, minor = cls(axes[0]), cls(axes[0], minor=True)
        gaps = [(whole.traces[one][1:] - fewer.traces[one].flip(0)).abs().max() for one in (major, minor)]
        return major if bool(gaps[0] <= gaps[1]) else minor


@dataclass(frozen=True)
class Seen:
    """What is kept of a tensor to find its layout: no more than a few numbers a sample."""

    shape: tuple[int, ...]
    traces: dict[Layout, Tensor]

    @classmethod
    def of(cls, values: Tensor, samples: int) -> Seen:
        """Its shape, and where samples could have several rows, one number a sample for each way."""
        traces = {}
        for axis, length in enumerate(values.shape):
            if length > samples and length % samples == 0:
                for layout in (Layout(axis), Layout(axis, minor=True)):
                    split, place = layout.split(values.shape, samples)
                    rows = values.detach().float().reshape(split).movedim(place or 0, 0).flatten(1)
                    # Sums alone may be the same for all samples, as behind a LayerNorm.
                    weights = torch.arange(rows.shape[1], device=rows.device).mul(0.618).cos_()
                    traces[layout] = rows.nan_to_num(posinf=0.0, neginf=0.0) @ weights.to(rows.dtype)
        return cls(tuple(values.shape), traces)


def first_of(batch: Any, samples: int, count: int) -> Any:
    """Its first samples, or `None` where samples cannot be told apart."""
    return _mapped(batch, samples, lambda part: part[:count])


def without_first(batch: Any, samples: int) -> Any:
    """The samples but the first, in reverse order, or `None` where they cannot be told apart."""
    return _mapped(batch, samples, lambda part: torch.flip(part, (0,))[:-1])


def _mapped(batch: Any, samples: int, change: Callable[[Tensor], Tensor]) -> Any:
    def shorter(part: Any) -> Any:
        return change(part) if _holds_samples(part, samples) else part

    if isinstance(batch, Mapping) and not isinstance(batch, dict):  # such as a tokenizer's
        fewer = copy.copy(batch)
        for name, part in batch.items():
            fewer[name] = shorter(part)  # type: ignore[index]
        leaves = list(batch.values())
    else:
        fewer, leaves = tree_map(shorter, batch), tree_leaves(batch)
    return fewer if samples > 1 and any(_holds_samples(leaf, samples) for leaf in leaves) else None


def _holds_samples(part: Any, samples: int) -> bool:
    return isinstance(part, Tensor) and part.ndim > 0 and len(part) == samples

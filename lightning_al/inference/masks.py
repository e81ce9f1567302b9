"""MASKS: dropout masks that are a function of what they are for, not of when they are drawn.

    key of (seed, site, pass) -> [sample] -> place in the tensor -> random bits -> keep or drop -> a tensor

A mask depends neither on the batch that a sample happens to be in, nor on the number of processes, nor on
what was drawn before: its bits are a counter-based hash, the mixer of SplitMix64 (Steele, Lea & Flood,
"Fast Splittable Pseudorandom Number Generators", 2014), four elements from each 64-bit number.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

__all__ = ["Drop", "fold", "keep_masks"]

_GOLDEN = -7046029254386353131  # 0x9E3779B97F4A7C15, odd: the step of SplitMix64
_FIRST, _SECOND = -4658895280553007687, -7723592293110705685  # its multipliers
_LANES = 4  # of 16 bits
_CHUNK = 2**16  # 64-bit numbers at a time: they stay in cache
_SATURATED = -1.7580993408473766  # what SELU tends to for very negative inputs


def fold(key: Tensor, value: Tensor | int) -> Tensor:
    """A key of its own for every value, as good as drawn anew; int64, shapes broadcast."""
    step = torch.as_tensor(value, device=key.device) + 1  # its product may not overflow as an int
    return _mix(key + step * _GOLDEN)


def keep_masks(
    keys: Tensor,
    keep: float,
    shape: Sequence[int],
    *,
    axis: int | None = None,
    positions: Tensor | None = None,
    mask_axes: int | None = None,
) -> Tensor:
    """For every pass, which elements of a tensor are kept.

    Args:
        keys: One a pass, int64 `(K,)`.
        keep: The probability of being kept, to 2**-17.
        shape: Of the tensor.
        axis: Of the samples.
        positions: Of these samples, if each has masks of its own; `None`: one mask for all.
        mask_axes: Only so many leading axes have bits of their own (feature dropout); `None`: all.

    Returns:
        Booleans `(K, ...)`, with one element along every axis that shares its bits.
    """
    lengths = [n if mask_axes is None or place < mask_axes else 1 for place, n in enumerate(shape)]
    places = torch.zeros((), dtype=torch.long, device=keys.device)
    if positions is not None and axis is None:
        places = fold(places, positions[0])  # of the block: as good, but bound to the batch
    elif positions is not None and axis is not None:
        places = fold(places, _along(positions, axis, len(lengths)))
    elif axis is not None:
        lengths[axis] = 1
    last = len(lengths) - 1
    for place, length in enumerate(lengths):
        if length > 1 and place != last and (place != axis or positions is None):
            places = fold(places, _along(torch.arange(length, device=keys.device), place, len(lengths)))
    row_shape = [*lengths[:last], 1]
    if last == axis and positions is not None:  # one number a sample: a row each
        row_shape, width = lengths, 1
    else:
        width = lengths[last]
    rows = places.expand(row_shape).reshape(-1)
    return _bits(keys, rows, width, keep).reshape(len(keys), *lengths)


class Drop(torch.autograd.Function):
    """A dropout; a Function only because `torch.vmap` then shows it all passes at once."""

    @staticmethod
    def forward(  # noqa: D102
        values: Tensor,
        passes: Tensor,
        key: Tensor,
        probability: float,
        axis: int | None,
        positions: Tensor | None,
        mask_axes: int | None,
        alpha: bool,
        scaled: bool,
    ) -> Tensor:
        keep = keep_masks(
            fold(key, passes.reshape(1)), 1 - probability, values.shape,
            axis=axis, positions=positions, mask_axes=mask_axes,
        )  # fmt: skip
        return _masked(values, keep[0], probability, alpha=alpha, scaled=scaled)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:  # noqa: D102
        del ctx, inputs, output

    @staticmethod
    def vmap(info: Any, in_dims: tuple[int | None, ...], *inputs: Any) -> tuple[Tensor, int]:  # noqa: D102
        values, passes, key, probability, axis, positions, mask_axes, alpha, scaled = inputs
        del info
        if in_dims[0] is not None:
            values = values.movedim(in_dims[0], 0)
        keep = keep_masks(
            fold(key, passes), 1 - probability, values.shape if in_dims[0] is None else values.shape[1:],
            axis=axis, positions=positions, mask_axes=mask_axes,
        )  # fmt: skip
        return _masked(values, keep, probability, alpha=alpha, scaled=scaled), 0


def _masked(values: Tensor, keep: Tensor, probability: float, *, alpha: bool, scaled: bool) -> Tensor:
    if probability == 1:
        return values * keep
    if alpha:  # mean and variance stay those of the input (Klambauer et al. 2017, section 2)
        factor = 1 / math.sqrt((1 - probability) * (1 + probability * _SATURATED**2))
        kept = torch.where(keep, values, torch.full_like(values, _SATURATED))
        return kept * factor - factor * _SATURATED * probability
    return values * (1 / (1 - probability)) * keep


def _bits(keys: Tensor, rows: Tensor, width: int, keep: float) -> Tensor:
    """Booleans `(K, R, width)` of keys `(K,)` and rows `(R,)`, in pieces that stay in cache."""
    numbers = -(-width // _LANES)
    counters = torch.arange(1, numbers + 1, device=keys.device) * _GOLDEN
    threshold = round((1 - keep) * 2**16) - 2**15
    kept = torch.zeros((len(keys), len(rows), width), dtype=torch.bool, device=keys.device)
    if threshold >= 2**15:  # it would wrap around, and everything be kept
        return kept
    at_once = max(1, _CHUNK // numbers)
    for of_pass, key in zip(kept, keys, strict=True):
        for start in range(0, len(rows), at_once):
            seeds = _mix(rows[start : start + at_once] + key)
            lanes = _mix_(seeds[:, None] + counters).view(torch.int16)[:, :width]
            torch.ge(lanes, threshold, out=of_pass[start : start + at_once])
    return kept


def _along(values: Tensor, axis: int, ndim: int) -> Tensor:
    return values.reshape([-1 if place == axis else 1 for place in range(ndim)])


def _mix(numbers: Tensor) -> Tensor:
    return _mix_(numbers.clone())


def _mix_(numbers: Tensor) -> Tensor:
    """In place; every bit of the result depends on every bit."""
    shifted = torch.empty_like(numbers)
    for shift, factor in ((30, _FIRST), (27, _SECOND), (31, None)):
        torch.bitwise_right_shift(numbers, shift, out=shifted)
        numbers.bitwise_xor_(shifted.bitwise_and_(2 ** (64 - shift) - 1))  # the sign is no bit to copy
        if factor is not None:
            numbers.mul_(factor)
    return numbers

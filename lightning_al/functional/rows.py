"""ROWS: a big tensor is checked, and scored in pieces that stay in the cache.

    probabilities -> [checked] -> [by_rows] -> one number a row

A score written for a few rows costs a few megabytes beside its result, at any size of the pool.
Nothing here tracks gradients, and nothing writes into the caller's tensor.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any, get_args

import numpy as np
import torch
from torch import Generator, Tensor

from lightning_al.functional.shard import Shard

__all__ = [
    "FLOATING",
    "as_float",
    "by_numpy",
    "by_rows",
    "check_choice",
    "check_count",
    "check_generator",
    "check_real",
    "check_selection",
    "check_shard",
    "check_tensors",
    "checked",
    "dot_",
    "log2",
    "piece_size",
    "refuse_nan",
    "shard_of",
]

FLOATING = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
_WHOLE = (torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64)
_CHECKED_ROWS = 1000
# NumPy's logarithm is three times as fast as torch's where it has AVX-512 (Intel's SVML, in Linux), and
# slower elsewhere. Decided by the processor and not by trial: every process must find the same scores.
_FAST_NUMPY = sys.platform == "linux" and torch.backends.cpu.get_cpu_capability() == "AVX512"


def by_rows(score: Callable[[Tensor], Tensor], rows: Tensor, axes: int = 1) -> Tensor:
    """Scores of all rows, found piece by piece.

    Args:
        score: From `(..., *row)` in float32 or float64 to `(...)`; must not change its argument.
        rows: Any leading axes, contiguous or not; the last `axes` ones are a row's own.
        axes: How many axes a row has.

    Returns:
        Scores of the leading axes' shape, in float64 for float64 and float32 for all else.

    Example:
        >>> by_rows(lambda row: row.sum(-1), torch.ones(2, 3, 4))
        tensor([[4., 4., 4.],
                [4., 4., 4.]])
    """
    if rows.ndim > axes and 0 < rows.numel() <= piece_size(rows):
        with torch.no_grad():
            return score(as_float(rows))
    dtype = torch.float64 if rows.dtype == torch.float64 else torch.float32
    found = torch.empty(rows.shape[: rows.ndim - axes], dtype=dtype, device=rows.device)
    with torch.no_grad():
        _fill(score, rows, found)
    return found


def _fill(score: Callable[[Tensor], Tensor], rows: Tensor, found: Tensor) -> None:
    if found.numel() == 0:
        return
    if found.ndim == 0:
        found.copy_(score(as_float(rows[None]))[0])
        return
    if found.ndim > 1 and _leading_axes_merge(rows, found.ndim):
        rows, found = rows.flatten(0, found.ndim - 1), found.view(-1)
    fit = piece_size(rows) // max(1, rows[0].numel())
    if fit == 0 and found.ndim > 1:
        for part, place in zip(rows, found, strict=True):
            _fill(score, part, place)
        return
    for part, place in zip(torch.split(rows, max(1, fit)), torch.split(found, max(1, fit)), strict=True):
        place.copy_(score(as_float(part)))


def _leading_axes_merge(rows: Tensor, count: int) -> bool:
    """Whether flattening the leading axes makes a view: a copy would be as large as the pool."""
    shape, stride = rows.shape, rows.stride()
    return all(stride[axis] == stride[axis + 1] * shape[axis + 1] for axis in range(count - 1))


def piece_size(tensor: Tensor) -> int:
    """Elements worked on at once: what stays in the cache, or what fills an accelerator."""
    return 2**19 if tensor.device.type == "cpu" else 2**20


def as_float(tensor: Tensor) -> Tensor:
    """As it is if float32 or float64, else in float32."""
    return tensor if tensor.dtype in (torch.float32, torch.float64) else tensor.float()


def by_numpy(tensor: Tensor) -> bool:
    """Whether NumPy is the faster for such a tensor."""
    return _FAST_NUMPY and tensor.device.type == "cpu" and tensor.dtype == torch.float32


def log2(tensor: Tensor, *, out: Tensor | None = None) -> Tensor:
    """Logarithm to base 2; `out` may be the tensor itself. Numbers that are not normal may be slow.

    Example:
        >>> log2(torch.tensor([0.25, 1.0, 0.0]))
        tensor([-2.,  0., -inf])
    """
    if not by_numpy(tensor):
        return torch.log2(tensor, out=out)
    with np.errstate(divide="ignore", invalid="ignore"):
        found = np.log2(tensor.detach().numpy(), out=None if out is None else out.numpy())
    return torch.from_numpy(found) if out is None else out


def dot_(left: Tensor, right: Tensor) -> Tensor:
    """Sums of products over the last axis; may change `left`."""
    # NumPy's reads once, but has a price per row, rounds more the longer a row is, and needs NumPy 2.
    dense = 64 <= left.shape[-1] <= 2**14 and left.stride(-1) == right.stride(-1) == 1
    if dense and by_numpy(left) and hasattr(np, "vecdot"):
        with np.errstate(invalid="ignore"):  # zero times infinity: the caller looks for it
            return torch.from_numpy(np.vecdot(left.numpy(), right.detach().numpy()))
    return left.mul_(right).sum(-1)


def check_tensors(**values: Any) -> None:
    """Refuse what is no dense tensor, and would fail further on and in other words."""
    for name, value in values.items():
        if value is None:
            raise TypeError(f"`{name}` is `None`; needed is a tensor. Find out what should have made it.")
        if not isinstance(value, Tensor):
            raise TypeError(
                f"`{name}` is a `{type(value).__name__}`; needed is a tensor. Pass {_as_tensor(name, value)}."
            )
        if value.is_nested:
            raise TypeError(
                f"`{name}` is a nested tensor; needed are rows of one length. Pool each over what differs, "
                f"or pad: `torch.nested.to_padded_tensor({name}, 0.0)`."
            )
        if value.layout != torch.strided:
            raise TypeError(
                f"`{name}` has the layout {value.layout}; needed is a dense tensor. Pass `{name}.to_dense()`."
            )
        if value.is_meta:
            raise TypeError(
                f"`{name}` is on the meta device, where there are no numbers; needed is a tensor that has "
                'some. Make it on another device, such as "cpu".'
            )


def _as_tensor(name: str, value: Any) -> str:
    """What to write instead."""
    if isinstance(value, np.ma.MaskedArray):  # torch would read what is masked
        return f"`torch.as_tensor({name}.filled(value))`, with the value that is to count where it is masked"
    for method in ("to_numpy", "toarray"):  # of data frames and sparse matrices
        if hasattr(value, method):
            return f"`torch.as_tensor({name}.{method}())`"
    return f"`torch.as_tensor({name})`, which copies no array, mapped ones neither"


def check_real(**values: Tensor) -> None:
    """Refuse complex numbers, truth values, and types that nothing is computed in."""
    for name, value in values.items():
        if value.dtype not in FLOATING + _WHOLE:
            convert = f"{name}.abs()" if value.is_complex() else f"{name}.float()"
            raise TypeError(
                f"`{name}` is of type {value.dtype}; needed are real numbers. Convert, as with `{convert}`."
            )


def check_choice(choices: Any, **values: Any) -> None:
    """Refuse what is none of the words of a `Literal`."""
    words = get_args(choices)
    for name, value in values.items():
        if not isinstance(value, str) or value not in words:
            *others, last = (f'"{word}"' for word in words)
            raise ValueError(f"`{name}` is {value!r}; needed is {', '.join(others)} or {last}.")


def check_count(**values: Any) -> None:
    """Refuse counts that are not whole, or below 1."""
    for name, value in values.items():
        if isinstance(value, bool) or not isinstance(value, int | np.integer):
            raise TypeError(
                f"`{name}` is {value!r}; needed is a whole number, 1 or more. Convert it with `int`."
            )
        if value < 1:
            raise ValueError(f"`{name}` is {value}; it must be at least 1.")


def check_selection(query_size: Any, generator: Any, shard: Any) -> None:
    """Refuse what every selection is given, if it is of another kind."""
    check_count(query_size=query_size)
    check_generator(generator)
    check_shard(shard)


def check_generator(generator: Any) -> None:
    """Refuse seeds, and generators of another device than the CPU."""
    if generator is not None and not isinstance(generator, Generator):
        whole = isinstance(generator, int | np.integer) and not isinstance(generator, bool)
        seed = generator if whole else 0
        raise TypeError(
            f"`generator` is {generator!r}; needed is a `torch.Generator`, or `None` for torch's global one. "
            f"Pass `torch.Generator().manual_seed({seed})`."
        )
    if generator is not None and generator.device.type != "cpu":
        raise ValueError(
            f"`generator` is on {generator.device}; needed is one on the CPU, where draws are made for every "
            "device. Pass `torch.Generator()`."
        )


def check_shard(shard: Any) -> None:
    """Refuse what is none."""
    if shard is not None and not isinstance(shard, Shard):
        raise TypeError(
            f"`shard` is {shard!r}; needed is a `Shard`, or `None` where all rows are here. Pass "
            "`Shard.blocks(total, block_size, rank=rank, world_size=world_size, group=group)`."
        )


def shard_of(rows: Tensor, shard: Shard | None) -> Shard:
    """Which rows these are; `None`: all there are."""
    return Shard.whole(len(rows) if rows.ndim else 0) if shard is None else shard


def checked(probs: Tensor, name: str = "probs") -> Tensor:
    """The same tensor; logits handed in by mistake are refused, judged by a sample of rows."""
    check_tensors(**{name: probs})
    if probs.ndim == 0 or probs.shape[-1] == 0:
        raise ValueError(f"`{name}` has shape {tuple(probs.shape)}; needed is (..., C), C > 0.")
    lead = probs.shape[:-1]
    # An odd step does not look at the same pass of every sample when their number is even.
    step = max(1, lead.numel() // _CHECKED_ROWS) | 1
    places = torch.arange(0, lead.numel(), step, device=probs.device)
    for some in torch.split(places, max(1, piece_size(probs) // probs.shape[-1])):
        rows = probs.detach()[torch.unravel_index(some, lead)] if lead else probs.detach()[None]
        rows = as_float(rows)
        off = (rows.amin(-1) < -1e-3) | ((rows.sum(-1) - 1).abs() > 2e-2)
        if bool(off.any()):
            row = rows[off][0]
            raise ValueError(
                f"`{name}` holds a row {row[:4].tolist()} that sums to {float(row.sum()):.4g}; needed are "
                "probabilities, which sum to 1 over the last axis. Apply `softmax(-1)` to logits first."
            )
    return probs


def refuse_nan(scores: Tensor, name: str) -> Tensor:
    """The same scores; those of a NaN have no order."""
    nan = scores.isnan()
    if bool(nan.any()):
        rows = nan.reshape(len(nan), -1).any(1).nonzero().squeeze(1).tolist() if nan.ndim else [0]
        raise ValueError(
            f"`{name}` is NaN or infinite in rows {rows[:5]} ({len(rows)} of {len(nan) if nan.ndim else 1}); "
            "a score needs finite numbers. Find out which of the model's outputs are not."
        )
    return scores

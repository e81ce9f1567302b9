"""MATRICES: what rows must be to have distances between them; what is not gets one message."""

from __future__ import annotations

import torch
from torch import Tensor

from lightning_al.functional.rows import FLOATING, check_tensors
from lightning_al.functional.shard import Shard

__all__ = ["check_matrix", "check_width", "refuse_rows"]


def check_matrix(matrix: Tensor, name: str) -> None:
    """Refuse what is no floating-point matrix `(N, D)`, D > 0."""
    check_tensors(**{name: matrix})
    if matrix.dtype not in FLOATING:
        convert = f"Convert with `{name}.float()`"
        if matrix.is_complex():
            convert = f"Pass real and imaginary parts side by side: `torch.view_as_real({name}).flatten(1)`"
        elif matrix.is_quantized:
            convert = f"Convert with `{name}.dequantize()`"
        raise TypeError(
            f"`{name}` is of type {matrix.dtype}; needed are real floating-point numbers: float16, bfloat16, "
            f"float32 or float64. {convert}."
        )
    if matrix.ndim != 2 or matrix.shape[1] == 0:
        raise ValueError(
            f"`{name}` has shape {tuple(matrix.shape)}; needed is one vector a sample, (N, D) with D > 0. "
            "Pool over places or tokens first."
        )


def check_width(width: int, needed: int, names: tuple[str, str]) -> None:
    """Refuse rows of another width than those they are compared with; both by name."""
    if width != needed:
        raise ValueError(
            f"`{names[0]}` has {width} numbers a row, and `{names[1]}` has {needed}; needed are as many. "
            "Take both from the same layer of the same model."
        )


def refuse_rows(wrong: Tensor, rows: slice, name: str, shard: Shard, what: str, otherwise: str = "") -> None:
    """Raise an error that names some of consecutive rows held here; `otherwise` ends its advice."""
    every = torch.zeros(len(shard.positions), dtype=torch.bool)
    every[rows] = wrong.cpu()
    raise ValueError(
        f"`{name}` is {what} {shard.named(every)}; distances to them do not exist. Find out why, "
        f"and repair or leave them out{otherwise}."
    )

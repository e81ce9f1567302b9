"""ARITHMETIC: what distances are made with, whatever the user's own settings are.

float32 products in float32, without gradients, in pieces where rows are wide; rows of length one
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor

from lightning_al.functional.threads import one_thread_after_fork

__all__ = ["exact_arithmetic", "product_of", "unit_rows"]

_MULTIPLIED = 8192  # products that are added up so


@contextmanager
def exact_arithmetic() -> Iterator[None]:
    """Float32 products in float32, whatever the user allowed for training; no gradients. A decorator, too."""
    with one_thread_after_fork(), _highest_precision(), torch.no_grad(), _no_autocast():
        yield


@contextmanager
def _no_autocast() -> Iterator[None]:
    with ExitStack() as stack:
        for device in ("cpu", "cuda"):
            if torch.is_autocast_enabled(device):
                stack.enter_context(torch.autocast(device, enabled=False))
        yield


@contextmanager
def _highest_precision() -> Iterator[None]:
    """Torch has two ways to say it, and refuses the older one once the newer one was used."""
    places = (torch.backends.cuda, getattr(torch.backends, "mkldnn", None))
    matmuls = (getattr(place, "matmul", None) for place in places)
    newer: list[Any] = [matmul for matmul in matmuls if hasattr(matmul, "fp32_precision")]
    said = [m.fp32_precision for m in newer]
    try:
        before = torch.get_float32_matmul_precision()
    except RuntimeError:
        before = None
    if before is None:
        for matmul in newer:
            matmul.fp32_precision = "ieee"
    else:
        torch.set_float32_matmul_precision("highest")
    try:
        yield
    finally:
        if before is not None:
            torch.set_float32_matmul_precision(before)
        for matmul, precision in zip(newer, said, strict=True):  # the older way sets more than it reads
            matmul.fp32_precision = precision


def product_of(rows: Tensor, others: Tensor) -> Tensor:
    """Inner products `(n, m)`, in pieces where rows are so wide that equal numbers round to one side."""
    pieces = zip(torch.split(rows, _MULTIPLIED, 1), torch.split(others, _MULTIPLIED, 1), strict=True)
    first, its = next(pieces)
    found = first @ its.T
    for more, its in pieces:
        found.addmm_(more, its.T)
    return found


def unit_rows(rows: Tensor) -> Tensor:
    """Rows of length one."""
    length: Tensor = torch.linalg.vector_norm(rows, dim=1, keepdim=True)
    extreme = (length < 1e-15) | (length > 1e15)  # squares may be too small or too large to be numbers
    if bool(extreme.any()):
        rows = rows.clone()
        places = extreme.squeeze(1).nonzero().squeeze(1)
        some = rows[places].double()
        rows[places] = (some / some.abs().amax(1, keepdim=True)).to(rows.dtype)
        length = torch.linalg.vector_norm(rows, dim=1, keepdim=True)
    return rows / length

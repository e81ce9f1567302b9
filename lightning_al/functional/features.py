"""FEATURES: points and fixed centres on one scale, for k-means."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from lightning_al.functional.lloyd import ExactSums
from lightning_al.functional.matrices import check_matrix, check_width
from lightning_al.functional.vectors import Backend, Vectors

__all__ = ["comparable"]

_ROWS = 1024  # in float64 at once


def comparable(
    points: Tensor,
    fixed: Tensor | None,
    names: tuple[str, str],
    backend: Backend,
    scale_features: bool = False,
) -> tuple[Vectors, Vectors | None, float]:
    """Points and fixed centres, their range fit for squares; and what they were multiplied by.

    Args:
        points: What is clustered, `(n, D)`.
        fixed: Centres that stay, `(f, D)`, or `None`.
        names: Of both, for messages.
        backend: What makes distances on a CPU.
        scale_features: Give each feature mean 0 and deviation 1 over the points.

    Raises:
        TypeError: If one is no floating-point tensor.
        ValueError: If widths differ, or a row is not finite.
    """
    scale = Vectors.of_embeddings(points, backend=backend, name=names[0]).scale
    if fixed is not None:
        check_matrix(fixed, names[1])
        check_width(fixed.shape[1], points.shape[1], (names[1], names[0]))
        fixed = fixed.to(points.device) if len(fixed) else None
    if fixed is not None:
        scale = min(scale, Vectors.of_embeddings(fixed, name=names[1]).scale)
    mine, its = _plain(points, scale), None if fixed is None else _plain(fixed, scale)
    if scale_features and len(mine):
        mine, its = _standardised(mine, its)
    vectors = replace(Vectors.of_embeddings(mine, backend=backend), scale=1.0)
    return vectors, None if its is None else vectors.like(its), scale


def _plain(rows: Tensor, scale: float) -> Tensor:
    rows = rows.detach().to(torch.promote_types(rows.dtype, torch.float32))
    return rows if scale == 1 else rows * scale


def _standardised(points: Tensor, others: Tensor | None) -> tuple[Tensor, Tensor | None]:
    """Each feature with mean 0 and deviation 1 over the points; one that never changes there is 0 for all."""
    low, high = points.amin(0).double(), points.amax(0).double()
    middle, width = (low + high) / 2, torch.where(high > low, high - low, torch.inf)

    def unit(rows: Tensor) -> Tensor:
        return (rows.double() - middle) / width

    one = torch.ones_like(middle)
    sums, squares = (ExactSums(one, len(points), 1) for _ in range(2))
    for rows in torch.split(points, _ROWS):
        sums.add(torch.zeros(len(rows), dtype=torch.long, device=rows.device), unit(rows))
    mean = sums.total()[0] / len(points)
    for rows in torch.split(points, _ROWS):
        apart = (unit(rows) - mean).square_()
        squares.add(torch.zeros(len(rows), dtype=torch.long, device=rows.device), apart)
    deviation = torch.where(high > low, (squares.total()[0] / len(points)).sqrt(), 1.0)

    def standard(rows: Tensor) -> Tensor:
        # The others may be any number of deviations away; farther than this is far enough.
        parts = [((unit(part) - mean) / deviation).clamp_(-1e6, 1e6) for part in torch.split(rows, _ROWS)]
        return torch.cat(parts).float()

    return standard(points), None if others is None else standard(others)

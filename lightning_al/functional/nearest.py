"""NEAREST: which of some centres is nearest to each row, and how far it is.

    rows, centres -> fast: float32 products, by torch or FAISS -> within `Vectors.slack`
                  -> exact: `Vectors.exact` of the few that this leaves open

Every selection by distance comes here: k-center, D^2 sampling and k-means.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor

from lightning_al.functional.vectors import Vectors

__all__ = ["by_faiss", "exactly_nearest", "near", "nearest", "two_nearest"]

_FAISS_FROM = 32  # centres; for fewer, FAISS is the slower
_FAISS_WIDTH = 2**16  # of wider rows it sums up squares too roughly
_ROWS, _CENTERS = 1024, 256  # so many distances stay in the cache
_CELLS = 2**19  # distances that are looked at at once
_CANDIDATES = 4  # of more centres that may be the nearest, float64 is asked which are
_PAIR_NUMBERS = 2**19  # in float64 at once


def by_faiss(rows: Vectors, centers: int) -> bool:
    """Whether FAISS is the one to find out which centre is nearest.

    Measured: on a CPU it is as fast or faster from some centres on (benchmarks/k_center.py). Elsewhere than
    in Linux its wheels and torch's bring two runtimes of OpenMP that abort each other, so it is imported
    there on demand only (docs/faiss.md).
    """
    if rows.backend == "torch" or len(rows.factors) > 1 or rows.device.type != "cpu":
        return False
    if rows.dtype != torch.float32 or rows.width > _FAISS_WIDTH:
        return False
    return rows.backend == "faiss" or (sys.platform == "linux" and centers >= _FAISS_FROM)


# ---------------------------------------------------------------------- fast


def nearest(rows: Vectors, centers: Vectors) -> tuple[Tensor, Tensor]:
    """Squared distance to the nearest centre, `(n,)` in `rows.dtype`, within `slack`; and which it is."""
    distance, place, _ = two_nearest(rows, centers, count=1)
    return distance, place


def two_nearest(rows: Vectors, centers: Vectors, *, count: int = 2) -> tuple[Tensor, Tensor, Tensor]:
    """Squared distances to the nearest centre and the next, within `slack`, and which is the nearest.

    Args:
        rows: Any number, read in chunks.
        centers: At least one.
        count: 1: the next is not asked for, and infinitely far; as it is where there is none.

    Returns:
        Distance, place and distance of the next, `(n,)` each.
    """
    count = min(count, len(centers))
    first = torch.empty(len(rows), dtype=rows.dtype, device=rows.device)
    place = torch.empty(len(rows), dtype=torch.long, device=rows.device)
    second = torch.full_like(first, math.inf)
    others = centers.block(slice(None))
    if by_faiss(rows, len(centers)):
        import faiss

        with _faiss_threads():
            wanted = np.ascontiguousarray(others[0].numpy())
            for some in rows.chunks():
                found = faiss.knn(np.ascontiguousarray(rows.block(some)[0].numpy()), wanted, count)
                distances, places = (torch.from_numpy(part) for part in found)
                first[some], place[some] = distances[:, 0], places[:, 0]
                if count > 1:
                    second[some] = distances[:, 1]
        return first.clamp_min_(0), place, second.clamp_min_(0)
    halves = rows.squares_of(others) / 2
    for some in rows.chunks(len(centers)):
        block = rows.block(some)
        squares = rows.squares_of(block)
        closeness = rows.products(block, others).sub_(halves)
        value, place[some] = closeness.max(1)
        first[some] = squares - 2 * value
        if count > 1:
            rest = closeness.scatter_(1, place[some, None], -math.inf).amax(1)
            second[some] = squares - 2 * rest
    return first.clamp_min_(0), place, second.clamp_min_(0)


def near(rows: Vectors, centers: Vectors, squares: Tensor) -> Tensor:
    """The distances of `nearest` alone, of rows whose squared lengths are known.

    By torch unless FAISS was asked for: distances alone need no index.
    """
    if rows.backend == "faiss" and by_faiss(rows, len(centers)):
        return nearest(rows, centers)[0]
    others = centers.block(slice(None))
    halves = rows.squares_of(others) / -2
    tiles = [slice(start, start + _CENTERS) for start in range(0, len(halves), _CENTERS)]
    size = _ROWS if rows.device.type == "cpu" else 64 * _ROWS
    found = torch.empty_like(squares)
    for start in range(0, len(rows), size):
        some = slice(start, min(start + size, len(rows)))
        block = rows.block(some)
        closest: Tensor | None = None
        for tile in tiles:
            part = tuple(factor[tile] for factor in others)
            closeness = rows.products(block, part).add_(halves[tile]).amax(1)
            closest = closeness if closest is None else torch.maximum(closest, closeness)
        assert closest is not None
        torch.sub(squares[some], closest, alpha=2, out=found[some])
    return found.clamp_min_(0)


# ---------------------------------------------------------------------- exact


def exactly_nearest(
    rows: Vectors,
    centers: Vectors,
    *,
    tiny: float = 0.0,
    counted: Callable[[slice], Tensor] | None = None,
) -> tuple[Tensor, Tensor]:
    """Distance to the nearest centre as `Vectors.exact` has it, `(n,)` in float32, and the first one there.

    Args:
        rows: Few enough to lie in memory.
        centers: Any number.
        tiny: What squared distances may be off beside `Vectors.slack`.
        counted: Which centres count for some of the rows, `(rows, c)` or `(1, c)`; `None`: all.

    Returns:
        Distances, infinite without a centre, and places, then `len(centers)`.
    """
    distance = torch.full((len(rows),), math.inf, dtype=torch.float32, device=rows.device)
    place = torch.full((len(rows),), len(centers), dtype=torch.long, device=rows.device)
    size = max(1, _CELLS // max(1, len(centers)))
    for start in range(0, len(rows) if len(centers) else 0, size):
        some = slice(start, min(start + size, len(rows)))
        part = rows.like(*rows.given(some))
        left_out = None if counted is None else ~counted(some).expand(len(part), len(centers))
        distance[some], place[some] = _exactly_nearest(part, centers, tiny, left_out)
    return distance, place


def _exactly_nearest(
    rows: Vectors, centers: Vectors, tiny: float, left_out: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Of rows that are few enough for all distances at once."""
    best = _Best(rows, centers)
    found, squares = _distances(rows.ready(), centers, left_out), rows.squares()
    open_ = _may_be_least(rows, found, squares, tiny)
    # The likeliest first: nothing is nearer than a copy.
    likeliest = found.argmin(1, keepdim=True)
    first = open_ & torch.zeros_like(open_).scatter_(1, likeliest, True)
    best.ask(first)
    open_ &= ~first & best.may_be_lowered(open_.shape[1])
    many = (open_.sum(1) > _CANDIDATES).nonzero().squeeze(1)
    if len(many):
        # Equally far, perhaps, as corners of a cube are. In float64 nearly all intervals are one number.
        fine = rows.take(many).ready(torch.float64)
        found = _distances(fine, centers, None if left_out is None else left_out[many])
        squares = fine.squares()
        still = _may_be_least(rows, found, squares, tiny)
        low, high = rows.interval(squares[:, None], found, tiny)
        known = still & (low == high)
        row, center = known.nonzero().unbind(1)
        best.lower(many[row], center, low[known])
        open_[many] = still & ~known
    best.ask(open_ & best.may_be_lowered(open_.shape[1]))
    return best.distance, best.place


def _distances(rows: Vectors, centers: Vectors, left_out: Tensor | None) -> Tensor:
    """Squared distances `(n, c)` in the rows' dtype; infinite where they do not count."""
    parts = [
        rows.distances(slice(None), centers.like(*centers.given(slice(start, start + 512))).ready(rows.dtype))
        for start in range(0, len(centers), 512)
    ]
    found = torch.cat(parts, 1)
    return found if left_out is None else found.masked_fill_(left_out, math.inf)


def _may_be_least(rows: Vectors, found: Tensor, squares: Tensor, tiny: float) -> Tensor:
    """Which of each row's distances may be the least, given what they may be off."""
    least = found.amin(1)
    bar = least + rows.slack(squares, least).add_(tiny)
    bar += 1.01 * rows.slack(squares, bar).add_(tiny)  # the other one's
    return (found <= bar[:, None]) & found.isfinite()


class _Best:
    """The least distance known of every row, and the first centre at it."""

    def __init__(self, rows: Vectors, centers: Vectors) -> None:
        self.rows, self.centers = rows, centers
        self.distance = torch.full((len(rows),), math.inf, dtype=torch.float32, device=rows.device)
        self.place = torch.full((len(rows),), len(centers), dtype=torch.long, device=rows.device)

    def lower(self, row: Tensor, center: Tensor, distance: Tensor) -> None:
        """To these distances of pairs, where they are lower."""
        before = self.distance.clone()
        self.distance.scatter_reduce_(0, row, distance, "amin")
        self.place[self.distance < before] = len(self.centers)
        here = distance == self.distance[row]
        self.place.scatter_reduce_(0, row[here], center[here], "amin")

    def may_be_lowered(self, centers: int) -> Tensor:
        """Which pairs may still be of a lower distance, or of the same and of a centre before."""
        earlier = torch.arange(centers, device=self.place.device) < self.place[:, None]
        return (self.distance > 0)[:, None] | earlier

    def ask(self, pairs: Tensor) -> None:
        """Lower by the exact distances of these pairs of a row and a centre."""
        row, center = pairs.nonzero().unbind(1)
        size = max(1, _PAIR_NUMBERS // self.rows.width)
        for some, other in zip(torch.split(row, size), torch.split(center, size), strict=True):
            self.lower(some, other, self.rows.take(some).exact(self.centers.take(other)))


@contextmanager
def _faiss_threads() -> Iterator[None]:
    """As many as torch was told to use."""
    import faiss

    before = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(torch.get_num_threads())
    try:
        yield
    finally:
        faiss.omp_set_num_threads(before)

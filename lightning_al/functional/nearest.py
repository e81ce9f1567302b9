"""NEAREST: which of some centres is nearest to each row, and how far it is.

    rows, centres -> fast: float32 products, by torch or FAISS -> within `Vectors.slack`
                  -> exact: `Vectors.exact` of the few that this leaves open

Every selection by distance comes here: k-center, D^2 sampling and k-means.
"""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache

import numpy as np
import torch
from torch import Tensor

from lightning_al.functional.vectors import Vectors

__all__ = ["by_faiss", "exactly_nearest", "near", "nearest", "two_nearest"]

_FAISS_FROM = 32  # centres; for fewer, FAISS is the slower
_FAISS_WORTH = 2**25  # multiplications: for fewer, it is not even imported
_FAISS_WIDTH = 2**16  # of wider rows it sums up squares too roughly
_ROWS, _CENTERS = 1024, 256  # so many distances stay in the cache
_CELLS = 2**17  # distances that are looked at at once
_READY = 2048  # centres made ready at once
_NOWHERE = 2**62
_CANDIDATES = 4  # of more centres that may be the nearest, float64 is asked which are
_PAIR_NUMBERS = 2**19  # in float64 at once


def by_faiss(rows: Vectors, centers: int) -> bool:
    """Whether FAISS is the one to find out which centre is nearest.

    It and torch are tried once where there is enough to do: which is the faster depends on the processor, of
    which each has kernels of its own. Elsewhere than in Linux its wheels and torch's bring two runtimes of
    OpenMP that abort each other, so it is imported there on demand only (docs/faiss.md).
    """
    if rows.backend == "torch" or len(rows.factors) > 1 or rows.device.type != "cpu":
        return False
    if rows.dtype != torch.float32 or rows.width > _FAISS_WIDTH:
        return False
    if rows.backend == "faiss":
        return True
    enough = centers >= _FAISS_FROM and len(rows) * centers * rows.width >= _FAISS_WORTH
    return enough and sys.platform == "linux" and _faiss_is_fast(torch.get_num_threads())


@cache
def _faiss_is_fast(threads: int) -> bool:
    """Whether FAISS takes at most a tenth longer than torch here, on so many threads; a trial of 10 ms."""
    del threads
    rows = torch.arange(2**19, dtype=torch.float32).mul_(0.618).frac_().view(2048, 256)
    trial = {name: Vectors((rows,), backend=name) for name in ("torch", "faiss")}
    centers = Vectors((rows[:64],))
    seconds: dict[str, list[float]] = {name: [] for name in trial}
    for _ in range(4):  # the first loads the libraries
        for name, vectors in trial.items():
            begun = time.perf_counter()
            nearest(vectors, centers)
            seconds[name].append(time.perf_counter() - begun)
    return min(seconds["faiss"][1:]) <= 1.1 * min(seconds["torch"][1:])


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


def near(rows: Vectors, centers: Vectors, squares: Tensor, halves: Tensor | None = None) -> Tensor:
    """The distances of `nearest` alone, of rows whose squared lengths are known.

    By torch unless FAISS was asked for: distances alone need no index.

    Args:
        rows: Any number, read in chunks.
        centers: At least one.
        squares: Squared lengths of the rows.
        halves: Half of those of the centres, where they are known, too.
    """
    if rows.backend == "faiss" and by_faiss(rows, len(centers)):
        return nearest(rows, centers)[0]
    others = centers.block(slice(None))
    halves = rows.squares_of(others) / 2 if halves is None else halves
    size = rows.at_once(_ROWS)
    width = rows.at_once(_ROWS * _CENTERS) // max(1, min(size, len(rows)))
    tiles = [slice(start, start + width) for start in range(0, len(halves), width)]
    found = torch.empty_like(squares)
    for start in range(0, len(rows), size):
        some = slice(start, min(start + size, len(rows)))
        block = rows.block(some)
        closest: Tensor | None = None
        for tile in tiles:
            part = tuple(factor[tile] for factor in others)
            closeness = rows.products(block, part).sub_(halves[tile]).amax(1)
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
    best = _Best(rows)
    for first in range(0, len(centers), _READY):
        part = centers.like(*centers.given(slice(first, first + _READY)))
        ready = part.ready()
        size = max(1, rows.at_once(_CELLS) // len(part))
        for start in range(0, len(rows), size):
            some = slice(start, min(start + size, len(rows)))
            left_out = None if counted is None else ~counted(some)[:, first : first + _READY]
            _Meeting(best, some, part, first, tiny, left_out).settle(ready)
    return best.distance, best.place.clamp_(max=len(centers))


class _Best:
    """The least distance known of every row, and the first centre at it."""

    def __init__(self, rows: Vectors) -> None:
        self.rows = rows
        self.distance = torch.full((len(rows),), math.inf, dtype=torch.float32, device=rows.device)
        self.place = torch.full((len(rows),), _NOWHERE, dtype=torch.long, device=rows.device)

    def lower(self, row: Tensor, center: Tensor, distance: Tensor) -> None:
        """To these distances of pairs, where they are lower."""
        before = self.distance.clone()
        self.distance.scatter_reduce_(0, row, distance, "amin")
        self.place[self.distance < before] = _NOWHERE
        here = distance == self.distance[row]
        self.place.scatter_reduce_(0, row[here], center[here], "amin")


class _Meeting:
    """Some rows and some centres, few enough for all of their distances at once."""

    def __init__(
        self, best: _Best, some: slice, centers: Vectors, first: int, tiny: float, left_out: Tensor | None
    ) -> None:
        self.best, self.some, self.centers, self.first, self.tiny = best, some, centers, first, tiny
        self.rows = best.rows.like(*best.rows.given(some))
        self.left_out = None if left_out is None else left_out.expand(len(self.rows), len(centers))

    def settle(self, ready: Vectors) -> None:
        """Lower the best distances by those of these centres, which are also given ready."""
        rows = self.rows.ready()
        found, squares = rows.distances(slice(None), ready), rows.squares()
        if self.left_out is not None:
            found.masked_fill_(self.left_out, math.inf)
        open_ = self._may_be_least(found, squares, slice(None))
        # The likeliest first: nothing is nearer than a copy.
        likeliest = torch.zeros_like(open_).scatter_(1, found.argmin(1, keepdim=True), True)
        self._ask(open_ & likeliest)
        open_ &= ~likeliest & self._may_be_lowered()
        many = (open_.sum(1) > _CANDIDATES).nonzero().squeeze(1)
        if len(many):
            open_[many] = self._by_float64(many)
        self._ask(open_ & self._may_be_lowered())

    def _by_float64(self, many: Tensor) -> Tensor:
        """Which pairs of rows with many candidates are still open.

        Equally far, perhaps, as corners of a cube are; in float64 nearly all intervals are one number.
        """
        rows = self.rows.take(many).ready(torch.float64)
        found = rows.squares().new_empty(len(many), len(self.centers))
        for start in range(0, len(self.centers), _CENTERS):
            tile = slice(start, start + _CENTERS)
            part = self.centers.like(*self.centers.given(tile)).ready(torch.float64)
            found[:, tile] = rows.distances(slice(None), part)
        if self.left_out is not None:
            found.masked_fill_(self.left_out[many], math.inf)
        squares = rows.squares()
        still = self._may_be_least(found, squares, many)
        low, high = self.rows.interval(squares[:, None], found, self.tiny)
        known = still & (low == high)
        row, center = known.nonzero().unbind(1)
        self._lower(many[row], center, low[known])
        return still & ~known

    def _may_be_least(self, found: Tensor, squares: Tensor, which: slice | Tensor) -> Tensor:
        """Which distances of some rows may be the least of all, given what they may be off."""
        slack, least = self.rows.slack, found.amin(1)
        bar = least + slack(squares, least).add_(self.tiny)
        known = self.best.distance[self.some][which].to(found.dtype)
        known = (2 * known if self.rows.unit else known.square()) * (1 + 2**-20)  # it was rounded
        bar = torch.minimum(bar, known)
        bar += 1.01 * slack(squares, bar).add_(self.tiny)  # the other one's
        return (found <= bar[:, None]) & found.isfinite()

    def _may_be_lowered(self) -> Tensor:
        """Which pairs may still be of a lower distance, or of the same and of a centre before."""
        distance, place = self.best.distance[self.some], self.best.place[self.some]
        numbers = torch.arange(self.first, self.first + len(self.centers), device=place.device)
        return (distance > 0)[:, None] | (numbers < place[:, None])

    def _ask(self, pairs: Tensor) -> None:
        """The exact distances of these pairs of a row and a centre."""
        row, center = pairs.nonzero().unbind(1)
        size = max(1, self.rows.at_once(_PAIR_NUMBERS) // self.rows.width)
        for mine, its in zip(torch.split(row, size), torch.split(center, size), strict=True):
            self._lower(mine, its, self.rows.take(mine).exact(self.centers.take(its)))

    def _lower(self, row: Tensor, center: Tensor, distance: Tensor) -> None:
        self.best.lower(row + self.some.start, center + self.first, distance)


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

"""SEEDS: where k-means begins, by greedy k-means++ in arithmetic that has no error.

    points, weights -> whole numbers -> [drawn and compared] -> rows to begin with

Where k-means begins is a guess, so points may be rounded for it: to whole numbers so small that float32
holds every sum of their products. Then distances, their weighted sums and what is drawn by them are the same
on any machine, however the work is divided.
"""

from __future__ import annotations

import math

import torch
from torch import Generator, Tensor

from lightning_al.functional.vectors import Vectors

__all__ = ["greedy_seeds"]

_BLOCK_BYTES = 2**24  # distances to candidates that are kept at once


def greedy_seeds(
    points: Vectors, weights: Tensor, k: int, fixed: Vectors | None, generator: Generator | None
) -> Tensor:
    """Different points by greedy k-means++, `(k,)`; fewer where all others are copies of what is there.

    What is too near to be told apart in whole numbers is looked at again by itself, at a finer scale.
    """
    rows, count = points.factors[0], len(points)
    if fixed is not None:
        rows = torch.cat([rows, fixed.factors[0].to(rows.dtype)])
    given = torch.arange(count, len(rows), device=rows.device)
    draw = _Draw(weights, k, generator)
    if count == 0:
        return draw.chosen()
    cells = torch.zeros(len(rows), dtype=torch.long, device=rows.device)
    anchors = ((rows.amin(0).double() + rows.amax(0).double()) / 2)[None]
    while not draw.done:
        whole = _Whole.of(rows, anchors, cells)
        if whole is None:
            break
        draw.go_on(whole, whole.nearest(torch.cat([draw.chosen(), given]), count)[0])
        known = torch.cat([draw.chosen(), given])
        if not draw.done:
            cells, anchors = whole.nearest(known, len(rows))[1], rows[known].double()
    if len(draw.chosen()) + len(given) == 0:
        return torch.zeros(1, dtype=torch.long, device=rows.device)  # of copies, any
    return draw.chosen()


class _Whole:
    """Points relative to the anchors of their cells, in whole numbers.

    No longer than 2^12, so every sum of products of two is a whole number below 2^24, which float32 holds:
    matrix products have no error, in whatever order they are made. Other cells are infinitely far.
    """

    def __init__(self, numbers: Tensor, cells: Tensor) -> None:
        self.numbers, self.cells = numbers, cells
        self.squares: Tensor = torch.linalg.vecdot(numbers, numbers)
        self.parted = bool((cells != 0).any())

    @classmethod
    def of(cls, rows: Tensor, anchors: Tensor, cells: Tensor) -> _Whole | None:
        """`None` if no row differs from its anchor by more than float64 can tell."""
        pieces = [slice(start, start + 1024) for start in range(0, len(rows), 1024)]

        def apart(piece: slice) -> Tensor:
            return rows[piece].double() - anchors[cells[piece]]

        widest = max(float(torch.linalg.vector_norm(apart(piece), dim=1).max()) for piece in pieces)
        if widest < 1e-290:
            return None
        # The margin is more than the norm's own rounding, which must not decide between powers of two.
        room = (4096 - rows.shape[1] ** 0.5 / 2) / (widest * (1 + 2**-40))
        scale = 2.0 ** (math.frexp(room)[1] - 1)
        numbers = torch.empty(rows.shape, dtype=torch.float32, device=rows.device)
        for piece in pieces:
            numbers[piece] = (apart(piece) * scale).round_()
        return cls(numbers, cells) if bool(numbers.any()) else None

    def columns(self, which: Tensor, count: int) -> Tensor:
        """Squared distances of the first `count` rows to some, `(which, count)`."""
        found = (self.numbers[which] @ self.numbers[:count].T).mul_(-2)
        found.add_(self.squares[:count]).add_(self.squares[which, None])
        if self.parted:
            found.masked_fill_(self.cells[which, None] != self.cells[:count], math.inf)
        return found

    def nearest(self, which: Tensor, count: int) -> tuple[Tensor, Tensor]:
        """Squared distance to the nearest of some, and which it is, of several the first; `(count,)`."""
        near = torch.full_like(self.squares[:count], math.inf)
        place = torch.zeros(count, dtype=torch.long, device=near.device)
        done = 0
        for some in torch.split(which, max(1, _BLOCK_BYTES // (4 * count))):
            if len(some) == 0:
                break
            found = self.columns(some, count)
            best = found.amin(0)
            # Of equal ones torch names any.
            row = torch.arange(len(some), device=near.device)[:, None].expand_as(found)
            first = torch.where(found == best, row, len(some)).amin(0)
            place = torch.where(best < near, first + done, place)
            near = torch.minimum(near, best)
            done += len(some)
        return near, place


class _Draw:
    """Greedy k-means++ on whole numbers; sums of weighted distances have no error either.

    Candidates are drawn in blocks, by the distances at the block's beginning; which of a few is taken is
    decided by what it is worth now.
    """

    def __init__(self, weights: Tensor, k: int, generator: Generator | None) -> None:
        bits = max(0, 53 - 26 - len(weights).bit_length())
        self.weights = (weights * 2.0**bits).ceil_()
        self.k, self.generator = k, generator
        self._chosen: list[int] = []

    @property
    def trials(self) -> int:
        """How many candidates a seed: the first ones, which find the large clusters, are worth most."""
        return min(16, max(2, 750 // (1 + len(self._chosen))))

    @property
    def done(self) -> bool:
        return len(self._chosen) >= self.k

    def chosen(self) -> Tensor:
        return torch.tensor(self._chosen, dtype=torch.long, device=self.weights.device)

    def go_on(self, whole: _Whole, near: Tensor) -> None:
        """Choose until there are `k`, or every point is where a chosen one is."""
        while not self.done:
            fresh = bool(near.isinf().any())  # nothing chosen yet
            # As integers: a GPU adds floating-point numbers up in an order of its own, or refuses to.
            sums = (self.weights if fresh else self.weights * near).long().cumsum(0)
            if not float(sums[-1]) > 0:
                return
            near = self._choose(
                whole, near, math.inf if fresh else float(sums[-1]), self._candidates(sums, len(near))
            )

    def _candidates(self, sums: Tensor, count: int) -> Tensor:
        trials, chosen = self.trials, len(self._chosen)
        picks = min(max(1, chosen // 4), max(1, _BLOCK_BYTES // (4 * count * trials)), self.k - chosen)
        random = torch.rand(picks * trials, dtype=torch.float64, generator=self.generator)
        marks = (random.to(sums.device) * sums[-1]).long()
        return torch.searchsorted(sums, marks, right=True).clamp_max_(count - 1)

    def _choose(self, whole: _Whole, near: Tensor, total: float, candidates: Tensor) -> Tensor:
        columns = whole.columns(candidates, len(near))
        trials = self.trials
        pairs = zip(torch.split(columns, trials), torch.split(candidates, trials), strict=True)
        for some, where in pairs:
            lower = torch.minimum(some, near)
            worth = (lower.double() @ self.weights).tolist()
            best = worth.index(min(worth))
            if worth[best] < total:  # else all of them are copies
                near, total = lower[best], worth[best]
                self._chosen.append(int(where[best]))
        return near

"""NEARNESS: between which bounds the squared distance of every row to the nearest one drawn lies.

    vectors, what was drawn -> float32, within `Vectors.slack` -> [exact where asked] -> bounds

What was made exact once is exact for what was drawn until then: afterwards only what came since is asked.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from lightning_al.functional.nearest import exactly_nearest, near
from lightning_al.functional.vectors import Vectors

__all__ = ["Drawn", "Nearness", "Settled", "exact_squares"]


class Drawn:
    """Given and drawn rows in order, in a store that grows, ready for distances."""

    def __init__(self, vectors: Vectors) -> None:
        self.parts: list[Vectors] = []
        self.count = 0
        self.ready = vectors.take(torch.empty(0, dtype=torch.long)).ready()
        self._halves = self.ready.factors[0].new_empty(0)

    def __len__(self) -> int:
        return self.count

    def add(self, rows: Vectors) -> None:
        """Further rows."""
        self.parts.append(rows)
        start, self.count = self.count, self.count + len(rows)
        while self.count > len(self.ready):
            room = (torch.cat([part, part, part.new_empty(64, part.shape[1])]) for part in self.ready.factors)
            self.ready = self.ready.like(*room)
            self._halves = torch.cat([self._halves, self._halves, self._halves.new_empty(64)])
        block = rows.block(slice(None))
        for store, factor in zip(self.ready.factors, block, strict=True):
            store[start : self.count] = factor
        self._halves[start : self.count] = rows.squares_of(block) / 2

    def since(self, start: int) -> Vectors:
        """All from one on, ready for distances."""
        return self.ready.like(*(factor[start : self.count] for factor in self.ready.factors))

    def halves(self, start: int) -> Tensor:
        """Half of the squared lengths of all from one on."""
        return self._halves[start : self.count]

    def given(self, start: int = 0) -> Vectors:
        """All from one on, as they were given."""
        if len(self.parts) > 1:
            pairs = zip(*(part.given() for part in self.parts), strict=True)
            self.parts = [self.parts[0].like(*(torch.cat(factors) for factors in pairs))]
        every = self.parts[0]
        return every.like(*every.given(slice(start, None)))


class Settled:
    """Exact distances of some rows, and of how many of those drawn they know.

    Args:
        distance: As `Vectors.exact` has it, `(n,)` in float32; infinite where nothing is known.
        upto: How many that were drawn it is the least of, `(n,)`.
    """

    def __init__(self, distance: Tensor, upto: Tensor) -> None:
        self.distance, self.upto = distance, upto

    @classmethod
    def nothing(cls, like: Tensor) -> Settled:
        """Of as many rows."""
        return cls(torch.full_like(like, math.inf), torch.zeros_like(like, dtype=torch.int32))

    def settle(self, vectors: Vectors, which: Tensor, drawn: Drawn, tiny: float) -> Tensor:
        """Exact squared distances of these of the vectors to the nearest of all drawn, in float64."""
        for start in torch.unique(self.upto[which]).tolist():
            rows, centers = which[self.upto[which] == start], drawn.given(start)
            for some in torch.split(rows, max(1, vectors.at_once(2**16) // vectors.width)):
                found, _ = exactly_nearest(vectors.take(some), centers, tiny=tiny)
                self.distance[some] = torch.minimum(self.distance[some], found)
        self.upto[which] = len(drawn)
        return squared(self.distance[which], vectors)


class Nearness:
    """Bounds for all rows held here.

    Args:
        vectors: The rows.
        squares: Their squared lengths in float32.
        drawn: What the distances are to; grows.
        tiny: What squared distances may be off beside `Vectors.slack`.
    """

    def __init__(self, vectors: Vectors, squares: Tensor, drawn: Drawn, tiny: float) -> None:
        self.vectors, self.squares, self.drawn, self.tiny = vectors, squares, drawn, tiny
        self.seen = 0  # how many of those drawn the bounds know
        self.low = torch.full_like(squares, math.inf)
        self.high = torch.full_like(squares, math.inf)
        self.settled = Settled.nothing(squares)

    def approach(self) -> None:
        """Let all rows know all that was drawn."""
        if self.seen == len(self.drawn):
            return
        found = near(self.vectors, self.drawn.since(self.seen), self.squares, self.drawn.halves(self.seen))
        low, high = bounds(self.vectors, self.squares, found, self.tiny)
        torch.minimum(self.low, low, out=self.low)
        torch.minimum(self.high, high, out=self.high)
        self.seen = len(self.drawn)

    def settle(self, rows: Tensor) -> Tensor:
        """Exact squared distances of some rows, `(rows,)` in float64, when all that was drawn is known."""
        found = self.settled.settle(self.vectors, rows, self.drawn, self.tiny)
        rounded = found.float()
        self.low[rows] = torch.nextafter(rounded, torch.zeros_like(rounded))
        self.high[rows] = torch.nextafter(rounded, torch.full_like(rounded, math.inf))
        return found


def bounds(vectors: Vectors, squares: Tensor, found: Tensor, tiny: float) -> tuple[Tensor, Tensor]:
    """Between which numbers squared distances are, of those found and of squared lengths."""
    slack = vectors.slack(squares, found).add_(tiny)
    return (found - slack).clamp_min_(0), found + slack


def squared(distance: Tensor, vectors: Vectors) -> Tensor:
    """Squared distances in float64, of those that `exact` makes."""
    distance = distance.double()
    return 2 * distance if vectors.unit else distance.square_()


def exact_squares(rows: Vectors, centers: Vectors, tiny: float, before: Tensor | None = None) -> Tensor:
    """Exact squared distances of a few rows to the nearest of the first `before` centres, or of all."""
    if before is None:
        return squared(exactly_nearest(rows, centers, tiny=tiny)[0], rows)
    places, first = torch.arange(len(centers), device=before.device), before[:, None]
    found, _ = exactly_nearest(rows, centers, tiny=tiny, counted=lambda some: places < first[some])
    return squared(found, rows)

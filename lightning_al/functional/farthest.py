"""FARTHEST FIRST: all rows, and between which bounds the distance of each to its nearest centre lies.

    vectors, labelled vectors -> bounds -> [fronts of the largest] -> picks in order

A distance to the nearest centre, once made, can only fall: it bounds that row for good. So only the rows of
the largest bounds are looked at, the *front*; they are brought up to date, block by block of centres, until
they fall to what all others are bounded by; and among those that do not, centres are chosen as long as their
distance exceeds it. Labelled rows are centres like any other, most of which most rows never meet.

Of each row an interval is known that holds its distance as `Vectors.exact` gives it, rounded to float32.
Where intervals leave a choice open, they are narrowed in float64 until each is one number.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace

import torch
from torch import Tensor

from lightning_al.functional.front import LABELED, PICKS, Bar, Centers, Front
from lightning_al.functional.nearest import exactly_nearest, near, nearest
from lightning_al.functional.selection import largest_rows, order_of
from lightning_al.functional.shard import Shard
from lightning_al.functional.vectors import Vectors

__all__ = ["FarthestFirst"]

_ANCHORS = 64  # labelled rows that all rows meet, before each meets those around its nearest
_AROUND = 2**16  # rows that do so together
_CHUNK = 2048  # rows that meet the anchors at once
_SOME = 512  # rows that meet those around at once
_FRONT = 2048  # rows looked at in a round, at most
_LARGE_FRONT = 8192  # of a large pool, of which more fall before any is picked
_PER_FRONT = 128  # rows of the pool for each of a front, beyond the smaller one
_MET = 1024  # of these, brought up to date at once
_BLOCK = 128  # centres that they meet at once
_KEPT = 0.75  # when fewer are left, those that fell are left out of the product
_LIKELY = 256  # rows of a front whose distances are made exact before they are told to other ranks
_ROUGH = 0.03  # an interval longer than this part of a distance is better made in float64


class FarthestFirst:
    """The rows held here, and between which bounds each one's distance to its nearest centre lies.

    `upper` holds at any time; it is below 0 for rows that were picked. `lower` holds for the centres met:
    the first `seen` of each group.
    """

    def __init__(self, pool: Vectors, shard: Shard, centers: Centers, precise: bool) -> None:
        self.pool, self.shard, self.centers, self.precise = pool, shard, centers, precise
        self.positions = shard.positions.to(pool.device)
        self.upper = torch.full((len(pool),), torch.inf, dtype=torch.float32, device=pool.device)
        self.lower = self.upper.clone()
        self.squares = torch.empty_like(self.upper)
        self.seen = torch.zeros((2, len(pool)), dtype=torch.int32, device=pool.device)
        self.picked: list[int] = []
        self.distances: list[float] = []

    def until(self, count: int) -> None:
        """Pick until there are so many."""
        if count and not len(self.centers):
            self._pick_most_central()
        if len(self.picked) < count:
            self._look_at_all()
        while len(self.picked) < count:
            rows, bar = self._front(count)
            for group in (PICKS, LABELED):
                rows = self._brought_up_to_date(rows, group, bar)
            self._pick_among(rows, bar, count)

    # ------------------------------------------------------------------ all rows, once

    def _pick_most_central(self) -> None:
        """The row nearest to the mean."""
        mean = _mean(self.pool, self.shard)
        far = torch.empty_like(self.upper)
        center = mean if self.pool.origin is None else mean - self.pool.origin
        for rows in self.pool.chunks():
            part = self.pool.like(*self.pool.given(rows)).ready(torch.float64)
            far[rows] = self.pool.rounded((part.factors[0] - center).square_().sum(1))
        row = (far == far.amin()).nonzero()[0] if len(far) else self.positions
        where = self.shard.gather(torch.stack([far[row].double(), self.positions[row].double()], 1))
        best = int(where[order_of(*where.T, descending=False)[0], 1])
        mine = (self.positions == best).nonzero().squeeze(1)
        self.centers.add(self.pool.take(mine).gathered(self.shard))
        self.upper[mine] = -1
        self.picked.append(best)
        self.distances.append(torch.inf)

    def _look_at_all(self) -> None:
        """At some centres, and at those that are near to the nearest of them."""
        group = LABELED if self.centers.counts[LABELED] else PICKS
        count = self.centers.counts[group]
        first = min(_ANCHORS, max(16, math.isqrt(self.shard.total) // 6))
        first = count if count <= 2 * first else first
        anchors, others = self.centers.part(group, 0, first), self.centers.part(group, first, count)
        cells = _sorted_by(nearest(others, anchors)[1], first)
        anchors = anchors.ready()
        around, chunk = self.pool.at_once(_AROUND), self.pool.at_once(_CHUNK)
        for start in range(0, len(self.pool), around):
            stop = min(start + around, len(self.pool))
            place = torch.cat([self._meet_first(rows, anchors) for rows in _slices(start, stop, chunk)])
            if len(others):
                for mine, its in zip(_sorted_by(place, first), cells, strict=True):
                    if len(its):
                        self._meet_around(mine + start, others.take(its).ready())
        self.seen[group] = first

    def _meet_first(self, rows: slice, anchors: Vectors) -> Tensor:
        """Make the first bounds; which is the nearest."""
        ready = self.pool.like(*self.pool.given(rows)).ready()
        self.squares[rows] = ready.squares()
        found, place = nearest(ready, anchors)
        self._narrow(rows, *self.pool.interval(self.squares[rows], found))
        return place

    def _meet_around(self, every: Tensor, centers: Vectors) -> None:
        """Narrow bounds from above by some of the centres to be met later."""
        for rows in torch.split(every, self.pool.at_once(_SOME)):
            ready, squares = self._ready(rows), self.squares[rows]
            _, high = self.pool.interval(squares, near(ready, centers, squares))
            self.upper[rows] = torch.minimum(self.upper[rows], high)

    def _ready(self, rows: Tensor, dtype: torch.dtype = torch.float32) -> Vectors:
        """Some rows as distances are made of them."""
        return self.pool.take(rows).ready(dtype)

    def _narrow(self, rows: slice | Tensor, low: Tensor, high: Tensor) -> None:
        self.lower[rows] = torch.minimum(self.lower[rows], low)
        self.upper[rows] = torch.minimum(self.upper[rows], high)

    def _meet(self, rows: Tensor, ready: Vectors, centers: Vectors, bar: Bar) -> None:
        """Narrow bounds, the better the more depends on it."""
        squares = self.squares[rows]
        low, high = self.pool.interval(squares, near(ready, centers.ready(), squares))
        upper = torch.minimum(self.upper[rows], high)
        rough = (low < upper) & (upper >= bar.distance) & (high - low > _ROUGH * high)
        for these in _pieces(rough.nonzero().squeeze(1), self.pool.at_once(_SOME)):
            fine = self._ready(rows[these], torch.float64)
            squares = fine.squares()
            found = near(fine, centers.ready(torch.float64), squares)
            low[these], high[these] = self.pool.interval(squares, found)
        self._narrow(rows, low, high)

    # ------------------------------------------------------------------ the front

    def _front(self, count: int) -> tuple[Tensor, Bar]:
        """Rows held here of those with the largest bounds on all ranks, and what bounds the others."""
        most = max(_FRONT, min(_LARGE_FRONT, self.shard.total // _PER_FRONT))
        size = min(most, max(most // 4, 8 * count))
        rows = largest_rows(self.upper, size + 1)
        rows = rows[self.upper[rows] >= 0]
        upper, positions = self.upper[rows].double(), self.positions[rows]
        where = self.shard.gather(torch.stack([upper, positions.double()], 1))
        if len(where) <= size:
            return rows, Bar(-1.0, self.shard.total)
        distance, position = where[order_of(*where.T)[size]].tolist()
        rows = rows[(upper > distance) | ((upper == distance) & (positions < position))]
        return rows, Bar(distance, int(position))

    def _brought_up_to_date(self, rows: Tensor, group: int, bar: Bar) -> Tensor:
        """Those of the rows that do not fall below the bar when they have met all centres of a group."""
        rows = rows[self.seen[group, rows].argsort()]
        left = [self._updated(some, group, bar) for some in _pieces(rows, self.pool.at_once(_MET))]
        return torch.cat(left) if left else rows

    def _updated(self, rows: Tensor, group: int, bar: Bar) -> Tensor:
        """The same for rows in the order of how many centres they have met."""
        total, block = self.centers.counts[group], self.pool.at_once(_BLOCK)
        ready, seen = self._ready(rows), self.seen[group, rows].cpu()
        while len(rows) and int(seen[0]) < total:
            start = int(seen[0])
            stop = min(start - start % block + block, total)
            count = int((seen < stop).sum())
            centers = self.centers.part(group, start, stop)
            self._meet(rows[:count], _first(ready, count), centers, bar)
            self.seen[group, rows[:count]] = stop
            seen[:count] = stop
            kept = self.upper[rows] >= bar.distance
            if int(kept.sum()) < _KEPT * len(rows):
                places = kept.nonzero().squeeze(1)
                rows, ready, seen = rows[places], ready.take(places), seen[places.cpu()]
        return rows[self.upper[rows] >= bar.distance]

    def _settle(self, rows: Tensor, wanted: int) -> None:
        """Narrow the intervals of those that may be picked soonest to a number: most would be asked for.

        Every rank does so for its own; what is open after that, all of them settle in the front.
        """
        size = -(-min(_LIKELY, 4 * wanted) // self.shard.world_size)
        rows = rows[largest_rows(self.upper[rows], size)]
        rows = rows[self.lower[rows] < self.upper[rows]]
        if not len(rows):
            return
        part = self.pool.take(rows)
        found = [exactly_nearest(part, group)[0] for group in self.centers.all()]
        self.lower[rows] = self.upper[rows] = torch.stack(found).amin(0)

    def _pick_among(self, rows: Tensor, bar: Bar, count: int) -> None:
        self._settle(rows, count - len(self.picked))
        columns = (self.positions[rows], self.lower[rows], self.upper[rows])
        told = self.shard.gather(torch.stack([column.double() for column in columns], 1))
        positions, bounds = told[:, 0].long(), told[:, 1:].float()
        vectors = self.pool.take(rows).gathered(self.shard)
        front = Front(vectors, positions, bounds, self.centers, bar, self.precise)
        picks, distances = front.picks(count - len(self.picked))
        self.centers.add(vectors.take(torch.tensor(picks, dtype=torch.long)))
        self.picked += positions[picks].tolist()
        self.distances += distances
        order = positions.argsort()
        mine = order[torch.searchsorted(positions[order], self.positions[rows])]
        self.lower[rows] = torch.from_numpy(front.lower).to(rows.device)[mine]
        self.upper[rows] = torch.from_numpy(front.upper).to(rows.device)[mine]
        for group, met in enumerate(self.centers.counts):
            self.seen[group, rows] = met


# ---------------------------------------------------------------------- distances, rows and orders


def _pieces(rows: Tensor, size: int) -> list[Tensor]:
    return list(torch.split(rows, size)) if len(rows) else []


def _first(vectors: Vectors, count: int) -> Vectors:
    return vectors if count == len(vectors) else vectors.like(vectors.factors[0][:count])


def _slices(start: int, stop: int, size: int) -> Iterator[slice]:
    for begin in range(start, stop, size):
        yield slice(begin, min(begin + size, stop))


def _sorted_by(cells: Tensor, count: int) -> list[Tensor]:
    """The rows of each cell, ascending."""
    sizes = torch.bincount(cells, minlength=count).tolist()
    return list(torch.split(cells.argsort(stable=True), sizes))


def _mean(pool: Vectors, shard: Shard) -> Tensor:
    """Of the rows of all ranks, as `Vectors.exact` reads them; the same for any number of ranks.

    The leading bits of all numbers are summed without an error, and what the rest loses is lost in rounding.
    """
    plain = replace(pool, origin=None, dtype=torch.float64)
    largest = torch.zeros(1, dtype=torch.float64, device=pool.device)
    for rows in pool.chunks():
        largest = torch.maximum(largest, plain.block(rows)[0].abs().amax())
    largest = shard.gather(largest).max()
    grain = 2.0 ** (int(torch.frexp(largest).exponent) - 26)
    total = torch.zeros((1, 2, pool.width), dtype=torch.float64, device=pool.device)
    for rows in pool.chunks():
        block = plain.block(rows)[0]
        leading = (block / grain).round_()
        total[0, 0] += leading.sum(0)
        total[0, 1] += (block - leading * grain).sum(0)
    leading, rest = shard.gather(total).sum(0)
    mean: Tensor = (leading * grain + rest) / shard.total
    return mean

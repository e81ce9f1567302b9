"""LLOYD'S ALGORITHM: centres and their points, in the same steps on any machine.

    points, weights, first centres -> [nearest centres, weighted means, ...] -> centres that stay

Which centre is nearest is found in float32 and, where its error leaves that open, by `Vectors.exact`. Means
are of sums that have no error in any order, so a point that changes its cluster is added there and taken
back here, and a cluster that keeps its points keeps its centre: distances are made to those alone that moved.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from lightning_al.functional.nearest import exactly_nearest, two_nearest
from lightning_al.functional.vectors import Vectors

__all__ = ["ExactSums", "Lloyd"]

_PAIR_BYTES = 2**23  # rows in float64 that are compared exactly at once
_ROWS = 1024  # in float64 at once


class Lloyd:
    """Centres, and which of them is nearest to every point.

    Args:
        points: One factor, scale 1.
        weights: `(n,)` in float64, positive.
        centers: Where they begin, `(k, D)` in float64; all different.
        fixed: Further centres, which stay.
    """

    def __init__(self, points: Vectors, weights: Tensor, centers: Tensor, fixed: Vectors | None) -> None:
        self.points, self.weights, self.centers, self.fixed = points, weights, centers, fixed
        self.ready = points.ready()
        self.squares = self.ready.squares()
        count, device = len(points), points.device
        self.everyone = torch.arange(count, device=device)
        self.places = torch.zeros(count, dtype=torch.long, device=device)
        # In float32: to the nearest centre, and a bound for all others.
        self.distance = torch.full_like(self.squares, math.inf)
        self.others = torch.full_like(self.squares, math.inf)
        self.fixed_distance = torch.full_like(self.squares, math.inf)
        self.fixed_place = torch.zeros(count, dtype=torch.long, device=device)
        if fixed is not None:
            self._find_fixed(fixed)
        self.sums: ExactSums | None = None
        self.lost = False  # whether a cluster was ever without points

    def run(self, iterations: int) -> None:
        """Until no centre moves, or so often."""
        if len(self.centers) == 0:
            self.places = self.fixed_place
            return
        self._assign(self.everyone)
        self._sum_up()
        for _ in range(iterations):
            moved = self._move()
            if len(moved) == 0:
                return
            before = self.places.clone()
            self._follow(moved)
            self._change(before)

    # ------------------------------------------------------------------ which centre is nearest

    def _find_fixed(self, fixed: Vectors) -> None:
        pieces = torch.split(torch.arange(len(fixed), device=self.points.device), 4096)
        for piece in pieces:
            some = fixed.take(piece)
            distance, place = self._nearest_of(self.everyone, some)
            closer = self._closer(some, place, distance, piece)
            self.fixed_distance = torch.where(closer, distance, self.fixed_distance)
            self.fixed_place = torch.where(closer, piece[place], self.fixed_place)

    def _closer(self, some: Vectors, place: Tensor, distance: Tensor, piece: Tensor) -> Tensor:
        """Where these are nearer than the fixed ones before them, which are preferred."""
        closer = distance < self.fixed_distance
        open_ = self._contested(self.squares, distance, self.fixed_distance)
        open_ |= self._contested(self.squares, self.fixed_distance, distance)
        rows = (open_ & self.fixed_distance.isfinite()).nonzero().squeeze(1)
        assert self.fixed is not None
        new = self._exact(rows, some, place[rows])
        old = self._exact(rows, self.fixed, self.fixed_place[rows])
        closer[rows] = new < old
        return closer

    def _contested(self, squares: Tensor, best: Tensor, other: Tensor) -> Tensor:
        """Whether `other` may be as small as `best` but for rounding."""
        slack = self.points.slack
        return other - slack(squares, other) <= best + slack(squares, best)

    def _exact(self, rows: Tensor, centers: Vectors, places: Tensor) -> Tensor:
        size = max(1, _PAIR_BYTES // (8 * self.points.width))
        parts = [
            self.points.take(some).exact(centers.take(where))
            for some, where in zip(torch.split(rows, size), torch.split(places, size), strict=True)
        ]
        return torch.cat(parts) if parts else self.squares[:0]

    def _moving(self) -> Vectors:
        return self.points.like(self.centers)

    def _nearest_of(self, rows: Tensor, centers: Vectors) -> tuple[Tensor, Tensor]:
        """The nearest of some centres, exactly, ties to the first; its distance in float32."""
        first, place, second = two_nearest(self._ready(rows), centers.ready())
        open_ = self._contested(self._squares(rows), first, second).nonzero().squeeze(1)
        if len(open_):
            place[open_], first[open_] = self._decide(rows[open_], centers)
        return first, place

    def _ready(self, rows: Tensor) -> Vectors:
        return self.ready if len(rows) == len(self.points) else self.ready.take(rows)

    def _squares(self, rows: Tensor) -> Tensor:
        return self.squares if len(rows) == len(self.points) else self.squares[rows]

    def _decide(self, rows: Tensor, centers: Vectors) -> tuple[Tensor, Tensor]:
        """The nearest centre, exactly; its squared distance in float32."""
        distance, place = exactly_nearest(self.points.take(rows), centers)
        return place, distance.square_()

    def _assign(self, rows: Tensor) -> None:
        """The nearest of all centres for these points."""
        squares, k = self._squares(rows), len(self.centers)
        centers = self._moving()
        first, place, second = two_nearest(self._ready(rows), centers.ready())
        open_ = self._contested(squares, first, second).nonzero().squeeze(1)
        if len(open_):
            second[open_] = first[open_]  # whichever of them is decided for
            place[open_], first[open_] = self._decide(rows[open_], centers)
        if self.fixed is not None:
            fixed, fixed_place = self.fixed_distance[rows], self.fixed_place[rows]
            closer = fixed < first
            unsure = self._contested(squares, first, fixed) | self._contested(squares, fixed, first)
            where = unsure.nonzero().squeeze(1)
            mine = self._exact(rows[where], centers, place[where])
            closer[where] = self._exact(rows[where], self.fixed, fixed_place[where]) < mine
            second = torch.where(closer, first, torch.minimum(second, fixed))
            first = torch.where(closer, fixed, first)
            place = torch.where(closer, k + fixed_place, place)
        self.distance[rows], self.others[rows], self.places[rows] = first, second, place

    def _follow(self, moved: Tensor) -> None:
        """Assign again after some centres moved; the others are as near as they were."""
        if 10 * len(moved) > 9 * len(self.centers):  # measured: nothing is gained then
            self._assign(self.everyone)
            return
        squares, k = self.squares, len(self.centers)
        centers = self._moving().take(moved)
        first, place, second = two_nearest(self.ready, centers.ready())
        away = torch.zeros(k + 1, dtype=torch.bool, device=moved.device)
        away[moved] = True
        own_moved = away[self.places.clamp_max(k)]
        # What has not moved is no nearer than this.
        rest = torch.where(own_moved, self.others, self.distance)
        behind = torch.minimum(first, rest)
        stays = ~own_moved & (first > rest) & ~self._contested(squares, behind, first)
        takes = (first < rest) & ~self._contested(squares, behind, rest)
        takes &= ~self._contested(squares, first, second)
        self.others = torch.where(stays, torch.minimum(self.others, first), self.others)
        lowest = torch.minimum(torch.minimum(self.others, rest), second)
        self.others = torch.where(takes, lowest, self.others)
        self.distance = torch.where(takes, first, self.distance)
        self.places = torch.where(takes, moved[place], self.places)
        unsure = (~stays & ~takes).nonzero().squeeze(1)
        if len(unsure):
            self._assign(unsure)

    # ------------------------------------------------------------------ where the centres are

    def _sum_up(self) -> None:
        count, width = self.points.factors[0].shape
        largest = torch.zeros(width + 1, dtype=torch.float64, device=self.points.device)
        for rows in torch.split(self.everyone, _ROWS):
            largest = torch.maximum(largest, self._weighted(rows).abs().amax(0))
        self.sums = ExactSums(largest, count, len(self.centers))
        self.counts = torch.zeros(len(self.centers), dtype=torch.long, device=self.points.device)
        self.changed = torch.zeros(len(self.centers), dtype=torch.bool, device=self.points.device)
        self._count(self.everyone, self.places, 1)

    def _weighted(self, rows: Tensor) -> Tensor:
        """Weight times the point, and the weight, in float64."""
        given = torch.nn.functional.pad(self.points.factors[0][rows].double(), (0, 1), value=1.0)
        return given.mul_(self.weights[rows, None])

    def _count(self, rows: Tensor, places: Tensor, sign: int) -> None:
        assert self.sums is not None
        mine = places < len(self.centers)
        for some, where in zip(torch.split(rows[mine], _ROWS), torch.split(places[mine], _ROWS), strict=True):
            self.sums.add(where, self._weighted(some) * sign)
            self.counts.index_add_(0, where, torch.full_like(where, sign))
            self.changed[where] = True

    def _change(self, before: Tensor) -> None:
        rows = (self.places != before).nonzero().squeeze(1)
        self._count(rows, before[rows], -1)
        self._count(rows, self.places[rows], 1)

    def _move(self) -> Tensor:
        """Put the centres whose points changed at their means; which ones are elsewhere now."""
        assert self.sums is not None
        full = (self.changed & (self.counts > 0)).nonzero().squeeze(1)
        total = self.sums.total(full)
        means = total[:, :-1] / total[:, -1:]
        moved = full[(means != self.centers[full]).any(1)]
        self.centers[full] = means
        self.changed[:] = False
        empty = (self.counts == 0).nonzero().squeeze(1)
        return torch.cat([moved, self._seed_again(empty)])

    def _seed_again(self, empty: Tensor) -> Tensor:
        """Put empty clusters where the most is to be gained; which found a place."""
        if len(empty) == 0:
            return empty
        self.lost = True
        cost = self.costs()
        for done, center in enumerate(empty.tolist()):
            largest = cost.max()
            if not bool(largest > 0):
                return empty[:done]
            row = (cost == largest).nonzero()[0]
            self.centers[center] = self.points.factors[0][row[0]].double()
            near = self._exact(self.everyone, self.points, row.expand(len(cost)))
            cost = torch.minimum(cost, near.double().square() * self.weights)
        return empty

    def costs(self) -> Tensor:
        """Weight times squared distance to the own centre, of exact distances."""
        k = len(self.centers)
        mine = self.places < k
        distance = torch.empty_like(self.squares)
        rows = mine.nonzero().squeeze(1)
        distance[rows] = self._exact(rows, self._moving(), self.places[rows])
        if self.fixed is not None:
            rows = (~mine).nonzero().squeeze(1)
            distance[rows] = self._exact(rows, self.fixed, self.places[rows] - k)
        return distance.double().square() * self.weights

    # ------------------------------------------------------------------ which points stand for them

    def nearest_points(self, count: int) -> Tensor:
        """For each centre in turn the nearest point not taken, then the heaviest of the rest."""
        taken = torch.zeros(len(self.points), dtype=torch.bool, device=self.points.device)
        chosen: list[int] = []
        for row in self._nearest_in_turn(taken):
            taken[row] = True
            chosen.append(row)
        rest = (~taken).nonzero().squeeze(1)
        heaviest = rest[self.weights[rest].sort(descending=True, stable=True).indices]
        return torch.cat([torch.tensor(chosen, dtype=torch.long, device=rest.device), heaviest])[:count]

    def _nearest_in_turn(self, taken: Tensor) -> Iterator[int]:
        if len(self.centers) == 0:
            return
        centers = self._moving()
        first, row, second = two_nearest(centers.ready(), self.ready)
        open_ = self._contested(centers.ready().squares(), first, second).nonzero().squeeze(1)
        row[open_] = exactly_nearest(centers.take(open_), self.points)[1]
        used: set[int] = set()
        for center, place in enumerate(row.tolist()):
            if place in used:
                one = centers.take(torch.tensor([center], device=taken.device))
                place = int(exactly_nearest(one, self.points, counted=lambda _: ~taken[None])[1])
            used.add(place)
            yield place


class ExactSums:
    """Sums of float64 numbers that come out the same in any order, and can be taken back.

    Each number is cut in two by bits that are fixed by its column, so few that their sums have no error:
    to about 2^-80 of the largest they are what a sum without rounding would be.

    Args:
        largest: Bound for each column, `(D,)`.
        count: Of how many numbers a sum is made at most.
        groups: How many sums.
    """

    def __init__(self, largest: Tensor, count: int, groups: int) -> None:
        bits = max(1, count).bit_length()
        top = torch.frexp(largest.clamp_min(1e-250)).exponent.double()
        # Adding and subtracting this rounds to a multiple of 2^(top + bits - 52).
        self.coarse = 1.5 * torch.exp2(top + bits)
        self.fine = 1.5 * torch.exp2(top + 2 * bits - 52)
        self.high = torch.zeros(groups, len(largest), dtype=torch.float64, device=largest.device)
        self.low = torch.zeros_like(self.high)

    def add(self, groups: Tensor, values: Tensor) -> None:
        """Rows of values to their groups' sums."""
        high = (values + self.coarse).sub_(self.coarse)
        low = (values - high).add_(self.fine).sub_(self.fine)
        self.high.index_add_(0, groups, high)
        self.low.index_add_(0, groups, low)

    def total(self, groups: Tensor | None = None) -> Tensor:
        """The sums of some groups, or all."""
        if groups is None:
            return self.high + self.low
        return self.high[groups] + self.low[groups]

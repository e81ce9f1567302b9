"""4 SELECTION by clusters: which of the most informative rows stand for all of them?

    embeddings, weights -> the heaviest rows -> [weighted k-means] -> one row a cluster

Everything that decides is exact: seeds are drawn on points rounded to whole numbers so small that their
float32 products have no error; sums are made of numbers with few enough bits; which centre is nearest is
found in float32 and, where its error leaves that open, by `Vectors.exact`. So the clusters are the same for
any number of threads and processes, backend and device.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from typing import Literal, NamedTuple, overload

import numpy as np
import torch
from torch import Generator, Tensor

from lightning_al.functional.rows import check_count, check_tensors
from lightning_al.functional.selection import top_k
from lightning_al.functional.shard import Shard
from lightning_al.functional.vectors import (
    Backend,
    Vectors,
    _faiss_threads,
    check_matrix,
    exact_arithmetic,
)

__all__ = ["Clusters", "diverse_mini_batch", "weighted_kmeans"]

_ITERATIONS = 100
_LEAST_WEIGHT = 2.0**-30  # of the largest: a point without weight has a cluster too
_BLOCK_BYTES = 2**24  # distances to candidates for a seed that are kept at once
_PAIR_BYTES = 2**23  # rows in float64 that are compared exactly at once
_CELLS = 2**20  # distances in float32 that are made at once


class Clusters(NamedTuple):
    """What `weighted_kmeans` found."""

    centers: Tensor
    """Weighted means of the clusters, `(k, D)`; fewer if fewer than `k` points differ."""
    assignments: Tensor
    """The centre nearest to each point, `(n,)`; from `len(centers)` on they are fixed ones."""
    inertia: float
    """Sum of weight times squared distance to that centre."""


def weighted_kmeans(
    points: Tensor,
    k: int,
    weights: Tensor | None = None,
    *,
    fixed: Tensor | None = None,
    iterations: int = _ITERATIONS,
    backend: Backend = "auto",
    generator: Generator | None = None,
) -> Clusters:
    """Weighted k-means: Lloyd's algorithm after greedy k-means++, until nothing changes.

    A cluster that loses its last point moves to the point that costs most where it is.

    Args:
        points: Vectors, `(n, D)`.
        k: How many centres.
        weights: What each point counts, `(n,)`, not negative; weights below 2^-30 of the largest count as
            that. `None`: all the same.
        fixed: Centres that have points and never move, `(m, D)`; they come beside the `k`.
        iterations: When to end at the latest.
        backend: What makes the distances on a CPU: `"faiss"`, `"torch"`, or what was found the faster; the
            clusters are the same.
        generator: Source of randomness; `None`: torch's global one.

    Returns:
        Centres, the centre of each point, and the inertia.

    Raises:
        TypeError: If a tensor is none, or not of floating-point numbers.
        ValueError: If shapes do not fit, or a number is not finite, or a weight negative.

    References:
        Arthur & Vassilvitskii, "k-means++: The Advantages of Careful Seeding", 2007, with the choice among
        several draws at each step; Lloyd, "Least squares quantization in PCM", 1982.
        Time O(n k D) an iteration, less where few centres still move; memory O(n D).

    Example:
        >>> import torch
        >>> points = torch.tensor([[0.0], [1.0], [9.0], [11.0]])
        >>> found = weighted_kmeans(points, 2, torch.tensor([1.0, 1.0, 3.0, 1.0]))
        >>> found.centers.sort(0).values.squeeze(1), found.inertia
        (tensor([0.5000, 9.5000]), 3.5)
    """
    check_count(k=k, iterations=iterations)
    check_matrix(points, "points")
    if weights is None:
        weights = torch.ones(len(points))
    _check_weights(weights, len(points), Shard.whole(len(points)))
    with exact_arithmetic(points.device):
        rows, others, scale = _comparable(points, fixed, "points", "fixed", backend)
        found = _cluster(rows, _positive(weights).to(points.device), k, others, iterations, generator)
        dtype = torch.float64 if points.dtype == torch.float64 else torch.float32
        centers = (found.centers / scale).to(dtype)
        return Clusters(
            centers, found.places, found.inertia(float(weights.max()) if len(weights) else 0.0, scale)
        )


@overload
def diverse_mini_batch(
    embeddings: Tensor,
    weights: Tensor,
    query_size: int,
    *,
    beta: float = ...,
    labeled: Tensor | None = ...,
    scale_features: bool = ...,
    backend: Backend = ...,
    generator: Generator | None = ...,
    shard: Shard | None = ...,
    return_scores: Literal[False] = ...,
) -> Tensor: ...
@overload
def diverse_mini_batch(
    embeddings: Tensor,
    weights: Tensor,
    query_size: int,
    *,
    beta: float = ...,
    labeled: Tensor | None = ...,
    scale_features: bool = ...,
    backend: Backend = ...,
    generator: Generator | None = ...,
    shard: Shard | None = ...,
    return_scores: Literal[True],
) -> tuple[Tensor, Tensor]: ...
def diverse_mini_batch(
    embeddings: Tensor,
    weights: Tensor,
    query_size: int,
    *,
    beta: float = 10,
    labeled: Tensor | None = None,
    scale_features: bool = False,
    backend: Backend = "auto",
    generator: Generator | None = None,
    shard: Shard | None = None,
    return_scores: bool = False,
) -> Tensor | tuple[Tensor, Tensor]:
    """One row of each of `query_size` clusters of the most informative rows.

    The `beta * query_size` heaviest rows are clustered by weighted k-means, and the row nearest to each
    centre is taken that no centre before it took. Of copies one is taken, while there are other rows.

    Args:
        embeddings: Vectors of the rows held here, `(n, D)`; only those of the heaviest are read.
        weights: How informative each row is, `(n,)`, not negative. All zero: all count the same. Ties at
            the `beta * query_size`-th go to the lowest position.
        query_size: How many to choose; with fewer rows than that, all are chosen.
        beta: How many rows are clustered for each one chosen, 1 or more; the more, the less informative.
        labeled: Vectors of labelled rows, `(m, D)`, all of them on every rank: centres that stay where they
            are, so that what is near them is not chosen.
        scale_features: Subtract the mean of each feature and divide by its standard deviation, over the
            clustered rows, so that no feature counts for its unit; labelled ones likewise.
        backend: What makes the distances on a CPU: `"faiss"`, `"torch"`, or what was found the faster; the
            rows chosen are the same.
        generator: Source of randomness, in the same state on every rank; `None`: torch's global one.
        shard: Which rows of the pool are held here; `None`: all of it.
        return_scores: Also return the weights of the chosen.

    Returns:
        Global positions `(min(query_size, N),)`, the same on every rank, heaviest first (ties: lowest
        position), and on request their weights.

    Raises:
        TypeError: If a tensor is none, or embeddings are not of floating-point numbers.
        ValueError: If shapes do not fit, or a number is not finite, or a weight negative.

    References:
        Zhdanov, "Diverse mini-batch Active Learning", 2019 (arXiv:1901.05954), section 3. Time of
        `weighted_kmeans` on `beta * query_size` rows, which every rank gets and keeps in memory.

    Example:
        >>> import torch
        >>> embeddings = torch.tensor([[0.0], [0.1], [5.0], [5.1], [9.0]])
        >>> diverse_mini_batch(embeddings, torch.tensor([0.9, 0.8, 0.7, 0.7, 0.1]), 2, beta=2)
        tensor([0, 2])
    """
    shard = _checked(embeddings, weights, query_size, beta, shard)
    count = max(query_size, math.ceil(beta * query_size))
    positions, weights = top_k(weights.detach(), count, shard=shard, return_scores=True)
    if len(positions) > query_size:
        place = positions.argsort()
        positions, weights = positions[place], weights[place]
        candidates = _rows_at(embeddings, positions, shard)
        with exact_arithmetic(embeddings.device):
            named = Shard(positions.cpu(), shard.total)
            rows, others, _ = _comparable(
                candidates, labeled, "embeddings", "labeled", backend, named, scale_features
            )
            found = _cluster(
                rows, _positive(weights).to(rows.device), query_size, others, _ITERATIONS, generator
            )
            chosen = found.nearest_points(query_size).sort().values.to(positions.device)
        positions, weights = positions[chosen], weights[chosen]
        order = weights.sort(descending=True, stable=True).indices
        positions, weights = positions[order], weights[order]
    return (positions, weights) if return_scores else positions


# ---------------------------------------------------------------------- what is given


def _checked(embeddings: Tensor, weights: Tensor, query_size: int, beta: float, shard: Shard | None) -> Shard:
    check_count(query_size=query_size)
    if isinstance(beta, bool) or not isinstance(beta, int | float) or not 1 <= beta < math.inf:
        raise ValueError(
            f"`beta` is {beta!r}; needed is a number, 1 or more: rows clustered for each chosen. Pass 10."
        )
    check_matrix(embeddings, "embeddings")
    shard = Shard.whole(len(embeddings)) if shard is None else shard
    if len(embeddings) != len(shard.positions):
        raise ValueError(
            f"`embeddings` has {len(embeddings)} rows, but `shard` says {len(shard.positions)} are here. "
            "Pass the rows of this rank alone."
        )
    _check_weights(weights, len(embeddings), shard)
    return shard


def _check_weights(weights: Tensor, count: int, shard: Shard) -> None:
    check_tensors(weights=weights)
    if weights.shape != (count,):
        raise ValueError(
            f"`weights` has shape {tuple(weights.shape)}; needed is one number for each of {count} rows. "
            "Reduce dense scores over their other axes first."
        )
    wrong = ~((weights >= 0) & (weights < math.inf))
    if bool(wrong.any()):
        where = shard.positions[wrong.cpu()][:5].tolist()
        raise ValueError(
            f"`weights` is negative, NaN or infinite at positions {where}; needed are finite numbers from 0 "
            "on. Shift or turn scores round so that 0 is the least informative, as in `1 - margin`."
        )


def _positive(weights: Tensor) -> Tensor:
    """In float64, the largest 1, none 0."""
    weights = weights.double()
    largest = float(weights.max()) if len(weights) else 0.0
    return torch.ones_like(weights) if largest == 0 else (weights / largest).clamp_min(_LEAST_WEIGHT)


def _rows_at(embeddings: Tensor, positions: Tensor, shard: Shard) -> Tensor:
    """Rows of the pool, wherever they are, in the order of their ascending positions."""
    places = positions.to(shard.positions.device)
    here = torch.isin(shard.positions, places, assume_unique=True).nonzero().squeeze(1)
    rows = embeddings.detach().index_select(0, here.to(embeddings.device))
    if shard.world_size == 1:
        return rows
    rows = rows.float() if rows.dtype == torch.bfloat16 else rows  # which not every backend gathers
    order = shard.gather(shard.positions[here]).argsort()
    return shard.gather(rows)[order.to(rows.device)]


def _comparable(
    points: Tensor,
    fixed: Tensor | None,
    name: str,
    other: str,
    backend: Backend,
    shard: Shard | None = None,
    scale_features: bool = False,
) -> tuple[Vectors, Vectors | None, float]:
    """Points and fixed centres, their range fit for squares; and what they were multiplied by."""
    vectors = Vectors.of_embeddings(points, backend=backend, name=name, shard=shard)
    scale, others = vectors.scale, None
    if fixed is not None:
        check_matrix(fixed, other)
        if fixed.shape[1] != points.shape[1]:
            raise ValueError(
                f"`{other}` has {fixed.shape[1]} numbers a row and `{name}` {points.shape[1]}; needed are as "
                "many. Take both from the same layer."
            )
        fixed = fixed.detach().to(points.device)
        others = Vectors.of_embeddings(fixed, backend=backend, name=other) if len(fixed) else None
        scale = min(scale, others.scale) if others is not None else scale

    def plain(rows: Tensor) -> Tensor:
        rows = rows.detach()
        rows = rows if rows.dtype in (torch.float32, torch.float64) else rows.float()
        return rows if scale == 1 else rows * scale

    mine, its = plain(points), None if others is None else plain(others.factors[0])
    if scale_features:
        mine, its = _standardised(mine, its)
    vectors = Vectors.of_embeddings(mine, backend=backend, name=name)
    vectors = replace(vectors, scale=1.0)
    return vectors, None if its is None else vectors.like(its), scale


def _standardised(points: Tensor, others: Tensor | None) -> tuple[Tensor, Tensor | None]:
    """Each feature with mean 0 and deviation 1 over the points; one that never changes is 0."""
    low, high = points.amin(0).double(), points.amax(0).double()
    middle = (low + high) / 2
    half = (high - low).clamp_min(1e-300)

    def unit(rows: Tensor) -> Tensor:
        return (rows.double() - middle) / half

    one = torch.ones(points.shape[1], device=points.device, dtype=torch.float64)
    sums = _ExactSums(one, len(points), 1)
    squares = _ExactSums(one, len(points), 1)
    for rows in torch.split(torch.arange(len(points), device=points.device), 1024):
        zero = torch.zeros_like(rows)
        sums.add(zero, unit(points[rows]))
    mean = sums.total()[0] / len(points)
    for rows in torch.split(torch.arange(len(points), device=points.device), 1024):
        zero = torch.zeros_like(rows)
        squares.add(zero, (unit(points[rows]) - mean).square())
    deviation = (squares.total()[0] / len(points)).sqrt()
    deviation = torch.where(high > low, deviation, 1.0)

    def standard(rows: Tensor) -> Tensor:
        parts = [((unit(part) - mean) / deviation).float() for part in torch.split(rows, 1024)]
        return torch.cat(parts)

    return standard(points), None if others is None else standard(others)


# ---------------------------------------------------------------------- clusters


def _cluster(
    points: Vectors,
    weights: Tensor,
    k: int,
    fixed: Vectors | None,
    iterations: int,
    generator: Generator | None,
) -> _Lloyd:
    seeds = _seeds(points, weights, k, fixed, generator)
    found = _Lloyd(points, weights, points.factors[0][seeds].double(), fixed)
    found.run(iterations)
    return found


class _Lloyd:
    """Centres, and which of them is nearest to every point.

    Args:
        points: One factor, scale 1.
        weights: `(n,)` in float64, positive.
        centers: Where they begin, `(k, D)` in float64; all different.
        fixed: Further centres, which stay.
    """

    def __init__(self, points: Vectors, weights: Tensor, centers: Tensor, fixed: Vectors | None) -> None:
        self.points, self.weights, self.centers, self.fixed = points, weights, centers, fixed
        self.rows = points.block(slice(None))[0]
        self.squares: Tensor = torch.linalg.vecdot(self.rows, self.rows)
        count, device = len(points), points.device
        self.everyone = torch.arange(count, device=device)
        self.places = torch.zeros(count, dtype=torch.long, device=device)
        # In float32: to the nearest centre, and a bound for all others.
        self.distance = torch.full((count,), math.inf, device=device)
        self.others = torch.full((count,), math.inf, device=device)
        self.fixed_distance = torch.full((count,), math.inf, device=device)
        self.fixed_place = torch.zeros(count, dtype=torch.long, device=device)
        if fixed is not None:
            self._find_fixed(fixed)
        self.sums: _ExactSums | None = None
        self.lost = False  # whether a cluster was ever without points

    def run(self, iterations: int) -> None:
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
        pieces = torch.split(torch.arange(len(fixed), device=self.rows.device), 4096)
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
        return torch.cat(parts) if parts else torch.empty(0, device=rows.device)

    def _moving(self) -> Vectors:
        return self.points.like(self.centers)

    def _nearest_of(self, rows: Tensor, centers: Vectors) -> tuple[Tensor, Tensor]:
        """The nearest of some centres, exactly, ties to the first; its distance in float32."""
        first, place, second = _two_nearest(self.points, self._block(rows), self._squares(rows), centers)
        open_ = self._contested(self._squares(rows), first, second).nonzero().squeeze(1)
        if len(open_):
            place[open_], first[open_] = self._decide(rows[open_], centers)
        return first, place

    def _block(self, rows: Tensor) -> Tensor:
        return self.rows if len(rows) == len(self.rows) else self.rows[rows]

    def _squares(self, rows: Tensor) -> Tensor:
        return self.squares if len(rows) == len(self.rows) else self.squares[rows]

    def _decide(self, rows: Tensor, centers: Vectors) -> tuple[Tensor, Tensor]:
        """The nearest centre by exact distances to all that may be it; its distance in float32."""
        places, distances = [], []
        wanted = centers.block(slice(None))[0]
        for some in torch.split(rows, max(1, _CELLS // len(wanted))):
            found = _distances(self.rows[some], self.squares[some], wanted)
            best = found.amin(1, keepdim=True)
            row, place = self._contested(self.squares[some, None], best, found).nonzero().unbind(1)
            exact = self._exact(some[row], centers, place)
            least = torch.full((len(some),), math.inf, device=exact.device)
            least.scatter_reduce_(0, row, exact, "amin")
            ties = exact == least[row]
            first = torch.full_like(some, len(wanted)).scatter_reduce_(0, row[ties], place[ties], "amin")
            places.append(first)
            distances.append(found.gather(1, first[:, None])[:, 0])
        return torch.cat(places), torch.cat(distances)

    def _assign(self, rows: Tensor) -> None:
        """The nearest of all centres for these points."""
        squares, k = self._squares(rows), len(self.centers)
        centers = self._moving()
        first, place, second = _two_nearest(self.points, self._block(rows), squares, centers)
        open_ = self._contested(squares, first, second).nonzero().squeeze(1)
        if len(open_):
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
        if 2 * len(moved) > len(self.centers):
            self._assign(self.everyone)
            return
        squares, k = self.squares, len(self.centers)
        centers = self._moving().take(moved)
        first, place, second = _two_nearest(self.points, self.rows, squares, centers)
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
        largest = torch.zeros(width + 1, dtype=torch.float64, device=self.rows.device)
        for rows in torch.split(self.everyone, 1024):
            largest = torch.maximum(largest, self._weighted(rows).abs().amax(0))
        self.sums = _ExactSums(largest, count, len(self.centers))
        self.counts = torch.zeros(len(self.centers), dtype=torch.long, device=self.rows.device)
        self.changed = torch.zeros(len(self.centers), dtype=torch.bool, device=self.rows.device)
        self._count(self.everyone, self.places, 1)

    def _weighted(self, rows: Tensor) -> Tensor:
        """Weight times the point, and the weight, in float64."""
        given = torch.nn.functional.pad(self.points.factors[0][rows].double(), (0, 1), value=1.0)
        return given.mul_(self.weights[rows, None])

    def _count(self, rows: Tensor, places: Tensor, sign: int) -> None:
        assert self.sums is not None
        mine = places < len(self.centers)
        for some, where in zip(torch.split(rows[mine], 1024), torch.split(places[mine], 1024), strict=True):
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
        cost = self._costs()
        for done, center in enumerate(empty.tolist()):
            largest = cost.max()
            if not bool(largest > 0):
                return empty[:done]
            row = (cost == largest).nonzero()[0]
            self.centers[center] = self.points.factors[0][row[0]].double()
            near = self._exact(self.everyone, self.points, row.expand(len(cost)))
            cost = torch.minimum(cost, near.double().square() * self.weights)
        return empty

    def _costs(self) -> Tensor:
        """Weight times squared distance to the own centre, of exact distances."""
        k = len(self.centers)
        mine = self.places < k
        distance = torch.empty(len(self.rows), device=self.rows.device)
        rows = mine.nonzero().squeeze(1)
        distance[rows] = self._exact(rows, self._moving(), self.places[rows])
        if self.fixed is not None:
            rows = (~mine).nonzero().squeeze(1)
            distance[rows] = self._exact(rows, self.fixed, self.places[rows] - k)
        return distance.double().square() * self.weights

    def inertia(self, largest: float, scale: float) -> float:
        if len(self.rows) == 0:
            return 0.0
        return math.fsum(self._costs().tolist()) * (largest or 1.0) / scale**2

    # ------------------------------------------------------------------ which points stand for them

    def nearest_points(self, count: int) -> Tensor:
        """For each centre in turn the nearest point not taken, then the heaviest of the rest."""
        taken = torch.zeros(len(self.rows), dtype=torch.bool, device=self.rows.device)
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
        wanted = centers.block(slice(None))[0]
        squares: Tensor = torch.linalg.vecdot(wanted, wanted)
        first, row, second = _two_nearest(self.points, wanted, squares, self.points)
        open_ = self._contested(squares, first, second).tolist()
        used: set[int] = set()
        for center, (place, unsure) in enumerate(zip(row.tolist(), open_, strict=True)):
            if unsure or place in used:
                distances = _distances(wanted[center, None], squares[center, None], self.rows)[0]
                distances[taken] = math.inf
                near = self._contested(squares[center], distances.min(), distances).nonzero().squeeze(1)
                exact = self._exact(near, centers, torch.full_like(near, center))
                place = int(near[exact == exact.min()][0])
            used.add(place)
            yield place


def _two_nearest(
    points: Vectors, block: Tensor, squares: Tensor, centers: Vectors
) -> tuple[Tensor, Tensor, Tensor]:
    """In float32: the distance to the nearest centre, which it is, and the distance to the next."""
    wanted = centers.block(slice(None))[0]
    count = len(wanted)
    if points._by_faiss(count):
        import faiss

        with _faiss_threads():
            found = faiss.knn(
                np.ascontiguousarray(block.numpy()), np.ascontiguousarray(wanted.numpy()), min(2, count)
            )
        distance, place = (torch.from_numpy(part) for part in found)
        distance.clamp_min_(0)
        second = distance[:, 1] if count > 1 else torch.full_like(distance[:, 0], math.inf)
        return distance[:, 0].clone(), place[:, 0].clone(), second.clone()
    half = torch.linalg.vecdot(wanted, wanted) / 2
    first, second = torch.empty_like(squares), torch.full_like(squares, -math.inf)
    place = torch.empty_like(squares, dtype=torch.long)
    size = max(1, _CELLS // count) * (1 if block.device.type == "cpu" else 16)
    for start in range(0, len(block), size):
        rows = slice(start, start + size)
        closeness = (block[rows] @ wanted.T).sub_(half)
        first[rows], place[rows] = closeness.max(1)
        if count > 1:
            second[rows] = closeness.scatter_(1, place[rows, None], -math.inf).amax(1)
    return (squares - 2 * first).clamp_min_(0), place, (squares - 2 * second).clamp_min_(0)


def _distances(block: Tensor, squares: Tensor, wanted: Tensor) -> Tensor:
    found = (block @ wanted.T).mul_(-2).add_(squares[:, None])
    return found.add_(torch.linalg.vecdot(wanted, wanted)).clamp_min_(0)


class _ExactSums:
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
        high = (values + self.coarse).sub_(self.coarse)
        low = (values - high).add_(self.fine).sub_(self.fine)
        self.high.index_add_(0, groups, high)
        self.low.index_add_(0, groups, low)

    def total(self, groups: Tensor | None = None) -> Tensor:
        if groups is None:
            return self.high + self.low
        return self.high[groups] + self.low[groups]


# ---------------------------------------------------------------------- seeds


def _seeds(
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
        numbers = torch.empty(rows.shape, device=rows.device)
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
        near = torch.full((count,), math.inf, device=self.numbers.device)
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
        return min(16, max(3, 1000 // (1 + len(self._chosen))))

    @property
    def done(self) -> bool:
        return len(self._chosen) >= self.k

    def chosen(self) -> Tensor:
        return torch.tensor(self._chosen, dtype=torch.long, device=self.weights.device)

    def go_on(self, whole: _Whole, near: Tensor) -> None:
        """Choose until there are `k`, or every point is where a chosen one is."""
        while not self.done:
            fresh = bool(near.isinf().any())  # nothing chosen yet
            sums = (self.weights if fresh else self.weights * near).cumsum(0)
            if not float(sums[-1]) > 0:
                return
            near = self._choose(
                whole, near, math.inf if fresh else float(sums[-1]), self._candidates(sums, len(near))
            )

    def _candidates(self, sums: Tensor, count: int) -> Tensor:
        trials, chosen = self.trials, len(self._chosen)
        picks = min(max(1, chosen // 4), max(1, _BLOCK_BYTES // (4 * count * trials)), self.k - chosen)
        random = torch.rand(picks * trials, dtype=torch.float64, generator=self.generator)
        marks = (random.to(sums.device) * sums[-1]).floor_()
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

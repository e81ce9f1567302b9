"""4 SELECTION by distance: rows that leave no other far from a labelled or chosen one.

    embeddings, labelled embeddings -> [farthest first] -> global positions

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
from dataclasses import dataclass, replace
from typing import Any, Literal, overload

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Generator, Tensor

from lightning_al.functional.rows import check_count
from lightning_al.functional.shard import Shard
from lightning_al.functional.vectors import Backend, Metric, Vectors, exact_arithmetic

__all__ = ["covering_radius", "k_center_greedy"]

Array = NDArray[Any]

_LABELED, _PICKS = 0, 1
_ANCHORS = 64  # labelled rows that all rows meet, before each meets those around its nearest
_AROUND = 2**16  # rows that do so together
_CHUNK = 2048  # rows that meet the anchors at once
_SOME = 512  # rows that meet those around at once
_FRONT = 2048  # rows looked at in a round, at most
_BLOCK = 128  # centres that they meet at once
_KEPT = 0.75  # when fewer are left, those that fell are left out of the product
_ROUGH = 0.03  # an interval longer than this part of a distance is better made in float64
_GUESSED = 64  # rows whose distances to all others of the front are made at once
_LIKELY = 256  # rows whose distances are made exact at once
_CANDIDATES = 4  # for more centres that may be the nearest, float64 is asked which are
_SETTLED = 2**19  # distances looked at for that at once
_PAIRS = 1024  # exact distances made at once


@overload
def k_center_greedy(
    embeddings: Tensor | Vectors,
    query_size: int,
    labeled: Tensor | None = ...,
    *,
    metric: Metric = ...,
    backend: Backend = ...,
    generator: Generator | None = ...,
    shard: Shard | None = ...,
    return_scores: Literal[False] = ...,
) -> Tensor: ...
@overload
def k_center_greedy(
    embeddings: Tensor | Vectors,
    query_size: int,
    labeled: Tensor | None = ...,
    *,
    metric: Metric = ...,
    backend: Backend = ...,
    generator: Generator | None = ...,
    shard: Shard | None = ...,
    return_scores: Literal[True],
) -> tuple[Tensor, Tensor]: ...
def k_center_greedy(
    embeddings: Tensor | Vectors,
    query_size: int,
    labeled: Tensor | None = None,
    *,
    metric: Metric = "euclidean",
    backend: Backend = "auto",
    generator: Generator | None = None,
    shard: Shard | None = None,
    return_scores: bool = False,
) -> Tensor | tuple[Tensor, Tensor]:
    """Farthest first: each pick is the row farthest from all that is labelled or was picked before.

    The covering radius of the result, the largest distance of a row to its nearest centre, is at most twice
    that of the best choice of as many rows. Outliers come first.

    Distances are made in float64 and those that are equal in float32 are equal; of these the row of the
    lowest position is picked. With nothing labelled the first pick is the row nearest to the mean of the
    pool (for cosine: of its rows divided by their lengths), which is infinitely far from what is before it.
    Copies are picked when nothing else is left, but no row twice.

    Args:
        embeddings: Rows held here, `(n, D)`, of any floating-point type; also over a memory-mapped file.
        query_size: How many to pick; with fewer rows than that, all are picked.
        labeled: The centres there are, `(L, D)`, all of them on every rank; `None` or no rows: none.
        metric: `"euclidean"`, or `"cosine"` for one minus the cosine.
        backend: `"torch"`, `"faiss"` (on a CPU), or what is the faster; the picks are the same.
        generator: Not used: nothing here is random.
        shard: Which rows of the pool are held here; `None`: all of it.
        return_scores: Also return the distance of each at its pick.

    Returns:
        Global positions `(min(query_size, N),)` in the order picked, the same on every rank, and on request
        the distances, in float32. They do not increase.

    Raises:
        TypeError: If the embeddings are no floating-point tensors.
        ValueError: If shapes do not fit, or a row is not finite or, for cosine, zero (named).

    References:
        Sener & Savarese, "Active Learning for Convolutional Neural Networks: A Core-Set Approach", 2018
        (arXiv:1708.00489), algorithm 1; Gonzalez, "Clustering to minimize the maximum intercluster
        distance", 1985. Cost: at most O(N (L + query_size) D) in large matrix products, of which usually a
        tenth is made; memory O(N + query_size D).

    Example:
        >>> import torch
        >>> k_center_greedy(torch.tensor([[1.0], [4.0], [9.0], [10.0]]), 3, labeled=torch.tensor([[0.0]]))
        tensor([3, 1, 0])
    """
    check_count(query_size=query_size)
    pool, labeled_rows = _checked(embeddings, labeled, "labeled", metric, backend, shard)
    shard = _checked_shard(pool, shard)
    with exact_arithmetic(pool.device):
        wanted = min(query_size, shard.total)
        search = _Search(pool, shard, _Centers(pool, labeled_rows, wanted), return_scores)
        search.until(wanted)
        positions = torch.tensor(search.picked, dtype=torch.long, device=pool.device)
        if not return_scores:
            return positions
        scores = torch.tensor(search.distances, dtype=torch.float64) / _unscaled(pool)
        return positions, scores.float().to(pool.device)


def covering_radius(
    embeddings: Tensor | Vectors,
    centers: Tensor | None,
    *,
    metric: Metric = "euclidean",
    backend: Backend = "auto",
    shard: Shard | None = None,
) -> float:
    """The largest distance of a row to its nearest centre: what `k_center_greedy` makes small.

    Args:
        embeddings: Rows held here, `(n, D)`, of any floating-point type; also over a memory-mapped file.
        centers: Labelled and chosen rows, `(L, D)`, all of them on every rank.
        metric: `"euclidean"`, or `"cosine"` for one minus the cosine.
        backend: As in `k_center_greedy`.
        shard: Which rows of the pool are held here; `None`: all of it.

    Returns:
        The same on every rank: infinity without centres, 0 without rows.

    Raises:
        TypeError: If the embeddings are no floating-point tensors.
        ValueError: If shapes do not fit, or a row is not finite or, for cosine, zero (named).

    References:
        Sener & Savarese, 2018 (arXiv:1708.00489), eq. 3. Cost: as for one pick.

    Example:
        >>> import torch
        >>> covering_radius(torch.tensor([[1.0], [4.0], [9.0]]), torch.tensor([[0.0], [10.0]]))
        4.0
    """
    pool, rows = _checked(embeddings, centers, "centers", metric, backend, shard)
    shard = _checked_shard(pool, shard)
    if shard.total == 0:
        return 0.0
    if len(rows) == 0:
        return float("inf")
    with exact_arithmetic(pool.device):
        search = _Search(pool, shard, _Centers(pool, rows, 1), True)
        search.until(1)
        return search.distances[0] / _unscaled(pool)


def _checked(
    embeddings: Tensor | Vectors,
    labeled: Tensor | None,
    name: str,
    metric: Metric,
    backend: Backend,
    shard: Shard | None,
) -> tuple[Vectors, Vectors]:
    """The pool and the labelled rows, comparable."""
    if isinstance(embeddings, Vectors):
        pool = embeddings
        metric = "cosine" if pool.unit else "euclidean"
    else:
        pool = Vectors.of_embeddings(embeddings, metric=metric, backend=backend, shard=shard)
    width = pool.width
    if labeled is None:
        return pool, pool.like(pool.factors[0].new_empty((0, width)))
    rows = Vectors.of_embeddings(labeled, metric=metric, backend=backend, name=name)
    if rows.width != width:
        raise ValueError(
            f"`{name}` has {rows.width} numbers a row, and `embeddings` has {width}; needed are as many. "
            "Take both from the same layer of the same model."
        )
    if len(rows) and rows.scale < pool.scale:
        origin = None if pool.origin is None else pool.origin * (rows.scale / pool.scale)
        pool = replace(pool, scale=rows.scale, origin=origin)
    return pool, pool.like(rows.factors[0].to(pool.device))


def _checked_shard(pool: Vectors, shard: Shard | None) -> Shard:
    shard = Shard.whole(len(pool)) if shard is None else shard
    if len(pool) != len(shard.positions):
        raise ValueError(
            f"`embeddings` has {len(pool)} rows, but `shard` says that {len(shard.positions)} are here. Pass "
            "this rank's rows and no others."
        )
    return shard


def _unscaled(pool: Vectors) -> float:
    """What distances are divided by, so that they are those of the rows as given."""
    return 1.0 if pool.unit else pool.scale


class _Centers:
    """Labelled rows, and picks: two groups, of which the second grows."""

    def __init__(self, pool: Vectors, labeled: Vectors, picks: int) -> None:
        self.groups = (labeled, pool.like(pool.factors[0].new_empty((picks, pool.width))))
        self.counts = [len(labeled), 0]

    def __len__(self) -> int:
        return sum(self.counts)

    def add(self, rows: Vectors) -> None:
        """Further picks."""
        count = self.counts[_PICKS]
        self.groups[_PICKS].factors[0][count : count + len(rows)] = rows.factors[0]
        self.counts[_PICKS] += len(rows)

    def part(self, group: int, start: int, stop: int) -> Vectors:
        """Consecutive centres of one group."""
        return self.groups[group].like(self.groups[group].factors[0][start:stop])

    def parts(self, size: int) -> Iterator[Vectors]:
        """All, in turn."""
        for group, count in enumerate(self.counts):
            for start in range(0, count, size):
                yield self.part(group, start, min(start + size, count))

    def take(self, places: Tensor) -> Tensor:
        """Some of all as they were given, in float64."""
        labeled, picks = (group.factors[0] for group in self.groups)
        rows = torch.empty((len(places), labeled.shape[1]), dtype=torch.float64, device=places.device)
        first = places < len(labeled)
        rows[first] = labeled.index_select(0, places[first]).double()
        rows[~first] = picks.index_select(0, places[~first] - len(labeled)).double()
        return rows


class _Search:
    """The rows held here, and between which bounds each one's distance to its nearest centre lies.

    `upper` holds at any time; it is below 0 for rows that were picked. `lower` holds for the centres met:
    the first `seen` of each group.
    """

    def __init__(self, pool: Vectors, shard: Shard, centers: _Centers, precise: bool) -> None:
        self.pool, self.shard, self.centers, self.precise = pool, shard, centers, precise
        self.positions = shard.positions.to(pool.device)
        self.upper = torch.full((len(pool),), torch.inf, device=pool.device)
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
            for group in (_PICKS, _LABELED):
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
            far[rows] = _rounded((part.factors[0] - center).square_().sum(1), self.pool)
        row = far.argmin()[None] if len(far) else self.positions
        where = torch.stack([far[row].double(), self.positions[row].double()], 1)
        best = int(_lexicographic(self.shard.gather(where), descending=False)[0, 1])
        mine = (self.positions == best).nonzero().squeeze(1)
        self.centers.add(self.pool.take(mine).gathered(self.shard))
        self.upper[mine] = -1
        self.picked.append(best)
        self.distances.append(torch.inf)

    def _look_at_all(self) -> None:
        """At some centres, and at those that are near to the nearest of them."""
        group = _LABELED if self.centers.counts[_LABELED] else _PICKS
        count = self.centers.counts[group]
        first = min(_ANCHORS, max(16, math.isqrt(self.shard.total) // 6))
        first = count if count <= 2 * first else first
        anchors, others = self.centers.part(group, 0, first), self.centers.part(group, first, count)
        cells = _sorted_by(others.nearest(anchors)[1], first)
        others, anchors = others.ready(), anchors.ready()
        for start in range(0, len(self.pool), _AROUND):
            stop = min(start + _AROUND, len(self.pool))
            nearest = torch.cat([self._meet_first(rows, anchors) for rows in _slices(start, stop, _CHUNK)])
            if len(others):
                for mine, its in zip(_sorted_by(nearest, first), cells, strict=True):
                    if len(its):
                        self._meet_around(mine + start, others.take(its))
        self.seen[group] = first

    def _meet_first(self, rows: slice, anchors: Vectors) -> Tensor:
        """Make the first bounds; which is the nearest."""
        ready = self.pool.like(*self.pool.given(rows)).ready()
        self.squares[rows] = ready.squares()
        found, place = ready.nearest(anchors)
        self._narrow(rows, *_interval(self.pool, ready, self.squares[rows], found))
        return place

    def _meet_around(self, every: Tensor, centers: Vectors) -> None:
        """Narrow bounds from above by some of the centres to be met later."""
        for rows in torch.split(every, _SOME):
            ready, squares = self._ready(rows), self.squares[rows]
            found = ready.near(centers, squares)
            high = _rounded(found + ready.slack(squares, found), self.pool)
            self.upper[rows] = torch.minimum(self.upper[rows], high)

    def _ready(self, rows: Tensor, dtype: torch.dtype = torch.float32) -> Vectors:
        """Some rows as distances are made of them."""
        return self.pool.take(rows).ready(dtype)

    def _narrow(self, rows: slice | Tensor, low: Tensor, high: Tensor) -> None:
        self.lower[rows] = torch.minimum(self.lower[rows], low)
        self.upper[rows] = torch.minimum(self.upper[rows], high)

    def _meet(self, rows: Tensor, ready: Vectors, centers: Vectors, bar: _Bar) -> None:
        """Narrow bounds, the better the more depends on it."""
        squares = self.squares[rows]
        found = ready.near(centers.ready(), squares)
        low, high = _interval(self.pool, ready, squares, found)
        upper = torch.minimum(self.upper[rows], high)
        rough = (low < upper) & (upper >= bar.distance) & (high - low > _ROUGH * high)
        if bool(rough.any()):
            these = rough.nonzero().squeeze(1)
            fine = self._ready(rows[these], torch.float64)
            squares = fine.squares()
            found = fine.near(centers.ready(torch.float64), squares)
            low[these], high[these] = _interval(self.pool, fine, squares, found)
        self._narrow(rows, low, high)

    # ------------------------------------------------------------------ the front

    def _front(self, count: int) -> tuple[Tensor, _Bar]:
        """Rows held here of those with the largest bounds on all ranks, and what bounds the others."""
        size = min(_FRONT, max(_FRONT // 4, 8 * count))
        rows = _largest_rows(self.upper, size + 1)
        rows = rows[self.upper[rows] >= 0]
        upper, positions = self.upper[rows].double(), self.positions[rows]
        where = self.shard.gather(torch.stack([upper, positions.double()], 1))
        if len(where) <= size:
            return rows, _Bar(-1.0, self.shard.total)
        distance, position = _lexicographic(where, descending=True)[size].tolist()
        rows = rows[(upper > distance) | ((upper == distance) & (positions < position))]
        return rows, _Bar(distance, int(position))

    def _brought_up_to_date(self, rows: Tensor, group: int, bar: _Bar) -> Tensor:
        """Those of the rows that do not fall below the bar when they have met all centres of a group."""
        total = self.centers.counts[group]
        rows = rows[self.seen[group, rows].argsort()]
        ready, seen = self._ready(rows), self.seen[group, rows].cpu()
        while len(rows) and int(seen[0]) < total:
            start = int(seen[0])
            stop = min(start - start % _BLOCK + _BLOCK, total)
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

    def _pick_among(self, rows: Tensor, bar: _Bar, count: int) -> None:
        positions = self.shard.gather(self.positions[rows])
        bounds = self.shard.gather(torch.stack([self.lower[rows], self.upper[rows]], 1))
        vectors = self.pool.take(rows).gathered(self.shard)
        front = _Front(vectors, positions, bounds, self.centers, bar, self.precise)
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


@dataclass(frozen=True)
class _Bar:
    """What the distances of all rows outside of the front are bounded by, and the first row at it."""

    distance: float
    position: int


class _Front:
    """The rows that may be picked next, the same on every rank.

    What is decided follows from exact distances alone, however wide the intervals: so ranks need not agree.
    """

    def __init__(
        self,
        vectors: Vectors,
        positions: Tensor,
        bounds: Tensor,
        centers: _Centers,
        bar: _Bar,
        precise: bool,
    ) -> None:
        self.vectors, self.centers, self.bar, self.precise = vectors, centers, bar, precise
        self.positions = positions.cpu().numpy()
        self.lower, self.upper = (side.copy() for side in bounds.cpu().numpy().T)
        self.ready = vectors.ready(torch.float64)
        self.squares = self.ready.squares()
        self.made: dict[int, tuple[Array, Array]] = {}
        self.chosen: list[int] = []

    def picks(self, count: int) -> tuple[list[int], list[float]]:
        """Rows to pick, in order, and how far each is at its pick."""
        distances: list[float] = []
        while len(self.chosen) < count:
            row = self._farthest()
            if row is None:
                break
            distances.append(float(self.upper[row]))
            self._pick(row)
        return self.chosen, distances

    def _farthest(self) -> int | None:
        """The next pick; `None` if it may be outside."""
        while len(self.lower):
            best = int(self.lower.argmax())
            bound = self.lower[best]
            if bound < 0:
                return None
            rivals = np.flatnonzero(self.upper >= bound)
            if len(rivals) > 1 or self.precise or bound <= self.bar.distance:
                if len(rivals) == 1 and self.upper[best] < self.bar.distance:
                    return None
                if (self.lower[rivals] != self.upper[rivals]).any():
                    self._settle(rivals)
                    continue
                best = int(rivals[self.positions[rivals].argmin()])
            if (bound, -self.positions[best]) < (self.bar.distance, -self.bar.position):
                return None
            return best
        return None

    def _pick(self, row: int) -> None:
        low, high = self._distances_to(row)
        np.minimum(self.lower, low, out=self.lower)
        np.minimum(self.upper, high, out=self.upper)
        self.lower[row] = self.upper[row] = -1
        self.chosen.append(row)

    def _distances_to(self, row: int) -> tuple[Array, Array]:
        """Of all rows of the front; made for some likely picks together."""
        if row not in self.made:
            likely = [place for place in np.argsort(-self.lower)[: 2 * _GUESSED] if place not in self.made]
            places = [row, *(int(place) for place in likely if place != row)][:_GUESSED]
            found = self.ready.take(torch.tensor(places)).distances(slice(None), self.ready)
            low, high = (
                side.cpu().numpy() for side in _interval(self.vectors, self.ready, self.squares, found)
            )
            for number, place in enumerate(places):
                self.made[place] = low[number], high[number]
        return self.made[row]

    # ------------------------------------------------------------------ what is open

    def _settle(self, rivals: Array) -> None:
        """Narrow the intervals of these rows to a number, and of those that will soon be rivals."""
        open_rows = np.flatnonzero(self.lower != self.upper)
        likely = open_rows[np.argsort(-self.upper[open_rows], kind="stable")[:_LIKELY]]
        open_rows = np.union1d(likely, rivals[self.lower[rivals] != self.upper[rivals]])
        size = max(1, _SETTLED // max(1, len(self.centers)))
        for start in range(0, len(open_rows), size):
            rows = open_rows[start : start + size]
            places = torch.from_numpy(rows).to(self.vectors.device)
            value = torch.minimum(self._to_centers(places), self._to_chosen(places))
            self.lower[rows] = self.upper[rows] = value.cpu().numpy()

    def _to_centers(self, places: Tensor) -> Tensor:
        """Exact distances of rows to the nearest of the centres before this front, or infinity if too far."""
        part = self.vectors.take(places)
        known = torch.from_numpy(self.upper).to(places.device)[places]
        found, reach = self._reach(part.ready(), known)
        many = ((found <= reach).sum(1) > _CANDIDATES).nonzero().squeeze(1)
        if len(many):
            found, reach = found.double(), reach.double()
            found[many], reach[many] = self._reach(part.take(many).ready(torch.float64), known[many])
        value = torch.full_like(known, torch.inf)
        if found.shape[1] == 0:
            return value
        nearest = found.argmin(1, keepdim=True)
        first = torch.zeros_like(found, dtype=torch.bool).scatter_(1, nearest, True)
        near = found <= reach
        self._lower_to(value, near & first, part)
        self._lower_to(value, near & ~first & (value > 0)[:, None], part)  # nothing is nearer than a copy
        return value

    def _reach(self, ready: Vectors, known: Tensor) -> tuple[Tensor, Tensor]:
        """Squared distances of rows to all centres before this front, and how large the smallest may be."""
        parts = [ready.distances(slice(None), part.ready(ready.dtype)) for part in self.centers.parts(512)]
        if not parts:
            return known.new_empty((len(known), 0), dtype=ready.dtype), known[:, None].to(ready.dtype)
        found = torch.cat(parts, 1)
        squares, best = ready.squares(), found.amin(1)
        known = known.to(ready.dtype)
        bound = (2 * known if self.vectors.unit else known.square()) * (1 + 2**-20)
        bound = torch.minimum(best + ready.slack(squares, best), bound)
        return found, (bound + 1.01 * ready.slack(squares, bound))[:, None]

    def _lower_to(self, value: Tensor, pairs: Tensor, part: Vectors) -> None:
        """Exact distances of these pairs of a row and a centre, where they are smaller."""
        rows, centers = pairs.nonzero().unbind(1)
        for start in range(0, len(rows), _PAIRS):
            row = rows[start : start + _PAIRS]
            others = part.like(self.centers.take(centers[start : start + _PAIRS]))
            value.scatter_reduce_(0, row, part.take(row).exact(others), "amin")

    def _to_chosen(self, places: Tensor) -> Tensor:
        """Exact distances of rows to the nearest chosen from this front, or infinity if they are too far."""
        rows = places.cpu().numpy()
        value = np.full(len(rows), np.inf, dtype=np.float32)
        for pick in self.chosen:
            low, high = (side[rows] for side in self.made[pick])
            open_rows = np.flatnonzero((low < high) & (low <= self.upper[rows]))
            if len(open_rows):
                these = places[torch.from_numpy(open_rows).to(places.device)]
                pick_rows = torch.full_like(these, pick)
                exact = self.vectors.take(these).exact(self.vectors.take(pick_rows))
                high[open_rows] = exact.cpu().numpy()
            np.minimum(value, high, out=value)
        return torch.from_numpy(value).to(places.device)


# ---------------------------------------------------------------------- distances, rows and orders


def _rounded(squares: Tensor, like: Vectors) -> Tensor:
    """Distances in float32 as they are compared."""
    return (squares / 2 if like.unit else squares.sqrt()).float()


def _interval(pool: Vectors, rows: Vectors, squares: Tensor, found: Tensor) -> tuple[Tensor, Tensor]:
    """Between which distances those of such squares lie."""
    slack = rows.slack(squares, found)
    return _rounded((found - slack).clamp_min_(0), pool), _rounded(found + slack, pool)


def _first(vectors: Vectors, count: int) -> Vectors:
    return vectors if count == len(vectors) else vectors.like(vectors.factors[0][:count])


def _slices(start: int, stop: int, size: int) -> Iterator[slice]:
    for begin in range(start, stop, size):
        yield slice(begin, min(begin + size, stop))


def _sorted_by(cells: Tensor, count: int) -> list[Tensor]:
    """The rows of each cell, ascending."""
    sizes = torch.bincount(cells, minlength=count).tolist()
    return list(torch.split(cells.argsort(stable=True), sizes))


def _largest_rows(values: Tensor, count: int) -> Tensor:
    """Rows of the largest values, largest first; of equal ones the first."""
    if len(values) > count:
        rows = (values >= values.topk(count).values[-1]).nonzero().squeeze(1)
    else:
        rows = torch.arange(len(values), device=values.device)
    return rows[values[rows].sort(descending=True, stable=True).indices[:count]]


def _lexicographic(pairs: Tensor, *, descending: bool) -> Tensor:
    """Pairs of a value and a position, by value, then by position."""
    pairs = pairs[pairs[:, 1].argsort()]
    return pairs[pairs[:, 0].sort(descending=descending, stable=True).indices]


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

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

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal, overload

import numpy as np
import torch
from torch import Generator, Tensor

from lightning_al.functional.rows import check_count
from lightning_al.functional.shard import Shard
from lightning_al.functional.vectors import Backend, Metric, Vectors, exact_arithmetic

__all__ = ["covering_radius", "k_center_greedy"]

_BLOCK = 128  # centres that a row meets at once
_FRONT = 2048  # rows looked at in a round
_GUESSED = 64  # rows whose distances to all others of the front are made at once
_SETTLED = 2**18  # distances that are narrowed at once
_ROUGH = 0.03  # an interval longer than this part of a distance is better made in float64


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
    """Labelled rows, then picks, in blocks."""

    def __init__(self, pool: Vectors, labeled: Vectors, picks: int) -> None:
        self.labeled = labeled
        self.picks = pool.like(pool.factors[0].new_empty((picks, pool.width)))
        self.picked = 0

    def __len__(self) -> int:
        return len(self.labeled) + self.picked

    def add(self, rows: Vectors) -> None:
        """Further picks."""
        self.picks.factors[0][self.picked : self.picked + len(rows)] = rows.factors[0]
        self.picked += len(rows)

    def blocks(self, start: int, size: int = _BLOCK) -> Iterator[tuple[int, int]]:
        """Where blocks from the one that holds centre `start` on begin and end; none is of both kinds."""
        for low, high in ((0, len(self.labeled)), (len(self.labeled), len(self))):
            for begin in range(low, high, size):
                if begin + size > start:
                    yield begin, min(begin + size, high)

    def part(self, start: int, stop: int) -> Vectors:
        """Centres of one block."""
        if start < len(self.labeled):
            return self.labeled.like(self.labeled.factors[0][start:stop])
        known = len(self.labeled)
        return self.picks.like(self.picks.factors[0][start - known : stop - known])

    def take(self, places: Tensor) -> Vectors:
        """Some centres, as `Vectors.exact` reads them."""
        known = len(self.labeled)
        rows = torch.empty((len(places), self.picks.width), dtype=torch.float64, device=places.device)
        first = places < known
        rows[first] = self.labeled.factors[0].index_select(0, places[first]).double()
        rows[~first] = self.picks.factors[0].index_select(0, places[~first] - known).double()
        return self.picks.like(rows)


def _rounded(squares: Tensor, like: Vectors) -> Tensor:
    """Distances in float32 as they are compared."""
    return (squares / 2 if like.unit else squares.sqrt()).float()


def _interval(pool: Vectors, rows: Vectors, squares: Tensor, found: Tensor) -> tuple[Tensor, Tensor]:
    """Between which distances those of such squares lie."""
    slack = rows.slack(squares, found)
    return _rounded((found - slack).clamp_min_(0), pool), _rounded(found + slack, pool)


class _Search:
    """The rows held here, and between which bounds each one's distance to its nearest centre lies.

    `upper` holds at any time; it is below 0 for rows that were picked. `lower` holds for the centres `seen`.
    """

    def __init__(self, pool: Vectors, shard: Shard, centers: _Centers, precise: bool) -> None:
        self.pool, self.shard, self.centers, self.precise = pool, shard, centers, precise
        self.positions = shard.positions.to(pool.device)
        self.upper = torch.full((len(pool),), torch.inf, device=pool.device)
        self.lower = self.upper.clone()
        self.seen = torch.zeros(len(pool), dtype=torch.int32, device=pool.device)
        self.picked: list[int] = []
        self.distances: list[float] = []

    def until(self, count: int) -> None:
        """Pick until there are so many."""
        if count and not len(self.centers):
            self._pick_most_central()
        if len(self.picked) < count:
            self._look_at_all()
        while len(self.picked) < count:
            bar = self._front()
            rows = self._brought_up_to_date(bar)
            self._pick_among(rows, bar, count)

    # ------------------------------------------------------------------ all rows, once

    def _look_at_all(self) -> None:
        """At the first block of centres."""
        start, stop = next(self.centers.blocks(0))
        centers = self.centers.part(start, stop)
        for rows in self.pool.chunks():
            part = self.pool.like(*self.pool.given(rows)).ready()
            found, _ = part.nearest(centers.ready())
            self._narrow(rows, *_interval(self.pool, part, part.squares(), found))
        self.seen.fill_(stop)

    def _narrow(self, rows: slice | Tensor, low: Tensor, high: Tensor) -> None:
        taken = self.upper[rows] < 0
        self.lower[rows] = torch.minimum(self.lower[rows], low).masked_fill_(taken, -1)
        self.upper[rows] = torch.minimum(self.upper[rows], high).masked_fill_(taken, -1)

    def _pick_most_central(self) -> None:
        """The row nearest to the mean."""
        mean = _mean(self.pool, self.shard)
        for rows in self.pool.chunks():
            part = self.pool.like(*self.pool.given(rows)).ready(torch.float64)
            center = mean if self.pool.origin is None else mean - self.pool.origin
            found = (part.factors[0] - center).square_().sum(1)
            self.upper[rows] = _rounded(found, self.pool)
        row = self.upper.argmin()[None] if len(self.pool) else self.positions
        where = torch.stack([self.upper[row].double(), self.positions[row].double()], 1)
        best = _lexicographic(self.shard.gather(where), descending=False)[0]
        mine = (self.positions == int(best[1])).nonzero().squeeze(1)
        self.centers.add(self.pool.take(mine).gathered(self.shard))
        self.upper.fill_(torch.inf)
        self.upper[mine] = -1
        self.picked.append(int(best[1]))
        self.distances.append(torch.inf)

    # ------------------------------------------------------------------ the front

    def _front(self) -> _Bar:
        """What the rows outside of the front of all ranks are bounded by."""
        count = _FRONT
        rows = _largest_rows(self.upper, count + 1)
        rows = rows[self.upper[rows] >= 0]
        where = torch.stack([self.upper[rows].double(), self.positions[rows].double()], 1)
        where = _lexicographic(self.shard.gather(where), descending=True)
        self.rows = rows
        if len(where) <= count:
            return _Bar(-1.0, self.shard.total)
        return _Bar(float(where[count, 0]), int(where[count, 1]))

    def _brought_up_to_date(self, bar: _Bar) -> Tensor:
        """Rows of the front that have met all centres and did not fall below the bar."""
        upper, positions = self.upper[self.rows], self.positions[self.rows]
        rows = self.rows[(upper > bar.distance) | ((upper == bar.distance) & (positions < bar.position))]
        rows = rows[self.seen[rows].sort(stable=True).indices]
        part = self.pool.take(rows)
        ready = part.ready()
        seen, squares = self.seen[rows], ready.squares()
        for start, stop in self.centers.blocks(int(seen[0]) if len(rows) else len(self.centers)):
            here = int((seen < stop).sum())
            if here == 0:
                continue
            centers = self.centers.part(max(start, int(seen[0])), stop)
            self._meet(rows[:here], part, _first(ready, here), squares[:here], centers, bar)
            self.seen[rows[:here]] = stop
            kept = self.upper[rows] >= bar.distance
            if not bool(kept.all()):
                places = kept.nonzero().squeeze(1)
                rows, seen, squares = rows[places], seen[places], squares[places]
                part, ready = part.take(places), ready.take(places)
            if len(rows) == 0:
                break
        return rows

    def _meet(
        self, rows: Tensor, part: Vectors, ready: Vectors, squares: Tensor, centers: Vectors, bar: _Bar
    ) -> None:
        found, _ = ready.nearest(centers.ready())
        low, high = _interval(self.pool, ready, squares, found)
        now = torch.minimum(self.upper[rows], high)
        rough = (low < now) & (now >= bar.distance) & (high - low > _ROUGH * high)
        if bool(rough.any()):
            places = rough.nonzero().squeeze(1)
            again = part.take(places).ready(torch.float64)
            found, _ = again.nearest(centers.ready(torch.float64))
            low[places], high[places] = _interval(self.pool, again, again.squares(), found)
        self._narrow(rows, low, high)

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
        self.seen[rows] = len(self.centers)


@dataclass(frozen=True)
class _Bar:
    """What the distances of all rows outside of the front are bounded by, and the first row at it."""

    distance: float
    position: int


class _Front:
    """The rows that may be picked next, the same on every rank."""

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
        self.before = len(centers)
        self.ready = vectors.ready(torch.float64)
        self.squares = self.ready.squares()
        self.made: dict[int, tuple[np.ndarray, np.ndarray]] = {}
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

    def _distances_to(self, row: int) -> tuple[np.ndarray, np.ndarray]:
        """Of all rows of the front; made for some likely picks together."""
        if row not in self.made:
            likely = [place for place in np.argsort(-self.lower)[: 2 * _GUESSED] if place not in self.made]
            places = [row, *(int(place) for place in likely if place != row)][:_GUESSED]
            centers = self.ready.take(torch.tensor(places))
            found = centers.distances(slice(None), self.ready)
            slack = self.ready.slack(self.squares, found)
            low = _rounded((found - slack).clamp_min_(0), self.vectors).cpu().numpy()
            high = _rounded(found + slack, self.vectors).cpu().numpy()
            for number, place in enumerate(places):
                self.made[place] = low[number], high[number]
        return self.made[row]

    # ------------------------------------------------------------------ what is open

    def _settle(self, rivals: np.ndarray) -> None:
        """Narrow the intervals of these rows to a number."""
        open_rows = rivals[self.lower[rivals] != self.upper[rivals]]
        size = max(1, _SETTLED // max(1, self.before))
        for start in range(0, len(open_rows), size):
            self._settle_some(open_rows[start : start + size])

    def _settle_some(self, rows: np.ndarray) -> None:
        places = torch.from_numpy(rows).to(self.vectors.device)
        part = self.ready.take(places)
        squares = self.squares[places][:, None]
        lows, highs = [], []
        for start, stop in self.centers.blocks(0, 512):
            found = part.distances(slice(None), self.centers.part(start, stop).ready(torch.float64))
            slack = part.slack(squares, found)
            lows.append(_rounded((found - slack).clamp_min_(0), self.vectors))
            highs.append(_rounded(found + slack, self.vectors))
        chosen = np.array(self.chosen, dtype=np.int64)
        for pick in self.chosen:
            low, high = self.made[pick]
            lows.append(torch.from_numpy(low[rows]).to(places.device)[:, None])
            highs.append(torch.from_numpy(high[rows]).to(places.device)[:, None])
        low, high = torch.cat(lows, 1), torch.cat(highs, 1)
        upper = high.amin(1)
        lower = low.amin(1)
        for number in (lower != upper).nonzero().squeeze(1).tolist():
            value = self._exact(int(rows[number]), low[number], upper[number], chosen)
            lower[number] = upper[number] = value
        self.lower[rows], self.upper[rows] = lower.cpu().numpy(), upper.cpu().numpy()

    def _exact(self, row: int, low: Tensor, upper: Tensor, chosen: np.ndarray) -> float:
        """The distance of one row to the nearest of the centres that may be it."""
        candidates = (low <= upper).nonzero().squeeze(1)
        before = candidates[candidates < self.before]
        since = candidates[candidates >= self.before] - self.before
        mine = self.vectors.take(torch.tensor([row]))
        best = float("inf")
        for centers in (
            self.centers.take(before),
            self.vectors.take(torch.from_numpy(chosen).to(since.device)[since]),
        ):
            if len(centers):
                repeated = mine.like(mine.factors[0].expand(len(centers), -1))
                best = min(best, float(repeated.exact(centers).min()))
        return best


# ---------------------------------------------------------------------- rows and orders


def _first(vectors: Vectors, count: int) -> Vectors:
    return vectors.like(vectors.factors[0][:count])


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

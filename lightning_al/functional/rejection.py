"""REJECTION: draws in proportion to squared distances, most of which are never made.

    vectors -> weights made earlier -> [proposals, of which some are accepted] -> global positions

A row is *proposed* in proportion to a weight that was made when fewer rows were chosen, and so is no lower
than its squared distance; and accepted with the probability distance / weight, for which the distance of
this row alone is needed. Both steps together are the exact law. When rejected proposals have cost as much as
new weights would, these are made.

Weights are distances rounded up to seven bits, and what rounding errors leave open, in a weight or in an
acceptance, is decided in float64 (`Vectors.exact`). Sums of such weights are exact in any order. So the same
random numbers make the same draw, however the rows are cut into chunks, threads or ranks.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Generator, Tensor

from lightning_al.functional.nearest import exactly_nearest, near
from lightning_al.functional.shard import Shard
from lightning_al.functional.vectors import Vectors

__all__ = ["Draw", "First"]

Array = NDArray[np.float64]

First = Literal["largest", "random"]

_PROPOSALS = 64  # tested together, with one exchange between ranks
_IN_VAIN = 32  # so many rounds of proposals refused ask for new weights, at any price
# What decides whether new weights are worth their price, in multiplications of numbers.
_PASS = 30  # reading a row is worth so many centres
_PROPOSAL = 2**20
_RENEWAL = 2**25
_HORIZON = 1000  # so many more picks are reckoned with at least
_AFTERWARDS = 1.6  # proposals a pick with new weights


class _Centers:
    """Given and chosen rows in order, in a store that grows, ready for distances."""

    def __init__(self, vectors: Vectors) -> None:
        self.parts: list[Vectors] = []
        self.count = 0
        self.ready = vectors.take(torch.empty(0, dtype=torch.long)).ready()

    def __len__(self) -> int:
        return self.count

    def add(self, rows: Vectors) -> None:
        """Further rows."""
        self.parts.append(rows)
        start, self.count = self.count, self.count + len(rows)
        while self.count > len(self.ready):
            room = (torch.cat([part, part, part.new_empty(64, part.shape[1])]) for part in self.ready.factors)
            self.ready = self.ready.like(*room)
        for store, factor in zip(self.ready.factors, rows.block(slice(None)), strict=True):
            store[start : self.count] = factor

    def since(self, start: int) -> Vectors:
        """All from one on, ready for distances."""
        return self.ready.like(*(factor[start : self.count] for factor in self.ready.factors))

    def given(self) -> Vectors:
        """All as they were given."""
        if len(self.parts) > 1:
            pairs = zip(*(part.given() for part in self.parts), strict=True)
            self.parts = [self.parts[0].like(*(torch.cat(factors) for factors in pairs))]
        return self.parts[0]


class Draw:
    """What was drawn, and the weights from which more is proposed; the same on every rank.

    Args:
        vectors: The rows held here.
        squares: Their squared lengths in float32.
        shard: Which rows of the pool these are.
        generator: Source of randomness.
        tiny: What squared distances may be off beside `Vectors.slack`.
    """

    def __init__(
        self,
        vectors: Vectors,
        squares: Tensor,
        shard: Shard,
        generator: Generator | None,
        tiny: float = 0.0,
    ) -> None:
        self.vectors, self.squares, self.shard, self.generator = vectors, squares, shard, generator
        self.tiny = tiny
        self.chosen: list[int] = []
        self.centers = _Centers(vectors)
        self.given = 0  # how many of them were not chosen here
        self.seen = 0  # how many of them the weights know
        self.near = torch.full_like(squares, math.inf)  # squared distances to the nearest of these
        self.weights = squares.new_empty(0)  # of all rows, by position, in units
        self.cumulative = squares.new_empty(0, dtype=torch.long)
        self.order: Tensor | None = None  # of the rows of all ranks, their positions
        self.unit = 1.0
        self.lately = 0.0, 0.0  # proposals and picks with these weights, the last ones most
        self.in_vain = 0  # rounds of proposals in a row of which none was accepted
        self.exhausted = False
        self.start = math.inf  # the score of the first, where nothing was given

    @property
    def fresh(self) -> int:
        """How many centres the weights do not know."""
        return len(self.centers) - self.seen

    def slack(self, squares: Tensor, distances: Tensor) -> Tensor:
        """How far squared distances may be off."""
        return self.vectors.slack(squares, distances).add_(self.tiny)

    # -------------------------------------------------------------- first

    def around(self, given: Vectors) -> None:
        """Centres that count as drawn before."""
        self.given = len(given)
        self.centers.add(given)

    def begin(self, first: First) -> None:
        """Draw the first where nothing was given."""
        if first == "random":
            position = int(self._uniform(1)[0] * self.shard.total)
        else:
            position, self.start = self._longest()
        self.chosen.append(position)
        self.around(self._collect(torch.tensor([position]))[0])
        self.given = 0

    def _longest(self) -> tuple[int, float]:
        """The position of the longest vector, and its squared length."""
        slack = self.slack(self.squares, self.squares)
        bar = self._most(self.squares - slack)
        rows = (self.squares + slack >= bar).nonzero().squeeze(1)
        best, position = -1.0, self.shard.total
        for some in torch.split(rows, _rows_at_once(self.vectors)):
            taken = self.vectors.take(some)
            lengths = taken.exact(taken.like(*(torch.zeros_like(factor) for factor in taken.factors)))
            most = max(lengths.tolist(), default=-1.0)
            if most > best:
                place = some[int((lengths == most).nonzero()[0])]
                best, position = most, int(self.shard.positions[int(place)])
        shortest, position = min(self.shard.gather_objects((-best, position)))
        return position, shortest**2

    # -------------------------------------------------------------- proposals

    def until(self, count: int) -> None:
        """Draw until that many are chosen."""
        while len(self.chosen) < count and not self.exhausted:
            if len(self.weights) == 0 or self._worthwhile():
                self._renew()
            else:
                self._propose(count)
        if len(self.chosen) < count:
            rest = torch.ones(self.shard.total, dtype=torch.bool)
            rest[self.chosen] = False
            left = rest.nonzero().squeeze(1)
            drawn = left[torch.randperm(len(left), generator=self.generator)]
            self.chosen += drawn[: count - len(self.chosen)].tolist()

    def _worthwhile(self) -> bool:
        """Whether new weights save more proposals than they cost; as many picks to come as there were."""
        price = _RENEWAL + self.shard.total * self.vectors.width * (_PASS + self.fresh)
        rate = self.lately[0] / max(self.lately[1], 0.5)
        saved = (rate - _AFTERWARDS) * max(_HORIZON, len(self.chosen))
        cheaper = saved * (_PROPOSAL + self.vectors.width * self.fresh) > price
        # Perhaps nothing but copies is left, which only new weights tell.
        return self.fresh > 0 and (cheaper or self.in_vain >= _IN_VAIN)

    def _propose(self, count: int) -> None:
        """Draw a fixed number of proposals, and accept some, in order."""
        numbers = self._uniform(2 * _PROPOSALS)
        total = int(self.cumulative[-1])
        targets = (numbers[:_PROPOSALS] * total).long().clamp_(max=total - 1)
        positions = torch.searchsorted(self.cumulative, targets.to(self.cumulative.device), right=True)
        bars = numbers[_PROPOSALS:] * (self.weights[positions].double().cpu() * self.unit)
        positions = positions.cpu()
        rows, distance, slack = self._collect(positions)
        ready = rows.ready()
        squares = ready.squares()
        if self.fresh:
            distance = torch.minimum(distance, near(ready, self.centers.since(self.seen), squares))
        among = ready.distances(slice(None), ready)
        slack = torch.maximum(slack, self.slack(squares, distance))
        before = len(self.chosen)
        known = [part.double().cpu().numpy() for part in (bars, distance, slack, among)]
        accepted, tried = self._accept(rows, positions.tolist(), known, count)
        self.lately = 0.3 * self.lately[0] + tried, 0.3 * self.lately[1] + len(self.chosen) - before
        self.in_vain = 0 if accepted else self.in_vain + 1
        if accepted:
            self.centers.add(rows.take(torch.tensor(accepted)))

    def _accept(
        self, rows: Vectors, positions: list[int], known: list[Array], count: int
    ) -> tuple[list[int], int]:
        """Which proposals are accepted, until enough are, and how many were looked at."""
        accepted: list[int] = []
        already = set(self.chosen)
        bars, distance, slack, among = known
        sure, unsure = distance + slack, distance - slack
        for number, position in enumerate(positions):
            bar = bars[number]
            if bar > sure[number] or position in already:
                continue
            if bar >= unsure[number] and bar >= self._exactly(rows, number, accepted):
                continue
            accepted.append(number)
            already.add(position)
            self.chosen.append(position)
            if len(self.chosen) == count:
                return accepted, number + 1
            np.minimum(sure, among[number] + slack, out=sure)
            np.minimum(unsure, among[number] - slack, out=unsure)
        return accepted, len(positions)

    def _exactly(self, rows: Vectors, number: int, accepted: list[int]) -> float:
        """The squared distance of a proposal to the nearest one chosen."""
        one = rows.take(torch.tensor([number]))
        found = float(_exact_squares(one, self.centers.given(), self.tiny)[0])
        if accepted:
            found = min(found, float(_exact_squares(one, rows.take(torch.tensor(accepted)), self.tiny)[0]))
        return found

    def _uniform(self, count: int) -> Tensor:
        return torch.rand(count, generator=self.generator, dtype=torch.float64)

    def _held(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Which of these positions are rows held here, and of which number."""
        mine = self.shard.positions
        if len(mine) == 0:
            return positions[:0], positions[:0]
        places = torch.searchsorted(mine, positions).clamp_(max=len(mine) - 1)
        which = (mine[places] == positions).nonzero().squeeze(1)
        return which, places[which].to(self.squares.device)

    def _collect(self, positions: Tensor) -> tuple[Vectors, Tensor, Tensor]:
        """Rows of these positions, from whichever ranks; their distances at the last renewal, and slack."""
        numbers, local = self._held(positions)
        taken, near = self.vectors.take(local), self.near[local]
        slack = self.slack(self.squares[local], near)
        factors = taken.given()
        if self.shard.world_size == 1:
            return taken, near, slack
        kind = torch.float64 if any(part.dtype == torch.float64 for part in factors) else torch.float32
        columns = [numbers[:, None].to(near.device), near[:, None], slack[:, None], *factors]
        packed = self.shard.gather(torch.cat([column.to(kind) for column in columns], 1))
        packed = packed[packed[:, 0].argsort()]
        widths = [part.shape[1] for part in factors]
        parts = torch.split(packed[:, 3:], widths, 1)
        return taken.like(*parts), packed[:, 1].float(), packed[:, 2].float()

    # -------------------------------------------------------------- weights

    def _renew(self) -> None:
        """Bring distances up to date, and make weights of them."""
        if self.fresh:
            self._approach()
            self.seen = self.centers.count
        slack = self.slack(self.squares, self.near)
        low = _rounded_up((self.near - slack).clamp_min_(0))
        high = _rounded_up(slack.add_(self.near))
        _, taken = self._held(torch.tensor(self.chosen, dtype=torch.long))
        low[taken] = 0
        high[taken] = 0
        # First the largest weight: it says from where down weights do not matter.
        bar = self._most(low)
        top = ((high > bar) & (low < high)).nonzero().squeeze(1)
        of_top = self._exact_weights(top)
        largest = max(bar, self._most(of_top))
        if largest == 0:
            self.exhausted = True
            return
        bits = self.shard.total.bit_length()
        floor = 2.0 ** (math.frexp(largest)[1] - 1 - min(6 + bits, 55 - bits))
        low[top] = high[top]
        open_ = ((low < high) & (high > floor)).nonzero().squeeze(1)
        weights = low.double()
        weights[open_] = self._exact_weights(open_)
        weights[top] = of_top
        weights.clamp_min_(floor)
        weights[taken] = 0
        # Whole numbers of up to seven bits and some zeros: int64 sums of them are exact.
        self.unit = floor / 64
        self._spread((weights / self.unit).float())
        self.in_vain = 0
        self.lately = 0.0, 0.0

    def _approach(self) -> None:
        """Bring distances up to date."""
        found = near(self.vectors, self.centers.since(self.seen), self.squares)
        torch.minimum(self.near, found, out=self.near)

    def _spread(self, weights: Tensor) -> None:
        """Let every rank know all weights, in order of position."""
        self.weights = self.shard.gather(weights)
        if self.shard.world_size > 1:
            if self.order is None:
                self.order = self.shard.gather(self.shard.positions).to(weights.device)
            self.weights = torch.empty_like(self.weights).index_copy_(0, self.order, self.weights)
        self.cumulative = self.weights.long().cumsum_(0)

    def _exact_weights(self, rows: Tensor) -> Tensor:
        """Of some rows held here, in float64."""
        found = self.squares.new_empty(len(rows), dtype=torch.float64)
        start = 0
        for some in torch.split(rows, _rows_at_once(self.vectors)):
            found[start : start + len(some)] = _exact_squares(
                self.vectors.take(some), self.centers.given(), self.tiny
            )
            start += len(some)
        return _rounded_up(found)

    def _most(self, values: Tensor) -> float:
        """The largest over all ranks; zero of none."""
        return float(max(self.shard.gather_objects(float(values.max()) if len(values) else 0.0)))

    # -------------------------------------------------------------- what comes out

    def result(self, unit: float, return_scores: bool) -> Tensor | tuple[Tensor, Tensor]:
        """Positions, and on request squared distances; distances were multiplied by `unit`."""
        positions = torch.tensor(self.chosen, dtype=torch.long, device=self.squares.device)
        return (positions, self._scores() / unit / unit) if return_scores else positions

    def _scores(self) -> Tensor:
        """The squared distance of every chosen row to the nearest before it; zero once all are."""
        scores = self.squares.new_zeros(len(self.chosen), dtype=torch.float64)
        if not self.chosen:
            return scores
        every = self.centers.given()
        before = torch.arange(max(1, self.given), len(every), device=scores.device)
        begin, end = (1 if self.given == 0 else 0), len(every) - self.given
        scores[begin:end] = _exact_squares(every.take(before), every, self.tiny, before)
        if self.given == 0:
            scores[0] = self.start
        return scores


def _rounded_up(values: Tensor) -> Tensor:
    """To seven bits: the lowest number of so many that is no lower; values not negative."""
    kind, drop = (torch.int64, 46) if values.dtype == torch.float64 else (torch.int32, 17)
    bits = values.view(kind) + ((1 << drop) - 1)
    return (bits >> drop << drop).view(values.dtype)


def _rows_at_once(vectors: Vectors) -> int:
    return max(1, 2**16 // vectors.width)


def _exact_squares(
    rows: Vectors, centers: Vectors, tiny: float = 0.0, before: Tensor | None = None
) -> Tensor:
    """Squared distances to the nearest centre as `exact` has it, `(n,)` in float64.

    Args:
        rows: Few enough to lie in memory.
        centers: Some.
        tiny: What squared distances may be off beside `Vectors.slack`.
        before: How many of the centres count for each row; `None`: all.
    """
    counted: Callable[[slice], Tensor] | None = None
    if before is not None:
        places = torch.arange(len(centers), device=before.device)

        def counted(some: slice) -> Tensor:
            return places < before[some, None]

    found = exactly_nearest(rows, centers, tiny=tiny, counted=counted)[0].double()
    return 2 * found if rows.unit else found.square_()

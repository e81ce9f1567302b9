"""REJECTION: draws in proportion to squared distances, most of which are never made.

    vectors -> weights made earlier -> [proposals, of which some are accepted] -> global positions

A row is *proposed* in proportion to a weight that was made when fewer rows were chosen, and so is no lower
than its squared distance; and accepted with the probability distance / weight, for which the distance of
this row alone is needed. Both steps together are the exact law. When rejected proposals have cost as much as
new weights would, these are made.

Weights are distances rounded up to seven bits, and what rounding errors leave open, in a weight or in an
acceptance, is decided in float64 (`Vectors.exact`). Sums of such weights are exact in any order. So the same
random numbers make the same draw, however the rows are cut into chunks, threads or ranks.

Each rank looks at the proposals that it holds. Those that a bound already rejects, nobody else hears more of
than this; the vectors of the others are told to all.
"""

from __future__ import annotations

import math
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Generator, Tensor

from lightning_al.functional.nearest import near
from lightning_al.functional.nearness import Drawn, Nearness, Settled, bounds, exact_squares
from lightning_al.functional.runs import Runs
from lightning_al.functional.shard import Shard
from lightning_al.functional.vectors import Vectors

__all__ = ["Draw", "First"]

Array = NDArray[np.float64]

First = Literal["largest", "random"]

_ROUGH = 0.03  # bounds farther apart than this part are better made in float64
_PROPOSALS = 128  # tested together, with two exchanges between ranks
_MOST_PROPOSALS = 1024  # if few of them are accepted
_IN_VAIN = 32  # so many rounds of proposals refused ask for new weights, at any price
# What decides whether new weights are worth their price, in multiplications of numbers.
_PASS = 30  # reading a row is worth so many centres
_PROPOSAL = 2**21
_RENEWAL = 2**25
_HORIZON = 1000  # so many more picks are reckoned with at least
_AFTERWARDS = 1.6  # proposals a pick with new weights


class _Proposed:
    """Proposals that may be accepted, the same on every rank, and between which squared distances each is.

    Args:
        rows: Few.
        numbers: Which of all proposals they are, `(n,)`.
        table: What was told of each, `(n, 6)` in float64: position, weight, bounds from below and above, what
            is known exactly, as in `Settled`, and of how many that were drawn.
        bars: What the squared distance of each must exceed.
    """

    def __init__(self, rows: Vectors, numbers: Tensor, table: Tensor, bars: Tensor) -> None:
        self.rows, self.numbers, self.bars = rows, numbers.tolist(), bars.numpy()
        self.positions = table[:, 0].long().tolist()
        self.low, self.high = (side.numpy().copy() for side in table[:, 2:4].T)
        distance, upto = table[:, 4:].to(rows.device).T
        self.settled = Settled(distance.float(), upto.int())

    def exactly(self, which: NDArray[np.int64], drawn: Drawn, tiny: float) -> Array:
        """Squared distances of some of them to the nearest of all drawn."""
        rows = torch.from_numpy(which).to(self.rows.device)
        found: Array = self.settled.settle(self.rows, rows, drawn, tiny).cpu().numpy()
        return found

    def among(self, tiny: float, dtype: torch.dtype = torch.float32) -> tuple[Array, Array]:
        """Bounds of the squared distances to each other, `(n, n)`; by float64 if some leave much open."""
        ready = self.rows.ready(dtype)
        squares = ready.squares()
        low, high = bounds(self.rows, squares, ready.distances(slice(None), ready), tiny)
        rough = high - low > _ROUGH * high
        rough.fill_diagonal_(False)
        if dtype == torch.float32 and bool(rough.any()):
            return self.among(tiny, torch.float64)
        return low.double().cpu().numpy(), high.double().cpu().numpy()


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
        self.drawn = Drawn(vectors)
        self.begun = 0  # how many of these were not chosen here
        self.nearness = Nearness(vectors, squares, self.drawn, tiny)
        self.weights = squares.new_empty(0, dtype=torch.long)  # of the rows here, in units
        self.runs: Runs | None = None
        self.unit = 1.0
        self.lately = 0.0, 0.0  # proposals and picks with these weights, the last ones most
        self.in_vain = 0  # rounds of proposals in a row of which none was accepted
        self.exhausted = False
        self.start = math.inf  # the score of the first, where nothing was given

    @property
    def fresh(self) -> int:
        """How many of those drawn the weights do not know."""
        return len(self.drawn) - self.nearness.seen

    # -------------------------------------------------------------- first

    def around(self, given: Vectors) -> None:
        """Centres that count as drawn before."""
        self.begun = len(given)
        self.drawn.add(given)

    def begin(self, first: First) -> None:
        """Draw the first where nothing was given."""
        if first == "random":
            position = int(self._uniform(1)[0] * self.shard.total)
        else:
            position, self.start = self._longest()
        self.chosen.append(position)
        _, here = self.shard.held(torch.tensor([position]))
        self.drawn.add(self.vectors.take(here).gathered(self.shard))

    def _longest(self) -> tuple[int, float]:
        """The position of the longest vector, and its squared length."""
        low, high = bounds(self.vectors, self.squares, self.squares, self.tiny)
        rows = (high >= self._most(low)).nonzero().squeeze(1)
        best, position = -1.0, self.shard.total
        for some in torch.split(rows, max(1, self.vectors.at_once(2**16) // self.vectors.width)):
            taken = self.vectors.take(some)
            lengths = taken.exact(taken.like(*(torch.zeros_like(factor) for factor in taken.factors)))
            most = max(lengths.tolist(), default=-1.0)
            if most > best:
                place = some[int((lengths == most).nonzero()[0])]
                best, position = most, int(self.shard.positions[int(place)])
        shortest, position = min(self.shard.gather_objects((-best, position)))
        assert position < self.shard.total, "no row has a length"
        return position, shortest**2

    # -------------------------------------------------------------- proposals

    def until(self, count: int) -> None:
        """Draw until that many are chosen."""
        while len(self.chosen) < count and not self.exhausted:
            if self.runs is None or self._worthwhile():
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
        """Draw proposals, the more the fewer are accepted, and accept some, in order."""
        rate = self.lately[0] / max(self.lately[1], 0.5)
        size = min(_MOST_PROPOSALS, _PROPOSALS * max(1, int(rate / 2)))
        some = self._that_may_be_accepted(self._uniform(2 * size).view(2, size))
        before = len(self.chosen)
        accepted, last = self._accept(some, count)
        tried = size if last is None else last + 1
        self.lately = 0.3 * self.lately[0] + tried, 0.3 * self.lately[1] + len(self.chosen) - before
        self.in_vain = 0 if accepted else self.in_vain + 1
        if accepted:
            self.drawn.add(some.rows.take(torch.tensor(accepted)))

    def _that_may_be_accepted(self, numbers: Tensor) -> _Proposed:
        """Proposals that no bound rejects, of two random numbers each, `(2, k)`."""
        assert self.runs is not None
        total, counts = self.runs.total, self.shard.world_size
        owner, mine, rows = self.runs.rows_at((numbers[0] * total).long().clamp_(max=total - 1))
        order = owner.argsort(stable=True)
        told = self.shard.gather(self._known_of(rows), torch.bincount(owner, minlength=counts).tolist())
        table = torch.empty_like(told).index_copy_(0, order, told)
        bars = numbers[1] * (table[:, 1] * self.unit)
        left = bars <= table[:, 3]
        some = left.nonzero().squeeze(1)
        rows = rows[left[mine].to(rows.device)]
        per_rank = torch.bincount(owner[some], minlength=counts).tolist()
        vectors = self.vectors.take(rows).gathered(self.shard, per_rank)
        if counts > 1:
            vectors = vectors.take(owner[some].argsort(stable=True).argsort())
        return _Proposed(vectors, some, table[some], bars[some])

    def _known_of(self, rows: Tensor) -> Tensor:
        """The table of `_Proposed` for some rows held here, with all that was drawn."""
        known = self.nearness
        low, high = known.low[rows], known.high[rows]
        if self.fresh and len(rows):
            ready, seen = self.vectors.take(rows).ready(), known.seen
            squares = ready.squares()
            found = near(ready, self.drawn.since(seen), squares, self.drawn.halves(seen))
            nearer, farther = bounds(ready, squares, found, self.tiny)
            low, high = torch.minimum(low, nearer), torch.minimum(high, farther)
        positions = self.shard.positions.to(rows.device)[rows]
        settled = known.settled
        columns = [positions, self.weights[rows], low, high, settled.distance[rows], settled.upto[rows]]
        return torch.stack([column.double() for column in columns], 1).cpu()

    def _accept(self, some: _Proposed, count: int) -> tuple[list[int], int | None]:
        """Which proposals are accepted, in order; and the number of the last, if then enough are."""
        accepted: list[int] = []
        already = set(self.chosen)
        low, high, bars = some.low, some.high, some.bars
        unsure = np.flatnonzero(bars >= low)
        low[unsure] = high[unsure] = some.exactly(unsure, self.drawn, self.tiny)
        nearer, farther = some.among(self.tiny)
        for place, position in enumerate(some.positions):
            bar = bars[place]
            if bar > high[place] or position in already:
                continue
            if bar >= low[place] and bar >= self._exactly(some, place, accepted):
                continue
            accepted.append(place)
            already.add(position)
            self.chosen.append(position)
            if len(self.chosen) == count:
                return accepted, some.numbers[place]
            np.minimum(low, nearer[place], out=low)
            np.minimum(high, farther[place], out=high)
        return accepted, None

    def _exactly(self, some: _Proposed, number: int, accepted: list[int]) -> float:
        """The squared distance of a proposal to the nearest one chosen."""
        found = float(some.exactly(np.array([number]), self.drawn, self.tiny)[0])
        if accepted:
            one, others = (some.rows.take(torch.tensor(which)) for which in ([number], accepted))
            found = min(found, float(exact_squares(one, others, self.tiny)[0]))
        return found

    def _uniform(self, count: int) -> Tensor:
        return torch.rand(count, generator=self.generator, dtype=torch.float64)

    # -------------------------------------------------------------- weights

    def _renew(self) -> None:
        """Bring distances up to date, and make weights of them."""
        self.nearness.approach()
        low, high = _rounded_up(self.nearness.low), _rounded_up(self.nearness.high)
        _, taken = self.shard.held(torch.tensor(self.chosen, dtype=torch.long))
        taken = taken.to(low.device)
        low[taken] = 0
        high[taken] = 0
        # First the largest weight: it says from where down weights do not matter.
        bar = self._most(low)
        top = ((high > bar) & (low < high)).nonzero().squeeze(1)
        of_top = _rounded_up(self.nearness.settle(top))
        largest = max(bar, self._most(of_top))
        if largest == 0:
            self.exhausted = True
            return
        bits = self.shard.total.bit_length()
        floor = 2.0 ** (math.frexp(largest)[1] - 1 - min(6 + bits, 55 - bits))
        low[top] = high[top]
        open_ = ((low < high) & (high > floor)).nonzero().squeeze(1)
        weights = low.double()
        weights[open_] = _rounded_up(self.nearness.settle(open_))
        weights[top] = of_top
        weights.clamp_min_(floor)
        weights[taken] = 0
        # Whole numbers of up to seven bits and some zeros: int64 sums of them are exact.
        self.unit = floor / 64
        self.weights = (weights / self.unit).long()
        if self.runs is None:
            self.runs = Runs(self.shard, self.weights.device)
        self.runs.spread(self.weights)
        self.in_vain = 0
        self.lately = 0.0, 0.0

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
        every = self.drawn.given()
        before = torch.arange(max(1, self.begun), len(every), device=scores.device)
        begin, end = (1 if self.begun == 0 else 0), len(every) - self.begun
        scores[begin:end] = exact_squares(every.take(before), every, self.tiny, before)
        if self.begun == 0:
            scores[0] = self.start
        return scores


def _rounded_up(values: Tensor) -> Tensor:
    """To seven bits: the lowest number of so many that is no lower; values not negative."""
    kind, drop = (torch.int64, 46) if values.dtype == torch.float64 else (torch.int32, 17)
    bits = values.view(kind) + ((1 << drop) - 1)
    return (bits >> drop << drop).view(values.dtype)

"""FRONT: the rows that may be picked next, and which of them are.

rows with the largest bounds, what bounds all others -> [picked while farther than that] -> picks in order
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lightning_al.functional.nearest import exactly_nearest
from lightning_al.functional.vectors import Vectors

__all__ = ["LABELED", "PICKS", "Bar", "Centers", "Front"]

Array = NDArray[Any]

LABELED, PICKS = 0, 1
_GUESSED = 64  # rows whose distances to all others of the front are made at once
_LIKELY = 256  # rows whose distances are made exact at once
_CELLS = 2**18  # intervals looked at at once
_PAIR_NUMBERS = 2**19  # in float64 at once


class Centers:
    """Labelled rows, and picks: two groups, of which the second grows."""

    def __init__(self, pool: Vectors, labeled: Vectors, picks: int) -> None:
        self.groups = (labeled, pool.like(pool.factors[0].new_empty((picks, pool.width))))
        self.counts = [len(labeled), 0]

    def __len__(self) -> int:
        return sum(self.counts)

    def add(self, rows: Vectors) -> None:
        """Further picks."""
        count = self.counts[PICKS]
        self.groups[PICKS].factors[0][count : count + len(rows)] = rows.factors[0]
        self.counts[PICKS] += len(rows)

    def part(self, group: int, start: int, stop: int) -> Vectors:
        """Consecutive centres of one group."""
        return self.groups[group].like(self.groups[group].factors[0][start:stop])

    def all(self) -> Iterator[Vectors]:
        """Each group, as far as there are any."""
        for group, count in enumerate(self.counts):
            if count:
                yield self.part(group, 0, count)


@dataclass(frozen=True)
class Bar:
    """What the distances of all rows outside of the front are bounded by, and the first row at it."""

    distance: float
    position: int


class Front:
    """The rows that may be picked next, the same on every rank.

    What is decided follows from exact distances alone, however wide the intervals: so ranks need not agree.
    """

    def __init__(
        self,
        vectors: Vectors,
        positions: Tensor,
        bounds: Tensor,
        centers: Centers,
        bar: Bar,
        precise: bool,
    ) -> None:
        self.vectors, self.centers, self.bar, self.precise = vectors, centers, bar, precise
        self.positions = positions.cpu().numpy()
        self.lower, self.upper = (side.copy() for side in bounds.cpu().numpy().T)
        self.ready = vectors.ready(torch.float64)
        self.squares = self.ready.squares()
        self.made: dict[int, tuple[Array, Array]] = {}
        self.served = _GUESSED  # picks whose distances were made by the last guess
        self.chosen: list[int] = []
        # Exact distances to all centres before this front and the first `upto` chosen from it; -1: not known.
        exact = self.lower == self.upper
        self.known = np.where(exact, self.upper, np.inf)
        self.upto = np.where(exact, 0, -1)

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
            # Among copies most guesses are wrong: the first pick of some is the last.
            size, self.served = min(_GUESSED, max(_GUESSED // 16, 2 * self.served)), 0
            likely = [place for place in np.argsort(-self.lower)[: 2 * size] if place not in self.made]
            places = [row, *(int(place) for place in likely if place != row)][:size]
            found = self.ready.take(torch.tensor(places)).distances(slice(None), self.ready)
            low, high = (side.cpu().numpy() for side in self.vectors.interval(self.squares, found))
            for number, place in enumerate(places):
                mine, its = low[number].copy(), high[number]
                self.made[place] = mine, mine if np.array_equal(mine, its) else its.copy()
        self.served += 1
        return self.made[row]

    # ------------------------------------------------------------------ what is open

    def _settle(self, rivals: Array) -> None:
        """Narrow the intervals of these rows to a number, and of those that will soon be rivals."""
        open_rows = np.flatnonzero(self.lower != self.upper)
        likely = open_rows[np.argsort(-self.upper[open_rows], kind="stable")[:_LIKELY]]
        open_rows = np.union1d(likely, rivals[self.lower[rivals] != self.upper[rivals]])
        new = open_rows[self.upto[open_rows] < 0]
        if len(new):
            part = self.vectors.take(torch.from_numpy(new))
            for group in self.centers.all():
                self.known[new] = np.minimum(self.known[new], exactly_nearest(part, group)[0].cpu().numpy())
            self.upto[new] = 0
        for start in np.unique(self.upto[open_rows]):
            rows, picks = open_rows[self.upto[open_rows] == start], self.chosen[start:]
            size = max(1, self.vectors.at_once(_CELLS) // max(1, len(picks)))
            for some in np.split(rows, range(size, len(rows), size)) if picks else []:
                self.known[some] = np.minimum(self.known[some], self._to_picks(some, picks))
        self.upto[open_rows] = len(self.chosen)
        self.lower[open_rows] = self.upper[open_rows] = self.known[open_rows]

    def _to_picks(self, rows: Array, picks: list[int]) -> Array:
        """Exact distances to the nearest of some chosen, or more where another centre is nearer."""
        low, high = (np.stack([self.made[pick][side][rows] for pick in picks]) for side in (0, 1))
        near = np.minimum(high.min(0), self.upper[rows])
        pick, row = np.nonzero((low < high) & (low <= near))
        size = max(1, self.vectors.at_once(_PAIR_NUMBERS) // self.vectors.width)
        for start in range(0, len(row), size):
            some = slice(start, start + size)
            mine = self.vectors.take(torch.from_numpy(rows[row[some]]))
            its = self.vectors.take(torch.tensor(picks)[torch.from_numpy(pick[some])])
            high[pick[some], row[some]] = mine.exact(its).cpu().numpy()
        nearest: Array = high.min(0)
        return nearest

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

__all__ = ["Bar", "Centers", "Front"]

Array = NDArray[Any]

LABELED, PICKS = 0, 1
_GUESSED = 64  # rows whose distances to all others of the front are made at once
_LIKELY = 256  # rows whose distances are made exact at once


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
            low, high = (side.cpu().numpy() for side in self.vectors.interval(self.squares, found))
            for number, place in enumerate(places):
                self.made[place] = low[number], high[number]
        return self.made[row]

    # ------------------------------------------------------------------ what is open

    def _settle(self, rivals: Array) -> None:
        """Narrow the intervals of these rows to a number, and of those that will soon be rivals."""
        open_rows = np.flatnonzero(self.lower != self.upper)
        likely = open_rows[np.argsort(-self.upper[open_rows], kind="stable")[:_LIKELY]]
        open_rows = np.union1d(likely, rivals[self.lower[rivals] != self.upper[rivals]])
        places = torch.from_numpy(open_rows).to(self.vectors.device)
        part, value = self.vectors.take(places), self._to_chosen(places)
        for group in self.centers.all():
            value = torch.minimum(value, exactly_nearest(part, group)[0])
        self.lower[open_rows] = self.upper[open_rows] = value.cpu().numpy()

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

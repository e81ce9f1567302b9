"""RECORD: what a ledger holds and what it amounts to, as arrays kept in step with it; nothing is written.

ledger.sqlite3 -> [Record] -> facts about the run, PoolState, what happened to each sample
"""

from __future__ import annotations

import gc
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import cached_property
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import Any

import numpy as np

from lightning_al.ledger.answer import Answer, Resolve
from lightning_al.ledger.chain import Call, Calls, Row
from lightning_al.ledger.connection import LedgerError
from lightning_al.ledger.indices import Indices, as_indices
from lightning_al.ledger.kind import LabelKind
from lightning_al.ledger.ledger import Ledger
from lightning_al.ledger.names import Names
from lightning_al.ledger.schema import Event
from lightning_al.ledger.state import PoolState
from lightning_al.ledger.status import Status
from lightning_al.ledger.trail import Happened, steps
from lightning_al.ledger.waiting import Waiting

__all__ = ["Record", "ledger_at"]

#: So many events of one kind that follow each other are taken over as arrays.
_MANY = 64


class Record:
    """What is asked and labelled in a run, from its state directory alone.

    Args:
        path: The state directory, or the ledger's file.
        resolve: As for `Book`.

    Raises:
        LedgerError: If there is no ledger, or it is a file of another kind.

    Example:
        >>> import tempfile
        >>> from lightning_al.ledger import Event, Ledger
        >>> folder = tempfile.mkdtemp()
        >>> _ = Ledger(f"{folder}/ledger.sqlite3").create({"size": 9}, [Event("asked", 4, round=0, rank=0)])
        >>> record = Record(folder)
        >>> record.size, record.waiting().count
        (9, 1)
    """

    def __init__(self, path: str | os.PathLike[str], *, resolve: Resolve | None = None) -> None:
        self._ledger = ledger_at(path)
        self._state: PoolState | None = None
        self._rule = resolve
        _ = self.meta  # a missing ledger is told of at once

    # ------------------------------------------------------------------ what the run recorded

    @property
    def ledger(self) -> Ledger:
        """The file."""
        return self._ledger

    @property
    def folder(self) -> Path:
        """The state directory."""
        return self.ledger.path.parent

    @cached_property
    def meta(self) -> dict[str, Any]:
        """What the run recorded about itself."""
        return self.ledger.meta()

    @cached_property
    def size(self) -> int:
        """How many samples there are."""
        return int(self.meta.get("samples", self.meta["size"]))

    @cached_property
    def names(self) -> Names | None:
        """The user's names of the samples, or `None`."""
        if self._is_older_with_ids:
            return Names(_names_in(self.ledger, self.size), partial=True)
        if not str(self.meta.get("names")).startswith("ids:"):
            return None
        return Names(lambda: self.ledger.names() or [])

    @property
    def _is_older_with_ids(self) -> bool:
        """Version 1 wrote names only beside what happened."""
        return "names" not in self.meta and str(self.meta.get("fingerprint")).startswith("ids:")

    @cached_property
    def kind(self) -> LabelKind:
        """What a label must be like."""
        return LabelKind.of(self.meta)

    @cached_property
    def resolve(self) -> Resolve | None:
        """The rule that makes one label of several answers; `None`: a function that only the run has."""
        if self._rule is not None:
            return self._rule
        return "newest" if self.meta.get("resolve", "newest") == "newest" else None

    @cached_property
    def min_answered(self) -> float:
        """Share of the newest query that must be answered before training goes on."""
        return float(self.meta.get("min_answered", 1.0))

    # ------------------------------------------------------------------ looking

    @property
    def state(self) -> PoolState:
        """The state as of the last look at the ledger."""
        if self._state is None:
            self._state = self._read()
        return self._state

    @state.setter
    def state(self, state: PoolState) -> None:
        self._state = state

    def _read(self) -> PoolState:
        state = PoolState(self.size)
        state.run_id = self.meta["run_id"]
        self._bring_up(state)
        return state

    def _bring_up(self, state: PoolState) -> None:
        """Apply what the ledger holds beyond the state."""
        calls = Calls()
        with _no_collection():
            for part in self.ledger.parts(state.seq, calls):
                for (kind, common), rows in groupby(part, itemgetter(1, 5)):
                    self._apply_run(state, kind, calls[common], list(rows))

    def _apply_run(self, state: PoolState, kind: str, call: Call, run: list[Row]) -> None:
        """Apply events of one kind and call that follow each other: as arrays, where that is quicker."""
        if kind in ("asked", "labeled") and len(run) >= _MANY:
            seq, _, samples, names, values, _, _, ranks, *_ = zip(*run, strict=True)
            indices = self._places(samples, names)
            if len(np.unique(indices)) == len(run):
                state.apply_run(kind, seq[0], indices, values, ranks, call.who, call.round)
                return
        place, who, number = self.place, call.who, call.round
        state.apply_rows(
            (seq, kind, place(sample, name), value, who, number, rank)
            for seq, _, sample, name, value, _, _, rank, *_ in run
        )

    def _places(self, samples: tuple[int, ...], names: tuple[str | None, ...]) -> Indices:
        """As `place`, of many."""
        if not self.has_moved and min(samples) >= 0 and max(samples) < self.size:
            return np.array(samples, np.int64)
        return np.fromiter(map(self.place, samples, names), np.int64, len(samples))

    @property
    def has_moved(self) -> bool:
        """Whether samples may be elsewhere than where they were written down."""
        return bool(self._is_older_with_ids or self.meta.get("moved"))

    @cached_property
    def place(self) -> Callable[[int, str | None], int]:
        """Where a sample is now, of its index and name when it was written down."""
        size = self.size
        names = self.names if self.has_moved else None

        def place(index: int, name: str | None) -> int:
            found = index if names is None else names.place(index, name)
            if found is None or not 0 <= found < size:
                raise LedgerError(
                    f"{self.ledger.path} knows sample {index if name is None else name!r}, which is not "
                    f"among its {size:,} samples. Run its script once, with the whole data set."
                )
            return found

        return place

    def current(self) -> PoolState:
        """The state with all that other processes wrote until now: what a change is checked against."""
        state = self.state
        if self.ledger.last()[0] != state.seq:
            for fact in ("meta", "size", "names", "kind", "resolve", "min_answered", "place"):
                vars(self).pop(fact, None)
            self._state = state = self._read()
        return state

    def status(self) -> Status:
        """How far the run is: labels, classes, what waits, and who holds the ledger."""
        return Status.of(self)

    def check(self) -> None:
        """Look at the digest of every event, which who reads only a few of them does not.

        Raises:
            LedgerError: At the first event that is not as it was written.
        """
        for _ in self.ledger.parts(0, Calls()):
            pass

    def waiting(self) -> Waiting:
        """What waits for labels; where these go, `lightning_al.exchange.place_of_answers` knows."""
        return Waiting.of(self.state, self.min_answered)

    def trails(self, indices: Iterable[int]) -> dict[int, list[Happened]]:
        """What happened to each of some samples: number, time and event; digests are not looked at."""
        found = list(indices)
        if not found or not self.ledger.exists():
            return {index: [] for index in found}
        names = self.names
        trails = self.ledger.of_samples([i if names is None else names[i] for i in found])
        known = self.annotators
        if known:
            trails = [
                [(seq, at, replace(e, who=known.get(e.who or "", e.who))) for seq, at, e in trail]
                for trail in trails
            ]
        return dict(zip(found, trails, strict=True))

    @property
    def annotators(self) -> dict[str, str]:
        """Who is behind the numbers by which a tool named annotators: a person is one annotator."""
        return dict(self.meta.get("annotators", {}))

    def answers(self, index: int) -> list[Answer]:
        """The answers of a sample that stand, oldest first: whose they are, and when they were given.

        Who cannot tell what has a label already has a `lightning_al.ledger.label_values.NoLabel` there.

        Args:
            index: Of the sample.
        """
        (place,) = as_indices(index, self.size).tolist()
        said = steps(self.trails([place])[place])[-1].said
        return [one.answer() for one in sorted(said, key=lambda s: (s.at, s.seq))]

    def shown(self, indices: Sequence[int]) -> list[tuple[Event, dict[str, Any]]]:
        """Of samples that wait: how each was asked for, and what an annotator is shown of it."""
        numbers = [int(self.state.first[index]) for index in indices]
        asked = self.ledger.asked(numbers)
        return [(asked[number][0], asked[number][1] or {}) for number in numbers]


def ledger_at(path: str | os.PathLike[str]) -> Ledger:
    """The ledger of a state directory, or the one that a file is; it may be damaged, or not be there.

    Raises:
        LedgerError: If it is a file of another kind: answers must not be taken for a damaged ledger.
    """
    place = Path(path).absolute()
    if place.is_dir() or not (place.exists() or place.name == "ledger.sqlite3"):
        return Ledger(place / "ledger.sqlite3")
    if place.is_file() and ".sqlite3" not in place.name:  # as a ledger and its copies are called
        try:
            Ledger(place).meta()
        except LedgerError:
            raise LedgerError(
                f"{place} is no ledger; needed is the state directory of a run, the folder that its "
                f"ledger.sqlite3 is in. Give the folder{_beside(place)}."
            ) from None
    return Ledger(place)


def _beside(place: Path) -> str:
    return f", {place.parent}" if (place.parent / "ledger.sqlite3").exists() else ""


@contextmanager
def _no_collection() -> Iterator[None]:
    """So many rows would set off collections of garbage again and again, over all that torch has made."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def _names_in(ledger: Ledger, size: int) -> list[str]:
    """The names that events have; empty where nothing happened to a sample."""
    newest = {event.id: event.sample for _, event in ledger.events() if event.id is not None}
    names = [""] * size
    for name, index in newest.items():
        if index >= size or names[index]:
            raise LedgerError(
                f"{ledger.path} was written by an older version, and its samples have changed places since, "
                "so where they are now cannot be told from it alone. Run its script once."
            )
        names[index] = name
    return names

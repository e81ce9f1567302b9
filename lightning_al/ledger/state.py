"""STATE: what the ledger's events amount to, as arrays over the data set.

    events -> [PoolState.apply] -> labelled, asked, ignored, pool

The four are disjoint and together the whole. Labelled samples are in the order of round and rank in
the query, whenever their answers came in: training sees the same order after a restart.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from lightning_al.class_entropy import class_entropy
from lightning_al.ledger.indices import Indices
from lightning_al.ledger.label_values import decode
from lightning_al.ledger.schema import Event
from lightning_al.ledger.trail import UNSURE

__all__ = ["ASKED", "IGNORED", "LABELED", "POOL", "STATUSES", "UNRANKED", "PoolState"]

POOL, ASKED, LABELED, IGNORED = range(4)
UNRANKED = np.iinfo(np.int32).max
#: In the order of the numbers above.
STATUSES = ("pool", "asked", "labeled", "ignored")


class PoolState:
    """Status, round and target of every sample.

    Args:
        size: Number of samples of the data set.

    Example:
        >>> state = PoolState(4)
        >>> state.apply([(1, Event("asked", 2, round=1, rank=0)), (2, Event("labeled", 2, value="7"))])
        >>> state.indices(LABELED), state.indices(POOL), state.target(2), state.last_round
        (array([2]), array([0, 1, 3]), 7, 1)
    """

    def __init__(self, size: int) -> None:
        self.status = np.zeros(size, np.int8)
        self.round = np.full(size, -1, np.int32)
        self.rank = np.full(size, UNRANKED, np.int32)
        self.first = np.zeros(size, np.int64)  # sequence number of the event that began this status
        self.query = np.full(size, -1, np.int32)  # round of the query it was last in; -1: in none
        self.supplied = np.zeros(size, bool)  # the data set holds the target
        self.values: dict[int, str] = {}  # targets of labelled samples, as JSON
        self.who: dict[int, str | None] = {}  # who gave these
        self.unsure: dict[int, list[str]] = {}  # who could not tell yet, of samples that wait
        self.answered: set[int] = set()  # with answers that are not, or not yet, the label
        self.reverted: set[int] = set()  # something was taken back since it was asked for
        self.last_round = 0
        self.seq = 0
        self.run_id = ""

    def __len__(self) -> int:
        return len(self.status)

    def apply(
        self, events: Iterable[tuple[int, Event]], index_of: Callable[[Event], int] | None = None
    ) -> None:
        """Bring the state up to date; `index_of` finds an event's sample where indices have moved."""
        self.apply_rows(
            (seq, e.kind, e.sample if index_of is None else index_of(e), e.value, e.who, e.round, e.rank)
            for seq, e in events
        )

    def apply_rows(self, rows: Iterable[tuple[Any, ...]]) -> None:
        """The same for plain rows: number, kind, index, value, who, round, rank."""
        seq = self.seq
        for seq, kind, index, value, who, number, rank in rows:
            if kind in ("asked", "labeled", "ignored"):
                self._enter(index, seq, kind, value, who, number, rank)
            elif kind == "relabeled":
                self._set_value(index, value, who)
            elif kind == "answered":
                self._answer(index, value, who)
            elif kind == "unsure":
                self.unsure.setdefault(index, []).append(str(who))
            else:
                self._clear(index)
                self.reverted.discard(index)
                if kind == "reverted":
                    self.reverted.add(index)
                    self._revert(index, json.loads(value), number, rank)
            if number is not None and number > self.last_round:
                self.last_round = number
        self.seq = seq

    def apply_run(
        self, kind: str, first: int, indices: Indices, values: Sequence[str | None],
        ranks: Sequence[int | None], who: str | None, number: int | None,
    ) -> None:  # fmt: skip
        """The same for many events "asked" or "labeled" of one call that follow each other, without a loop.

        Args:
            kind: Of all of them.
            first: Number of the first.
            indices: Their samples, each once.
            values: Targets as JSON.
            ranks: In the query.
            who: Who gave the labels.
            number: Round of the query or of the labels.
        """
        self.first[indices] = np.arange(first, first + len(indices))
        if number is not None:
            self.round[indices] = number
        given = len(ranks) - ranks.count(None)
        if given == len(ranks):
            self.rank[indices] = np.array(ranks, np.int32)
        elif given:
            known = [rank is not None for rank in ranks]
            self.rank[indices[known]] = [rank for rank in ranks if rank is not None]
        if kind == "asked":
            self.status[indices], self.query[indices] = ASKED, number or 0
            self.reverted.difference_update(indices.tolist())
        else:
            self.status[indices] = LABELED
            self._set_values(indices, values, who)
        self.last_round = max(self.last_round, number or 0)
        self.seq = first + len(indices) - 1

    def _set_values(self, indices: Indices, values: Sequence[str | None], who: str | None) -> None:
        """`_set_value` of many."""
        listed = indices.tolist()
        self.supplied[indices] = who == "dataset"
        self.who.update(dict.fromkeys(listed, who))
        if None in values:
            for index in listed:
                self.values.pop(index, None)
            self.values.update((i, v) for i, v in zip(listed, values, strict=True) if v is not None)
        else:
            self.values.update(zip(listed, values, strict=True))  # type: ignore[arg-type]  # none is None
        for index in self.unsure.keys() & set(listed) if self.unsure else ():
            del self.unsure[index]

    def _clear(self, index: int) -> None:
        self.status[index], self.round[index], self.rank[index] = POOL, -1, UNRANKED
        self.query[index], self.supplied[index] = -1, False
        self.values.pop(index, None)
        self.who.pop(index, None)
        self.unsure.pop(index, None)
        self.answered.discard(index)

    def _enter(
        self, index: int, seq: int, kind: str, value: str | None, who: str | None,
        number: int | None, rank: int | None,
    ) -> None:  # fmt: skip
        if kind == "ignored":  # should it be labelled after all, its old rank means nothing
            query = self.query[index]
            self._clear(index)
            self.query[index], self.status[index] = query, IGNORED
        elif kind == "asked":
            self.status[index], self.query[index] = ASKED, number or 0
            self.reverted.discard(index)
        else:
            self.status[index] = LABELED
            self._set_value(index, value, who)
            if self.unsure:
                self.unsure.pop(index, None)
        if number is not None:
            self.round[index] = number
        if rank is not None:
            self.rank[index] = rank
        self.first[index] = seq

    def _answer(self, index: int, value: str | None, who: str | None) -> None:
        self.answered.add(index)
        doubts = self.status[index] == ASKED and value == UNSURE
        if doubts or index in self.unsure:  # who could not tell then may now, and the other way round
            others = [other for other in self.unsure.get(index, ()) if other != who]
            self.unsure[index] = [*others, str(who)] if doubts else others
            if not self.unsure[index]:
                del self.unsure[index]

    def _set_value(self, index: int, value: str | None, who: str | None) -> None:
        self.supplied[index] = who == "dataset"
        self.who[index] = who
        if value is not None:
            self.values[index] = value
        else:  # a data set's own target need not be on record
            self.values.pop(index, None)

    def _revert(self, index: int, before: dict[str, Any], number: int | None, rank: int | None) -> None:
        self.status[index] = STATUSES.index(before["status"])
        self.round[index] = -1 if number is None else number
        self.rank[index] = UNRANKED if rank is None else rank
        self.first[index], self.query[index] = before["first"], before["query"]
        if before["status"] == "labeled":
            self._set_value(index, before["value"], before["who"])
        if before["unsure"]:
            self.unsure[index] = before["unsure"]
        if before["answered"]:
            self.answered.add(index)

    def indices(self, status: int) -> Indices:
        """Samples of one status; labelled and asked ones in the order of their query."""
        found = np.flatnonzero(self.status == status)
        if status in (POOL, IGNORED):
            return found
        return found[np.lexsort((self.first[found], self.rank[found], self.round[found]))]

    def labeled_up_to(self, last: int | None = None, first: int = 0) -> Indices:
        """Labelled samples of rounds `first` to `last`, in order."""
        found = self.indices(LABELED)
        rounds = self.round[found]
        return found[(rounds >= first) & (rounds <= (self.last_round if last is None else last))]

    def target(self, index: int) -> Any:
        """The recorded target of a labelled sample, `None` where only the data set holds it."""
        text = self.values.get(int(index))
        return None if text is None else decode(text)

    def overrides(self, indices: Indices) -> dict[int, Any]:
        """Targets that the data set does not supply, by index."""
        given = indices[~self.supplied[indices]]
        return {int(index): self.target(index) for index in given}

    @property
    def next_round(self) -> int:
        """The round that a query made now belongs to."""
        fresh = not ((self.status == LABELED) | (self.status == ASKED)).any()
        return 0 if fresh and self.last_round == 0 else self.last_round + 1

    def digest(self, labeled: Indices | None = None) -> str:
        """A hash of what training would see: labelled samples in order (all of them), and their targets."""
        labeled = self.indices(LABELED) if labeled is None else labeled
        text = "\n".join(self.values.get(int(index), "") for index in labeled)
        return hashlib.sha256(labeled.tobytes() + text.encode()).hexdigest()

    def class_counts(self, indices: Indices) -> dict[Any, int] | None:
        """How often each class occurs among `indices`; `None` where targets are not classes."""
        counts: dict[Any, int] = {}
        # A pool of a million has few classes: each is decoded once.
        for text, count in Counter(map(self.values.get, indices.tolist())).items():
            value = None if text is None else decode(text)
            if isinstance(value, bool) or not isinstance(value, int | str):
                return None
            counts[value] = counts.get(value, 0) + count
        return counts

    def label_entropy(self, indices: Indices) -> float:
        """Entropy, in nats, of the classes among `indices`; NaN where targets are not classes."""
        counts = self.class_counts(indices)
        return float(class_entropy(list(counts.values()))) if counts else float("nan")

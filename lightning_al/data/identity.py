"""IDENTITY: what a run is known by, so that no label lands on another run's samples.

recorded when the ledger is made -> compared whenever it is opened again
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from lightning_al.data.samples import Samples
from lightning_al.ledger.indices import Indices, as_indices
from lightning_al.ledger.ledger import Ledger, LedgerError
from lightning_al.ledger.schema import Event
from lightning_al.ledger.state import ASKED, IGNORED, LABELED, PoolState
from lightning_al.ledger.trail import steps

__all__ = ["Identity", "renamed"]


class Identity:
    """Seed, initial set and data set of a run.

    Args:
        samples: The data set behind one index.
        seed: Of the run.
        initial: Size or indices of the first set.
        balanced: It is drawn class by class.
    """

    def __init__(self, samples: Samples, seed: int, initial: int | Sequence[int], *, balanced: bool) -> None:
        self.samples, self.seed, self.balanced = samples, seed, balanced
        self.initial = (
            int(initial)
            if isinstance(initial, int | np.integer)
            else as_indices(initial, len(samples), "initial").tolist()
        )

    def initial_indices(self) -> Indices:
        """The samples of round 0."""
        return self.samples.initial(self.initial, self.seed, balanced=self.balanced)

    def record(self) -> dict[str, Any]:
        """What goes into the ledger when it is made."""
        return {"size": len(self.samples), **self._of_first(len(self.samples))}

    def _of_first(self, length: int) -> dict[str, Any]:
        """The same of the first `length` samples: a data set may have grown since."""
        samples = self.samples
        return {
            "seed": self.seed,
            "initial": self.initial,
            "initial_balanced": self.balanced,
            "labeled_part": None if samples.unlabeled_set is None else len(samples.train_set),
            "fingerprint": samples.fingerprint(length),
        }

    def check(self, meta: dict[str, Any], where: Path | None) -> None:
        """Refuse a ledger that was made for another data set, seed or initial set.

        Args:
            meta: What the ledger recorded.
            where: Its folder, for the message.

        Raises:
            LedgerError: If it differs; the message shows both.
        """
        recorded = int(meta["size"])
        if len(self.samples) < recorded:
            raise LedgerError(
                f"{where} was made for a data set of {recorded:,} samples, this one has "
                f"{len(self.samples):,}. Use the whole data set, or another `state_dir`."
            )
        for key, now in self._of_first(recorded).items():
            then = meta.get(key)
            if then == now or (key == "fingerprint" and _may_be_same(then, now)):
                continue
            raise LedgerError(
                f"{where} was made with {key} {then}, this run has {now}. Labels would go to other samples "
                "or the run would not be the same. Set it as it was, or use another `state_dir`; if they are "
                "the same samples in the same order all the same, pass `accept_changes=True`."
            )

        _check_classes(meta.get("class_names"), self.samples.kind.record()["class_names"], where)

    def places(self, where: Path | None) -> Callable[[int, str | None], int]:
        """Where the ledger's samples are now: labels follow ids, however often the order has changed."""
        size, names = len(self.samples), self.samples.names

        def place(index: int, name: str | None) -> int:
            if name is None:
                found: int | None = index
            elif names is None:
                raise LedgerError(
                    f"The ledger in {where} knows its samples by id, such as {name!r}, but this run has "
                    "no `ids`, so whose label is whose cannot be told. Pass the same `ids` again."
                )
            else:
                found = names.place(index, name)
            if found is not None and 0 <= found < size:
                return found
            gone = (
                f"{name!r}, which is not among this data set's `ids`. Use the data set it was made for"
                if name is not None
                else f"{index}, but this data set ends at {size - 1}. Use the whole data set"
            )
            raise LedgerError(f"The ledger in {where} knows sample {gone}, or another `state_dir`.")

        return place


def renamed(ledger: Ledger, state: PoolState, ids: Sequence[str]) -> list[Event]:
    """Events that take back what was said of samples without a name and say it again under their ids."""
    indices = np.concatenate([state.indices(status) for status in (LABELED, ASKED, IGNORED)]).tolist()
    again: list[Event] = []
    indices += sorted(state.answered - set(indices))
    for index, trail in zip(indices, ledger.of_samples(indices), strict=True):
        last, name = steps(trail)[-1], ids[index]
        again.append(Event("undone", index, who="named"))
        entered = Event("", index, name, round=last.round, rank=last.rank)
        if last.asked is not None:
            again.append(replace(last.asked, id=name, sample=index))
        if last.status == "ignored":
            again.append(replace(entered, kind="ignored", who=last.who))
        stands = [one for one in last.said if (one.text, one.who) != (last.value, last.who)]
        again += [Event("answered", index, name, one.text, one.who, said=one.at) for one in stands]
        if last.status == "labeled":
            again.append(replace(entered, kind="labeled", value=last.value, who=last.who))
        again += [Event("unsure", index, name, who=who) for who in last.unsure]
    return again


def _check_classes(then: list[str] | None, now: list[str] | None, where: Path | None) -> None:
    """A class that moved would make every label of it another class, and one that is gone of none.

    A new name for one is no harm.
    """
    if now is None:
        return
    for number, name in enumerate(then or ()):
        if name in now and now[number : number + 1] != [name]:
            harm = f"it is number {now.index(name)}: labels would mean other classes"
        elif number >= len(now):
            harm = f"there are only {len(now)}: labels of it would mean no class"
        else:
            continue
        raise LedgerError(
            f"{where} was made with class {name!r} as number {number}, in this run's `class_names` {harm}. "
            "Keep the order and add new classes at the end; if the labels on record are meant as they are "
            "now, pass `accept_changes=True`."
        )


def _may_be_same(then: Any, now: Any) -> bool:
    """Augmented items and moved ids cannot be compared by content; ids are looked up instead."""
    if then.startswith("ids:") or now.startswith("ids:"):
        return bool(then[:4] == now[:4])
    return "length" in (then, now)

"""BOOK: a run's own book of what is asked and labelled, which knows its data set and its other processes.

    ask, label, unlabel, ignore -> [LabelBook] -> Ledger first, then PoolState

Only global rank 0 writes to the file. Other ranks keep the state in memory and are told of the rest by
the data module, before every training.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from operator import itemgetter
from pathlib import Path
from typing import Any

import numpy as np
import torch.distributed as dist
from lightning.pytorch.utilities.rank_zero import rank_zero_info, rank_zero_only

from lightning_al.data.identity import Identity, renamed
from lightning_al.data.round_0 import asked_first, labeled_first, recorded
from lightning_al.data.samples import Samples
from lightning_al.data.state_dir import fresh_folder
from lightning_al.data.targets import is_bool
from lightning_al.exchange.queries import plainly
from lightning_al.ledger.answer import Opinion, Resolve, name_of_rule
from lightning_al.ledger.book import Book
from lightning_al.ledger.indices import Indices, as_indices
from lightning_al.ledger.intake import Conflict
from lightning_al.ledger.kind import LabelKind
from lightning_al.ledger.label_values import encode
from lightning_al.ledger.ledger import Ledger, LedgerError
from lightning_al.ledger.names import Names
from lightning_al.ledger.schema import Event
from lightning_al.ledger.state import ASKED, LABELED, POOL, PoolState
from lightning_al.ledger.trail import Happened

__all__ = ["LabelBook", "is_writer"]


def is_writer() -> bool:
    """Whether this process is global rank 0."""
    if dist.is_available() and dist.is_initialized():
        return dist.get_rank() == 0
    return (getattr(rank_zero_only, "rank", None) or 0) == 0


def _is_told_again() -> bool:
    """Whether rank 0 may have written this down already: others run the script after it, until they meet."""
    return not is_writer() and not (dist.is_available() and dist.is_initialized())


class LabelBook(Book):
    """What is asked and labelled of a data set.

    Args:
        samples: The data set behind one index.
        state_dir: Folder of the ledger; `None`: a fresh numbered one, made by the first write.
        seed: Of the run.
        initial: Size or indices of the first set.
        balanced: Draw it class by class.
        starts_labeled: The data set holds the labels of the first set; else it is asked for.
        on_existing: `"resume"` or `"error"`, should the folder hold a ledger already.
        accept_changes: Go on with a ledger whose data set, seed or initial set seem to be others.
        describe: From an index to what an annotator is shown of it.
        resolve: The rule that makes one label of several answers.
        min_answered: Share of the newest query that must be answered before training goes on.
        facts: What else the ledger is to know of the run, by name.
    """

    def __init__(
        self,
        samples: Samples,
        *,
        state_dir: str | os.PathLike[str] | None,
        seed: int,
        initial: int | Sequence[int],
        balanced: bool,
        starts_labeled: bool,
        on_existing: str,
        accept_changes: bool = False,
        describe: Callable[[int], Any] | None = None,
        resolve: Resolve = "newest",
        min_answered: float = 1.0,
        facts: Mapping[str, Any] | None = None,
    ) -> None:
        self.samples, self.seed = samples, int(seed)
        self.names: Names | None = samples.names
        self.size: int = len(samples)
        self.kind: LabelKind = samples.kind
        self.resolve: Resolve = resolve
        self.min_answered: float = min_answered
        self.describe, self._more = describe, dict(facts or {})
        self._described: dict[int, dict[str, Any]] = {}
        self._refreshed = False
        self._moved: bool | None = None
        self.identity = Identity(samples, self.seed, initial, balanced=balanced)
        self.starts_labeled, self.on_existing = starts_labeled, on_existing
        self.accept_changes = accept_changes
        # A script may change its working directory between rounds.
        self.state_dir = None if state_dir is None else Path(state_dir).absolute()
        self.token = uuid.uuid4().hex
        self.attached = False
        #: Not written down, since this process seems not to be rank 0; it may turn out to run alone.
        self.later: list[Event] = []
        self._state: PoolState | None = None

    # ------------------------------------------------------------------ the two halves

    @property
    def ledger(self) -> Ledger:
        """The file, wherever it is now; making this object opens nothing."""
        if self.state_dir is None:
            raise LedgerError(
                "This run has no state directory yet: with `state_dir=None` a fresh folder is made "
                "by the first training or label. Pass `state_dir` to name it now."
            )
        return Ledger(self.state_dir / "ledger.sqlite3", token=self.token)

    @property
    def meta(self) -> dict[str, Any]:
        """What the run recorded about itself."""
        return self.ledger.meta()

    @property
    def place(self) -> Callable[[int, str | None], int]:
        """Where a sample is now, of its index and name when it was written down."""
        return self.identity.places(self.state_dir)

    @property
    def has_moved(self) -> bool:
        """Whether samples may be elsewhere than where they were written down."""
        if self._moved is None:
            self._moved = self._on_disk() and super().has_moved
        return self._moved

    @property
    def state(self) -> PoolState:
        """The state as of the last look at the ledger; before there is one, that of round 0."""
        if self._state is None:
            self._state = self._read() if self._on_disk() else self._planned()
        return self._state

    @state.setter
    def state(self, state: PoolState) -> None:
        self._state = state

    def _on_disk(self) -> bool:
        return self.state_dir is not None and self.ledger.exists()

    def _planned(self) -> PoolState:
        state = PoolState(len(self.samples))
        state.apply(enumerate(self._first_events(read=False), start=1))
        return state

    def _first_events(self, *, read: bool = True) -> list[Event]:
        """The events of round 0; without `read` the data set is left alone, and targets are unknown."""
        chosen = self.identity.initial_indices()
        if not self.starts_labeled:
            return asked_first(chosen, self.event, self.seed)
        return labeled_first(self.samples, chosen, self.event, self.seed, read=read)

    def _read(self) -> PoolState:
        meta = self.meta
        state = PoolState(self.size)
        state.run_id = meta["run_id"]
        if not self.accept_changes:
            self.identity.check(meta, self.state_dir)
            self._check_rule(meta)
        self._bring_up(state)
        return state

    def _check_rule(self, meta: Mapping[str, Any]) -> None:
        """A rule that is left out, as by an oversight, would make a label of every single answer."""
        then = meta.get("resolve", "newest")
        if self.resolve == "newest" and then != "newest":
            raise LedgerError(
                f"{self.state_dir} makes labels of several answers by the function `{then}`, and now "
                '`resolve` is "newest", by which every single answer would be a label. Pass that function, '
                "or `accept_changes=True` to let the newest answer count from now on."
            )

    def facts(self) -> dict[str, Any]:
        """What the ledger tells those who have no data set: sizes, names, and what a label must be like."""
        names = self.names
        return {
            "samples": self.size,
            "names": None if names is None else self.samples.fingerprint(self.size),
            "resolve": name_of_rule(self.resolve),
            "min_answered": self.min_answered,
            **self.kind.record(),
            **self._more,
        }

    # ------------------------------------------------------------------ beginning and resuming

    def attach(self) -> None:
        """On rank 0: make the ledger or read what it says, and check that it is this run's.

        Raises:
            LedgerError: If it is another data set's or seed's, or not to be resumed.
        """
        if self.attached and not self._on_disk():
            raise LedgerError(
                f"{self.ledger.path} is gone since this run began; its labels would be lost if a new one "
                f"were made. Put it back, or the newest copy from {self.ledger.path.parent / 'backups'}."
            )
        later, self.later = self.later, []
        if later:  # on disk they have numbers of their own
            self._state = None
        if self._on_disk() and not self.attached:
            if self.on_existing == "error":
                raise LedgerError(
                    f'{self.state_dir} holds a ledger already and `on_existing="error"`. Choose '
                    'another `state_dir`, or `on_existing="resume"` to go on with it.'
                )
            self._state = None
            count = len(self.state.indices(LABELED))
            rank_zero_info(
                f"{self.state_dir}: resuming round {self.state.last_round}, {count:,} labelled; "
                "on_existing='error' refuses."
            )
            if self.accept_changes:
                self._accept()
        elif not self._on_disk():
            self._create()
        self.attached = True
        if self.ledger.last()[0] != self.state.seq:  # another process wrote since
            self._bring_up(self.state)
        if later:
            super().write(later)

    def refresh(self) -> None:
        """Tell the ledger, once, what has changed of the run since, and what waiting samples look like.

        Before anything else is written: indices mean what the recorded names say.
        """
        if self._refreshed:
            return
        now, then = self.facts(), self.meta
        if now["class_names"] is None and not self.accept_changes:
            now["class_names"] = then.get("class_names")  # to name none is not to say that they have none
        changed = {key: value for key, value in now.items() if key not in then or then[key] != value}
        if "names" in changed and changed["names"] != then.get("names"):
            self.ledger.set_names(None if self.names is None else self.names.ids, changed)
        elif changed:
            self.ledger.set_meta(**changed)
        asked = self.state.indices(ASKED).tolist()
        if self.describe is not None and asked:
            numbers = {int(self.state.first[index]): index for index in asked}
            known = self.ledger.asked(list(numbers))
            self.ledger.show(
                {n: self.described(numbers[n]) for n, (_, what) in known.items() if what is None}
            )
        self._refreshed, self._moved = True, None

    def described(self, index: int) -> dict[str, Any]:
        """What an annotator is shown of a sample."""
        if self.describe is None:
            return {}
        if index not in self._described:
            self._described[index] = plainly(self.describe(index))
        return self._described[index]

    def _accept(self) -> None:
        """Record the data set as it is now; samples that have a name by now are entered again under it."""
        names = self.names
        if names is not None and not str(self.meta["fingerprint"]).startswith("ids:"):
            self.ledger.append(renamed(self.ledger, self.state, names.ids))
            self._state = None
        self.ledger.set_meta(**self.identity.record())

    def _create(self) -> None:
        if self.state_dir is None:
            self.state_dir = fresh_folder()
            rank_zero_info(
                f"Labels and queries of this run are kept in {self.state_dir}; pass it as "
                "`state_dir` to resume."
            )
        self.samples.warn_if_stochastic()
        first = self._first_events()
        self.ledger.create(
            self.identity.record() | self.facts(), first, shown=self._shown_of(first),
            names=None if self.names is None else self.names.ids,
        )  # fmt: skip
        self._state = None  # read it back: what is on disk is what is true

    # ------------------------------------------------------------------ writing

    def write(
        self,
        events: Sequence[Event],
        *,
        round_row: dict[str, Any] | None = None,
        shown: Mapping[int, Mapping[str, Any]] | None = None,
    ) -> None:
        """Events to disk, then to memory; nothing of them if the disk refuses.

        They must have been made from `current()`.
        """
        if not is_writer():
            self._apply(events)
            self.later += events if _is_told_again() else []
            return
        if not self.attached:
            self.attach()
        self.refresh()
        super().write(events, round_row=round_row, shown=shown)

    def _shown_of(self, events: Sequence[Event]) -> dict[int, dict[str, Any]]:
        if self.describe is None or not is_writer():
            return {}
        return {n: self.described(e.sample) for n, e in enumerate(events) if e.kind == "asked"}

    def current(self) -> PoolState:
        """The state with all that other processes wrote until now: what a change is checked against."""
        if is_writer() and (self.attached or self._on_disk()):
            self.attach()
            self.refresh()
        return self.state

    def ask(
        self,
        indices: Any,
        *,
        strategy: str | None = None,
        scores: Sequence[float] | None = None,
        round_row: dict[str, Any] | None = None,
    ) -> int:
        """Record a query of pool samples; returns its round."""
        state = self.current()
        found = self._of_status(indices, {POOL}, "be asked for")
        number = state.next_round
        events = [
            self.event("asked", i, round=number, rank=rank, strategy=strategy, seed=self.seed,
                       score=None if scores is None else float(scores[rank]))
            for rank, i in enumerate(found.tolist())
        ]  # fmt: skip
        self.write(events, round_row=round_row, shown=self._shown_of(events))
        return number

    def checked(self, indices: Indices, targets: Sequence[Any]) -> dict[int, Any]:
        """Targets as they go into the ledger, by sample; no truth value, unless the data set has such.

        Raises:
            ValueError: If one is missing, or not of the kind of the others.
        """
        if self.kind.class_names is not None or self.kind.name in ("class", "number"):
            for index, value in zip(indices.tolist(), targets, strict=True):
                if is_bool(value) and not is_bool(self.kind.template):
                    raise ValueError(
                        f"The target of sample {index} is {value}, but other targets are classes or numbers. "
                        "Give the number, such as 0 or 1, or the name of a class."
                    )
        return super().checked(indices, targets)

    def label_all(
        self,
        indices: Indices,
        targets: Sequence[Any],
        *,
        who: str,
        named: bool = False,
        overwrite: bool = False,
    ) -> None:
        """Record targets, all or none.

        Targets by `who="dataset"` are the data set's own, which the ledger need not hold.
        """
        intake = self.intake(overwrite=overwrite or _is_told_again(), strict=True)
        write_down = recorded if who == "dataset" else encode
        refused = intake.add_all(
            Opinion(index, "label", write_down(target), who, named)
            for index, target in zip(indices.tolist(), targets, strict=True)
        )
        for _, error in refused:
            if not isinstance(error, Conflict):
                raise error
        waits = [error for place, error in refused if self.state.status[indices[place]] != LABELED]
        if waits:
            raise ValueError(f"{waits[0]}. Nothing was written; `overwrite=True` corrects an earlier answer.")
        if refused:
            places = [place for place, _ in refused][:5]
            raise ValueError(
                f"Samples {indices[places].tolist()} are labelled already, with "
                f"{[self.state.target(i) for i in indices[places]]}. Pass `overwrite=True` to correct them; "
                "the ledger keeps the old label too."
            )
        self.take(intake)

    def shown(self, indices: Sequence[int]) -> list[tuple[Event, dict[str, Any]]]:
        """Of samples that wait: how each was asked for, and what an annotator is shown of it."""
        found = super().shown(indices)
        if self.describe is None:
            return found
        return [(event, self.described(index)) for index, (event, _) in zip(indices, found, strict=True)]

    def undo(self, indices: Any, who: str | None = None) -> None:
        """Take back the last change of each sample; other ranks hear of it when all meet next."""
        if is_writer():  # who else knows how a sample was before
            self.attach()
            super().undo(indices, who)

    def _places(self, samples: tuple[int, ...], names: tuple[str | None, ...]) -> Indices:
        """As `place`, of many."""
        if min(samples) >= 0 and max(samples) < self.size and len(samples) > 1:
            ids = None if self.names is None else self.names.ids
            # Whether any has moved is not on record yet where the data set has new names.
            stays = not any(names) if ids is None else itemgetter(*samples)(ids) == names
            if stays:
                return np.array(samples, np.int64)
        return np.fromiter(map(self.place, samples, names), np.int64, len(samples))

    def trails(self, indices: Iterable[int]) -> dict[int, list[Happened]]:
        """What happened to each of some samples: number, time and event."""
        if self.state_dir is None:
            return {index: [] for index in indices}
        return super().trails(indices)

    def _of_status(self, indices: Any, allowed: Iterable[int], purpose: str) -> Indices:
        found = as_indices(indices, self.size)
        if _is_told_again():
            return found[np.isin(self.state.status[found], list(allowed))]
        return super()._of_status(indices, allowed, purpose)

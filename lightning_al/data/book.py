"""BOOK: the ledger and the state it amounts to, kept in step.

    ask, label, unlabel, ignore -> [LabelBook] -> Ledger first, then PoolState

Only global rank 0 touches the file. Other ranks keep the state in memory and are told of the rest by
the data module, before every training.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch.distributed as dist
from lightning.pytorch.utilities.rank_zero import rank_zero_info, rank_zero_only, rank_zero_warn

from lightning_al.data.identity import Identity, renamed
from lightning_al.data.initial import listed_targets
from lightning_al.data.samples import Samples
from lightning_al.data.targets import is_missing
from lightning_al.ledger.indices import Indices, as_indices
from lightning_al.ledger.label_values import encode
from lightning_al.ledger.ledger import Ledger, LedgerError
from lightning_al.ledger.schema import Event
from lightning_al.ledger.state import ASKED, IGNORED, LABELED, POOL, PoolState

__all__ = ["LabelBook", "is_writer"]

_DEFAULT_HOME = "lightning_al_runs"


def is_writer() -> bool:
    """Whether this process is global rank 0."""
    if dist.is_available() and dist.is_initialized():
        return dist.get_rank() == 0
    return (getattr(rank_zero_only, "rank", None) or 0) == 0


def _is_told_again() -> bool:
    """Whether rank 0 may have written this down already: others run the script after it, until they meet."""
    return not is_writer() and not (dist.is_available() and dist.is_initialized())


class LabelBook:
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
    ) -> None:
        self.samples, self.seed = samples, int(seed)
        self.identity = Identity(samples, self.seed, initial, balanced=balanced)
        self.starts_labeled, self.on_existing = starts_labeled, on_existing
        self.accept_changes = accept_changes
        # A script may change its working directory between rounds.
        self.state_dir = None if state_dir is None else Path(state_dir).absolute()
        self.token = uuid.uuid4().hex
        self.attached = False
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
            return [
                self.event("asked", i, round=0, rank=rank, seed=self.seed, strategy="initial")
                for rank, i in enumerate(chosen.tolist())
            ]
        texts = self._first_targets(chosen) if read else [None] * len(chosen)
        return [
            self.event("labeled", i, value=text, who="dataset", round=0, rank=rank, seed=self.seed)
            for rank, (i, text) in enumerate(zip(chosen.tolist(), texts, strict=True))
        ]

    def _first_targets(self, chosen: Indices) -> list[str | None]:
        """Targets of round 0: as the data set lists them, where it does, else item by item."""
        known = listed_targets(self.samples.train_set, self.samples.place)
        values = None if known is None else [known[index] for index in chosen.tolist()]
        if values is None or any(is_missing(value) for value in values):
            values = self.samples.own_targets(chosen)
        return [_recorded(value) for value in values]

    def _read(self) -> PoolState:
        meta = self.ledger.meta()
        state = PoolState(len(self.samples))
        state.run_id = meta["run_id"]
        if not self.accept_changes:
            self.identity.check(meta, self.state_dir)
        state.apply(self.ledger.events(), self.identity.places(self.state_dir))
        return state

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
        state, ledger = self.state, self.ledger
        if ledger.last()[0] != state.seq:  # another process wrote since
            state.apply(ledger.events(after=state.seq), self.identity.places(self.state_dir))

    def _accept(self) -> None:
        """Record the data set as it is now; samples that have a name by now are entered again under it."""
        ids = self.samples.ids
        if ids is not None and not str(self.ledger.meta()["fingerprint"]).startswith("ids:"):
            self.ledger.append(renamed(self.ledger.events(), self.state, ids))
            self._state = None
        self.ledger.set_meta(**self.identity.record())

    def _create(self) -> None:
        if self.state_dir is None:
            self.state_dir = _fresh_folder()
            rank_zero_info(
                f"Labels and queries of this run are kept in {self.state_dir}; pass it as "
                "`state_dir` to resume."
            )
        self.samples.warn_if_stochastic()
        self.ledger.create(self.identity.record(), self._first_events())
        self._state = None  # read it back: what is on disk is what is true

    # ------------------------------------------------------------------ checkpoints

    def snapshot(self) -> dict[str, Any]:
        """A copy for a checkpoint, of plain values."""
        state = self.state
        return {
            "run_id": state.run_id,
            "round": state.last_round,
            "events": state.seq,
            "labeled": state.indices(LABELED).tolist(),
        }

    def compare(self, snapshot: dict[str, Any]) -> None:
        """Hold a checkpoint's copy against the ledger, which is the authority.

        Raises:
            LedgerError: If the checkpoint is newer: labels are missing.
        """
        state = self.state
        count = len(state.indices(LABELED))
        if snapshot["run_id"] != state.run_id:
            rank_zero_warn(
                f"The checkpoint belongs to run {snapshot['run_id']}, the ledger in {self.state_dir} to run "
                f"{state.run_id}. Its weights are loaded, its labels are not."
            )
        elif snapshot["events"] > state.seq:
            raise LedgerError(
                f"The checkpoint is of round {snapshot['round']} with {len(snapshot['labeled'])} labels, but "
                f"the ledger in {self.state_dir} ends at round {state.last_round} with {count}. Labels are "
                "missing there: put the newer ledger back."
            )
        elif snapshot["events"] < state.seq:
            rank_zero_warn(
                f"The checkpoint is of round {snapshot['round']}, the ledger of round {state.last_round}; "
                f"training goes on with the {count} labels of the ledger."
            )

    # ------------------------------------------------------------------ writing

    def write(self, events: list[Event], *, round_row: dict[str, Any] | None = None) -> None:
        """Events to disk, then to memory; nothing of them if the disk refuses.

        They must have been made from `current()`.
        """
        state = self.state
        if is_writer():
            if not self.attached:
                self.attach()
                state = self.state
            if events or round_row:
                self.ledger.append(events, round_row=round_row, after=state.seq)
        state.apply(enumerate(events, start=state.seq + 1))

    def current(self) -> PoolState:
        """The state with all that other processes wrote until now: what a change is checked against."""
        if is_writer() and (self.attached or self._on_disk()):
            self.attach()
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
        self.write(events, round_row=round_row)
        return number

    def label(
        self,
        indices: Indices,
        targets: Sequence[Any],
        *,
        who: str,
        overwrite: bool = False,
        skipped: Sequence[int] = (),
    ) -> None:
        """Record targets, and samples that were skipped: all or none.

        Targets by `who="dataset"` are the data set's own, which the ledger need not hold.
        """
        state = self.current()
        labeled = indices[state.status[indices] == LABELED]
        if labeled.size and not overwrite and not _is_told_again():
            raise ValueError(
                f"Samples {labeled[:5].tolist()} are labelled already, with "
                f"{[state.target(i) for i in labeled[:5]]}. Pass `overwrite=True` to correct them; the "
                "ledger keeps the old label too."
            )
        events = []
        for index, target in zip(indices.tolist(), targets, strict=True):
            status = state.status[index]
            events.append(
                self.event(
                    "relabeled" if status == LABELED else "labeled", index,
                    value=_recorded(target) if who == "dataset" else encode(target), who=who,
                    round=int(state.round[index] if status in (ASKED, LABELED) else state.last_round),
                )
            )  # fmt: skip
        self.write(events + [self.event("ignored", index, who=who) for index in skipped])

    def unlabel(self, indices: Any, who: str | None = None) -> None:
        """Put labelled, asked or ignored samples back into the pool."""
        self.current()
        found = self._of_status(indices, {LABELED, ASKED, IGNORED}, "go back to the pool")
        self.write([self.event("undone", index, who=who) for index in found.tolist()])

    def ignore(self, indices: Any, who: str | None = None) -> None:
        """Never ask for these samples again: unclear, broken, not wanted."""
        self.current()
        found = self._of_status(indices, {POOL, ASKED}, "be ignored")
        self.write([self.event("ignored", index, who=who) for index in found.tolist()])

    def event(self, kind: str, index: int, **values: Any) -> Event:
        """An event of one sample, with the user's name of it."""
        ids = self.samples.ids
        return Event(kind, index, None if ids is None else ids[index], **values)

    def _of_status(self, indices: Any, allowed: Iterable[int], purpose: str) -> Indices:
        found = as_indices(indices, len(self.samples))
        fits = _isin(self.state.status[found], allowed)
        wrong = found[~fits]
        if _is_told_again():
            found, wrong = found[fits], wrong[:0]
        if wrong.size:
            names = ["in the pool", "asked for already", "labelled", "ignored"]
            index = int(wrong[0])
            raise ValueError(
                f"Samples {wrong[:5].tolist()} cannot {purpose}: sample {index} is "
                f"{names[self.state.status[index]]}. See `pool_indices`, `asked_indices`, "
                "`labeled_indices` and `ignored_indices`."
            )
        return found


def _isin(values: Any, allowed: Iterable[int]) -> Any:
    return np.isin(values, list(allowed))


def _recorded(target: Any) -> str | None:
    """A data set's own target is kept if it is small (a class, a number); a mask stays where it is."""
    try:
        text = encode(target)
    except TypeError:
        return None
    return text if len(text) <= 200 else None


def _fresh_folder() -> Path:
    home = Path(_DEFAULT_HOME).absolute()
    number = 1
    while True:
        folder = home / f"run_{number:04d}"
        try:
            folder.mkdir(parents=True)
        except FileExistsError:
            number += 1
        except OSError as error:
            raise LedgerError(
                f"{folder} cannot be made ({error}); labels must be on disk before training goes on. "
                "Pass a `state_dir` that can be written."
            ) from error
        else:
            return folder

"""LABELLING: asking, answering, correcting; what people and scripts do with labels.

query -> [Labelling] -> the ledger first, then the oracle's answers
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import numpy as np
from lightning.pytorch.utilities.rank_zero import rank_zero_info
from torch import Tensor

from lightning_al.data.agreement import agree, gathered, same_on_every_rank, shared
from lightning_al.data.book import is_writer
from lightning_al.data.overview import Overview
from lightning_al.data.ranks import check_labels_given
from lightning_al.data.samples import Samples
from lightning_al.exchange import (
    Answers,
    collect,
    place_of_answers,
    query_files,
    query_path,
    read_rows,
    write_query,
)
from lightning_al.ledger.indices import Indices, as_indices
from lightning_al.ledger.state import PoolState
from lightning_al.ledger.waiting import AwaitingLabels

__all__ = ["Labelling", "Oracle"]

Oracle = Literal["dataset", "people"] | Callable[[Indices], Sequence[Any] | Mapping[int, Any]]


class Labelling(Overview):
    """The part of `ActiveDataModule` that changes labels and needs no Trainer.

    Attributes:
        samples: The data set behind one index.
        oracle: Who labels.
        describe: From an index to what an annotator sees.
    """

    samples: Samples
    oracle: Oracle
    describe: Callable[[int], Any] | None
    _held: bool = False
    _holds_ledger: bool = False
    #: What this rank was given labels of that only rank 0 can write down.
    _told: set[int] = set()  # noqa: RUF012  # replaced, never changed

    # ------------------------------------------------------------------ labels

    def label(
        self, indices: Any, targets: Any = None, overwrite: bool = False, *, who: str | None = None
    ) -> None:
        """Label samples, asked for or not; all of them or none, on disk when the call returns.

        Args:
            indices: Data set indices.
            targets: Their targets, in the same order; `None`: those of the data set.
            overwrite: Correct samples that are labelled already; the old label stays on record.
            who: Who gave them.

        Raises:
            IndexError: If an index is outside of the data set.
            ValueError: If an index is doubled or labelled already, or a target is missing or not a class.
            LedgerError: If they cannot be written.
        """
        found = as_indices(indices, len(self.samples))
        if targets is None:
            own = self.samples.own_targets(found)
            self.book.label(found, own, who="dataset", overwrite=overwrite)
            self._note(found)
            return
        if who == "dataset":
            raise ValueError(
                '`who="dataset"` means labels that the data set holds, but `targets` were given. Name who '
                "gave them, or leave `targets` out."
            )
        single = isinstance(targets, str | Mapping) or not hasattr(targets, "__iter__")
        single = single or getattr(targets, "ndim", 1) == 0
        values = [targets] if single else list(targets)
        if len(values) != len(found):
            raise ValueError(f"{len(found)} `indices` came with {len(values)} `targets`; needed is one each.")
        state, checked = self.book.current(), dict[int, Any]()
        for value, index in zip(values, found.tolist(), strict=True):
            template = self.samples.template_for(index, state, checked)
            checked[index] = self.samples.checked_target(value, index, template)
        self.book.label(found, list(checked.values()), who=who or "user", overwrite=overwrite)
        self._note(found)

    def _note(self, labeled: Indices) -> None:
        """Before processes have met, each may see another pool; rank 0's labels are those that count."""
        if shared() and not is_writer():
            self._told = self._told | set(labeled.tolist())

    def unlabel(self, indices: Any, *, who: str | None = None) -> None:
        """Put labelled, asked or ignored samples back into the pool; the ledger keeps what was.

        Args:
            indices: Data set indices.
            who: Who undid it.
        """
        self.book.unlabel(indices, who)
        self._told = self._told - set(as_indices(indices, len(self.samples)).tolist())

    def ignore(self, indices: Any, *, who: str | None = None) -> None:
        """Never ask for these samples: unclear, broken, not wanted. `unlabel` takes it back.

        Args:
            indices: Data set indices of pool or asked samples.
            who: Who decided.
        """
        self.book.ignore(indices, who)

    def ask(
        self,
        indices: Any,
        *,
        strategy: str | None = None,
        scores: Sequence[float] | None = None,
        round_row: dict[str, Any] | None = None,
    ) -> int:
        """Record a query: the query first, then its labels, so far as the oracle has them.

        Args:
            indices: Data set indices of pool samples, most wanted first.
            strategy: What chose them.
            scores: Its score of each.
            round_row: The round's measurements, written in the same transaction.

        Returns:
            The round that the query belongs to.
        """
        self.check_oracle()

        def record() -> tuple[int, PoolState]:
            number = self.book.ask(indices, strategy=strategy, scores=scores, round_row=round_row)
            self.answer()
            return number, self.book.state

        number, self.book.state = agree(record)
        return number

    def check_oracle(self) -> None:
        """Refuse to ask a data set that has no labels to give.

        Raises:
            ValueError: If the unlabelled samples have none, and the oracle is the data set.
        """
        if self.oracle == "dataset":
            self.samples.check_own_labels()

    def record_round(self, row: dict[str, Any]) -> None:
        """Write a round's measurements, those that were there before and are not in `row` kept."""
        agree(lambda: self.book.write([], round_row=row))

    def answer(self) -> None:
        """Ask the oracle for the labels of the samples that wait; people are sent a CSV file."""
        asked = self.asked_indices
        if not len(asked):
            return
        if self.oracle == "people":
            if is_writer():
                self._exchange_with_people()
        elif self.oracle == "dataset":
            self.label(asked)
        elif is_writer():
            targets = _targets_of(self.oracle(asked), asked)
            known = [place for place, target in enumerate(targets) if target is not None]
            if known:
                self.label(asked[known], [targets[place] for place in known], who="oracle")

    # ------------------------------------------------------------------ people

    def export_query(self, path: str | os.PathLike[str] | None = None) -> Path:
        """Write the samples that wait for a label to a CSV file with an empty column `label`.

        Args:
            path: Where to; default `query_<round>.csv` in the state directory.

        Returns:
            The path.
        """
        target = query_path(self.book) if path is None else Path(path)
        return write_query(self.book, target, self.describe)

    def import_labels(
        self,
        path: str | os.PathLike[str] | None = None,
        *,
        overwrite: bool = False,
        who: str | None = None,
    ) -> int:
        """Read answers from a CSV file, all of them or none; rows already on record are passed over.

        A row with anything in the column `skip` and no label is never asked for again.

        Args:
            path: The file; default where `export_query` writes.
            overwrite: Let a changed answer correct a label.
            who: Who labelled; default the file's name.

        Returns:
            How many samples were newly labelled, corrected or skipped.

        Raises:
            ValueError: If a row is wrong; the message names every one, and nothing was taken over.
        """
        source = query_path(self.book) if path is None else Path(path)
        self.book.current()
        answers = collect(self.book, read_rows(source), source, overwrite=overwrite)
        self._take(answers, who or source.name, overwrite=overwrite)
        return len(answers)

    def _take(self, answers: Answers, who: str, *, overwrite: bool = False) -> None:
        if answers:
            self.book.label(
                np.array(list(answers.labels), np.int64), list(answers.labels.values()),
                who=who, overwrite=overwrite, skipped=answers.skipped,
            )  # fmt: skip

    def _exchange_with_people(self) -> None:
        """Read the files that waiting samples are in; write one if a sample that waits is in none."""
        self.book.current()
        files = query_files(self.book)
        for path in files:
            answers = collect(self.book, read_rows(path), path, automatic=True)
            self._take(answers, path.name)
            if answers:
                rank_zero_info(f"{path}: {len(answers)} answers read, {len(self.asked_indices)} still wait.")
        if not set(self.asked_indices.tolist()) <= set[int]().union(*files.values()):
            path = self.export_query()
            rank_zero_info(f"{path}: {len(self.asked_indices)} samples wait for their labels.")

    # ------------------------------------------------------------------ all ranks

    def open_for_fit(self) -> None:
        """Open, make a backup, and see that every rank is to train on the same."""
        self.open()
        agree(self._backup)
        self.book.attached = True
        same_on_every_rank(
            lambda: {"The labelled set": self.state.digest()},
            {"The labelled set": "This is a defect of lightning_al."},
        )

    def open(self) -> None:
        """Rank 0 makes or reads the ledger, keeps other runs out and asks the oracle again; all know."""

        def look() -> tuple[Path | None, PoolState]:
            if is_writer():
                self.book.attach()
                if not self._holds_ledger:
                    self.ledger.claim()
                    self._holds_ledger = True
                self.answer()
            return self.book.state_dir, self.book.state

        told = gathered(lambda: sorted(self._told))
        found, self.book.state = agree(look)
        if self.book.state_dir is None:  # else this rank's own, perhaps on a disk of its own
            self.book.state_dir = found
        self._told = set()
        check_labels_given(told, self.book.state)

    def _backup(self) -> None:
        if self._holds_ledger and is_writer():
            self.ledger.backup(f"round_{self.state.last_round}")

    def waiting_message(self) -> str:
        """How many samples wait for a label, and where it goes."""
        return str(self._awaiting())

    def _awaiting(self) -> AwaitingLabels:
        place = "the oracle returned None for them; give it time"
        if self.oracle == "people":
            place = f"fill in the column `label` of {place_of_answers(self.book)}"
        return AwaitingLabels(len(self.asked_indices), place, len(self.labeled_indices))

    @contextmanager
    def held(self) -> Iterator[None]:
        """Keep the ledger between fits, for the block."""
        self._held = True
        try:
            yield
        finally:
            self._held = False
            self.release()

    def release(self) -> None:
        """Let other runs write to the ledger, unless it is `held`."""
        if self._holds_ledger and not self._held:
            self._holds_ledger = False
            if is_writer():
                self.ledger.release()


def _targets_of(answer: Any, asked: Indices) -> list[Any]:
    """What an oracle returned, in the order of `asked`; None for what it does not know yet."""
    if isinstance(answer, Mapping):
        strange = [key for key in answer if not isinstance(key, int | np.integer)]
        if strange:
            raise ValueError(
                f"The oracle returned a mapping with keys {strange[:5]}; needed are the indices it was "
                "given. Return {index: target}, or a list with one target for each index."
            )
        return [answer.get(index) for index in asked.tolist()]
    if isinstance(answer, np.ndarray | Tensor):
        listed = answer.ndim > 0
    else:  # a column of pandas has one dimension, a table is listed by its columns
        listed = isinstance(answer, Sequence) or getattr(answer, "ndim", 0) == 1
    if not listed or isinstance(answer, str | bytes):
        raise TypeError(
            f"The oracle returned a {type(answer).__name__}; needed is a list, array or tensor with one "
            "target for each index it was given, or a mapping from these indices. Return None in the place "
            "of a target that is not known yet."
        )
    targets = list(answer)
    if len(targets) != len(asked):
        raise ValueError(
            f"The oracle was given {len(asked)} indices and returned {len(targets)} targets; "
            "needed is one each, None for those not known yet."
        )
    return targets

"""LABELLING: asking, answering, correcting; what people and scripts do with labels.

query -> [Labelling] -> the ledger first, then the oracle's answers
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Literal

import numpy as np
from lightning.pytorch.utilities.rank_zero import rank_zero_info, rank_zero_warn
from torch import Tensor

from lightning_al.data.book import is_writer
from lightning_al.data.overview import Overview
from lightning_al.data.ranks import check_labels_given
from lightning_al.data.samples import Samples
from lightning_al.exchange import (
    collect,
    format_of,
    kept_beside,
    place_of_answers,
    query_files,
    query_path,
    read_answers,
    read_csv,
    write_query,
)
from lightning_al.ledger.answer import UNNAMED
from lightning_al.ledger.connection import LedgerError
from lightning_al.ledger.indices import Indices, as_indices
from lightning_al.ledger.state import PoolState
from lightning_al.ledger.waiting import Waiting
from lightning_al.together import agree, gathered, same_on_every_rank, shared

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
            self.book.label_all(found, own, who="dataset", overwrite=overwrite)
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
        self.book.current()
        checked = list(self.book.checked(found, values).values())
        named = who is not None and who != "oracle"
        by = UNNAMED if who is None else who
        self.book.label_all(found, checked, who=by, named=named, overwrite=overwrite)
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

    def unsure(self, indices: Any, *, who: str = UNNAMED) -> None:
        """Record that an annotator cannot tell yet; the samples go on waiting, for the same one or another.

        Args:
            indices: Data set indices of samples that wait.
            who: The annotator.
        """
        self.book.unsure(indices, who)

    def undo(self, indices: Any, *, who: str | None = None) -> None:
        """Take back the last change of each sample; the ledger keeps what was, and who took it back.

        A corrected label is the earlier one again, a label that came in waits again, an ignored sample is
        where it was before. Taking back once more brings back what was taken away. What a function of several
        answers decided goes back together with the answer that it was decided by.

        Args:
            indices: Data set indices.
            who: Who took it back.

        Raises:
            ValueError: If nothing happened to a sample yet.
        """
        self.book.undo(indices, who)
        self._told = self._told - set(as_indices(indices, len(self.samples)).tolist())

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

    def export_query(self, path: str | os.PathLike[str] | None = None, *, over_answers: bool = False) -> Path:
        """Write the samples that wait for a label to a file: a table with an empty column `label`.

        Args:
            path: Where to; default `query_<round>.csv` in the state directory. A name that ends in .jsonl is
                for JSON lines, one that ends in .json for Label Studio.
            over_answers: Take the place of a file with answers that nobody has read yet, which is kept beside
                it; not of one with another run's answers.

        Returns:
            The path.

        Raises:
            ValueError: If there are such answers, or the file cannot hold the query.
        """
        return write_query(self.book, path, over_answers=over_answers)

    def import_labels(
        self,
        path: str | os.PathLike[str] | None = None,
        *,
        overwrite: bool = False,
        who: str | None = None,
    ) -> int:
        """Read answers from a file, all of them or none; rows already on record are passed over.

        A row with no label and "?" or "unsure" in the column `skip` goes on waiting; with anything else
        there, it is never asked for again. A column `who` names the annotator of each row.

        Args:
            path: The file: a table, JSON lines (.jsonl), or an export of Label Studio (.json), whose good
                answers are taken over while a warning names all others; default where `export_query` writes.
            overwrite: Let a changed answer correct a label.
            who: Who labelled, where a row does not say; default the file's name.

        Returns:
            How many answers were new.

        Raises:
            ValueError: If a row is wrong; the message names every one, and nothing was taken over.
        """
        source = query_path(self.book) if path is None else Path(path)
        self.book.current()
        if format_of(source) == "label-studio":
            return self._import_export(source, who, overwrite=overwrite)
        return self.book.take(collect(self.book, read_answers(source), source, who=who, overwrite=overwrite))

    def _import_export(self, source: Path, who: str | None, *, overwrite: bool) -> int:
        from lightning_al.exchange.label_studio import import_export

        report = import_export(self.book, source, who=who, overwrite=overwrite)
        if report.problems:
            rank_zero_warn(f"{source}: {report}")
        return report.taken

    def _exchange_with_people(self) -> None:
        """Read the files that waiting samples are in; write one if a sample that waits is in none."""
        self.book.current()
        files = query_files(self.book)
        for path in files:
            count = self.book.take(collect(self.book, read_csv(path), path, automatic=True))
            if count:
                rank_zero_info(f"{path}: {count} answers read, {len(self.asked_indices)} still wait.")
                self._backup()  # there may be no training, and so no other, for days
        if not set(self.asked_indices.tolist()) <= set[int]().union(*files.values()):
            before = kept_beside(self.book)
            path = self.export_query(over_answers=True)  # all that could be read has been
            put_aside = "".join(f" The one before is kept as {p}." for p in kept_beside(self.book) - before)
            rank_zero_info(f"{path}: {len(self.asked_indices)} samples wait for their labels.{put_aside}")

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
                self.book.refresh()
                self.book.decide()
                self.answer()
            return self.book.state_dir, self.book.state

        told = gathered(lambda: sorted(self._told), "Opening the ledger")
        found, self.book.state = agree(look)
        if self.book.state_dir is None:  # else this rank's own, perhaps on a disk of its own
            self.book.state_dir = found
        self._told = set()
        self.book.later = []  # rank 0 has its own, and this one may be another
        check_labels_given(told, self.book.state)

    def _backup(self) -> None:
        if self._holds_ledger and is_writer():
            self.ledger.backup(f"round_{self.state.last_round}")

    @property
    def waiting(self) -> Waiting:
        """What waits for labels: false if nothing does; `blocks` says whether training must wait for it."""
        found = self.book.waiting()
        if not found:
            return found
        if self.oracle == "people":
            return found.at(f"fill in the column `label` of {place_of_answers(self.book)}")
        return found.at("the oracle returned None for them; give it time")

    def waiting_message(self) -> str:
        """How many samples wait for a label, and where it goes."""
        return str(self.waiting)

    @contextmanager
    def held(self) -> Iterator[None]:
        """Keep the ledger between fits, for the block."""
        self._held = True
        try:
            yield
        except BaseException:
            self._held = False
            self.let_go()
            raise
        self._held = False
        self.release()

    def let_go(self) -> None:
        """Release after an error, which another one must not hide: who is gone is known to hold nothing."""
        with suppress(LedgerError):
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

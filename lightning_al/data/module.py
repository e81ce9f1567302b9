"""1 POOL: the data module that knows which samples are labelled, asked, ignored, or still to choose.

data set + ledger -> [ActiveDataModule] -> train loader (labelled), pool loader (targets hidden)
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal, cast

import lightning as L
import numpy as np
from lightning.pytorch.utilities.rank_zero import rank_zero_info, rank_zero_warn
from torch import Tensor
from torch.utils.data import DataLoader, SequentialSampler, default_collate

from lightning_al.data.agreement import agree, same_on_every_rank
from lightning_al.data.batches import Blocks, TrainBatches
from lightning_al.data.book import LabelBook, is_writer
from lightning_al.data.checks import (
    check_lightning,
    check_map_style,
    check_options,
    check_positive,
)
from lightning_al.data.exchange import collect, query_path, write_query
from lightning_al.data.initial import as_indices
from lightning_al.data.ledger import Ledger
from lightning_al.data.samples import Samples
from lightning_al.data.state import ASKED, IGNORED, LABELED, POOL, Indices, PoolState
from lightning_al.data.takeover import Source, settings_of
from lightning_al.data.targets import blank
from lightning_al.data.views import HiddenCollate, PoolView, TrainView
from lightning_al.data.waiting import AwaitingLabels
from lightning_al.randomness import derive_seed

__all__ = ["ActiveDataModule"]

Oracle = Literal["dataset", "people"] | Callable[[Indices], Sequence[Any]]


class ActiveDataModule(L.LightningDataModule):
    """A data set of which some samples are labelled: trains on these, scores the others.

    Simulation needs a labelled `train_set` and `initial`; its labels stay hidden until they are asked
    for. For real annotation pass `oracle="people"`, or a function that labels.

    Making the object opens nothing for writing. `fit`, `label`, `ignore` and `unlabel` write to the
    ledger in `state_dir`, and what they wrote is on disk when they return.

    Args:
        train_set: Map-style data set; items are tuples with the target last, mappings, or inputs.
        val_set: For validation, or `None`.
        test_set: For the test metrics of every round, or `None`.
        initial: The set of round 0: how many to draw at random, or their indices, or 0.
        batch_size: Samples a training batch and process.
        seed: Of the initial set, the order of training, and all that queries draw.
        state_dir: Folder of the ledger; `None`: a fresh numbered folder a run, which is printed.
        initial_balanced: Draw the initial set class by class; needs classes in the data set.
        query_view: The samples of `train_set` without augmentation, in the same order.
        unlabeled_set: Further samples without labels. Their indices follow those of `train_set`, whose
            samples then all start labelled.
        oracle: Who labels: `"dataset"`, `"people"`, or a function from an array of indices to their
            targets, in which None says "not yet".
        target: Place or key of the target in an item; default: the last of a tuple, or the first of
            label, labels, target, targets, y in a mapping.
        ids: A name for every sample; labels follow it should the order of the data set change.
        describe: From an index to what an annotator sees: text, a path, or a mapping of these.
        class_names: Names of the classes 0, 1, ...
        steps_per_epoch: Batches an epoch, however few the labels; `None`: each label once an epoch.
        last_rounds: Train on the labels of the newest rounds only; `None`: on all.
        pool_batch_size: Samples a batch in scoring; `None`: twice `batch_size`.
        num_workers: Worker processes of every loader.
        collate_fn: Makes a batch from items; `None`: torch's default.
        pin_memory: As in `DataLoader`.
        drop_last: Leave out a last smaller training batch.
        loader_options: Further arguments of every `DataLoader`.
        on_existing: `"resume"` or `"error"`, should `state_dir` hold a ledger.

    Raises:
        TypeError: If the data set is not map-style.
        ValueError: If an argument does not fit the data set.

    Example:
        >>> import torch, tempfile
        >>> train_set = torch.utils.data.TensorDataset(torch.randn(100, 4), torch.arange(100) % 2)
        >>> data = ActiveDataModule(train_set, initial=10, state_dir=tempfile.mkdtemp())
        >>> len(data.labeled_indices), len(data.pool_indices)
        (10, 90)
        >>> data.label(data.pool_indices[:2])
        >>> len(data.labeled_indices)
        12
    """

    def __init__(
        self,
        train_set: Any,
        val_set: Any = None,
        test_set: Any = None,
        *,
        initial: int | Sequence[int] = 0,
        batch_size: int = 64,
        seed: int = 0,
        state_dir: str | os.PathLike[str] | None = None,
        initial_balanced: bool = False,
        query_view: Any = None,
        unlabeled_set: Any = None,
        oracle: Oracle = "dataset",
        target: int | str | None = None,
        ids: Sequence[Any] | None = None,
        describe: Callable[[int], Any] | None = None,
        class_names: Sequence[str] | None = None,
        steps_per_epoch: int | None = None,
        last_rounds: int | None = None,
        pool_batch_size: int | None = None,
        num_workers: int = 0,
        collate_fn: Callable[[list[Any]], Any] | None = None,
        pin_memory: bool = False,
        drop_last: bool = False,
        loader_options: Mapping[str, Any] | None = None,
        on_existing: Literal["resume", "error"] = "resume",
    ) -> None:
        super().__init__()
        check_map_style(train_set=train_set, query_view=query_view, unlabeled_set=unlabeled_set)
        check_positive(
            batch_size=batch_size, pool_batch_size=pool_batch_size, steps_per_epoch=steps_per_epoch,
            last_rounds=last_rounds,
        )  # fmt: skip
        self.samples = Samples(train_set, unlabeled_set, query_view, target, class_names, ids)
        check_options(
            len(self.samples), initial=initial, has_unlabeled_set=unlabeled_set is not None,
            oracle=oracle, ids=ids, on_existing=on_existing, initial_balanced=initial_balanced,
        )  # fmt: skip
        self.val_set, self.test_set = val_set, test_set
        self.batch_size, self.seed = batch_size, seed
        self.oracle, self.describe, self.class_names = oracle, describe, class_names
        self.steps_per_epoch, self.last_rounds = steps_per_epoch, last_rounds
        self.pool_batch_size = pool_batch_size or 2 * batch_size
        self.collate_fn, self.drop_last = collate_fn, drop_last
        self.loader_options = {
            "num_workers": num_workers, "pin_memory": pin_memory, **(loader_options or {})
        }  # fmt: skip
        self.book = LabelBook(
            self.samples, state_dir=state_dir, seed=seed, initial=initial, balanced=initial_balanced,
            starts_labeled=unlabeled_set is not None or oracle == "dataset", on_existing=on_existing,
        )  # fmt: skip
        #: A round trained again sees the labels it had then.
        self.train_up_to: int | None = None
        #: Further parts of the seed of the training order, such as a committee's member.
        self.order_seed: tuple[int | str, ...] = ()
        #: A driver keeps the ledger between fits.
        self.held_by_driver = False
        self._holds_ledger = False
        self._source: Source | None = None
        self._show_loaders()

    @classmethod
    def from_datamodule(cls, datamodule: L.LightningDataModule, **options: Any) -> ActiveDataModule:
        """Take over another data module: its data set, loader settings and transfer hooks.

        Args:
            datamodule: Its `train_dataloader` gives the samples; validation, test and transfer hooks
                stay its own.
            **options: Arguments of this class; they win over what was found.

        Raises:
            ValueError: If the train loader has what cannot be taken over; the message names it.
        """
        source = Source(datamodule)
        self = cls(**{**settings_of(source.train_dataloader()), **options})
        self._source = source
        source.lend_hooks(self)
        self._show_loaders()
        return self

    @classmethod
    def from_dataloaders(
        cls, train: Any, val: Any = None, test: Any = None, **options: Any
    ) -> ActiveDataModule:
        """Take over data loaders: data set, batch size, collate function and workers of `train`.

        Args:
            train: A `DataLoader` over all samples, labelled or not.
            val: Loader or loaders for validation, used as they are.
            test: Loader or loaders for testing, used as they are.
            **options: Arguments of this class; they win over what was found.

        Raises:
            ValueError: If `train` has what cannot be taken over; the message names it.
        """
        self = cls(**{**settings_of(train), **options})
        self._source = Source(None, val=val, test=test)
        self._show_loaders()
        return self

    # ------------------------------------------------------------------ what is where

    @property
    def state(self) -> PoolState:
        """Status, round and target of every sample, as of the last look at the ledger."""
        return self.book.state

    @property
    def ledger(self) -> Ledger:
        """The record of every query and label."""
        return self.book.ledger

    @property
    def state_dir(self) -> Path | None:
        """Folder of the ledger; `None` until the first write where none was named."""
        return self.book.state_dir

    @property
    def labeled_indices(self) -> Indices:
        """Labelled samples, in the order of round and rank in the query."""
        return self.state.indices(LABELED)

    @property
    def pool_indices(self) -> Indices:
        """Samples that can be asked for, ascending."""
        return self.state.indices(POOL)

    @property
    def asked_indices(self) -> Indices:
        """Samples asked for and not labelled yet, in the order of the query."""
        return self.state.indices(ASKED)

    @property
    def ignored_indices(self) -> Indices:
        """Samples never to be asked for, ascending."""
        return self.state.indices(IGNORED)

    @property
    def train_indices(self) -> Indices:
        """The labelled samples that the next training sees."""
        last = self.state.last_round if self.train_up_to is None else self.train_up_to
        first = 0 if self.last_rounds is None else last - self.last_rounds + 1
        return self.state.labeled_up_to(last, first)

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
            return
        values = [targets] if isinstance(targets, int | str | float) else list(targets)
        if len(values) != len(found):
            raise ValueError(f"{len(found)} `indices` came with {len(values)} `targets`; needed is one each.")
        checked = [
            self.samples.checked_target(value, index)
            for value, index in zip(values, found.tolist(), strict=True)
        ]
        self.book.label(found, checked, who=who or "user", overwrite=overwrite)

    def unlabel(self, indices: Any, *, who: str | None = None) -> None:
        """Put labelled, asked or ignored samples back into the pool; the ledger keeps what was.

        Args:
            indices: Data set indices.
            who: Who undid it.
        """
        self.book.unlabel(indices, who)

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

        def record() -> tuple[int, PoolState]:
            number = self.book.ask(indices, strategy=strategy, scores=scores, round_row=round_row)
            self.answer()
            return number, self.book.state

        number, self.book.state = agree(record)
        return number

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
            targets = list(self.oracle(asked))
            if len(targets) != len(asked):
                raise ValueError(
                    f"The oracle was given {len(asked)} indices and returned {len(targets)} targets; "
                    "needed is one each, None for those not known yet."
                )
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
        answers = collect(self.book, source, overwrite=overwrite)
        if answers:
            self.book.label(
                np.array(list(answers.labels), np.int64), list(answers.labels.values()),
                who=who or source.name, overwrite=overwrite, skipped=answers.skipped,
            )  # fmt: skip
        return len(answers)

    def _exchange_with_people(self) -> None:
        """Read what is answered in the file of the waiting query, or write that file."""
        path = query_path(self.book)
        if not path.exists():
            self.export_query(path)
        elif taken := self.import_labels(path):
            rank_zero_info(f"{path}: {taken} answers read, {len(self.asked_indices)} still wait.")

    # ------------------------------------------------------------------ Lightning

    def prepare_data(self) -> None:
        """Let the data module that was taken over prepare its own."""
        if self._source is not None:
            self._source.prepare_data()

    def setup(self, stage: str | None = None) -> None:
        """Before a fit: bring ledger and ranks together, refuse what could not be trained on."""
        check_lightning(self.trainer)
        if self._source is not None:
            self._source.setup(self, stage)
        if stage != "fit":
            return
        self.synchronize()
        if len(self.asked_indices) and self.train_up_to is None:
            rank_zero_info(self.waiting_message())
            raise self._awaiting()
        world = self.trainer.world_size if self.trainer else 1
        self._check_trainable(len(self.train_indices), world)

    def synchronize(self) -> None:
        """Rank 0 reads the ledger and asks the oracle; then every rank has its state."""
        same_on_every_rank(
            (len(self.samples), self._fingerprint_if_shared()), "The data set",
            "Give every process the same samples in the same order.",
        )  # fmt: skip

        def look() -> tuple[Path | None, PoolState]:
            self.open()
            if self._holds_ledger:
                self.ledger.backup(f"round_{self.state.last_round}")
            return self.book.state_dir, self.book.state

        self.book.state_dir, self.book.state = agree(look)
        self.book.attached = True

    def open(self) -> None:
        """On rank 0: make or read the ledger, keep other runs out, and ask the oracle again."""
        if not is_writer():
            return
        self.book.attach()
        if not self._holds_ledger:
            self.ledger.claim()
            self._holds_ledger = True
        self.answer()

    def waiting_message(self) -> str:
        """How many samples wait for a label, and where it goes."""
        return str(self._awaiting())

    def _awaiting(self) -> AwaitingLabels:
        place = "the oracle returned None for them"
        if self.oracle == "people":
            place = f"fill in the column `label` of {query_path(self.book)}"
        return AwaitingLabels(len(self.asked_indices), place, len(self.labeled_indices))

    def _fingerprint_if_shared(self) -> str | None:
        shared = self._world_size() > 1
        return self.samples.fingerprint(len(self.samples)) if shared else None

    def teardown(self, stage: str | None = None) -> None:
        """After a fit: let other runs write to the ledger."""
        if stage == "fit":
            self.release()

    def on_exception(self, exception: BaseException) -> None:  # noqa: D102
        self.release()

    def release(self) -> None:
        """Give up the ledger, if this process holds it and no driver does."""
        if self._holds_ledger and not self.held_by_driver:
            self._holds_ledger = False
            if is_writer():
                self.ledger.release()

    def train_dataloader(self) -> DataLoader[Any]:
        """Labelled samples; whole batches come from the sampler, see `TrainBatches`."""
        state, indices = self.state, self.train_indices
        view = TrainView(
            self.samples.all, indices, state.overrides(indices), self.samples.place, self.samples.template
        )
        collate = self.collate_fn or default_collate
        if self.trainer is not None and self._overfits():
            return DataLoader(
                view, self.batch_size, sampler=SequentialSampler(view), collate_fn=collate,
                **self.loader_options,
            )  # fmt: skip
        world = self._world_size()
        if self.drop_last and math.ceil(len(indices) / world) < self.batch_size:
            rank_zero_warn(
                f"`drop_last=True` would leave nothing to train on: {len(indices)} labels are fewer than "
                f"a batch of {self.batch_size}. It is turned off for this round."
            )
        batches = TrainBatches(
            len(indices), self.batch_size, seed=derive_seed(self.seed, *self._order()),
            steps=self.steps_per_epoch, drop_last=self.drop_last,
            rank=self.trainer.global_rank if self.trainer else 0, world_size=world,
        )  # fmt: skip
        return DataLoader(view, batch_size=None, sampler=batches, collate_fn=collate, **self.loader_options)

    def _show_loaders(self) -> None:
        """Offer the Trainer only the loaders that there is data for: it warns of unused ones."""
        for name, there in (
            ("val_dataloader", self.has_val_data()),
            ("test_dataloader", self.has_test_data()),
        ):
            vars(self).pop(name, None)
            if not there:
                setattr(self, name, partial(getattr(L.LightningDataModule, name), self))

    def val_dataloader(self) -> Any:
        """The validation set in order, or what was taken over."""
        if self._source is not None and self.val_set is None:
            return self._source.val_dataloader()
        return self._plain_loader(self.val_set)

    def test_dataloader(self) -> Any:
        """The test set in order, or what was taken over."""
        if self._source is not None and self.test_set is None:
            return self._source.test_dataloader()
        return self._plain_loader(self.test_set)

    def has_val_data(self) -> bool:
        """Whether there is a validation set."""
        if self.val_set is not None:
            return True
        return self._source is not None and self._source.has_val_data()

    def has_test_data(self) -> bool:
        """Whether a round can be tested."""
        if self.test_set is not None:
            return True
        return self._source is not None and self._source.has_test_data()

    def pool_loader(self, indices: Indices, positions: Tensor) -> DataLoader[Any]:
        """Blocks of `positions` of `indices`: pairs of the positions and a batch without targets."""
        options = {key: value for key, value in self.loader_options.items() if key != "persistent_workers"}
        return DataLoader(
            PoolView(self.samples.query, indices),
            batch_size=None,
            sampler=Blocks(positions, self.pool_batch_size),
            collate_fn=cast(
                Any, HiddenCollate(self.samples.place, self.collate_fn, blank(self.samples.template))
            ),
            **options,
        )

    def state_dict(self) -> dict[str, Any]:
        """A copy for the checkpoint; the ledger stays the authority."""
        state = self.state
        return {
            "run_id": state.run_id, "round": state.last_round, "events": state.seq,
            "labeled": self.labeled_indices.tolist(),
        }  # fmt: skip

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Compare a checkpoint with the ledger: an older one is outvoted, a newer one an error."""
        if self.trainer is None or self.trainer.state.fn != "fit":
            return
        state = self.state
        if state_dict["run_id"] != state.run_id:
            rank_zero_warn(
                f"The checkpoint belongs to run {state_dict['run_id']}, the ledger in {self.state_dir} to "
                f"run {state.run_id}. Its weights are loaded, its labels are not."
            )
        elif state_dict["events"] > state.seq:
            raise RuntimeError(
                f"The checkpoint is of round {state_dict['round']} with {len(state_dict['labeled'])} labels, "
                f"but the ledger in {self.state_dir} ends at round {state.last_round} with "
                f"{len(self.labeled_indices)}. Labels are missing there: put the newer ledger back."
            )
        elif state_dict["events"] < state.seq:
            rank_zero_warn(
                f"The checkpoint is of round {state_dict['round']}, the ledger of round {state.last_round}; "
                f"training goes on with the {len(self.labeled_indices)} labels of the ledger."
            )

    # ------------------------------------------------------------------ helpers

    def _overfits(self) -> bool:
        return bool(getattr(self.trainer, "overfit_batches", False))

    def _world_size(self) -> int:
        return self.trainer.world_size if self.trainer is not None else 1

    def _order(self) -> tuple[int | str, ...]:
        last = self.state.last_round if self.train_up_to is None else self.train_up_to
        return ("train", last, *self.order_seed)

    def _plain_loader(self, dataset: Any) -> Any:
        if dataset is None:
            return []
        return DataLoader(dataset, self.batch_size, collate_fn=self.collate_fn, **self.loader_options)

    def _check_trainable(self, labels: int, world_size: int) -> None:
        if labels == 0:
            raise RuntimeError(
                "There is no labelled sample to train on. Give a first set: `initial=20` (drawn at "
                "random) or `initial=[...]`, `data.label(indices, targets)`, or let a strategy that "
                "needs no labels choose it: `query(model, data, acquisition, n, commit=True)`."
            )
        if labels < world_size:
            raise RuntimeError(
                f"There are {labels} labelled samples for {world_size} devices; each needs one at least. "
                "Train on fewer devices or start with a larger `initial`."
            )

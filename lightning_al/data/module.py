"""1 POOL: the data module that knows which samples are labelled, asked, ignored, or still to choose.

data set + ledger -> [ActiveDataModule] -> train loader (labelled), pool loader (targets hidden)
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, Literal, cast

import lightning as L
import numpy as np
import torch
from lightning.pytorch.utilities.rank_zero import rank_zero_info, rank_zero_warn
from torch import Tensor
from torch.utils.data import DataLoader, SequentialSampler, default_collate

from lightning_al.data.alone import take_rank_of
from lightning_al.data.batches import Blocks, TrainBatches
from lightning_al.data.book import LabelBook
from lightning_al.data.checks import (
    check_answers,
    check_class_names,
    check_flag,
    check_lightning,
    check_loader_options,
    check_map_style,
    check_no_other,
    check_options,
    check_positive,
    check_trainable,
)
from lightning_al.data.labelling import Labelling, Oracle
from lightning_al.data.ranks import asking_in, check_ranks
from lightning_al.data.samples import Samples
from lightning_al.data.snapshot import compare, is_snapshot, snapshot_of
from lightning_al.data.takeover import Source, settings_of
from lightning_al.data.targets import blank
from lightning_al.data.views import HiddenCollate, PoolView, TrainView
from lightning_al.ledger.answer import Resolve, name_of_rule
from lightning_al.ledger.indices import Indices
from lightning_al.ledger.waiting import AwaitingLabels
from lightning_al.randomness import derive_seed, generator_for

__all__ = ["ActiveDataModule"]


class ActiveDataModule(Labelling, L.LightningDataModule):
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
        spill_bytes: What scoring may keep of the pool in memory, in each process; what is more lies in a file
            in `state_dir` while the query is made. 0: always in a file.
        on_existing: `"resume"` or `"error"`, should `state_dir` hold a ledger.
        accept_changes: Go on with a ledger whose data set, seed or initial set seem to be others: the same
            samples in the same order, differently prepared.
        resolve: What becomes of several answers to one sample: `"newest"`, or a function from the newest
            `Answer` of each annotator, oldest first, to the label, or to `None` to wait on.
        min_answered: Share of a query that must be labelled or skipped before training goes on. What is left
            over may be answered in any later round, and is then trained on.

    Raises:
        TypeError: If the data set is not map-style, or an argument is of another kind.
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
        spill_bytes: int = 2**31,
        on_existing: Literal["resume", "error"] = "resume",
        accept_changes: bool = False,
        resolve: Resolve = "newest",
        min_answered: float = 1.0,
    ) -> None:
        super().__init__()
        check_map_style(train_set=train_set, query_view=query_view, unlabeled_set=unlabeled_set)
        check_no_other(val_set=val_set, test_set=test_set)
        check_loader_options(loader_options or {})
        derive_seed(seed)  # refuses what is none
        check_positive(
            batch_size=batch_size, pool_batch_size=pool_batch_size, steps_per_epoch=steps_per_epoch,
            last_rounds=last_rounds,
        )  # fmt: skip
        check_flag(
            initial_balanced=initial_balanced, pin_memory=pin_memory, drop_last=drop_last,
            accept_changes=accept_changes,
        )  # fmt: skip
        _check_bytes(spill_bytes)
        check_answers(resolve, min_answered)
        check_class_names(class_names)
        self.samples = Samples(
            train_set, unlabeled_set, query_view, target, class_names, ids, same_shape=collate_fn is None
        )
        check_options(
            len(self.samples), initial=initial, has_unlabeled_set=unlabeled_set is not None,
            oracle=oracle, ids=ids, on_existing=on_existing, initial_balanced=initial_balanced,
        )  # fmt: skip
        self._val_set, self._test_set = val_set, test_set
        self.batch_size, self.seed = batch_size, seed
        self.oracle, self.describe, self.class_names = oracle, describe, class_names
        self.resolve, self.min_answered = resolve, float(min_answered)
        self.steps_per_epoch, self.last_rounds = steps_per_epoch, last_rounds
        self.pool_batch_size, self.spill_bytes = pool_batch_size or 2 * batch_size, spill_bytes
        self.collate_fn, self.drop_last = collate_fn, drop_last
        self.loader_options = {
            "num_workers": num_workers, "pin_memory": pin_memory, **(loader_options or {})
        }  # fmt: skip
        self.book = LabelBook(
            self.samples, state_dir=state_dir, seed=seed, initial=initial, balanced=initial_balanced,
            starts_labeled=unlabeled_set is not None or oracle == "dataset", on_existing=on_existing,
            accept_changes=accept_changes, describe=None if oracle == "dataset" else describe,
            resolve=resolve, min_answered=float(min_answered),
            facts={"oracle": oracle if isinstance(oracle, str) else name_of_rule(oracle)},
        )  # fmt: skip
        #: Further parts of the seed of the training order, such as a committee's member.
        self._order_seed: tuple[int | str, ...] = ()
        self._bootstrap = False
        self._source: Source | None = None
        self._show_loaders()

    @property
    def trainer(self) -> L.Trainer | None:
        """The Trainer of the fit that runs; one of the other package is refused at once."""
        return self._trainer

    @trainer.setter
    def trainer(self, trainer: L.Trainer | None) -> None:
        check_lightning(trainer)
        self._trainer = trainer

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
        self = cls(**settings_of(source.train_dataloader(), options))
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
        self = cls(**settings_of(train, options))
        self._source = Source(None, val=val, test=test)
        self._show_loaders()
        return self

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
        if self.trainer is not None:
            take_rank_of(self.trainer)
        check_ranks(self, asking_in(self.trainer))
        self.open_for_fit()
        if len(self.asked_indices) and not self.repeats_round:
            waiting = self.waiting
            if waiting.blocks:
                rank_zero_info(str(waiting))
                raise AwaitingLabels(waiting)
        world = self.trainer.world_size if self.trainer else 1
        check_trainable(len(self.training_set().indices), world)

    def teardown(self, stage: str | None = None) -> None:
        """After a fit: let other runs write to the ledger."""
        if stage == "fit":
            self.release()

    def on_exception(self, exception: BaseException) -> None:  # noqa: D102
        self.let_go()

    def train_dataloader(self) -> DataLoader[Any]:
        """Labelled samples; whole batches come from the sampler, see `TrainBatches`."""
        self.training = self.training_set()
        state, indices = self.state, self.training.indices
        if self._bootstrap:
            generator = generator_for(self.seed, "bootstrap", *self._order())
            indices = indices[torch.randint(len(indices), (len(indices),), generator=generator).numpy()]
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

    @property
    def val_set(self) -> Any:
        """For validation, or `None`."""
        return self._val_set

    @val_set.setter
    def val_set(self, dataset: Any) -> None:
        self._val_set = dataset
        self._show_loaders()

    @property
    def test_set(self) -> Any:
        """For the test metrics of every round, or `None`."""
        return self._test_set

    @test_set.setter
    def test_set(self, dataset: Any) -> None:
        self._test_set = dataset
        self._show_loaders()

    def _show_loaders(self) -> None:
        """Offer the Trainer only the loaders that there is data for: it warns of unused ones."""
        for name, there in (
            ("val_dataloader", self.has_val_data()),
            ("test_dataloader", self.has_test_data()),
        ):
            vars(self).pop(name, None)
            own = getattr(type(self), name) is not getattr(ActiveDataModule, name)  # a subclass has its own
            if not there and not own:
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
        return snapshot_of(self.book.state)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Compare a checkpoint with the ledger: an older one is outvoted, a newer one an error."""
        if self.trainer is None or self.trainer.state.fn != "fit":
            return
        compare(state_dict, self.book.state, self.book.state_dir)

    def compare_with(self, checkpoint: Mapping[str, Any]) -> None:
        """The same for a checkpoint of a data module of another name, which Lightning would pass over."""
        found = [value for value in checkpoint.values() if is_snapshot(value)]
        if found and type(self).__qualname__ not in checkpoint:
            self.load_state_dict(found[0])

    # ------------------------------------------------------------------ helpers

    def _overfits(self) -> bool:
        return bool(getattr(self.trainer, "overfit_batches", False))

    def _world_size(self) -> int:
        return self.trainer.world_size if self.trainer is not None else 1

    @contextmanager
    def drawn_for(self, *name: str | int, bootstrap: bool) -> Iterator[None]:
        """For the block, training has an order of its own, and perhaps labels drawn with replacement."""
        self._order_seed, self._bootstrap = name, bootstrap
        try:
            yield
        finally:
            self._order_seed, self._bootstrap = (), False

    def _order(self) -> tuple[int | str, ...]:
        return ("train", self.round, *self._order_seed)

    def _plain_loader(self, dataset: Any) -> Any:
        if dataset is None:
            return []
        return DataLoader(dataset, self.batch_size, collate_fn=self.collate_fn, **self.loader_options)


def _check_bytes(spill_bytes: Any) -> None:
    needed = (
        f"`spill_bytes` is {spill_bytes!r}; needed is a whole number of bytes, 0 or more. For 8 GB write "
        "`spill_bytes=8 * 2**30`."
    )
    if isinstance(spill_bytes, bool) or not isinstance(spill_bytes, int | np.integer):
        raise TypeError(needed)
    if spill_bytes < 0:
        raise ValueError(needed)

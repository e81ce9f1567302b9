"""TAKEOVER: another data module's or loader's data set, batches, workers and hooks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import lightning as L
from lightning.pytorch.utilities.model_helpers import is_overridden
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    IterableDataset,
    RandomSampler,
    SequentialSampler,
    default_collate,
)

from lightning_al.data.book import is_writer

__all__ = ["Source", "settings_of"]

_HOOKS = ("on_before_batch_transfer", "transfer_batch_to_device", "on_after_batch_transfer")
_OPTIONS = {
    "timeout": 0,
    "worker_init_fn": None,
    "prefetch_factor": None,
    "persistent_workers": False,
    "multiprocessing_context": None,
}


class Source:
    """What was taken over: a data module, or loaders."""

    def __init__(
        self, datamodule: L.LightningDataModule | None, *, val: Any = None, test: Any = None
    ) -> None:
        self.datamodule, self.val, self.test = datamodule, val, test

    def train_dataloader(self) -> Any:
        """The train loader of a data module, made ready for it outside of any Trainer."""
        assert self.datamodule is not None
        if is_writer():
            self.datamodule.prepare_data()
        self.datamodule.setup("fit")
        return self.datamodule.train_dataloader()

    def prepare_data(self) -> None:
        """Nothing more to do: it was prepared when it was taken over."""

    def lend_hooks(self, to: L.LightningDataModule) -> None:
        """Let `to` have the data module's own transfer hooks, and no others."""
        for name in _HOOKS:
            if self.datamodule is not None and is_overridden(name, self.datamodule):
                setattr(to, name, getattr(self.datamodule, name))

    def setup(self, owner: L.LightningDataModule, stage: str | None) -> None:
        """Set the data module up for what has not been set up yet."""
        if self.datamodule is not None:
            self.datamodule.trainer = owner.trainer
            if stage != "fit":
                self.datamodule.setup(stage or "fit")

    def val_dataloader(self) -> Any:
        """Its validation loader or loaders."""
        if self.datamodule is None:
            return self.val if self.val is not None else []
        return self.datamodule.val_dataloader() if self.has_val_data() else []

    def test_dataloader(self) -> Any:
        """Its test loader or loaders."""
        if self.datamodule is None:
            return self.test if self.test is not None else []
        return self.datamodule.test_dataloader() if self.has_test_data() else []

    def has_val_data(self) -> bool:
        """Whether there is a validation loader."""
        if self.datamodule is None:
            return self.val is not None
        return is_overridden("val_dataloader", self.datamodule)

    def has_test_data(self) -> bool:
        """Whether there is a test loader."""
        if self.datamodule is None:
            return self.test is not None
        return is_overridden("test_dataloader", self.datamodule)


def settings_of(loader: Any, given: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Arguments of `ActiveDataModule` that make loaders like this one; those `given` win.

    Raises:
        ValueError: If it has what cannot be taken over; the message names it.
    """
    problem = _problem(loader)
    if problem:
        raise ValueError(
            f"The train loader cannot be taken over: {problem}. Pass `ActiveDataModule(train_set, ...)` "
            "the data set and the settings that you need."
        )
    options = {
        name: getattr(loader, name)
        for name, default in _OPTIONS.items()
        if getattr(loader, name, default) != default
    }
    given = given or {}
    if given.get("num_workers", loader.num_workers) == 0:  # torch refuses what is of no use then
        options = {name: value for name, value in options.items() if name == "worker_init_fn"}
    found = {
        "train_set": loader.dataset,
        "batch_size": loader.batch_size,
        "collate_fn": None if loader.collate_fn is default_collate else loader.collate_fn,
        "num_workers": loader.num_workers,
        "pin_memory": loader.pin_memory,
        "drop_last": loader.drop_last,
        "loader_options": options,
    }
    return {**found, **given}


def _problem(loader: Any) -> str | None:
    if not isinstance(loader, DataLoader):
        kind = type(loader).__name__
        several = isinstance(loader, list | tuple | dict) or kind == "CombinedLoader"
        return f"it is a {kind}" + (", several loaders at once" if several else ", no DataLoader")
    if isinstance(loader.dataset, IterableDataset):
        return "its data set is iterable; a pool needs samples that can be fetched by index"
    if loader.batch_size is None or type(loader.batch_sampler) is not BatchSampler:
        return f"it makes batches by {type(loader.batch_sampler or loader.sampler).__name__}"
    sampler = loader.sampler
    plain = type(sampler) is SequentialSampler or (
        type(sampler) is RandomSampler
        and not sampler.replacement
        and sampler.num_samples == len(loader.dataset)  # type: ignore[arg-type]
    )
    return None if plain else f"it draws samples by {type(sampler).__name__} in a way of its own"

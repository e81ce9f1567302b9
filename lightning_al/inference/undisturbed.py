"""UNDISTURBED: a batch comes to the model as the Trainer brings it, and all else is left as it was found."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import lightning as L
import torch
from lightning.pytorch.trainer.states import RunningStage
from lightning.pytorch.utilities.model_helpers import is_overridden
from torch import nn

from lightning_al.inference.sharing import buffers_kept
from lightning_al.randomness import preserved_rng

__all__ = ["to_device", "undisturbed"]


def to_device(
    trainer: L.Trainer,
    module: L.LightningModule,
    data: L.LightningDataModule | None,
    batch: Any,
    device: torch.device | None = None,
) -> Any:
    """As the Trainer does it: precision first, then the transfer hooks of data module or module."""
    device = trainer.strategy.root_device if device is None else device
    batch = trainer.precision_plugin.convert_input(batch)
    for name in ("on_before_batch_transfer", "transfer_batch_to_device", "on_after_batch_transfer"):
        owner = data if data is not None and is_overridden(name, data) else module
        if name == "transfer_batch_to_device":
            batch = owner.transfer_batch_to_device(batch, device, 0)
        else:
            batch = getattr(owner, name)(batch, 0)
    return batch


@contextmanager
def undisturbed(trainer: L.Trainer | None, module: nn.Module, seed: int) -> Iterator[None]:
    """Eval mode, no gradients, own random streams and the stage PREDICTING, for the block only."""
    modes = [(part, part.training) for part in module.modules()]
    stage = None if trainer is None else trainer.state.stage
    with preserved_rng(seed), torch.no_grad(), buffers_kept(module):
        try:
            module.eval()
            # Augmentation keyed on `trainer.training` stays off.
            if trainer is not None:
                trainer.state.stage = RunningStage.PREDICTING
            yield
        finally:
            if trainer is not None:
                trainer.state.stage = stage
            for part, training in modes:  # one by one: what the user froze stays frozen
                part.training = training

"""CHECKS: a fit that `ActiveLearning` cannot work with, in one message."""

from __future__ import annotations

import lightning as L
from lightning.pytorch.utilities.exceptions import MisconfigurationException

from lightning_al.data import ActiveDataModule

__all__ = ["data_of", "no_step"]


def data_of(trainer: L.Trainer) -> ActiveDataModule:
    """The data module of a fit.

    Raises:
        MisconfigurationException: If it is none of ours.
    """
    data = trainer.datamodule  # type: ignore[attr-defined]
    if not isinstance(data, ActiveDataModule):
        given = "plain data loaders" if data is None else f"a {type(data).__name__}"
        raise MisconfigurationException(
            f"`ActiveLearning` needs to know what is labelled, but the fit was given {given}. Call "
            "`trainer.fit(model, datamodule=data)` with an `ActiveDataModule`; "
            "`ActiveDataModule.from_datamodule` and `.from_dataloaders` make one of what you have."
        )
    return data


def no_step(trainer: L.Trainer) -> RuntimeError:
    """Of a fit that trained nothing."""
    return RuntimeError(
        f"The fit ended without a single training step (max_epochs={trainer.max_epochs}, "
        f"max_steps={trainer.max_steps}, training batches={trainer.num_training_batches}); a query would ask "
        "by an untrained model, so nothing was asked for. Raise these, or start without the checkpoint of a "
        "fit that had ended."
    )

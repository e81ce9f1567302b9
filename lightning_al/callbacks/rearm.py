"""REARM: one Trainer, one fit a round.

A Trainer that has fitted would do nothing more: its epochs are used up, its early stopping has stopped.
Before every further fit the loops' counters go back to zero, so that `max_epochs`, `max_steps` and
schedules mean one round, and Lightning's own callbacks to how they were at the first.
"""

from __future__ import annotations

import copy
import weakref
from typing import Any

import lightning as L
from lightning.pytorch import callbacks as lightning_callbacks
from lightning.pytorch.callbacks import (
    BaseFinetuning,
    Callback,
    EarlyStopping,
    ModelCheckpoint,
    StochasticWeightAveraging,
    Timer,
)
from lightning.pytorch.utilities.exceptions import MisconfigurationException

__all__ = ["KEEPS_STATE", "Rearm"]

_REARMED = (EarlyStopping, ModelCheckpoint, Timer, BaseFinetuning)
_WeightAveraging = getattr(lightning_callbacks, "WeightAveraging", StochasticWeightAveraging)
#: They keep averages that a further fit would begin with.
_REFUSED = (StochasticWeightAveraging, _WeightAveraging)
#: Useless in a second Trainer as they are after the first.
KEEPS_STATE = (*_REARMED, *_REFUSED)


class Rearm:
    """Remembers a Trainer at its first fit and puts it back before the others."""

    def __init__(self) -> None:
        self._trainer: weakref.ref[L.Trainer] | None = None
        self._states: list[tuple[Callback, dict[str, Any]]] = []

    def __call__(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        """Before a fit.

        Raises:
            MisconfigurationException: If the Trainer cannot be made ready for a further fit.
        """
        _refuse(trainer)
        if self._trainer is None or self._trainer() is not trainer:
            self._trainer = weakref.ref(trainer)
            self._states = [
                (callback, copy.deepcopy(vars(callback)))
                for callback in trainer.callbacks  # type: ignore[attr-defined]
                if isinstance(callback, _REARMED)
            ]
            return
        _reset_progress(trainer)
        trainer.should_stop = False  # early stopping set it; not every version of Lightning takes it back
        for callback, state in self._states:
            vars(callback).clear()
            vars(callback).update(copy.deepcopy(state))
            # The state may be older than what their own `setup` found out, such as a folder.
            callback.setup(trainer, module, "fit")

    def __getstate__(self) -> dict[str, Any]:
        return {"_trainer": None, "_states": []}


def _reset_progress(trainer: L.Trainer) -> None:
    loop = trainer.fit_loop
    epoch = loop.epoch_loop
    for progress in (
        loop.epoch_progress,
        epoch.batch_progress,
        epoch.scheduler_progress,
        epoch.automatic_optimization.optim_progress,
        epoch.manual_optimization.optim_step_progress,
    ):
        progress.reset()


def _refuse(trainer: L.Trainer) -> None:
    what = None
    if type(trainer.strategy.launcher).__name__ == "_MultiProcessingLauncher":
        what = "a strategy that starts its processes anew (spawn, fork)"
    for callback in trainer.callbacks:  # type: ignore[attr-defined]
        if isinstance(callback, _REFUSED):
            what = f"`{type(callback).__name__}`"
    if what:
        raise MisconfigurationException(
            f"The Trainer has {what}, which cannot be made ready for a second fit on one Trainer. Use "
            "`fit_rounds(model, make_trainer, data, active, rounds=...)`, which makes a Trainer a round."
        )

"""MODELS: the module of a fit, and the seed of its weights."""

from __future__ import annotations

from collections.abc import Callable

import lightning as L
import torch
from lightning.pytorch.utilities.model_helpers import is_overridden

from lightning_al.callbacks import ActiveLearning
from lightning_al.callbacks.seat import Seat
from lightning_al.data import ActiveDataModule
from lightning_al.inference.committee import Committee
from lightning_al.inference.sharing import Apart
from lightning_al.querying import check_module
from lightning_al.randomness import derive_seed

__all__ = ["Models"]


class Models:
    """The modules of a run: always the one that was given, or a fresh one for every fit.

    Args:
        model: A module, or a function from a seed to one; `None`: the committee's functions make them.
        data: Whose seed they are drawn by.
        active: Says what a round's weights begin with, and which committee is to be trained.
    """

    def __init__(
        self,
        model: L.LightningModule | Callable[[int], L.LightningModule] | None,
        data: ActiveDataModule,
        active: ActiveLearning,
    ) -> None:
        self.model, self.data, self.active = model, data, active
        self._last: L.LightningModule | None = None
        self._apart = Apart()
        shares = active.committee is not None and isinstance(model, torch.nn.Module)
        buffers = model.named_buffers() if shares and isinstance(model, torch.nn.Module) else ()
        self._buffers = {name: buffer.detach().clone() for name, buffer in buffers}

    @property
    def makes(self) -> bool:
        """Whether a function makes a fresh module for every fit."""
        committee = self.active.committee
        made = committee is not None and committee.makers is not None
        return made or not isinstance(self.model, torch.nn.Module)

    def seed(self, number: int, seat: Seat | None) -> int:
        """Of the weights that a fit begins with."""
        drawn = number if self.active.restart == "redraw" else 0
        return derive_seed(self.data.seed, "weights", drawn, *(() if seat is None else seat.seeds))

    def of(self, number: int, committee: Committee | None, seat: Seat | None) -> L.LightningModule:
        """The module of a fit.

        Raises:
            TypeError: If it is none of Lightning's.
            ValueError: If members of a committee have trainable parameters in common.
        """
        seed = self.seed(number, seat)
        if committee is not None and committee.makers is not None and seat is not None:
            module = committee.makers[seat.number](seed)
        elif isinstance(self.model, torch.nn.Module):
            check_module(self.model)
            for name, buffer in self.model.named_buffers() if self._buffers else ():
                if name in self._buffers:  # no member begins with what another one counted
                    buffer.copy_(self._buffers[name])
            return self.model  # type: ignore[return-value]  # perhaps compiled, which `fit` takes too
        else:
            assert self.model is not None
            module = self.model(seed)
        check_module(module)
        if committee is not None and module is self._last:
            raise ValueError(
                "The function that makes a committee's members returned the same module twice, so training "
                "one would change another. Make a fresh one in every call."
            )
        if committee is not None:
            self._apart.check(module)
        self._last = module
        return module

    def make_layers(self, module: L.LightningModule, trainer: L.Trainer) -> None:
        """Layers made in processes started anew are not in this one's module when they end."""
        module = getattr(module, "_orig_mod", module)
        if is_overridden("configure_model", module):
            module.trainer = self.data.trainer = trainer
            trainer.datamodule = self.data  # type: ignore[attr-defined]
            module.configure_model()

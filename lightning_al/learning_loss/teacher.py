"""TEACHER: what a module's loss head learns, step by step, and what is known of it in a fit.

features of a batch, its losses -> `Teacher.teach` -> what the head has to learn; an epoch ends: did it?
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import lightning as L
import torch
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor

from lightning_al.learning_loss import checks
from lightning_al.learning_loss.attached import (
    check_unchanged,
    find_layers,
    head_of,
    is_fitting,
    needs_every_step,
    options_of,
)
from lightning_al.learning_loss.features import Features
from lightning_al.learning_loss.head import LossHead
from lightning_al.learning_loss.held_out import HeldOutRanking
from lightning_al.learning_loss.objective import detaches, objective
from lightning_al.learning_loss.options import LearningLossOptions

__all__ = ["Teacher"]


@dataclass
class Record:
    """What the head was taught in a fit so far.

    Attributes:
        ran: Whether a training step went on, and was not skipped.
        called: Whether one called `learning_loss`.
        called_now: Whether the step that runs did.
        calls: How often it was called in this epoch.
        had_pairs: Whether one call had more than one sample.
        owes: Whether one in the step that runs gave what is to reach `backward`.
        owed: Whether one in a step before did.
        reached: Whether any of it reached `backward`.
        warned: Whether it was said that no batch had more than one sample.
        bad: Where nobody looks step by step: whether losses, predictions or task losses had no value, `(3,)`.
    """

    ran: bool = False
    called: bool = False
    called_now: bool = False
    calls: int = 0
    had_pairs: bool = False
    owes: bool = False
    owed: bool = False
    reached: bool = False
    warned: bool = False
    bad: Tensor | None = None

    def watch(self, losses: Tensor, predicted: Tensor, task_loss: Tensor | None, objective: str) -> None:
        """Remember what has no value, without a wait for the device; on the CPU it was refused at once."""
        if losses.device.type == "cpu":
            return
        flags = [losses.isnan().any(), predicted.isnan().any(), torch.zeros_like(losses[0], dtype=torch.bool)]
        if objective == "smooth":
            flags[0] = flags[0] | (losses < 0).any()
        if task_loss is not None:
            flags[2] = task_loss.isnan().to(losses.device)
        bad = torch.stack(flags)
        self.bad = bad if self.bad is None else bad | self.bad


class Teacher:
    """Of one module, which is given to it and not kept: a copy of the module has a copy of its own.

    Attributes:
        features: What the module's layers give.
        ranking: How well the head ranks what it has not learned from.
        record: Of this fit.
        made_for: The options with which it was last seen to that head and layers fit.
    """

    def __init__(self) -> None:
        self.features, self.ranking, self.record = Features(), HeldOutRanking(), Record()
        self.made_for: LearningLossOptions | None = None
        self._was_told = False

    def attach(self, module: Any) -> None:
        """Listen to the layers as they are now.

        Raises:
            RuntimeError: If the module has a head for others.
        """
        layers, options = find_layers(module, module.learning_loss_layers), options_of(module)
        check_unchanged(module, list(layers), options, self.made_for)
        self.features.attach(layers, options.channels)
        self.made_for = options

    def begin(self) -> None:
        """A fit begins."""
        self.record, self._was_told = Record(), False

    def teach(self, module: Any, losses: Tensor, task_loss: Tensor | None) -> Tensor:
        """What the head has to learn of the pass over these samples.

        Args:
            module: The module.
            losses: Of the samples.
            task_loss: What it minimises for the task, if not the mean of these.
        """
        options, head = options_of(module), head_of(module)
        checks.check_values(losses, task_loss, options.objective)
        if not self.features.is_listening:
            raise checks.outside_of_a_step(module)
        only_looks = detaches(module, options)
        has_gradient = losses.requires_grad and torch.is_grad_enabled() and not only_looks
        found = self.features.for_batch(len(losses), needs_gradient=has_gradient)
        checks.check_graph(module, losses, task_loss)
        predicted = self.predict(
            module, {name: f.detach() for name, f in found.items()} if only_looks else found
        )
        checks.check_predicted(module, found, predicted)
        self.features.clear()
        record = self.record
        record.watch(losses, predicted, task_loss, options.objective)
        taught = objective(module, options, predicted, losses.detach(), record.calls)
        record.called = record.called_now = True
        record.calls += 1
        if len(losses) > 1 or options.objective == "mse":
            record.had_pairs = True
            self._follow(module, head, options, taught, len(losses))
        return taught

    def _follow(
        self,
        module: L.LightningModule,
        head: LossHead,
        options: LearningLossOptions,
        taught: Tensor,
        samples: int,
    ) -> None:
        """See whether it reaches `backward`, and log it."""
        if taught.requires_grad:
            self.record.owes = True
            learns = options.weight > 0 and any(p.requires_grad for p in head.parameters())
            hook = partial(_reached, self.record, head if learns else None)
            taught.register_hook(hook)  # type: ignore[no-untyped-call]
        if options.log_ranking and module._trainer is not None:
            # Processes wait for each other at the end of an epoch, and not in every step.
            name, value = "train_ranking_loss", taught.detach()
            module.log(f"{name}_step", value, on_step=True, on_epoch=False, batch_size=samples)
            module.log(
                f"{name}_epoch", value, on_step=False, on_epoch=True, sync_dist=True, batch_size=samples
            )

    def predict(self, module: L.LightningModule, features: Mapping[str, Tensor]) -> Tensor:
        """What the head says of these features."""
        head = head_of(module)
        checks.check_widths(features, head.widths)
        predicted: Tensor = head(list(features.values()))
        return predicted

    def end_step(self, module: L.LightningModule, *, was_skipped: bool) -> None:
        """A training step has ended.

        Raises:
            RuntimeError: If it had to call `learning_loss` and did not.
        """
        record = self.record
        if not was_skipped:
            record.ran, record.owed = True, record.owed or record.owes
            called = record.called_now if module.automatic_optimization else record.called
            if not called and needs_every_step(module):
                raise checks.left_out(module)
        record.owes = record.called_now = False

    def judge(self, module: Any, losses: Tensor) -> None:
        """Of samples held out: log how well the head ranks them."""
        checks.check_values(
            losses, None, "hinge"
        )  # on other devices the metrics say so when they are computed
        found = self.features.for_batch(len(losses))
        predicted = self.predict(module, found)
        checks.check_predicted(module, found, predicted)
        self.features.clear()
        self.ranking.log(module, predicted, losses)

    def warn_if_untaught(self, module: L.LightningModule) -> None:
        """Say once a fit that the head has learned nothing."""
        if not head_of(module).learned and not self._was_told and not _only_rehearses(module):
            self._was_told = True
            rank_zero_warn(checks.never_learned(module))

    def end_epoch(self, module: L.LightningModule) -> None:
        """Look at what only shows over an epoch.

        Raises:
            RuntimeError: If no step called `learning_loss`, or none returned what it gave.
            ValueError: If losses or predictions had no place in an order.
        """
        record = self.record
        record.calls = 0
        if record.ran and not record.called:
            raise checks.never_called(module)
        if record.owed and not record.reached:
            raise checks.never_reached(module)
        if record.called and not record.had_pairs and not record.warned:
            record.warned = True
            rank_zero_warn(
                f"All batches of `{type(module).__name__}` had one sample, so the loss head learned nothing: "
                "it learns which of two samples of a batch has the larger loss. Use batches of two or more."
            )
        if record.bad is not None:
            checks.check_flags(module, record.bad.tolist())


def _reached(record: Record, head: LossHead | None, gradient: Tensor) -> None:
    """Called by `backward`, for what the head had to learn."""
    record.reached = True
    if head is not None:
        head.learned.fill_(1)


def _only_rehearses(module: L.LightningModule) -> bool:
    """Whether this is a query before the first step of a fit."""
    trainer = module.trainer if is_fitting(module) else None
    return trainer is not None and trainer.state.stage is not None and not trainer.global_step

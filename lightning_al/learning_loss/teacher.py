"""TEACHER: what a module's loss head learns, step by step, and what is known of it in a fit.

features of a batch, its losses -> `Teacher.teach` -> what the head has to learn; an epoch ends: did it?
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import lightning as L
import torch
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor

from lightning_al.functional import pairwise_ranking_loss
from lightning_al.learning_loss import checks
from lightning_al.learning_loss.attached import check_unchanged, head_of, is_fitting, options_of
from lightning_al.learning_loss.features import Features, find_layers
from lightning_al.learning_loss.head import LossHead
from lightning_al.learning_loss.held_out import HeldOutRanking
from lightning_al.learning_loss.options import LearningLossOptions
from lightning_al.randomness import generator_for

__all__ = ["Teacher"]


@dataclass
class Record:
    """What the head was taught in a fit so far.

    Attributes:
        ran: Whether a training step went on, and was not skipped.
        called: Whether one called `learning_loss`.
        had_pairs: Whether one had more than one sample.
        owes: Whether a call in the step that runs gave what is to reach `backward`.
        owed: Whether one in a step before did.
        reached: Whether any of it reached `backward`.
        warned: Whether it was said that no batch had more than one sample.
        calls: How often `learning_loss` was called in this epoch.
        bad: Whether losses had no place in an order, where that is not looked at step by step.
    """

    ran: bool = False
    called: bool = False
    had_pairs: bool = False
    owes: bool = False
    owed: bool = False
    reached: bool = False
    warned: bool = False
    calls: int = 0
    bad: Tensor | None = None


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

    def teach(self, module: Any, losses: Tensor, *, needs_graph: bool) -> Tensor:
        """What the head has to learn of the pass over these samples.

        Args:
            module: The module.
            losses: Of the samples.
            needs_graph: Whether the module is to learn from the losses themselves.
        """
        options, head = options_of(module), head_of(module)
        self._watch(losses, options)
        if not self.features.is_listening:
            raise checks.outside_of_a_step(module)
        detaches = _detaches(module, options)
        has_gradient = losses.requires_grad and torch.is_grad_enabled() and not detaches
        found = self.features.for_batch(len(losses), needs_gradient=has_gradient)
        if needs_graph and torch.is_grad_enabled():
            checks.check_graph(module, losses)
        predicted = head([part.detach() for part in found] if detaches else found)
        self.features.clear()
        taught = self._objective(module, options, predicted, losses.detach())
        record = self.record
        record.called, record.had_pairs = True, record.had_pairs or len(losses) > 1
        record.calls += 1
        says_something = len(losses) > 1 or options.objective == "mse"
        if says_something and taught.requires_grad:
            record.owes = True
            learns = options.weight > 0 and any(p.requires_grad for p in head.parameters())
            hook = partial(_reached, record, head if learns else None)
            taught.register_hook(hook)  # type: ignore[no-untyped-call]
        return taught

    def end_step(self, *, was_skipped: bool) -> None:
        """A training step has ended."""
        record = self.record
        record.ran, record.owed = (
            record.ran or not was_skipped,
            record.owed or (record.owes and not was_skipped),
        )
        record.owes = False

    def judge(self, module: Any, losses: Tensor) -> None:
        """Of samples held out: log how well the head ranks them."""
        if losses.device.type == "cpu":  # elsewhere the metrics say so, when they are computed
            checks.check_not_nan(losses)
        predicted = head_of(module)(self.features.for_batch(len(losses)))
        self.features.clear()
        self.ranking.log(module, predicted, losses)

    def warn_if_untaught(self, module: L.LightningModule) -> None:
        """Say once a fit that the head has learned nothing."""
        if not head_of(module).learned and not self._was_told and not _only_rehearses(module):
            self._was_told = True
            rank_zero_warn(checks.never_learned(module))

    def check_called(self, module: L.LightningModule) -> None:
        """After steps of a fit.

        Raises:
            RuntimeError: If none called `learning_loss`.
        """
        if self.record.ran and not self.record.called:
            raise checks.never_called(module)

    def end_epoch(self, module: L.LightningModule) -> None:
        """Look at what only shows over an epoch.

        Raises:
            RuntimeError: If no step called `learning_loss`, or none returned what it gave.
            ValueError: If losses had no place in an order.
        """
        self.check_called(module)
        record = self.record
        record.calls = 0
        if record.owed and not record.reached:
            raise checks.never_reached(module)
        if record.called and not record.had_pairs and not record.warned:
            record.warned = True
            rank_zero_warn(
                f"All batches of `{type(module).__name__}` had one sample, so the loss head learned nothing: "
                "it learns which of two samples of a batch has the larger loss. Use batches of two or more."
            )
        if record.bad is not None and bool(record.bad):
            raise ValueError(
                "`learning_loss` was given losses in this epoch that are NaN, or negative with "
                '`objective="smooth"`; what has no value has no place in an order. Look at the samples, at '
                "the learning rate, or at the precision; for negative losses use the objective `hinge`."
            )

    def _watch(self, losses: Tensor, options: LearningLossOptions) -> None:
        """Refuse values at once on the CPU; elsewhere remember that there were bad ones, without a wait."""
        if losses.device.type == "cpu":
            checks.check_not_nan(losses)
            return
        bad = losses.isnan() | (losses < 0) if options.objective == "smooth" else losses.isnan()
        before = self.record.bad
        self.record.bad = bad.any().detach() if before is None else bad.any().detach() | before

    def _objective(
        self, module: L.LightningModule, options: LearningLossOptions, predicted: Tensor, target: Tensor
    ) -> Tensor:
        if options.objective == "mse":
            return _squared_error(predicted, target)
        generator = None
        if options.pairing == "random":  # from the global seed, of which nothing is drawn
            epoch = 0 if module._trainer is None else module._trainer.current_epoch
            generator = generator_for(torch.initial_seed(), "loss pairs", epoch, self.record.calls)
        return pairwise_ranking_loss(
            predicted,
            target,
            options.margin,
            form=options.objective,
            pairing=options.pairing,
            generator=generator,
        )


def _reached(record: Record, head: LossHead | None, gradient: Tensor) -> None:
    """Called by `backward`, for what the head had to learn."""
    record.reached = True
    if head is not None:
        head.learned.fill_(1)


def _squared_error(predicted: Tensor, target: Tensor) -> Tensor:
    """The mean over what has a size."""
    target = target.to(predicted.dtype)
    finite = target.isfinite()
    error = predicted - torch.where(finite, target, predicted.detach())
    return error.square().sum() / finite.sum().clamp_min(1)


def _detaches(module: L.LightningModule, options: LearningLossOptions) -> bool:
    """Whether the head only looks now."""
    if module._trainer is None or options.detach_after is None:
        return options.detach_after == 0
    progress = _progress(module._trainer) if options.needs_progress else 0.0
    return options.detaches(module._trainer.current_epoch, progress)


def _progress(trainer: L.Trainer) -> float:
    """The share of the fit that is over."""
    shares = []
    if trainer.max_epochs is not None and trainer.max_epochs > 0:
        shares.append(trainer.current_epoch / trainer.max_epochs)
    if trainer.max_steps > 0:
        shares.append(trainer.global_step / trainer.max_steps)
    if shares:
        return max(shares)  # whichever ends it first
    raise RuntimeError(
        f"`detach_after` is a share of the fit, but the Trainer has no end (max_epochs={trainer.max_epochs}, "
        f"max_steps={trainer.max_steps}). Set one of them, or name an epoch: `detach_after=120`."
    )


def _only_rehearses(module: L.LightningModule) -> bool:
    """Whether this is a query before the first step of a fit."""
    trainer = module.trainer if is_fitting(module) else None
    return trainer is not None and trainer.state.stage is not None and not trainer.global_step

"""OBJECTIVE: how far predictions are from what the head is to learn, and whether the module learns by it."""

from __future__ import annotations

import lightning as L
import torch
from torch import Tensor

from lightning_al.functional import pairwise_ranking_loss
from lightning_al.learning_loss.options import LearningLossOptions
from lightning_al.randomness import generator_for

__all__ = ["detaches", "objective"]


def objective(
    module: L.LightningModule, options: LearningLossOptions, predicted: Tensor, target: Tensor, call: int
) -> Tensor:
    """What is minimised, `()`, of the losses predicted and true; `call`: its number in this epoch."""
    if options.objective == "mse":
        return _squared_error(predicted, target)
    generator = None
    if options.pairing == "random":  # from the global seed, of which nothing is drawn
        epoch = 0 if module._trainer is None else module._trainer.current_epoch
        generator = generator_for(torch.initial_seed(), "loss pairs", epoch, call)
    return pairwise_ranking_loss(
        predicted,
        target,
        options.margin,
        form=options.objective,
        pairing=options.pairing,
        generator=generator,
    )


def _squared_error(predicted: Tensor, target: Tensor) -> Tensor:
    """The mean over what has a size."""
    target = target.to(predicted.dtype)
    finite = target.isfinite()
    error = predicted - torch.where(finite, target, predicted.detach())
    return error.square().sum() / finite.sum().clamp_min(1)


def detaches(module: L.LightningModule, options: LearningLossOptions) -> bool:
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

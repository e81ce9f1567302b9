"""CHECKS: what a step gives, or an epoch has given, against what is needed; each mistake has one message."""

from __future__ import annotations

from typing import Any

import lightning as L
from torch import Tensor

__all__ = [
    "check_graph",
    "check_losses",
    "check_not_nan",
    "check_task_loss",
    "never_called",
    "never_learned",
    "never_reached",
    "outside_of_a_step",
]


def check_losses(losses: Any) -> None:
    """Refuse what is not one loss a sample.

    Raises:
        ValueError: If it is not.
    """
    if isinstance(losses, Tensor) and losses.ndim == 1 and len(losses):
        return
    given = f"a tensor {tuple(losses.shape)}" if isinstance(losses, Tensor) else f"a {type(losses).__name__}"
    raise ValueError(
        f"`learning_loss` was given {given}; needed is one loss a sample, (B,). " + _how_to_get_losses(losses)
    )


def _how_to_get_losses(losses: Any) -> str:
    if not isinstance(losses, Tensor) or losses.ndim == 0:
        return 'Pass `reduction="none"` to the loss function.'
    if losses.ndim > 1:
        return "Average over the other axes: `losses.flatten(1).mean(1)`."
    return "The batch is empty: leave out such batches, or return `None` for them before the forward pass."


def check_task_loss(task_loss: Any) -> None:
    """Refuse a task's loss that is no single number.

    Raises:
        TypeError: If it is no tensor.
        ValueError: If it has a shape.
    """
    if task_loss is None or (isinstance(task_loss, Tensor) and task_loss.ndim == 0):
        return
    if not isinstance(task_loss, Tensor):
        raise TypeError(
            f"`task_loss` is a {type(task_loss).__name__}; needed is a tensor (), with its gradient. Pass "
            "the loss as the loss function gives it."
        )
    raise ValueError(
        f"`task_loss` has shape {tuple(task_loss.shape)}; needed is a single number, (). Reduce it, for "
        "instance with `.mean()`."
    )


def check_not_nan(losses: Tensor) -> None:
    """Refuse losses that have no place in an order.

    Raises:
        ValueError: If one is NaN.
    """
    bad = losses.isnan()
    if bool(bad.any()):
        raise ValueError(
            f"`learning_loss` was given NaN for rows {bad.nonzero().squeeze(1).tolist()[:5]} of a batch of "
            f"{len(losses)}; what has no value has no place in an order. Look at these samples, at the "
            "learning rate, or at the precision."
        )


def check_graph(module: L.LightningModule, losses: Tensor) -> None:
    """Refuse losses that the module could not learn from.

    Raises:
        ValueError: If they have no graph, though the module has something to learn.
    """
    own = (p for name, p in module.named_parameters() if not name.startswith("loss_head."))
    if not losses.requires_grad and any(p.requires_grad for p in own):
        raise ValueError(
            "`learning_loss` was given losses without a graph, so the module would learn nothing from "
            "them; needed are those of a forward pass with gradients. Leave out `.detach()` and "
            "`torch.no_grad()`; what is to be minimised instead goes to `task_loss`."
        )


def never_called(module: L.LightningModule) -> RuntimeError:
    """For a fit whose steps leave the head out."""
    return RuntimeError(
        f"`{type(module).__name__}.training_step` never called `self.learning_loss`, so nothing teaches the "
        'head to predict losses. Return `self.learning_loss(losses)`, of losses with `reduction="none"`, '
        "instead of their mean; or leave out `LearningLossMixin`."
    )


def never_reached(module: L.LightningModule) -> RuntimeError:
    """For a fit whose steps call it, and throw away what it gives."""
    return RuntimeError(
        f"`{type(module).__name__}.training_step` called `self.learning_loss`, but its result never reached "
        "`backward`, so the head learned nothing. Return it from `training_step`, or add it to what "
        "`manual_backward` gets."
    )


def outside_of_a_step(module: L.LightningModule) -> RuntimeError:
    """For a call where no forward pass is listened to."""
    return RuntimeError(
        f"`learning_loss` was called outside of `{type(module).__name__}.training_step`, where no forward "
        "pass is listened to. Call it in `training_step`, or in what that calls."
    )


def never_learned(module: L.LightningModule) -> str:
    """For a head that is asked before it was taught."""
    return (
        f"The `loss_head` of `{type(module).__name__}` has learned nothing yet, so what it predicts is as "
        "good as random. Fit the module first, or load a checkpoint of a fit, whose `training_step` returns "
        "`self.learning_loss(losses)`."
    )

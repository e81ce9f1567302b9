"""CHECKS: what a step gives, or an epoch has given, against what is needed; each mistake has one message."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from operator import index
from typing import Any

import lightning as L
import torch
from torch import Tensor

__all__ = [
    "check_flags",
    "check_graph",
    "check_losses",
    "check_predicted",
    "check_samples",
    "check_task_loss",
    "check_values",
    "check_widths",
    "left_out",
    "never_called",
    "never_learned",
    "never_reached",
    "outside_of_a_step",
]


def check_losses(losses: Any) -> None:
    """Refuse what is not one loss a sample.

    Raises:
        ValueError: If it is not.
        TypeError: If it is of whole or complex numbers.
    """
    if isinstance(losses, Tensor) and losses.ndim == 1 and len(losses):
        if not losses.is_floating_point():
            raise TypeError(
                f"`learning_loss` was given losses of {losses.dtype}; needed are real numbers, as "
                '`reduction="none"` gives. Are these labels? For 0/1 errors pass `.float()`, for complex '
                "numbers their size, `.abs()`."
            )
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


def check_values(losses: Tensor, task_loss: Tensor | None, objective: str) -> None:
    """Refuse losses that have no place in an order, on the CPU; other devices would have to be waited for.

    Raises:
        ValueError: If one is NaN, or negative with `"smooth"`; or if the task's is NaN.
    """
    if losses.device.type != "cpu":
        return
    if bool(losses.isnan().any()):
        raise ValueError(
            f"`learning_loss` was given NaN for rows {_rows(losses.isnan())} of a batch of {len(losses)}; "
            "what has no value has no place in an order. Look at these samples, at the learning rate, or at "
            "the precision."
        )
    if objective == "smooth" and bool((losses < 0).any()):
        raise ValueError(
            f"`learning_loss` was given losses below 0 for rows {_rows(losses < 0)} of a batch of "
            f'{len(losses)}, but `objective="smooth"` takes the shares of two losses in their sum. Use '
            '`LearningLossOptions(objective="hinge")`, which needs only their order.'
        )
    if task_loss is not None and bool(task_loss.isnan()):
        raise ValueError(
            "`task_loss` is NaN, so the step would leave no weight with a value. Look at the terms that were "
            "added to the losses, at the learning rate, or at the precision."
        )


def _rows(bad: Tensor) -> list[int]:
    found: list[int] = bad.nonzero().squeeze(1).tolist()
    return found[:5]


def check_predicted(module: L.LightningModule, features: Mapping[str, Tensor], predicted: Tensor) -> None:
    """Refuse predictions that have no place in an order, on the CPU, where the head learns or is judged.

    Raises:
        ValueError: If one is NaN.
    """
    if predicted.device.type != "cpu" or not bool(predicted.isnan().any()):
        return
    layers = [name for name, part in features.items() if bool(part.isnan().any())]
    why = f"`{layers[0]}` gave NaN for them" if layers else "so its weights are"
    raise ValueError(
        f"The loss head of `{type(module).__name__}` predicts NaN for rows {_rows(predicted.isnan())} of a "
        f"batch of {len(predicted)}: {why}. Look at these samples, at the learning rate, or at the precision."
    )


def check_flags(module: L.LightningModule, bad: Sequence[bool]) -> None:
    """Refuse the same at the end of an epoch: bad losses, predictions, task losses.

    Raises:
        ValueError: If there were any.
    """
    given = (
        '`learning_loss` was given losses that are NaN, or negative with `objective="smooth"`',
        f"the loss head of `{type(module).__name__}` predicted NaN",
        "`task_loss` was NaN",
    )
    found = [what for what, there in zip(given, bad, strict=True) if there]
    if found:
        raise ValueError(
            f"In this epoch {' and '.join(found)}; what has no value has no place in an order. Look at the "
            "samples, at the learning rate, or at the precision; for negative losses use the objective "
            "`hinge`."
        )


def check_widths(features: Mapping[str, Tensor], widths: Sequence[int]) -> None:
    """Refuse features that the head was not made for.

    Raises:
        ValueError: If those of a layer are wider, or less wide.
    """
    for (name, part), width in zip(features.items(), widths, strict=True):
        if part.shape[1] != width:
            raise ValueError(
                f"`{name}` gave features {part.shape[1]} wide, but the loss head was made for {width}, as "
                "in the dry run, or in the weights that were loaded. Name a layer whose channels do not "
                "depend on the size of a sample; set `channels` if another axis has them; or set "
                "`example_input_array` to samples of the size that is trained on."
            )


def check_graph(module: L.LightningModule, losses: Tensor, task_loss: Tensor | None) -> None:
    """Refuse what the module could not learn from.

    Raises:
        ValueError: If it has no graph, though the module has something to learn.
    """
    if not torch.is_grad_enabled():
        return
    if task_loss is not None:
        if losses.requires_grad and not task_loss.requires_grad:
            raise ValueError(
                "`task_loss` has no graph, though the losses have one, so the module would learn nothing for "
                "its task; needed is what is to be minimised. Leave out `.detach()`; or leave out "
                "`task_loss`, to minimise the mean of the losses."
            )
        return
    own = (p for name, p in module.named_parameters() if not name.startswith("loss_head."))
    if not losses.requires_grad and any(p.requires_grad for p in own):
        raise ValueError(
            "`learning_loss` was given losses without a graph, so the module would learn nothing from "
            "them; needed are those of a forward pass with gradients. Leave out `.detach()` and "
            "`torch.no_grad()`; what is to be minimised instead goes to `task_loss`."
        )


def check_samples(samples: Any) -> int:
    """How many samples predictions are asked for.

    Raises:
        TypeError: If it is no whole number.
    """
    try:
        return index(samples)
    except TypeError:
        raise TypeError(
            f"`predicted_loss` was given {samples!r}; needed is how many samples the pass was over, a whole "
            "number. Call `module.predicted_loss(len(x))`."
        ) from None


def never_called(module: L.LightningModule) -> RuntimeError:
    """For a fit whose steps leave the head out."""
    return RuntimeError(
        f"`{type(module).__name__}.training_step` never called `self.learning_loss`, so nothing teaches the "
        'head to predict losses. Return `self.learning_loss(losses)`, of losses with `reduction="none"`, '
        "instead of their mean; or leave out `LearningLossMixin`."
    )


def left_out(module: L.LightningModule) -> RuntimeError:
    """For a step of several processes that leaves the head out."""
    return RuntimeError(
        f"`{type(module).__name__}.training_step` did not call `self.learning_loss` in a step; with several "
        "processes every step must call it, as `ddp` waits for the gradients of all parameters, also the "
        'head\'s. Return `self.learning_loss(losses)`, of losses with `reduction="none"`; pass `weight=0` in '
        "the options while the head is to learn nothing, or `task_loss` where something else is minimised; "
        'or use `strategy="ddp_find_unused_parameters_true"`.'
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

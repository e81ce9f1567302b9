"""STEPS: what goes on around a module's own steps and hooks, so that the head is never left out in silence.

training starts -> every training step is listened to -> an epoch ends: see `Teacher`
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import TYPE_CHECKING, Any

import lightning as L

from lightning_al.learning_loss.attached import check_optimizers, head_of, options_of
from lightning_al.learning_loss.held_out import averages_passes

if TYPE_CHECKING:
    from lightning_al.learning_loss.mixin import LearningLossMixin

__all__ = ["WRAPPERS", "trains"]


def trains(module: L.LightningModule) -> bool:
    """Whether this is training: what the Trainer does, whatever mode the module is in; else the mode."""
    trainer = module._trainer
    if trainer is None or trainer.state.stage is None:
        return module.training
    return bool(trainer.training)


def _taught(step: Callable[..., Any]) -> Callable[..., Any]:
    """A training step that is listened to."""

    @wraps(step)
    def training_step(self: LearningLossMixin, *args: Any, **kwargs: Any) -> Any:
        teacher = self._learning_loss
        if "loss_head" not in self._modules or teacher.features.is_listening or not trains(self):
            return step(self, *args, **kwargs)
        check_optimizers(self)
        teacher.attach(self)  # a layer may have been replaced since
        with teacher.features.listen():
            result = step(self, *args, **kwargs)
        teacher.end_step(self, was_skipped=result is None and self.automatic_optimization)
        return result

    training_step.is_wrapped = True  # type: ignore[attr-defined]
    return training_step


def _judged(step: Callable[..., Any]) -> Callable[..., Any]:
    """A step of a validation or a test, that is listened to if the options ask for it."""

    @wraps(step)
    def held_out_step(self: LearningLossMixin, *args: Any, **kwargs: Any) -> Any:
        teacher = self._learning_loss
        wanted = options_of(self).log_ranking and self._trainer is not None
        if not wanted or averages_passes(self.trainer) or teacher.features.is_listening:
            return step(self, *args, **kwargs)
        head_of(self)
        teacher.attach(self)
        teacher.ranking.begin_step(self.trainer)
        with teacher.features.listen(held_out=True):
            result = step(self, *args, **kwargs)
        teacher.ranking.end_step(self)
        return result

    held_out_step.is_wrapped = True  # type: ignore[attr-defined]
    return held_out_step


def _starting(hook: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(hook)
    def on_train_start(self: LearningLossMixin) -> None:
        self._learning_loss.begin()
        hook(self)

    on_train_start.is_wrapped = True  # type: ignore[attr-defined]
    return on_train_start


def _ending(hook: Callable[..., Any]) -> Callable[..., Any]:
    """At the end of an epoch, which is before any query: also where `max_steps` cuts it short."""

    @wraps(hook)
    def on_train_epoch_end(self: LearningLossMixin) -> None:
        self._learning_loss.end_epoch(self)
        hook(self)

    on_train_epoch_end.is_wrapped = True  # type: ignore[attr-defined]
    return on_train_epoch_end


#: What the methods of a module are wrapped in.
WRAPPERS = {
    "training_step": _taught,
    "validation_step": _judged,
    "test_step": _judged,
    "on_train_start": _starting,
    "on_train_epoch_end": _ending,
}

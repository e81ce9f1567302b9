"""STEPS: what goes on around a module's own steps and hooks, so that the head is never left out in silence.

training starts -> [`Lesson`] -> every training step is listened to -> an epoch ends: was the head taught?
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from typing import TYPE_CHECKING, Any

import lightning as L
from lightning.pytorch.strategies import DDPStrategy, SingleDeviceStrategy
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor

from lightning_al.learning_loss.held_out import averages_passes

if TYPE_CHECKING:
    from lightning_al.learning_loss.mixin import LearningLossMixin

__all__ = ["WRAPPERS", "Lesson", "trains"]


@dataclass
class Lesson:
    """What the head was taught in a fit so far.

    Attributes:
        ran: Whether a training step went on, and was not skipped.
        called: Whether one called `learning_loss`.
        had_pairs: Whether one had more than one sample.
        warned: Whether it was said that none had.
        calls: How often `learning_loss` was called in this epoch.
        bad: Whether losses had no place in an order, where that is not looked at step by step.
    """

    ran: bool = False
    called: bool = False
    had_pairs: bool = False
    warned: bool = False
    calls: int = 0
    bad: Tensor | None = None

    def add(self, samples: int) -> None:
        """A batch is learned from."""
        self.called = True
        self.had_pairs = self.had_pairs or samples > 1
        self.calls += 1


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
        features = self._learning_loss_features
        if features is None or features.is_listening or not trains(self):
            return step(self, *args, **kwargs)
        _check_optimizers(self)
        with features.listen():
            result = step(self, *args, **kwargs)
        if result is not None or not self.automatic_optimization:  # else it was skipped
            self._lesson.ran = True
        # With several processes the next step would fail, as the head took no part in this one.
        if self._trainer is not None and self._trainer.world_size > 1:
            _check_called(self)
        return result

    training_step.is_wrapped = True  # type: ignore[attr-defined]
    return training_step


def _judged(step: Callable[..., Any]) -> Callable[..., Any]:
    """A step of a validation or a test, that is listened to if the options ask for it."""

    @wraps(step)
    def held_out_step(self: LearningLossMixin, *args: Any, **kwargs: Any) -> Any:
        wanted = self._options.log_ranking and self._trainer is not None
        if not wanted or averages_passes(self.trainer) or self._listened().is_listening:
            return step(self, *args, **kwargs)
        self._loss_head()
        self._ranking.begin_step(self.trainer)
        with self._listened().listen(held_out=True):
            result = step(self, *args, **kwargs)
        self._ranking.end_step(self)
        return result

    held_out_step.is_wrapped = True  # type: ignore[attr-defined]
    return held_out_step


def _starting(hook: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(hook)
    def on_train_start(self: LearningLossMixin) -> None:
        self._begin_lesson()
        hook(self)

    on_train_start.is_wrapped = True  # type: ignore[attr-defined]
    return on_train_start


def _ending(hook: Callable[..., Any]) -> Callable[..., Any]:
    """At the end of an epoch, which is before any query: also where `max_steps` cuts it short."""

    @wraps(hook)
    def on_train_epoch_end(self: LearningLossMixin) -> None:
        _check_called(self)
        _check_lesson(self)
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


def _check_optimizers(module: LearningLossMixin) -> None:
    """Before the first step: who hands over the parameters one by one leaves the head out."""
    trainer = module._trainer
    if trainer is None or trainer.global_step:
        return
    if not isinstance(trainer.strategy, SingleDeviceStrategy | DDPStrategy):
        return  # the others hold parameters of their own
    known = {id(p) for o in trainer.optimizers for group in o.param_groups for p in group["params"]}
    wanted = {name: p for name, p in module._loss_head().named_parameters() if p.requires_grad}
    missing = [name for name, p in wanted.items() if id(p) not in known]
    if not known or not missing:
        return
    which = "the parameters" if len(missing) == len(wanted) else f"{missing}"
    raise RuntimeError(
        f"No optimizer of `{type(module).__name__}` has {which} of `self.loss_head`, which predicts the "
        "losses, so it would never learn. Let `configure_optimizers` take `self.parameters()`, or add "
        '`{"params": self.loss_head.parameters()}`.'
    )


def _check_called(module: LearningLossMixin) -> None:
    if not module._lesson.ran or module._lesson.called:
        return
    raise RuntimeError(
        f"`{type(module).__name__}.training_step` never called `self.learning_loss`, so nothing teaches the "
        'head to predict losses. Return `self.learning_loss(losses)`, of losses with `reduction="none"`, '
        "instead of their mean; or leave out `LearningLossMixin`."
    )


def _check_lesson(module: LearningLossMixin) -> None:
    lesson = module._lesson
    lesson.calls = 0
    if lesson.called and not lesson.had_pairs and not lesson.warned:
        lesson.warned = True
        rank_zero_warn(
            f"All batches of `{type(module).__name__}` had one sample, so the loss head learned nothing: it "
            "learns which of two samples of a batch has the larger loss. Use batches of two or more."
        )
    if lesson.bad is not None and bool(lesson.bad):
        raise ValueError(
            "`learning_loss` was given losses in this epoch that are NaN, or negative with "
            '`objective="smooth"`; what has no value has no place in an order. Look at the samples, at the '
            "learning rate, or at the precision; for negative losses use the objective `hinge`."
        )

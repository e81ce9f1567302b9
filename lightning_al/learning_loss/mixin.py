"""LearningLossMixin: a base, some names of layers, and one line in `training_step`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import wraps
from typing import Any

import lightning as L
import torch
from lightning.pytorch.strategies import DDPStrategy, SingleDeviceStrategy
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor

from lightning_al.functional import pairwise_ranking_loss
from lightning_al.learning_loss.features import Features, find_layers
from lightning_al.learning_loss.head import LossHead
from lightning_al.learning_loss.held_out import HeldOutRanking, averages_passes
from lightning_al.learning_loss.options import LearningLossOptions
from lightning_al.learning_loss.shapes import place_of, widths_of

__all__ = ["LearningLossMixin"]


class LearningLossMixin(L.LightningModule):
    """Teaches a module to predict its own loss, for `acquisition.LearningLoss` to ask by.

    Name some layers, and let `training_step` return `self.learning_loss(losses)` with one loss a sample. A
    small head on these layers' features learns which of two samples has the larger loss, whatever the task.
    `configure_optimizers` stays as it is, if it takes `self.parameters()`.

    The head, `self.loss_head`, is made in `configure_model`, which a fit calls first: by a dry run on
    `example_input_array`, or on a sample of the data; when a checkpoint is loaded, by the shapes in it. A
    `configure_model` of your own ends with `super().configure_model()`. The head runs in `training_step` and
    where its predictions are asked for, in no other pass.

    Attributes:
        learning_loss_layers: Names of submodules, as `named_modules()` has them. Their outputs may be maps
            `(B, C, H, W)`, sequences `(B, T, D)` or vectors `(B, D)`, or be the first such tensor in a tuple,
            a mapping or an object; places and tokens are averaged, padding included.
        learning_loss_options: Of the class, or set on a module before its first fit.

    References:
        Yoo & Kweon, "Learning Loss for Active Learning", 2019 (arXiv:1905.03677). Cost: the means over the
        features, and a few small linear layers.

    Example:
        >>> class Net(LearningLossMixin, L.LightningModule):
        ...     learning_loss_layers = ("hidden",)
        ...     example_input_array = torch.zeros(2, 3)
        ...
        ...     def __init__(self):
        ...         super().__init__()
        ...         self.hidden, self.last = torch.nn.Linear(3, 8), torch.nn.Linear(8, 2)
        ...
        ...     def forward(self, x):
        ...         return self.last(self.hidden(x).relu())
        ...
        ...     def training_step(self, batch, batch_idx):
        ...         x, y = batch
        ...         return self.learning_loss(torch.nn.functional.cross_entropy(self(x), y, reduction="none"))
        >>> net = Net()
        >>> net.configure_model()  # as a fit does
        >>> net.training_step((torch.randn(4, 3), torch.tensor([0, 1, 1, 0])), 0).backward()
    """

    learning_loss_layers: Sequence[str] = ()
    learning_loss_options: LearningLossOptions = LearningLossOptions()

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        for name, wrap in _STEPS.items():
            step = getattr(cls, name)
            # Also one that comes from a base without the mixin.
            if step is not getattr(L.LightningModule, name) and not hasattr(step, "listens"):
                setattr(cls, name, wrap(step))

    # ------------------------------------------------------------------ what a user calls

    def learning_loss(self, losses: Tensor, task_loss: Tensor | None = None) -> Tensor:
        """What `training_step` returns: the task's loss, and what teaches the head to predict it.

        In validation and tests it is the task's loss alone; with `log_ranking` of the options, how well the
        head ranks `losses` is logged as well.

        Args:
            losses: One a sample, of the last forward pass: `reduction="none"`, further axes averaged.
            task_loss: What to minimise for the task, where that is not the mean of `losses`: with class
                weights, label smoothing or further terms, of which the head should know nothing.

        Returns:
            The sum, with its gradient.

        Raises:
            ValueError: If `losses` is not one number a sample, or has a NaN.
            RuntimeError: If the head is missing, or a layer gave no features for these samples.
        """
        _check_losses(losses)
        task = losses.mean(dtype=_at_least_float32(losses)) if task_loss is None else task_loss
        features = self._learning_loss_features
        if features is not None and features.is_held_out:
            self._log_ranking(losses)
            return task
        if not self.training:
            return task
        _check_not_nan(losses)
        if features is None or not features.is_listening:
            raise _outside_of_a_step(self) if features is not None else _no_head(self)
        features.used = True
        detaches = self._detaches()
        needs_gradient = losses.requires_grad and torch.is_grad_enabled() and not detaches
        found = features.for_batch(len(losses), needs_gradient=needs_gradient)
        if detaches:
            found = [part.detach() for part in found]
        head = self._loss_head()
        predicted, target = head(found), losses.detach()
        features.clear()
        options = self.learning_loss_options
        if options.objective == "mse":
            taught = torch.nn.functional.mse_loss(predicted, target.to(predicted.dtype))
        else:
            taught = pairwise_ranking_loss(
                predicted, target, options.margin, form=options.objective, pairing=options.pairing
            )
        return task + options.weight * taught

    @contextmanager
    def predicting_loss(self) -> Iterator[None]:
        """For the block, forward passes leave what `predicted_loss` needs.

        Raises:
            RuntimeError: If there is no head yet.
        """
        self._loss_head()
        features = self._listened()
        with features.listen("within `predicting_loss`"):
            yield

    def predicted_loss(self, samples: int) -> Tensor:
        """Predicted losses `(samples,)` of the pass over so many samples, within `predicting_loss`.

        Only their order means anything, unless the objective is `"mse"`.

        Raises:
            RuntimeError: If no pass, or more than one, went over so many samples.
        """
        predicted: Tensor = self._loss_head()(self._listened().for_batch(samples))
        return predicted

    # ------------------------------------------------------------------ Lightning

    def configure_model(self) -> None:
        """Make the head, unless it is there; a method of your own ends by calling this one."""
        super().configure_model()
        features = self._listened()
        if self._modules.get("loss_head") is not None:
            return
        widths = widths_of(self, features)
        if widths is not None:
            self._put_head(LossHead, widths, self.learning_loss_options.hidden)
        elif self._trainer is not None and self._trainer.state.fn == TrainerFn.FITTING:
            raise RuntimeError(
                f"The shapes of `{type(self).__name__}.learning_loss_layers` are not known: there is no "
                "`example_input_array`, and no sample could be taken from the training data. Set "
                "`self.example_input_array` to a batch as `forward` takes it, such as "
                "`torch.zeros(2, 3, 32, 32)`."
            )

    def _load_from_state_dict(self, state_dict: Any, prefix: str, *args: Any, **kwargs: Any) -> None:
        # Called before the children's: a head made here is filled next.
        _check_layers(self, LossHead.layers_in(state_dict, f"{prefix}loss_head."))
        if self._modules.get("loss_head") is None:
            saved = LossHead.like(state_dict, f"{prefix}loss_head.")
            if saved is not None:
                layers = find_layers(self, self.learning_loss_layers)
                if len(saved.branches) != len(layers):
                    raise RuntimeError(
                        f"The weights have a loss head for {len(saved.branches)} layers, but "
                        f"`{type(self).__name__}.learning_loss_layers` are {list(layers)}. Name those that "
                        "it was trained with."
                    )
                self._listened()
                self._put_head(lambda: saved)
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)

    # ------------------------------------------------------------------ helpers

    @property
    def _learning_loss_features(self) -> Features | None:
        return vars(self).get("_features_of_learning_loss")

    def _listened(self) -> Features:
        """Taps on the layers as they are now."""
        if self._learning_loss_features is None:
            self._features_of_learning_loss = Features(self.learning_loss_options.channels)
        self._features_of_learning_loss.attach(find_layers(self, self.learning_loss_layers))
        return self._features_of_learning_loss

    def _put_head(self, make: Callable[..., LossHead], *args: Any) -> None:
        device, dtype = place_of(self)
        with torch.device("cpu"):  # the same weights on every device
            head = make(*args)
        head.layers = tuple(self.learning_loss_layers)
        self.loss_head = head.to(device, dtype)

    def _loss_head(self) -> LossHead:
        head = self._modules.get("loss_head")
        if not isinstance(head, LossHead):
            raise _no_head(self)
        return head

    @property
    def _held_out(self) -> HeldOutRanking:
        kept: HeldOutRanking = vars(self).setdefault("_ranking_of_learning_loss", HeldOutRanking())
        return kept

    def _log_ranking(self, losses: Tensor) -> None:
        _check_not_nan(losses)
        predicted = self.predicted_loss(len(losses))
        self._listened().clear()
        self._held_out.log(self, predicted, losses)

    def _detaches(self) -> bool:
        options = self.learning_loss_options
        if self._trainer is None or options.detach_after is None:
            return options.detach_after == 0
        progress = _progress(self._trainer) if options.needs_progress else 0.0
        return options.detaches(self._trainer.current_epoch, progress)


def _listening(step: Callable[..., Any]) -> Callable[..., Any]:
    """A training step that is listened to, and looked after in the first epoch."""

    @wraps(step)
    def training_step(self: LearningLossMixin, *args: Any, **kwargs: Any) -> Any:
        features = self._learning_loss_features
        if features is None or features.is_listening:
            return step(self, *args, **kwargs)
        _check_optimizers(self)
        with features.listen():
            result = step(self, *args, **kwargs)
        if result is not None and not features.used:
            _check_called(self)
        return result

    training_step.listens = True  # type: ignore[attr-defined]
    return training_step


def _held_out(step: Callable[..., Any]) -> Callable[..., Any]:
    """A step of a validation or a test, that is listened to if the options ask for it."""

    @wraps(step)
    def held_out_step(self: LearningLossMixin, *args: Any, **kwargs: Any) -> Any:
        wanted = self.learning_loss_options.log_ranking and self._trainer is not None
        if not wanted or averages_passes(self.trainer) or self._listened().is_listening:
            return step(self, *args, **kwargs)
        self._loss_head()
        self._held_out.begin_step(self.trainer)
        with self._listened().listen(held_out=True):
            result = step(self, *args, **kwargs)
        self._held_out.end_step(self)
        return result

    held_out_step.listens = True  # type: ignore[attr-defined]
    return held_out_step


_STEPS = {"training_step": _listening, "validation_step": _held_out, "test_step": _held_out}


def _check_losses(losses: Any) -> None:
    if isinstance(losses, Tensor) and losses.ndim == 1 and len(losses):
        return
    given = f"a tensor {tuple(losses.shape)}" if isinstance(losses, Tensor) else f"a {type(losses).__name__}"
    raise ValueError(
        f"`learning_loss` was given {given}; needed is one loss a sample, (B,). "
        + (
            "Average over the other axes: `losses.flatten(1).mean(1)`."
            if isinstance(losses, Tensor) and losses.ndim > 1
            else 'Pass `reduction="none"` to the loss function.'
        )
    )


def _check_not_nan(losses: Tensor) -> None:
    bad = losses.isnan()
    if bool(bad.any()):
        raise ValueError(
            f"`learning_loss` was given NaN for rows {bad.nonzero().squeeze(1).tolist()[:5]} of a batch of "
            f"{len(losses)}; what has no value has no place in an order. Look at these samples, at the "
            "learning rate, or at the precision."
        )


def _check_layers(module: LearningLossMixin, saved: tuple[str, ...]) -> None:
    if not saved:
        return
    own = tuple(find_layers(module, module.learning_loss_layers))
    if saved != own:
        which = "other" if len(saved) == len(own) else len(saved)
        raise RuntimeError(
            f"The weights have a loss head for {which} layers, but "
            f"`{type(module).__name__}.learning_loss_layers` are {list(own)}. Name those that it was trained "
            f"with, {list(saved)}; or take its weights out of the state dict, and train another."
        )


def _check_optimizers(module: LearningLossMixin) -> None:
    """Before the first step: who hands over the parameters one by one leaves the head out."""
    trainer = module._trainer
    if trainer is None or trainer.global_step:
        return
    if not isinstance(trainer.strategy, SingleDeviceStrategy | DDPStrategy):
        return  # the others hold parameters of their own
    known = {id(p) for o in trainer.optimizers for group in o.param_groups for p in group["params"]}
    wanted = [p for p in module._loss_head().parameters() if p.requires_grad]
    if known and not all(id(p) in known for p in wanted):
        raise RuntimeError(
            f"No optimizer of `{type(module).__name__}` has the parameters of `self.loss_head`, which "
            "predicts the losses, so it would never learn. Let `configure_optimizers` take "
            '`self.parameters()`, or add `{"params": self.loss_head.parameters()}`.'
        )


def _check_called(module: LearningLossMixin) -> None:
    trainer = module._trainer
    if trainer is None or not trainer.training:  # a step of a validation may call that of the training
        return
    # With several processes the next step would fail, as the head took no part in this one.
    if not (trainer.is_last_batch or trainer.world_size > 1):
        return
    raise RuntimeError(
        f"`{type(module).__name__}.training_step` never called `self.learning_loss`, so nothing teaches the "
        'head to predict losses. Return `self.learning_loss(losses)`, of losses with `reduction="none"`, '
        "instead of their mean; or leave out `LearningLossMixin`."
    )


def _progress(trainer: L.Trainer) -> float:
    """The share of the fit that is over."""
    if trainer.max_epochs is not None and trainer.max_epochs > 0:
        return trainer.current_epoch / trainer.max_epochs
    if trainer.max_steps > 0:
        return trainer.global_step / trainer.max_steps
    raise RuntimeError(
        f"`detach_after` is a share of the fit, but the Trainer has no end (max_epochs={trainer.max_epochs}, "
        f"max_steps={trainer.max_steps}). Set one of them, or name an epoch: `detach_after=120`."
    )


def _at_least_float32(losses: Tensor) -> torch.dtype:
    return torch.promote_types(losses.dtype, torch.float32)


def _no_head(module: L.LightningModule) -> RuntimeError:
    return RuntimeError(
        f"`{type(module).__name__}` has no `loss_head` yet, with which losses are predicted. A fit makes it "
        "in `configure_model`: let a method of your own by that name end with `super().configure_model()`; "
        "outside of a fit load a checkpoint, or call `configure_model()` with `example_input_array` set."
    )


def _outside_of_a_step(module: L.LightningModule) -> RuntimeError:
    return RuntimeError(
        f"`learning_loss` was called outside of `{type(module).__name__}.training_step`, where no forward "
        "pass is listened to. Call it in `training_step`, or in what that calls."
    )

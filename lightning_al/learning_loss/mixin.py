"""LearningLossMixin: a base, some names of layers, and one line in `training_step`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import lightning as L
import torch
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor

from lightning_al.functional import pairwise_ranking_loss
from lightning_al.learning_loss.features import Features, find_layers
from lightning_al.learning_loss.head import LossHead
from lightning_al.learning_loss.held_out import HeldOutRanking
from lightning_al.learning_loss.options import LearningLossOptions
from lightning_al.learning_loss.shapes import place_of, widths_of
from lightning_al.learning_loss.steps import WRAPPERS, Lesson, trains
from lightning_al.randomness import derive_seed, generator_for, preserved_rng

__all__ = ["LearningLossMixin"]


class LearningLossMixin(L.LightningModule):
    """Teaches a module to predict its own loss, for `acquisition.LearningLoss` to ask by.

    Name some layers, and let `training_step` return `self.learning_loss(losses)` with one loss a sample. A
    small head on these layers' features learns which of two samples has the larger loss, whatever the task.
    `configure_optimizers` stays as it is, if it takes `self.parameters()`. The mixin is the first base:
    `class Net(LearningLossMixin, L.LightningModule)`.

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
    _was_told = False

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        for name, wrap in WRAPPERS.items():
            own = getattr(cls, name)
            # Also one that comes from a base without the mixin.
            if own is not getattr(L.LightningModule, name) and not hasattr(own, "is_wrapped"):
                setattr(cls, name, wrap(own))

    # ------------------------------------------------------------------ what a user calls

    def learning_loss(self, losses: Tensor, task_loss: Tensor | None = None) -> Tensor:
        """What `training_step` returns: the task's loss, and what teaches the head to predict it.

        In validation and tests it is the task's loss alone; with `log_ranking` of the options, how well the
        head ranks `losses` is logged as well.

        Args:
            losses: One a sample: `reduction="none"`, further axes averaged. Of the one forward pass over so
                many samples since the step began or this was last called; of several, of the only one that
                has a graph.
            task_loss: What to minimise for the task, where that is not the mean of `losses`: with class
                weights, label smoothing or further terms, of which the head should know nothing.

        Returns:
            The sum, with its gradient.

        Raises:
            TypeError: If the options are none, or `task_loss` is no tensor.
            ValueError: If `losses` is not one number a sample, has a NaN, or has no graph to train the module
                by; or if `task_loss` is not a single number.
            RuntimeError: If the head is missing, or a layer gave no features for these samples.
        """
        _check_losses(losses)
        _check_task_loss(task_loss)
        task = losses.mean(dtype=_at_least_float32(losses)) if task_loss is None else task_loss
        features = self._learning_loss_features
        if features is not None and features.is_held_out:
            self._log_ranking(losses)
            return task
        if not trains(self):
            return task
        self._watch(losses)
        if features is None:
            raise _no_head(self)
        if not features.is_listening:
            raise _outside_of_a_step(self)
        features.used = True
        detaches = self._detaches()
        needs_gradient = losses.requires_grad and torch.is_grad_enabled() and not detaches
        found = features.for_batch(len(losses), needs_gradient=needs_gradient)
        if task_loss is None:
            self._check_graph(losses)
        if detaches:
            found = [part.detach() for part in found]
        predicted = self._loss_head()(found)
        features.clear()
        taught = self._taught_by(predicted, losses.detach())
        self._lesson.add(len(losses))
        return task + self._options.weight * taught

    @contextmanager
    def predicting_loss(self) -> Iterator[None]:
        """For the block, forward passes leave what `predicted_loss` needs.

        Warns of a head that no fit has taught anything.

        Raises:
            RuntimeError: If there is no head yet.
        """
        if not self._loss_head().learned and not self._was_told and not _before_the_first_step(self):
            self._was_told = True
            rank_zero_warn(_never_learned(self))
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

    @WRAPPERS["on_train_start"]
    def on_train_start(self) -> None:  # noqa: D102
        super().on_train_start()

    @WRAPPERS["on_train_epoch_end"]
    def on_train_epoch_end(self) -> None:  # noqa: D102
        super().on_train_epoch_end()

    def configure_model(self) -> None:
        """Make the head, unless it is there; a method of your own ends by calling this one."""
        super().configure_model()
        features = self._listened()
        if self._modules.get("loss_head") is not None:
            return
        widths = widths_of(self, features)
        if widths is not None:
            self._put_head(LossHead, widths, self._options.hidden)
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
            with preserved_rng():
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
            self._features_of_learning_loss = Features(self._options.channels)
        self._features_of_learning_loss.attach(find_layers(self, self.learning_loss_layers))
        return self._features_of_learning_loss

    def _put_head(self, make: Callable[..., LossHead], *args: Any) -> None:
        device, dtype = place_of(self)
        # Nothing that is drawn later comes out another way than without the head.
        with preserved_rng():
            seed = derive_seed(int(torch.randint(2**31, (), device="cpu")), "loss head")
        with preserved_rng(seed), torch.device("cpu"):  # the same weights on every device
            head = make(*args)
        head.layers = tuple(self.learning_loss_layers)
        self.loss_head = head.to(device, dtype)

    def _loss_head(self) -> LossHead:
        head = self._modules.get("loss_head")
        if not isinstance(head, LossHead):
            raise _no_head(self)
        return head

    @property
    def _options(self) -> LearningLossOptions:
        options: Any = self.learning_loss_options
        if not isinstance(options, LearningLossOptions):
            raise TypeError(
                f"`{type(self).__name__}.learning_loss_options` is {options!r}; needed are settings, such as "
                "`LearningLossOptions(weight=0.5)`; `LearningLossOptions()` has the defaults."
            )
        return options

    @property
    def _lesson(self) -> Lesson:
        lesson: Lesson = vars(self).setdefault("_lesson_of_learning_loss", Lesson())
        return lesson

    def _begin_lesson(self) -> None:
        vars(self)["_lesson_of_learning_loss"] = Lesson()
        self._was_told = False

    def _taught_by(self, predicted: Tensor, target: Tensor) -> Tensor:
        """What teaches the head."""
        options = self._options
        if len(target) > 1 or options.objective == "mse":
            self._loss_head().learned.fill_(True)
        if options.objective == "mse":
            return _squared_error(predicted, target)
        return pairwise_ranking_loss(
            predicted,
            target,
            options.margin,
            form=options.objective,
            pairing=options.pairing,
            generator=self._generator() if options.pairing == "random" else None,
        )

    def _generator(self) -> torch.Generator:
        """Of this step's pairs: from the global seed, of which nothing is drawn."""
        epoch = 0 if self._trainer is None else self._trainer.current_epoch
        return generator_for(torch.initial_seed(), "loss pairs", epoch, self._lesson.calls)

    def _watch(self, losses: Tensor) -> None:
        """Refuse values at once on the CPU; elsewhere remember that there were bad ones, without a wait."""
        if losses.device.type == "cpu":
            _check_not_nan(losses)
            return
        smooth = self._options.objective == "smooth"
        bad = (losses.isnan() | (losses < 0) if smooth else losses.isnan()).any().detach()
        before = self._lesson.bad
        self._lesson.bad = bad if before is None else bad | before

    def _check_graph(self, losses: Tensor) -> None:
        if losses.requires_grad or not torch.is_grad_enabled():
            return
        own = (p for name, p in self.named_parameters() if not name.startswith("loss_head."))
        if any(p.requires_grad for p in own):
            raise ValueError(
                "`learning_loss` was given losses without a graph, so the module would learn nothing from "
                "them; needed are those of a forward pass with gradients. Leave out `.detach()` and "
                "`torch.no_grad()`; what is to be minimised instead goes to `task_loss`."
            )

    @property
    def _ranking(self) -> HeldOutRanking:
        kept: HeldOutRanking = vars(self).setdefault("_ranking_of_learning_loss", HeldOutRanking())
        return kept

    def _log_ranking(self, losses: Tensor) -> None:
        if losses.device.type == "cpu":  # elsewhere the metrics say so, when they are computed
            _check_not_nan(losses)
        predicted = self.predicted_loss(len(losses))
        self._listened().clear()
        self._ranking.log(self, predicted, losses)

    def _detaches(self) -> bool:
        options = self._options
        if self._trainer is None or options.detach_after is None:
            return options.detach_after == 0
        progress = _progress(self._trainer) if options.needs_progress else 0.0
        return options.detaches(self._trainer.current_epoch, progress)


def _check_losses(losses: Any) -> None:
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


def _check_task_loss(task_loss: Any) -> None:
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


def _squared_error(predicted: Tensor, target: Tensor) -> Tensor:
    """The mean over what has a size."""
    target = target.to(predicted.dtype)
    finite = target.isfinite()
    error = predicted - torch.where(finite, target, predicted.detach())
    return error.square().sum() / finite.sum().clamp_min(1)


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


def _before_the_first_step(module: L.LightningModule) -> bool:
    """Whether this is a fit in which a query is only rehearsed."""
    trainer = module._trainer
    fits = trainer is not None and trainer.state.fn == TrainerFn.FITTING
    return trainer is not None and fits and trainer.state.stage is not None and not trainer.global_step


def _never_learned(module: L.LightningModule) -> str:
    return (
        f"The `loss_head` of `{type(module).__name__}` has learned nothing yet, so what it predicts is as "
        "good as random. Fit the module first, or load a checkpoint of a fit, whose `training_step` returns "
        "`self.learning_loss(losses)`."
    )

"""LearningLossMixin: a base, some names of layers, and one line in `training_step`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from typing import Any

import lightning as L
import torch
from torch import Tensor

from lightning_al.learning_loss.attached import note_headless, options_of
from lightning_al.learning_loss.checks import check_losses, check_samples, check_task_loss
from lightning_al.learning_loss.making import head_from_state, make_head
from lightning_al.learning_loss.options import LearningLossOptions
from lightning_al.learning_loss.steps import WRAPPERS, trains
from lightning_al.learning_loss.teacher import Teacher

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

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        for name, wrap in WRAPPERS.items():
            own = getattr(cls, name)
            # Also one that comes from a base without the mixin.
            if own is not getattr(L.LightningModule, name) and not hasattr(own, "is_wrapped"):
                setattr(cls, name, wrap(own))

    @cached_property
    def _learning_loss(self) -> Teacher:
        """All that the mixin keeps on a module beside the head."""
        return Teacher()

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
            TypeError: If the options are none, `losses` are whole or complex numbers, or `task_loss` is no
                tensor.
            ValueError: If `losses` is not one number a sample, or `task_loss` not a single one; if one is
                NaN, or has no graph to train the module by; or if the head predicts NaN.
            RuntimeError: If the head is missing, or a layer gave no features for these samples.
        """
        check_losses(losses)
        check_task_loss(task_loss)
        dtype = torch.promote_types(losses.dtype, torch.float32)
        task = losses.mean(dtype=dtype) if task_loss is None else task_loss
        if self._learning_loss.features.is_held_out:
            self._learning_loss.judge(self, losses)
            return task
        if not trains(self):
            return task
        taught = self._learning_loss.teach(self, losses, task_loss)
        return task + options_of(self).weight * taught

    @contextmanager
    def predicting_loss(self) -> Iterator[None]:
        """For the block, forward passes leave what `predicted_loss` needs.

        Warns of a head that no fit has taught anything.

        Raises:
            RuntimeError: If there is no head yet.
        """
        teacher = self._learning_loss
        teacher.warn_if_untaught(self)
        teacher.attach(self)
        with teacher.features.listen("within `predicting_loss`"):
            yield

    def predicted_loss(self, samples: int) -> Tensor:
        """Predicted losses `(samples,)` of the pass over so many samples, within `predicting_loss`.

        Only their order means anything, unless the objective is `"mse"`.

        Raises:
            RuntimeError: If no pass, or more than one, went over so many samples.
            TypeError: If it is no number of samples.
        """
        samples = check_samples(samples)
        features = self._learning_loss.features.for_batch(samples, are_losses=False)
        return self._learning_loss.predict(self, features)

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
        self._learning_loss.attach(self)
        make_head(self, self._learning_loss.features)

    def load_state_dict(self, state_dict: Any, *args: Any, **kwargs: Any) -> Any:
        """As any module does; of weights without a head it says how to load them."""
        try:
            return super().load_state_dict(state_dict, *args, **kwargs)
        except RuntimeError as error:
            note_headless(self, state_dict, error)
            raise

    def _load_from_state_dict(self, state_dict: Any, prefix: str, *args: Any, **kwargs: Any) -> None:
        # Called before the children's: a head made here is filled next.
        if head_from_state(self, state_dict, prefix):
            self._learning_loss.made_for = None
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)

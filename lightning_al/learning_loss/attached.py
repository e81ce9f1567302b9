"""ATTACHED: whether head, layers and options of a module fit each other, its optimizers and its callbacks."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import StochasticWeightAveraging
from lightning.pytorch.strategies import DDPStrategy, SingleDeviceStrategy
from lightning.pytorch.trainer.states import TrainerFn, TrainerStatus
from torch import nn

from lightning_al.learning_loss.head import LossHead
from lightning_al.learning_loss.options import LearningLossOptions

__all__ = [
    "check_averaging",
    "check_name_is_free",
    "check_optimizers",
    "check_unchanged",
    "find_layers",
    "head_of",
    "is_fitting",
    "needs_every_step",
    "note_headless",
    "options_of",
]


def options_of(module: Any) -> LearningLossOptions:
    """The settings of a module.

    Raises:
        TypeError: If they are none.
    """
    options = module.learning_loss_options
    if not isinstance(options, LearningLossOptions):
        raise TypeError(
            f"`{type(module).__name__}.learning_loss_options` is {options!r}; needed are settings, such as "
            "`LearningLossOptions(weight=0.5)`; `LearningLossOptions()` has the defaults."
        )
    return options


def head_of(module: L.LightningModule) -> LossHead:
    """The head of a module.

    Raises:
        RuntimeError: If it has none yet, or something else by that name.
    """
    check_name_is_free(module)
    head = module._modules.get("loss_head")
    if isinstance(head, LossHead):
        return head
    raise RuntimeError(
        f"`{type(module).__name__}` has no `loss_head` yet, with which losses are predicted. A fit makes it "
        "in `configure_model`: let a method of your own by that name end with `super().configure_model()`; "
        "outside of a fit load a checkpoint, or call `configure_model()` with `example_input_array` set."
    )


def check_name_is_free(module: L.LightningModule) -> None:
    """Refuse a `loss_head` of the module's own.

    Raises:
        TypeError: If there is one.
    """
    found = getattr(module, "loss_head", None)
    if found is not None and not isinstance(found, LossHead):
        raise TypeError(
            f"`{type(module).__name__}.loss_head` is a {type(found).__name__}; under that name "
            "`LearningLossMixin` keeps the head that predicts losses. Give yours another name, such as "
            "`self.my_loss_head`."
        )


def find_layers(module: nn.Module, names: Any) -> dict[str, nn.Module]:
    """The layers of these names.

    Raises:
        TypeError: If `names` is not a list of names.
        ValueError: If there are none, one is empty or named twice, or is no layer of the module.
    """
    kind = type(module).__name__
    is_list = isinstance(names, Sequence) and not isinstance(names, str)
    if not is_list or not all(isinstance(name, str) for name in names):
        raise TypeError(
            f"`{kind}.learning_loss_layers` is {names!r}; needed is a tuple of names of submodules, such as "
            '`("net.layer1", "net.layer2")`. A single one is written `("net.layer1",)`.'
        )
    if not names or "" in names or len(set(names)) < len(names):
        raise ValueError(
            f"`{kind}.learning_loss_layers` is {tuple(names)!r}; needed are names of submodules, each once "
            'and none of them empty, such as `("net.layer1", "net.layer2")`.'
        )
    layers = {}
    for name in names:
        try:
            layers[name] = module.get_submodule(name)
        except AttributeError:
            raise _unknown(module, name) from None
    return layers


def _unknown(module: nn.Module, name: str) -> ValueError:
    known = [other.replace("_orig_mod.", "") for other, _ in module.named_modules() if other]
    near = difflib.get_close_matches(name, known, n=3, cutoff=0.4) or known[:10]
    return ValueError(
        f"`{type(module).__name__}.learning_loss_layers` names {name!r}, which the module does not have; "
        f"near it {'is' if len(near) == 1 else 'are'} {near}. Name submodules as `named_modules()` does; "
        "layers made in a `configure_model` of yours must be there before it calls "
        "`super().configure_model()`."
    )


def is_fitting(module: L.LightningModule) -> bool:
    """Whether a fit goes on: a Trainer stays with a module after it."""
    state = None if module._trainer is None else module._trainer.state
    return state is not None and state.fn == TrainerFn.FITTING and state.status == TrainerStatus.RUNNING


def needs_every_step(module: L.LightningModule) -> bool:
    """Whether several processes would wait for gradients of a head that took no part in a step."""
    trainer = module._trainer
    if trainer is None or trainer.world_size < 2 or not isinstance(trainer.strategy, DDPStrategy):
        return False
    return not trainer.strategy._ddp_kwargs.get("find_unused_parameters", False)


def check_unchanged(
    module: L.LightningModule,
    layers: Sequence[str],
    options: LearningLossOptions,
    made_for: LearningLossOptions | None,
) -> None:
    """Refuse a head for other layers than those named now, or of other options.

    Args:
        module: Of which the head is.
        layers: The names.
        options: As they are now.
        made_for: As they were when this was last looked at; `None`: the head's weights were loaded since.

    Raises:
        RuntimeError: If it is one.
    """
    head = module._modules.get("loss_head")
    if not isinstance(head, LossHead):
        return
    changed = None
    if head.layers != tuple(layers):
        changed = f"layers` are {list(layers)}", f"made for {list(head.layers)}"
    elif made_for is not None and options.hidden not in (made_for.hidden, head.hidden):
        changed = f"options` have hidden={options.hidden}", f"made with hidden={head.hidden}"
    elif made_for is not None and options.channels != made_for.channels:
        changed = f"options` have channels={options.channels!r}", f"made with channels={made_for.channels!r}"
    if changed:
        raise RuntimeError(
            f"`{type(module).__name__}.learning_loss_{changed[0]}, but its loss head was {changed[1]}, and "
            "has learned by that. Set it before the head is made; for a head that begins anew, "
            "`del module.loss_head` first, and fit again."
        )


def check_averaging(module: L.LightningModule) -> None:
    """Refuse a callback that averages a copy of the module as it was before the head was made.

    Raises:
        RuntimeError: If there is one.
    """
    callbacks: Any = module.trainer.callbacks if is_fitting(module) else []  # type: ignore[attr-defined]
    for callback in callbacks:
        copied = getattr(callback, "_average_model", None)
        if not isinstance(callback, StochasticWeightAveraging) or copied is None:
            continue
        if "loss_head" not in copied._modules:
            raise RuntimeError(
                "`StochasticWeightAveraging` copied the module before `configure_model` made its loss head, "
                f"so the head of `{type(module).__name__}` would be left out of the average. Set "
                "`example_input_array` and call `model.configure_model()` before the fit, which makes it "
                "then; or use `WeightAveraging`."
            )


def check_optimizers(module: L.LightningModule) -> None:
    """Before the first step: who hands over the parameters one by one leaves the head out.

    Raises:
        RuntimeError: If a parameter of the head is in no optimizer.
    """
    trainer = module._trainer
    if trainer is None or trainer.global_step:
        return
    if not isinstance(trainer.strategy, SingleDeviceStrategy | DDPStrategy):
        return  # the others hold parameters of their own
    known = {id(p) for o in trainer.optimizers for group in o.param_groups for p in group["params"]}
    wanted = {name: p for name, p in head_of(module).named_parameters() if p.requires_grad}
    missing = [name for name, p in wanted.items() if id(p) not in known]
    if not known or not missing:
        return
    which = "the parameters" if len(missing) == len(wanted) else f"{missing}"
    raise RuntimeError(
        f"No optimizer of `{type(module).__name__}` has {which} of `self.loss_head`, which predicts the "
        "losses, so it would never learn. Let `configure_optimizers` take `self.parameters()`, or add "
        '`{"params": self.loss_head.parameters()}`.'
    )


def note_headless(module: L.LightningModule, state: Mapping[str, Any], error: RuntimeError) -> None:
    """Say how weights without a head are loaded into a module with one."""
    if "loss_head" in module._modules and not any(name.startswith("loss_head.") for name in state):
        error.add_note(
            f"The weights are of a module without a loss head, and `{type(module).__name__}` has one. Load "
            "them with `strict=False`, which leaves the head as it is; or before the fit, or "
            "`configure_model`, makes it."
        )

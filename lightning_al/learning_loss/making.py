"""MAKING: where a head comes from.

a dry run of the module, which leaves no trace -> how wide the features are -> [`make_head`] -> `loss_head`
saved weights -> [`head_from_state`] -> the same
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import lightning as L
import torch
from lightning.fabric.utilities.apply_func import move_data_to_device
from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor, nn
from torch.utils._pytree import tree_map
from torch.utils.data import DataLoader, IterableDataset

from lightning_al.data import ActiveDataModule
from lightning_al.data.samples import Samples
from lightning_al.data.targets import blank
from lightning_al.data.views import HiddenCollate, fetch
from lightning_al.inference.model_call import ModelCall
from lightning_al.inference.undisturbed import to_device, undisturbed
from lightning_al.learning_loss.attached import (
    check_averaging,
    check_name_is_free,
    find_layers,
    is_fitting,
    options_of,
)
from lightning_al.learning_loss.features import Features
from lightning_al.learning_loss.head import LossHead
from lightning_al.randomness import derive_seed, preserved_rng

__all__ = ["head_from_state", "make_head"]


def make_head(module: Any, features: Features) -> None:
    """Give a module its head, unless it has one, or nothing tells how wide the features are.

    Raises:
        RuntimeError: If nothing does, in a fit; or if a callback averages a copy that was made before.
    """
    check_name_is_free(module)
    if module._modules.get("loss_head") is not None:
        return
    widths = _widths_of(module, features)
    if widths is not None:
        _put_head(module, lambda: LossHead(widths, options_of(module).hidden))
        check_averaging(module)
    elif is_fitting(module):
        raise RuntimeError(
            f"The shapes of `{type(module).__name__}.learning_loss_layers` are not known: there is no "
            "`example_input_array`, and no sample could be taken from the training data. Set "
            "`self.example_input_array` to a batch as `forward` takes it, such as "
            "`torch.zeros(2, 3, 32, 32)`."
        )


def head_from_state(module: Any, state: Mapping[str, Any], prefix: str) -> bool:
    """Give a module the head that saved weights are of, to be filled next, unless it has one like it.

    Returns:
        Whether there are weights of a head.

    Raises:
        RuntimeError: If these are for other layers, or, in a fit, for a head of another shape.
    """
    prefix = f"{prefix}loss_head."
    check_name_is_free(module)
    _check_layers(module, LossHead.layers_in(state, prefix))
    saved = LossHead.shape_in(state, prefix)
    if saved is None:
        return False
    layers = find_layers(module, module.learning_loss_layers)
    if len(saved[0]) != len(layers):
        raise RuntimeError(
            f"The weights have a loss head for {len(saved[0])} layers, but "
            f"`{type(module).__name__}.learning_loss_layers` are {list(layers)}. Name those that "
            "it was trained with."
        )
    head = module._modules.get("loss_head")
    if head is not None and saved != (head.widths, head.hidden) and is_fitting(module):
        raise RuntimeError(
            f"The weights have a loss head of hidden={saved[1]} for features {saved[0]} wide, but "
            f"`{type(module).__name__}` has one of hidden={head.hidden} for {head.widths}, which an "
            "optimizer knows already. Before the fit, set the options that it was trained with, such as "
            f"`learning_loss_options = LearningLossOptions(hidden={saved[1]})`."
        )
    if head is None or saved != (head.widths, head.hidden):
        _put_head(module, lambda: LossHead(*saved))
    return True


def _check_layers(module: Any, saved: tuple[str, ...]) -> None:
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


def _put_head(module: Any, make: Callable[[], LossHead]) -> None:
    device, dtype = _place_of(module)
    # Nothing that is drawn later comes out another way than without the head.
    with preserved_rng():
        seed = derive_seed(int(torch.randint(2**31, (), device="cpu")), "loss head")
    with preserved_rng(seed), torch.device("cpu"):  # the same weights on every device
        head = make()
    head.layers = tuple(module.learning_loss_layers)
    module.loss_head = head.to(device, dtype)


def _widths_of(module: L.LightningModule, features: Features) -> list[int] | None:
    """The widths of the features, by a pass over `example_input_array` or over a sample of the data.

    Returns:
        One a layer; `None` if there is neither.

    Raises:
        RuntimeError: If a layer does not run in a pass.
    """
    with undisturbed(module._trainer, module, 0), _uncompiled():
        example = _example(module)
        run = example or _sample(module)
        if run is None:
            return None
        # Where the module is now: the Trainer may have set another default for what is made here.
        with torch.device(_place_of(module)[0]), features.listen("in a dry run"), _noted(module) as note:
            run()
            note.clear()  # it can be called
            found = features.latest(None if example else 1)
        if is_fitting(module):
            told = ", ".join(f"{name} {shape} -> {part.shape[1]}" for name, (shape, part) in found.items())
            rank_zero_info(f"Learning Loss, the layers' shapes and widths in a dry run: {told}")
        return [part.shape[1] for _, part in found.values()]


@contextmanager
def _noted(module: nn.Module) -> Iterator[list[str]]:
    """Errors are told where they come from, and what to do about it."""
    to_do = [
        "If it cannot be called like that, set `example_input_array`: a tensor, a tuple, or a mapping, as "
        "`forward` takes it."
    ]
    try:
        yield to_do
    except Exception as error:
        note = (
            f"This was a dry run of `{type(module).__name__}`, for the shapes of its `learning_loss_layers`."
        )
        says_itself = "active_step" in str(error)
        error.add_note(" ".join([note, *([] if says_itself else to_do)]))
        raise


def _place_of(module: nn.Module) -> tuple[torch.device, torch.dtype]:
    """The device and the kind of numbers of a module's weights."""
    found = next((p for p in module.parameters() if p.is_floating_point()), torch.zeros((), device="cpu"))
    return found.device, found.dtype


def _example(module: L.LightningModule) -> Callable[[], Any] | None:
    example = module.example_input_array
    if example is None:
        return None
    example = _placed(module, example)
    if isinstance(example, tuple):
        return lambda: module(*example)
    if isinstance(example, dict):
        return lambda: module(**example)
    return lambda: module(example)


def _sample(module: L.LightningModule) -> Callable[[], Any] | None:
    """A pass over one sample, as it is scored: without its target."""
    trainer = module._trainer
    data = None if trainer is None else _data_of(trainer)
    if trainer is None or data is None:
        return None
    samples, collate, owner = data
    _, batch = HiddenCollate(samples.place, collate, blank(samples.template))(
        ([0], fetch(samples.query, [0]))
    )
    batch = _placed(module, to_device(trainer, module, owner, batch, _place_of(module)[0]))
    call = ModelCall(module, samples.place, embedding_layer=None, listen=False)
    return lambda: call.output_of(batch)


def _data_of(trainer: L.Trainer) -> tuple[Samples, Any, Any] | None:
    """The samples of a Trainer's data, how they make a batch, and who prepares it."""
    datamodule = trainer.datamodule  # type: ignore[attr-defined]
    if isinstance(datamodule, ActiveDataModule):
        return datamodule.samples, datamodule.collate_fn, datamodule
    source = trainer.fit_loop._data_source
    loader = source.dataloader() if source.instance is not None and source.is_defined() else None
    if not isinstance(loader, DataLoader) or isinstance(loader.dataset, IterableDataset):
        return None
    samples = Samples(loader.dataset, None, None, None, None, None)
    return samples, loader.collate_fn, datamodule


def _placed(module: nn.Module, batch: Any) -> Any:
    device, dtype = _place_of(module)
    batch = move_data_to_device(batch, device)
    return tree_map(
        lambda part: part.to(dtype) if isinstance(part, Tensor) and part.is_floating_point() else part, batch
    )


def _uncompiled() -> AbstractContextManager[Any]:
    """What is compiled now would be compiled again for training."""
    if "torch._dynamo" in sys.modules and hasattr(torch.compiler, "set_stance"):
        return torch.compiler.set_stance("force_eager")  # type: ignore[no-any-return]
    return nullcontext()

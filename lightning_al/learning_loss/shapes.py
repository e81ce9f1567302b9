"""SHAPES: a dry run of the module, to know how wide the features are; it leaves no trace."""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import lightning as L
import torch
from lightning.fabric.utilities.apply_func import move_data_to_device
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor, nn
from torch.utils._pytree import tree_map
from torch.utils.data import DataLoader, IterableDataset

from lightning_al.data import ActiveDataModule
from lightning_al.data.samples import Samples
from lightning_al.data.targets import blank
from lightning_al.data.views import HiddenCollate, fetch
from lightning_al.inference.model_call import ModelCall
from lightning_al.inference.scoring import to_device, undisturbed
from lightning_al.learning_loss.features import Features

__all__ = ["place_of", "widths_of"]


def widths_of(module: L.LightningModule, features: Features) -> list[int] | None:
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
        with torch.device(place_of(module)[0]), features.listen("in a dry run"):
            try:
                run()
                found = features.latest(None if example else 1)
            except Exception as error:
                error.add_note(
                    f"This was a dry run of `{type(module).__name__}`, to know the shapes of its "
                    "`learning_loss_layers`. If it cannot be called like that, set `example_input_array`: a "
                    "tensor, a tuple, or a mapping, as `forward` takes it."
                )
                raise
        if module._trainer is not None and module._trainer.state.fn == TrainerFn.FITTING:
            told = ", ".join(f"{name} {shape} -> {part.shape[1]}" for name, (shape, part) in found.items())
            rank_zero_info(f"Learning Loss, the layers' shapes and widths in a dry run: {told}")
        return [part.shape[1] for _, part in found.values()]


def place_of(module: nn.Module) -> tuple[torch.device, torch.dtype]:
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
    batch = _placed(module, to_device(trainer, module, owner, batch, place_of(module)[0]))
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
    device, dtype = place_of(module)
    batch = move_data_to_device(batch, device)
    return tree_map(
        lambda part: part.to(dtype) if isinstance(part, Tensor) and part.is_floating_point() else part, batch
    )


def _uncompiled() -> AbstractContextManager[Any]:
    """What is compiled now would be compiled again for training."""
    if "torch._dynamo" in sys.modules and hasattr(torch.compiler, "set_stance"):
        return torch.compiler.set_stance("force_eager")  # type: ignore[no-any-return]
    return nullcontext()

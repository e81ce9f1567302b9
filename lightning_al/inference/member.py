"""MEMBER: one model of a committee, from its weights or as it is, ready to make a pass."""

from __future__ import annotations

import copy
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import lightning as L
import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from lightning_al.inference.sharing import buffers_kept, shares_storage
from lightning_al.together import agree

__all__ = ["Maker", "Member", "name_of", "ready"]

Maker = Callable[[int], L.LightningModule]


@dataclass(frozen=True)
class Member:
    """A member by its weights.

    Attributes:
        weights: File of a checkpoint, or of anything with a `state_dict` in it.
        make: From a seed to its module; `None`: of the structure of the module that is scored.
        seed: For `make`.
    """

    weights: Path
    make: Maker | None = None
    seed: int = 0


@contextmanager
def ready(member: nn.Module | Member | None, module: nn.Module) -> Iterator[nn.Module]:
    """A member for the block, in eval mode and where `module` is; a given one is put back after.

    Raises:
        FileNotFoundError: If its weights are not there.
        ValueError: If they do not fit.
    """
    if member is None or member is module:
        yield module
        return
    place = next((p for p in module.parameters()), torch.zeros(()))
    trainer = getattr(module, "_trainer", None)
    if isinstance(member, Member):
        state = agree(partial(_read, member.weights))  # first: what fails on one rank only comes after
        made: Any = _copied(module) if member.make is None else member.make(member.seed)
        if member.make is not None and shares_storage(made, module):
            made = _copied(made)  # a frozen backbone, say, in which buffers may differ
        with _attached(made, trainer):
            if member.make is not None:  # as the Trainer does before a fit: layers may be made there
                made.setup("fit")
                made.configure_model()
            _put(made, state, member.weights)
            yield made.to(place.device, place.dtype).eval()
        return
    if any(parameter.dtype != place.dtype for parameter in member.parameters()):
        member = copy.deepcopy(member).to(place.dtype)  # its own numbers would come back rounded
    modes = [(part, part.training) for part in member.modules()]
    before = next((p.device for p in member.parameters()), place.device)
    try:
        with _attached(member, trainer), buffers_kept(member):
            try:
                yield member.to(place.device).eval()
            finally:
                member.to(before)
    finally:
        for part, mode in modes:
            part.training = mode


@contextmanager
def _attached(module: nn.Module, trainer: Any) -> Iterator[None]:
    """A LightningModule may ask for its Trainer."""
    if not isinstance(module, L.LightningModule):
        yield
        return
    own = module._trainer
    module._trainer = trainer
    try:
        yield
    finally:
        module._trainer = own


def _copied(module: nn.Module) -> nn.Module:
    """A copy, without the graph of what a training step left behind, which cannot be copied."""
    left = [v for part in module.modules() for v in tree_leaves(vars(part)) if isinstance(v, Tensor)]
    return copy.deepcopy(module, {id(v): v.detach() for v in left if v.grad_fn is not None})


def _read(path: Path) -> Mapping[str, Any]:
    if not path.exists():
        raise FileNotFoundError(
            f"A committee's member is given as {str(path)!r}, but there is no such file in {Path.cwd()}. "
            "Give paths of checkpoints that were written, or the members as modules."
        )
    saved = torch.load(path, map_location="cpu", weights_only=False)
    state = saved.get("state_dict", saved) if isinstance(saved, Mapping) else saved
    if not isinstance(state, Mapping):
        raise ValueError(
            f"The file {path} holds a `{type(saved).__name__}`; needed are a module's weights. Save "
            "`module.state_dict()` or a checkpoint of the Trainer, or give the members as modules."
        )
    return state


def _put(module: nn.Module, state: Mapping[str, Any], path: Path) -> None:
    try:
        module.load_state_dict(state, strict=bool(getattr(module, "strict_loading", True)))
    except RuntimeError as error:
        raise ValueError(
            f"The weights in {path} do not fit a `{type(module).__name__}` ({error}). Give "
            "checkpoints of the module that is scored, or the members as modules."
        ) from error


def name_of(model: Any) -> str:
    """The same in every process: no address of an object."""
    if isinstance(model, nn.Module):
        return type(model).__name__
    if isinstance(model, Member):
        return repr(str(model.weights))
    if isinstance(model, str | os.PathLike):
        return repr(os.fspath(model))
    if isinstance(model, partial):
        settings = [*map(_setting, model.args), *(f"{k}={_setting(v)}" for k, v in model.keywords.items())]
        return f"partial({', '.join([name_of(model.func), *settings])})"
    return getattr(model, "__qualname__", type(model).__qualname__)


def _setting(value: Any) -> str:
    plain = value is None or isinstance(value, str | bool | int | float)
    return repr(value) if plain else name_of(value)

"""CALLING: how a module is called on a batch of the pool.

A module need offer nothing. Tried in order: `active_step(batch, batch_idx)`; a mapping whose keys are
all parameters of `forward`; a mapping with one tensor; a tuple without its target; a bare tensor.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

from lightning.pytorch.strategies.strategy import _ForwardRedirection
from torch import Tensor, nn

from lightning_al.data.targets import TargetPlace

__all__ = ["ADVICE", "structure_of", "way_into"]

ADVICE = """Give the module a method that says how:
    def active_step(self, batch, batch_idx):
        return self(batch[0])    # or batch["image"]: logits (B, C), or {"logits": ..., "embeddings": ...}"""


def way_into(
    module: nn.Module, batch: Any, place: TargetPlace, root: nn.Module | None = None
) -> Callable[[Any, int], Any]:
    """How to call a module on batches like this one, given the batch and its number.

    Args:
        module: What has `active_step` or `forward`.
        batch: One of the pool.
        place: Of the target in it.
        root: What is called in its stead: the sharded module around it; `None`: the module itself.

    Raises:
        TypeError: If it is not clear; the message shows the batch and `forward`.
    """
    root = module if root is None else root
    step = getattr(module, "active_step", None)
    if callable(step):
        if root is module:
            return step  # type: ignore[no-any-return]
        redirected = _ForwardRedirection()  # as the Trainer calls `training_step`
        return lambda batch, number: redirected(root, module, "active_step", batch, number)  # type: ignore[arg-type]
    if isinstance(batch, Mapping):
        names, takes_all = _parameters(module)
        if takes_all or set(batch) <= names:
            return lambda batch, _: root(**batch)
        if len(_tensors(batch)) == 1:
            return lambda batch, _: root(_tensors(batch)[0])
    elif isinstance(batch, tuple | list):
        return lambda batch, _: root(*_inputs(batch, place))
    elif isinstance(batch, Tensor):
        return lambda batch, _: root(batch)
    raise TypeError(
        f"How to call the module on a pool batch is not clear: the batch is {structure_of(batch)}, and "
        f"`forward` takes {inspect.signature(module.forward)}. {ADVICE}"
    )


def _inputs(batch: Any, place: TargetPlace) -> list[Any]:
    return [part for index, part in enumerate(batch) if index != place.key or part is not None]


def _tensors(batch: Mapping[str, Any]) -> list[Tensor]:
    return [value for value in batch.values() if isinstance(value, Tensor)]


def _parameters(module: nn.Module) -> tuple[set[str], bool]:
    parameters = inspect.signature(module.forward).parameters.values()
    takes_all = any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters)
    return {p.name for p in parameters}, takes_all


def structure_of(value: Any) -> str:
    """A batch in words: types and shapes."""
    if isinstance(value, Tensor):
        return f"Tensor{tuple(value.shape)}"
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key!r}: {structure_of(part)}" for key, part in value.items()) + "}"
    if isinstance(value, tuple | list):
        parts = ", ".join(structure_of(part) for part in value)
        return f"({parts})" if isinstance(value, tuple) else f"[{parts}]"
    return type(value).__name__

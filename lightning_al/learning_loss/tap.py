"""TAP: a forward hook that keeps what a layer gave, pooled, while somebody wants it.

a pass -> `Tap` on a layer -> `(B, width)`, see `layout.py` -> `Pass`

The hooks are objects without closures, registered once: they can be pickled, a copy of the module has its
own, and `torch.compile` finds them in place before it compiles.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from lightning_al.learning_loss.layout import Layout

__all__ = ["Pass", "Tap"]


class Pass(NamedTuple):
    """What a layer gave in one pass.

    Attributes:
        shape: Of its output; if that has no features, the name of its type.
        by_axis: Pooled features, with the samples on the first axis of the output, and on the second one:
            `None` where they are not.
        had_gradients: Whether gradients were on.
    """

    shape: tuple[int, ...] | str
    by_axis: tuple[Tensor | None, Tensor | None]
    had_gradients: bool

    def of(self, rows: int, axis: int) -> Tensor | None:
        """The features, if there are so many samples on this axis."""
        features = self.by_axis[axis]
        return features if features is not None and len(features) == rows else None


class Tap:
    """A forward hook that keeps the pooled output of its layer, while it listens."""

    def __init__(self, layer: nn.Module, channels: str) -> None:
        self.layout, self.channels = Layout(layer, channels), channels
        self.is_listening = False
        self.passes: list[Pass] = []

    def __call__(self, layer: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        """Called by the layer."""
        if not self.is_listening:
            return
        # What activation checkpointing computes again in `backward` is no pass of its own.
        if torch.compiler.is_compiling() or torch._C._current_graph_task_id() == -1:
            self.passes.append(self._read(output))

    def __getstate__(self) -> dict[str, Any]:
        # Neither a copy nor a file has what was heard: it may have a graph, which cannot be copied.
        return {**vars(self), "is_listening": False, "passes": []}

    def is_on(self, layer: nn.Module) -> bool:
        """Whether it is a hook of this layer: a copy of the layer has a copy of the tap."""
        return any(hook is self for hook in layer._forward_hooks.values())

    def leave(self, layer: nn.Module) -> None:
        """Be a hook of this layer no longer."""
        for key in [key for key, hook in layer._forward_hooks.items() if hook is self]:
            del layer._forward_hooks[key]

    def main(self, heard: Pass) -> Tensor:
        """The features of a pass, with the samples where they most likely are."""
        first, second = heard.by_axis
        found = second if first is None or (self.layout.batch_axis == 1 and second is not None) else first
        assert found is not None
        return found

    def find(self, rows: int) -> list[tuple[Pass, Tensor]]:
        """The passes over so many samples, with their features."""
        axis = self.layout.batch_axis
        for where in (axis, 1 - axis):
            found = [(p, part) for p in self.passes if (part := p.of(rows, where)) is not None]
            if not found:
                # A vector has its samples on the first axis, wherever those of sequences are.
                continue
            if len(found) == 1 and len(found[0][0].shape) == 3 and found[0][0].of(rows, 1 - where) is None:
                self.layout.settle(where)
            return found
        return []

    def _read(self, output: Any) -> Pass:
        tensor = output if _is_features(output) else _first_features(output, set())
        if tensor is None:
            return Pass(type(output).__name__, (None, None), torch.is_grad_enabled())
        axis = self.layout.batch_axis if tensor.ndim == 3 else 0
        other_too = not self.layout.is_sure and tensor.ndim == 3
        first = self.layout.pooled(tensor, 0) if axis == 0 or other_too else None
        second = self.layout.pooled(tensor, 1) if axis == 1 or other_too else None
        return Pass(tuple(tensor.shape), (first, second), torch.is_grad_enabled())


def _is_features(value: Any) -> bool:
    return isinstance(value, Tensor) and value.is_floating_point() and value.ndim > 0


def _first_features(value: Any, seen: set[int]) -> Tensor | None:
    """The first tensor of features in an output: of a tuple, a mapping, an object."""
    if isinstance(value, Tensor):
        return value if _is_features(value) else None
    if id(value) in seen:  # objects may hold each other
        return None
    seen.add(id(value))
    for part in _parts(value):
        found = _first_features(part, seen)
        if found is not None:
            return found
    return None


def _parts(value: Any) -> Sequence[Any]:
    if isinstance(value, Mapping):
        return list(value.values())
    if isinstance(value, tuple | list):
        return value
    if isinstance(value, type | nn.Module):  # an object's class, or its maker, is none of its features
        return ()
    slots = [name for kind in type(value).__mro__ for name in _names(getattr(kind, "__slots__", ()))]
    # In the order in which they were declared, where that is known.
    parts = [getattr(value, name) for name in slots if not name.startswith("__") and hasattr(value, name)]
    return [*parts, *getattr(value, "__dict__", {}).values()]


def _names(slots: Any) -> list[str]:
    return [slots] if isinstance(slots, str) else list(slots)

"""FEATURES: what named layers give, kept while somebody wants it.

The hooks are objects without closures, registered once: they can be pickled, a copy of the module has its
own, and `torch.compile` finds them in place before it compiles.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["Features", "find_layers"]

_CHANNELS_FIRST = (
    nn.modules.conv._ConvNd,
    nn.modules.batchnorm._BatchNorm,
    nn.modules.instancenorm._InstanceNorm,
    nn.modules.pooling._AvgPoolNd,
    nn.modules.pooling._MaxPoolNd,
)


def find_layers(module: nn.Module, names: Any) -> dict[str, nn.Module]:
    """The layers of these names.

    Raises:
        TypeError: If `names` is not a list of names.
        ValueError: If there are none, one is named twice, or is no layer of the module.
    """
    kind = type(module).__name__
    if isinstance(names, str) or not all(isinstance(name, str) for name in names):
        raise TypeError(
            f"`{kind}.learning_loss_layers` is {names!r}; needed is a tuple of names of submodules, such as "
            '`("net.layer1", "net.layer2")`. A single one is written `("net.layer1",)`.'
        )
    if not names or len(set(names)) < len(names):
        raise ValueError(
            f"`{kind}.learning_loss_layers` is {tuple(names)!r}; needed are names of submodules, each once, "
            'such as `("net.layer1", "net.layer2")`.'
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


class Tap:
    """A forward hook that keeps what its layer gives, while it is open."""

    def __init__(self, layer: nn.Module) -> None:
        parts = list(layer.modules())
        self.channels_first = any(isinstance(part, _CHANNELS_FIRST) for part in parts)
        self.time_first = any(getattr(part, "batch_first", True) is False for part in parts)
        self.is_listening = False
        self.passes: list[Any] = []

    def __call__(self, layer: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        """Called by the layer."""
        if self.is_listening:
            self.passes.append(output)

    def __getstate__(self) -> dict[str, Any]:
        # Neither a copy nor a file has what was heard: it may have a graph, which cannot be copied.
        return {**vars(self), "is_listening": False, "passes": []}


class Features:
    """Taps on the layers of a module.

    Args:
        channels: Which axis holds the channels, see `LearningLossOptions`.

    Attributes:
        used: Whether anybody ever asked for the features of a batch in training.
        is_held_out: Whether it was opened for a step of a validation or a test.
    """

    def __init__(self, channels: str) -> None:
        self.channels = channels
        self.used = self.is_held_out = False
        self._taps: dict[str, Tap] = {}

    def attach(self, layers: Mapping[str, nn.Module]) -> None:
        """Listen to these layers; again only to those that were replaced."""
        for name, layer in layers.items():
            tap = self._taps.get(name)
            if tap is None or all(hook is not tap for hook in layer._forward_hooks.values()):
                self._taps[name] = tap = Tap(layer)
                layer.register_forward_hook(tap)

    @property
    def is_listening(self) -> bool:
        """Whether forward passes are listened to."""
        return any(tap.is_listening for tap in self._taps.values())

    @contextmanager
    def listen(self, *, held_out: bool = False) -> Iterator[None]:
        """For the block, keep what the layers give; nothing of it is kept after."""
        if self.is_listening:  # a step that calls its base's step
            yield
            return
        try:
            self.is_held_out = held_out
            for tap in self._taps.values():
                tap.is_listening = True
            yield
        finally:
            self.is_held_out = False
            for tap in self._taps.values():
                tap.is_listening, tap.passes = False, []

    def for_batch(self, rows: int) -> list[Tensor]:
        """Features `(rows, width)` of every layer, of the one pass since `listen` over so many samples.

        Raises:
            RuntimeError: If a layer gave nothing, or more than one pass had that many samples.
            ValueError: If none had.
        """
        return [self._one(name, tap, rows) for name, tap in self._taps.items()]

    def latest(self) -> list[Tensor]:
        """Features of every layer, of whatever passed last."""
        return [self._pooled(tap, self._tensors(name, tap)[-1]) for name, tap in self._taps.items()]

    def _one(self, name: str, tap: Tap, rows: int) -> Tensor:
        tensors = self._tensors(name, tap)
        sizes = [tensor.shape[self._batch_axis(tap, tensor)] for tensor in tensors]
        found = [tensor for tensor, size in zip(tensors, sizes, strict=True) if size == rows]
        if not found:
            raise ValueError(
                f"There are losses of {rows} samples, but `{name}` gave features of {sizes} samples (shapes "
                f"{[tuple(t.shape) for t in tensors]}). Pass one loss for each sample of a forward pass, in "
                "its order; the samples must be on the first axis of the features."
            )
        if len(found) > 1:
            raise RuntimeError(
                f"`{name}` ran {len(found)} times on {rows} samples, so which pass the losses are of cannot "
                "be seen. Call `self.learning_loss(...)` right after the pass that its losses are of, before "
                "another one; and name layers that run once in a pass."
            )
        return self._pooled(tap, found[0])

    def clear(self) -> None:
        """Drop what was heard so far; go on listening."""
        for tap in self._taps.values():
            tap.passes = []

    def _tensors(self, name: str, tap: Tap) -> list[Tensor]:
        if not tap.passes:
            raise RuntimeError(
                f"`{name}` of `learning_loss_layers` gave nothing: no forward pass went through it since "
                "this step began, or it was compiled before it was listened to. Name a layer that every "
                "pass calls, as `layer(x)` and not `layer.forward(x)`; compile after the fit began, or call "
                "`torch._dynamo.reset()` before it."
            )
        return [_features_in(name, output) for output in tap.passes]

    def _batch_axis(self, tap: Tap, tensor: Tensor) -> int:
        return 1 if tap.time_first and tensor.ndim == 3 else 0

    def _pooled(self, tap: Tap, tensor: Tensor) -> Tensor:
        """`(B, width)`: the mean over all places, in float32 or better."""
        if self._batch_axis(tap, tensor):
            tensor = tensor.transpose(0, 1)
        if tensor.ndim < 3:
            return tensor[:, None] if tensor.ndim == 1 else tensor
        sequence_of_vectors = tensor.ndim == 3 and (tap.time_first or not tap.channels_first)
        last = self.channels == "last" or (self.channels == "auto" and sequence_of_vectors)
        places = range(1, tensor.ndim - 1) if last else range(2, tensor.ndim)
        return tensor.mean(tuple(places), dtype=torch.promote_types(tensor.dtype, torch.float32))


def _features_in(name: str, output: Any) -> Tensor:
    found = next(_tensors(output), None)
    if found is None:
        raise TypeError(
            f"`{name}` of `learning_loss_layers` gave a {type(output).__name__}, in which there is no tensor "
            "of real numbers. Name a layer whose output is, or holds, features of the samples."
        )
    return found


def _tensors(value: Any) -> Iterator[Tensor]:
    """Tensors of features in an output, in their order: of a tuple, a mapping, an object."""
    parts: Sequence[Any] = ()
    if isinstance(value, Tensor):
        if value.is_floating_point() and value.ndim:
            yield value
    elif isinstance(value, Mapping):
        parts = list(value.values())
    elif isinstance(value, tuple | list):
        parts = value
    elif hasattr(value, "__dict__"):
        parts = list(vars(value).values())
    for part in parts:
        yield from _tensors(part)

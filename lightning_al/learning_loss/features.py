"""FEATURES: what named layers give, pooled at once and kept while somebody wants it.

a pass -> `Tap` on each layer -> `(B, width)`, see `layout.py` -> `Features`, of the batch that is asked for

The hooks are objects without closures, registered once: they can be pickled, a copy of the module has its
own, and `torch.compile` finds them in place before it compiles.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor, nn

from lightning_al.learning_loss.layout import Layout

__all__ = ["Features", "find_layers"]


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
        self.layout = Layout(layer, channels)
        self.is_listening = False
        self.passes: list[Pass] = []

    def __call__(self, layer: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        """Called by the layer."""
        if self.is_listening:
            self.passes.append(self._read(output))

    def __getstate__(self) -> dict[str, Any]:
        # Neither a copy nor a file has what was heard: it may have a graph, which cannot be copied.
        return {**vars(self), "is_listening": False, "passes": []}

    def _read(self, output: Any) -> Pass:
        tensor = output if _is_features(output) else _first_features(output, set())
        if tensor is None:
            return Pass(type(output).__name__, (None, None), torch.is_grad_enabled())
        axis = self.layout.batch_axis if tensor.ndim == 3 else 0
        other_too = not self.layout.is_sure and tensor.ndim == 3
        first = self.layout.pooled(tensor, 0) if axis == 0 or other_too else None
        second = self.layout.pooled(tensor, 1) if axis == 1 or other_too else None
        return Pass(tuple(tensor.shape), (first, second), torch.is_grad_enabled())

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


class Features:
    """Taps on the layers of a module.

    Args:
        channels: Which axis holds the channels, see `LearningLossOptions`.

    Attributes:
        used: Whether anybody ever asked for the features of a batch in training.
        is_held_out: Whether it listens to a step of a validation or a test.
    """

    def __init__(self, channels: str | Sequence[str]) -> None:
        self.channels = channels
        self.used = self.is_held_out = False
        self._taps: dict[str, Tap] = {}
        self._layers: dict[str, nn.Module] = {}
        self._where = ""
        self._was_cleared = self._has_warned = False

    def attach(self, layers: Mapping[str, nn.Module]) -> None:
        """Listen to these layers; again only to those that were replaced.

        Raises:
            ValueError: If `channels` has not one value a layer.
        """
        one_for_all = isinstance(self.channels, str)
        if not one_for_all and len(self.channels) != len(layers):
            raise ValueError(
                f"`channels` of the options has {len(self.channels)} values, but `learning_loss_layers` has "
                f"{len(layers)} names: {list(layers)}. Give one value for each, or a single one for all."
            )
        self._layers = dict(layers)
        for place, (name, layer) in enumerate(layers.items()):
            tap = self._taps.get(name)
            if tap is None or all(hook is not tap for hook in layer._forward_hooks.values()):
                channels = str(self.channels if one_for_all else self.channels[place])
                self._taps[name] = tap = Tap(layer, channels)
                layer.register_forward_hook(tap)

    @property
    def is_listening(self) -> bool:
        """Whether forward passes are listened to."""
        return any(tap.is_listening for tap in self._taps.values())

    @contextmanager
    def listen(self, where: str = "in this step", *, held_out: bool = False) -> Iterator[None]:
        """For the block, keep what the layers give; nothing of it is kept after.

        Args:
            where: What the block is, for messages.
            held_out: Whether it is a step of a validation or a test.
        """
        if self.is_listening:  # a step that calls its base's step
            yield
            return
        try:
            self.is_held_out, self._where, self._was_cleared = held_out, where, False
            for tap in self._taps.values():
                tap.is_listening = True
            yield
        finally:
            self.is_held_out = False
            for tap in self._taps.values():
                tap.is_listening, tap.passes = False, []

    def clear(self) -> None:
        """Drop what was heard so far; go on listening."""
        self._was_cleared = True
        for tap in self._taps.values():
            tap.passes = []

    def for_batch(self, rows: int, *, needs_gradient: bool = False) -> list[Tensor]:
        """Features `(rows, width)` of every layer, of the one pass since `listen` over so many samples.

        Of several such passes, of the only one that has a graph.

        Args:
            rows: How many samples.
            needs_gradient: Whether to warn of features that were cut off from the module.

        Raises:
            RuntimeError: If a layer gave nothing, or it cannot be seen which pass is meant.
            ValueError: If none had.
        """
        return [self._one(name, tap, rows, needs_gradient) for name, tap in self._taps.items()]

    def latest(self, rows: int | None = None) -> dict[str, tuple[tuple[int, ...], Tensor]]:
        """Shape of the output and features of every layer, of whatever passed last.

        Args:
            rows: How many samples these were, where that is known: it shows on which axis they are.
        """
        found = {}
        for name, tap in self._taps.items():
            last = self._heard(name, tap)[-1]
            if rows is not None:
                tap.find(rows)
            assert not isinstance(last.shape, str)
            found[name] = last.shape, tap.main(last)
        return found

    def _one(self, name: str, tap: Tap, rows: int, needs_gradient: bool) -> Tensor:
        heard = self._heard(name, tap)
        found = tap.find(rows)
        if not found:
            raise ValueError(
                f"There are losses of {rows} samples, but `{name}` gave features of "
                f"{[len(tap.main(one)) for one in heard]} samples (shapes {[one.shape for one in heard]}). "
                "Pass one loss for each sample of a forward pass, in its order; the samples must be on the "
                "first axis of the features."
            )
        ran = len(found)
        if ran > 1:  # of a teacher and a student, the student's
            found = [(one, features) for one, features in found if features.requires_grad]
        if len(found) != 1:
            raise RuntimeError(
                f"`{name}` ran {ran} times on {rows} samples, so which pass the losses are of cannot "
                "be seen. Call `self.learning_loss(...)` right after the pass that its losses are of, before "
                "another one; and name layers that run once in a pass."
            )
        (one, features), *_ = found
        if needs_gradient and not one.had_gradients and not features.requires_grad:
            self._warn_cut_off(name)
        return features

    def _heard(self, name: str, tap: Tap) -> list[Pass]:
        if not tap.passes:
            raise RuntimeError(f"`{name}` of `learning_loss_layers` gave nothing: " + self._why_nothing())
        for one in tap.passes:
            if isinstance(one.shape, str):
                raise TypeError(
                    f"`{name}` of `learning_loss_layers` gave a {one.shape}, in which there is no tensor "
                    "of real numbers. Name a layer whose output is, or holds, features of the samples."
                )
        return tap.passes

    def _why_nothing(self) -> str:
        if not self.is_listening:
            return (
                "nobody listens. Call both the module and `predicted_loss(...)` inside of "
                "`with module.predicting_loss():`."
            )
        if self._was_cleared:
            return (
                f"the features of the last pass {self._where} were used already, and there was none since. "
                "Call `self.learning_loss(...)` once for each forward pass, with all that it is to learn; "
                "add further terms by `task_loss`."
            )
        return (
            f"no forward pass went through it {self._where}, or it was compiled, and called, before it was "
            "listened to. Name a layer that every pass calls, as `layer(x)` and not `layer.forward(x)`; if "
            "it was compiled, call `torch._dynamo.reset()` before the fit, so that it is compiled anew."
        )

    def _warn_cut_off(self, name: str) -> None:
        weights = list(self._layers[name].parameters())
        if self._has_warned or (weights and not any(weight.requires_grad for weight in weights)):
            return
        self._has_warned = True
        rank_zero_warn(
            f"`{name}` of `learning_loss_layers` ran with gradients off, though the losses have some, so the "
            "loss head does not shape it: under `torch.no_grad()`, or in a checkpoint of activations. Use "
            "`checkpoint(..., use_reentrant=False)`; if it is meant so, set `detach_after=0`."
        )


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

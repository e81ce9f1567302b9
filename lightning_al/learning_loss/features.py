"""FEATURES: what named layers give, kept while somebody wants it, for the batch that is asked for.

a pass -> a `Tap` on each layer, see `tap.py` -> `Features` -> `(B, width)` of every layer
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor, nn

from lightning_al.learning_loss.tap import Pass, Tap

__all__ = ["Features"]


class Features:
    """Taps on the layers of a module.

    Attributes:
        is_held_out: Whether it listens to a step of a validation or a test.
    """

    def __init__(self) -> None:
        self.is_held_out = False
        self._taps: dict[str, Tap] = {}
        self._layers: dict[str, nn.Module] = {}
        self._where = ""
        self._was_cleared = self._has_warned = False

    def attach(self, layers: Mapping[str, nn.Module], channels: str | Sequence[str]) -> None:
        """Listen to these layers, and to no others; it costs nothing where nothing has changed.

        Args:
            layers: By name, in the order in which their features are wanted.
            channels: Which axis holds the channels, see `LearningLossOptions`.

        Raises:
            ValueError: If `channels` has not one value a layer.
        """
        each = [channels] * len(layers) if isinstance(channels, str) else list(channels)
        if len(each) != len(layers):
            raise ValueError(
                f"`channels` of the options has {len(each)} values, but `learning_loss_layers` has "
                f"{len(layers)} names: {list(layers)}. Give one value for each, or a single one for all."
            )
        before, self._taps = self._taps, {}
        for (name, layer), axis in zip(layers.items(), each, strict=True):
            tap = before.get(name)
            if tap is None or tap.channels != axis or not tap.is_on(layer):
                tap = Tap(layer, axis)
                layer.register_forward_hook(tap)
            self._taps[name] = tap
        for name, tap in before.items():
            if self._taps.get(name) is not tap:
                tap.leave(self._layers[name])
        self._layers = dict(layers)

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

    def for_batch(
        self, rows: int, *, needs_gradient: bool = False, are_losses: bool = True
    ) -> dict[str, Tensor]:
        """Features `(rows, width)` of every layer, of the one pass since `listen` over so many samples.

        Of several such passes, of the only one that has a graph.

        Args:
            rows: How many samples.
            needs_gradient: Whether to warn of features that were cut off from the module.
            are_losses: Whether so many losses were given, or so many predictions asked for; for messages.

        Raises:
            RuntimeError: If a layer gave nothing, or it cannot be seen which pass is meant.
            ValueError: If none had.
        """
        found = {}
        for name, tap in self._taps.items():
            found[name] = self._one(name, tap, rows, needs_gradient, are_losses)
            self._warn_ambiguous(name, tap)
        return found

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
            self._warn_ambiguous(name, tap)
        return found

    def _one(self, name: str, tap: Tap, rows: int, needs_gradient: bool, are_losses: bool) -> Tensor:
        heard = self._heard(name, tap)
        found = tap.find(rows)
        if not found:
            raise ValueError(
                (
                    f"There are losses of {rows} samples"
                    if are_losses
                    else f"`predicted_loss({rows})` was called"
                )
                + f", but `{name}` gave features of {[len(tap.main(one)) for one in heard]} samples (shapes "
                f"{[one.shape for one in heard]}). Pass "
                + ("one loss for each sample of a pass, in its order" if are_losses else "how many these are")
                + "; or name a layer with one row a sample, on its first axis."
            )
        ran = len(found)
        if ran > 1:  # of a teacher and a student, the student's
            found = [(one, features) for one, features in found if features.requires_grad]
        if len(found) != 1:
            raise RuntimeError(
                f"`{name}` ran {ran} times on {rows} samples, so which pass is meant cannot be seen. "
                + (
                    "Call `self.learning_loss(...)` right after the pass that its losses are of"
                    if are_losses
                    else "Open a `with module.predicting_loss():` for each pass"
                )
                + "; and name layers that run once in a pass."
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

    def _warn_ambiguous(self, name: str, tap: Tap) -> None:
        if tap.layout.is_ambiguous:
            tap.layout.is_ambiguous = False
            rank_zero_warn(
                f"Two axes of what `{name}` of `learning_loss_layers` gives are {tap.layout.width} wide, as "
                "its channels are, and no other shape has shown which has them. Set `channels=` of the "
                'options to "first" or "last".'
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

"""MODEL CALL: how a plain LightningModule is asked for logits, and where its embedding is.

How it is called is in `calling.py`.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from lightning_al.data.targets import TargetPlace
from lightning_al.inference.calling import ADVICE, structure_of, way_into

if TYPE_CHECKING:
    from lightning_al.inference.sharded import InStep

__all__ = ["ModelCall", "Said", "logits_of"]


@dataclass
class Said:
    """What one forward pass gave, in float32."""

    logits: Tensor
    embeddings: Tensor | None = None
    classifier: tuple[Tensor, Tensor] | None = None
    mask: Tensor | None = None
    predicted_loss: Tensor | None = None


class ModelCall:
    """Calls a module on pool batches; a context manager, since it listens to layers while it does.

    Args:
        module: The unwrapped module, in eval mode.
        place: Where targets were in an item: that part of a tuple is left out.
        embedding_layer: Name of the layer whose output is the embedding; `None`: the input of the last
            linear layer, the one that made the logits.
        listen: Whether an embedding or the classifier is wanted at all.
        predicts: Whether predicted losses are wanted: of a module with `predicting_loss`.
        root: What is called in its place, where something is wrapped around it as a whole.
        gathers: Its weights are whole only while a pass uses them.
        in_step: Other ranks make as many passes.
    """

    def __init__(
        self,
        module: nn.Module,
        place: TargetPlace,
        *,
        embedding_layer: str | None,
        listen: bool,
        predicts: bool = False,
        root: nn.Module | None = None,
        gathers: bool = False,
        in_step: InStep | None = None,
    ) -> None:
        self.module, self.place, self.predicts = module, place, predicts
        self.root, self.gathers, self.in_step = root, gathers, in_step
        self.embedding_layer, self.listen = embedding_layer, listen
        self._classes_last: bool | None = None
        #: Of the last batch, or `None` before the first.
        self.rows: int | None = None
        #: Of the outputs of one of its samples.
        self.shape: tuple[int, ...] = ()
        self._way: Callable[[Any, int], Any] | None = None
        self._count = 0
        self._heard: list[tuple[nn.Module, Tensor, Tensor]] = []
        self._classifier: nn.Linear | None = None
        #: A layer whose weights are to be kept when a pass has gathered them, and these.
        self._kept_of: nn.Linear | None = None
        self._kept: tuple[Tensor, Tensor] | None = None
        self._handles: list[Any] = []

    def __enter__(self) -> ModelCall:
        if self.predicts and not hasattr(self.module, "predicting_loss"):
            raise TypeError(
                f"The acquisition needs predicted losses, but `{type(self.module).__name__}` predicts none. "
                "Derive it from `LearningLossMixin` first, name its `learning_loss_layers`, and return "
                "`self.learning_loss(losses)` from `training_step`; or use `Margin`, which needs no head."
            )
        if self.listen:
            named = self._named_layer()
            listened = [m for m in self.module.modules() if isinstance(m, nn.Linear) or m is named]
            self._handles = [m.register_forward_hook(self._hear) for m in listened]
            if self.gathers:  # before they are given back
                self._handles += [m.register_forward_hook(self._keep, prepend=True) for m in listened]
        return self

    def __exit__(self, *_: object) -> None:
        for handle in self._handles:
            handle.remove()

    def __call__(self, batch: Any) -> Said:
        """Logits, and what was listened for, of a batch on the device."""
        with self._predicting(), self._turn(batch, judged=self.predicts):
            output = self.output_of(batch)
            rows = self._said(output, batch).logits if self.predicts else ()
            predicted = self._predicted(len(rows)) if self.predicts else None
        said = self._said(output, batch)
        said.predicted_loss = predicted
        self._count += 1
        # What is not finite is refused next, by name; which layer made it cannot be seen.
        if self.listen and bool(torch.isfinite(said.logits).all()):
            given = output.get("embeddings") if isinstance(output, Mapping) else None
            self._add_embedding(said, logits_of(output), given, batch)
            self._heard.clear()
        return said

    def predicted_loss(self, batch: Any, samples: int) -> Tensor:
        """Predicted losses `(samples,)` only: the outputs may be anything."""
        with self._predicting(), self._turn(batch, judged=True):
            self.output_of(batch)
            predicted = self._predicted(samples)
        self.next_batch()
        return predicted

    def one_pass(self, batch: Any) -> Said:
        """Logits only: one of several passes over a batch, to be followed by `next_batch`."""
        with self._turn(batch):
            output = self.output_of(batch)
        return self._said(output, batch)

    def spare(self, batch: Any, samples: int, *, judged: bool) -> None:
        """A pass for other ranks, which need this one's part of the weights; nothing comes of it."""
        self._find_way(batch)
        if not judged:
            self.output_of(batch)
            return
        with self._predicting():
            self.output_of(batch)
            self._predicted(samples)

    def next_batch(self) -> None:
        """The passes over a batch are over."""
        self._heard.clear()
        self._count += 1

    def wrong_rows(self, expected: int) -> str:
        """The message for logits that are not one row a sample."""
        return (
            f"The module gave logits for {self.rows} samples of a pool batch of {expected}; it was called "
            f"in a way that its `forward` does not mean. {ADVICE}"
        )

    def output_of(self, batch: Any) -> Any:
        """Whatever the module says of a batch."""
        way = self._find_way(batch)
        self._heard.clear()
        try:
            return way(batch, self._count)
        except Exception as error:
            if self._count == 0 and not callable(getattr(self.module, "active_step", None)):
                error.add_note(
                    f"The module was called with a pool batch, {structure_of(batch)}; `forward` takes "
                    f"{inspect.signature(self.module.forward)}. If that does not fit: {ADVICE}"
                )
            raise

    def _find_way(self, batch: Any) -> Callable[[Any, int], Any]:
        if self._way is None:
            self._way = way_into(self.module, batch, self.place, self.root)
        return self._way

    def _turn(self, batch: Any, *, judged: bool = False) -> AbstractContextManager[None]:
        """Around one pass."""
        if self.in_step is None:
            return nullcontext()
        self._find_way(batch)  # if there is none, no other rank has begun to wait
        return self.in_step.turn(judged=judged)

    def _predicting(self) -> AbstractContextManager[None]:
        block: AbstractContextManager[None] = (
            self.module.predicting_loss() if self.predicts else nullcontext()  # type: ignore[operator]
        )
        return block

    def _predicted(self, samples: int) -> Tensor:
        """By a head whose layers were never heard as the classifier's could be."""
        heard, self._heard = self._heard, []
        predicted: Tensor = self.module.predicted_loss(samples)  # type: ignore[operator]
        self._heard = heard
        return predicted.detach().float()

    def _said(self, output: Any, batch: Any) -> Said:
        logits, mask = self._masked(logits_of(output), output, batch)
        self.rows, self.shape = len(logits), tuple(logits.shape[1:])
        return Said(logits, mask=mask)

    def _masked(self, logits: Tensor, output: Any, batch: Any) -> tuple[Tensor, Tensor | None]:
        """Dense logits with the classes on axis 1, and which of their places count."""
        if logits.ndim < 3:
            return logits, None
        given = output.get("mask") if isinstance(output, Mapping) else None
        if isinstance(given, Tensor):
            return logits, _checked_mask(given, logits)
        mask = batch.get("attention_mask") if isinstance(batch, Mapping) else None
        if not isinstance(mask, Tensor) or mask.ndim != 2 or logits.ndim != 3:
            return logits, None
        if self._tokens_first(mask, logits):
            logits = logits.movedim(-1, 1)
        return logits, _checked_mask(mask, logits)

    def _tokens_first(self, mask: Tensor, logits: Tensor) -> bool:
        """Whether logits are (B, tokens, C), as Hugging Face makes them; known once it shows."""
        first, last = mask.shape == logits.shape[:2], mask.shape == (len(logits), logits.shape[2])
        if first != last:
            self._classes_last = first
        elif first and self._classes_last is None:
            raise ValueError(
                f"The logits have shape {tuple(logits.shape)} and the attention mask {tuple(mask.shape)}: as "
                "many tokens as classes, so which axis holds the classes cannot be seen. Return "
                '{"logits": (B, C, tokens), "mask": (B, tokens)} from `active_step`.'
            )
        return bool(self._classes_last) and first

    def _hear(self, layer: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        if args and isinstance(args[0], Tensor) and isinstance(output, Tensor):
            self._heard.append((layer, args[0], output))

    def _named_layer(self) -> nn.Module | None:
        if self.embedding_layer is None:
            return None
        layers: dict[str, nn.Module] = {
            name.replace("._fsdp_wrapped_module", ""): layer for name, layer in self.module.named_modules()
        }
        if self.embedding_layer not in layers:
            raise ValueError(
                f"`embedding_layer` is {self.embedding_layer!r}, which the module does not have. It has "
                f"{[name for name in layers if name]}."
            )
        return layers[self.embedding_layer]

    def _keep(self, layer: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        if layer is self._kept_of and self._kept is None:
            weight, bias = _weights(self._kept_of)
            self._kept = weight.clone(), bias.clone()

    def _weights_of(self, layer: nn.Linear, batch: Any) -> tuple[Tensor, Tensor]:
        """Where they are not there now, by another pass that gathers them."""
        if not self.gathers:
            return _weights(layer)
        if layer is not self._kept_of or self._kept is None:
            self._kept_of, self._kept, heard = layer, None, self._heard
            self._heard = []
            with self._turn(batch):
                self.output_of(batch)
            self._heard = heard
        assert self._kept is not None, "a layer that was heard was not heard again"
        return self._kept

    def _add_embedding(self, said: Said, logits: Tensor, given: Tensor | None, batch: Any) -> None:
        linear, entering = self._last_linear(logits, batch)
        if linear is not None:
            said.classifier = self._weights_of(linear, batch)
        if given is not None:
            said.embeddings = given.float()
        elif self.embedding_layer is not None:
            named = self._named_layer()
            heard = [out for layer, _, out in self._heard if layer is named]
            if not heard:
                raise ValueError(
                    f"`embedding_layer` {self.embedding_layer!r} gave no tensor in the forward pass: it was "
                    "not called with one, or returns something else. Name a layer that maps a tensor to one."
                )
            said.embeddings = heard[-1].float()
        elif entering is not None:
            said.embeddings = entering.float()
        else:
            raise ValueError(
                "No `nn.Linear` of the module made its logits (logits = embedding W^T + b), but the "
                "acquisition needs an embedding. Name a layer with `embedding_layer=`, or return "
                '{"logits": ..., "embeddings": ...} from `active_step`; or choose a strategy that needs '
                "none, such as `acquisition.Margin()`."
            )

    def _last_linear(self, logits: Tensor, batch: Any) -> tuple[nn.Linear | None, Tensor | None]:
        """The linear layer whose output are the logits, and what entered it."""
        for layer, entering, output in reversed(self._heard):
            if not isinstance(layer, nn.Linear):
                continue
            if self._classifier is None and not (
                _gave(entering, output, logits) and _made(*self._weights_of(layer, batch), entering, output)
            ):
                continue
            if self._classifier in (None, layer):
                self._classifier = layer
                return layer, entering
        return None, None


def _weights(layer: nn.Linear) -> tuple[Tensor, Tensor]:
    """Weight and bias in float32."""
    bias = layer.bias if layer.bias is not None else layer.weight.new_zeros(len(layer.weight))
    return layer.weight.detach().float(), bias.detach().float()


def _gave(entering: Tensor, output: Tensor, logits: Tensor) -> bool:
    """Whether the logits are the output of a layer."""
    if output.numel() != logits.numel() or entering.shape[0] != logits.shape[0]:
        return False
    return torch.equal(output.float().reshape(logits.shape), logits)


def _made(weight: Tensor, bias: Tensor, entering: Tensor, output: Tensor) -> bool:
    """Whether these weights made the output, up to the rounding of mixed precision."""
    again = nn.functional.linear(entering.float(), weight, bias)
    slack = 1e-3 if output.dtype == torch.float32 else 5e-2
    return bool((again - output.float()).abs().max() <= slack * (1 + output.float().abs().max()))


def logits_of(output: Any) -> Tensor:
    """The logits of what a forward pass returned, in float32.

    Raises:
        TypeError: If there are none.
    """
    logits = output
    if isinstance(output, Mapping):
        logits = output.get("logits")
    elif not isinstance(output, Tensor):
        logits = getattr(output, "logits", None)
    if not isinstance(logits, Tensor) or logits.ndim == 0:
        raise TypeError(
            f"The module returned {structure_of(output)}; needed are logits (B, C): a tensor, something with "
            f'`.logits`, or a mapping with "logits". {ADVICE}'
        )
    return logits.detach().float()


def _checked_mask(mask: Tensor, logits: Tensor) -> Tensor:
    """One entry for every place that has logits."""
    if mask.shape != logits.shape[:1] + logits.shape[2:]:
        raise ValueError(
            f"The mask has shape {tuple(mask.shape)}, the logits {tuple(logits.shape)}; needed are (B, ...) "
            "and (B, C, ...). Return both in this shape from `active_step`."
        )
    return mask.bool()

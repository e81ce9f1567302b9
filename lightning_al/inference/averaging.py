"""AVERAGING: a test of the posterior's mean prediction instead of one pass's."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import lightning as L
import torch
from torch import Tensor, nn
from torch.nn.functional import logsigmoid
from torch.utils._pytree import tree_leaves

from lightning_al.inference.model_call import logits_of
from lightning_al.inference.posteriors import Draw, Posterior

if TYPE_CHECKING:
    from lightning_al.data import ActiveDataModule

__all__ = ["AveragedTest", "Kind", "Targets", "mean_prediction"]

Kind = Literal["classes", "labels", "numbers"]


def mean_prediction(passes: Tensor, kind: Kind) -> Tensor:
    """Outputs that stand for the mean prediction of several passes.

    Their softmax, or sigmoid, is the mean of that of the passes; numbers are averaged as they are. So the
    cross-entropy and the most probable class of the result are those of the mean.

    Args:
        passes: Outputs `(K, B, ...)`, with classes on the axis after the samples.
        kind: `"classes"` of which one holds (a single logit is two classes), `"labels"` that each hold or
            not, or `"numbers"`.

    Returns:
        `(B, ...)`.

    Example:
        >>> passes = torch.tensor([[[9.0, -9.0]], [[-9.0, 9.0]]])
        >>> mean_prediction(passes, "classes").softmax(-1)
        tensor([[0.5000, 0.5000]])
    """
    if kind == "numbers":
        return passes.mean(0)
    passes = passes.float()
    if kind == "labels" or passes.ndim < 3 or passes.shape[2] == 1:
        return logsigmoid(passes).logsumexp(0) - logsigmoid(-passes).logsumexp(0)
    return passes.log_softmax(2).logsumexp(0) - math.log(len(passes))


@dataclass(frozen=True)
class Targets:
    """What is known of the targets, by which outputs are judged.

    Args:
        axes: Of one target; -1 if it is not known.
        whole: Names or whole numbers.
        binary: Nothing but 0 and 1, or two names.
        outputs: What the outputs are, where that is known for sure.
    """

    axes: int = -1
    whole: bool = True
    binary: bool = True
    outputs: Kind | None = None

    @classmethod
    def of(cls, data: ActiveDataModule, *, outputs: Kind | None = None) -> Targets:
        """Those that a model was trained on, as far as the ledger holds them."""
        state, labeled = data.state, data.labeled_indices
        if (counts := state.class_counts(labeled)) is not None:
            return cls(0, binary=all(isinstance(c, str) or c in (0, 1) for c in counts), outputs=outputs)
        values = [
            torch.as_tensor(value) for value in map(state.target, labeled.tolist()) if value is not None
        ]
        if not values:  # too large for the ledger: maps, of classes most often
            return cls(outputs=outputs)
        whole = not any(value.is_floating_point() for value in values)
        binary = all(bool(((value == 0) | (value == 1)).all()) for value in values)
        return cls(values[0].ndim, whole, binary, outputs)

    def kind_of(self, shape: Sequence[int]) -> Kind:
        """What the outputs of one sample, of this shape, are.

        Example:
            >>> Targets(axes=0, binary=False).kind_of((3,)), Targets(axes=0, binary=False).kind_of((1,))
            ('classes', 'numbers')
        """
        if self.outputs is not None:
            return self.outputs
        if len(shape) > self.axes and len(shape) and shape[0] > 1 and (self.whole or self.binary):
            return "classes"
        return "labels" if self.binary else "numbers"


class AveragedTest(L.Callback):
    """For the length of a test, the module's `forward` gives the mean of a posterior's passes.

    Args:
        posterior: Makes the passes.
        targets: What the outputs are judged by.
        seed: Of the passes.
    """

    def __init__(self, posterior: Posterior, targets: Targets, seed: int) -> None:
        self.posterior, self.targets, self.seed = posterior, targets, seed
        self._seen = self._calls = 0
        self._prepared = ExitStack()

    def on_test_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:  # noqa: D102
        self._prepared.enter_context(self.posterior.together(pl_module))
        own = pl_module.forward
        self._seen = self._calls = 0

        def forward(*args: Any, **kwargs: Any) -> Any:
            self._calls += 1
            return self._mean(own, pl_module, args, kwargs)

        before = vars(pl_module).get("forward")
        self._prepared.callback(_put_back, pl_module, before)
        pl_module.forward = forward  # type: ignore[method-assign]

    def on_test_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, *_: Any) -> None:  # noqa: D102
        if not self._calls:
            raise RuntimeError(
                f"The test of the mean of {self.posterior!r} stands in for `forward`, but "
                f"`{type(pl_module).__name__}.test_step` does not call it. Call `self(x)` there, not a part "
                "of the module."
            )

    def on_test_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:  # noqa: D102
        self._prepared.close()

    def on_exception(  # noqa: D102
        self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException
    ) -> None:
        self.on_test_end(trainer, pl_module)

    def _mean(
        self, own: Any, module: L.LightningModule, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        first: list[Any] = []

        def forward(member: nn.Module, batch: Any) -> Tensor:
            args, kwargs = batch
            output = own(*args, **kwargs) if member is module else member(*args, **kwargs)
            first.append(output) if not first else None
            return logits_of(output)

        tensor = next(p for p in tree_leaves([args, kwargs]) if isinstance(p, Tensor) and p.ndim)
        # The data set is dealt out to the ranks; no two samples of a test have the same position.
        world, rank = module.trainer.world_size, module.trainer.global_rank
        positions = (self._seen + torch.arange(len(tensor), device=tensor.device)) * world + rank
        self._seen += len(tensor)
        passes = torch.cat(
            list(self.posterior.passes(forward, module, (args, kwargs), Draw(self.seed, positions)))
        )
        tokens_first = _tokens_first(passes[0], args, kwargs)
        if tokens_first:
            passes = passes.movedim(-1, 2)
        mean = mean_prediction(passes, self.targets.kind_of(passes.shape[2:]))
        return _with_logits(first[0], mean.movedim(1, -1) if tokens_first else mean)


def _put_back(module: nn.Module, forward: Any) -> None:
    vars(module).pop("forward")
    if forward is not None:  # the module's own was in its place
        module.forward = forward


def _tokens_first(logits: Tensor, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    """Whether logits are (B, tokens, C), as Hugging Face makes them."""
    given = next((part for part in args if isinstance(part, Mapping)), kwargs)
    mask = given.get("attention_mask")
    return logits.ndim == 3 and isinstance(mask, Tensor) and mask.shape == logits.shape[:2]


def _with_logits(output: Any, logits: Tensor) -> Any:
    """What `forward` returns, with other logits."""
    if isinstance(output, Tensor):
        return logits.to(output.dtype)
    if hasattr(output, "_replace"):  # a named tuple
        return output._replace(logits=logits)
    changed = copy.copy(output)
    if isinstance(changed, Mapping):
        changed["logits"] = logits  # type: ignore[index]
    else:
        changed.logits = logits
    return changed

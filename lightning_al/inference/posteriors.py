"""POSTERIORS: how forward passes become the fields of `Outputs`.

How stochastic passes are made is apart from what is computed on them: an acquisition has a posterior.

    SinglePass   one deterministic pass                                           batch by batch
    MCDropout    many passes with dropout on; see mc_dropout.py                   batch by batch
    Committee    one pass of each of several models; see committee.py             member by member
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from lightning_al.inference.model_call import ModelCall
from lightning_al.inference.outputs import Outputs, probabilities

__all__ = ["BatchPosterior", "Draw", "NotFiniteError", "Posterior", "SinglePass", "check_finite"]


@dataclass(frozen=True)
class Draw:
    """What the randomness of a batch's passes is a function of.

    Args:
        seed: The same for all batches of a scoring.
        positions: Of the batch's samples, on the device.
    """

    seed: int
    positions: Tensor


class Posterior(ABC):
    """How passes over samples are made, one or many.

    Attributes:
        num_samples: Passes over each sample.
        consistent: Whether a pass means the same draw of the weights for every sample.
    """

    num_samples: int = 1
    consistent: bool = True

    @abstractmethod
    def passes(
        self, forward: Callable[[nn.Module, Any], Tensor], module: nn.Module, batch: Any, draw: Draw
    ) -> Iterator[Tensor]:
        """What `forward` gives of module and batch in every pass, some at a time: `(k, B, ...)`."""

    def together(self, module: nn.Module) -> AbstractContextManager[None]:
        """For the block, whatever `passes` needs is at hand, for one batch after the other."""
        del module
        return nullcontext()

    def __repr__(self) -> str:
        settings = {key: value for key, value in vars(self).items() if not key.startswith("_")}
        values = ", ".join(f"{key}={value!r}" for key, value in settings.items())
        return f"{type(self).__name__}({values})"


class BatchPosterior(Posterior):
    """Makes all passes over a batch of the scored module before it goes on to the next batch."""

    @abstractmethod
    def outputs(
        self, call: ModelCall, batch: Any, needs: tuple[str, ...], draw: Draw, *, multilabel: bool = False
    ) -> Outputs:
        """The fields `needs` of one batch.

        Args:
            call: The model, as it is to be called.
            batch: On the device, without targets.
            needs: Names of fields.
            draw: Where randomness comes from.
            multilabel: Every logit is a label of its own.

        Raises:
            NotFiniteError: If a logit is NaN or infinite; its `rows` are the batch's.
        """


class SinglePass(BatchPosterior):
    """One deterministic pass: dropout off, BatchNorm on its running statistics.

    Example:
        >>> SinglePass()
        SinglePass()
    """

    def outputs(  # noqa: D102
        self, call: ModelCall, batch: Any, needs: tuple[str, ...], draw: Draw, *, multilabel: bool = False
    ) -> Outputs:
        if set(needs) == {"predicted_loss"}:  # whatever the module's outputs are
            predicted = call.predicted_loss(batch, len(draw.positions))
            check_finite(predicted, "predicted losses")
            return Outputs(predicted_loss=predicted)
        said = call(batch)
        check_finite(said.logits)
        fields: dict[str, Any] = {}
        if said.predicted_loss is not None:
            check_finite(said.predicted_loss, "predicted losses")
            fields["predicted_loss"] = said.predicted_loss
        if "logits" in needs:
            fields["logits"] = said.logits
        if "probs" in needs:
            fields["probs"] = probabilities(said.logits, multilabel=multilabel)
        if "embeddings" in needs:
            fields["embeddings"] = said.embeddings
        if "classifier" in needs:
            fields["classifier"] = said.classifier
        return Outputs(mask=said.mask, **fields)

    def passes(  # noqa: D102
        self, forward: Callable[[nn.Module, Any], Tensor], module: nn.Module, batch: Any, draw: Draw
    ) -> Iterator[Tensor]:
        del draw
        yield forward(module, batch)[None]


class NotFiniteError(ValueError):
    """Some logits are NaN or infinite; `rows` says of which samples of the batch, `what` what is."""

    def __init__(self, rows: list[int], what: str = "logits") -> None:
        self.rows, self.what = rows, what
        super().__init__(f"{what} of rows {rows} are not finite")


def check_finite(logits: Tensor, what: str = "logits") -> None:
    """Raise if a sample has a NaN or infinite logit."""
    bad = ~torch.isfinite(logits.reshape(len(logits), -1)).all(1)
    if bool(bad.any()):
        raise NotFiniteError(bad.nonzero().squeeze(1).tolist(), what)

"""OUTPUTS: what a model says about one batch, no more than an acquisition asked for."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

__all__ = ["FIELDS", "Outputs", "probabilities"]

#: What an acquisition may name in `needs`.
FIELDS = (
    "logits",
    "probs",
    "embeddings",
    "classifier",
    "predicted_loss",
    "expected_entropy",
    "votes",
    "probs_std",
    "mean",
    "variance",
    "mc_probs",
)


class Outputs:
    """One batch of model outputs, on the device, in float32.

    - `logits` `(B, C)` or dense `(B, C, ...)`: of the deterministic pass.
    - `probs` `(B, C)` or dense `(B, ..., C)`: the posterior mean, the class axis last.
    - `embeddings` `(B, D)`: inputs of the last linear layer.
    - `classifier`: its weight `(C, D)` and bias `(C,)`.
    - `predicted_loss` `(B,)`: of the deterministic pass, by the head of a `LearningLossMixin`.
    - `expected_entropy` `(B,)`: the mean entropy of the passes; `votes` `(B, C)`: how many of them chose a
      class; `probs_std` `(B, C)`: the standard deviation of its probability. Dense as `probs`.
    - `mean`, `variance` `(B, ...)`: of the raw outputs over passes, for regression.
    - `mc_probs` `(B, K, C)`: of every pass; only for a strategy that names it.
    - `mask` `(B, ...)` or `None`: which places of a dense output count.

    Reading a field that `needs` does not name is an error: nothing is computed unasked.
    """

    def __init__(self, *, mask: Tensor | None = None, **fields: Any) -> None:
        self.mask = mask
        self._fields = fields

    def joined(self, other: Outputs) -> Outputs:
        """The fields of both."""
        mask = self.mask if other.mask is None else other.mask
        return Outputs(mask=mask, **self._fields, **other._fields)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        if name in self._fields:
            return self._fields[name]
        raise AttributeError(
            f"`outputs.{name}` was not computed: the acquisition's `needs` are {tuple(self._fields)}. "
            f"Add it there; there is {', '.join(FIELDS)}."
        )


def probabilities(logits: Tensor, *, multilabel: bool = False) -> Tensor:
    """Probabilities with the class axis last, `(B, ..., C)`; extra axes are places or labels.

    One logit is a two-class head, `[1 - p, p]`; with `multilabel` every logit is one, and its label
    an extra axis: `(B, L)` gives `(B, L, 2)`.

    Example:
        >>> probabilities(torch.zeros(1, 1)), probabilities(torch.zeros(1, 2), multilabel=True).shape
        (tensor([[0.5000, 0.5000]]), torch.Size([1, 2, 2]))
    """
    logits = logits.float()
    if logits.ndim == 1:
        logits = logits[:, None]
    if multilabel or logits.shape[1] == 1:
        pairs = torch.stack([(-logits).sigmoid(), logits.sigmoid()], dim=-1)
        return pairs if multilabel else pairs.squeeze(1)
    return logits.movedim(1, -1).softmax(-1)

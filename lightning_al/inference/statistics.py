"""STATISTICS: what is kept of many passes. Sums only; the passes themselves if a strategy names them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from lightning_al import functional as F
from lightning_al.functional.votes import count_votes
from lightning_al.inference.outputs import probabilities

__all__ = ["STATISTICS", "Statistics"]

#: Fields of `Outputs` that are of all passes, not of one.
STATISTICS = ("probs", "expected_entropy", "votes", "probs_std", "mean", "variance", "mc_probs")


class Statistics:
    """Adds up the passes over one batch.

    Args:
        needs: Fields of `Outputs`; those that are not of all passes are left out.
        multilabel: Every logit is a label of its own.

    Example:
        >>> found = Statistics(("probs", "votes"))
        >>> found.add(torch.tensor([[[0.0, 9.0]], [[9.0, 0.0]], [[9.0, 0.0]]]))  # three passes, one sample
        >>> found.fields()["votes"]
        tensor([[2., 1.]])
    """

    def __init__(self, needs: tuple[str, ...], *, multilabel: bool = False) -> None:
        self.needs = tuple(name for name in STATISTICS if name in needs)
        self.multilabel = multilabel
        self.count = 0
        self._shape: torch.Size | None = None
        self._sums: dict[str, Tensor] = {}
        self._passes: list[Tensor] = []
        self._probs, self._values = _Moments(), _Moments()

    def add(self, logits: Tensor) -> None:
        """Further passes: logits `(k, B, C, ...)`."""
        if self._shape not in (None, logits.shape[1:]):
            raise ValueError(
                f"One pass or member gave logits of shape {tuple(self._shape or ())}, another of "
                f"{tuple(logits.shape[1:])}; only the same outputs can be compared. Give members that answer "
                "alike, with the same classes."
            )
        self._shape = logits.shape[1:]
        self.count += len(logits)
        if {"mean", "variance"} & set(self.needs):
            self._values.add(logits)
        if not {"probs", "expected_entropy", "votes", "probs_std", "mc_probs"} & set(self.needs):
            return
        probs = probabilities(logits.flatten(0, 1), multilabel=self.multilabel)
        probs = probs.reshape(*logits.shape[:2], *probs.shape[1:])
        if "probs_std" in self.needs:
            self._probs.add(probs)
        if "probs" in self.needs:
            self._sum("probs", probs.sum(0))
        if "expected_entropy" in self.needs:
            self._sum("expected_entropy", F.entropy(probs).sum(0))
        if "votes" in self.needs:
            self._sum("votes", count_votes(probs.movedim(0, 1)))
        if "mc_probs" in self.needs:
            self._passes.append(probs)

    def fields(self) -> dict[str, Any]:
        """The fields of `Outputs`, of all passes so far."""
        found: dict[str, Any] = {}
        for name in self.needs:
            if name in ("probs", "expected_entropy"):
                found[name] = self._sums[name] / self.count
            elif name == "votes":
                found[name] = self._sums[name]
            elif name == "probs_std":
                found[name] = self._probs.variance().sqrt()
            elif name == "mean":
                found[name] = self._values.mean
            elif name == "variance":
                found[name] = self._values.variance()
            else:
                found[name] = torch.cat(self._passes).movedim(0, 1)
        return found

    def _sum(self, name: str, more: Tensor) -> None:
        self._sums[name] = self._sums[name] + more if name in self._sums else more


class _Moments:
    """Mean and variance over passes, without the difference of two large numbers (Chan et al. 1983)."""

    def __init__(self) -> None:
        self.count = 0
        self.mean = torch.zeros(())
        self._squares = torch.zeros(())

    def add(self, values: Tensor) -> None:
        mean = values.mean(0)
        squares = (values - mean).square().sum(0)
        if not self.count:
            self.count, self.mean, self._squares = len(values), mean, squares
            return
        total = self.count + len(values)
        gap = mean - self.mean
        self.mean = self.mean + gap * (len(values) / total)
        self._squares = self._squares + squares + gap.square() * (self.count * len(values) / total)
        self.count = total

    def variance(self) -> Tensor:
        return self._squares / self.count

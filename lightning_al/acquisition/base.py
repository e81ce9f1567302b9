"""3 SUMMARY and 4 SELECTION: what a strategy is.

    Outputs -> [summarize] -> Summary of all ranks -> [select] -> Selection

To add a strategy that scores samples one by one: subclass `ScoreAcquisition`, name what you need in
`needs`, write `score`. To add one that looks at the batch as a whole: subclass `Acquisition`.
"""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Generator, Tensor

from lightning_al import functional as F
from lightning_al.data.checks import check_flag
from lightning_al.functional.shard import Shard
from lightning_al.inference.outputs import Outputs
from lightning_al.inference.posteriors import Posterior, SinglePass
from lightning_al.inference.summary import Summary

__all__ = [
    "Acquisition",
    "DenseAcquisition",
    "ProbabilityAcquisition",
    "Reduction",
    "ScoreAcquisition",
    "Selection",
    "Summarizer",
    "checked_posterior",
]

Reduction = Literal["mean", "max", "sum"] | Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Selection:
    """The chosen rows of this round's candidates, the same on every rank.

    Args:
        positions: Distinct, most wanted first, `(k,)`.
        scores: What the strategy thought of each, `(k,)`.

    Example:
        >>> Selection(torch.tensor([4, 1]), torch.tensor([0.9, 0.7])).positions
        tensor([4, 1])
    """

    positions: Tensor
    scores: Tensor


class Summarizer(ABC):
    """What is needed of the model, and what is kept of a sample: all that scoring has to know.

    Attributes:
        needs: Fields of `Outputs`; with none, nothing is forwarded.
        posterior: How forward passes are made.
        multilabel: Every logit is a label of its own.
    """

    needs: tuple[str, ...] = ()
    posterior: Posterior = SinglePass()
    multilabel: bool = False

    @abstractmethod
    def summarize(self, outputs: Outputs) -> dict[str, Tensor]:
        """What is kept of a batch: tensors `(B, ...)`."""


class Acquisition(Summarizer):
    """A strategy: what it needs of the model, what it keeps of a sample, and how it chooses.

    Attributes:
        needs: Fields of `Outputs`; with none, nothing is forwarded.
        needs_labeled: Summaries of the labelled set too, without augmentation.
        posterior: How forward passes are made.
        multilabel: Every logit is a label of its own.

    Example:
        >>> class InOrder(Acquisition):
        ...     def summarize(self, outputs):
        ...         return {}
        ...
        ...     def select(self, pool, query_size, *, labeled, generator):
        ...         positions = torch.arange(pool.shard.total)[:query_size]
        ...         return Selection(positions, torch.zeros(len(positions)))
        >>> pool = Summary({}, Shard.whole(5))
        >>> InOrder().select(pool, 2, labeled=None, generator=torch.Generator()).positions
        tensor([0, 1])
    """

    needs_labeled: bool = False

    def check(self, samples: int) -> None:
        """Refuse a data set of so many samples, before anything is trained; all are welcome here."""
        del samples

    @abstractmethod
    def select(
        self, pool: Summary, query_size: int, *, labeled: Summary | None, generator: Generator
    ) -> Selection:
        """Choose `min(query_size, N)` positions from the summaries of all ranks.

        Args:
            pool: Summaries of the candidates held here; `pool.shard` says which these are.
            query_size: How many to choose.
            labeled: Summaries of the labelled samples held here, if `needs_labeled`.
            generator: Source of randomness, in the same state on every rank.
        """

    def __repr__(self) -> str:
        # What begins with an underscore is no setting, and may change from round to round; needs follow.
        hidden = ("needs", "needs_labeled")
        settings = {k: v for k, v in vars(self).items() if not k.startswith("_") and k not in hidden}
        values = ", ".join(f"{name}={_shown(value)}" for name, value in sorted(settings.items()))
        return f"{type(self).__name__}({values})"


class ScoreAcquisition(Acquisition):
    """A strategy that gives every sample a score and takes the highest; leaves `score` to write.

    Example:
        >>> class SmallLogits(ScoreAcquisition):
        ...     needs = ("logits",)
        ...
        ...     def score(self, outputs):
        ...         return -outputs.logits.norm(dim=1)
        >>> SmallLogits().score(Outputs(logits=torch.tensor([[3.0, 4.0], [0.0, 1.0]])))
        tensor([-5., -1.])
    """

    @abstractmethod
    def score(self, outputs: Outputs) -> Tensor:
        """Scores `(B,)`; higher = more informative, always."""

    def draw(
        self, scores: Tensor, query_size: int, *, shard: Shard, generator: Generator
    ) -> tuple[Tensor, Tensor]:
        """Positions and scores of the chosen; stochastic wrappers override it."""
        del generator
        return F.top_k(scores, query_size, shard=shard, return_scores=True)

    def summarize(self, outputs: Outputs) -> dict[str, Tensor]:  # noqa: D102
        scores = self.score(outputs)
        if not isinstance(scores, Tensor) or scores.ndim != 1:
            shape = tuple(scores.shape) if isinstance(scores, Tensor) else type(scores).__name__
            raise ValueError(
                f"`{type(self).__name__}.score` returned {shape}; needed is one number a sample, (B,). For "
                "dense outputs reduce over the other axes, for instance with `.flatten(1).mean(1)`."
            )
        if bool(scores.isnan().any()):
            rows = scores.isnan().nonzero().squeeze(1).tolist()[:5]
            raise ValueError(
                f"`{type(self).__name__}.score` is NaN for rows {rows} of a batch whose logits are finite; "
                "no order exists. Guard its logarithms and divisions."
            )
        return {"score": scores.float()}

    def select(  # noqa: D102
        self, pool: Summary, query_size: int, *, labeled: Summary | None, generator: Generator
    ) -> Selection:
        del labeled
        scores = pool["score"] if "score" in pool else torch.empty(0)
        positions, values = self.draw(scores, query_size, shard=pool.shard, generator=generator)
        return Selection(positions, values)


class DenseAcquisition(ScoreAcquisition):
    """A score at every place of a sample, reduced to one; leaves `places` to write.

    Dense outputs (segmentation, tokens) and the labels of a multi-label head have a score at every
    place; places outside of a mask do not count. A sample with one prediction has one place.

    Args:
        reduction: `"mean"`, `"max"`, `"sum"`, or a function from scores `(B, places)` and a mask of the
            same shape to `(B,)`.
        multilabel: Every logit is a label of its own (sigmoid), not one class of several (softmax).
        posterior: How forward passes are made; `None`: as the strategy is meant.

    Raises:
        ValueError: If `reduction` is none of these.
        TypeError: If `posterior` is none.

    Example:
        >>> class Doubtful(DenseAcquisition):
        ...     needs = ("logits",)
        ...
        ...     def places(self, outputs):
        ...         return -outputs.logits.amax(1)
        >>> Doubtful(reduction="max").score(Outputs(logits=torch.tensor([[[1.0, 2.0], [0.0, 4.0]]])))
        tensor([-1.])
    """

    def __init__(
        self,
        *,
        reduction: Reduction = "mean",
        multilabel: bool = False,
        posterior: Posterior | None = None,
    ) -> None:
        if not callable(reduction) and reduction not in ("mean", "max", "sum"):
            raise ValueError(
                f'`reduction` is {reduction!r}; needed is "mean", "max", "sum", or a function from scores '
                "and mask (B, places) to (B,)."
            )
        check_flag(multilabel=multilabel)
        self.reduction = reduction
        self.multilabel = multilabel
        if posterior is not None:
            self.posterior = checked_posterior(posterior)

    @abstractmethod
    def places(self, outputs: Outputs) -> Tensor:
        """Scores `(B, ...)`."""

    def score(self, outputs: Outputs) -> Tensor:  # noqa: D102
        scores = self.places(outputs)
        return scores if scores.ndim == 1 else _reduce(scores, outputs.mask, self.reduction)


class ProbabilityAcquisition(DenseAcquisition):
    """A score of the class probabilities; leaves `pointwise` to write. See `DenseAcquisition`.

    With a posterior of many passes these are the mean of the passes' probabilities.

    Example:
        >>> class Gini(ProbabilityAcquisition):
        ...     def pointwise(self, probs):
        ...         return 1 - probs.square().sum(-1)
        >>> Gini(reduction="max").score(Outputs(probs=torch.tensor([[[0.5, 0.5], [1.0, 0.0]]])))
        tensor([0.5000])
    """

    needs = ("probs",)

    @abstractmethod
    def pointwise(self, probs: Tensor) -> Tensor:
        """Scores `(...)` of probabilities `(..., C)`."""

    def places(self, outputs: Outputs) -> Tensor:  # noqa: D102
        return self.pointwise(outputs.probs)


def checked_posterior(posterior: Any) -> Posterior:
    """Refuse what is no posterior.

    Raises:
        TypeError: If it is not.
    """
    if not isinstance(posterior, Posterior):
        hint = " Call it: `MCDropout()`." if isinstance(posterior, type) else ""
        raise TypeError(
            f"`posterior` is {posterior!r}; needed is `SinglePass()`, `MCDropout()` or a `Committee`.{hint}"
        )
    return posterior


def _reduce(scores: Tensor, mask: Tensor | None, reduction: Reduction) -> Tensor:
    flat = scores.flatten(1)
    keep = torch.ones_like(flat, dtype=torch.bool)
    if mask is not None:
        # A mask of places covers the labels at each place; their axis comes before the places.
        extra = (1,) * (scores.ndim - mask.ndim)
        keep = mask.reshape(len(mask), *extra, *mask.shape[1:]).expand_as(scores).flatten(1)
    if callable(reduction):
        return reduction(flat, keep)
    if reduction == "max":
        # A sample without a single place has nothing to tell.
        return flat.masked_fill(~keep, -torch.inf).amax(1).nan_to_num(neginf=0.0)
    total = (flat * keep).sum(1)
    return total if reduction == "sum" else total / keep.sum(1).clamp_min(1)


def _shown(value: Any) -> str:
    """For the ledger: what is small and the same in every process."""
    if value is None or isinstance(value, str | bool | int | float | Acquisition | Posterior):
        return repr(value)
    if isinstance(value, tuple | list) and len(value) <= 10:
        return "[" + ", ".join(_shown(part) for part in value) + "]"
    if isinstance(value, tuple) and all(isinstance(part, int | float) for part in value):
        digest = hashlib.sha256(repr(value).encode()).hexdigest()[:8]
        return f"[{value[0]!r}, {value[1]!r}, ... {len(value)} numbers, {digest}]"
    return getattr(value, "__qualname__", type(value).__qualname__)

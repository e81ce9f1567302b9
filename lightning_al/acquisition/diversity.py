"""DIVERSITY: what a query covers as a whole, by where its samples lie.

The highest scores of a large query are near-copies of each other, of which one label would do. These
strategies choose samples that differ: in their embeddings, or in what they would change in the last layer.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

from torch import Generator, Tensor

from lightning_al import functional as F
from lightning_al.acquisition.base import Acquisition, ScoreAcquisition, Selection, checked_posterior
from lightning_al.acquisition.uncertainty import Margin
from lightning_al.data.checks import check_flag
from lightning_al.functional.clustering import check_beta
from lightning_al.functional.rejection import First
from lightning_al.functional.rows import check_choice
from lightning_al.functional.shard import Shard
from lightning_al.functional.vectors import Backend, Metric, Vectors
from lightning_al.inference.given_embeddings import GivenEmbeddings
from lightning_al.inference.outputs import Outputs
from lightning_al.inference.posteriors import Posterior, SinglePass
from lightning_al.inference.summary import Summary

__all__ = ["BADGE", "CoreSet", "DiverseMiniBatch"]


class _Embedded(Acquisition):
    """What strategies on embeddings share: they come from the model, or were given."""

    def __init__(self, embeddings: Any, metric: Metric, backend: Backend) -> None:
        check_choice(Metric, metric=metric)
        check_choice(Backend, backend=backend)
        self.embeddings = None if embeddings is None else GivenEmbeddings(embeddings)
        self.metric: Metric = metric
        self.backend: Backend = backend

    def check(self, samples: int) -> None:
        if self.embeddings is not None:
            self.embeddings.check(samples)

    def summarize(self, outputs: Outputs) -> dict[str, Tensor]:
        return {} if self.embeddings is not None else {"embeddings": flat(outputs.embeddings, self)}

    def rows(self, part: Summary) -> Tensor:
        """The embeddings of the samples held here; given ones are copied."""
        if self.embeddings is None:
            return part["embeddings"]
        return self.embeddings.rows(part.indices)

    def vectors(self, part: Summary) -> Tensor | Vectors:
        """The same, and nothing is copied."""
        if self.embeddings is None:
            return part["embeddings"]
        return self.embeddings.of(part.indices, metric=self.metric, backend=self.backend, shard=part.shard)

    def rows_of_all(self, part: Summary | None) -> Tensor | None:
        """Those of all ranks, in order."""
        if part is None or part.shard.total == 0:
            return None
        if self.embeddings is None:
            return part.gathered(part["embeddings"])
        indices = part.gathered(part.indices)
        rows = self.embeddings.rows(indices)
        names = replace(Shard.whole(len(rows)), samples=indices)
        Vectors.of_embeddings(rows, metric=self.metric, backend=self.backend, shard=names)  # refuses by name
        return rows


class CoreSet(_Embedded):
    """Asks for samples that leave no other far from a labelled one; see `functional.k_center_greedy`.

    The model's uncertainty plays no part, so it works from the first round on, and outliers draw it:
    `TwoStage(Margin(), then=CoreSet(), keep=0.1)` looks only where the model is unsure.

    Args:
        metric: `"euclidean"` or `"cosine"`.
        embeddings: Vectors of all samples by data set index, such as a frozen encoder's: a tensor, an array
            or the path of a `.npy` file, which is read in chunks; `~` is the home folder. Then nothing is
            forwarded. `None`: the model's, anew each round.
        backend: `"auto"`, `"faiss"` or `"torch"`; the choice is the same.

    Raises:
        ValueError: If an argument does not fit.

    References:
        Sener & Savarese, "Active Learning for Convolutional Neural Networks: A Core-Set Approach", 2018
        (arXiv:1708.00489), algorithm 1. Scores: distances to the nearest labelled or chosen sample.

    Example:
        >>> import numpy as np
        >>> CoreSet().needs, CoreSet(embeddings=np.zeros((1000, 8))).needs
        (('embeddings',), ())
    """

    needs_labeled = True

    def __init__(
        self, *, metric: Metric = "euclidean", embeddings: Any = None, backend: Backend = "auto"
    ) -> None:
        super().__init__(embeddings, metric, backend)
        self.needs = () if self.embeddings is not None else ("embeddings",)

    def select(  # noqa: D102
        self, pool: Summary, query_size: int, *, labeled: Summary | None, generator: Generator
    ) -> Selection:
        positions, distances = F.k_center_greedy(
            self.vectors(pool), query_size, self.rows_of_all(labeled), metric=self.metric,
            backend=self.backend, generator=generator, shard=pool.shard, return_scores=True,
        )  # fmt: skip
        return Selection(positions, distances)


class DiverseMiniBatch(_Embedded):
    """Asks for samples of as many clusters of the most uncertain; see `functional.diverse_mini_batch`.

    Args:
        beta: How many times the query's size are clustered: those of the highest scores.
        weights: Gives the scores, which also weigh the samples in a cluster, and so must not be negative.
            `None`: `Margin()`.
        embeddings: As in `CoreSet`; only what the scores need is forwarded then.
        around_labeled: Count the labelled samples as centres that stay, so that nothing near them is asked.
        scale_features: Divide each feature by its deviation first.
        backend: As in `CoreSet`.

    Raises:
        TypeError: If `weights` does not score samples one by one, or draws by its scores.
        ValueError: If an argument does not fit.

    References:
        Zhdanov, "Diverse mini-batch Active Learning", 2019 (arXiv:1901.05954).

    Example:
        >>> from lightning_al import acquisition as acq
        >>> DiverseMiniBatch(beta=50, weights=acq.Entropy()).needs
        ('probs', 'embeddings')
    """

    def __init__(
        self,
        beta: float = 10,
        weights: ScoreAcquisition | None = None,
        *,
        embeddings: Any = None,
        around_labeled: bool = False,
        scale_features: bool = False,
        backend: Backend = "auto",
    ) -> None:
        weights = Margin() if weights is None else weights
        if not isinstance(weights, ScoreAcquisition):
            raise TypeError(
                f"`weights` is {weights!r}, which has no score of single samples to weigh them by. Pass a "
                "`ScoreAcquisition`, such as `Margin()`."
            )
        if type(weights).draw is not ScoreAcquisition.draw:
            base = getattr(weights, "base", Margin())
            raise TypeError(
                f"`weights` is {weights!r}, which draws; needed are scores alone, for here clusters spread "
                f"the query. Pass the strategy that gives them: `weights={base!r}`."
            )
        check_beta(beta)
        super().__init__(embeddings, "euclidean", backend)
        check_flag(around_labeled=around_labeled, scale_features=scale_features)
        self.beta = float(beta)
        self.weights, self.scale_features = weights, scale_features
        self.around_labeled = self.needs_labeled = around_labeled
        own = () if self.embeddings is not None else ("embeddings",)
        self.needs = tuple(dict.fromkeys([*weights.needs, *own]))
        self.posterior, self.multilabel = weights.posterior, weights.multilabel

    def summarize(self, outputs: Outputs) -> dict[str, Tensor]:  # noqa: D102
        weights = self.weights.summarize(outputs)["score"]
        wrong = weights[~((weights >= 0) & (weights < math.inf))]
        if len(wrong):
            raise ValueError(
                f"`weights` is {self.weights!r}, which gave a sample the score {float(wrong[0]):.4g}; needed "
                "are finite scores from 0 on, for these weigh the samples in a cluster. Take one that has "
                "such, as `Margin()`, or derive one whose `score` returns `super().score(outputs).exp()`: "
                "the order stays."
            )
        return {"weight": weights, **super().summarize(outputs)}

    def select(  # noqa: D102
        self, pool: Summary, query_size: int, *, labeled: Summary | None, generator: Generator
    ) -> Selection:
        # Only the candidates' embeddings are read; the function would take them all.
        count = math.ceil(self.beta * query_size)
        kept = F.top_k(pool["weight"], count, shard=pool.shard).cpu().sort().values
        part = pool.of_positions(kept)
        positions, weights = F.diverse_mini_batch(
            self.rows(part), part["weight"], query_size, beta=self.beta, labeled=self.rows_of_all(labeled),
            scale_features=self.scale_features, backend=self.backend, generator=generator,
            shard=part.shard, return_scores=True,
        )  # fmt: skip
        return Selection(kept[positions.cpu()], weights)


class BADGE(Acquisition):
    """Asks for samples that would change the last layer, each in its own way; see `functional.badge`.

    Draws by k-means++ from the gradients that the last layer would get if the predicted label were the true
    one: long where the model is unsure, of like direction for like samples.

    Args:
        first: `"largest"`: the longest gradient, as in the authors' code; `"random"`: any sample.
        bias: Whether the gradients are also those of the layer's bias.
        multilabel: Every logit is a label of its own.
        posterior: Whose mean prediction the gradients are of.

    Raises:
        ValueError: If an argument does not fit.

    References:
        Ash et al., "Deep Batch Active Learning by Diverse, Uncertain Gradient Lower Bounds", 2020
        (arXiv:1906.03671). Scores: squared distances to the nearest gradient chosen before.

    Example:
        >>> BADGE().needs
        ('probs', 'embeddings')
    """

    needs = ("probs", "embeddings")

    def __init__(
        self,
        *,
        first: First = "largest",
        bias: bool = False,
        multilabel: bool = False,
        posterior: Posterior | None = None,
    ) -> None:
        check_choice(First, first=first)
        check_flag(bias=bias, multilabel=multilabel)
        self.first: First = first
        self.bias, self.multilabel = bias, multilabel
        self.posterior = SinglePass() if posterior is None else checked_posterior(posterior)

    def summarize(self, outputs: Outputs) -> dict[str, Tensor]:  # noqa: D102
        probs: Tensor = outputs.probs
        if probs.ndim != (3 if self.multilabel else 2):
            raise ValueError(
                f"The probabilities have shape {tuple(probs.shape)}; `BADGE` needs one prediction a sample, "
                "(B, C). Pool over places in the model, or use `Margin`, which reduces dense outputs."
            )
        return {"probs": probs, "embeddings": flat(outputs.embeddings, self)}

    def select(  # noqa: D102
        self, pool: Summary, query_size: int, *, labeled: Summary | None, generator: Generator
    ) -> Selection:
        positions, squares = F.badge(
            pool["probs"], pool["embeddings"], query_size, first=self.first, bias=self.bias,
            generator=generator, shard=pool.shard, return_scores=True,
        )  # fmt: skip
        return Selection(positions, squares)


def flat(embeddings: Tensor, strategy: Acquisition) -> Tensor:
    """The same embeddings; refused if they are not one vector a sample."""
    if embeddings.ndim != 2:
        raise ValueError(
            f"The embeddings have shape {tuple(embeddings.shape)}; `{type(strategy).__name__}` needs one "
            "vector a sample, (B, D). Name a layer that gives one with `embedding_layer=`, or pool over "
            "places or tokens in the model."
        )
    return embeddings

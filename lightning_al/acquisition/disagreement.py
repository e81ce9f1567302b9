"""DISAGREEMENT: what many passes, or the members of a committee, say of each other.

One pass can be unsure in two ways that look alike: the classes overlap there, or the model does not know.
Only in the second case do draws from the posterior contradict each other, and a label helps.
"""

from __future__ import annotations

import torch
from torch import Generator, Tensor

from lightning_al import functional as F
from lightning_al.acquisition.base import (
    Acquisition,
    DenseAcquisition,
    Reduction,
    Selection,
    checked_posterior,
)
from lightning_al.data.checks import check_flag, check_positive
from lightning_al.functional import disagreement as D
from lightning_al.functional import votes as V
from lightning_al.inference.mc_dropout import MCDropout
from lightning_al.inference.outputs import Outputs
from lightning_al.inference.posteriors import Posterior, SinglePass
from lightning_al.inference.summary import Summary

__all__ = [
    "BALD",
    "BatchBALD",
    "ConsensusKL",
    "DisagreementAcquisition",
    "MeanSTD",
    "PredictiveVariance",
    "VariationRatio",
    "VoteEntropy",
    "VoteMargin",
]


class DisagreementAcquisition(DenseAcquisition):
    """A score of several passes; leaves `needs` and `places` to write. See `DenseAcquisition`.

    Args:
        posterior: How the passes are made; `None`: `MCDropout()`.
        reduction: As in `DenseAcquisition`.
        multilabel: As in `DenseAcquisition`.

    Raises:
        ValueError: If the posterior makes one pass, which cannot disagree with itself.

    Example:
        >>> class Doubts(DisagreementAcquisition):
        ...     needs = ("votes",)
        ...
        ...     def places(self, outputs):
        ...         return (outputs.votes > 0).sum(-1).float()
        >>> Doubts().posterior
        MCDropout(num_samples=20, consistent=True)
    """

    def __init__(
        self,
        posterior: Posterior | None = None,
        *,
        reduction: Reduction = "mean",
        multilabel: bool = False,
    ) -> None:
        posterior = MCDropout() if posterior is None else checked_posterior(posterior)
        super().__init__(reduction=reduction, multilabel=multilabel, posterior=posterior)
        self._check_passes()

    def _check_passes(self) -> None:
        _refuse_single(self, self.posterior)


class BALD(DisagreementAcquisition):
    """Asks where the passes are sure and contradict each other; see `functional.bald`.

    What a label would tell about the model, one sample at a time; `BatchBALD` for a query as a whole.

    Example:
        >>> BALD(MCDropout(100, consistent=False))
        BALD(multilabel=False, posterior=MCDropout(num_samples=100, consistent=False), reduction='mean')
    """

    needs = ("probs", "expected_entropy")

    def places(self, outputs: Outputs) -> Tensor:  # noqa: D102
        return D.bald_from(outputs.probs, outputs.expected_entropy)


class VariationRatio(DisagreementAcquisition):
    """Asks where fewest passes agree with the most frequent answer; see `functional.variation_ratio`.

    With `SinglePass()`, where there is one answer, it is one minus its probability, as in
    `LeastConfidence`; both go by this name.

    Example:
        >>> import torch
        >>> VariationRatio().places(Outputs(votes=torch.tensor([[20.0, 0.0], [11.0, 9.0]])))
        tensor([0.0000, 0.4500])
        >>> VariationRatio(SinglePass()).needs
        ('probs',)
    """

    needs = ("votes",)

    def _check_passes(self) -> None:
        if isinstance(self.posterior, SinglePass):
            self.needs = ("probs",)
        else:
            _refuse_single(self, self.posterior)

    def places(self, outputs: Outputs) -> Tensor:  # noqa: D102
        if isinstance(self.posterior, SinglePass):
            return F.least_confidence(outputs.probs)
        return V.variation_ratio_from(outputs.votes)


class MeanSTD(DisagreementAcquisition):
    """Asks where the probabilities vary most from pass to pass; see `functional.mean_std`.

    Example:
        >>> MeanSTD().needs
        ('probs_std',)
    """

    needs = ("probs_std",)

    def places(self, outputs: Outputs) -> Tensor:  # noqa: D102
        return D.mean_std_from(outputs.probs_std)


class VoteEntropy(DisagreementAcquisition):
    """Asks where the votes of passes or members are spread; see `functional.vote_entropy`.

    Example:
        >>> import torch
        >>> VoteEntropy().places(Outputs(votes=torch.tensor([[5.0, 0.0], [3.0, 2.0]])))
        tensor([0.0000, 0.6730])
    """

    needs = ("votes",)

    def places(self, outputs: Outputs) -> Tensor:  # noqa: D102
        return V.vote_entropy_from(outputs.votes)


class VoteMargin(DisagreementAcquisition):
    """Asks where the two most voted classes are close; see `functional.vote_margin`.

    Example:
        >>> import torch
        >>> VoteMargin().places(Outputs(votes=torch.tensor([[5.0, 0.0], [3.0, 2.0]])))
        tensor([0.0000, 0.8000])
    """

    needs = ("votes",)

    def places(self, outputs: Outputs) -> Tensor:  # noqa: D102
        return V.vote_margin_from(outputs.votes)


class ConsensusKL(BALD):
    """Asks where members differ from their mean; see `functional.consensus_kl`.

    The mean divergence of the members from the committee's mean is what `BALD` measures: it is computed
    as that is, and both rank alike.

    Example:
        >>> ConsensusKL().needs
        ('probs', 'expected_entropy')
    """


class PredictiveVariance(DisagreementAcquisition):
    """Asks where the predicted numbers vary most from pass to pass: for regression.

    The variance over passes or members of the raw outputs, averaged over these if there are several; see
    `functional.predictive_variance`. Outputs of different units should be scaled alike.

    Args:
        posterior: How the passes are made; `None`: `MCDropout()`.
        reduction: As in `DenseAcquisition`.

    Raises:
        ValueError: If the posterior makes one pass, which cannot disagree with itself.

    Example:
        >>> import torch
        >>> PredictiveVariance().score(Outputs(variance=torch.tensor([[0.5], [2.0]])))
        tensor([0.5000, 2.0000])
    """

    needs = ("variance",)

    def __init__(self, posterior: Posterior | None = None, *, reduction: Reduction = "mean") -> None:
        super().__init__(posterior, reduction=reduction)

    def places(self, outputs: Outputs) -> Tensor:  # noqa: D102
        variance: Tensor = outputs.variance
        return variance


class BatchBALD(Acquisition):
    """Asks for the samples whose labels together tell most about the model; see `functional.batch_bald`.

    `BALD` takes near-copies of the most informative sample; this counts what they share only once.

    Args:
        posterior: Passes that each are one draw of the model for all samples; `None`: `MCDropout(100)`. A
            query of information beyond log(num_samples) cannot be told apart.
        num_joint_samples: Label configurations that stand for all, once these are too many.
        exact: No short cuts in the search.
        candidates: Look only at so many samples of the highest BALD scores; `None`: at all.

    Raises:
        ValueError: If the passes differ in masks from sample to sample, or an argument does not fit.

    Example:
        >>> BatchBALD(MCDropout(50)).needs
        ('mc_probs',)
    """

    needs = ("mc_probs",)

    def __init__(
        self,
        posterior: Posterior | None = None,
        *,
        num_joint_samples: int = 10_000,
        exact: bool = False,
        candidates: int | None = None,
    ) -> None:
        self.posterior = MCDropout(100) if posterior is None else checked_posterior(posterior)
        _refuse_single(self, self.posterior)
        if not self.posterior.consistent:
            raise ValueError(
                "`BatchBALD` needs passes that are one draw of the model for all samples, but "
                f"{self.posterior!r} draws for each, which tells nothing of how labels hang together. Use "
                "`MCDropout(consistent=True)` or a `Committee`."
            )
        check_positive(num_joint_samples=num_joint_samples, candidates=candidates)
        check_flag(exact=exact)
        if num_joint_samples < self.posterior.num_samples:
            raise ValueError(
                f"`num_joint_samples` is {num_joint_samples}, fewer than the {self.posterior.num_samples} "
                "passes of the posterior, each of which needs one at least. Raise it, or make fewer passes."
            )
        self.num_joint_samples, self.exact, self.candidates = num_joint_samples, exact, candidates

    def summarize(self, outputs: Outputs) -> dict[str, Tensor]:  # noqa: D102
        if outputs.mc_probs.ndim != 3:
            raise ValueError(
                f"The probabilities of the passes have shape {tuple(outputs.mc_probs.shape)}; `BatchBALD` "
                "needs one prediction a sample, (B, K, C). Use `BALD`, which reduces dense outputs."
            )
        return {"mc_probs": outputs.mc_probs}

    def select(  # noqa: D102
        self, pool: Summary, query_size: int, *, labeled: Summary | None, generator: Generator
    ) -> Selection:
        del labeled
        if not pool.shard.total:
            return Selection(torch.empty(0, dtype=torch.long), torch.empty(0))
        candidates = None if self.candidates is None else max(self.candidates, query_size)
        positions, information = F.batch_bald(
            pool["mc_probs"], query_size, num_joint_samples=self.num_joint_samples, exact=self.exact,
            candidates=candidates, generator=generator, shard=pool.shard, return_scores=True,
        )  # fmt: skip
        return Selection(positions, information)


def _refuse_single(acquisition: Acquisition, posterior: Posterior) -> None:
    if posterior.num_samples < 2:
        raise ValueError(
            f"`{type(acquisition).__name__}` compares passes, but {posterior!r} makes only one. Use "
            "`MCDropout()` or a `Committee`, or a score of one prediction such as `Margin()`."
        )

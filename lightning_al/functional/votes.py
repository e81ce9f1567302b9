"""3 SCORES: how much do the votes of several passes, or several models, differ about each pool sample?

    probabilities of K passes or members -> votes for classes -> [votes] -> selection

Shapes are those of `disagreement.py`. A function whose name ends in `_from` finds the same score from
`count_votes`, for those who do not keep the passes, and raises `ValueError` where these do not fit.
"""

from __future__ import annotations

import torch
from torch import Tensor

from lightning_al.functional.passes import checked_passes, scored_passes
from lightning_al.functional.rows import as_float, by_rows, check_tensors, refuse_nan
from lightning_al.functional.scores import shannon, top_two

__all__ = [
    "count_votes",
    "variation_ratio",
    "variation_ratio_from",
    "vote_entropy",
    "vote_entropy_from",
    "vote_margin",
    "vote_margin_from",
]


def variation_ratio(mc_probs: Tensor) -> Tensor:
    """Share of the passes that do not vote for the most voted class.

    High where the passes give different answers, zero where all give the same, however unsure.
    Between 0 and 1 - 1/min(C, K), in steps of 1/K: with few passes many samples tie. A pass votes for
    its most probable class, of equal ones the first. The other score of this name, 1 - max p of a
    single prediction, is `least_confidence`.

    Args:
        mc_probs: Class probabilities of every pass, `(N, K, C)` or `(N, K, ..., C)`; C > 1.

    Returns:
        Scores `(N, ...)`; higher = more informative.

    Raises:
        ValueError: If the shape is another, the rows are not probabilities, or one is NaN.

    References:
        Freeman, "Elementary Applied Statistics", 1965; over passes: Gal, Islam & Ghahramani, "Deep Bayesian
        Active Learning with Image Data", 2017, section 4 (arXiv:1703.02910). Cost: O(N K C), and a few
        megabytes beside the scores.

    Example:
        >>> import torch
        >>> sure, other = [0.9, 0.1, 0.0], [0.2, 0.2, 0.6]
        >>> variation_ratio(torch.tensor([[sure, sure, sure, other], [sure, sure, sure, sure]]))
        tensor([0.2500, 0.0000])
    """
    return scored_passes(lambda probs: _variation_ratio(_ballot(probs)), mc_probs)


def variation_ratio_from(votes: Tensor) -> Tensor:
    """`variation_ratio` `(...)` of counted `votes` `(..., C)`, as by `count_votes`.

    Example:
        >>> import torch
        >>> variation_ratio_from(torch.tensor([[3, 0, 1], [4, 0, 0]]))
        tensor([0.2500, 0.0000])
    """
    return by_rows(_variation_ratio, _checked_votes(votes)).clamp_min_(0)


def vote_entropy(mc_probs: Tensor) -> Tensor:
    """Entropy of the votes of a committee, in nats.

    High where the votes are spread over many classes, zero where all members vote alike, however
    unsure. Between 0 and log(min(C, K)). A member votes for its most probable class, of equal ones
    the first; how sure it is does not count (with `consensus_kl` it does).

    Args:
        mc_probs: Class probabilities of every member or pass, `(N, K, C)` or `(N, K, ..., C)`; C > 1.

    Returns:
        Scores `(N, ...)`; higher = more informative.

    Raises:
        ValueError: If the shape is another, the rows are not probabilities, or one is NaN.

    References:
        Dagan & Engelson, "Committee-Based Sampling for Training Probabilistic Classifiers", 1995. Divided
        by log(min(C, K)), as some do, it orders the samples alike. Cost: O(N K C), and a few megabytes beside
        the scores.

    Example:
        >>> import torch
        >>> a, b = [0.9, 0.1], [0.4, 0.6]
        >>> vote_entropy(torch.tensor([[a, a, b, b], [a, a, a, a]]))
        tensor([0.6931, 0.0000])
    """
    return scored_passes(lambda probs: _vote_entropy(_ballot(probs)), mc_probs)


def vote_entropy_from(votes: Tensor) -> Tensor:
    """`vote_entropy` `(...)` of counted `votes` `(..., C)`, as by `count_votes`.

    Example:
        >>> import torch
        >>> vote_entropy_from(torch.tensor([[2, 2], [4, 0]]))
        tensor([0.6931, 0.0000])
    """
    return by_rows(_vote_entropy, _checked_votes(votes)).clamp_min_(0)


def vote_margin(mc_probs: Tensor) -> Tensor:
    """One minus the gap between the shares of the two most voted classes.

    High where two classes compete for the votes, zero where all members vote alike. Between 0 and 1,
    in steps of 1/K: with few members many samples tie.

    Args:
        mc_probs: Class probabilities of every member or pass, `(N, K, C)` or `(N, K, ..., C)`; C > 1.

    Returns:
        Scores `(N, ...)`; higher = more informative.

    Raises:
        ValueError: If the shape is another, the rows are not probabilities, or one is NaN.

    References:
        The margin of Scheffer, Decomain & Wrobel, 2001, on the votes of a committee. Cost: O(N K C), and a
        few megabytes beside the scores.

    Example:
        >>> import torch
        >>> a, b = [0.9, 0.1], [0.4, 0.6]
        >>> vote_margin(torch.tensor([[a, a, b, b], [a, a, a, b]]))
        tensor([1.0000, 0.5000])
    """
    return scored_passes(lambda probs: _vote_margin(_ballot(probs)), mc_probs)


def vote_margin_from(votes: Tensor) -> Tensor:
    """`vote_margin` `(...)` of counted `votes` `(..., C)`, as by `count_votes`; C > 1.

    Example:
        >>> import torch
        >>> vote_margin_from(torch.tensor([[2, 2, 0], [3, 0, 1]]))
        tensor([1.0000, 0.5000])
    """
    return by_rows(_vote_margin, _checked_votes(votes, at_least=2)).clamp_min_(0)


def count_votes(mc_probs: Tensor) -> Tensor:
    """How many passes vote for each class, `(N, ..., C)`; of equally probable classes, the first.

    Args:
        mc_probs: Class probabilities of every pass, `(N, K, C)` or `(N, K, ..., C)`.

    Returns:
        Counts, as floating-point numbers.

    Raises:
        ValueError: If the shape is another, the rows are not probabilities, or one is NaN.

    Example:
        >>> import torch
        >>> count_votes(torch.tensor([[[0.9, 0.1], [0.5, 0.5], [0.2, 0.8]]]))
        tensor([[2., 1.]])
    """
    with torch.no_grad():
        return refuse_nan(_ballot(as_float(checked_passes(mc_probs))), "mc_probs")


def _checked_votes(votes: Tensor, at_least: int = 1) -> Tensor:
    check_tensors(votes=votes)
    if votes.ndim == 0 or votes.shape[-1] < at_least:
        raise ValueError(
            f"`votes` has shape {tuple(votes.shape)}; needed is (..., C) with C >= {at_least}, a count for "
            "each class. Count them with `functional.count_votes`."
        )
    if votes.numel() and not bool((votes.sum(-1) > 0).all() & (votes.amin() >= 0)):
        raise ValueError(
            "`votes` has a row with a negative or NaN count, or without a vote; needed is how many passes "
            "voted for each class. Count them with `functional.count_votes`."
        )
    return votes


def _ballot(probs: Tensor) -> Tensor:
    """Votes `(..., C)` of passes `(..., K, C)`; a NaN, which is the largest to `max`, makes its class NaN."""
    top, choice = probs.max(-1)
    votes = probs.new_zeros((*probs.shape[:-2], probs.shape[-1]))
    return votes.scatter_add_(-1, choice, torch.where(top.isnan(), top, 1))


def _variation_ratio(votes: Tensor) -> Tensor:
    return 1 - votes.amax(-1) / votes.sum(-1)


def _vote_entropy(votes: Tensor) -> Tensor:
    return shannon(votes / votes.sum(-1, keepdim=True))


def _vote_margin(votes: Tensor) -> Tensor:
    first, second = top_two(votes)
    return 1 - (first - second) / votes.sum(-1)

"""3 SCORES: how much do several passes, or several models, disagree about each pool sample?

    probabilities of K passes or members -> [disagreement] -> selection

`mc_probs` is `(N, K, C)`, the class axis last, or dense `(N, K, ..., C)` with scores `(N, ...)`; higher =
more informative, always. A function whose name ends in `_from` finds the same score from sums over the
passes, for those who do not keep the passes, and raises `ValueError` where these do not fit. To add one:
write the function, its slow definition in `tests/reference/disagreement.py`, its class in `acquisition/`.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from lightning_al.functional.rows import (
    as_float,
    by_rows,
    check_tensors,
    checked,
    dot_,
    log2,
    piece_size,
    refuse_nan,
)
from lightning_al.functional.scores import entropy, shannon, top_two

__all__ = [
    "bald",
    "bald_from",
    "consensus_kl",
    "count_votes",
    "mean_std",
    "mean_std_from",
    "predictive_variance",
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
    return _scored(lambda probs: _variation_ratio(_ballot(probs)), mc_probs)


def variation_ratio_from(votes: Tensor) -> Tensor:
    """`variation_ratio` `(...)` of counted `votes` `(..., C)`, as by `count_votes`.

    Example:
        >>> import torch
        >>> variation_ratio_from(torch.tensor([[3, 0, 1], [4, 0, 0]]))
        tensor([0.2500, 0.0000])
    """
    return by_rows(_variation_ratio, _checked_votes(votes)).clamp_min_(0)


def mean_std(mc_probs: Tensor) -> Tensor:
    """Standard deviation of a class probability over the passes, averaged over the classes.

    High where the passes give a class very different probabilities, zero where they agree. Between 0
    and sqrt(C - 1)/C, so that scores of different numbers of classes do not compare.

    Args:
        mc_probs: Class probabilities of every pass, `(N, K, C)` or `(N, K, ..., C)`; K > 1, C > 1.

    Returns:
        Scores `(N, ...)`; higher = more informative.

    Raises:
        ValueError: If the shape is another, the rows are not probabilities, or one is NaN.

    References:
        Kampffmeyer, Salberg & Jenssen, "Semantic Segmentation of Small Objects and Modeling of Uncertainty",
        2016; Kendall, Badrinarayanan & Cipolla, "Bayesian SegNet", 2015; as a query rule: Gal, Islam &
        Ghahramani, 2017, section 4 (arXiv:1703.02910). Cost: O(N K C), and a few megabytes beside the scores.

    Example:
        >>> import torch
        >>> mean_std(torch.tensor([[[1.0, 0.0], [0.0, 1.0]], [[0.5, 0.5], [0.5, 0.5]]]))
        tensor([0.5000, 0.0000])
    """
    return _scored(_mean_std, mc_probs, compares="mean_std")


def mean_std_from(probs_std: Tensor) -> Tensor:
    """`mean_std` `(...)` of `probs_std` `(..., C)`, the population standard deviations over the passes.

    Example:
        >>> import torch
        >>> mean_std_from(torch.tensor([[0.5, 0.5], [0.0, 0.0]]))
        tensor([0.5000, 0.0000])
    """
    check_tensors(probs_std=probs_std)
    if probs_std.ndim == 0 or probs_std.shape[-1] == 0:
        raise ValueError(f"`probs_std` has shape {tuple(probs_std.shape)}; needed is (..., C), C > 0.")
    return refuse_nan(by_rows(lambda rows: rows.mean(-1), probs_std), "probs_std")


def bald(mc_probs: Tensor) -> Tensor:
    """Mutual information between a sample's label and the model's parameters, in nats.

    High where single passes are sure and disagree; zero where all agree, however unsure. The entropy
    of the mean prediction less the mean entropy of the passes. Between 0 and log(min(C, K)).

    Args:
        mc_probs: Class probabilities of every pass, `(N, K, C)` or `(N, K, ..., C)`; K > 1, C > 1.

    Returns:
        Scores `(N, ...)`; higher = more informative.

    Raises:
        ValueError: If the shape is another, the rows are not probabilities, or one is NaN.

    References:
        Houlsby et al., "Bayesian Active Learning for Classification and Preference Learning", 2011,
        equation 2 (arXiv:1112.5745); with dropout: Gal, Islam & Ghahramani, 2017, section 4
        (arXiv:1703.02910). Cost: O(N K C), and a few megabytes beside the scores.

    Example:
        >>> import torch
        >>> bald(torch.tensor([[[0.5, 0.5], [0.5, 0.5]], [[1.0, 0.0], [0.0, 1.0]]]))
        tensor([0.0000, 0.6931])
    """
    return _scored(_bald, mc_probs, compares="bald")


def bald_from(probs: Tensor, expected_entropy: Tensor) -> Tensor:
    """`bald` `(...)` of the means over the passes: of `probs` `(..., C)` and of their entropies, in nats.

    Example:
        >>> import torch
        >>> bald_from(torch.tensor([[0.5, 0.5], [0.5, 0.5]]), torch.tensor([0.5, 0.0]))
        tensor([0.1931, 0.6931])
    """
    check_tensors(probs=probs, expected_entropy=expected_entropy)
    if expected_entropy.shape != probs.shape[:-1]:
        raise ValueError(
            f"`expected_entropy` has shape {tuple(expected_entropy.shape)} for `probs` of shape "
            f"{tuple(probs.shape)}; needed is one number a row. Average the entropies over the passes."
        )
    information = _information(entropy(probs), as_float(expected_entropy.detach()))
    return refuse_nan(information, "expected_entropy")


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
    return _scored(lambda probs: _vote_entropy(_ballot(probs)), mc_probs)


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
    return _scored(lambda probs: _vote_margin(_ballot(probs)), mc_probs)


def vote_margin_from(votes: Tensor) -> Tensor:
    """`vote_margin` `(...)` of counted `votes` `(..., C)`, as by `count_votes`; C > 1.

    Example:
        >>> import torch
        >>> vote_margin_from(torch.tensor([[2, 2, 0], [3, 0, 1]]))
        tensor([1.0000, 0.5000])
    """
    return by_rows(_vote_margin, _checked_votes(votes, at_least=2)).clamp_min_(0)


def consensus_kl(mc_probs: Tensor) -> Tensor:
    """Mean divergence of the members of a committee from what they say together, in nats.

    High where members are sure and disagree; zero where all agree, however unsure. The mean over
    members of KL(p_k || mean p), which is the mutual information of `bald` in another form: the two
    agree up to rounding, this one is the more exact near zero. Between 0 and log(min(C, K)). Some
    implementations (modAL) take the largest divergence instead of the mean: another score, up to K
    times as large, which one odd member decides.

    Args:
        mc_probs: Class probabilities of every member or pass, `(N, K, C)` or `(N, K, ..., C)`; K > 1, C > 1.

    Returns:
        Scores `(N, ...)`; higher = more informative.

    Raises:
        ValueError: If the shape is another, the rows are not probabilities, or one is NaN.

    References:
        McCallum & Nigam, "Employing EM and Pool-Based Active Learning for Text Classification", 1998
        (there weighted by the density of the pool). Cost: O(N K C), and a few megabytes beside the scores.

    Example:
        >>> import torch
        >>> consensus_kl(torch.tensor([[[0.5, 0.5], [0.5, 0.5]], [[1.0, 0.0], [0.0, 1.0]]]))
        tensor([0.0000, 0.6931])
    """
    return _scored(_consensus_kl, mc_probs, compares="consensus_kl")


def predictive_variance(mc_values: Tensor) -> Tensor:
    """Variance of a prediction over the passes: the disagreement of regression.

    High where the passes predict different numbers, zero where they agree. The population variance, in
    squared units of the prediction; 0 and above.

    Args:
        mc_values: Predictions of every pass, `(N, K)`, or `(N, K, ...)` with several numbers a sample; K > 1.

    Returns:
        Scores `(N,)`, or `(N, ...)`: one for each number, to be reduced by the caller.

    Raises:
        ValueError: If the shape is another, or a prediction is NaN or infinite.

    References:
        Krogh & Vedelsby, "Neural Network Ensembles, Cross Validation, and Active Learning", 1995 (there the
        ambiguity of an ensemble); Burbidge, Rowland & King, "Active Learning for Regression Based on Query by
        Committee", 2007. Cost: O(N K), and a few megabytes beside the scores.

    Example:
        >>> import torch
        >>> predictive_variance(torch.tensor([[1.0, 3.0], [2.0, 2.0]]))
        tensor([1., 0.])
    """
    check_tensors(mc_values=mc_values)
    if mc_values.ndim < 2:
        raise ValueError(
            f"`mc_values` has shape {tuple(mc_values.shape)}; needed is (N, K) or (N, K, ...), the K "
            "predictions of a sample in the second axis. Stack the passes with `torch.stack(values, dim=1)`."
        )
    _enough_passes(mc_values, "mc_values", "predictive_variance")
    return refuse_nan(by_rows(_variance, mc_values.movedim(1, -1)), "mc_values")


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
        return refuse_nan(_ballot(as_float(_passes(mc_probs))), "mc_probs")


def _scored(score: Callable[[Tensor], Tensor], mc_probs: Tensor, *, compares: str = "") -> Tensor:
    scores = by_rows(score, _passes(mc_probs, compares), axes=2)
    return refuse_nan(scores, "mc_probs").clamp_min_(0)


def _passes(mc_probs: Tensor, compares: str = "") -> Tensor:
    """`(N, ..., K, C)`, checked; `compares` names the score for which one pass is not enough."""
    check_tensors(mc_probs=mc_probs)
    shape = tuple(mc_probs.shape)
    if mc_probs.ndim < 3:
        raise ValueError(
            f"`mc_probs` has shape {shape}; needed is (N, K, C), the K passes over a sample in the second "
            "axis. Stack them with `torch.stack(passes, dim=1)`; for one pass see `entropy` and `margin`."
        )
    if shape[-1] < 2:
        raise ValueError(
            f"`mc_probs` has shape {shape}, with {shape[-1]} classes; needed are at least two to disagree "
            "about. Write a single-logit head's probability p as the pair [1 - p, p]."
        )
    _enough_passes(mc_probs, "mc_probs", compares)
    return checked(mc_probs.movedim(1, -2), "mc_probs")


def _enough_passes(passes: Tensor, name: str, compares: str) -> None:
    if passes.shape[1] < (2 if compares else 1):
        need = f"`{compares}` compares at least two" if compares else "needed is at least one"
        raise ValueError(
            f"`{name}` has shape {tuple(passes.shape)}, {passes.shape[1]} pass over each sample; {need}. "
            "Make more of them with `MCDropout` or a `Committee`; the second axis is theirs."
        )


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


def _bald(probs: Tensor) -> Tensor:
    # In this order the logarithms hide the time that the first reading of the passes takes.
    expected = by_rows(shannon, probs).mean(-1)
    return _information(shannon(probs.mean(-2)), expected)


def _information(total: Tensor, expected: Tensor) -> Tensor:
    return (total - expected).clamp_min_(0)


def _consensus_kl(probs: Tensor) -> Tensor:
    mean = probs.mean(-2, keepdim=True).clamp_min_(torch.finfo(probs.dtype).tiny)
    # Rows may be larger than a piece: many passes over very many classes.
    some = max(1, piece_size(probs) // mean.numel())
    parts = [_divergence(part, mean) for part in torch.split(probs, some, dim=-2)]
    return torch.cat(parts, dim=-1).mean(-1)


def _divergence(probs: Tensor, mean: Tensor) -> Tensor:
    ratio = (probs / mean).clamp_min_(torch.finfo(probs.dtype).tiny)
    return dot_(log2(ratio, out=ratio), probs).mul_(math.log(2))


def _mean_std(probs: Tensor) -> Tensor:
    return by_rows(_variance, probs.transpose(-1, -2)).sqrt_().mean(-1)


def _variance(values: Tensor) -> Tensor:
    # Not mean of squares less square of mean: that is the difference of two large numbers.
    return (values - values.mean(-1, keepdim=True)).square_().mean(-1)

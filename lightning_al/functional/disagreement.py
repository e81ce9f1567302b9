"""3 SCORES: how much do several passes, or several models, disagree about each pool sample?

    probabilities of K passes or members -> [disagreement] -> selection

`mc_probs` is `(N, K, C)`, the class axis last, or dense `(N, K, ..., C)` with scores `(N, ...)`; higher =
more informative, always. Scores of votes alone are in `votes.py`. A function whose name ends in `_from` finds
the same score from sums over the passes, for those who do not keep the passes, and raises `ValueError` where
these do not fit. To add one: write the function, its slow definition in `tests/reference/disagreement.py`,
its class in `acquisition/`.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from lightning_al.functional.passes import check_enough, scored_passes
from lightning_al.functional.rows import (
    as_float,
    by_rows,
    check_tensors,
    dot_,
    log2,
    piece_size,
    refuse_nan,
)
from lightning_al.functional.scores import entropy, shannon

__all__ = [
    "bald",
    "bald_from",
    "consensus_kl",
    "mean_std",
    "mean_std_from",
    "predictive_variance",
]


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
    return scored_passes(_mean_std, mc_probs, compares="mean_std")


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
    return scored_passes(_bald, mc_probs, compares="bald")


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
    return scored_passes(_consensus_kl, mc_probs, compares="consensus_kl")


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
    check_enough(mc_values, "mc_values", "predictive_variance")
    return refuse_nan(by_rows(_variance, mc_values.movedim(1, -1)), "mc_values")


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

"""3 SCORES: how informative is each pool sample on its own?

    probabilities or embeddings -> [scores] -> selection

Pure functions on tensors, the class axis last; higher = more informative, always. What several
passes or models say of a sample is scored in `disagreement.py`. To add one: write the function, its
slow definition in `tests/reference/`, its class in `acquisition/`.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from lightning_al.functional.arithmetic import exact_arithmetic
from lightning_al.functional.rows import (
    as_float,
    by_numpy,
    by_rows,
    check_tensors,
    checked,
    dot_,
    log2,
    refuse_nan,
)

__all__ = ["entropy", "hyperplane_distance", "least_confidence", "margin", "shannon", "top_two"]

_NEAR_PAIRS = 1000
# Below so many classes `top_two` goes through them one by one; above, it first looks at the best of each
# of so many groups.
_FEW_CLASSES, _GROUPS = 32, 64
_LOOKED_AT = 16  # `shannon` looks for zeros in every so many-th row


def entropy(probs: Tensor, base: float | None = None) -> Tensor:
    """Shannon entropy of the predicted class distribution.

    High where the probability is spread over many classes, zero where one class has it all. Between
    0 and log(C); in nats, or in units of `base` (2: bits).

    Args:
        probs: Class probabilities `(..., C)`; each row sums to one.
        base: Base of the logarithm; `None` is e.

    Returns:
        Scores `(...)`; higher = more informative.

    Raises:
        ValueError: If the rows are not probabilities, or one is NaN.

    References:
        Shannon, "A Mathematical Theory of Communication", 1948, section 6. As a query rule: Settles,
        "Active Learning Literature Survey", 2009, section 3.1. Cost: O(N C), and a few megabytes
        beside the scores.

    Example:
        >>> import torch
        >>> entropy(torch.tensor([[0.5, 0.5], [1.0, 0.0]]), base=2)
        tensor([1., 0.])
    """
    if base is not None and (base <= 0 or base == 1):
        raise ValueError(f"`base` is {base}, but a logarithm needs one above 0 and other than 1.")
    nats = refuse_nan(by_rows(shannon, checked(probs)), "probs").clamp_min_(0)
    return nats if base is None else nats / math.log(base)


def least_confidence(probs: Tensor) -> Tensor:
    """One minus the probability of the most probable class.

    High where even the best guess is unlikely. Between 0 and 1 - 1/C.

    Args:
        probs: Class probabilities `(..., C)`; each row sums to one.

    Returns:
        Scores `(...)`; higher = more informative.

    Raises:
        ValueError: If the rows are not probabilities, or one is NaN.

    References:
        Lewis & Gale, "A Sequential Algorithm for Training Text Classifiers", 1994. Cost: O(N C).

    Example:
        >>> import torch
        >>> least_confidence(torch.tensor([[0.5, 0.5], [1.0, 0.0]]))
        tensor([0.5000, 0.0000])
    """
    best = by_rows(lambda rows: rows.amax(-1), checked(probs))
    return (1 - refuse_nan(best, "probs")).clamp_min_(0)


def margin(probs: Tensor) -> Tensor:
    """One minus the gap between the two most probable classes.

    High where two classes compete for the sample, whatever the rest get. Between 0 and 1.

    Args:
        probs: Class probabilities `(..., C)` with C > 1; each row sums to one.

    Returns:
        Scores `(...)`; higher = more informative.

    Raises:
        ValueError: If the rows are not probabilities, or of one class only, or one is NaN.

    References:
        Scheffer, Decomain & Wrobel, "Active Hidden Markov Models for Information Extraction", 2001
        (there the gap itself, to be minimised). Cost: O(N C), and a few megabytes beside the scores.

    Example:
        >>> import torch
        >>> margin(torch.tensor([[0.5, 0.5, 0.0], [0.75, 0.25, 0.0]]))
        tensor([1.0000, 0.5000])
    """
    check_tensors(probs=probs)
    if probs.ndim and probs.shape[-1] == 1:
        raise ValueError(
            f"`probs` has shape {tuple(probs.shape)}, one class; a margin needs at least two. "
            "Write a single-logit head's probability p as the pair [1 - p, p]."
        )
    gap = by_rows(lambda rows: torch.sub(*top_two(rows)), checked(probs))
    return (1 - refuse_nan(gap, "probs")).clamp_min_(0)


@exact_arithmetic()  # rows near a boundary are told apart by differences of large numbers
def hyperplane_distance(embeddings: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Minus the distance of an embedding to the nearest decision boundary of a linear classifier.

    High (near 0) for samples that a small move in feature space would give to another class, very
    negative for those deep inside their class; never above 0. With predicted class y the distance is
    `min_{c != y} ((w_y - w_c) h + b_y - b_c) / |w_y - w_c|`; for one output, `|w h + b| / |w|`. A
    class whose boundary with y does not exist (equal weights, lower bias) is left out; where no
    boundary exists at all the score is -inf.

    Args:
        embeddings: Inputs of the linear layer, `(N, D)`.
        weight: Its weight, `(C, D)`; C = 1 is a two-class head with one logit.
        bias: Its bias, `(C,)`; `None` is zero.

    Returns:
        Scores `(N,)`, in units of the feature space; higher = more informative.

    Raises:
        ValueError: If the shapes do not fit together.

    References:
        Tong & Koller, "Support Vector Machine Active Learning", 2001, section 4.1 (Simple Margin; two
        classes). Cost: O(N C D), and O(P C D) for the
        P classes that are predicted at all.

    Example:
        >>> import torch
        >>> weight, bias = torch.tensor([[1.0, 0.0], [-1.0, 0.0]]), torch.zeros(2)
        >>> hyperplane_distance(torch.tensor([[3.0, 9.0], [-0.5, 0.0]]), weight, bias)
        tensor([-3.0000, -0.5000])
    """
    check_tensors(embeddings=embeddings, weight=weight)
    if embeddings.ndim != 2 or weight.ndim != 2 or embeddings.shape[1] != weight.shape[1]:
        raise ValueError(
            f"`embeddings` has shape {tuple(embeddings.shape)} and `weight` {tuple(weight.shape)}; "
            "needed are (N, D) and (C, D), one vector a sample."
        )
    embeddings = as_float(embeddings)
    weight = weight.to(embeddings.dtype)
    logits = embeddings @ weight.T
    if bias is not None:
        logits = logits + bias.to(embeddings.dtype)
    if weight.shape[0] == 1:
        distance: Tensor = logits.abs().squeeze(1)
        return -torch.where(distance == 0, 0.0, distance / weight.norm())
    best, predicted = logits.max(dim=1)
    classes, place = torch.unique(predicted, return_inverse=True)
    between = _distances(weight[classes], weight)[place].to(best.dtype)
    gaps = best[:, None] - logits
    distances = gaps / between
    # 0 / 0: two identical outputs tie everywhere, so every point lies on their boundary.
    distances = torch.where((gaps == 0) & (between == 0), 0.0, distances)
    own = torch.nn.functional.one_hot(predicted, weight.shape[0]).bool()
    return -distances.masked_fill(own, float("inf")).amin(1)


def _distances(rows: Tensor, others: Tensor) -> Tensor:
    """Distances of all pairs, in float64; pairs too near for the product form are subtracted first."""
    device = rows.device
    if device.type == "mps":  # has no float64
        rows, others = rows.cpu(), others.cpu()
    rows, others = rows.double(), others.double()
    sizes = rows.square().sum(1)[:, None] + others.square().sum(1)
    squared = sizes - 2 * rows @ others.T
    for near in torch.split((squared < 1e-6 * sizes).nonzero(), _NEAR_PAIRS):
        i, j = near.unbind(1)
        squared[i, j] = (rows[i] - others[j]).square().sum(1)
    return squared.clamp_min(0).sqrt().to(device)


def shannon(probs: Tensor) -> Tensor:
    """Entropy in nats of rows `(..., C)`, at once and unchecked; zeros count as nothing.

    Example:
        >>> shannon(torch.tensor([[0.5, 0.5, 0.0]]))
        tensor([0.6931])
    """
    tiny = torch.finfo(probs.dtype).tiny
    # Logarithms of many zeros are slow, and a look at some rows tells; a pass over all for a few is dearer
    # than doing their rows again.
    if not by_numpy(probs) or bool(probs[::_LOOKED_AT].amin() < tiny):
        return _nats(probs.clamp_min(tiny), probs)
    nats = _nats(probs, probs)
    if not math.isfinite(float(nats.sum())):
        again = ~nats.isfinite()
        rows = probs[again]
        nats[again] = _nats(rows.clamp_min(tiny), rows)
    return nats


def _nats(positive: Tensor, probs: Tensor) -> Tensor:
    logs = log2(positive, out=None if positive is probs else positive)
    return torch.rsub(dot_(logs, probs), 0, alpha=math.log(2))


def top_two(rows: Tensor) -> tuple[Tensor, Tensor]:
    """The largest and the second largest of rows `(..., C)` with C > 1, at once and unchecked.

    Exactly `topk(2)`, which spends a microsecond on every row whatever its length.

    Example:
        >>> top_two(torch.tensor([[3.0, 1.0, 3.0], [0.0, 1.0, 2.0]]))
        (tensor([3., 2.]), tensor([3., 1.]))
    """
    classes = rows.shape[-1]
    if classes < _FEW_CLASSES:
        return _top_two_in_turn(rows)
    if classes < 2 * _GROUPS:
        return _top_two_by_removal(rows.clone())
    # Class c is in group c % _GROUPS. The second best is the best of another group, or in the best's own.
    full = classes - classes % _GROUPS
    tops = torch.unflatten(rows[..., :full], -1, (-1, _GROUPS)).amax(-2)
    tail = tops[..., : classes - full]
    torch.maximum(tail, rows[..., full:], out=tail)
    group = tops.argmax(-1, keepdim=True)
    best, other = _top_two_by_removal(tops)
    members = group + torch.arange(0, classes, _GROUPS, device=rows.device)
    beyond = members >= classes
    own = rows.gather(-1, members.clamp_max_(classes - 1)).masked_fill_(beyond, -torch.inf)
    return best, torch.maximum(other, _top_two_by_removal(own)[1])


def _top_two_by_removal(rows: Tensor) -> tuple[Tensor, Tensor]:
    """Changes `rows`."""
    best, place = rows.max(-1, keepdim=True)
    rows.scatter_(-1, place, -torch.inf)
    return best.squeeze(-1), rows.amax(-1)


def _top_two_in_turn(rows: Tensor) -> tuple[Tensor, Tensor]:
    columns = rows.movedim(-1, 0).contiguous()
    first, second = torch.maximum(columns[0], columns[1]), torch.minimum(columns[0], columns[1])
    loser = torch.empty_like(first)
    for column in columns[2:]:
        torch.minimum(first, column, out=loser)
        torch.maximum(second, loser, out=second)
        torch.maximum(first, column, out=first)
    return first, second

"""RANKING: losses that are predicted in the right order, and how many are.

predicted and true losses of a batch -> [pairwise_ranking_loss] -> what trains the predictor
those of a held-out set -> [ranking_accuracy] -> how well it ranks
"""

from __future__ import annotations

from numbers import Real
from typing import Any, Literal

import torch
from torch import Generator, Tensor
from torch.nn.functional import logsigmoid, pad

__all__ = ["check_not_nan", "check_pairs", "pairwise_ranking_loss", "ranking_accuracy"]

RankingForm = Literal["hinge", "smooth"]
Pairing = Literal["flip", "random"]


def pairwise_ranking_loss(
    predicted: Tensor,
    target: Tensor,
    margin: float = 1.0,
    *,
    form: RankingForm = "hinge",
    pairing: Pairing = "flip",
    generator: Generator | None = None,
) -> Tensor:
    """How far pairs of predictions are from the order of their targets; the mean over pairs.

    Only the order is learned, so targets may shrink as training goes on. Of an odd number of samples one is
    in no pair; where no pair says anything the loss is 0, with a gradient of 0.

    Args:
        predicted: Predicted losses `(B,)`.
        target: True losses `(B,)`; no gradient flows to them.
        margin: By how much the prediction of the larger target is to be above the other one; of `"hinge"`.
        form: `"hinge"`: `max(0, margin - s (p_i - p_j))` with s = 1 if target i is the larger, -1 if j's is;
            equal targets have no order, and their pair does not count. (The usual implementation takes s = -1
            for them, which teaches whatever order the batch came in.) `"smooth"`: the divergence of
            `softmax(p_i, p_j)` from the shares `t_i / (t_i + t_j)` and `t_j / (t_i + t_j)` of the two
            targets in their sum, halves for equal ones, as in the code of its authors.
        pairing: `"flip"`: the first with the last, the second with the last but one; `"random"`: by a random
            permutation, for batches that always come in the same order.
        generator: Source of the permutation, on any device; `None`: torch's global one.

    Returns:
        The loss `()`, in float32 or better.

    Raises:
        TypeError: If the two are no tensors of real numbers.
        ValueError: If they are not one number a sample each, one is NaN, a target is negative with
            `"smooth"`, or an argument does not fit. On other devices than the CPU nobody looks at the values,
            for which the device would have to be waited for: there the loss is NaN.

    References:
        Yoo & Kweon, "Learning Loss for Active Learning", 2019, equation 2; the smooth form: Shukla & Ahmed,
        "A Mathematical Analysis of Learning Loss for Active Learning in Regression", 2021
        (arXiv:2104.09315). Cost: O(B).

    Example:
        >>> predicted = torch.tensor([0.0, 2.0, 0.5, 0.0])
        >>> pairwise_ranking_loss(predicted, torch.tensor([3.0, 4.0, 1.0, 2.0]))
        tensor(0.5000)
    """
    check_pairs(predicted, target)
    _check_arguments(margin, form, pairing)
    dtype = torch.promote_types(predicted.dtype, torch.float32)
    predicted, target = predicted.to(dtype), target.detach()
    half = len(predicted) // 2
    if not half:
        return predicted[:0].sum()
    bad = _check_values(predicted.detach(), target, form)
    first, second = _pairs(len(predicted), half, pairing, generator, predicted.device)
    gap = predicted[first] - predicted[second]
    if form == "hinge":
        found = _hinge(gap, target[first], target[second], margin)
    else:
        found = _divergence(gap, target[first], target[second]).mean()
    return found if bad is None else torch.where(bad, float("nan"), found)


def ranking_accuracy(predicted: Tensor, target: Tensor) -> Tensor:
    """The share of all pairs with different targets that the predictions put in the same order.

    1 for the right order, 0.5 for chance, 0 for the reverse; a pair of equal predictions counts half.

    Args:
        predicted: Predicted losses `(N,)`.
        target: True losses `(N,)`.

    Returns:
        The share `()` in float32; NaN if no two targets differ.

    Raises:
        TypeError: If the two are no tensors of real numbers.
        ValueError: If they are not one number a sample each, or one is NaN.

    References:
        The ranking accuracy of Yoo & Kweon, "Learning Loss for Active Learning", 2019, section 4, on all
        pairs; Kendall's tau, moved to between 0 and 1. Cost: O(N log² N).

    Example:
        >>> ranking_accuracy(torch.tensor([1.0, 3.0, 2.0]), torch.tensor([0.1, 0.2, 0.3]))
        tensor(0.6667)
    """
    check_pairs(predicted, target)
    predicted, target = predicted.detach(), target.detach()
    check_not_nan(predicted, target)
    # Sorted by target and, among equal targets, by prediction: only wrong pairs are inverted.
    order = predicted.sort(stable=True).indices
    order = order[target[order].sort(stable=True).indices]
    ranks = torch.unique(predicted[order], return_inverse=True)[1]
    groups = torch.unique_consecutive(target[order], return_inverse=True)[1]
    equal = _equal_pairs(groups)
    comparable = len(order) * (len(order) - 1) // 2 - equal
    undecided = _equal_pairs(ranks) - _equal_pairs(groups * len(order) + ranks)
    wrong = _inversions(ranks) + undecided / 2
    share = 1 - wrong / comparable if comparable else float("nan")
    return torch.tensor(share, dtype=torch.float32, device=predicted.device)


def _pairs(
    size: int, half: int, pairing: Pairing, generator: Generator | None, device: torch.device
) -> tuple[Tensor, Tensor]:
    if pairing == "flip":
        order = torch.arange(size, device=device)
        return order[:half], order.flip(0)[:half]
    place = device if generator is None else generator.device
    order = torch.randperm(size, generator=generator, device=place).to(
        device, non_blocking=place.type == "cpu"
    )
    return order[:half], order[half : 2 * half]


def _hinge(gap: Tensor, first: Tensor, second: Tensor, margin: float) -> Tensor:
    """The mean over the pairs that have an order."""
    sign = (first > second).to(gap.dtype) - (first < second).to(gap.dtype)
    decided = sign.abs()
    return (decided * (margin - sign * gap).clamp_min(0)).sum() / decided.sum().clamp_min(1)


def _divergence(gap: Tensor, first: Tensor, second: Tensor) -> Tensor:
    """KL of the predicted distribution over a pair from the targets' shares."""
    dtype = torch.promote_types(first.dtype, torch.float32)
    larger = torch.maximum(first, second).to(dtype)
    # Divided first, as two large ones have no sum; of 0 and 0, and of two infinite ones, each is as large.
    one, other = ((part.to(dtype) / larger).nan_to_num(1.0) for part in (first, second))
    share = (one / (one + other)).to(gap.dtype)
    entropy = torch.special.entr(share) + torch.special.entr(1 - share)
    divergence: Tensor = -entropy - share * logsigmoid(gap) - (1 - share) * logsigmoid(-gap)
    return divergence


def _equal_pairs(values: Tensor) -> int:
    counts = torch.unique(values, return_counts=True)[1]
    return int((counts * (counts - 1) // 2).sum())


def _inversions(ranks: Tensor) -> int:
    """Pairs in which the earlier one is larger: a merge sort, all blocks of a width at once."""
    size = 1 << max(0, (len(ranks) - 1).bit_length())
    blocks = pad(ranks, (0, size - len(ranks)), value=len(ranks)).reshape(-1, 1)
    found = 0
    while len(blocks) > 1:
        left, right = blocks[0::2].contiguous(), blocks[1::2].contiguous()
        not_larger = torch.searchsorted(left, right, right=True)
        found += int((left.shape[1] - not_larger).sum())
        blocks = torch.cat([left, right], 1).sort(1).values
    return found


def check_pairs(predicted: Any, target: Any) -> None:
    """Refuse what is not one number a sample each.

    Raises:
        TypeError: If it is no tensor of real numbers.
        ValueError: If it is not one number a sample.
    """
    for name, value in (("predicted", predicted), ("target", target)):
        if not isinstance(value, Tensor) or value.is_complex():
            given = f"of {value.dtype}" if isinstance(value, Tensor) else f"a {type(value).__name__}"
            raise TypeError(
                f"`{name}` is {given}; needed is a tensor of real numbers, one a sample. Pass "
                f"`torch.as_tensor({name})`, or the real part."
            )
    if predicted.ndim != 1 or predicted.shape != target.shape:
        raise ValueError(
            f"`predicted` has shape {tuple(predicted.shape)} and `target` {tuple(target.shape)}; needed is "
            "one number a sample in each, (B,). Reduce losses over their other axes, for instance with "
            "`.flatten(1).mean(1)`."
        )


def check_not_nan(predicted: Tensor, target: Tensor) -> None:
    """Refuse what has no place in an order.

    Raises:
        ValueError: If a prediction or a target is NaN.
    """
    if bool(target.isnan().any()):
        raise ValueError(
            "A true loss, of `target`, is NaN, which has no place in an order. Find the sample whose loss is "
            "not a number, and leave it out or mend the loss."
        )
    if bool(predicted.isnan().any()):
        raise ValueError(
            "A predicted loss, of `predicted`, is NaN, which has no place in an order. Look at the features "
            "and the weights that it comes of, and leave the sample out or mend these."
        )


def _check_arguments(margin: Any, form: Any, pairing: Any) -> None:
    if form not in ("hinge", "smooth"):
        raise ValueError(f'`form` is {form!r}; needed is "hinge" or "smooth".')
    if pairing not in ("flip", "random"):
        raise ValueError(f'`pairing` is {pairing!r}; needed is "flip" or "random".')
    if isinstance(margin, bool) or not isinstance(margin, Real) or not 0 <= float(margin) < float("inf"):
        raise ValueError(f"`margin` is {margin!r}; needed is a number, 0 or more, such as 1.0.")


def _check_values(predicted: Tensor, target: Tensor, form: RankingForm) -> Tensor | None:
    """Refuse values at once where that costs nothing; elsewhere whether there are bad ones, on the device."""
    if predicted.device.type != "cpu":
        bad = predicted.isnan() | target.isnan()
        return (bad | (target < 0) if form == "smooth" else bad).any()
    check_not_nan(predicted, target)
    if form == "smooth" and bool((target < 0).any()):
        raise ValueError(
            'A target is negative, but `form="smooth"` takes the shares of two losses in their sum. Use '
            '`form="hinge"`, which needs only their order, or a loss that is never below 0.'
        )
    return None

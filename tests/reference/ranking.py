"""Slow definitions of what learns and judges an order of losses, written from the papers."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

__all__ = ["flip_pairs", "hinge", "ranking_accuracy", "smooth"]


def flip_pairs(size: int) -> list[tuple[int, int]]:
    """The first with the last, the second with the last but one; the middle one of an odd number is left."""
    return [(i, size - 1 - i) for i in range(size // 2)]


def hinge(
    predicted: Sequence[float], target: Sequence[float], margin: float, pairs: Sequence[tuple[int, int]]
) -> float:
    """Yoo & Kweon 2019, equation 2: +1 if l_i > l_j, -1 if l_i < l_j; equal losses make no pair."""
    found = []
    for i, j in pairs:
        if target[i] != target[j]:
            sign = 1 if target[i] > target[j] else -1
            found.append(max(0.0, -sign * (predicted[i] - predicted[j]) + margin))
    return sum(found) / len(found) if found else 0.0


def smooth(predicted: Sequence[float], target: Sequence[float], pairs: Sequence[tuple[int, int]]) -> float:
    """Shukla & Ahmed 2021: KL(p || q), p the two losses over their sum, q the softmax of the predictions."""
    total = 0.0
    for i, j in pairs:
        both = target[i] + target[j]
        p = [target[i] / both, target[j] / both] if both else [0.5, 0.5]
        e = [math.exp(predicted[i]), math.exp(predicted[j])]
        q = [e[0] / sum(e), e[1] / sum(e)]
        total += sum(a * math.log(a / b) for a, b in zip(p, q, strict=True) if a > 0)
    return total / len(pairs) if pairs else 0.0


def ranking_accuracy(predicted: Sequence[float], target: Sequence[float]) -> float:
    """Of all pairs whose targets differ, the share in the right order; equal predictions count half."""
    right, count = 0.0, 0
    for i, j in itertools.combinations(range(len(target)), 2):
        if target[i] == target[j]:
            continue
        count += 1
        if predicted[i] == predicted[j]:
            right += 0.5
        else:
            right += (predicted[i] < predicted[j]) == (target[i] < target[j])
    return right / count if count else math.nan

"""Slow definitions of the scores, written from the papers: one sample, plain Python, float64."""

from __future__ import annotations

import math
from collections.abc import Sequence

__all__ = ["entropy", "hyperplane_distance", "least_confidence", "logits", "margin", "nearest_boundary"]

Row = Sequence[float]


def entropy(probs: Row, base: float | None = None) -> float:
    """Shannon 1948: minus the sum of p log p, where 0 log 0 is 0."""
    nats = -sum(p * math.log(p) for p in probs if p > 0)
    return nats if base is None else nats / math.log(base)


def least_confidence(probs: Row) -> float:
    """One minus the highest probability."""
    return 1 - max(probs)


def margin(probs: Row) -> float:
    """Scheffer 2001, turned round: one minus the difference of the two highest probabilities."""
    first, second = sorted(probs, reverse=True)[:2]
    return 1 - (first - second)


def logits(h: Row, weight: Sequence[Row], bias: Row) -> list[float]:
    """A linear layer."""
    return [sum(w * x for w, x in zip(row, h, strict=True)) + b for row, b in zip(weight, bias, strict=True)]


def nearest_boundary(h: Row, weight: Sequence[Row], bias: Row) -> tuple[float, int, int]:
    """Distance to the nearest pairwise boundary, the predicted class and the class beyond it.

    min over c != y of ((w_y - w_c) h + b_y - b_c) / |w_y - w_c|.
    """
    outputs = logits(h, weight, bias)
    y = max(range(len(outputs)), key=lambda c: outputs[c])
    found = []
    for c in range(len(outputs)):
        if c == y:
            continue
        normal = [a - b for a, b in zip(weight[y], weight[c], strict=True)]
        length = math.sqrt(sum(n * n for n in normal))
        gap = sum(n * x for n, x in zip(normal, h, strict=True)) + bias[y] - bias[c]
        found.append((gap / length, y, c))
    return min(found)


def hyperplane_distance(h: Row, weight: Sequence[Row], bias: Row) -> float:
    """Minus the distance to the nearest boundary; with one output, to where it is zero (Tong 2001)."""
    if len(weight) == 1:
        return -abs(logits(h, weight, bias)[0]) / math.sqrt(sum(w * w for w in weight[0]))
    return -nearest_boundary(h, weight, bias)[0]

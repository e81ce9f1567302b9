"""Slow definitions of the selections by score."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

__all__ = ["law_of_draws", "strengths", "top_k"]


def top_k(scores: Sequence[float], query_size: int) -> list[int]:
    """Positions by score, highest first, then by position, lowest first."""
    return sorted(range(len(scores)), key=lambda i: (-scores[i], i))[:query_size]


def strengths(scores: Sequence[float], beta: float, form: str) -> list[float]:
    """Kirsch 2021, table 2: what the draws are in proportion to."""
    if form == "power":
        return [s**beta for s in scores]
    if form == "softmax":
        return [math.exp(beta * s) for s in scores]
    ranks = {position: rank for rank, position in enumerate(top_k(scores, len(scores)), start=1)}
    return [ranks[position] ** -beta for position in range(len(scores))]


def law_of_draws(strength: Sequence[float], query_size: int) -> dict[tuple[int, ...], float]:
    """Probability of every sequence of draws without replacement, each in proportion to what is left.

    Where nothing but zeros is left, all of it is as likely.
    """
    law = {}
    for draws in itertools.permutations(range(len(strength)), query_size):
        probability, left = 1.0, list(range(len(strength)))
        for position in draws:
            total = sum(strength[i] for i in left)
            probability *= strength[position] / total if total > 0 else 1 / len(left)
            left.remove(position)
        law[draws] = probability
    return law

"""Gradient embeddings written out, and the law of D^2 sampling over them, float64."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

__all__ = ["d2_law", "gradient_embeddings", "law_of_batches"]

Array = NDArray[np.float64]


def gradient_embeddings(probs: Array, embeddings: Array, bias: bool = False) -> Array:
    """Ash 2020: blocks `(p_i - 1[y = i]) h`, where y is the predicted label; one row a sample.

    `probs` is (N, C), or of one logit a label: (N, L, 2), whose blocks are `(p_l - y_l) h` with p_l the
    probability that label l is one, or (N, 1), the probability of class one. Of equal classes the first is
    predicted.
    """
    rows = []
    for p, h in zip(np.asarray(probs, np.float64), np.asarray(embeddings, np.float64), strict=True):
        if p.ndim == 2:
            residuals = [one - float(one > zero) for zero, one in p]
        elif len(p) == 1:
            residuals = [p[0] - float(p[0] > 0.5)]
        else:
            predicted = list(p).index(max(p))
            residuals = [p_i - float(i == predicted) for i, p_i in enumerate(p)]
        inputs = np.append(h, 1.0) if bias else h
        rows.append(np.concatenate([residual * inputs for residual in residuals]))
    return np.array(rows)


def d2_law(
    vectors: Array, chosen: Sequence[int], centers: Array | None = None, first: str = "random"
) -> Array:
    """Arthur & Vassilvitskii 2007: the next pick, in proportion to the squared distance to the nearest one.

    `centers` count as chosen from the start. Before anything is, the pick is uniform, or the longest vector
    for `first="largest"`, at the lowest position of equal ones. Where all distances are zero, it is uniform
    over the rows not chosen.
    """
    if first not in ("random", "largest"):
        raise ValueError(first)
    rest = [i for i in range(len(vectors)) if i not in chosen]
    if not rest:
        raise ValueError("every row is chosen")
    vectors = np.asarray(vectors, np.float64)
    around = [vectors[i] for i in chosen] + list(np.asarray([] if centers is None else centers, np.float64))
    weights = np.zeros(len(vectors))
    if around:
        for i in rest:
            weights[i] = min(((vectors[i] - center) ** 2).sum() for center in around)
    elif first == "largest":
        norms = [(vector**2).sum() for vector in vectors]
        weights[norms.index(max(norms))] = 1.0
    if not weights.any():
        weights[rest] = 1.0
    return weights / weights.sum()


def law_of_batches(
    vectors: Array, query_size: int, first: str, centers: Array | None = None
) -> dict[tuple[int, ...], float]:
    """Probability of every sequence of different picks, those that cannot happen included."""
    law = {}
    for picks in itertools.permutations(range(len(vectors)), min(query_size, len(vectors))):
        probability = 1.0
        for already, pick in enumerate(picks):
            probability *= float(d2_law(vectors, picks[:already], centers, first)[pick])
        law[picks] = probability
    return law

"""BatchBALD by its definition: every labelling of the batch, its probability, the entropy of all of them."""

from __future__ import annotations

import itertools
import math

import numpy as np
from numpy.typing import NDArray

__all__ = ["bald", "greedy", "joint_entropy", "joint_information"]

Array = NDArray[np.float64]


def entropy(probs: Array) -> float:
    return -sum(p * math.log(p) for p in probs.ravel().tolist() if p > 0)


def joint_entropy(mc_probs: Array, batch: list[int]) -> float:
    """Kirsch 2019, equation 9: `p(y_1..n) = mean_k prod_i p(y_i | k)`, for all C**n labellings."""
    samples, classes = mc_probs.shape[1:]
    labellings = []
    for labels in itertools.product(range(classes), repeat=len(batch)):
        likelihood = np.ones(samples)
        for row, label in zip(batch, labels, strict=True):
            likelihood = likelihood * mc_probs[row, :, label]
        labellings.append(likelihood.mean())
    return entropy(np.array(labellings))


def conditional_entropy(mc_probs: Array, row: int) -> float:
    return float(np.mean([entropy(probs) for probs in mc_probs[row]]))


def joint_information(mc_probs: Array, batch: list[int]) -> float:
    """Equation 8: the joint entropy less the entropies left when the sample is known."""
    return joint_entropy(mc_probs, batch) - sum(conditional_entropy(mc_probs, row) for row in batch)


def bald(mc_probs: Array, row: int) -> float:
    return entropy(mc_probs[row].mean(0)) - conditional_entropy(mc_probs, row)


def greedy(mc_probs: Array, query_size: int, same: float = 0.0) -> tuple[list[int], list[float]]:
    """Algorithm 1; of values within `same` of the best the first row wins."""
    batch: list[int] = []
    information: list[float] = []
    while len(batch) < min(query_size, len(mc_probs)):
        rest = [row for row in range(len(mc_probs)) if row not in batch]
        values = [joint_information(mc_probs, [*batch, row]) for row in rest]
        best = max(values)
        batch.append(next(row for row, value in zip(rest, values, strict=True) if value >= best - same))
        information.append(best)
    return batch, information

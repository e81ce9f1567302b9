"""Weighted k-means and what is taken of its clusters, written out, float64."""

from __future__ import annotations

import itertools

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "assignments",
    "best_inertia",
    "diverse_mini_batch_candidates",
    "lloyd",
    "nearest_different",
    "weighted_inertia",
]

Array = NDArray[np.float64]


def doubles(*arrays: Array) -> list[Array]:
    return [np.array(array, dtype=np.float64) for array in arrays]


def assignments(points: Array, centers: Array) -> list[int]:
    """The centre nearest to every point; of centres as near, the first."""
    points, centers = doubles(points, centers)
    nearest = []
    for point in points:
        squared = [((point - center) ** 2).sum() for center in centers]
        nearest.append(squared.index(min(squared)))
    return nearest


def weighted_inertia(points: Array, weights: Array, centers: Array) -> float:
    """The sum over points of weight times squared distance to the nearest centre."""
    points, weights, centers = doubles(points, weights, centers)
    nearest = assignments(points, centers)
    return float(
        sum(w * ((x - centers[c]) ** 2).sum() for x, w, c in zip(points, weights, nearest, strict=True))
    )


def lloyd(
    points: Array, weights: Array, centers: Array, iterations: int, fixed: Array | None = None
) -> Array:
    """Each point to its nearest centre, each centre to the weighted mean of its points, and again.

    A cluster without weight keeps its centre. The `fixed` centres have points too and never move; of centres
    as near they come last. Returned are the others.
    """
    points, weights, centers = doubles(points, weights, centers)
    for _ in range(iterations):
        everyone = centers if fixed is None else np.concatenate([centers, fixed])
        nearest = assignments(points, everyone)
        for c in range(len(centers)):
            members = [i for i in range(len(points)) if nearest[i] == c]
            weight = sum(weights[i] for i in members)
            if weight > 0:
                centers[c] = sum(weights[i] * points[i] for i in members) / weight
    return centers


def nearest_different(points: Array, centers: Array) -> list[int]:
    """For each centre in turn the nearest point that no centre before it took.

    Distances equal in float32 are a tie, which goes to the lowest position: a centre half-way between two
    points is as near to both, whatever the last bit of the mean.
    """
    points, centers = doubles(points, centers)
    taken: list[int] = []
    for center in centers[: len(points)]:
        distance = np.sqrt(((points - center) ** 2).sum(1)).astype(np.float32)
        rest = [i for i in range(len(points)) if i not in taken]
        taken.append(min(rest, key=lambda i: (distance[i], i)))
    return taken


def diverse_mini_batch_candidates(weights: Array, query_size: int, beta: int) -> list[int]:
    """Zhdanov 2019, step 3: the beta * k most informative, as positions in rising order."""
    order = sorted(range(len(weights)), key=lambda i: (-weights[i], i))
    return sorted(order[: min(beta * query_size, len(weights))])


def best_inertia(points: Array, weights: Array, k: int) -> float:
    """The smallest inertia of all ways to part the points into at most k clusters."""
    points, weights = doubles(points, weights)
    best = np.inf
    for labels in itertools.product(range(k), repeat=len(points)):
        inertia = 0.0
        for c in range(k):
            members = [i for i in range(len(points)) if labels[i] == c and weights[i] > 0]
            if members:
                center = sum(weights[i] * points[i] for i in members) / sum(weights[i] for i in members)
                inertia += sum(weights[i] * ((points[i] - center) ** 2).sum() for i in members)
        best = min(best, inertia)
    return float(best)

"""Farthest-first by its definition: every distance at every pick, as a direct difference, float64."""

from __future__ import annotations

import itertools
import math

import numpy as np
from numpy.typing import NDArray

__all__ = ["best_radius", "covering_radius", "distances", "k_center_greedy", "unit_rows"]

Array = NDArray[np.float64]


def unit_rows(rows: Array) -> Array:
    """Rows of length one; a row of zeros has no direction and stays."""
    lengths = np.sqrt((rows**2).sum(1, keepdims=True))
    return rows / np.where(lengths > 0, lengths, 1.0)


def distances(rows: Array, center: Array, metric: str = "euclidean") -> Array:
    """Of every row to one centre; for "cosine" both are unit rows, and |a - b|^2 / 2 = 1 - cos."""
    squared = ((rows - center) ** 2).sum(1)
    return np.sqrt(squared) if metric == "euclidean" else squared / 2


def prepared(rows: Array | None, metric: str) -> Array | None:
    if metric not in ("euclidean", "cosine"):
        raise ValueError(metric)
    if rows is None or len(rows) == 0:
        return None
    rows = np.asarray(rows, dtype=np.float64)
    return unit_rows(rows) if metric == "cosine" else rows


def rounded(values: Array) -> NDArray[np.float32]:
    """What is equal in float32 is a tie; beyond its range everything is as far."""
    with np.errstate(over="ignore"):
        return values.astype(np.float32)


def k_center_greedy(
    embeddings: Array, query_size: int, labeled: Array | None = None, metric: str = "euclidean"
) -> tuple[list[int], list[float]]:
    """Sener & Savarese 2018, algorithm 1: `u = argmax over i not in s of min over j in s of d(i, j)`.

    Of rows as far the one at the lowest position is taken. Where nothing is labelled, the first pick is the
    row nearest to the mean, and infinitely far from what was chosen before it.
    """
    pool, centers = prepared(embeddings, metric), prepared(labeled, metric)
    if pool is None:
        return [], []
    picked: list[int] = []
    at_pick: list[float] = []
    nearest = np.full(len(pool), np.inf, dtype=np.float32)
    for center in [] if centers is None else centers:
        nearest = np.minimum(nearest, rounded(distances(pool, center, metric)))
    while len(picked) < min(query_size, len(pool)):
        rest = [i for i in range(len(pool)) if i not in picked]
        if centers is None and not picked:
            to_mean = rounded(distances(pool, pool.mean(0), metric))
            best = min(rest, key=lambda i: (to_mean[i], i))
        else:
            best = max(rest, key=lambda i: (nearest[i], -i))
        picked.append(best)
        at_pick.append(float(nearest[best]))
        nearest = np.minimum(nearest, rounded(distances(pool, pool[best], metric)))
    return picked, at_pick


def covering_radius(embeddings: Array, centers: Array | None, metric: str = "euclidean") -> float:
    """The largest distance of a row to its nearest centre; infinite without centres, zero without rows."""
    rows, around = prepared(embeddings, metric), prepared(centers, metric)
    if rows is None:
        return 0.0
    if around is None:
        return math.inf
    return max(min(distances(around, row, metric).tolist()) for row in rows)


def best_radius(
    embeddings: Array, query_size: int, labeled: Array | None = None, metric: str = "euclidean"
) -> float:
    """The smallest covering radius of all choices of `query_size` rows beside the labelled ones."""
    pool = np.asarray(embeddings, dtype=np.float64)
    known = pool[:0] if labeled is None else np.asarray(labeled, dtype=np.float64).reshape(-1, pool.shape[1])
    return min(
        covering_radius(pool, np.concatenate([known, pool[list(subset)]]), metric)
        for subset in itertools.combinations(range(len(pool)), min(query_size, len(pool)))
    )

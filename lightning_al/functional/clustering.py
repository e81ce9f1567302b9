"""4 SELECTION by clusters: which of the most informative rows stand for all of them?

    embeddings, weights -> the heaviest rows -> [weighted k-means] -> one row a cluster

Everything that decides is exact, in `seeding` and `lloyd`. So the clusters are the same for any number of
threads and processes, backend and device.
"""

from __future__ import annotations

import math
from typing import Any, Literal, NamedTuple, overload

import numpy as np
import torch
from torch import Generator, Tensor

from lightning_al.functional.arithmetic import exact_arithmetic
from lightning_al.functional.features import comparable
from lightning_al.functional.lloyd import Lloyd
from lightning_al.functional.matrices import check_matrix, check_width, refuse_rows
from lightning_al.functional.rows import (
    check_choice,
    check_count,
    check_generator,
    check_real,
    check_selection,
    check_tensors,
    shard_of,
)
from lightning_al.functional.seeding import greedy_seeds
from lightning_al.functional.selection import top_k
from lightning_al.functional.shard import Shard
from lightning_al.functional.vectors import Backend, Vectors

__all__ = ["Clusters", "check_beta", "diverse_mini_batch", "weighted_kmeans"]

_ITERATIONS = 100
_LEAST_WEIGHT = 2.0**-30  # of the largest: a point without weight has a cluster too


class Clusters(NamedTuple):
    """What `weighted_kmeans` found."""

    centers: Tensor
    """Weighted means of the clusters, `(k, D)`; fewer if fewer than `k` points differ."""
    assignments: Tensor
    """The centre nearest to each point, `(n,)`; from `len(centers)` on they are fixed ones."""
    inertia: float
    """Sum of weight times squared distance to that centre."""


@exact_arithmetic()
def weighted_kmeans(
    points: Tensor,
    k: int,
    weights: Tensor | None = None,
    *,
    fixed: Tensor | None = None,
    iterations: int = _ITERATIONS,
    backend: Backend = "auto",
    generator: Generator | None = None,
) -> Clusters:
    """Weighted k-means: Lloyd's algorithm after greedy k-means++, until nothing changes.

    A cluster that loses its last point moves to the point that costs most where it is.

    Args:
        points: Vectors, `(n, D)`.
        k: How many centres.
        weights: What each point counts, `(n,)`, not negative; weights below 2^-30 of the largest count as
            that. `None`: all the same.
        fixed: Centres that have points and never move, `(m, D)`; they come beside the `k`.
        iterations: When to end at the latest.
        backend: What makes the distances on a CPU: `"faiss"`, `"torch"`, or what was found the faster; the
            clusters are the same.
        generator: Source of randomness; `None`: torch's global one.

    Returns:
        Centres, the centre of each point, and the inertia.

    Raises:
        TypeError: If a tensor is none, or not of floating-point numbers.
        ValueError: If shapes do not fit, or a number is not finite, or a weight negative.

    References:
        Arthur & Vassilvitskii, "k-means++: The Advantages of Careful Seeding", 2007, with the choice among
        several draws at each step; Lloyd, "Least squares quantization in PCM", 1982.
        Time O(n k D) an iteration, less where few centres still move; memory O(n D).

    Example:
        >>> import torch
        >>> points = torch.tensor([[0.0], [1.0], [9.0], [11.0]])
        >>> found = weighted_kmeans(points, 2, torch.tensor([1.0, 1.0, 3.0, 1.0]))
        >>> found.centers.sort(0).values.squeeze(1), found.inertia
        (tensor([0.5000, 9.5000]), 3.5)
    """
    check_count(k=k, iterations=iterations)
    check_generator(generator)
    check_matrix(points, "points")
    weights = torch.ones(len(points), dtype=torch.float64) if weights is None else weights
    _check_weights(weights, Shard.whole(len(points)))
    rows, others, scale = comparable(points, fixed, ("points", "fixed"), backend)
    counts = _positive(weights).to(points.device)
    found = _cluster(rows, counts, k, others, iterations, generator)
    unit = float(weights.max()) if bool(weights.any()) else 1.0
    centers = (found.centers / scale).to(torch.promote_types(points.dtype, torch.float32))
    return Clusters(centers, found.places, math.fsum(found.costs().tolist()) * unit / scale**2)


@overload
def diverse_mini_batch(
    embeddings: Tensor,
    weights: Tensor,
    query_size: int,
    *,
    beta: float = ...,
    labeled: Tensor | None = ...,
    scale_features: bool = ...,
    backend: Backend = ...,
    generator: Generator | None = ...,
    shard: Shard | None = ...,
    return_scores: Literal[False] = ...,
) -> Tensor: ...
@overload
def diverse_mini_batch(
    embeddings: Tensor,
    weights: Tensor,
    query_size: int,
    *,
    beta: float = ...,
    labeled: Tensor | None = ...,
    scale_features: bool = ...,
    backend: Backend = ...,
    generator: Generator | None = ...,
    shard: Shard | None = ...,
    return_scores: Literal[True],
) -> tuple[Tensor, Tensor]: ...
@exact_arithmetic()
def diverse_mini_batch(
    embeddings: Tensor,
    weights: Tensor,
    query_size: int,
    *,
    beta: float = 10,
    labeled: Tensor | None = None,
    scale_features: bool = False,
    backend: Backend = "auto",
    generator: Generator | None = None,
    shard: Shard | None = None,
    return_scores: bool = False,
) -> Tensor | tuple[Tensor, Tensor]:
    """One row of each of `query_size` clusters of the most informative rows.

    The `beta * query_size` heaviest rows are clustered by weighted k-means, and the row nearest to each
    centre is taken that no centre before it took. Of copies one is taken, while there are other rows.

    Args:
        embeddings: Vectors of the rows held here, `(n, D)`; only those of the heaviest are read.
        weights: How informative each row is, `(n,)`, not negative. All zero: all count the same. Ties at
            the `beta * query_size`-th go to the lowest position.
        query_size: How many to choose; with fewer rows than that, all are chosen.
        beta: How many rows are clustered for each one chosen, 1 or more; the more, the less informative.
        labeled: Vectors of labelled rows, `(m, D)`, all of them on every rank: centres that stay where they
            are, so that what is near them is not chosen.
        scale_features: Subtract the mean of each feature and divide by its standard deviation, over the
            clustered rows, so that no feature counts for its unit; labelled ones likewise.
        backend: What makes the distances on a CPU: `"faiss"`, `"torch"`, or what was found the faster; the
            rows chosen are the same.
        generator: Source of randomness, in the same state on every rank; `None`: torch's global one.
        shard: Which rows of the pool are held here; `None`: all of it.
        return_scores: Also return the weights of the chosen.

    Returns:
        Global positions `(min(query_size, N),)`, the same on every rank, heaviest first (ties: lowest
        position), and on request their weights.

    Raises:
        TypeError: If a tensor is none, or embeddings are not of floating-point numbers.
        ValueError: If shapes do not fit, or a number is not finite, or a weight negative.

    References:
        Zhdanov, "Diverse mini-batch Active Learning", 2019 (arXiv:1901.05954), section 3. Time of
        `weighted_kmeans` on `beta * query_size` rows, which every rank gets and keeps in memory.

    Example:
        >>> import torch
        >>> embeddings = torch.tensor([[0.0], [0.1], [5.0], [5.1], [9.0]])
        >>> diverse_mini_batch(embeddings, torch.tensor([0.9, 0.8, 0.7, 0.7, 0.1]), 2, beta=2)
        tensor([0, 2])
    """
    check_selection(query_size, generator, shard)
    check_tensors(embeddings=embeddings, weights=weights)
    shard = shard_of(embeddings, shard)
    with shard.together():
        check_beta(beta)
        check_choice(Backend, backend=backend)
        check_matrix(embeddings, "embeddings")
        shard.check(len(embeddings), "embeddings")
        _check_weights(weights, shard)
        if labeled is not None:
            check_matrix(labeled, "labeled")
            check_width(labeled.shape[1], embeddings.shape[1], ("labeled", "embeddings"))
    count = max(query_size, math.ceil(beta * query_size))
    positions, weights = top_k(weights.detach(), count, shard=shard, return_scores=True)
    place = positions.argsort()
    # Also where all are chosen, as in a last round: what is wrong shows in every round.
    candidates = _rows_at(embeddings, positions[place], shard)
    rows, others, _ = comparable(candidates, labeled, ("embeddings", "labeled"), backend, scale_features)
    if len(positions) > query_size:
        positions, weights = positions[place], weights[place]
        counts = _positive(weights).to(rows.device)
        found = _cluster(rows, counts, query_size, others, _ITERATIONS, generator)
        chosen = found.nearest_points(query_size).sort().values.to(positions.device)
        chosen = chosen[weights[chosen].sort(descending=True, stable=True).indices]
        positions, weights = positions[chosen], weights[chosen]
    return (positions, weights) if return_scores else positions


# ---------------------------------------------------------------------- what is given


def check_beta(beta: Any) -> None:
    """Refuse what is no number from 1 on."""
    number = isinstance(beta, int | float | np.integer | np.floating) and not isinstance(beta, bool)
    if not number or not 1 <= beta < math.inf:
        raise ValueError(
            f"`beta` is {beta!r}; needed is a number from 1 on: how many are clustered for each one chosen. "
            "Pass one such as 10."
        )


def _check_weights(weights: Tensor, shard: Shard) -> None:
    check_tensors(weights=weights)
    check_real(weights=weights)
    if weights.shape != shard.positions.shape:
        raise ValueError(
            f"`weights` has shape {tuple(weights.shape)}; needed is one number for each of "
            f"{len(shard.positions)} rows. Reduce dense scores over their other axes first."
        )
    wrong = ~((weights >= 0) & (weights < math.inf))
    if bool(wrong.any()):
        raise ValueError(
            f"`weights` is negative, NaN or infinite {shard.named(wrong)}; needed are finite numbers from "
            "0 on. Shift or turn scores round so that 0 is the least informative, as in `1 - margin`."
        )


def _positive(weights: Tensor) -> Tensor:
    """In float64, the largest 1, none 0."""
    weights = weights.double()
    largest = float(weights.max()) if len(weights) else 0.0
    return torch.ones_like(weights) if largest == 0 else (weights / largest).clamp_min(_LEAST_WEIGHT)


def _rows_at(embeddings: Tensor, positions: Tensor, shard: Shard) -> Tensor:
    """Rows of the pool, wherever they are, in the order of their ascending positions."""
    places = positions.to(shard.positions.device)
    here = torch.isin(shard.positions, places, assume_unique=True).nonzero().squeeze(1)
    rows = embeddings.detach().index_select(0, here.to(embeddings.device))
    mine = shard.of_rows(here)
    with shard.together():
        wrong = ~rows.isfinite().all(1)
        if bool(wrong.any()):
            refuse_rows(wrong, slice(None), "embeddings", mine, "NaN or infinite")
    if shard.world_size == 1:
        return rows
    rows = rows.float() if rows.dtype == torch.bfloat16 else rows  # which not every backend gathers
    order = shard.gather(mine.positions).argsort()
    return shard.gather(rows)[order.to(rows.device)]


# ---------------------------------------------------------------------- clusters


def _cluster(
    points: Vectors,
    weights: Tensor,
    k: int,
    fixed: Vectors | None,
    iterations: int,
    generator: Generator | None,
) -> Lloyd:
    seeds = greedy_seeds(points, weights, k, fixed, generator)
    found = Lloyd(points, weights, points.factors[0][seeds].double(), fixed)
    found.run(iterations)
    return found

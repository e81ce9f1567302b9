"""4 SELECTION by distance: rows that leave no other far from a labelled or chosen one.

    embeddings, labelled embeddings -> [farthest first] -> global positions

How it is found without looking at most distances is told in `farthest`.
"""

from __future__ import annotations

from typing import Literal, overload

import torch
from torch import Generator, Tensor

from lightning_al.functional.arithmetic import exact_arithmetic
from lightning_al.functional.farthest import FarthestFirst
from lightning_al.functional.front import Centers
from lightning_al.functional.rows import check_selection, check_shard
from lightning_al.functional.shard import Shard
from lightning_al.functional.vectors import Backend, Metric, Vectors

__all__ = ["covering_radius", "k_center_greedy"]


@overload
def k_center_greedy(
    embeddings: Tensor | Vectors,
    query_size: int,
    labeled: Tensor | None = ...,
    *,
    metric: Metric = ...,
    backend: Backend = ...,
    generator: Generator | None = ...,
    shard: Shard | None = ...,
    return_scores: Literal[False] = ...,
) -> Tensor: ...
@overload
def k_center_greedy(
    embeddings: Tensor | Vectors,
    query_size: int,
    labeled: Tensor | None = ...,
    *,
    metric: Metric = ...,
    backend: Backend = ...,
    generator: Generator | None = ...,
    shard: Shard | None = ...,
    return_scores: Literal[True],
) -> tuple[Tensor, Tensor]: ...
@exact_arithmetic()
def k_center_greedy(
    embeddings: Tensor | Vectors,
    query_size: int,
    labeled: Tensor | None = None,
    *,
    metric: Metric = "euclidean",
    backend: Backend = "auto",
    generator: Generator | None = None,
    shard: Shard | None = None,
    return_scores: bool = False,
) -> Tensor | tuple[Tensor, Tensor]:
    """Farthest first: each pick is the row farthest from all that is labelled or was picked before.

    The covering radius of the result, the largest distance of a row to its nearest centre, is at most twice
    that of the best choice of as many rows. Outliers come first.

    Distances are made in float64 and those that are equal in float32 are equal; of these the row of the
    lowest position is picked. With nothing labelled the first pick is the row nearest to the mean of the
    pool (for cosine: of its rows divided by their lengths), which is infinitely far from what is before it.
    Copies are picked when nothing else is left, but no row twice.

    Args:
        embeddings: Rows held here, `(n, D)`, of any floating-point type; also over a memory-mapped file. Or
            `Vectors`, which know their metric and backend.
        query_size: How many to pick; with fewer rows than that, all are picked.
        labeled: The centres there are, `(L, D)`, all of them on every rank; `None` or no rows: none.
        metric: `"euclidean"`, or `"cosine"` for one minus the cosine.
        backend: `"torch"`, `"faiss"` (on a CPU), or what is the faster; the picks are the same.
        generator: Not used: nothing here is random.
        shard: Which rows of the pool are held here; `None`: all of it.
        return_scores: Also return the distance of each at its pick.

    Returns:
        Global positions `(min(query_size, N),)` in the order picked, the same on every rank, and on request
        the distances, in float32. They do not increase.

    Raises:
        TypeError: If the embeddings are no floating-point tensors.
        ValueError: If shapes do not fit, or a row is not finite or, for cosine, zero (named).

    References:
        Sener & Savarese, "Active Learning for Convolutional Neural Networks: A Core-Set Approach", 2018
        (arXiv:1708.00489), algorithm 1; Gonzalez, "Clustering to minimize the maximum intercluster
        distance", 1985. Cost: at most O(N (L + query_size) D) in large matrix products, of which usually a
        tenth is made; more where most distances are equal but for rounding, as among copies. Memory
        O(N + query_size D), beside the rows given.

    Example:
        >>> import torch
        >>> k_center_greedy(torch.tensor([[1.0], [4.0], [9.0], [10.0]]), 3, labeled=torch.tensor([[0.0]]))
        tensor([3, 1, 0])
    """
    check_selection(query_size, generator, shard)
    pool, labeled_rows, shard = _checked(embeddings, labeled, "labeled", metric, backend, shard)
    wanted = min(query_size, shard.total)
    search = FarthestFirst(pool, shard, Centers(pool, labeled_rows, wanted), return_scores)
    search.until(wanted)
    positions = torch.tensor(search.picked, dtype=torch.long, device=pool.device)
    if not return_scores:
        return positions
    scores = torch.tensor(search.distances, dtype=torch.float64) / _unscaled(pool)
    return positions, scores.float().to(pool.device)


@exact_arithmetic()
def covering_radius(
    embeddings: Tensor | Vectors,
    centers: Tensor | None,
    *,
    metric: Metric = "euclidean",
    backend: Backend = "auto",
    shard: Shard | None = None,
) -> float:
    """The largest distance of a row to its nearest centre: what `k_center_greedy` makes small.

    Args:
        embeddings: Rows held here, `(n, D)`, of any floating-point type; also over a memory-mapped file. Or
            `Vectors`, which know their metric and backend.
        centers: Labelled and chosen rows, `(L, D)`, all of them on every rank.
        metric: `"euclidean"`, or `"cosine"` for one minus the cosine.
        backend: As in `k_center_greedy`.
        shard: Which rows of the pool are held here; `None`: all of it.

    Returns:
        The same on every rank: infinity without centres, 0 without rows.

    Raises:
        TypeError: If the embeddings are no floating-point tensors.
        ValueError: If shapes do not fit, or a row is not finite or, for cosine, zero (named).

    References:
        Sener & Savarese, 2018 (arXiv:1708.00489), eq. 3. Cost: as for one pick.

    Example:
        >>> import torch
        >>> covering_radius(torch.tensor([[1.0], [4.0], [9.0]]), torch.tensor([[0.0], [10.0]]))
        4.0
    """
    check_shard(shard)
    pool, rows, shard = _checked(embeddings, centers, "centers", metric, backend, shard)
    if shard.total == 0:
        return 0.0
    if len(rows) == 0:
        return float("inf")
    search = FarthestFirst(pool, shard, Centers(pool, rows, 1), True)
    search.until(1)
    return search.distances[0] / _unscaled(pool)


def _checked(
    embeddings: Tensor | Vectors,
    labeled: Tensor | None,
    name: str,
    metric: Metric,
    backend: Backend,
    shard: Shard | None,
) -> tuple[Vectors, Vectors, Shard]:
    """The pool and the labelled rows, comparable."""
    pool = embeddings
    if not isinstance(pool, Vectors):
        pool = Vectors.of_embeddings(pool, metric=metric, backend=backend, shard=shard)
    shard = Shard.whole(len(pool)) if shard is None else shard
    shard.check(len(pool), "embeddings")
    return *pool.beside(labeled, name), shard


def _unscaled(pool: Vectors) -> float:
    """What distances are divided by, so that they are those of the rows as given."""
    return 1.0 if pool.unit else pool.scale

"""4 SELECTION by D^2 sampling: a batch of rows far from each other, drawn at random.

    vectors, or probabilities and embeddings -> [draws] -> global positions

A row is drawn with a probability in proportion to its squared distance to the nearest row drawn before it:
exactly so, in `rejection`, though most distances are never brought up to date.
"""

from __future__ import annotations

from typing import Literal, overload

from torch import Generator, Tensor

from lightning_al.functional.arithmetic import exact_arithmetic
from lightning_al.functional.gradients import Gradients
from lightning_al.functional.rejection import Draw, First
from lightning_al.functional.rows import check_choice, check_selection, check_tensors, shard_of
from lightning_al.functional.shard import Shard
from lightning_al.functional.vectors import Backend, Metric, Vectors

__all__ = ["badge", "kmeans_plus_plus"]


@overload
def badge(
    probs: Tensor,
    embeddings: Tensor,
    query_size: int,
    *,
    first: First = ...,
    bias: bool = ...,
    generator: Generator | None = ...,
    shard: Shard | None = ...,
    return_scores: Literal[False] = ...,
) -> Tensor: ...
@overload
def badge(
    probs: Tensor,
    embeddings: Tensor,
    query_size: int,
    *,
    first: First = ...,
    bias: bool = ...,
    generator: Generator | None = ...,
    shard: Shard | None = ...,
    return_scores: Literal[True],
) -> tuple[Tensor, Tensor]: ...
@exact_arithmetic()
def badge(
    probs: Tensor,
    embeddings: Tensor,
    query_size: int,
    *,
    first: First = "largest",
    bias: bool = False,
    generator: Generator | None = None,
    shard: Shard | None = None,
    return_scores: bool = False,
) -> Tensor | tuple[Tensor, Tensor]:
    """Rows of large and diverse gradients: D^2 sampling of what the last layer would learn from them.

    The gradient of the loss by the last layer's weights, at the label that the model predicts, is the outer
    product `(p - onehot(argmax p)) x h`. It is long where the model is unsure, and two are alike where
    embedding and prediction are. No label has a shorter one, so its length is a lower bound. The products
    are never made: `<q x h, q' x h'> = <q, q'> <h, h'>`.

    Where all that is left are copies of what was chosen (as among confident rows, whose gradient is zero),
    the draw is uniform over the rest.

    Args:
        probs: Probabilities of the rows held here. `(n, C)`; or of one logit a label, `(n, L, 2)` as pairs
            `[1 - p, p]`; or of a single logit, `(n, 1)`, the probability of class one. (The pairs `(n, 2)`
            of a single logit draw alike: their gradient is that of one column, twice.)
        embeddings: What the last layer got of these rows, `(n, D)`; also over a memory-mapped file.
        query_size: How many to draw; with fewer rows than that, all are drawn.
        first: `"largest"` begins with the longest gradient, as the authors' code does, the lowest position
            of equal ones; `"random"` with any row.
        bias: Whether the gradient by the layer's bias counts too.
        generator: Source of randomness, on the CPU and in the same state on every rank; `None`:
            torch's global one.
        shard: Which rows of the pool are held here; `None`: all of it.
        return_scores: Also return squared distances.

    Returns:
        Global positions `(min(query_size, N),)` in the order drawn, the same on every rank, and on request
        the squared distance of each to the nearest drawn before it, float64. That of the first is its
        squared length for `first="largest"`, and infinity for `"random"`.

    Raises:
        TypeError: If a tensor is missing or `embeddings` are no floating-point numbers.
        ValueError: If shapes do not fit, `probs` are no probabilities, or a row is not finite (named).

    References:
        Ash et al., "Deep Batch Active Learning by Diverse, Uncertain Gradient Lower Bounds", 2020
        (arXiv:1906.03671), algorithm 1 and proposition 1. Cost: some passes over the embeddings, and
        O(query_size^2 (C + D)) in small steps, instead of query_size passes. Where the pool is some far
        clusters of rows that hardly differ, it comes near to these. Memory O(N + query_size (C + D)).

    Example:
        >>> import torch
        >>> probs = torch.tensor([[0.9, 0.1], [0.5, 0.5], [0.5, 0.5]])
        >>> embeddings = torch.tensor([[1.0, 0.0], [0.0, 3.0], [0.0, 3.0]])
        >>> badge(probs, embeddings, 2)  # the longest gradient, and not its copy
        tensor([1, 0])
    """
    check_selection(query_size, generator, shard)
    check_choice(First, first=first)
    check_tensors(embeddings=embeddings)
    shard = shard_of(embeddings, shard)
    gradients = Gradients.of(probs, embeddings, bias, shard)
    assert gradients.lengths is not None
    draw = Draw(gradients, gradients.lengths, shard, generator, gradients.tiny)
    if shard.total:
        draw.begin(first)
    draw.until(min(query_size, shard.total))
    return draw.result(gradients.gain, return_scores)


@overload
def kmeans_plus_plus(
    embeddings: Tensor | Vectors,
    query_size: int,
    centers: Tensor | None = ...,
    *,
    metric: Metric = ...,
    backend: Backend = ...,
    generator: Generator | None = ...,
    shard: Shard | None = ...,
    return_scores: Literal[False] = ...,
) -> Tensor: ...
@overload
def kmeans_plus_plus(
    embeddings: Tensor | Vectors,
    query_size: int,
    centers: Tensor | None = ...,
    *,
    metric: Metric = ...,
    backend: Backend = ...,
    generator: Generator | None = ...,
    shard: Shard | None = ...,
    return_scores: Literal[True],
) -> tuple[Tensor, Tensor]: ...
@exact_arithmetic()
def kmeans_plus_plus(
    embeddings: Tensor | Vectors,
    query_size: int,
    centers: Tensor | None = None,
    *,
    metric: Metric = "euclidean",
    backend: Backend = "auto",
    generator: Generator | None = None,
    shard: Shard | None = None,
    return_scores: bool = False,
) -> Tensor | tuple[Tensor, Tensor]:
    """Rows drawn in proportion to the squared distance to the nearest one drawn before.

    The seeding of k-means++: the first row is any, and others are the likelier the farther they are. With
    `centers`, such as the labelled rows, the distance to these counts from the first draw on. Where all that
    is left are copies of what was chosen, the draw is uniform over the rest.

    Args:
        embeddings: The rows held here, `(n, D)`; also over a memory-mapped file. Or `Vectors`, which know
            their metric and backend.
        query_size: How many to draw; with fewer rows than that, all are drawn.
        centers: Vectors that count as drawn before, `(L, D)`, all of them on every rank; or `None`.
        metric: `"cosine"` for rows divided by their length: squared distances are `2 (1 - cos)`.
        backend: What makes distances on a CPU; draws are the same.
        generator: Source of randomness, on the CPU and in the same state on every rank; `None`:
            torch's global one.
        shard: Which rows of the pool are held here; `None`: all of it.
        return_scores: Also return squared distances.

    Returns:
        Global positions `(min(query_size, N),)` in the order drawn, the same on every rank, and on request
        the squared distance of each to the nearest drawn before it or given, float64; infinity for the
        first where none was given.

    Raises:
        TypeError: If a tensor holds no floating-point numbers.
        ValueError: If shapes do not fit, or a row is not finite or, for cosine, zero (named).

    References:
        Arthur & Vassilvitskii, "k-means++: the advantages of careful seeding", 2007, section 2.2. Cost:
        some passes over the embeddings, and O(query_size^2 D) in small steps; up to query_size passes where
        the pool is some far clusters of rows that hardly differ. Memory O(N + (L + query_size) D).

    Example:
        >>> import torch
        >>> rows = torch.tensor([[0.0], [0.0], [5.0]])
        >>> kmeans_plus_plus(rows, 1, centers=torch.zeros(1, 1), generator=torch.Generator())
        tensor([2])
    """
    check_selection(query_size, generator, shard)
    if isinstance(embeddings, Vectors):
        vectors = embeddings
    else:
        vectors = Vectors.of_embeddings(embeddings, metric=metric, backend=backend, shard=shard)
    shard = Shard.whole(len(vectors)) if shard is None else shard
    shard.check(len(vectors), "embeddings")
    vectors, given = vectors.beside(centers, "centers")
    draw = Draw(vectors, vectors.squares(), shard, generator)
    if len(given):
        draw.around(given)
    elif shard.total:
        draw.begin("random")
    draw.until(min(query_size, shard.total))
    return draw.result(1.0 if vectors.unit else vectors.scale, return_scores)

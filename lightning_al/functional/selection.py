"""4 SELECTION by score: which positions of the pool are asked for?

    scores of this rank + Shard -> [selection] -> global positions, the same on every rank

Ties go to the lowest position. To add a rule: give it the keywords `generator`, `shard` and
`return_scores`, and a slow definition in `tests/reference/`.
"""

from __future__ import annotations

from typing import Literal, overload

import torch
from torch import Generator, Tensor

from lightning_al.functional.rows import check_choice, check_real, check_selection, check_tensors, shard_of
from lightning_al.functional.shard import Shard
from lightning_al.functional.threads import one_thread_after_fork

__all__ = ["largest_rows", "order_of", "power_sample", "top_k"]

PowerForm = Literal["power", "softmax", "softrank"]


@overload
def top_k(
    scores: Tensor,
    query_size: int,
    *,
    generator: Generator | None = ...,
    shard: Shard | None = ...,
    return_scores: Literal[False] = ...,
) -> Tensor: ...
@overload
def top_k(
    scores: Tensor,
    query_size: int,
    *,
    generator: Generator | None = ...,
    shard: Shard | None = ...,
    return_scores: Literal[True],
) -> tuple[Tensor, Tensor]: ...
@one_thread_after_fork()
def top_k(
    scores: Tensor,
    query_size: int,
    *,
    generator: Generator | None = None,
    shard: Shard | None = None,
    return_scores: bool = False,
) -> Tensor | tuple[Tensor, Tensor]:
    """The positions of the highest scores, highest first; ties go to the lowest position.

    Args:
        scores: Scores of the rows held here, `(n,)`; higher = more informative, no NaN.
        query_size: How many to choose; with fewer rows than that, all are chosen.
        generator: Not used: nothing here is random.
        shard: Which rows of the pool are held here; `None`: all of it.
        return_scores: Also return the scores of the chosen.

    Returns:
        Global positions `(min(query_size, N),)`, the same on every rank, and on request the scores.

    Raises:
        ValueError: If `query_size` is not positive, `scores` not one number a row, or one is NaN.

    References:
        Cost: O(n) to find the best of a rank, O(query_size) numbers a rank on the wire.

    Example:
        >>> import torch
        >>> top_k(torch.tensor([0.1, 0.9, 0.9, 0.4]), 3)
        tensor([1, 2, 3])
    """
    check_selection(query_size, generator, shard)
    check_tensors(scores=scores)
    shard = shard_of(scores, shard)
    with shard.together():
        _check(scores, shard)
    rows = largest_rows(scores, query_size)
    values = shard.gather(scores[rows])
    positions = shard.gather(shard.positions.to(scores.device)[rows])
    order = order_of(values, positions)[:query_size]
    return (positions[order], values[order]) if return_scores else positions[order]


@overload
def power_sample(
    scores: Tensor,
    query_size: int,
    beta: float = ...,
    *,
    form: PowerForm = ...,
    generator: Generator | None = ...,
    shard: Shard | None = ...,
    return_scores: Literal[False] = ...,
) -> Tensor: ...
@overload
def power_sample(
    scores: Tensor,
    query_size: int,
    beta: float = ...,
    *,
    form: PowerForm = ...,
    generator: Generator | None = ...,
    shard: Shard | None = ...,
    return_scores: Literal[True],
) -> tuple[Tensor, Tensor]: ...
@one_thread_after_fork()
def power_sample(
    scores: Tensor,
    query_size: int,
    beta: float = 1.0,
    *,
    form: PowerForm = "power",
    generator: Generator | None = None,
    shard: Shard | None = None,
    return_scores: bool = False,
) -> Tensor | tuple[Tensor, Tensor]:
    """Positions drawn without replacement, the likelier the higher their score.

    The remedy for the near-copies that `top_k` takes at large query sizes, at its cost. `power` draws
    in proportion to `score ** beta` (a score of zero only when nothing else is left), `softmax` to
    `exp(beta * score)`, `softrank` to `rank ** -beta` with rank 1 for the highest score.

    Args:
        scores: Scores of the rows held here, `(n,)`; not negative for `power`.
        query_size: How many to draw; with fewer rows than that, all are drawn.
        beta: 0 draws uniformly, infinity is `top_k`.
        form: `"power"`, `"softmax"` or `"softrank"`.
        generator: Source of randomness, in the same state on every rank; `None`: torch's global one.
        shard: Which rows of the pool are held here; `None`: all of it.
        return_scores: Also return the scores of the drawn.

    Returns:
        Global positions `(min(query_size, N),)` in the order drawn, and on request their scores.

    Raises:
        ValueError: If `beta` is negative, a score is NaN, or negative where `power` needs its power.

    References:
        Kirsch et al., "Stochastic Batch Acquisition", 2021 (arXiv:2106.12059), table 2: perturbing
        log-probabilities with Gumbel noise and taking the top k. Cost: O(N log N) for `softrank`,
        which gathers all scores; else O(N).

    Example:
        >>> import torch
        >>> draw = power_sample(torch.tensor([0.0, 1.0, 1.0]), 2, generator=torch.Generator())
        >>> sorted(draw.tolist())
        [1, 2]
    """
    check_selection(query_size, generator, shard)
    check_tensors(scores=scores)
    if not beta >= 0:
        raise ValueError(f"`beta` is {beta}; it must not be negative, or low scores would win.")
    check_choice(PowerForm, form=form)
    shard = shard_of(scores, shard)
    with shard.together():
        _check(scores, shard)
        if form == "power":
            _check_not_negative(scores)
    # The noise belongs to the position, not to the rank: any rank count draws the same query.
    uniform = torch.rand(shard.total, generator=generator, dtype=torch.float64)
    exponential = -torch.log(uniform.clamp(1e-300, 1 - 1e-16))[shard.positions]
    strength = _log_weight(scores.cpu().double(), form, shard)
    if beta == torch.inf:
        keys = strength
    else:
        weight = torch.zeros_like(strength) if beta == 0 else beta * strength
        # Rows of weight zero come last, among themselves in uniform order.
        keys = torch.where(weight == -torch.inf, -1e300 * exponential, weight - exponential.log())
    positions = top_k(keys, query_size, shard=shard)
    if not return_scores:
        return positions
    return positions, _of_positions(scores, positions, shard)


def _of_positions(values: Tensor, positions: Tensor, shard: Shard) -> Tensor:
    """Values of some rows, each told by the rank that holds it."""
    which, rows = shard.held(positions)
    found = torch.empty(len(positions), dtype=values.dtype)
    found[shard.gather(which)] = shard.gather(values.cpu()[rows])
    return found


def _log_weight(scores: Tensor, form: PowerForm, shard: Shard) -> Tensor:
    if form == "softmax":
        return scores
    if form == "power":
        return scores.log()
    values, positions = shard.gather(scores), shard.gather(shard.positions)
    ranks = torch.empty(shard.total, dtype=torch.float64)
    order = positions[order_of(values, positions)]
    ranks[order] = torch.arange(1, shard.total + 1, dtype=torch.float64)
    return -ranks[shard.positions].log()


def largest_rows(values: Tensor, count: int) -> Tensor:
    """Rows of the `count` largest values, largest first; of equal ones the first. Sorts only these.

    Example:
        >>> largest_rows(torch.tensor([0.5, 0.9, 0.1, 0.9, 0.5]), 3)
        tensor([1, 3, 0])
    """
    if len(values) > count:
        rows = (values >= values.topk(count).values[-1]).nonzero().squeeze(1)
    else:
        rows = torch.arange(len(values), device=values.device)
    return rows[values[rows].sort(descending=True, stable=True).indices[:count]]


def order_of(values: Tensor, positions: Tensor, *, descending: bool = True) -> Tensor:
    """Where to find them by value, the largest or the smallest first, and of equal ones by position.

    Example:
        >>> order_of(torch.tensor([0.5, 0.9, 0.9]), torch.tensor([0, 7, 4]))
        tensor([2, 1, 0])
    """
    by_position = positions.argsort()
    return by_position[values[by_position].sort(descending=descending, stable=True).indices]


def _check_not_negative(scores: Tensor) -> None:
    if bool((scores < 0).any()):
        raise ValueError(
            f"`power_sample` got a score of {float(scores.min()):.4g}; the power of a negative "
            'score is not defined. Use `form="softrank"`, which needs only the order, or '
            '`form="softmax"`.'
        )


def _check(scores: Tensor, shard: Shard) -> None:
    if scores.ndim != 1:
        raise ValueError(
            f"`scores` has shape {tuple(scores.shape)}; needed is one number a sample, (N,). "
            "Reduce dense scores over their other axes first."
        )
    check_real(scores=scores)
    shard.check(len(scores), "scores")
    nan = scores.isnan()
    if bool(nan.any()):
        raise ValueError(
            f"`scores` is NaN {shard.named(nan)}: no order exists. Find out which model output is "
            "not finite there."
        )

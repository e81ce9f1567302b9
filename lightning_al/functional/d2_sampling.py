"""4 SELECTION by D^2 sampling: a batch of rows far from each other, drawn at random.

    vectors, or probabilities and embeddings -> [draws] -> global positions

A row is drawn with a probability in proportion to its squared distance to the nearest row drawn before it.
Instead of bringing all distances up to date at every pick, a row is *proposed* in proportion to a weight that
was made earlier, when fewer rows were chosen, and so is no lower than its distance; and accepted with the
probability distance / weight, for which the distance of this row alone is needed. Both steps together are
the exact law. When rejected proposals have cost as much as new weights would, these are made.

Weights are distances rounded up to seven bits, and what rounding errors leave open, in a weight or in an
acceptance, is decided in float64 (`Vectors.exact`). Sums of such weights are exact in any order. So the same
random numbers make the same draw, however the rows are cut into chunks, threads or ranks.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Literal, overload

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Generator, Tensor

from lightning_al.functional.rows import as_float, check_count, check_tensors, checked
from lightning_al.functional.shard import Shard
from lightning_al.functional.vectors import (
    Backend,
    Metric,
    Vectors,
    _refuse_rows,
    check_matrix,
    exact_arithmetic,
)

__all__ = ["badge", "kmeans_plus_plus"]

Array = NDArray[np.float64]

First = Literal["largest", "random"]

_PROPOSALS = 64  # tested together, with one exchange between ranks
_IN_VAIN = 32  # so many rounds of proposals refused ask for new weights, at any price
_ROWS, _CENTERS = 1024, 256  # so many distances stay in the cache
# What decides whether new weights are worth their price, in multiplications of numbers.
_PASS = 30  # reading a row is worth so many centres
_PROPOSAL = 2**20
_RENEWAL = 2**25
_HORIZON = 1000  # so many more picks are reckoned with at least
_AFTERWARDS = 1.6  # proposals a pick with new weights


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
        O(query_size^2 (C + D)) in small steps, instead of query_size passes; memory O(N).

    Example:
        >>> import torch
        >>> probs = torch.tensor([[0.9, 0.1], [0.5, 0.5], [0.5, 0.5]])
        >>> embeddings = torch.tensor([[1.0, 0.0], [0.0, 3.0], [0.0, 3.0]])
        >>> badge(probs, embeddings, 2)  # the longest gradient, and not its copy
        tensor([1, 0])
    """
    check_count(query_size=query_size)
    if first not in ("largest", "random"):
        raise ValueError(f'`first` is {first!r}; needed is "largest" or "random".')
    shard = _checked_gradients(probs, embeddings, shard)
    with exact_arithmetic(embeddings.device):
        vectors, squares, unit, tiny = _gradients(probs, embeddings, bias, shard)
        draw = _Draw(vectors, squares, shard, generator, tiny)
        if shard.total:
            draw.begin(first)
        draw.until(min(query_size, shard.total))
        return draw.result(unit, return_scores)


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
        some passes over the embeddings, and O(query_size^2 D) in small steps; memory O(N).

    Example:
        >>> import torch
        >>> rows = torch.tensor([[0.0], [0.0], [5.0]])
        >>> kmeans_plus_plus(rows, 1, centers=torch.zeros(1, 1), generator=torch.Generator())
        tensor([2])
    """
    check_count(query_size=query_size)
    if isinstance(embeddings, Vectors):
        vectors = embeddings
    else:
        vectors = Vectors.of_embeddings(embeddings, metric=metric, backend=backend, shard=shard)
    shard = _checked_shard(len(vectors), shard)
    with exact_arithmetic(vectors.device):
        given: Vectors | None = None
        if centers is not None:
            vectors, given = _with_centers(vectors, centers)
        draw = _Draw(vectors, vectors.squares(), shard, generator)
        if given is not None and len(given):
            draw.around(given)
        elif shard.total:
            draw.begin("random")
        draw.until(min(query_size, shard.total))
        return draw.result(1.0 if vectors.unit else vectors.scale**2, return_scores)


# ---------------------------------------------------------------------- what goes in


def _checked_shard(rows: int, shard: Shard | None) -> Shard:
    shard = Shard.whole(rows) if shard is None else shard
    if rows != len(shard.positions):
        raise ValueError(
            f"`embeddings` has {rows} rows, but `shard` says {len(shard.positions)} are here. Pass the rows "
            "at `shard.positions`."
        )
    return shard


def _checked_gradients(probs: Tensor, embeddings: Tensor, shard: Shard | None) -> Shard:
    check_tensors(probs=probs)
    pairs = probs.ndim == 3 and probs.shape[2] == 2
    if not (pairs or probs.ndim == 2) or probs.shape[1] == 0:
        raise ValueError(
            f"`probs` has shape {tuple(probs.shape)}; needed are probabilities (N, C), (N, L, 2) for one "
            "logit a label, or (N, 1) for a single logit. Pool dense outputs over their places first."
        )
    if not probs.is_floating_point():
        raise TypeError(
            f"`probs` is of type {probs.dtype}; needed are probabilities. Apply `softmax(-1)` to the logits."
        )
    check_matrix(embeddings, "embeddings")
    shard = _checked_shard(len(embeddings), shard)
    if len(probs) != len(embeddings):
        raise ValueError(
            f"`probs` has {len(probs)} rows and `embeddings` {len(embeddings)}; needed is one of each for "
            "every sample. Take both from the same pass."
        )
    if probs.shape[1:] == (1,):
        outside = (probs < 0) | (probs > 1)
        if bool(outside.any()):
            raise ValueError(
                f"`probs` is {float(probs[outside][0]):.4g} in a row; needed is the probability of class "
                "one. Apply `sigmoid()` to the logit first."
            )
    else:
        checked(probs)
    return shard


def _with_centers(vectors: Vectors, centers: Tensor) -> tuple[Vectors, Vectors]:
    """Pool and centres, comparable with each other."""
    check_matrix(centers, "centers")
    if centers.shape[1] != vectors.width:
        raise ValueError(
            f"`centers` has {centers.shape[1]} columns and `embeddings` {vectors.width}; needed are vectors "
            "of the same model and layer. Make them anew with it."
        )
    centers = centers.to(vectors.device)
    metric: Metric = "cosine" if vectors.unit else "euclidean"
    given = Vectors.of_embeddings(centers, metric=metric, backend=vectors.backend, name="centers")
    if len(given) and given.scale < vectors.scale:
        vectors = replace(vectors, scale=given.scale, origin=None)
    return vectors, vectors.like(given.factors[0])


@dataclass(frozen=True)
class _Gradients(Vectors):
    """Gradients by the last layer, of probabilities and embeddings as they were given.

    Args:
        labels: The predicted class of each row, `(n,)`; `None` for one logit a column.
        gains: Powers of two by which residuals and embeddings are multiplied, so that squares stay in range.
        column: What is appended to every embedding, instead of the one of `bias`.
    """

    labels: Tensor | None = None
    gains: tuple[float, float] = (1.0, 1.0)
    column: float | None = None

    def given(self, rows: slice | Tensor = slice(None)) -> tuple[Tensor, ...]:
        probs, inputs = (factor[rows] for factor in self.factors)
        residuals = _residuals(probs, None if self.labels is None else self.labels[rows])
        left, right = self.gains
        if left != 1:
            residuals = residuals * left
        if right != 1:
            inputs = as_float(inputs) * right
        if self.column is not None:
            inputs = torch.cat([inputs, inputs.new_full((len(inputs), 1), self.column)], 1)
        return residuals, inputs

    def take(self, rows: Tensor) -> Vectors:
        return self.like(*self.given(rows.to(self.device)))

    def like(self, *factors: Tensor) -> Vectors:
        return Vectors(factors, bias=self.bias, backend="torch")


def _residuals(probs: Tensor, labels: Tensor | None) -> Tensor:
    """`p - y` at the predicted y, one column a logit."""
    probs = as_float(probs)
    if labels is not None:
        return probs.scatter_add(1, labels[:, None], probs.new_full((len(labels), 1), -1.0))
    if probs.ndim == 3:
        zero, one = probs.unbind(2)
        return torch.where(one > zero, -zero, one)
    return torch.where(probs > 0.5, probs - 1, probs)


def _gradients(
    probs: Tensor, embeddings: Tensor, bias: bool, shard: Shard
) -> tuple[Vectors, Tensor, float, float]:
    """Gradients, their squared lengths, by what these were multiplied, and what is too small for them."""
    factors = probs.detach().to(embeddings.device), embeddings.detach()
    labels: Tensor | None = None
    if probs.ndim == 2 and probs.shape[1] > 1:
        labels = torch.empty(len(probs), dtype=torch.long, device=embeddings.device)
    made = _Gradients(factors, bias=bias, backend="torch", labels=labels)
    squares = torch.empty(len(embeddings), device=embeddings.device)
    largest = [0.0, 0.0]
    for rows in made.chunks():
        if labels is not None:
            labels[rows] = factors[0][rows].argmax(1)
        parts = [torch.linalg.vecdot(part, part) for part in made.block(rows)]
        here = [float(part.max()) for part in parts]
        if not (here[0] < math.inf and here[1] < math.inf):
            _refuse_not_finite(factors, rows, shard)
        largest = [max(pair) for pair in zip(largest, here, strict=True)]
        squares[rows] = parts[0] * (parts[1] + 1 if bias else parts[1])
    most = [max(found) for found in zip(*shard.gather_objects(largest), strict=True)]
    tiny = made.width * 2.0**-120 * (1 + most[0] + most[1])  # a factor's square too small to be a number
    if all(1e-8 < one < 1e8 for one in most):
        return made, squares, 1.0, tiny
    left, right = _gains(made, shard)
    column = right if bias and right != 1 else None
    made = replace(made, bias=bias and column is None, gains=(left, right), column=column)
    return made, made.squares(), (left * right) ** 2, made.width**2 * 2.0**-120


def _refuse_not_finite(factors: tuple[Tensor, Tensor], rows: slice, shard: Shard) -> None:
    for name, factor in zip(("probs", "embeddings"), factors, strict=True):
        wrong = ~factor[rows].isfinite().flatten(1).all(1)
        if bool(wrong.any()):
            _refuse_rows(wrong, rows.start, name, shard, "NaN or infinite")


def _gains(made: _Gradients, shard: Shard) -> tuple[float, float]:
    """Powers of two that make the largest residual and embedding of the pool about one."""
    largest = [0.0, 0.0]
    for rows in made.chunks():
        here = [float(part.abs().max()) for part in made.given(rows)]
        largest = [max(pair) for pair in zip(largest, here, strict=True)]
    left, right = (max(found) for found in zip(*shard.gather_objects(largest), strict=True))
    if made.bias:
        right = max(right, 1.0)
    return _reciprocal(left), _reciprocal(right)


def _reciprocal(value: float) -> float:
    """A power of two near it; one of zero."""
    return 2.0 ** -math.frexp(value)[1] if value > 0 else 1.0


# ---------------------------------------------------------------------- drawing


class _Centers:
    """Given and chosen rows in order, in a store that grows, ready for distances."""

    def __init__(self, vectors: Vectors) -> None:
        self.parts: list[Vectors] = []
        self.count = 0
        empty = vectors.take(torch.empty(0, dtype=torch.long))
        self.factors = [factor.new_empty(64, factor.shape[1]) for factor in empty.block(slice(None))]
        self.halves = self.factors[0].new_empty(64)  # of squared lengths

    def add(self, rows: Vectors, block: tuple[Tensor, ...], squares: Tensor) -> None:
        """Further rows; `block` and `squares` are theirs."""
        self.parts.append(rows)
        start, self.count = self.count, self.count + len(rows)
        while self.count > len(self.halves):
            self.factors = [torch.cat([factor, torch.empty_like(factor)]) for factor in self.factors]
            self.halves = torch.cat([self.halves, torch.empty_like(self.halves)])
        for store, factor in zip(self.factors, block, strict=True):
            store[start : self.count] = factor
        self.halves[start : self.count] = squares / 2

    def since(self, start: int) -> tuple[tuple[Tensor, ...], Tensor]:
        """All from one on: a block, and half of their squares."""
        return tuple(factor[start : self.count] for factor in self.factors), self.halves[start : self.count]

    def given(self) -> Vectors:
        """All as they were given."""
        if len(self.parts) > 1:
            pairs = zip(*(part.given() for part in self.parts), strict=True)
            self.parts = [self.parts[0].like(*(torch.cat(factors) for factors in pairs))]
        return self.parts[0]


class _Draw:
    """What was drawn, and the weights from which more is proposed; the same on every rank.

    Args:
        vectors: The rows held here.
        squares: Their squared lengths in float32.
        shard: Which rows of the pool these are.
        generator: Source of randomness.
        tiny: What squared distances may be off beside `Vectors.slack`.
    """

    def __init__(
        self,
        vectors: Vectors,
        squares: Tensor,
        shard: Shard,
        generator: Generator | None,
        tiny: float = 0.0,
    ) -> None:
        self.vectors, self.squares, self.shard, self.generator = vectors, squares, shard, generator
        self.tiny = tiny
        self.chosen: list[int] = []
        self.centers = _Centers(vectors)
        self.given = 0  # how many of them were not chosen here
        self.seen = 0  # how many of them the weights know
        self.near = torch.full_like(squares, math.inf)  # squared distances to the nearest of these
        self.weights = squares.new_empty(0)  # of all rows, by position, in units
        self.cumulative = squares.new_empty(0, dtype=torch.long)
        self.order: Tensor | None = None  # of the rows of all ranks, their positions
        self.unit = 1.0
        self.lately = 0.0, 0.0  # proposals and picks with these weights, the last ones most
        self.in_vain = 0  # rounds of proposals in a row of which none was accepted
        self.exhausted = False
        self.start = math.inf  # the score of the first, where nothing was given

    @property
    def fresh(self) -> int:
        """How many centres the weights do not know."""
        return self.centers.count - self.seen

    def slack(self, squares: Tensor, distances: Tensor) -> Tensor:
        """How far squared distances may be off."""
        return self.vectors.slack(squares, distances).add_(self.tiny)

    # -------------------------------------------------------------- first

    def around(self, given: Vectors) -> None:
        """Centres that count as drawn before."""
        self.given = len(given)
        self.centers.add(given, given.block(slice(None)), given.squares())

    def begin(self, first: First) -> None:
        """Draw the first where nothing was given."""
        if first == "random":
            position = int(self._uniform(1)[0] * self.shard.total)
        else:
            position, self.start = self._longest()
        self.chosen.append(position)
        self.around(self._collect(torch.tensor([position]))[0])
        self.given = 0

    def _longest(self) -> tuple[int, float]:
        """The position of the longest vector, and its squared length."""
        slack = self.slack(self.squares, self.squares)
        bar = self._most(self.squares - slack)
        rows = (self.squares + slack >= bar).nonzero().squeeze(1)
        best, position = -1.0, self.shard.total
        for some in torch.split(rows, _rows_at_once(self.vectors)):
            taken = self.vectors.take(some)
            lengths = taken.exact(taken.like(*(torch.zeros_like(factor) for factor in taken.factors)))
            most = max(lengths.tolist(), default=-1.0)
            if most > best:
                place = some[int((lengths == most).nonzero()[0])]
                best, position = most, int(self.shard.positions[int(place)])
        shortest, position = min(self.shard.gather_objects((-best, position)))
        return position, shortest**2

    # -------------------------------------------------------------- proposals

    def until(self, count: int) -> None:
        """Draw until that many are chosen."""
        while len(self.chosen) < count and not self.exhausted:
            if len(self.weights) == 0 or self._worthwhile():
                self._renew()
            else:
                self._propose(count)
        if len(self.chosen) < count:
            rest = torch.ones(self.shard.total, dtype=torch.bool)
            rest[self.chosen] = False
            left = rest.nonzero().squeeze(1)
            drawn = left[torch.randperm(len(left), generator=self.generator)]
            self.chosen += drawn[: count - len(self.chosen)].tolist()

    def _worthwhile(self) -> bool:
        """Whether new weights save more proposals than they cost; as many picks to come as there were."""
        price = _RENEWAL + self.shard.total * self.vectors.width * (_PASS + self.fresh)
        rate = self.lately[0] / max(self.lately[1], 0.5)
        saved = (rate - _AFTERWARDS) * max(_HORIZON, len(self.chosen))
        cheaper = saved * (_PROPOSAL + self.vectors.width * self.fresh) > price
        # Perhaps nothing but copies is left, which only new weights tell.
        return self.fresh > 0 and (cheaper or self.in_vain >= _IN_VAIN)

    def _propose(self, count: int) -> None:
        """Draw a fixed number of proposals, and accept some, in order."""
        numbers = self._uniform(2 * _PROPOSALS)
        total = int(self.cumulative[-1])
        targets = (numbers[:_PROPOSALS] * total).long().clamp_(max=total - 1)
        positions = torch.searchsorted(self.cumulative, targets.to(self.cumulative.device), right=True)
        bars = numbers[_PROPOSALS:] * (self.weights[positions].double().cpu() * self.unit)
        positions = positions.cpu()
        rows, near, slack = self._collect(positions)
        block, squares = rows.block(slice(None)), rows.squares()
        if self.fresh:
            others, halves = self.centers.since(self.seen)
            closeness = self.vectors.products(block, others).sub_(halves).amax(1)
            near = torch.minimum(near, torch.sub(squares, closeness, alpha=2).clamp_min_(0))
        among = self.vectors.products(block, block).mul_(-2).add_(squares).add_(squares[:, None])
        slack = torch.maximum(slack, self.slack(squares, near))
        before = len(self.chosen)
        known = [part.double().cpu().numpy() for part in (bars, near, slack, among)]
        accepted, tried = self._accept(rows, positions.tolist(), known, count)
        self.lately = 0.3 * self.lately[0] + tried, 0.3 * self.lately[1] + len(self.chosen) - before
        self.in_vain = 0 if accepted else self.in_vain + 1
        if accepted:
            which = torch.tensor(accepted, device=squares.device)
            parts = tuple(factor[which] for factor in block)
            self.centers.add(rows.take(which), parts, squares[which])

    def _accept(
        self, rows: Vectors, positions: list[int], known: list[Array], count: int
    ) -> tuple[list[int], int]:
        """Which proposals are accepted, until enough are, and how many were looked at."""
        accepted: list[int] = []
        already = set(self.chosen)
        bars, near, slack, among = known
        sure, unsure = near + slack, near - slack
        for number, position in enumerate(positions):
            bar = bars[number]
            if bar > sure[number] or position in already:
                continue
            if bar >= unsure[number] and bar >= self._exactly(rows, number, accepted):
                continue
            accepted.append(number)
            already.add(position)
            self.chosen.append(position)
            if len(self.chosen) == count:
                return accepted, number + 1
            np.minimum(sure, among[number] + slack, out=sure)
            np.minimum(unsure, among[number] - slack, out=unsure)
        return accepted, len(positions)

    def _exactly(self, rows: Vectors, number: int, accepted: list[int]) -> float:
        """The squared distance of a proposal to the nearest one chosen."""
        one = rows.take(torch.tensor([number]))
        found = float(_exact_squares(one, self.centers.given(), self.tiny)[0])
        if accepted:
            found = min(found, float(_exact_squares(one, rows.take(torch.tensor(accepted)), self.tiny)[0]))
        return found

    def _uniform(self, count: int) -> Tensor:
        return torch.rand(count, generator=self.generator, dtype=torch.float64)

    def _held(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Which of these positions are rows held here, and of which number."""
        mine = self.shard.positions
        if len(mine) == 0:
            return positions[:0], positions[:0]
        places = torch.searchsorted(mine, positions).clamp_(max=len(mine) - 1)
        which = (mine[places] == positions).nonzero().squeeze(1)
        return which, places[which].to(self.squares.device)

    def _collect(self, positions: Tensor) -> tuple[Vectors, Tensor, Tensor]:
        """Rows of these positions, from whichever ranks; their distances at the last renewal, and slack."""
        numbers, local = self._held(positions)
        taken, near = self.vectors.take(local), self.near[local]
        slack = self.slack(self.squares[local], near)
        factors = taken.given()
        if self.shard.world_size == 1:
            return taken, near, slack
        kind = torch.float64 if any(part.dtype == torch.float64 for part in factors) else torch.float32
        columns = [numbers[:, None].to(near.device), near[:, None], slack[:, None], *factors]
        packed = self.shard.gather(torch.cat([column.to(kind) for column in columns], 1))
        packed = packed[packed[:, 0].argsort()]
        widths = [part.shape[1] for part in factors]
        parts = torch.split(packed[:, 3:], widths, 1)
        return taken.like(*parts), packed[:, 1].float(), packed[:, 2].float()

    # -------------------------------------------------------------- weights

    def _renew(self) -> None:
        """Bring distances up to date, and make weights of them."""
        if self.fresh:
            self._approach()
            self.seen = self.centers.count
        slack = self.slack(self.squares, self.near)
        low = _rounded_up((self.near - slack).clamp_min_(0))
        high = _rounded_up(slack.add_(self.near))
        _, taken = self._held(torch.tensor(self.chosen, dtype=torch.long))
        low[taken] = 0
        high[taken] = 0
        # First the largest weight: it says from where down weights do not matter.
        bar = self._most(low)
        top = ((high > bar) & (low < high)).nonzero().squeeze(1)
        of_top = self._exact_weights(top)
        largest = max(bar, self._most(of_top))
        if largest == 0:
            self.exhausted = True
            return
        bits = self.shard.total.bit_length()
        floor = 2.0 ** (math.frexp(largest)[1] - 1 - min(6 + bits, 55 - bits))
        low[top] = high[top]
        open_ = ((low < high) & (high > floor)).nonzero().squeeze(1)
        weights = low.double()
        weights[open_] = self._exact_weights(open_)
        weights[top] = of_top
        weights.clamp_min_(floor)
        weights[taken] = 0
        # Whole numbers of up to seven bits and some zeros: int64 sums of them are exact.
        self.unit = floor / 64
        self._spread((weights / self.unit).float())
        self.in_vain = 0
        self.lately = 0.0, 0.0

    def _approach(self) -> None:
        """Bring distances up to date."""
        others, halves = self.centers.since(self.seen)
        if self.vectors._by_faiss(len(halves)):
            ready = replace(self.vectors, factors=others, places=None, unit=False, origin=None, scale=1.0)
            torch.minimum(self.near, self.vectors.nearest(ready)[0], out=self.near)
            return
        size = _ROWS if self.squares.device.type == "cpu" else 64 * _ROWS
        tiles = [slice(start, start + _CENTERS) for start in range(0, len(halves), _CENTERS)]
        for start in range(0, len(self.squares), size):
            rows = slice(start, min(start + size, len(self.squares)))
            block = self.vectors.block(rows)
            for tile in tiles:
                products = self.vectors.products(tuple(factor[tile] for factor in others), block)
                closeness = products.sub_(halves[tile, None]).amax(0)
                distance = torch.sub(self.squares[rows], closeness, alpha=2).clamp_min_(0)
                torch.minimum(self.near[rows], distance, out=self.near[rows])

    def _spread(self, weights: Tensor) -> None:
        """Let every rank know all weights, in order of position."""
        self.weights = self.shard.gather(weights)
        if self.shard.world_size > 1:
            if self.order is None:
                self.order = self.shard.gather(self.shard.positions).to(weights.device)
            self.weights = torch.empty_like(self.weights).index_copy_(0, self.order, self.weights)
        self.cumulative = self.weights.long().cumsum_(0)

    def _exact_weights(self, rows: Tensor) -> Tensor:
        """Of some rows held here, in float64."""
        found = self.squares.new_empty(len(rows), dtype=torch.float64)
        start = 0
        for some in torch.split(rows, _rows_at_once(self.vectors)):
            found[start : start + len(some)] = _exact_squares(
                self.vectors.take(some), self.centers.given(), self.tiny
            )
            start += len(some)
        return _rounded_up(found)

    def _most(self, values: Tensor) -> float:
        """The largest over all ranks; zero of none."""
        return float(max(self.shard.gather_objects(float(values.max()) if len(values) else 0.0)))

    # -------------------------------------------------------------- what comes out

    def result(self, unit: float, return_scores: bool) -> Tensor | tuple[Tensor, Tensor]:
        """Positions, and on request squared distances, which were multiplied by `unit`."""
        positions = torch.tensor(self.chosen, dtype=torch.long, device=self.squares.device)
        return (positions, self._scores() / unit) if return_scores else positions

    def _scores(self) -> Tensor:
        """The squared distance of every chosen row to the nearest before it; zero once all are."""
        scores = self.squares.new_zeros(len(self.chosen), dtype=torch.float64)
        if not self.chosen:
            return scores
        every = self.centers.given()
        before = torch.arange(max(1, self.given), len(every), device=scores.device)
        begin, end = (1 if self.given == 0 else 0), len(every) - self.given
        scores[begin:end] = _exact_squares(every.take(before), every, self.tiny, before)
        if self.given == 0:
            scores[0] = self.start
        return scores


def _rounded_up(values: Tensor) -> Tensor:
    """To seven bits: the lowest number of so many that is no lower; values not negative."""
    kind, drop = (torch.int64, 46) if values.dtype == torch.float64 else (torch.int32, 17)
    bits = values.view(kind) + ((1 << drop) - 1)
    return (bits >> drop << drop).view(values.dtype)


def _rows_at_once(vectors: Vectors) -> int:
    return max(1, 2**16 // vectors.width)


def _exact_squares(
    rows: Vectors, centers: Vectors, tiny: float = 0.0, before: Tensor | None = None
) -> Tensor:
    """Squared distances to the nearest centre as `exact` has it, `(n,)` in float64.

    Args:
        rows: Few enough to lie in memory.
        centers: Some.
        tiny: What squared distances may be off beside `Vectors.slack`.
        before: How many of the centres count for each row; `None`: all.
    """
    found = rows.squares().new_full((len(rows),), math.inf, dtype=torch.float64)
    size = max(1, 2**18 // max(1, len(centers)))
    for start in range(0, len(rows), size):
        some = slice(start, min(start + size, len(rows)))
        part = rows.like(*rows.given(some))
        distances = part.distances(slice(None), centers)
        if before is not None:
            places = torch.arange(len(centers), device=distances.device)
            distances[places >= before[some, None]] = math.inf
        best = distances.amin(1)
        bar = best + 2.5 * (rows.slack(part.squares(), best) + tiny)
        for pairs in torch.split((distances <= bar[:, None]).nonzero(), _rows_at_once(rows)):
            exact = part.take(pairs[:, 0]).exact(centers.take(pairs[:, 1])).double()
            exact = 2 * exact if rows.unit else exact.square_()
            found[some] = found[some].scatter_reduce(0, pairs[:, 0], exact, "amin")
    return found

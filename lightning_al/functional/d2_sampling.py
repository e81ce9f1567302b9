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

First = Literal["largest", "random"]

_PROPOSALS = 64  # tested together, with one exchange between ranks
_ROWS, _CENTERS = 1024, 256  # so many distances stay in the cache
# What decides whether new weights are worth their price, in multiplications of numbers.
_PASS = 30  # reading a row is worth so many centres
_PROPOSAL = 2**20
_RENEWAL = 2**25
_HORIZON = 512  # so many more picks are reckoned with at least
_AFTERWARDS = 1.6  # proposals a pick with new weights
_TINY = 1e-32  # below, squares in float32 are not to be relied on


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
        >>> probs = torch.tensor([[0.9, 0.1], [0.5, 0.5], [0.6, 0.4]])
        >>> embeddings = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 3.0]])
        >>> badge(probs, embeddings, 2, return_scores=True, generator=torch.Generator())[0].tolist()
        [2, 1]
    """
    check_count(query_size=query_size)
    if first not in ("largest", "random"):
        raise ValueError(f'`first` is {first!r}; needed is "largest" or "random".')
    shard = _checked_gradients(probs, embeddings, shard)
    with exact_arithmetic(embeddings.device):
        vectors, squares, unit = _gradients(probs, embeddings, bias, shard)
        draw = _Draw(vectors, squares, shard, generator)
        if shard.total:
            draw.begin(first)
        draw.until(min(query_size, shard.total))
        return draw.result(unit, return_scores)


@overload
def kmeans_plus_plus(
    embeddings: Tensor,
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
    embeddings: Tensor,
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
    embeddings: Tensor,
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
        embeddings: The rows held here, `(n, D)`; also over a memory-mapped file.
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
    shard = _checked_shard(embeddings, "embeddings", shard)
    with exact_arithmetic(embeddings.device):
        vectors = Vectors.of_embeddings(embeddings, metric=metric, backend=backend, shard=shard)
        given: Vectors | None = None
        if centers is not None:
            vectors, given = _with_centers(vectors, centers, metric, backend)
        draw = _Draw(vectors, vectors.squares(), shard, generator)
        if given is not None and len(given):
            draw.around(given)
        elif shard.total:
            draw.begin("random")
        draw.until(min(query_size, shard.total))
        return draw.result(1.0 if vectors.unit else vectors.scale**2, return_scores)


# ---------------------------------------------------------------------- what goes in


def _checked_shard(rows: Tensor, name: str, shard: Shard | None) -> Shard:
    check_matrix(rows, name)
    shard = Shard.whole(len(rows)) if shard is None else shard
    if len(rows) != len(shard.positions):
        raise ValueError(
            f"`{name}` has {len(rows)} rows, but `shard` says {len(shard.positions)} are here. Pass the rows "
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
    shard = _checked_shard(embeddings, "embeddings", shard)
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


def _with_centers(
    vectors: Vectors, centers: Tensor, metric: Metric, backend: Backend
) -> tuple[Vectors, Vectors]:
    """Pool and centres, comparable with each other."""
    check_matrix(centers, "centers")
    here = vectors.factors[0]
    if centers.shape[1] != here.shape[1]:
        raise ValueError(
            f"`centers` has {centers.shape[1]} columns and `embeddings` {here.shape[1]}; needed are vectors "
            "of the same model and layer. Make them anew with it."
        )
    given = Vectors.of_embeddings(centers.to(here.device), metric=metric, backend=backend, name="centers")
    if given.scale != vectors.scale:
        vectors = replace(vectors, scale=min(given.scale, vectors.scale), origin=None)
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


def _gradients(probs: Tensor, embeddings: Tensor, bias: bool, shard: Shard) -> tuple[Vectors, Tensor, float]:
    """Gradients, their squared lengths, and by what squares were multiplied; looks at every row once."""
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
    if all(1e-24 < one < 1e24 for one in most):
        return made, squares, 1.0
    left, right = _gains(made, shard)
    column = right if bias and right != 1 else None
    made = replace(made, bias=bias and column is None, gains=(left, right), column=column)
    return made, made.squares(), (left * right) ** 2


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
    return tuple(2.0 ** -math.frexp(most)[1] if most > 0 else 1.0 for most in (left, right))  # type: ignore[return-value]


# ---------------------------------------------------------------------- drawing


class _Draw:
    """What was drawn, and the weights from which more is proposed; the same on every rank.

    Args:
        vectors: The rows held here.
        squares: Their squared lengths in float32.
        shard: Which rows of the pool these are.
        generator: Source of randomness.
    """

    def __init__(self, vectors: Vectors, squares: Tensor, shard: Shard, generator: Generator | None) -> None:
        self.vectors, self.squares, self.shard, self.generator = vectors, squares, shard, generator
        self.chosen: list[int] = []
        self.near = torch.full_like(squares, math.inf)  # squared distance to the nearest one of `seen`
        self.seen: Vectors | None = None
        self.fresh: Vectors | None = None  # chosen since; both in the order of choice
        self.given = 0  # how many of them were centres from the start
        self.start = math.inf  # the score of the first, where there were none
        self.weights = squares.new_empty(0)  # of all rows, by position, in units
        self.cumulative = squares.new_empty(0, dtype=torch.long)
        self.unit = 1.0
        self.rate = _AFTERWARDS  # proposals a pick, of late
        self.exhausted = False

    # -------------------------------------------------------------- first

    def around(self, given: Vectors) -> None:
        """Centres that count as drawn before."""
        self.fresh, self.given = given, len(given)

    def begin(self, first: First) -> None:
        """Draw the first where nothing was given."""
        if first == "random":
            position = int(self._uniform(1)[0] * self.shard.total)
        else:
            position, self.start = self._longest()
        self.chosen.append(position)
        self.fresh = self._collect(torch.tensor([position]))[0]

    def _longest(self) -> tuple[int, float]:
        """The position of the longest vector, and its squared length."""
        low = self.squares - self.vectors.slack(self.squares, self.squares) - _TINY
        bar = self._most(low)
        high = self.squares + self.vectors.slack(self.squares, self.squares) + _TINY
        rows = (high >= bar).nonzero().squeeze(1)
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
        fresh = 0 if self.fresh is None else len(self.fresh)
        price = _RENEWAL + self.shard.total * self.vectors.width * (_PASS + fresh)
        saved = (self.rate - _AFTERWARDS) * max(_HORIZON, len(self.chosen))
        return fresh > 0 and saved * (_PROPOSAL + self.vectors.width * fresh) > price

    def _propose(self, count: int) -> None:
        """Draw a fixed number of proposals, and accept some, in order."""
        numbers = self._uniform(2 * _PROPOSALS)
        total = int(self.cumulative[-1])
        targets = (numbers[:_PROPOSALS] * total).long().clamp_(max=total - 1).to(self.cumulative.device)
        positions = torch.searchsorted(self.cumulative, targets, right=True)
        weights = self.weights[positions].double().cpu() * self.unit
        bars = numbers[_PROPOSALS:] * weights
        rows, near, slack = self._collect(positions.cpu())
        squares = rows.squares()
        if self.fresh is not None:
            near = torch.minimum(near, rows.distances(slice(None), self.fresh).amin(1))
        slack = torch.maximum(slack, self.vectors.slack(squares, near) + _TINY).double().cpu()
        among = rows.distances(slice(None), rows).double().cpu().numpy()
        places = positions.tolist()
        accepted: list[int] = []
        tried = 0
        distance, error, bar = near.double().cpu().numpy(), slack.numpy(), bars.numpy()
        already = set(self.chosen)
        for number, place in enumerate(places):
            tried += 1
            gap = bar[number] - distance[number]
            if gap > error[number] or place in already:
                continue
            if gap >= -error[number] and bar[number] >= self._exactly(rows, number, accepted):
                continue
            accepted.append(number)
            already.add(place)
            self.chosen.append(place)
            if len(self.chosen) == count:
                break
            np.minimum(distance, among[number], out=distance)
        self.rate = tried / max(len(accepted), 0.5)
        if accepted:
            more = rows.take(torch.tensor(accepted))
            self.fresh = more if self.fresh is None else self.fresh.joined(more)

    def _exactly(self, rows: Vectors, number: int, accepted: list[int]) -> float:
        """The squared distance of a proposal to the nearest one chosen."""
        others = [part for part in (self.seen, self.fresh) if part is not None]
        if accepted:
            others.append(rows.take(torch.tensor(accepted)))
        one = rows.take(torch.tensor([number]))
        return min(float(_exact_squares(one, part)[0]) for part in others)

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
        slack = self.vectors.slack(self.squares[local], near) + _TINY
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
        if self.fresh is not None:
            self._approach(self.fresh)
            self.seen = self.fresh if self.seen is None else self.seen.joined(self.fresh)
            self.fresh = None
        slack = self.vectors.slack(self.squares, self.near).add_(_TINY)
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
        self.rate = _AFTERWARDS

    def _approach(self, centers: Vectors) -> None:
        """Distances to the nearest, with further centres."""
        if self.vectors._by_faiss(len(centers)):
            torch.minimum(self.near, self.vectors.nearest(centers)[0], out=self.near)
            return
        parts = []
        for places in torch.split(torch.arange(len(centers)), _CENTERS):
            some = centers.take(places)
            parts.append((some.block(slice(None)), some.squares()[:, None] / 2))
        size = _ROWS if self.squares.device.type == "cpu" else 64 * _ROWS
        for start in range(0, len(self.squares), size):
            rows = slice(start, start + size)
            block = self.vectors.block(rows)
            for others, halves in parts:
                closeness = self.vectors.products(others, block).sub_(halves).amax(0)
                distance = torch.sub(self.squares[rows], closeness, alpha=2).clamp_min_(0)
                torch.minimum(self.near[rows], distance, out=self.near[rows])

    def _spread(self, weights: Tensor) -> None:
        """Let every rank know all weights, in order of position."""
        self.weights = self.shard.gather(weights)
        if self.shard.world_size > 1:
            order = self.shard.gather(self.shard.positions).to(weights.device)
            self.weights = torch.empty_like(self.weights).index_copy_(0, order, self.weights)
        self.cumulative = self.weights.long().cumsum_(0)

    def _exact_weights(self, rows: Tensor) -> Tensor:
        """Of some rows held here, in float64."""
        found = self.squares.new_empty(len(rows), dtype=torch.float64)
        start = 0
        for some in torch.split(rows, _rows_at_once(self.vectors)):
            assert self.seen is not None
            found[start : start + len(some)] = _exact_squares(self.vectors.take(some), self.seen)
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
        parts = [part for part in (self.seen, self.fresh) if part is not None]
        if not self.chosen or not parts:
            return scores
        every = parts[0] if len(parts) == 1 else parts[0].joined(parts[1])
        before = torch.arange(max(1, self.given), len(every), device=scores.device)
        begin, end = (1 if self.given == 0 else 0), len(every) - self.given
        scores[begin:end] = _exact_squares(every.take(before), every, before)
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


def _exact_squares(rows: Vectors, centers: Vectors, before: Tensor | None = None) -> Tensor:
    """Squared distances to the nearest centre as `exact` has it, `(n,)` in float64.

    Args:
        rows: Few enough to lie in memory.
        centers: Some.
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
        bar = best + 2.5 * (rows.slack(part.squares(), best) + _TINY)
        for pairs in torch.split((distances <= bar[:, None]).nonzero(), _rows_at_once(rows)):
            exact = part.take(pairs[:, 0]).exact(centers.take(pairs[:, 1])).double()
            exact = 2 * exact if rows.unit else exact.square_()
            found[some] = found[some].scatter_reduce(0, pairs[:, 0], exact, "amin")
    return found

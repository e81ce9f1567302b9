"""VECTORS: rows with distances between them, wherever and in whatever form they are.

    embeddings, or gradients as (p - onehot) and h -> Vectors -> distances: fast in float32, exact in float64

Rows are read in chunks, so a pool may lie in a memory-mapped file. Distances for all of a pool are made in
float32 and known to be off by no more than `slack`; whatever that leaves open is decided by `exact`, in
float64, whose answer depends on nothing but the two rows. So every choice is the same for any chunk size,
number of threads or processes, and backend.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from lightning_al.functional.arithmetic import exact_arithmetic, product_of, unit_rows
from lightning_al.functional.matrices import check_matrix, check_width, refuse_rows
from lightning_al.functional.rows import check_choice, check_shard
from lightning_al.functional.shard import Shard

__all__ = [
    "Backend",
    "Metric",
    "Vectors",
    "as_tensor",
]

Backend = Literal["auto", "faiss", "torch"]
Metric = Literal["euclidean", "cosine"]

_CHUNK_BYTES = 2**22  # in float32: what stays in the cache beside its distances
_DEVICE_TIMES = 64
_SUMMED = 512  # squares added up one after the other: of more, equal ones round to one side


@dataclass(frozen=True)
class Vectors:
    """Rows `(n,)`, each the outer product of its factors' rows; one factor is an ordinary vector.

    Make it with `of_embeddings` or `of_gradients`, which check. The distance of outer products needs no
    product to be made: `<a x b, a' x b'> = <a, a'> <b, b'>`.

    Args:
        factors: Each `(n, width)`, floating, on one device; as they were given, not converted.
        bias: Whether the last factor has a further column of ones.
        unit: Whether rows count as divided by their length (cosine; one factor only).
        origin: What is subtracted in float32 arithmetic, so that less is lost (one factor only).
        scale: A power of two by which all is multiplied first, so that squares stay in range.
        backend: What makes the distances of ordinary vectors on a CPU.
        places: Which rows of the factors count, and in which order, `(n,)`; `None`: all. A pool is most of a
            file that is not copied.
        dtype: What distances are made in: `float32`, or `float64` for what float32 leaves open.
    """

    factors: tuple[Tensor, ...]
    bias: bool = False
    unit: bool = False
    origin: Tensor | None = None
    scale: float = 1.0
    backend: Backend = "auto"
    places: Tensor | None = None
    dtype: torch.dtype = torch.float32

    # ------------------------------------------------------------------ making

    @classmethod
    @exact_arithmetic()
    def of_embeddings(
        cls,
        embeddings: Tensor,
        *,
        metric: Metric = "euclidean",
        backend: Backend = "auto",
        name: str = "embeddings",
        places: Tensor | None = None,
        shard: Shard | None = None,
    ) -> Vectors:
        """Ordinary vectors; every row is looked at once.

        Args:
            embeddings: `(N, D)` of any floating-point type; also over a memory-mapped file.
            metric: `"euclidean"`, or `"cosine"`.
            backend: What makes distances on a CPU: `"faiss"`, `"torch"` or what is the faster.
            name: What messages call them.
            places: Which rows count, and in which order, `(n,)`; `None`: all.
            shard: Which rows of a pool these are; `None`: all of it.

        Returns:
            The rows, which are not copied.

        Raises:
            TypeError: If they are no floating-point tensor.
            ValueError: If the shape is not `(N, D)`, a value is not finite, or, for cosine, a row is zero.
        """
        check_choice(Metric, metric=metric)
        check_shard(shard)
        with nullcontext() if shard is None else shard.together():
            _check_backend(backend, embeddings)
            check_matrix(embeddings, name)
            made = cls((embeddings.detach(),), unit=metric == "cosine", backend=backend, places=places)
            whole = Shard.whole(len(made)) if shard is None else shard
            whole.check(len(made), name)
            largest = _largest(made, name, whole)
        if made.unit:  # every row has a length of its own, by which it is divided
            return made
        made = replace(made, scale=_scale(max(whole.gather_objects(largest)), embeddings.dtype))
        return replace(made, origin=made._useful_origin())

    @classmethod
    def of_gradients(cls, left: Tensor, right: Tensor, *, bias: bool = False) -> Vectors:
        """Outer products `left x right`, with `bias` of `left x (right, 1)`; checked by the caller."""
        return cls((left.detach(), right.detach()), bias=bias, backend="torch")

    def _useful_origin(self) -> Tensor | None:
        """The mean of some rows, where subtracting it makes them much shorter."""
        if len(self) == 0:
            return None
        step = max(1, len(self) // 128)
        some = self.take(torch.arange(0, len(self), step)).ready(torch.float64).factors[0]
        mean = some.mean(0)
        around = some.sub_(mean).square_().sum(1).mean()
        if not bool(mean.square().sum() > 4 * around):
            return None
        return mean if self.factors[0].dtype == torch.float64 else mean.float()

    # ------------------------------------------------------------------ rows

    def __len__(self) -> int:
        return len(self.factors[0] if self.places is None else self.places)

    @property
    def device(self) -> torch.device:
        """Where the rows are, and distances are made."""
        return self.factors[0].device

    @property
    def width(self) -> int:
        """Numbers a row."""
        return sum(factor.shape[1] for factor in self.factors)

    def take(self, rows: Tensor) -> Vectors:
        """Some rows, copied into memory, comparable with the others."""
        rows = rows.to(self.device)
        rows = rows if self.places is None else self.places[rows]
        return self.like(*(factor.index_select(0, rows) for factor in self.factors))

    def beside(self, others: Tensor | None, name: str) -> tuple[Vectors, Vectors]:
        """These rows, and others that are no rows of the pool, comparable with each other.

        Raises:
            TypeError: If the others are no floating-point tensor.
            ValueError: If they have another width, or one is not finite or, for cosine, zero.
        """
        mine = self.factors[0]
        if others is None:
            return self, self.like(mine.new_empty((0, self.width)))
        metric: Metric = "cosine" if self.unit else "euclidean"
        its = Vectors.of_embeddings(others, metric=metric, backend=self.backend, name=name)
        check_width(its.width, self.width, (name, "embeddings"))
        rows = self
        if len(its) and its.scale < self.scale:
            origin = None if self.origin is None else self.origin * (its.scale / self.scale)
            rows = replace(self, scale=its.scale, origin=origin)
        return rows, rows.like(its.factors[0].to(self.device))

    def like(self, *factors: Tensor) -> Vectors:
        """Other rows, comparable with these."""
        return replace(self, factors=factors, places=None)

    def joined(self, other: Vectors) -> Vectors:
        """These rows, then those."""
        pairs = zip(self.given(), other.given(), strict=True)
        return self.like(*(torch.cat([mine, its.to(mine)]) for mine, its in pairs))

    def gathered(self, shard: Shard, counts: Sequence[int] | None = None) -> Vectors:
        """The rows of all ranks, those of rank 0 first; `counts` as in `Shard.gather`."""
        if shard.world_size == 1:
            return self
        factors = self.given()
        widest = torch.float64 if any(f.dtype == torch.float64 for f in factors) else torch.float32
        kind = factors[0].dtype if len(factors) == 1 else widest  # which holds those of the others
        every = shard.gather(torch.cat([factor.to(kind) for factor in factors], 1), counts)
        parts = torch.split(every, [factor.shape[1] for factor in factors], 1)
        return self.like(*(part.to(factor.dtype) for part, factor in zip(parts, factors, strict=True)))

    def at_once(self, size: int) -> int:
        """As many as fit into the cache of a processor; a device is kept busy by more."""
        return size if self.device.type == "cpu" else _DEVICE_TIMES * size

    def chunks(self, beside: int = 0) -> Iterator[slice]:
        """Slices of rows that stay in the cache, with so many further numbers for each."""
        size = self.at_once(max(1, _CHUNK_BYTES // (4 * (self.width + beside))))
        for start in range(0, len(self), size):
            yield slice(start, min(start + size, len(self)))

    def given(self, rows: slice = slice(None)) -> tuple[Tensor, ...]:
        """Factors of consecutive rows as they were given; a view if possible."""
        if self.places is None:
            return tuple(factor[rows] for factor in self.factors)
        return tuple(factor.index_select(0, self.places[rows]) for factor in self.factors)

    def block(self, rows: slice) -> tuple[Tensor, ...]:
        """Factors of consecutive rows in `dtype`, as distances are made of them; a view if possible."""
        found = []
        for part in self.given(rows):
            # Half precision ends at 65504, float32 before float64, and an offset costs float64 its digits.
            part = part.to(torch.float64 if torch.float64 in (self.dtype, part.dtype) else torch.float32)
            if self.scale != 1:
                part = part * self.scale
            if self.unit:
                part = unit_rows(part)
            found.append((part if self.origin is None else part - self.origin).to(self.dtype))
        return tuple(found)

    def ready(self, dtype: torch.dtype = torch.float32) -> Vectors:
        """These rows as `block` has them, made once; for distances to others made ready alike."""
        factors = replace(self, dtype=dtype).block(slice(None))
        return replace(self, factors=factors, places=None, unit=False, origin=None, scale=1.0, dtype=dtype)

    def squares(self) -> Tensor:
        """Squared lengths `(n,)` in `dtype`, of the rows as `block` has them."""
        found = torch.empty(len(self), dtype=self.dtype, device=self.device)
        for rows in self.chunks():
            found[rows] = self.squares_of(self.block(rows))
        return found

    def squares_of(self, block: tuple[Tensor, ...]) -> Tensor:
        """Squared lengths `(b,)` of a block."""
        if len(block) == 1 and not self.bias:
            # Norms are twice as fast as sums of squares.
            norms = (torch.linalg.vector_norm(part, dim=1) for part in torch.split(block[0], _SUMMED, 1))
            first: Tensor = next(norms).square_()
            for more in norms:
                first.addcmul_(more, more)
            return first
        product = block[0].new_ones(len(block[0]))
        for number, part in enumerate(block):
            squares: Tensor = torch.linalg.vecdot(part, part)
            product = product * (squares + 1 if self.bias and number == len(block) - 1 else squares)
        return product

    # ------------------------------------------------------------------ distances

    def products(self, block: tuple[Tensor, ...], centers: tuple[Tensor, ...]) -> Tensor:
        """Inner products `(b, c)` of two blocks."""
        product: Tensor | None = None
        for number, (part, others) in enumerate(zip(block, centers, strict=True)):
            one = product_of(part, others)
            if self.bias and number == len(block) - 1:
                one += 1
            product = one if product is None else product.mul_(one)
        assert product is not None
        return product

    def distances(self, rows: slice, centers: Vectors) -> Tensor:
        """Squared distances `(rows, c)` in `dtype`, within `slack`."""
        block, others = self.block(rows), centers.block(slice(None))
        found = self.products(block, others).mul_(-2)
        found += self.squares_of(block)[:, None]
        found += self.squares_of(others)
        return found.clamp_min_(0)

    def slack(self, squares: Tensor, distances: Tensor) -> Tensor:
        """How far `distances` to the nearest of some centres may be off, for rows of such squared lengths.

        Rounding to float32 (or float64, where they are made in it) in sums over `width` terms: many standard
        deviations where terms round to either side, and twice what was seen where all round to one side, as
        those of equal numbers do; and what is too small to be squared. The centre is no longer than the row
        and the distance together.
        """
        precision = torch.finfo(distances.dtype)
        error: float = 2 * precision.eps * (8 + self.width**0.5)
        return (error * (3 * squares + distances)).add_(self.width * precision.tiny)

    def rounded(self, squares: Tensor) -> Tensor:
        """Distances as they are compared, in float32, of squared ones."""
        return (squares / 2 if self.unit else squares.sqrt()).float()

    def interval(self, squares: Tensor, distances: Tensor, tiny: float = 0.0) -> tuple[Tensor, Tensor]:
        """Between which numbers `exact` is, of squared `distances` of rows of such squared lengths.

        Args:
            squares: Squared lengths, made as `distances` were.
            distances: Squared distances.
            tiny: What they may be off beside `slack`.
        """
        slack = self.slack(squares, distances).add_(tiny)
        return self.rounded((distances - slack).clamp_min_(0)), self.rounded(distances + slack)

    def exact(self, others: Vectors) -> Tensor:
        """Distances (not squared; cosine: `1 - cos`) from each row to that of the same place, `(n,)`.

        Made in float64 and rounded to float32, so distances nearer than that count as equal.
        """
        mine = [self._precisely(factor) for factor in self.given()]
        its = [self._precisely(factor) for factor in others.given()]
        if len(mine) == 1:
            total = (mine[0] - its[0]).square_().sum(1)
            found: Tensor = total / 2 if self.unit else total.sqrt_()
            return found.float()
        # |a x b - a' x b'|^2, of differences, so that copies are at 0 and nothing cancels.
        (a, b), (c, d) = mine, its
        longer = 1.0 if self.bias else 0.0
        left, right = a - c, b - d
        total = left.square().sum(1) * (b.square().sum(1) + longer)
        total += c.square().sum(1) * right.square().sum(1)
        total += 2 * (left * c).sum(1) * (right * b).sum(1)
        return total.clamp_min_(0).sqrt_().float()

    def _precisely(self, factor: Tensor) -> Tensor:
        rows = factor.double() * self.scale
        return unit_rows(rows) if self.unit else rows


def _check_backend(backend: str, tensor: Tensor) -> None:
    check_choice(Backend, backend=backend)
    if backend == "faiss" and isinstance(tensor, Tensor) and tensor.device.type != "cpu":
        raise ValueError(
            f'`backend` is "faiss" for embeddings on {tensor.device}; FAISS works on the CPU here. Use '
            '"auto", which computes on the device, or move them with `.cpu()`.'
        )


def _largest(vectors: Vectors, name: str, shard: Shard) -> float:
    """The largest number by size of the rows here; what cannot be compared is refused in the same pass."""
    largest = 0.0
    for rows in vectors.chunks():
        part = vectors.given(rows)[0]
        low, high = part.aminmax()
        here = max(-float(low), float(high))
        if not here < torch.inf or bool(low.isnan()):
            refuse_rows(~part.isfinite().all(1), rows, name, shard, "NaN or infinite")
        if vectors.unit and bool((zero := (part == 0).all(1)).any()):
            refuse_rows(
                zero, rows, name, shard, "zero, which has no direction,", ', or use `metric="euclidean"`'
            )
        largest = max(largest, here)
    return largest


def _scale(largest: float, dtype: torch.dtype) -> float:
    """A power of two that brings numbers of this size, and their squares, into range."""
    if largest == 0 or 1e-12 < largest < 1e12:
        return 1.0
    most = 1000 if dtype == torch.float64 else 100  # what the type itself can be multiplied by
    return 2.0 ** min(most, 1 - math.frexp(largest)[1])


def as_tensor(array: np.ndarray) -> Tensor:
    """A tensor over the same memory or file; a read-only one is not written to here."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch warns of read-only memory
        return torch.from_numpy(array)

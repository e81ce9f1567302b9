"""VECTORS: rows with distances between them, wherever and in whatever form they are.

    embeddings, or gradients as (p - onehot) and h -> Vectors -> distances: fast in float32, exact in float64

Rows are read in chunks, so a pool may lie in a memory-mapped file. Distances for all of a pool are made in
float32 and known to be off by no more than `slack`; whatever that leaves open is decided by `exact`, in
float64, whose answer depends on nothing but the two rows. So every choice is the same for any chunk size,
number of threads or processes, and backend.
"""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from lightning_al.functional.shard import Shard

__all__ = ["Backend", "Metric", "Vectors", "exact_arithmetic"]

Backend = Literal["auto", "faiss", "torch"]
Metric = Literal["euclidean", "cosine"]

_CHUNK_BYTES = 2**22  # in float32: what stays in the cache beside its distances
_FAISS_FROM = 32  # centres; for fewer, FAISS is the slower
_PROCESS = os.getpid()


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

        Raises:
            TypeError: If they are no floating-point tensor.
            ValueError: If the shape is not `(N, D)`, a value is not finite, or, for cosine, a row is zero.
        """
        if metric not in ("euclidean", "cosine"):
            raise ValueError(f'`metric` is {metric!r}; needed is "euclidean" or "cosine".')
        _check_backend(backend, embeddings)
        check_matrix(embeddings, name)
        with exact_arithmetic(embeddings.device):
            unit = metric == "cosine"
            made = cls((embeddings.detach(),), unit=unit, backend=backend, places=places)
            largest = _largest(made, name, shard)
            if unit and largest is not None:
                _refuse_zero_rows(made, name, shard)
            if largest and not 1e-12 < largest < 1e12:
                made = replace(made, scale=2.0 ** -int(np.floor(np.log2(largest))))
            return made if unit else replace(made, origin=made._useful_origin())

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

    def like(self, *factors: Tensor) -> Vectors:
        """Other rows, comparable with these."""
        return replace(self, factors=factors, places=None)

    def joined(self, other: Vectors) -> Vectors:
        """These rows, then those."""
        pairs = zip(self.given(), other.given(), strict=True)
        return self.like(*(torch.cat([mine, its.to(mine)]) for mine, its in pairs))

    def gathered(self, shard: Shard) -> Vectors:
        """The rows of all ranks, those of rank 0 first."""
        if shard.world_size == 1:
            return self
        return self.like(*(shard.gather(factor) for factor in self.given()))

    def chunks(self) -> Iterator[slice]:
        """Slices of rows that stay in the cache."""
        size = max(1, _CHUNK_BYTES // (4 * self.width))
        if self.device.type != "cpu":
            size *= 64
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
                part = _unit(part)
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
            found[rows] = self._squares_of(self.block(rows))
        return found

    def _squares_of(self, block: tuple[Tensor, ...]) -> Tensor:
        if len(block) == 1 and not self.bias:
            lengths: Tensor = torch.linalg.vector_norm(block[0], dim=1)  # twice as fast as squares
            return lengths.square_()
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
            one = part @ others.T
            if self.bias and number == len(block) - 1:
                one += 1
            product = one if product is None else product.mul_(one)
        assert product is not None
        return product

    def distances(self, rows: slice, centers: Vectors) -> Tensor:
        """Squared distances `(rows, c)` in `dtype`, within `slack`."""
        block, others = self.block(rows), centers.block(slice(None))
        found = self.products(block, others).mul_(-2)
        found += self._squares_of(block)[:, None]
        found += self._squares_of(others)
        return found.clamp_min_(0)

    def nearest(self, centers: Vectors) -> tuple[Tensor, Tensor]:
        """Squared distance to the nearest centre, `(n,)` in `dtype`, within `slack`; and which it is."""
        distance = torch.empty(len(self), dtype=self.dtype, device=self.device)
        place = torch.empty(len(self), dtype=torch.long, device=self.device)
        others = centers.block(slice(None))
        if self._by_faiss(len(centers)):
            import faiss

            with _faiss_threads():
                wanted = np.ascontiguousarray(others[0].numpy())
                for rows in self.chunks():
                    found = faiss.knn(np.ascontiguousarray(self.block(rows)[0].numpy()), wanted, 1)
                    distance[rows] = torch.from_numpy(found[0][:, 0])
                    place[rows] = torch.from_numpy(found[1][:, 0])
            return distance.clamp_min_(0), place
        halves = self._squares_of(others) / 2
        for rows in self.chunks():
            block = self.block(rows)
            closeness = self.products(block, others).sub_(halves)
            value, place[rows] = closeness.max(1)
            distance[rows] = self._squares_of(block) - 2 * value
        return distance.clamp_min_(0), place

    def near(self, centers: Vectors, squares: Tensor) -> Tensor:
        """The distances of `nearest` alone, of rows whose squared lengths are known."""
        if self.backend == "faiss" and self._by_faiss(len(centers)):
            return self.nearest(centers)[0]
        others = centers.block(slice(None))
        halves = self._squares_of(others) / -2
        found = torch.empty_like(squares)
        for rows in self.chunks():
            block = self.block(rows)
            if len(block) == 1:
                closeness = torch.addmm(halves, block[0], others[0].T)
            else:
                closeness = self.products(block, others).add_(halves)
            torch.sub(squares[rows], closeness.amax(1), alpha=2, out=found[rows])
        found.clamp_min_(0)
        return found

    def _by_faiss(self, centers: int) -> bool:
        """Measured: on a CPU, FAISS is as fast or faster from some centres on (benchmarks/k_center.py).

        Elsewhere than in Linux its wheels and torch's bring two runtimes of OpenMP that abort each other, so
        it is imported there on demand only (docs/faiss.md).
        """
        if self.backend == "torch" or len(self.factors) > 1 or self.device.type != "cpu":
            return False
        if self.dtype != torch.float32:
            return False
        return self.backend == "faiss" or (sys.platform == "linux" and centers >= _FAISS_FROM)

    def slack(self, squares: Tensor, distances: Tensor) -> Tensor:
        """How far `distances` to the nearest of some centres may be off, for rows of such squared lengths.

        Rounding to float32 (or float64, where they are made in it), at more than seven standard deviations
        of its sums over `width` terms, and what is too small to be squared; the centre is no longer than the
        row and the distance together.
        """
        precision = torch.finfo(distances.dtype)
        error: float = 2 * precision.eps * max(8.0, self.width**0.5)
        return (error * (3 * squares + distances)).add_(self.width * precision.tiny)

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
        return _unit(rows) if self.unit else rows


def _unit(rows: Tensor) -> Tensor:
    """Rows of length one."""
    length: Tensor = torch.linalg.vector_norm(rows, dim=1, keepdim=True)
    small = length < 1e-15  # their squares may be too small to be numbers
    if bool(small.any()):
        rows = torch.where(small, rows / rows.abs().amax(1, keepdim=True), rows)
        length = torch.linalg.vector_norm(rows, dim=1, keepdim=True)
    return rows / length


@contextmanager
def exact_arithmetic(device: torch.device) -> Iterator[None]:
    """Float32 products in float32, whatever the user allowed for training; no gradients.

    After a fork, one thread: those that the parent had are gone, and waiting for them would never end.
    """
    threads = torch.get_num_threads()
    forked = os.getpid() != _PROCESS and threads > 1
    if forked:
        torch.set_num_threads(1)
    try:
        with _highest_precision(), torch.no_grad(), torch.autocast(device.type, enabled=False):
            yield
    finally:
        if forked:
            torch.set_num_threads(threads)


@contextmanager
def _highest_precision() -> Iterator[None]:
    """Torch has two ways to say it, and refuses the older one once the newer one was used."""
    places = (torch.backends.cuda, getattr(torch.backends, "mkldnn", None))
    matmuls = (getattr(place, "matmul", None) for place in places)
    newer: list[Any] = [matmul for matmul in matmuls if hasattr(matmul, "fp32_precision")]
    said = [m.fp32_precision for m in newer]
    try:
        before = torch.get_float32_matmul_precision()
    except RuntimeError:
        before = None
    if before is None:
        for matmul in newer:
            matmul.fp32_precision = "ieee"
    else:
        torch.set_float32_matmul_precision("highest")
    try:
        yield
    finally:
        if before is not None:
            torch.set_float32_matmul_precision(before)
        for matmul, precision in zip(newer, said, strict=True):  # the older way sets more than it reads
            matmul.fp32_precision = precision


@contextmanager
def _faiss_threads() -> Iterator[None]:
    """As many as torch was told to use."""
    import faiss

    before = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(torch.get_num_threads())
    try:
        yield
    finally:
        faiss.omp_set_num_threads(before)


def check_matrix(matrix: Tensor, name: str) -> None:
    """Refuse what is no floating-point matrix `(N, D)`, D > 0."""
    if not isinstance(matrix, Tensor):
        raise TypeError(
            f"`{name}` is a `{type(matrix).__name__}`; needed is a tensor. Pass "
            f"`torch.as_tensor({name})`, which copies nothing, also of a memory-mapped array."
        )
    if not matrix.is_floating_point():
        raise TypeError(
            f"`{name}` is of type {matrix.dtype}; needed are real floating-point numbers. Convert with "
            f"`{name}.float()`"
            + (", or pass real and imaginary parts side by side." if matrix.is_complex() else ".")
        )
    if matrix.ndim != 2 or matrix.shape[1] == 0:
        raise ValueError(
            f"`{name}` has shape {tuple(matrix.shape)}; needed is one vector a sample, (N, D) with D > 0. "
            "Pool over places or tokens first."
        )


def _check_backend(backend: str, tensor: Tensor) -> None:
    if backend not in ("auto", "faiss", "torch"):
        raise ValueError(f'`backend` is {backend!r}; needed is "auto", "faiss" or "torch".')
    if backend == "faiss" and isinstance(tensor, Tensor) and tensor.device.type != "cpu":
        raise ValueError(
            f'`backend` is "faiss" for embeddings on {tensor.device}; FAISS works on the CPU here. Use '
            '"auto", which computes on the device, or move them with `.cpu()`.'
        )


def _largest(vectors: Vectors, name: str, shard: Shard | None) -> float | None:
    """The largest number by size, over all ranks; the same pass finds rows that are not finite."""
    largest, found = 0.0, len(vectors) > 0
    for rows in vectors.chunks():
        low, high = vectors.given(rows)[0].aminmax()
        here = max(-float(low), float(high))
        if not here < torch.inf or bool(low.isnan()):
            _refuse_rows(
                ~vectors.given(rows)[0].isfinite().all(1), rows.start, name, shard, "NaN or infinite"
            )
        largest = max(largest, here)
    if shard is not None:
        said = [value for value in shard.gather_objects(largest if found else None) if value is not None]
        return max(said) if said else None
    return largest if found else None


def _refuse_zero_rows(vectors: Vectors, name: str, shard: Shard | None) -> None:
    for rows in vectors.chunks():
        zero = (vectors.given(rows)[0] == 0).all(1)
        if bool(zero.any()):
            _refuse_rows(zero, rows.start, name, shard, "zero, which has no direction,")


def _refuse_rows(wrong: Tensor, start: int, name: str, shard: Shard | None, what: str) -> None:
    rows = wrong.nonzero().squeeze(1).cpu() + start
    where = rows if shard is None else shard.positions[rows]
    raise ValueError(
        f"`{name}` is {what} in rows {where[:5].tolist()}{' and more' if len(where) > 5 else ''}; distances "
        "to them do not exist. Find out which samples these are, and repair or leave them out."
    )


def as_tensor(array: np.ndarray) -> Tensor:
    """A tensor over the same memory or file; a read-only one is not written to here."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch warns of read-only memory
        return torch.from_numpy(array)

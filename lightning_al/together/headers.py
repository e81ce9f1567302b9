"""HEADERS: what each rank brings to an exchange, and what is wrong if that differs.

A header is a few whole numbers, told to all before anything else is: how many rows or bytes follow, and of
which kind. Ranks that would exchange different things find out, and no backend is asked to.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum

import torch
from torch import Tensor

__all__ = ["Header", "Kind", "difference"]

_DTYPES = sorted({str(kind) for kind in vars(torch).values() if isinstance(kind, torch.dtype)})
_SIZES = 5  # of a row; what more there are count as one


class Kind(IntEnum):
    """What a rank comes for."""

    ROWS = 0
    OBJECT = 1
    ANSWER = 2  # of rank 0
    END = 3
    FAILED = 4


@dataclass(frozen=True)
class Header:
    """What one rank brings.

    Args:
        kind: What it comes for.
        size: How many rows or bytes follow; how many positions were chosen.
        detail: Of rows: their type, number of sizes, and these. Of an end: a digest and the first three
            positions.
        number: Of the exchange.
        depth: In how many blocks the rank is.
    """

    kind: Kind
    size: int = 0
    detail: tuple[int, ...] = ()
    number: int = 0
    depth: int = 0

    @classmethod
    def of_rows(cls, rows: Tensor) -> Header:
        """Of a tensor that is gathered."""
        sizes = tuple(rows.shape[1:])
        if len(sizes) > _SIZES:
            sizes = (*sizes[: _SIZES - 1], math.prod(sizes[_SIZES - 1 :]))
        return cls(Kind.ROWS, len(rows), (_DTYPES.index(str(rows.dtype)), rows.ndim - 1, *sizes))

    @classmethod
    def of_end(cls, chosen: Tensor | None) -> Header:
        """Of a block, in which perhaps something was chosen that must be the same."""
        if chosen is None:
            return cls(Kind.END)
        positions = chosen.detach().cpu().long().numpy()
        digest = int.from_bytes(hashlib.sha256(positions.tobytes()).digest()[:7], "big")
        return cls(Kind.END, len(positions), (digest, *positions[:3].tolist()))

    def packed(self, number: int, depth: int) -> list[int]:
        """As so many whole numbers as every other."""
        rest = [0] * (2 + _SIZES - len(self.detail))
        return [number, depth, self.kind, self.size, len(self.detail), *self.detail, *rest]

    @classmethod
    def unpacked(cls, numbers: Sequence[int]) -> Header:
        """From these numbers."""
        number, depth, kind, size, count, *detail = numbers
        return cls(Kind(kind), size, tuple(detail[:count]), number, depth)

    def __str__(self) -> str:
        if self.kind == Kind.ROWS:
            dtype, _, *sizes = self.detail
            shape = ", ".join(["n", *map(str, sizes)])
            return f"gathers rows of shape ({shape}) and type {_DTYPES[dtype].removeprefix('torch.')}"
        if self.kind == Kind.OBJECT:
            return "gathers an object"
        return "waits for the answer of rank 0" if self.kind == Kind.ANSWER else "has ended"


def difference(told: Sequence[Header], what: str) -> str | None:
    """What is wrong if ranks did not come for the same, in words that all find alike.

    Args:
        told: By rank.
        what: Of what they are in.
    """
    first = told[0]
    for rank, other in enumerate(told):
        if other.kind != first.kind or (first.kind == Kind.ROWS and other.detail != first.detail):
            return (
                f"{what} is out of step: rank 0 {first}, while rank {rank} {other}. Every rank must exchange "
                "the same, as often and in the same order. Do not let this depend on the rows that a rank "
                "holds, or on its number."
            )
        if first.kind == Kind.END and (other.size, other.detail) != (first.size, first.detail):
            return (
                f"{what} chose otherwise on other ranks: rank 0 has {_chosen(first)}, rank {rank} "
                f"{_chosen(other)}; needed are the same positions on every rank. Choose by what "
                "`shard.gather` tells all of them, and draw from the `generator` that is given, as often on "
                "each."
            )
    return None


def _chosen(header: Header) -> str:
    shown = ", ".join(map(str, header.detail[1:]))
    return f"{header.size} positions, [{shown}{', ...' if header.size > 3 else ''}]"

"""Which rows of a pool this process holds, and how processes tell each other what they found.

    rows of this rank + Shard -> [selection] -> the same global positions on every rank

The pool is cut into fixed blocks of consecutive positions and rank r holds blocks r, r + world, ...
A batch therefore has the same rows on any number of ranks, and so have its floating-point results.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from lightning_al.together import Ranks, ranks_of, together
from lightning_al.together.failing import Ending

__all__ = ["Shard"]


@dataclass(frozen=True)
class Shard:
    """The global positions of this rank's rows, and the process group that holds the others.

    Args:
        positions: Global positions of the rows held here, ascending, shape `(n,)`.
        total: Number of rows over all ranks.
        group: Process group whose ranks hold the rest; `None` when this process holds them all.
        samples: Data set indices of the rows held here, `(n,)`, by which messages name rows; `None`: by
            position.

    Example:
        >>> Shard.blocks(total=7, block_size=2, rank=1, world_size=2).positions
        tensor([2, 3, 6])
        >>> Shard.whole(3).positions
        tensor([0, 1, 2])
    """

    positions: Tensor
    total: int
    group: Any = None
    samples: Tensor | None = None

    @classmethod
    def whole(cls, total: int) -> Shard:
        """Every row is here."""
        return cls(torch.arange(total), total)

    @classmethod
    def blocks(
        cls, total: int, block_size: int, *, rank: int = 0, world_size: int = 1, group: Any = None
    ) -> Shard:
        """Blocks `rank`, `rank + world_size`, ... of `block_size` consecutive positions."""
        positions = torch.arange(total)
        mine = (positions // block_size) % world_size == rank
        return cls(positions[mine], total, group)

    @property
    def world_size(self) -> int:
        """Number of ranks that share the pool."""
        return 1 if self.ranks is None else self.ranks.size

    @property
    def rank(self) -> int:
        """Of this process in the group."""
        return 0 if self.ranks is None else self.ranks.rank

    @property
    def ranks(self) -> Ranks | None:
        """Those that share the pool; `None`: this process holds all of it."""
        ranks = None if self.group is None else ranks_of(self.group)
        return None if ranks is None or ranks.size == 1 else ranks

    def of_rows(self, rows: Tensor) -> Shard:
        """The same pool, of which some of the rows held here are looked at."""
        samples = None if self.samples is None else self.samples[rows]
        return replace(self, positions=self.positions[rows], samples=samples)

    def held(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Which of these positions are of rows held here, `(m,)`, and of which rows, `(m,)`.

        Example:
            >>> Shard(torch.tensor([2, 3, 6]), total=7).held(torch.tensor([6, 0, 2]))
            (tensor([0, 2]), tensor([2, 0]))
        """
        if len(self.positions) == 0:
            return positions.new_empty(0), positions.new_empty(0)
        rows = torch.searchsorted(self.positions, positions).clamp_(max=len(self.positions) - 1)
        which = (self.positions[rows] == positions).nonzero().squeeze(1)
        return which, rows[which]

    def check(self, rows: int, name: str) -> None:
        """Refuse more or fewer rows than are held here.

        Raises:
            ValueError: If they are.
        """
        if rows != len(self.positions):
            raise ValueError(
                f"`{name}` has {rows} rows, but `shard` says that {len(self.positions)} are here. Pass the "
                "rows at `shard.positions`, and no others."
            )

    def named(self, wrong: Tensor) -> str:
        """Some of the rows held here, in words.

        Args:
            wrong: Which of them, `(n,)` of booleans.

        Example:
            >>> Shard.whole(3).named(torch.tensor([False, True, True]))
            'at positions [1, 2]'
        """
        rows = wrong.nonzero().squeeze(1).cpu()
        if self.samples is None:
            where, names = "at positions", self.positions
        else:
            where, names = "in samples", self.samples
        return f"{where} {names[rows[:5]].tolist()}{' and more' if len(rows) > 5 else ''}"

    def together(self, what: str = "The selection") -> AbstractContextManager[Ending]:
        """A rank that fails in the block makes all fail, with its message, instead of leaving them waiting.

        In the block ranks exchange by `gather` and `gather_objects`, or not at all; see
        `lightning_al.together`.

        Args:
            what: Is done, for the message.

        Raises:
            RuntimeError: If another rank failed.
        """
        return together(self.ranks, what)

    def gather(self, tensor: Tensor, counts: Sequence[int] | None = None) -> Tensor:
        """Rows of all ranks, those of rank 0 first.

        Args:
            tensor: Those of this rank; ranks may hold different numbers of them.
            counts: How many each rank holds, if all know. They tell each other all the same: one may have
                failed, or know otherwise.

        Raises:
            RuntimeError: If another rank failed, or exchanges something else.
        """
        return tensor if self.ranks is None else self.ranks.gather(tensor, counts)

    def gather_objects(self, value: Any) -> list[Any]:
        """One small Python object from every rank, in rank order; errors as in `gather`."""
        return [value] if self.ranks is None else self.ranks.gather_objects(value)

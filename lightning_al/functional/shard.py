"""Which rows of a pool this process holds, and how processes tell each other what they found.

    rows of this rank + Shard -> [selection] -> the same global positions on every rank

The pool is cut into fixed blocks of consecutive positions and rank r holds blocks r, r + world, ...
A batch therefore has the same rows on any number of ranks, and so have its floating-point results.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

__all__ = ["Shard"]


@dataclass(frozen=True)
class Shard:
    """The global positions of this rank's rows, and the process group that holds the others.

    Args:
        positions: Global positions of the rows held here, ascending, shape `(n,)`.
        total: Number of rows over all ranks.
        group: Process group whose ranks hold the rest; `None` when this process holds them all.

    Example:
        >>> Shard.blocks(total=7, block_size=2, rank=1, world_size=2).positions
        tensor([2, 3, 6])
        >>> Shard.whole(3).positions
        tensor([0, 1, 2])
    """

    positions: Tensor
    total: int
    group: Any = None

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
        return 1 if self.group is None else dist.get_world_size(self.group)

    def gather(self, tensor: Tensor) -> Tensor:
        """Rows of all ranks, those of rank 0 first; ranks may hold different numbers of rows."""
        if self.world_size == 1:
            return tensor
        device = torch.device("cuda") if dist.get_backend(self.group) == "nccl" else "cpu"
        local = tensor.to(device).contiguous()
        counts = [torch.zeros(1, dtype=torch.long, device=device) for _ in range(self.world_size)]
        count = torch.tensor([len(local)], device=device)
        dist.all_gather(counts, count, group=self.group)
        longest = int(max(int(c) for c in counts))
        padded = local.new_zeros((longest, *local.shape[1:]))
        padded[: len(local)] = local
        parts = [torch.empty_like(padded) for _ in range(self.world_size)]
        dist.all_gather(parts, padded, group=self.group)
        rows = [part[: int(c)] for part, c in zip(parts, counts, strict=True)]
        return torch.cat(rows).to(tensor.device)

    def gather_objects(self, value: Any) -> list[Any]:
        """One small Python object from every rank, in rank order."""
        if self.world_size == 1:
            return [value]
        values: list[Any] = [None] * self.world_size
        dist.all_gather_object(values, value, group=self.group)
        return values

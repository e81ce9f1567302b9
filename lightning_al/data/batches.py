"""BATCHES: which rows of the labelled set a rank trains on, batch by batch.

A sampler of whole batches (the loader's own batching is off), so that a round can have a fixed number
of steps however few its labels, and no batch is left with a single sample.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Generator, Tensor
from torch.utils.data import Sampler
from torch.utils.data.distributed import DistributedSampler

from lightning_al.randomness import generator_for

__all__ = ["Blocks", "TrainBatches"]


class TrainBatches(DistributedSampler[list[int]]):
    """Shuffled batches of row numbers; every rank gets as many.

    Being a `DistributedSampler`, Lightning neither replaces it nor forgets to tell it the epoch. The
    order depends on `seed` and epoch alone, not on torch's global generator.

    Args:
        num_rows: Number of labelled samples.
        batch_size: Samples a batch and rank; never more than there are.
        seed: Of the order.
        steps: Batches an epoch, drawn from one permutation after another; `None`: each sample once.
        drop_last: Leave out a last smaller batch, unless it is the only one.
        rank: This process.
        world_size: Number of processes.

    Example:
        >>> [len(batch) for batch in TrainBatches(9, 4, seed=0)]
        [4, 5]
        >>> [len(batch) for batch in TrainBatches(9, 4, seed=0, steps=3)]
        [4, 4, 4]
    """

    def __init__(
        self,
        num_rows: int,
        batch_size: int,
        *,
        seed: int,
        steps: int | None = None,
        drop_last: bool = False,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        rows: Any = range(num_rows)
        super().__init__(rows, num_replicas=world_size, rank=rank, seed=seed)
        self.num_rows, self.batch_size, self.steps = num_rows, batch_size, steps
        self.drop_short = drop_last

    def __iter__(self) -> Iterator[list[int]]:
        generator = generator_for(self.seed, "order", self.epoch)
        return self._fixed(generator) if self.steps is not None else self._epoch(generator)

    def __len__(self) -> int:
        if self.steps is None:
            return len(self._sizes())
        return self.steps if self.num_rows else 0

    def _epoch(self, generator: Generator) -> Iterator[list[int]]:
        order = torch.randperm(self.num_rows, generator=generator)
        padding = -self.num_rows % self.num_replicas
        mine = torch.cat([order, order[:padding]])[self.rank :: self.num_replicas]
        for batch in torch.split(mine[: sum(self._sizes())], self._sizes()):
            yield batch.tolist()

    def _sizes(self) -> list[int]:
        rows = math.ceil(self.num_rows / self.num_replicas)
        full, rest = divmod(rows, self.batch_size)
        sizes = [self.batch_size] * full
        if rest == 0 or (self.drop_short and full):
            return sizes
        if rest == 1 and full:  # BatchNorm cannot train on one sample
            sizes[-1] += 1
            return sizes
        return [*sizes, rest]

    def _fixed(self, generator: Generator) -> Iterator[list[int]]:
        if not self.num_rows:
            return
        share = max(2, math.ceil(self.num_rows / self.num_replicas))
        size = min(self.batch_size, share, self.num_rows)
        stream = torch.empty(0, dtype=torch.long)
        for _ in range(self.steps or 0):
            while len(stream) < size * self.num_replicas:
                stream = torch.cat([stream, torch.randperm(self.num_rows, generator=generator)])
            step, stream = stream[: size * self.num_replicas], stream[size * self.num_replicas :]
            yield step[self.rank * size : (self.rank + 1) * size].tolist()


class Blocks(Sampler[list[int]]):
    """The given positions, `block_size` at a time: the batches in which a pool is scored."""

    def __init__(self, positions: Tensor, block_size: int) -> None:
        self.positions, self.block_size = positions, block_size

    def __iter__(self) -> Iterator[list[int]]:
        for block in torch.split(self.positions, self.block_size):
            if len(block):
                yield block.tolist()

    def __len__(self) -> int:
        return math.ceil(len(self.positions) / self.block_size)

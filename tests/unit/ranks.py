"""Several ranks in one process: threads that meet whenever they gather. True processes: tests/distributed."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch
from torch import Tensor

from lightning_al.functional import Shard
from lightning_al.together import Ranks
from lightning_al.together.word import Word

__all__ = ["RankShard", "counting", "on_ranks"]


class Meeting:
    def __init__(self, world_size: int) -> None:
        self.barrier = threading.Barrier(world_size, timeout=300)
        self.brought: list[Any] = [None] * world_size

    def exchange(self, rank: int, value: Any) -> list[Any]:
        self.brought[rank] = value
        self.barrier.wait()
        everything = list(self.brought)
        self.barrier.wait()
        return everything


class Threads(Ranks):
    """`Ranks` that are threads."""

    def __init__(self, meeting: Meeting, rank: int) -> None:
        self.meeting, self.size, self.rank = meeting, len(meeting.brought), rank
        self.device, self.within = torch.device("cpu"), []
        self.word = Word("threads")  # without a store
        self._number, self._looked = 0, 0.0

    def all_gather(self, tensor: Tensor) -> list[Tensor]:
        brought = self.meeting.exchange(self.rank, tensor)
        assert all((part.shape, part.dtype) == (tensor.shape, tensor.dtype) for part in brought)
        return brought


class RankShard(Shard):
    """A `Shard` whose other ranks are threads."""


def counting(shard: RankShard, told: list[int]) -> RankShard:
    """The same, which notes how many numbers this rank brings to each exchange."""

    class Counted(type(shard)):
        def gather(self, tensor: Tensor, counts: Sequence[int] | None = None) -> Tensor:
            told.append(tensor.numel())
            return super().gather(tensor, counts)

    return Counted(**vars(shard))


def on_ranks(world_size: int, total: int, block_size: int, work: Callable[[RankShard], Any]) -> list[Any]:
    """What `work` returns on every rank."""
    meeting = Meeting(world_size)

    def run(rank: int) -> Any:
        try:
            cut = Shard.blocks(total, block_size, rank=rank, world_size=world_size)
            return work(RankShard(cut.positions, total, Threads(meeting, rank)))
        except BaseException:
            meeting.barrier.abort()
            raise

    with ThreadPoolExecutor(world_size) as pool:
        return list(pool.map(run, range(world_size)))

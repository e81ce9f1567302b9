"""Several ranks in one process: threads that meet whenever they gather. True processes: tests/distributed."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from lightning_al.functional import Shard

__all__ = ["RankShard", "on_ranks"]


class Meeting:
    def __init__(self, world_size: int) -> None:
        self.barrier = threading.Barrier(world_size, timeout=20)
        self.brought: list[Any] = [None] * world_size

    def exchange(self, rank: int, value: Any) -> list[Any]:
        self.brought[rank] = value
        self.barrier.wait()
        everything = list(self.brought)
        self.barrier.wait()
        return everything


@dataclass(frozen=True)
class RankShard(Shard):
    """A `Shard` whose other ranks are threads."""

    rank: int = 0
    meeting: Any = None

    @property
    def world_size(self) -> int:
        return len(self.meeting.brought)

    def gather(self, tensor: Tensor, counts: Sequence[int] | None = None) -> Tensor:
        brought = self.meeting.exchange(self.rank, tensor)
        assert counts is None or [len(part) for part in brought] == list(counts)
        return torch.cat(brought)

    def gather_objects(self, value: Any) -> list[Any]:
        return self.meeting.exchange(self.rank, value)


def on_ranks(world_size: int, total: int, block_size: int, work: Callable[[RankShard], Any]) -> list[Any]:
    """What `work` returns on every rank."""
    meeting = Meeting(world_size)

    def run(rank: int) -> Any:
        try:
            cut = Shard.blocks(total, block_size, rank=rank, world_size=world_size)
            return work(RankShard(cut.positions, total, "threads", rank=rank, meeting=meeting))
        except BaseException:
            meeting.barrier.abort()
            raise

    with ThreadPoolExecutor(world_size) as pool:
        return list(pool.map(run, range(world_size)))

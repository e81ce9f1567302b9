"""RUNS: draws in proportion to weights that no rank has all of.

weights of the rows here -> [one sum a run, told to all ranks] -> a number -> which rank holds its row

A *run* is a stretch of consecutive positions of one rank, such as a block that it scored. Every rank knows
the sum of each run, and its own rows: eight bytes a run are told, whatever its length.
"""

from __future__ import annotations

import torch
from torch import Tensor

from lightning_al.functional.shard import Shard

__all__ = ["Runs"]


class Runs:
    """The weights of the rows held here, and what those of others add up to.

    Args:
        shard: Which rows of the pool are held here.
        device: Where the weights are.
    """

    def __init__(self, shard: Shard, device: torch.device) -> None:
        self.shard = shard
        mine = shard.positions
        begins = torch.ones(len(mine), dtype=torch.bool)
        begins[1:] = mine[1:] != mine[:-1] + 1
        self.begins = begins.nonzero().squeeze(1)  # rows here that are the first of a run
        number = torch.arange(len(self.begins))
        rank = torch.full_like(number, shard.rank)
        told = shard.gather(torch.stack([mine[self.begins], rank, number], 1))
        self.counts = torch.bincount(told[:, 1], minlength=shard.world_size).tolist()
        self.order = told[:, 0].argsort()  # of the runs of all ranks, by position
        self.owners, self.numbers = told[self.order, 1], told[self.order, 2]
        self.cumulative = torch.empty(0, dtype=torch.long, device=device)  # of the rows here
        self.before = self.cumulative.cpu()  # of the rows here before each run
        self.sums = self.ends = self.before  # of all runs, by position

    @property
    def total(self) -> int:
        """Of all weights."""
        return int(self.ends[-1]) if len(self.ends) else 0

    def spread(self, weights: Tensor) -> None:
        """Let every rank know the sums.

        Args:
            weights: Of the rows held here, whole numbers, `(n,)` in int64.
        """
        self.cumulative = weights.cumsum(0)
        ends = torch.cat([self.cumulative.new_zeros(1), self.cumulative])
        edges = torch.cat([self.begins, torch.tensor([len(weights)])]).to(ends.device)
        edges = ends[edges].cpu()
        self.before = edges[:-1]
        self.sums = self.shard.gather(edges[1:] - edges[:-1], self.counts)[self.order]
        self.ends = self.sums.cumsum(0)

    def rows_at(self, targets: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """On which rows whole numbers from 0 to below `total` fall.

        Args:
            targets: `(k,)` in int64.

        Returns:
            The rank that holds each row, `(k,)`; which of the targets fall on rows held here, `(m,)`; and
            these rows.
        """
        run = torch.searchsorted(self.ends, targets, right=True)
        owner = self.owners[run]
        mine = (owner == self.shard.rank).nonzero().squeeze(1)
        run = run[mine]
        rest = targets[mine] - (self.ends[run] - self.sums[run])
        place = (self.before[self.numbers[run]] + rest).to(self.cumulative.device)
        return owner, mine, torch.searchsorted(self.cumulative, place, right=True)

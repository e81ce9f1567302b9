"""RANDOM: the baseline that every strategy has to beat."""

from __future__ import annotations

import torch
from torch import Generator, Tensor

from lightning_al.acquisition.base import Acquisition, Selection
from lightning_al.inference.outputs import Outputs
from lightning_al.inference.summary import Summary

__all__ = ["Random"]


class Random(Acquisition):
    """Asks for samples drawn uniformly; nothing is forwarded.

    Example:
        >>> Random()
        Random()
    """

    def summarize(self, outputs: Outputs) -> dict[str, Tensor]:  # noqa: D102
        return {}

    def select(  # noqa: D102
        self, pool: Summary, query_size: int, *, labeled: Summary | None, generator: Generator
    ) -> Selection:
        del labeled
        positions = torch.randperm(pool.shard.total, generator=generator)[:query_size]
        return Selection(positions, torch.zeros(len(positions)))

"""SUMMARY: what is kept of each sample of this rank's share."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

import torch
from torch import Tensor

from lightning_al.functional.shard import Shard

__all__ = ["Summary"]


class Summary(Mapping[str, Tensor]):
    """Tensors with one row a sample held here, and the `Shard` that says which samples these are.

    Args:
        tensors: Each `(n, ...)`, on the CPU.
        shard: Global positions of the `n` rows.
    """

    def __init__(self, tensors: Mapping[str, Tensor], shard: Shard) -> None:
        self.tensors, self.shard = dict(tensors), shard

    def __getitem__(self, name: str) -> Tensor:
        return self.tensors[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.tensors)

    def __len__(self) -> int:
        return len(self.tensors)

    def of_positions(self, positions: Tensor) -> Summary:
        """Those of the given global positions, ascending, that are held here: a smaller pool of their own."""
        place = torch.searchsorted(positions, self.shard.positions).clamp_max(max(0, len(positions) - 1))
        here = positions[place] == self.shard.positions if len(positions) else place.bool()
        shard = replace(self.shard, positions=place[here], total=len(positions))
        return Summary({name: rows[here] for name, rows in self.tensors.items()}, shard)

    @classmethod
    def of_parts(cls, parts: list[dict[str, Tensor]], shard: Shard) -> Summary:
        """Join batches in order; a rank without a batch gets empty tensors like the others' ones."""
        joined = {name: torch.cat([part[name] for part in parts]) for name in (parts[0] if parts else {})}
        like = {name: (tuple(rows.shape[1:]), rows.dtype) for name, rows in joined.items()}
        for known in shard.gather_objects(like):
            if not joined and known:
                joined = {name: torch.empty(0, *shape, dtype=dtype) for name, (shape, dtype) in known.items()}
        return cls(joined, shard)

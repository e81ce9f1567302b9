"""SUMMARY: what is kept of each sample of this rank's share."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
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
        indices: Their places in the data set, `(n,)`, where these are known.
    """

    def __init__(self, tensors: Mapping[str, Tensor], shard: Shard, indices: Tensor | None = None) -> None:
        self.tensors, self.shard, self.indices = dict(tensors), shard, indices

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
        indices = None if self.indices is None else self.indices[here]
        return Summary({name: rows[here] for name, rows in self.tensors.items()}, shard, indices)

    def only(self, names: Iterable[str]) -> Summary:
        """Some of the tensors."""
        return Summary({name: self.tensors[name] for name in names}, self.shard, self.indices)

    def gathered(self, rows: Tensor) -> Tensor:
        """Rows held here and by all other ranks, in the order of their positions."""
        order = self.shard.gather(self.shard.positions).argsort()
        return self.shard.gather(rows)[order]

    @classmethod
    def of_rank(cls, tensors: Mapping[str, Tensor], shard: Shard, indices: Tensor | None = None) -> Summary:
        """What this rank found; one without a batch gets empty tensors like the others' ones."""
        like = {name: (tuple(rows.shape[1:]), rows.dtype) for name, rows in tensors.items()}
        for known in shard.gather_objects(like):
            if not tensors and known:
                tensors = {
                    name: torch.empty(0, *shape, dtype=dtype) for name, (shape, dtype) in known.items()
                }
        return cls(tensors, shard, indices)

"""SUMMARY: what is kept of each sample of this rank's share."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

import torch
from torch import Tensor

from lightning_al.functional.shard import Shard
from lightning_al.inference.kept_rows import KeptRows, Room, bytes_of_row

__all__ = ["Summary"]

_COPIED_BYTES = 2**22  # at a time: what stays in the cache


class Summary(Mapping[str, Tensor]):
    """Tensors with one row a sample held here, and the `Shard` that says which samples these are.

    Args:
        tensors: Each `(n, ...)`, on the CPU, in memory or over a file.
        shard: Global positions of the `n` rows.
        room: Where a smaller pool made of this one is kept; `None`: in memory up to 2 GB.

    Example:
        >>> pool = Summary({"score": torch.tensor([0.1, 0.9, 0.4])}, Shard.whole(3))
        >>> best = pool.of_positions(torch.tensor([1, 2]))
        >>> best["score"], best.shard.positions, best.shard.total
        (tensor([0.9000, 0.4000]), tensor([0, 1]), 2)
    """

    def __init__(
        self,
        tensors: Mapping[str, Tensor],
        shard: Shard,
        room: Room | None = None,
    ) -> None:
        self.tensors, self.shard, self.room = dict(tensors), shard, room

    @property
    def indices(self) -> Tensor:
        """Data set indices of the rows, `(n,)`.

        Raises:
            ValueError: If they are not known.
        """
        if self.shard.samples is None:
            raise ValueError(
                "This `Summary` does not know which samples its rows are, by which vectors given once are "
                "found. Make it with `Shard(..., samples=indices)`."
            )
        return self.shard.samples

    def __getitem__(self, name: str) -> Tensor:
        return self.tensors[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.tensors)

    def __len__(self) -> int:
        return len(self.tensors)

    def of_positions(self, positions: Tensor) -> Summary:
        """Those of the given global positions, ascending, that are held here: a smaller pool of their own.

        Every rank must call it.

        Raises:
            OSError: If there is no room for the copy.
            RuntimeError: If another rank has none.
        """
        held_here = self.shard.positions
        before, upto = (torch.searchsorted(held_here, positions, right=right) for right in (False, True))
        held = upto > before
        rows = before[held]
        kept = KeptRows(len(rows), self.room)
        with self.shard.together():
            for some in torch.split(rows, 1 + _COPIED_BYTES // max(1, bytes_of_row(self.tensors))):
                kept.add({name: tensor.index_select(0, some) for name, tensor in self.tensors.items()})
        shard = replace(
            self.shard.of_rows(rows), positions=held.nonzero().squeeze(1), total=len(positions)
        )  # fmt: skip
        return Summary(kept.tensors, shard, self.room)

    def part(self, prefix: str) -> Summary:
        """The tensors whose names begin so, without that beginning."""
        tensors = {
            name.removeprefix(prefix): rows for name, rows in self.tensors.items() if name.startswith(prefix)
        }
        return Summary(tensors, self.shard, self.room)

    def gathered(self, rows: Tensor) -> Tensor:
        """Rows held here and by all other ranks, in the order of their positions."""
        if self.shard.world_size == 1:
            return rows
        order = self.shard.gather(self.shard.positions).argsort()
        return self.shard.gather(rows)[order]

    @classmethod
    def of_rank(
        cls,
        tensors: Mapping[str, Tensor],
        shard: Shard,
        room: Room | None = None,
    ) -> Summary:
        """What this rank found; one without a batch gets empty tensors like the others' ones.

        Raises:
            RuntimeError: If two ranks found different things; all raise it.
        """
        like = {name: (tuple(rows.shape[1:]), rows.dtype) for name, rows in tensors.items()}
        found = [(rank, one) for rank, one in enumerate(shard.gather_objects(like)) if one]
        for rank, other in found:
            first, known = found[0]
            if other != known:
                raise RuntimeError(
                    f"`summarize` returned different things: on rank {first} {_shown(known)}, on rank {rank} "
                    f"{_shown(other)}; needed are the same names, shapes and types on every rank. Do not let "
                    "them depend on the rank or on its samples."
                )
            if not tensors:
                tensors = {
                    name: torch.empty(0, *shape, dtype=dtype) for name, (shape, dtype) in known.items()
                }
        return cls(tensors, shard, room)


def _shown(like: Mapping[str, tuple[tuple[int, ...], torch.dtype]]) -> str:
    parts = [
        f"{name!r} of shape {('n', *shape)} and type {str(kind).removeprefix('torch.')}".replace("'n'", "n")
        for name, (shape, kind) in like.items()
    ]
    return ", ".join(parts)

"""OUTCOME: a selection that fails on one rank fails on all, also where they wait for it in an exchange.

    select -> gather, gather, ... -> the end, where all meet once more

Ranks that select meet in exchanges of their `Shard` only. Each begins with how many rows a rank brings; one
that failed brings a number that says so.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, fields
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.distributed_c10d import AllgatherOptions

from lightning_al.functional.shard import Shard
from lightning_al.inference.summary import Summary

__all__ = ["heard_by_all", "reachable"]

#: How long a rank that failed waits for the others to come to their next exchange.
_PATIENCE = timedelta(seconds=10)
_DONE, _FAILED = -1, -2


class _OtherError(RuntimeError):
    """What another rank found wrong, as all know."""


@dataclass(frozen=True)
class _Reachable(Shard):
    """A `Shard` in whose exchanges ranks learn of one that failed."""

    def gather(self, tensor: Tensor, counts: Sequence[int] | None = None) -> Tensor:
        # Also where all know how many rows each brings: one may have failed.
        local = tensor.to(self._device).contiguous()
        counts = self._meet(len(local))
        padded = local.new_zeros((max(counts), *local.shape[1:]))
        padded[: len(local)] = local
        parts = [torch.empty_like(padded) for _ in counts]
        dist.all_gather(parts, padded, group=self.group)
        return torch.cat([part[:count] for part, count in zip(parts, counts, strict=True)]).to(tensor.device)

    def gather_objects(self, value: Any) -> list[Any]:
        self._meet(0)
        return super().gather_objects(value)

    @property
    def _device(self) -> torch.device:
        return torch.device("cuda" if dist.get_backend(self.group) == "nccl" else "cpu")

    def _meet(self, mine: int, text: str | None = None) -> list[int]:
        """How many rows each rank brings.

        Raises:
            RuntimeError: If another rank failed, or takes other steps.
        """
        counts = [torch.zeros(1, dtype=torch.long, device=self._device) for _ in range(self.world_size)]
        count = torch.tensor([mine], device=self._device)
        options = AllgatherOptions()
        if mine == _FAILED:  # others may be in an exchange of their own, which ends when this one gives up
            options.timeout = _PATIENCE
        self.group.allgather([counts], [count], options).wait()
        found = [int(count) for count in counts]
        if _FAILED in found:
            said = super().gather_objects(text)
            if mine != _FAILED:
                raise _OtherError(next(text for text in said if text is not None))
        elif _DONE in found and len(set(found)) > 1:
            goes_on = next(rank for rank, count in enumerate(found) if count != _DONE)
            raise _OtherError(
                f"Rank {found.index(_DONE)} has selected while rank {goes_on} goes on: `select` must "
                "exchange as often on every rank. Do not let this depend on the rows that a rank holds."
            )
        return found


def reachable(part: Summary) -> Summary:
    """The same rows; whoever waits for another rank's hears of it if that one failed."""
    if part.shard.world_size == 1:
        return part
    shard = _Reachable(**{field.name: getattr(part.shard, field.name) for field in fields(Shard)})
    return Summary(part.tensors, shard, part.room)


@contextmanager
def heard_by_all(shard: Shard, name: str) -> Iterator[None]:
    """What fails in the block on one rank ends it on all, with its message.

    Args:
        shard: Of a `reachable` summary; exchanges in the block are such shards', and no others.
        name: Of what is tried.

    Raises:
        Exception: What this rank raised.
        RuntimeError: If another rank did.
    """
    if not isinstance(shard, _Reachable):
        yield
        return
    try:
        try:
            yield
        except _OtherError:
            raise
        except Exception as error:
            text = f"{name} failed on rank {dist.get_rank(shard.group)}: {type(error).__name__}: {error}"
            # At once: should the others not come, they may end this process before its traceback is printed.
            print(text, file=sys.stderr, flush=True)
            with suppress(RuntimeError):
                shard._meet(_FAILED, text)
            raise
        shard._meet(_DONE)
    except _OtherError as error:
        raise RuntimeError(str(error)) from None

"""WORD: what a rank that failed leaves in the process group's store, for those that are in no exchange."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import torch.distributed as dist

__all__ = ["Word"]

#: What the store raises if its process has ended, or if it is of a kind that cannot do it.
_GONE = (RuntimeError, NotImplementedError)


class Word:
    """Messages by the number of the exchange that a rank did not reach; none is there while all is well.

    Args:
        name: Of the process group.
    """

    def __init__(self, name: str) -> None:
        self._store = _store_of(name)

    def leave(self, number: int, text: str) -> None:
        """Unless another rank has left one already; nothing happens where there is no store."""
        if self._store is not None and self.heard(number) is None:
            with suppress(*_GONE):
                self._store.set(str(number), text)

    def heard(self, number: int) -> str | None:
        """What was left, if anything was. Cost: one question to the process that keeps the store."""
        if self._store is None:
            return None
        with suppress(*_GONE):
            if self._store.check([str(number)]):
                found: bytes = self._store.get(str(number))
                return found.decode(errors="replace")
        return None

    def take_back(self, number: int) -> None:
        """All know: nothing is to pile up there."""
        if self._store is not None:
            with suppress(*_GONE):
                self._store.delete_key(str(number))


def _store_of(name: str) -> Any:
    """A part of the store by which the processes met; `None` if torch keeps it elsewhere one day."""
    try:
        from torch.distributed.distributed_c10d import _get_default_store

        return dist.PrefixStore(f"lightning_al/{name}", _get_default_store())
    except (ImportError, ValueError):
        return None

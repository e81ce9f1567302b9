"""TOGETHER: what fails on one rank fails on all, instead of leaving them waiting for each other."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from lightning_al.functional.shard import Shard
from lightning_al.inference.posteriors import NotFiniteError

__all__ = ["together"]


@contextmanager
def together(shard: Shard) -> Iterator[None]:
    """A rank that fails makes all fail, with its message; every rank must come here.

    Nothing in the block may wait for other ranks.

    Raises:
        Exception: What this rank raised.
        RuntimeError: If another rank failed; the message says which and why.
    """
    failure: Exception | None = None
    text, finite = None, True
    try:
        yield
    except Exception as error:
        failure = error
        text = "\n".join([f"{type(error).__name__}: {error}", *getattr(error, "__notes__", [])])
        finite = not isinstance(error.__cause__, NotFiniteError)
    messages = shard.gather_objects((text, finite))
    if failure is not None:
        raise failure
    for rank, (message, other_finite) in enumerate(messages):
        if message is not None:
            cause = None if other_finite else NotFiniteError([])  # for a rehearsal to see
            raise RuntimeError(f"Scoring failed on rank {rank}: {message}") from cause

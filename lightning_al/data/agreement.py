"""AGREEMENT: what rank 0 found out is what every rank knows, its errors too."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from typing import Any, TypeVar

import torch.distributed as dist

__all__ = ["agree", "same_on_every_rank", "shared"]

T = TypeVar("T")


def shared() -> bool:
    """Whether there are other ranks to agree with."""
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


def agree(find: Callable[[], T]) -> T:
    """Run `find` on rank 0 and give its result to all; what it raises is raised by all."""
    if not shared():
        return find()
    answer: list[Any] = [None, None]
    if dist.get_rank() == 0:
        try:
            answer[0] = find()
        except BaseException as error:
            answer[1] = _picklable(error)
    dist.broadcast_object_list(answer, src=0)
    if answer[1] is not None:
        raise answer[1]
    return answer[0]  # type: ignore[no-any-return]


def same_on_every_rank(value: Any, what: str, advice: str) -> None:
    """Raise on every rank if `value` is not the same on all; the message shows both.

    Raises:
        RuntimeError: If it differs.
    """
    if not shared():
        return
    values: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(values, value)
    for rank, other in enumerate(values):
        if other != values[0]:
            raise RuntimeError(
                f"{what} differs between processes: rank 0 has {values[0]}, rank {rank} has {other}. {advice}"
            )


def _picklable(error: BaseException) -> BaseException:
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        return RuntimeError(f"{type(error).__name__} on rank 0: {error}")
    return error

"""AGREEMENT: what rank 0 found out is what every rank knows, its errors too."""

from __future__ import annotations

import hashlib
import pickle
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import torch.distributed as dist

from lightning_al.together.failing import failing
from lightning_al.together.ranks import Ranks, as_bytes, known, ranks_of, text_of

__all__ = ["agree", "gathered", "same_on_every_rank", "shared"]

T = TypeVar("T")


def shared() -> bool:
    """Whether there are other ranks to agree with."""
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


def agree(find: Callable[[], T]) -> T:
    """Run `find` on rank 0 and give its result to all; what it raises is raised by all.

    Raises:
        RuntimeError: Also if another rank failed, and does not come here.
    """
    if not shared():
        return find()
    ranks, payload = _all(), None
    if ranks.rank == 0:
        try:
            payload = as_bytes((find(), None))
        except BaseException as error:
            payload = as_bytes((None, _picklable(error)))
    answer, failure = ranks.answer(payload)
    if failure is not None:
        raise known(failure, f"{ranks.doing} failed on rank 0: {text_of(failure)}")
    return answer  # type: ignore[no-any-return]


def gathered(find: Callable[[], T], what: str = "A step") -> list[T]:
    """What `find` gives on every rank, in their order; what it raises on one ends all.

    Args:
        find: Gives something small.
        what: Is done, for the message.

    Raises:
        Exception: What this rank raised.
        RuntimeError: If another one did; the message says which and why.
    """
    if not shared():
        return [find()]
    with failing(_all(), what):
        value = find()
    return _all().gather_objects(value)


def same_on_every_rank(
    find: Callable[[], Mapping[str, Any]], advice: Mapping[str, str] | None = None
) -> None:
    """Raise on every rank if something that `find` names is not the same on all; the message shows both.

    Args:
        find: From names to values, which are compared as they are shown.
        advice: What to do about a name.

    Raises:
        RuntimeError: If something differs.
    """
    if not shared():
        return
    found = gathered(
        lambda: {name: _shown(value) for name, value in find().items()}, "Comparing the processes"
    )
    for rank, other in enumerate(found):
        for name in {**found[0], **other}:
            here, there = found[0].get(name, "none"), other.get(name, "none")
            if here != there:
                what = (advice or {}).get(name, "All processes make one run: give every process the same.")
                raise RuntimeError(
                    f"{name} differs between processes: rank 0 has {here}, rank {rank} has {there}. {what}"
                )


def _all() -> Ranks:
    return ranks_of(dist.group.WORLD)


def _shown(value: Any) -> str:
    text = value if isinstance(value, str) else repr(value)
    if len(text) <= 300:
        return text
    return f"{text[:100]}... ({hashlib.sha256(text.encode()).hexdigest()[:8]})"


def _picklable(error: BaseException) -> BaseException:
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        return RuntimeError(f"{type(error).__name__} on rank 0: {error}")
    return error

"""AGREEMENT: what rank 0 found out is what every rank knows, its errors too."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TypeVar

import torch.distributed as dist

__all__ = ["agree", "on_every_rank", "same_on_every_rank", "shared"]

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


@contextmanager
def on_every_rank(path: str | None) -> Iterator[str | None]:
    """A file of rank 0 for the block: where this rank's disk has none like it, a copy.

    Args:
        path: The same on all ranks; what is no file on rank 0 is passed on as it is.
    """
    if path is None or not shared():
        yield path
        return
    seen: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(seen, _kind_of(path))
    mine = seen[dist.get_rank()]
    if seen[0] is None or all(other == seen[0] for other in seen):
        yield path
        return
    content = agree(lambda: Path(path).read_bytes())
    if mine == seen[0]:
        yield path
        return
    with TemporaryDirectory() as folder:
        copy = Path(folder) / Path(path).name
        copy.write_bytes(content)
        del content
        yield str(copy)


def _kind_of(path: str) -> tuple[int, int] | None:
    """By which a file is known on another disk; an older one of the same name is another."""
    try:
        file = Path(path)
        return (file.stat().st_size, file.stat().st_mtime_ns) if file.is_file() else None
    except OSError:
        return None


def _picklable(error: BaseException) -> BaseException:
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        return RuntimeError(f"{type(error).__name__} on rank 0: {error}")
    return error

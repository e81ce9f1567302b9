"""AGREEMENT: what rank 0 found out is what every rank knows, its errors too."""

from __future__ import annotations

import hashlib
import pickle
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TypeVar

import torch.distributed as dist

__all__ = ["agree", "gathered", "on_every_rank", "same_on_every_rank", "shared"]

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


def gathered(find: Callable[[], T]) -> list[T]:
    """What `find` gives on every rank, in their order; what it raises on one ends all.

    Raises:
        Exception: What this rank raised.
        RuntimeError: If another one did; the message says which and why.
    """
    if not shared():
        return [find()]
    value, failure = None, None
    try:
        value = find()
    except Exception as error:
        failure = error
    said: list[Any] = [None] * dist.get_world_size()
    text = None if failure is None else f"{type(failure).__name__}: {failure}"
    dist.all_gather_object(said, (value, text))
    if failure is not None:
        raise failure
    for rank, (_, text) in enumerate(said):
        if text is not None:
            raise RuntimeError(f"Rank {rank} failed: {text}")
    return [value for value, _ in said]


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
    found = gathered(lambda: {name: _shown(value) for name, value in find().items()})
    for rank, other in enumerate(found):
        for name in {**found[0], **other}:
            here, there = found[0].get(name, "none"), other.get(name, "none")
            if here != there:
                what = (advice or {}).get(name, "All processes make one run: give every process the same.")
                raise RuntimeError(
                    f"{name} differs between processes: rank 0 has {here}, rank {rank} has {there}. {what}"
                )


def _shown(value: Any) -> str:
    text = value if isinstance(value, str) else repr(value)
    if len(text) <= 300:
        return text
    return f"{text[:100]}... ({hashlib.sha256(text.encode()).hexdigest()[:8]})"


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

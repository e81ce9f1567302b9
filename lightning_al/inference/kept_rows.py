"""KEPT ROWS: what is kept of the samples of a pool, in memory or, when it is much, in a file.

rows, batch by batch -> [KeptRows], which takes its [Room] when it sees the first ones -> tensors
"""

from __future__ import annotations

import errno
import mmap
import os
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from lightning.pytorch.utilities.rank_zero import rank_zero_info
from torch import Tensor

__all__ = ["KeptRows", "Room", "bytes_of_row"]

_WORTH_SAYING = 2**28


@dataclass(frozen=True)
class Room:
    """Memory for rows that are few, a file for rows that are many.

    A file has no name, so that nothing is left of it when its tensors are gone, or the process is killed.

    Args:
        limit: Bytes above which a file takes the place of memory.
        folder: Where it lies; `None`: the system's folder for temporary files.
    """

    limit: int = 2**31
    folder: Path | None = None

    def tensors(self, count: int, like: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Room for `count` rows of the given ones' shapes and types; not filled.

        Raises:
            OSError: If there is too little of it.
        """
        row, names = bytes_of_row(like), ", ".join(like)
        needed, folder = row * count, self.folder or Path(tempfile.gettempdir())
        in_file = needed > self.limit
        if needed >= _WORTH_SAYING:
            where = f"in a file in {folder}, which is removed afterwards" if in_file else "in memory"
            rank_zero_info(
                f"Kept for the selection: {needed / 1e9:.1f} GB a process, {where}; {count} samples of {row} "
                f"bytes ({names})"
            )
        shapes = {name: (torch.Size([count, *rows.shape[1:]]), rows.dtype) for name, rows in like.items()}
        if not in_file:
            return {name: torch.empty(shape, dtype=dtype) for name, (shape, dtype) in shapes.items()}
        try:
            folder.mkdir(parents=True, exist_ok=True)
            free = shutil.disk_usage(folder).free
            if free < needed:
                raise OSError(errno.ENOSPC, f"{free / 1e9:.1f} GB free")
            return {name: _in_file(folder, shape, dtype) for name, (shape, dtype) in shapes.items()}
        except OSError as error:
            raise OSError(
                f"{needed / 1e9:.1f} GB are to be kept for the selection ({count} samples of {row} bytes: "
                f"{names}), but there is no room for them in {folder}: {error.strerror or error}. Score a "
                "subset with `candidates=`, use a `state_dir` on a larger disk, or a strategy that keeps "
                "less of a sample."
            ) from error


class KeptRows:
    """Tensors with `count` rows, filled from the front.

    Args:
        count: Rows in all.
        room: Where they are kept.

    Example:
        >>> kept = KeptRows(3)
        >>> kept.add({"score": torch.tensor([1.0, 2.0])})
        >>> kept.add({"score": torch.tensor([3.0])})
        >>> kept.tensors
        {'score': tensor([1., 2., 3.])}
    """

    def __init__(self, count: int, room: Room | None = None) -> None:
        self.count, self.room = count, Room() if room is None else room
        self.tensors: dict[str, Tensor] = {}
        self.filled = 0

    def add(self, part: Mapping[str, Tensor]) -> None:
        """Write the next rows; the first ones make room for all.

        Raises:
            OSError: If there is no room for all of them.
            ValueError: If these are not like the rows before.
        """
        if not self.filled:
            self.tensors = self.room.tensors(self.count, part)
        before, now = _kinds(self.tensors), _kinds(part)
        if now != before:
            name = next(name for name in {**before, **now} if now.get(name) != before.get(name))
            raise ValueError(
                f"`summarize` returned {name!r} with {now.get(name, 'no rows')}, after "
                f"{before.get(name, 'no rows')} in an earlier batch. Return the same names, with rows of one "
                "shape and type, for all samples: pool over places or tokens, or pad in the model."
            )
        rows = len(next(iter(part.values()))) if part else 0
        for name, value in part.items():
            self.tensors[name][self.filled : self.filled + rows] = value
        self.filled += rows


def bytes_of_row(tensors: Mapping[str, Tensor]) -> int:
    """What a row of all of them takes."""
    return sum(rows.dtype.itemsize * rows.shape[1:].numel() for rows in tensors.values())


def _kinds(tensors: Mapping[str, Tensor]) -> dict[str, str]:
    return {
        name: f"rows of shape {tuple(rows.shape[1:])} and type {rows.dtype}" for name, rows in tensors.items()
    }


def _in_file(folder: Path, shape: torch.Size, dtype: torch.dtype) -> Tensor:
    size = shape.numel() * dtype.itemsize
    if not size:  # nothing cannot be mapped
        return torch.empty(shape, dtype=dtype)
    with tempfile.TemporaryFile(dir=folder) as file:
        if hasattr(os, "posix_fallocate"):  # a disk that fills up later is an error now, and no crash then
            os.posix_fallocate(file.fileno(), 0, size)
        else:
            file.truncate(size)
        memory = mmap.mmap(file.fileno(), size)
    return torch.frombuffer(memory, dtype=dtype).view(shape)

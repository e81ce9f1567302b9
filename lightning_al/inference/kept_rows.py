"""KEPT ROWS: the memory, or the file, that the summaries of a pool are written to batch by batch."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import torch
from lightning.pytorch.utilities.rank_zero import rank_zero_info
from torch import Tensor

__all__ = ["KeptRows"]

_WORTH_SAYING = 2**28


class KeptRows:
    """Tensors with `count` rows, filled from the front; room for all is made when the first rows are known.

    A file has no name any more as soon as it is mapped, so that nothing is left of it even after a kill (on
    Windows, where this cannot be, the next one's first act is to remove it).

    Args:
        count: Rows in all.
        limit: Bytes above which files take the place of memory.
        folder: Where these are; `None`: the system's folder for temporary files.
        rank: Of this process; each has files of its own.

    Example:
        >>> kept = KeptRows(3, limit=2**20, folder=None)
        >>> kept.add({"score": torch.tensor([1.0, 2.0])})
        >>> kept.add({"score": torch.tensor([3.0])})
        >>> kept.tensors
        {'score': tensor([1., 2., 3.])}
    """

    def __init__(self, count: int, *, limit: int, folder: Path | None, rank: int = 0) -> None:
        self.count, self.limit, self.rank = count, limit, rank
        self.folder = Path(tempfile.gettempdir()) if folder is None else folder
        self.tensors: dict[str, Tensor] = {}
        self.filled = 0

    def add(self, part: Mapping[str, Tensor]) -> None:
        """Write the next rows.

        Raises:
            OSError: If there is no room for all of them.
            ValueError: If their shape is not that of the rows before.
        """
        if not self.filled:
            self._make_room(part)
        rows = len(next(iter(part.values()))) if part else 0
        for name, value in part.items():
            room = self.tensors.get(name)
            if room is None or room.shape[1:] != value.shape[1:]:
                before = None if room is None else tuple(room.shape[1:])
                raise ValueError(
                    f"`summarize` returned {name!r} with rows of shape {tuple(value.shape[1:])}, after rows "
                    f"of shape {before} in an earlier batch. Return rows of one shape for all samples: pool "
                    "over places or tokens, or pad in the model."
                )
            room[self.filled : self.filled + rows] = value
        self.filled += rows

    def _make_room(self, part: Mapping[str, Tensor]) -> None:
        row_bytes = sum(value[:1].nbytes for value in part.values())
        needed = row_bytes * self.count
        in_file = needed > self.limit
        if needed >= _WORTH_SAYING:
            where = f"in a file in {self.folder}, which is removed afterwards" if in_file else "in memory"
            rank_zero_info(
                f"Scoring keeps {needed / 1e9:.1f} GB a process {where}: {self.count} samples of {row_bytes} "
                f"bytes ({', '.join(part)})"
            )
        if in_file:
            self.folder.mkdir(parents=True, exist_ok=True)
            free = shutil.disk_usage(self.folder).free
            if free < needed:
                raise OSError(
                    f"Scoring keeps {needed / 1e9:.1f} GB ({self.count} samples of {row_bytes} bytes), but "
                    f"{self.folder} has {free / 1e9:.1f} GB free. Score a subset with `candidates=`, use a "
                    "`state_dir` on a larger disk, or a strategy that keeps less of a sample."
                )
        for name, value in part.items():
            shape = (self.count, *value.shape[1:])
            self.tensors[name] = (
                self._mapped(name, shape, value.dtype) if in_file else torch.empty(shape, dtype=value.dtype)
            )

    def _mapped(self, name: str, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        path = self.folder / f"scoring_{self.rank}_{name.replace('/', '_')}.tmp"
        path.unlink(missing_ok=True)
        size = torch.Size(shape).numel()
        if hasattr(os, "posix_fallocate"):  # a disk that fills up meanwhile is an error, not a crash
            descriptor = os.open(path, os.O_CREAT | os.O_RDWR, 0o600)
            try:
                os.posix_fallocate(descriptor, 0, max(1, size * dtype.itemsize))
            finally:
                os.close(descriptor)
        mapped = torch.from_file(str(path), shared=True, size=size, dtype=dtype)
        with suppress(PermissionError):
            path.unlink()
        return mapped.view(shape)

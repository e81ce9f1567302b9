"""GIVEN EMBEDDINGS: vectors that are known without a forward pass, one for every sample of the data set.

a frozen encoder's array, tensor or .npy file + data set indices -> Vectors, read in chunks
"""

from __future__ import annotations

import os
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lightning_al.functional.matrices import check_matrix
from lightning_al.functional.shard import Shard
from lightning_al.functional.vectors import Backend, Metric, Vectors

__all__ = ["GivenEmbeddings"]


class GivenEmbeddings:
    """One vector a sample, by data set index; a file is mapped, and never read as a whole.

    Args:
        source: `(N, D)` floating: a tensor, an array (perhaps memory-mapped), or the path of a `.npy` file. A
            path, in which `~` is the home folder, is also what other processes are best given: an array is
            sent to each.

    Raises:
        TypeError: If it is none of these, or no floating-point numbers.
        ValueError: If the shape is not `(N, D)`.

    Example:
        >>> given = GivenEmbeddings(np.eye(3, dtype=np.float32))
        >>> len(given), given.of(torch.tensor([2, 0])).given()[0].tolist()
        (3, [[0.0, 0.0, 1.0], [1.0, 0.0, 0.0]])
    """

    def __init__(self, source: Any) -> None:
        # The path of a mapped file is all that another process needs of it.
        if type(source) is np.memmap and _is_whole_npy(source):
            source = source.filename
        if isinstance(source, str | os.PathLike):
            source = Path(os.path.expanduser(source)).absolute()
        self.source = source
        self._tensor: Tensor | None = None
        check_matrix(self.tensor, "embeddings")

    @property
    def tensor(self) -> Tensor:
        """All of it, over the memory or file that it is in."""
        if self._tensor is None:
            self._tensor = self._opened()
        return self._tensor

    def _opened(self) -> Tensor:
        array = self.source
        if isinstance(array, Tensor):
            return array.detach()
        if isinstance(array, Path):
            if not array.is_file() or array.suffix != ".npy":
                raise ValueError(
                    f"`embeddings` is the path {str(array)!r}, where there is no `.npy` file. Write one "
                    'with `numpy.save`, or pass an array: `numpy.memmap(path, "float16", "r", shape=(N, D))`.'
                )
            array = _mapped(array)
        if isinstance(array, np.ma.MaskedArray):
            raise TypeError(
                "`embeddings` is a masked array, of which what is masked would count too; needed is an array "
                "of numbers that all count. Pass `embeddings.filled(value)`, with the value that is to count "
                "there."
            )
        if not isinstance(array, np.ndarray):
            raise TypeError(
                f"`embeddings` is a `{type(array).__name__}`; needed is one vector for every sample of "
                "the data set: a tensor or an array (N, D), or the path of a `.npy` file."
            )
        if array.dtype.kind in "biu":
            raise TypeError(
                f"`embeddings` is an array of type {array.dtype}; needed are floating-point numbers. Write "
                "`embeddings.astype(numpy.float32)`."
            )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of memory that is not to be written to, and is not
            try:
                return torch.from_numpy(array)
            except (TypeError, ValueError) as error:
                raise TypeError(
                    f"`embeddings` is an array of type {array.dtype.str!r} and strides {array.strides}, "
                    "which torch cannot read; needed are floating-point numbers in the machine's byte order, "
                    "first row first. Convert: `numpy.ascontiguousarray(embeddings, dtype=numpy.float32)`."
                ) from error

    def __len__(self) -> int:
        return len(self.tensor)

    def __getstate__(self) -> dict[str, Any]:
        return {"source": self.source, "_tensor": None}

    def check(self, samples: int) -> None:
        """Refuse a data set of another length.

        Raises:
            ValueError: If it is.
        """
        if len(self) != samples:
            raise ValueError(
                f"`embeddings` has {len(self)} rows, but the data set {samples} samples. Pass one vector for "
                "every sample, labelled or not, in the order of the data set."
            )

    def rows(self, indices: Tensor) -> Tensor:
        """The vectors of some samples, copied."""
        return self.tensor.index_select(0, indices.to(self.tensor.device))

    def of(
        self, indices: Tensor, *, metric: Metric = "euclidean", backend: Backend = "auto",
        shard: Shard | None = None,
    ) -> Vectors:  # fmt: skip
        """The same, where they are."""
        return Vectors.of_embeddings(
            self.tensor, metric=metric, backend=backend, places=indices.to(self.tensor.device), shard=shard
        )


def _mapped(path: Path) -> np.memmap[Any, Any]:
    """The array of a `.npy` file; NumPy's own words may advise to run what is in it."""
    try:
        return np.lib.format.open_memmap(path, mode="r")
    except OSError:
        raise
    except Exception:
        with path.open("rb") as file:
            begin = file.read(6)
    if not begin:
        why = "it is empty"
    elif begin != np.lib.format.magic(1, 0)[:6]:
        why = "it does not begin as one does"
    else:
        why = "it is cut off or damaged, or holds Python objects"
    raise ValueError(
        f"`embeddings` is the path {str(path)!r}, whose file is no array of numbers: {why}. Write it anew "
        "with `numpy.save`."
    )


def _is_whole_npy(array: np.memmap[Any, Any]) -> bool:
    """Whether the mapped array is all that its `.npy` file holds."""
    name = array.filename
    if array.mode == "c":  # what was changed is in memory only
        return False
    if name is None or not str(name).endswith(".npy") or not Path(name).is_file():
        return False
    try:
        whole = _mapped(Path(name))
    except ValueError:  # mapped by other means
        return False
    return bool(whole.shape == array.shape and whole.dtype == array.dtype and array.flags.c_contiguous)

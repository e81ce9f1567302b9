"""INDICES: places in the data set."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["Indices", "as_indices"]

Indices = npt.NDArray[np.int64]


def as_indices(indices: Any, size: int, name: str = "indices") -> Indices:
    """Data set indices as an array, in the order given.

    Raises:
        TypeError: If they are not whole numbers.
        IndexError: If one is outside of the data set.
        ValueError: If one is given twice.
    """
    if hasattr(indices, "cpu"):  # a tensor
        indices = indices.cpu().numpy()
    elif isinstance(indices, Iterable) and not isinstance(indices, np.ndarray):
        indices = list(indices)
    found = np.atleast_1d(np.asarray(indices))
    if found.size == 0:
        return np.empty(0, np.int64)
    if found.ndim != 1 or found.dtype.kind not in "iu":
        raise TypeError(
            f"`{name}` has type {found.dtype} and shape {found.shape}; needed are whole numbers in a "
            "row. Turn a mask into indices with `numpy.flatnonzero(mask)`."
        )
    found = found.astype(np.int64)
    outside = found[(found < 0) | (found >= size)]
    if outside.size:
        raise IndexError(
            f"`{name}` holds {outside[:5].tolist()}, but the data set has indices 0 to {size - 1}. "
            "Pass places in the data set, not in a batch or in the pool."
        )
    unique, counts = np.unique(found, return_counts=True)
    if len(unique) < len(found):
        raise ValueError(
            f"`{name}` holds {unique[counts > 1][:5].tolist()} more than once; a sample has one label. "
            "Remove the doubles."
        )
    return found

"""RANDOMNESS: seeds derived by name, and code that leaves every generator as it found it."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import Generator

__all__ = ["derive_seed", "generator_for", "preserved_rng"]


def derive_seed(seed: int, *purpose: str | int) -> int:
    """A seed of its own for every purpose: streams with different names share nothing.

    Raises:
        TypeError: If the seed is no whole number.

    Example:
        >>> derive_seed(0, "order", 3) == derive_seed(0, "order", 3), derive_seed(0, "order", 4) > 0
        (True, True)
    """
    if isinstance(seed, bool) or not isinstance(seed, int | np.integer):
        raise TypeError(
            f"`seed` is {seed!r}; needed is a whole number, from which all that is drawn follows. Pass one, "
            "such as `seed=0`."
        )
    text = repr((int(seed), *purpose))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big")


def generator_for(seed: int, *purpose: str | int) -> Generator:
    """A CPU generator for one purpose; in the same state on every rank."""
    return torch.Generator().manual_seed(derive_seed(seed, *purpose))


@contextmanager
def preserved_rng(seed: int | None = None) -> Iterator[None]:
    """Runs the block with its own seed and puts Python's, NumPy's and torch's generators back after."""
    python, numpy = random.getstate(), np.random.get_state()  # noqa: NPY002
    # To look at a GPU's generator would start CUDA, and processes could not be forked any more.
    devices = range(torch.cuda.device_count() if torch.cuda.is_initialized() else 0)  # type: ignore[no-untyped-call]
    with torch.random.fork_rng(devices=devices):
        try:
            if seed is not None:
                random.seed(seed)
                np.random.seed(seed % 2**32)  # noqa: NPY002
                torch.default_generator.manual_seed(seed)
                if devices:  # else it would be seeded later, when CUDA starts
                    torch.cuda.manual_seed_all(seed)
            yield
        finally:
            random.setstate(python)
            np.random.set_state(numpy)  # noqa: NPY002

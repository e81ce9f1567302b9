"""Which device the tests of this folder run on, and how things come there.

`LIGHTNING_AL_TEST_DEVICE=cpu` runs them where there is no GPU, so that they are known to be right themselves;
`=pretended` on a device that is as unlike the CPU as a GPU is, see `pretend.py`.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._pytree import tree_map

from gpu import pretend

__all__ = ["DEVICE", "IS_GPU", "NEEDS_A_DEVICE", "PRETENDS", "back", "present", "there"]

DEVICE = os.environ.get("LIGHTNING_AL_TEST_DEVICE", "cuda")
PRETENDS = pretend.NAME == DEVICE
IS_GPU = DEVICE.startswith("cuda")

#: Marks of a module: its tests are skipped where there is no GPU, nor anything in its place.
NEEDS_A_DEVICE = [
    pytest.mark.gpu,
    pytest.mark.skipif(IS_GPU and not torch.cuda.is_available(), reason="needs a CUDA device"),
]


@contextmanager
def present() -> Iterator[Any]:
    """The device is there for the block, and this thread."""
    if not PRETENDS:
        yield None
        return
    with pretend.pretended_device() as mode:
        yield mode


def there(value: Any) -> Any:
    """The tensors of a tree, on the device."""
    return tree_map(lambda leaf: leaf.to(DEVICE) if isinstance(leaf, Tensor) else leaf, value)


def back(value: Any) -> Any:
    """The tensors of a tree, on the CPU."""
    return tree_map(lambda leaf: leaf.cpu() if isinstance(leaf, Tensor) else leaf, value)

"""FINGERPRINT: is this the data set the ledger was written for?

A digest of the user's `ids`, else of 16 seeded items; what differs elsewhere only passes. A longer data set
with the same beginning passes, so that a pool can grow.

Random items, as of augmentation, are fetched with all generators seeded. Of those that draw from a generator
of their own nothing but their number is known.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lightning_al.data.targets import TargetPlace
from lightning_al.randomness import derive_seed, generator_for, preserved_rng

__all__ = ["fingerprint", "is_stochastic"]

_ITEMS = 16


def fingerprint(dataset: Any, length: int, place: TargetPlace, ids: Sequence[str] | None = None) -> str:
    """A digest of the first `length` samples, targets left out: labels may be corrected."""
    if ids is not None:
        text = "\n".join(ids if length == len(ids) else ids[:length])
        return "ids:" + hashlib.sha256(text.encode()).hexdigest()[:32]
    if length == 0 or _of_item(dataset, place, 0) != _of_item(dataset, place, 0):
        return "length"
    digest = hashlib.sha256()
    for index in _probes(length):
        _of_item(dataset, place, index, digest)
    return "items:" + digest.hexdigest()[:32]


def _of_item(dataset: Any, place: TargetPlace, index: int, digest: Any = None) -> bytes:
    """Feed an item, fetched as with every other call for it, to a digest or to one of its own."""
    digest = hashlib.sha256() if digest is None else digest
    with preserved_rng(derive_seed(0, "fingerprint", index)):
        _update(digest, place.put(dataset[index], None))
    found: bytes = digest.digest()
    return found


def is_stochastic(dataset: Any, place: TargetPlace) -> bool:
    """Whether one item fetched twice differs, as it does under augmentation."""
    if len(dataset) == 0:
        return False
    with preserved_rng():
        texts = []
        for _ in range(2):
            digest = hashlib.sha256()
            _update(digest, place.put(dataset[0], None))
            texts.append(digest.digest())
    return texts[0] != texts[1]


def _probes(length: int) -> list[int]:
    generator = generator_for(0, "fingerprint", length)
    return sorted(torch.randperm(length, generator=generator)[:_ITEMS].tolist())


def _update(digest: Any, value: Any) -> None:
    """Feed what is plainly data; an object of another kind counts by its type alone."""
    if isinstance(value, Tensor):
        value = value.detach().cpu()
        value = value.float().numpy() if value.dtype == torch.bfloat16 else value.numpy()
    if isinstance(value, np.ndarray | np.generic):
        digest.update(f"{value.dtype}{value.shape}".encode())
        digest.update(np.ascontiguousarray(value).tobytes())
    elif isinstance(value, Mapping):
        for key in sorted(value, key=str):
            digest.update(str(key).encode())
            _update(digest, value[key])
    elif isinstance(value, tuple | list):
        digest.update(f"[{len(value)}]".encode())
        for part in value:
            _update(digest, part)
    elif isinstance(value, str | bytes | bool | int | float | None):
        digest.update(repr(value).encode())
    elif callable(getattr(value, "tobytes", None)):  # an image of Pillow
        digest.update(value.tobytes())
    else:
        digest.update(type(value).__qualname__.encode())

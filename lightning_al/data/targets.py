"""TARGETS: where a sample's label sits, how the ledger's is put there, how the pool's is hidden.

An item is a tuple with the target last, a mapping with a key `label`, `labels`, `target`, `targets`
or `y`, or the input alone. `TargetPlace` is the one class that knows which.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import default_collate

__all__ = ["MISSING", "TargetPlace", "blank", "conform", "is_bool", "is_missing"]

_KEYS = ("label", "labels", "target", "targets", "y")
_INPUTS = (tuple, list, Mapping, Tensor, np.ndarray, np.generic, str, bytes, int, float)


class _Missing:
    def __repr__(self) -> str:
        return "MISSING"

    def __reduce__(self) -> str:
        return "MISSING"


#: The item has no place for a target.
MISSING = _Missing()


class TargetPlace:
    """Where the target of an item is.

    Args:
        target: Place in a tuple or key of a mapping; `None`: the last of a tuple of two or more, the
            first known key of a mapping.
        example: An item of the set that has targets, to see how its items are made.

    Example:
        >>> place = TargetPlace(None, ("image", 3))
        >>> place.get(("other", 7)), place.put(("other", 7), 5), place.put("bare", 5)
        (7, ('other', 5), ('bare', 5))
    """

    def __init__(self, target: int | str | None, example: Any) -> None:
        self.key, self.length = _resolve(target, example)

    def get(self, item: Any) -> Any:
        """The item's own target, or `MISSING`."""
        if isinstance(item, Mapping):
            return item.get(self.key, MISSING)
        if isinstance(item, tuple | list) and isinstance(self.key, int):
            return item[self.key] if len(item) == self.length else MISSING
        return MISSING

    def put(self, item: Any, value: Any) -> Any:
        """The item with `value` for a target: in the target's place, or in a new one if it has none."""
        if isinstance(item, Mapping):
            return _with_key(item, self.key, value)
        parts = _parts(item)
        if len(parts) == self.length:
            parts[int(self.key)] = value
        else:
            parts.insert(int(self.key), value)
        if hasattr(item, "_fields") and len(parts) == len(item):
            return type(item)(*parts)
        return parts if isinstance(item, list) else tuple(parts)

    def collate_hidden(
        self, items: Sequence[Any], collate: Callable[[list[Any]], Any] | None, template: Any
    ) -> Any:
        """A batch without targets: None in a tuple of unchanged length, no key in a mapping.

        A user's collate function may need a target, so it is given blank ones of the same shape.
        """
        if collate is None:
            return self._collate_bare(items)
        blanks = [self.put(item, blank(self.get(item), template)) for item in items]
        return self._hide(collate(blanks), items[0])

    def _collate_bare(self, items: Sequence[Any]) -> Any:
        if isinstance(items[0], Mapping):
            return default_collate([{k: v for k, v in x.items() if k != self.key} for x in items])
        batch = list(default_collate([self._without(item) for item in items]))
        batch.insert(int(self.key), None)
        return batch

    def _without(self, item: Any) -> tuple[Any, ...]:
        parts = _parts(item)
        if len(parts) == self.length:
            del parts[int(self.key)]
        return tuple(parts)

    def _hide(self, batch: Any, item: Any) -> Any:
        if isinstance(batch, Mapping):
            inputs = set(item) if isinstance(item, Mapping) else set()
            targets = {self.key, *_KEYS} - (inputs - {self.key})
            batch = copy.copy(batch)
            for key in targets & set(batch):
                del batch[key]
            return batch
        if isinstance(batch, tuple | list) and len(batch) == self.length:
            parts = list(batch)
            parts[int(self.key)] = None
            return parts if isinstance(batch, list) else tuple(parts)
        return batch


def _parts(item: Any) -> list[Any]:
    """The input alone is a tuple of one, wherever it stands beside tuples with a target."""
    return list(item) if isinstance(item, tuple | list) else [item]


def _resolve(target: int | str | None, example: Any) -> tuple[int | str, int]:
    known = isinstance(example, _INPUTS) or callable(getattr(example, "tobytes", None))  # Pillow's images
    if not known:
        raise TypeError(
            f"An item of the data set is a {type(example).__name__}, in which a target can be neither found "
            "nor hidden; needed is a tuple with the target last, a mapping, or the input alone as a tensor, "
            "array, number, text or image. Let `__getitem__` return a tuple, of one where there is no target."
        )
    if isinstance(example, Mapping):
        if isinstance(target, int):
            raise TypeError(f"`target={target}` is a place in a tuple, but an item is a mapping with "
                            f"keys {list(example)}. Pass the key of its target.")  # fmt: skip
        found = [key for key in _KEYS if key in example]
        return (target if target is not None else found[0] if found else "label"), 0
    if isinstance(target, str):
        raise TypeError(
            f"`target={target!r}` is a key, but an item is a {type(example).__name__}. Pass the "
            "target's place in the tuple."
        )
    if isinstance(example, tuple | list):
        length = len(example) if len(example) > 1 else 2
        place = length - 1 if target is None else target + length * (target < 0)
        if not 0 <= place < length:
            raise ValueError(
                f"`target={target}` is not a place in an item of {length} parts; needed is one of "
                f"0 to {length - 1}."
            )
        return place, length
    return 1, 2


def _with_key(item: Mapping[Any, Any], key: Any, value: Any) -> Any:
    if type(item) is dict:
        return {**item, key: value}
    item = copy.copy(item)
    item[key] = value  # type: ignore[index]
    return item


def blank(value: Any, template: Any = 0) -> Any:
    """A target of the same shape that says nothing: zeros, empty text.

    Example:
        >>> blank(7), blank([3, 1]), blank(None, template=2.5)
        (0, [0, 0], 0.0)
    """
    if value is None or value is MISSING:
        return blank(template) if template is not None and template is not MISSING else 0
    if isinstance(value, Tensor):
        return torch.zeros_like(value)
    if isinstance(value, np.ndarray | np.generic):
        return np.zeros_like(value) if isinstance(value, np.ndarray) else value.dtype.type()
    if isinstance(value, str | bytes | bool | int | float):
        return type(value)()
    if isinstance(value, Mapping):
        return {key: blank(part) for key, part in value.items()}
    if isinstance(value, tuple | list):
        parts = [blank(part) for part in value]
        return type(value)(*parts) if hasattr(value, "_fields") else type(value)(parts)
    return 0


def conform(value: Any, like: Any) -> Any:
    """A target from the ledger in the type of the data set's own, so that one batch holds both.

    Example:
        >>> conform(3, torch.tensor(0.0)), conform(3, 7), conform(3, None)
        (tensor(3.), 3, 3)
    """
    if isinstance(value, str):
        return value
    if isinstance(value, Mapping):
        known = like if isinstance(like, Mapping) else {}
        return {key: conform(part, known.get(key)) for key, part in value.items()}
    if isinstance(like, Tensor):
        tensor = torch.as_tensor(value, dtype=like.dtype)
        return tensor.reshape(like.shape) if tensor.ndim == 0 and like.numel() == 1 else tensor
    if isinstance(like, np.ndarray | np.generic):
        array = np.asarray(value, dtype=like.dtype)
        array = array.reshape(like.shape) if array.ndim == 0 and like.size == 1 else array
        return array if isinstance(like, np.ndarray) else array[()]
    return type(like)(value) if isinstance(like, float | bool) and isinstance(value, int) else value


def is_bool(value: Any) -> bool:
    """Whether a target is a single True or False, of Python, NumPy or torch."""
    return isinstance(value.item() if getattr(value, "ndim", 1) == 0 else value, bool)


def is_missing(value: Any) -> bool:
    """Whether a data set's target says "no label": nothing, None, NaN, or a negative class."""
    if value is None or value is MISSING:
        return True
    if isinstance(value, Tensor | np.ndarray | np.generic) and value.ndim == 0:
        value = value.item()
    if isinstance(value, float):
        return value != value
    return isinstance(value, int) and value < 0

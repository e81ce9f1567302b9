"""TARGETS: where a sample's label sits, how the ledger's is put there, how the pool's is hidden.

An item is a tuple with the target last, a mapping with a key `label`, `labels`, `target`, `targets`
or `y`, or the input alone. `TargetPlace` is the one class that knows which.
"""

from __future__ import annotations

import base64
import copy
import json
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import default_collate

__all__ = [
    "MISSING",
    "TargetPlace",
    "blank",
    "conform",
    "decode",
    "encode",
    "is_class",
    "is_missing",
    "parse_label",
]

_KEYS = ("label", "labels", "target", "targets", "y")


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
        if isinstance(item, tuple | list):
            parts = list(item)
            if len(parts) == self.length:
                parts[int(self.key)] = value
            else:
                parts.insert(int(self.key), value)
            if hasattr(item, "_fields") and len(parts) == len(item):
                return type(item)(*parts)
            return parts if isinstance(item, list) else tuple(parts)
        return (item, value)

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
        if isinstance(items[0], tuple | list):
            bare = [self._without(item) for item in items]
            batch = list(default_collate(bare))
            batch.insert(int(self.key), None)
            return batch
        return [default_collate(list(items)), None]

    def _without(self, item: Sequence[Any]) -> tuple[Any, ...]:
        if len(item) != self.length:
            return tuple(item)
        return tuple(part for place, part in enumerate(item) if place != self.key)

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


def _resolve(target: int | str | None, example: Any) -> tuple[int | str, int]:
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
    return float(value) if isinstance(like, float) and isinstance(value, int) else value


def is_missing(value: Any) -> bool:
    """Whether a data set's target says "no label": nothing, None, NaN, or a negative class."""
    if value is None or value is MISSING:
        return True
    if isinstance(value, Tensor | np.ndarray | np.generic) and value.ndim == 0:
        value = value.item()
    if isinstance(value, float):
        return value != value
    return isinstance(value, int) and value < 0


def encode(value: Any) -> str:
    """A target as JSON text; arrays and tensors keep their shape and type.

    Raises:
        TypeError: If it is made of other things than numbers, text, lists, mappings and arrays.
    """
    return json.dumps(_plain(value), separators=(",", ":"))


def decode(text: str) -> Any:
    """What `encode` was given; arrays come back as tensors where torch has their type.

    Example:
        >>> decode(encode({"boxes": torch.tensor([[1.0, 2.0]]), "name": "cat"}))
        {'boxes': tensor([[1., 2.]]), 'name': 'cat'}
    """
    return json.loads(text, object_hook=_array)


def parse_label(text: str, class_names: Sequence[str] | None, template: Any) -> Any:
    """The target a person meant: a class by name or number, a number, a list, or text.

    Raises:
        ValueError: If it is none of the classes, or text where the data set has numbers.

    Example:
        >>> parse_label("cat", ["cat", "dog"], 0), parse_label("1.5", None, None)
        (0, 1.5)
    """
    if class_names is not None:
        return _class(text, class_names)
    if isinstance(template, str):
        return text
    try:
        value = json.loads(text)
    except ValueError:
        value = text
    numeric = isinstance(template, int | float | Tensor | np.ndarray | np.generic)
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        raise ValueError(f"{text!r} is no label; leave it empty, or write into `skip`")
    if numeric and isinstance(value, str | bool):
        raise ValueError(f"{text!r} is no number, as the data set's targets are")
    if is_class(template) and not (isinstance(value, int) and value >= 0):
        raise ValueError(f"{text!r} is no class: the data set's targets are whole numbers from 0 on")
    return value


def is_class(template: Any) -> bool:
    """Whether targets are single whole numbers, to which no label must be cut down."""
    if isinstance(template, Tensor):
        return template.ndim == 0 and not template.dtype.is_floating_point
    if isinstance(template, np.ndarray | np.generic):
        return template.ndim == 0 and template.dtype.kind in "iu"
    return isinstance(template, int)


def _class(text: str, class_names: Sequence[str]) -> int:
    if text in class_names:
        return list(class_names).index(text)
    if text.isdecimal() and int(text) < len(class_names):
        return int(text)
    raise ValueError(f"{text!r} is none of the classes {list(class_names)}")


def _plain(value: Any) -> Any:
    if isinstance(value, Tensor):
        value = value.detach().cpu()
        value = (value.float() if value.dtype == torch.bfloat16 else value).numpy()
    if isinstance(value, np.ndarray) and value.ndim and value.dtype.kind not in "biufc":
        value = value.tolist()  # text and objects are no numbers to be kept as bytes
    if isinstance(value, np.ndarray) and value.ndim:
        value = value.astype(value.dtype.newbyteorder("="))
        data = base64.b64encode(np.ascontiguousarray(value).tobytes()).decode()
        return {"__array__": data, "dtype": value.dtype.str, "shape": list(value.shape)}
    if isinstance(value, np.ndarray | np.generic):
        value = value.item()
    if isinstance(value, Mapping):
        return {str(key): _plain(part) for key, part in value.items()}
    if isinstance(value, tuple | list):
        return [_plain(part) for part in value]
    if value is None or isinstance(value, str | bool | int | float):
        return value
    raise TypeError(
        f"A target of type {type(value).__name__} cannot be kept in the ledger; needed are numbers, "
        "text, lists, mappings, arrays or tensors. Give one of these (a mask as an array, or its path)."
    )


def _array(value: dict[str, Any]) -> Any:
    if "__array__" not in value:
        return value
    data = base64.b64decode(value["__array__"])
    array = np.frombuffer(data, dtype=value["dtype"]).reshape(value["shape"]).copy()
    return torch.from_numpy(array)

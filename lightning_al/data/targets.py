"""TARGETS: where a sample's label sits, how the ledger's is put there, how the pool's is hidden.

An item is a tuple with the target last, a mapping with a key `label`, `labels`, `target`, `targets`
or `y`, or the input alone. `TargetPlace` is the one class that knows which.
"""

from __future__ import annotations

import base64
import copy
import json
import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import default_collate

__all__ = [
    "MISSING",
    "TargetPlace",
    "blank",
    "by_name",
    "check_label",
    "conform",
    "decode",
    "encode",
    "is_class",
    "is_missing",
    "kind_of",
    "parse_label",
    "whole",
]

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
    value: Any = text
    if not isinstance(template, str) and not _names_apply(class_names, template):
        with suppress(ValueError):
            value = json.loads(text)
        if value is None or (isinstance(value, float) and not math.isfinite(value)):
            raise ValueError(f"{text!r} is no label; leave it empty, or write into `skip`")
        if isinstance(value, bool) and _is_numeric(template):
            raise ValueError(f"{text!r} is no number, as the other targets are")
    return check_label(value, class_names, template)


def check_label(value: Any, class_names: Sequence[str] | None, template: Any) -> Any:
    """A target as it goes into the ledger: a class as its number, or its name where the others are text.

    Args:
        value: What was given.
        class_names: Names of the classes, or `None`.
        template: One of the targets it will share a batch with; `None`: none is known.

    Raises:
        ValueError: If it is not of their kind.

    Example:
        >>> check_label("cat", ["cat", "dog"], 0), check_label(1, ["cat", "dog"], "cat")
        (0, 'dog')
    """
    plain = value.item() if getattr(value, "ndim", 1) == 0 else value
    if class_names is not None and _names_apply(class_names, template):
        place = _class(plain, class_names)
        return class_names[place] if isinstance(template, str) else place
    if isinstance(template, str):
        if not isinstance(plain, str):
            raise ValueError(f"{plain!r} is no text, as the other targets are")
    elif is_class(template):
        number = _number(plain)
        if number is None:
            what = "number" if isinstance(plain, str) else "class"
            raise ValueError(f"{plain!r} is no {what}: the other targets are whole numbers from 0 on")
        return number
    elif _is_numeric(template):
        single = getattr(template, "ndim", 0) == 0
        if isinstance(plain, str) or (single and not isinstance(plain, int | float)):
            raise ValueError(f"{plain!r} is no number, as the other targets are")
    return plain


def kind_of(value: Any) -> Any:
    """A template for labels that need only be text, or numbers, as `value` is."""
    if isinstance(value, str):
        return ""
    return 0.0 if isinstance(value, int | float) else None


def is_class(template: Any) -> bool:
    """Whether targets are single whole numbers, to which no label must be cut down."""
    if isinstance(template, Tensor):
        return template.ndim == 0 and not template.dtype.is_floating_point
    if isinstance(template, np.ndarray | np.generic):
        return template.ndim == 0 and template.dtype.kind in "iu"
    return isinstance(template, int)


def whole(text: str) -> str:
    """A whole number as it was before a spreadsheet gave it a decimal point.

    Example:
        >>> whole(" 7.0 "), whole("7.5"), whole("seven")
        ('7', '7.5', 'seven')
    """
    text = text.strip()
    digits, point, zeros = text.partition(".")
    return digits if point and digits.isdecimal() and not zeros.strip("0") else text


def by_name(names: Sequence[str]) -> dict[str, int]:
    """The place of every name; outer spaces may be missing where that still means one name."""
    bare = Counter(name.strip() for name in names)
    loose = {name.strip(): place for place, name in enumerate(names) if bare[name.strip()] == 1}
    return loose | {name: place for place, name in enumerate(names)}


def _names_apply(class_names: Sequence[str] | None, template: Any) -> bool:
    """Whether a target is one class: in a mask or a row of several, names tell only what its numbers mean."""
    if isinstance(template, Tensor | np.ndarray | np.generic):
        return class_names is not None and math.prod(template.shape) == 1
    return class_names is not None and not isinstance(template, Mapping | tuple | list)


def _is_numeric(template: Any) -> bool:
    return isinstance(template, int | float | Tensor | np.ndarray | np.generic)


def _class(value: Any, class_names: Sequence[str]) -> int:
    if isinstance(value, str):
        places = by_name([str(name) for name in class_names])
        for form in (value, value.strip(), whole(value)):
            if form in places:
                return places[form]
        value = int(whole(value)) if whole(value).isdecimal() else value
    number = _number(value)
    if number is None or number >= len(class_names):
        raise ValueError(
            f"{value!r} is none of the classes {list(class_names)}, the {len(class_names)} `class_names`; "
            f"needed is a name, or a number from 0 to {len(class_names) - 1}"
        )
    return number


def _number(value: Any) -> int | None:
    """The class that a number means; 2.0 is 2."""
    if not isinstance(value, int | float) or value < 0 or value != value // 1:
        return None
    return int(value)


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

"""LABEL VALUES: what may be a label, how it is written down, and how a person's answer becomes one.

Works without torch: a tensor can only be met where torch was imported already.
"""

from __future__ import annotations

import base64
import json
import math
import re
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

__all__ = [
    "NoLabel",
    "by_name",
    "check_array",
    "check_label",
    "check_not_missing",
    "decode",
    "encode",
    "is_class",
    "is_other_name",
    "kind_of",
    "no_first_label",
    "parse_label",
    "whole",
]


#: What spreadsheets take for a number, or for a date or time.
_NUMBER = re.compile(r"[+-]?([0-9]+([.,][0-9]*)?|[.,][0-9]+)([eE][+-]?[0-9]+)?")
_DATE = re.compile(r"[0-9]{1,4}([-/.:][0-9]{1,4}){1,2}")
#: A number as many languages write it; it may also mean two.
_COMMA = re.compile(r"[+-]?[0-9]*,[0-9]+([eE][+-]?[0-9]+)?")
#: How programs write that there is nothing; in small letters these may be words of somebody's.
_NOTHING = ("None", "NA", "N/A", "n/a", "#N/A", "#NV", "<NA>", "NaT", "-")
#: Digits of the number of a class; Python itself gives up at 4,300.
_LONGEST_NUMBER = 20


@dataclass(frozen=True)
class NoLabel:
    """What an annotator said of a sample that has a label already, and that is no label.

    Args:
        what: `"skip"` or `"unsure"`.

    Example:
        >>> decode(encode(NoLabel("unsure")))
        NoLabel(what='unsure')
    """

    what: str


def encode(value: Any) -> str:
    """A target as JSON text; arrays and tensors keep their shape and type.

    Raises:
        TypeError: If it is made of other things than numbers, text, lists, mappings and arrays.
    """
    return json.dumps(_plain(value), separators=(",", ":"))


def decode(text: str) -> Any:
    """What `encode` was given; arrays come back as tensors, or as arrays where torch is not imported.

    Example:
        >>> import torch
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
        if isinstance(value, str) and value.strip():  # a word in quotes, which stay
            value = text
        if value is None or (isinstance(value, float) and not math.isfinite(value)):
            raise ValueError(f"{text!r} is no label; leave it empty, or write into `skip`")
        if isinstance(value, bool) and _is_numeric(template):
            raise ValueError(f"{text!r} is no number, as the other targets are")
        if isinstance(value, bool) and template is None:
            raise ValueError(no_first_label(value))
    return check_label(value, class_names, template)


def check_not_missing(text: str, class_names: Sequence[str] | None, template: Any) -> None:
    """Refuse what stands for nothing in a table, where any text would do: a program fills every empty row.

    Args:
        text: As it stands in a cell; in JSON, or where a person chooses, nothing is null, and no text.
        class_names: Names of the classes, which may be called so, or `None`.
        template: A text, or `None` where no label is known yet; for all others nothing is refused.

    Raises:
        ValueError: If it is.

    Example:
        >>> check_not_missing("none", None, ""), check_not_missing("NA", ["NA", "EU"], None)
        (None, None)
    """
    if class_names is not None or not (template is None or isinstance(template, str)):
        return
    if text.strip() in _NOTHING or text.strip().lower() == "nan":
        raise ValueError(
            f"{text!r} is no label: programs write it for none; leave it empty, or if it is meant, give it "
            f"in Python, by `label(index, {text!r})`, or as JSON lines"
        )


def no_first_label(value: bool) -> str:
    """Why truth is refused where no other label says what labels are."""
    return (
        f"{'true' if value else 'false'} is no label where none is known yet; needed is text or a number, "
        "such as 1 and 0, or `class_names` that have it"
    )


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
            comma = isinstance(plain, str) and _COMMA.fullmatch(plain.strip())
            advice = "; decimals need a point, not a comma" if comma else ""
            raise ValueError(f"{plain!r} is no number, as the other targets are{advice}")
    return plain


def check_array(value: Any, shape: Sequence[int | None]) -> None:
    """Refuse what is no array of numbers of a shape, `None` for axes of any length.

    Raises:
        ValueError: If it is not.

    Example:
        >>> check_array([1, 0, 1], (3,)), check_array(np.zeros((7, 9)), (None, None))
        (None, None)
    """
    needed = f"({', '.join('any' if size is None else str(size) for size in shape)})"
    try:
        array = np.asarray(value.detach().cpu() if _is_tensor(value) else value)
    except ValueError:  # rows of different lengths
        raise ValueError(
            f"its rows differ in length; needed are numbers of shape {needed}, as others have"
        ) from None
    if array.dtype.kind not in "biuf":
        raise ValueError(f"it holds other things than numbers; needed are numbers of shape {needed}")
    fits = len(shape) == array.ndim and all(n in (None, m) for n, m in zip(shape, array.shape, strict=True))
    if not fits:
        raise ValueError(f"its shape is {array.shape}, and that of the other targets {needed}")


def kind_of(value: Any) -> Any:
    """A template for labels that need only be text, or numbers, as `value` is."""
    if isinstance(value, str):
        return ""
    return 0.0 if isinstance(value, int | float) else None


def is_class(template: Any) -> bool:
    """Whether targets are single whole numbers, to which no label must be cut down."""
    if _is_tensor(template):
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
    if "." not in text:
        return text
    digits, point, zeros = text.partition(".")
    return digits if point and digits.isdecimal() and not zeros.strip("0") else text


def is_other_name(number: float, names: Sequence[str]) -> bool:
    """Whether a class number is the name of another class, as it stands or as a spreadsheet leaves it.

    Example:
        >>> is_other_name(1, ["001", "002"]), is_other_name(1, ["0", "1"]), is_other_name(1, ["cat", "dog"])
        (True, False, False)
    """
    return any(_meaning(str(name)) == number != place for place, name in enumerate(names))


def by_name(names: Sequence[str]) -> dict[str, int]:
    """The place of every name; outer spaces may be missing where that still means one name."""
    bare = Counter(name.strip() for name in names)
    loose = {name.strip(): place for place, name in enumerate(names) if bare[name.strip()] == 1}
    return loose | {name: place for place, name in enumerate(names)}


def _names_apply(class_names: Sequence[str] | None, template: Any) -> bool:
    """Whether a target is one class: in a mask or a row of several, names tell only what its numbers mean."""
    if _is_array(template):
        return class_names is not None and math.prod(template.shape) == 1
    return class_names is not None and not isinstance(template, Mapping | tuple | list)


def _is_numeric(template: Any) -> bool:
    return isinstance(template, int | float) or _is_array(template)


def _is_array(value: Any) -> bool:
    return isinstance(value, np.ndarray | np.generic) or _is_tensor(value)


def _is_tensor(value: Any) -> bool:
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(value, torch.Tensor)


@lru_cache(maxsize=8)
def _places(class_names: tuple[str, ...]) -> dict[str, int]:
    return by_name(class_names)


def _meaning(text: str) -> Any:
    """What a spreadsheet takes a text for; `None`: for text, which it leaves as it is."""
    text = text.strip()
    if text.lower() in ("true", "false"):
        return text.lower()
    if _NUMBER.fullmatch(text):
        return float(text.replace(",", "."))
    return text if _DATE.fullmatch(text) else None


@lru_cache(maxsize=8)
def _meanings(class_names: tuple[str, ...]) -> tuple[dict[Any, int], bool]:
    """Names by what they mean, where it is one name alone; and whether any means something."""
    found = [_meaning(name) for name in class_names]
    counts = Counter(found)
    places = {what: place for place, what in enumerate(found) if what is not None and counts[what] == 1}
    return places, any(what is not None for what in found)


def _named(value: str, class_names: tuple[str, ...]) -> int | str:
    """The place of a name, or what may be the number of a class.

    Where names look like numbers, a number stands for a name and never for a place: a spreadsheet makes 1
    of 001, which is not class number 1.
    """
    places = _places(class_names)
    for form in (value, value.strip()):
        if form in places:
            return places[form]
    meant, changeable = _meanings(class_names)
    if changeable:
        what = _meaning(value)
        if what in meant:
            return meant[what]
        if what is not None or whole(value).isdecimal():
            raise ValueError(
                f"{value!r} is not exactly one of the classes [{_listed(class_names)}], nor what a "
                "spreadsheet makes of one of them alone; needed is a name, since names here look like numbers"
            )
    number = whole(value)
    return int(number) if number.isdecimal() and len(number) < _LONGEST_NUMBER else value


def _class(value: Any, class_names: Sequence[str]) -> int:
    if isinstance(value, str):
        value = _named(value, tuple(str(name) for name in class_names))
    number = _number(value)
    if number is None or number >= len(class_names):
        raise ValueError(
            f"{value!r} is none of the classes [{_listed(class_names)}], the {len(class_names)} "
            f"`class_names`; needed is a name, or a number from 0 to {len(class_names) - 1}"
        )
    return number


def _listed(class_names: Sequence[str]) -> str:
    return ", ".join([*(repr(name) for name in class_names[:10]), *(["..."] if class_names[10:] else [])])


def _number(value: Any) -> int | None:
    """The class that a number means; 2.0 is 2."""
    if not isinstance(value, int | float) or value < 0 or value != value // 1:
        return None
    return int(value)


def _plain(value: Any) -> Any:
    if isinstance(value, NoLabel):
        return {"__no_label__": value.what}
    if _is_tensor(value):
        value = value.detach().cpu()
        value = (value.float() if str(value.dtype) == "torch.bfloat16" else value).numpy()
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
    if "__no_label__" in value:
        return NoLabel(value["__no_label__"])
    if "__array__" not in value:
        return value
    data = base64.b64decode(value["__array__"])
    array = np.frombuffer(data, dtype=value["dtype"]).reshape(value["shape"]).copy()
    torch = sys.modules.get("torch")
    return array if torch is None else torch.from_numpy(array)

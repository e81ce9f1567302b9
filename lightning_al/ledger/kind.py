"""KIND: what a label of this run must be like, as the data set and `class_names` say or the ledger recorded.

data set -> LabelKind -> meta -> the same LabelKind, without the data set
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from lightning_al.ledger.label_values import (
    check_array,
    check_label,
    encode,
    is_class,
    is_other_name,
    kind_of,
    parse_label,
)
from lightning_al.ledger.state import PoolState

__all__ = ["LabelKind"]

#: One target of every kind; what a label is compared with.
_EXAMPLES: dict[str, Any] = {"class": 0, "number": 0.0, "text": "", "array": np.zeros(2), "json": {}}


@dataclass(frozen=True)
class LabelKind:
    """What a label must be like.

    Args:
        class_names: Names of the classes, or `None`.
        template: A target of the data set; `None`: it shows none.
        shape: Of targets that are arrays: how many numbers an axis has, `None` where that may differ; `None`
            in all: nothing is known.

    Example:
        >>> kind = LabelKind(["cat", "dog"])
        >>> kind.parse("dog", None), kind.checked("cat", 3, None), kind.name
        (1, 0, 'class')
    """

    class_names: Sequence[str] | None = None
    template: Any = None
    shape: tuple[int | None, ...] | None = None

    @classmethod
    def of(cls, meta: Mapping[str, Any]) -> LabelKind:
        """What a ledger recorded."""
        shape = meta.get("label_shape")
        template = _EXAMPLES.get(str(meta.get("label_kind")))
        return cls(meta.get("class_names"), template, None if shape is None else tuple(shape))

    @classmethod
    def of_target(cls, target: Any, class_names: Sequence[str] | None, *, same_shape: bool) -> LabelKind:
        """What a data set's own target shows; with `same_shape` all must have its shape to make a batch."""
        shape = tuple(getattr(target, "shape", ())) or None
        return cls(class_names, target, shape if shape is None or same_shape else (None,) * len(shape))

    def record(self) -> dict[str, Any]:
        """For the ledger."""
        names = self.class_names
        return {
            "class_names": None if names is None else [str(name) for name in names],
            "label_kind": self.name,
            **({"label_shape": list(self.shape)} if self.shape and self.name == "array" else {}),
        }

    @property
    def name(self) -> str | None:
        """`"class"`, `"number"`, `"text"`, `"array"` or `"json"`; `None`: the first label will say."""
        template = self.template
        if isinstance(template, str):
            return "text"
        if self.class_names is not None and (template is None or _is_single(template)):
            return "class"
        if template is None:
            return None
        if is_class(template):
            return "class"
        if isinstance(template, int | float) or getattr(template, "ndim", 1) == 0:
            return "number"
        return "array" if hasattr(template, "ndim") else "json"

    def template_for(self, index: int, state: PoolState, fresh: Mapping[int, Any]) -> Any:
        """What a label is compared with: the data set's own targets, else the first label of another sample.

        Args:
            index: The sample to be labelled.
            state: Labels on record.
            fresh: Labels that come with it.
        """
        if self.template is not None or self.class_names is not None:
            return self.template
        first = next((i for i in state.values if i != index), None)
        if first is not None:
            return kind_of(state.target(first))
        return kind_of(next(iter(fresh.values()), None))

    def parse(self, text: str, template: Any) -> Any:
        """The target that a person meant, see `parse_label`.

        Raises:
            ValueError: If it is none of the classes, or of another kind.
        """
        return parse_label(text, self.class_names, template)

    def check_number(self, number: float, template: Any) -> None:
        """Refuse the number of a class, in a file, that is the name of another class.

        Raises:
            ValueError: If it is: a program may mean the one, and one that read a spreadsheet the other.
        """
        names = self.class_names
        if names is not None and _is_single(template) and is_other_name(number, names):
            raise ValueError(
                f"{number} is class {names[int(number)]!r} by its number, and by name another; needed is the "
                "name in quotes, since class names here look like numbers"
            )

    def checked(self, value: Any, index: int, template: Any) -> Any:
        """A target as it goes into the ledger, see `check_label`.

        Args:
            value: What was given.
            index: The sample.
            template: Of `template_for`.

        Raises:
            ValueError: If it is missing or not of the kind of the others.
        """
        plain = value.item() if getattr(value, "ndim", 1) == 0 else value
        classes = self.class_names is not None or is_class(template)
        if _is_missing(plain) and (classes or not isinstance(plain, int)):
            raise ValueError(
                f"The target of sample {index} is {value}, which is no label. Leave the sample out until "
                "its label is known, or `ignore` it."
            )
        try:
            label = check_label(plain, self.class_names, template)
            if self.shape is not None and self.name == "array":
                check_array(label, self.shape)
            return label
        except ValueError as error:
            encode(plain)  # what cannot be kept at all says so itself
            raise ValueError(
                f"The target of sample {index} is {plain!r}, but {error}. Give a target of that kind, or "
                "leave the sample out; `class_names` lets classes be given by name."
            ) from None


def _is_single(template: Any) -> bool:
    """Whether a target is one class, so that names apply to it."""
    if hasattr(template, "ndim"):
        return bool(math.prod(template.shape) == 1)
    return not isinstance(template, Mapping | tuple | list)


def _is_missing(value: Any) -> bool:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return True
    return isinstance(value, int) and value < 0

"""MISREADING: whether what a model says can be read as classes, by the labels that it learns from.

shape of the outputs, labels on record -> [misread] -> numbers, several labels a sample, or nothing wrong

One output a sample is read as the logit of two classes, several as those of one class each. That it is a
number, or that several labels hold, nobody would notice: everything has a sigmoid.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor

from lightning_al.data.targets import is_missing

if TYPE_CHECKING:
    from lightning_al.data import ActiveDataModule

__all__ = ["Misread", "check_classes", "misread", "misread_of"]

#: Fields of `Outputs` that are of class probabilities.
_OF_CLASSES = ("probs", "expected_entropy", "votes", "probs_std", "mc_probs")
_LOOKED_AT = 256  # labels


@dataclass(frozen=True)
class Misread:
    """What labels are that a model's outputs cannot be read as classes of.

    Args:
        kind: `"numbers"`, or `"labels"`: several a sample.
        example: One that shows it.
    """

    kind: Literal["numbers", "labels"]
    example: Any


def misread(shape: Sequence[int], labels: Sequence[Any]) -> Misread | None:
    """What would be read wrongly, if outputs were read as classes.

    In doubt nothing is: 0 and 1, or -1 and 1, are two classes, rows of numbers that add up to 1 are one
    class or shares of classes, and more outputs than numbers may be bins. Maps and tokens are not looked at.

    Args:
        shape: Of the outputs of one sample.
        labels: Some.

    Example:
        >>> misread((1,), [0.0, 1.0]), misread((1,), [0.0, 2.5])
        (None, Misread(kind='numbers', example=2.5))
        >>> misread((3,), [[1, 0, 1]])
        Misread(kind='labels', example=[1.0, 0.0, 1.0])
    """
    rows = _rows(labels)
    width = 0 if rows is None else rows.shape[1]
    outputs = shape[0] if len(shape) else 1
    if rows is None or len(shape) > 1 or width not in (1, outputs):
        return None
    binary = ((rows == 0) | (rows.abs() == 1)).all(1)
    if width == 1:
        wrong = rows[~binary, 0]
        return Misread("numbers", float(wrong[0])) if outputs == 1 and len(wrong) else None
    if bool((rows >= 0).all()) and bool(((rows.sum(1) - 1).abs() < 1e-3).all()):
        return None
    outside = rows[~(binary | ((rows >= 0) & (rows <= 1)).all(1))]
    if len(outside):
        return Misread("numbers", outside[0].tolist())
    several = rows[(rows.clamp_min(0).sum(1) - 1).abs() >= 1e-3]
    return Misread("labels", several[0].tolist()) if len(several) else None


def misread_of(shape: Sequence[int], data: ActiveDataModule, *, multilabel: bool) -> Misread | None:
    """The same by the first labels on record; before there are any, by the first sample's own.

    Args:
        shape: Of the outputs of one sample.
        data: Whose labels these are.
        multilabel: Every output is read as a label of its own, as somebody said: nothing is read wrongly.
    """
    if multilabel:
        return None
    state = data.state
    labels = [state.target(index) for index in data.labeled_indices[:_LOOKED_AT].tolist()]
    labels = labels or [data.samples.template]
    return misread(shape, [one for one in labels if not is_missing(one)])


def check_classes(
    needs: Sequence[str], shape: Sequence[int], data: ActiveDataModule, *, multilabel: bool
) -> None:
    """Refuse to score by class probabilities where the model has none.

    Args:
        needs: Fields of `Outputs` that are asked for.
        shape: Of the model's outputs of one sample.
        data: Whose labels say what these are.
        multilabel: Every output is read as a label of its own.

    Raises:
        ValueError: If the labels are numbers, or several a sample and not read as such.
    """
    asked = [name for name in needs if name in _OF_CLASSES]
    wrong = misread_of(shape, data, multilabel=multilabel) if asked else None
    if wrong is None:
        return
    if wrong.kind == "numbers":
        raise ValueError(
            f"The labels are numbers, such as {wrong.example}, and so is what the model says of a sample, of "
            f"shape {tuple(shape)}; the strategy needs probabilities of classes ({', '.join(asked)}). Use "
            "`PredictiveVariance()`, or one that needs no classes, such as `LearningLoss()` or `CoreSet()`. "
            "If the outputs are logits after all, return those of all classes from `active_step`."
        )
    raise ValueError(
        f"A sample has several labels, such as {wrong.example}, but the strategy reads the {shape[0]} "
        "outputs as one class of several. Pass `multilabel=True`, as in `Margin(multilabel=True)`; a "
        "strategy without it, such as `ClassBalanced`, needs one class a sample."
    )


def _rows(labels: Sequence[Any]) -> Tensor | None:
    """One row a label, or `None` where they are no numbers, or no rows of one length."""
    try:
        rows = [torch.as_tensor(label).double() for label in labels]
    except (TypeError, ValueError, RuntimeError):  # text, mappings, ragged lists
        return None
    if not rows or any(row.ndim > 1 and row.numel() > 1 for row in rows):
        return None
    rows = [row.flatten() for row in rows]
    if len({len(row) for row in rows}) > 1:
        return None
    known = torch.stack(rows)
    known = known[known.isfinite().all(1)]  # of several labels, some may be missing
    return known if len(known) else None

"""The first labelled set: given, drawn at random, or drawn class by class."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lightning_al.data.targets import TargetPlace, is_missing
from lightning_al.ledger.indices import Indices, as_indices
from lightning_al.randomness import generator_for, preserved_rng

__all__ = ["class_of_every_sample", "initial_indices", "listed_targets"]

_PROBES = 16


def initial_indices(
    initial: int | Sequence[int], size: int, seed: int, classes: Indices | None = None
) -> Indices:
    """The samples of round 0, a function of its arguments alone: the same on every rank."""
    if not isinstance(initial, int | np.integer):
        return as_indices(initial, size, "initial")
    generator = generator_for(seed, "initial")
    order = torch.randperm(size, generator=generator).numpy()
    if classes is None:
        return np.asarray(order[: int(initial)], np.int64)
    # Each class in random order; then the first of every class, the second of every class, ...
    ranked = classes[order]
    turn = np.empty(size, np.int64)
    for name in np.unique(classes):
        turn[ranked == name] = np.arange(np.count_nonzero(ranked == name))
    return np.asarray(order[np.argsort(turn, kind="stable")][: int(initial)], np.int64)


def class_of_every_sample(dataset: Any, place: TargetPlace) -> Indices:
    """The classes of a data set: its `targets` or `labels` if it has them, else item by item.

    Raises:
        ValueError: If a sample has no class.
    """
    known = listed_targets(dataset, place)
    if known is None:
        known = [_plain(place.get(dataset[index])) for index in range(len(dataset))]
    values = list(known)
    bad = [index for index, value in enumerate(values) if is_missing(value) or not _is_class(value)]
    if bad:
        raise ValueError(
            f"`initial_balanced=True` needs the class of every sample, but those of {bad[:5]} are "
            f"{[values[i] for i in bad[:5]]}. Give the initial set as indices, or leave it random."
        )
    return np.unique(np.asarray(values), return_inverse=True)[1].astype(np.int64)


def listed_targets(dataset: Any, place: TargetPlace) -> Sequence[Any] | None:
    """The `targets` or `labels` that a data set keeps in a list, if its items say the same.

    Reading every item to learn its label may take hours; a few items are compared, since a transform of
    the target would make the list another thing.
    """
    listed = next((getattr(dataset, n) for n in ("targets", "labels") if hasattr(dataset, n)), None)
    if listed is None or callable(listed) or len(listed) != len(dataset):
        return None
    values = listed.tolist() if hasattr(listed, "tolist") else [_plain(value) for value in listed]
    probes = generator_for(0, "targets", len(dataset))
    with preserved_rng():
        for index in torch.randperm(len(dataset), generator=probes)[:_PROBES].tolist():
            own = _plain(place.get(dataset[index]))
            if (
                isinstance(own, Tensor | np.ndarray)
                or type(own) is not type(values[index])
                or own != values[index]
            ):
                return None
    return values


def _plain(value: Any) -> Any:
    return value.item() if hasattr(value, "item") and getattr(value, "ndim", 1) == 0 else value


def _is_class(value: Any) -> bool:
    return isinstance(value, int | str)

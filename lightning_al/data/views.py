"""VIEWS: the labelled samples for training, the pool without its targets for scoring."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from lightning_al.data.targets import MISSING, TargetPlace, conform
from lightning_al.ledger.indices import Indices

__all__ = ["HiddenCollate", "PoolView", "TrainView", "fetch"]


def fetch(dataset: Any, indices: list[int]) -> list[Any]:
    """Items by index, in one call where the data set offers `__getitems__`."""
    many = getattr(dataset, "__getitems__", None)
    if callable(many):
        return list(many(indices))
    return [dataset[index] for index in indices]


class TrainView(Dataset[Any]):
    """The labelled samples, each with the ledger's target in the target's place.

    Where the data set supplies the label, the item passes untouched. A list of rows gives a list of
    items: the loader asks for whole batches.

    Args:
        dataset: The data set, or several behind one index.
        indices: Labelled samples in order.
        overrides: Targets that the data set does not supply, by data set index.
        place: Where an item's target sits.
        template: A target of the data set, whose type those of the ledger are given.
    """

    def __init__(
        self,
        dataset: Any,
        indices: Indices,
        overrides: Mapping[int, Any],
        place: TargetPlace,
        template: Any = None,
    ) -> None:
        self.dataset = dataset
        self.indices = indices
        self.overrides = dict(overrides)
        self.place = place
        self.template = template

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, row: Any) -> Any:
        if isinstance(row, list):
            return self.__getitems__(row)
        return self.__getitems__([row])[0]

    def __getitems__(self, rows: list[int]) -> list[Any]:
        indices: list[int] = self.indices[rows].tolist()
        items = fetch(self.dataset, indices)
        if not self.overrides:
            return items
        return [self._labeled(item, index) for item, index in zip(items, indices, strict=True)]

    def _labeled(self, item: Any, index: int) -> Any:
        value = self.overrides.get(index, MISSING)
        if value is MISSING:
            return item
        return self.place.put(item, conform(value, self.template))


class PoolView(Dataset[Any]):
    """Samples to be scored: a block of positions gives the block and its items.

    Args:
        dataset: The data set without augmentation.
        indices: Data set index of every position.
    """

    def __init__(self, dataset: Any, indices: Indices) -> None:
        self.dataset = dataset
        self.indices = indices

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, block: Sequence[int]) -> tuple[list[int], list[Any]]:
        positions = np.asarray(block)
        return positions.tolist(), fetch(self.dataset, self.indices[positions].tolist())


class HiddenCollate:
    """Makes a batch whose targets nobody can see; a class, so that workers can be spawned with it."""

    def __init__(self, place: TargetPlace, collate: Callable[[list[Any]], Any] | None, template: Any) -> None:
        self.place, self.collate, self.template = place, collate, template

    def __call__(self, block: tuple[list[int], list[Any]]) -> tuple[Tensor, Any]:
        """A batch of the items, and their positions."""
        positions, items = block
        batch = self.place.collate_hidden(items, self.collate, self.template)
        return torch.tensor(positions), batch

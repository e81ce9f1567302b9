"""SAMPLES: the data set behind one index, with and without augmentation, and its own targets."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
from torch.utils.data import ConcatDataset

from lightning_al.data.fingerprint import fingerprint, is_stochastic
from lightning_al.data.initial import class_of_every_sample, initial_indices
from lightning_al.data.targets import MISSING, TargetPlace, is_missing
from lightning_al.data.views import fetch
from lightning_al.ledger.indices import Indices
from lightning_al.ledger.kind import LabelKind
from lightning_al.ledger.names import Names
from lightning_al.randomness import preserved_rng

__all__ = ["MissingLabelsError", "Samples"]

_CHUNK = 256


class MissingLabelsError(ValueError):
    """The data set was asked for labels that it does not hold.

    Args:
        what: Is missing.
        advice: What to do in Python.
    """

    def __init__(self, what: str, advice: str) -> None:
        super().__init__(what, advice)
        self.what, self.advice = what, advice

    def __str__(self) -> str:
        return f"{self.what} {self.advice}"


class Samples:
    """Labelled-or-not samples and further unlabelled ones, in one row.

    Args:
        train_set: As in `ActiveDataModule`.
        unlabeled_set: Its indices follow those of `train_set`.
        query_view: The same without augmentation, for `train_set` or for both.
        target: Place or key of the target.
        class_names: Names of the classes, or `None`.
        ids: Names of the samples, or `None`.
        same_shape: Targets that are arrays must be of one shape to make a batch.
    """

    def __init__(
        self,
        train_set: Any,
        unlabeled_set: Any,
        query_view: Any,
        target: int | str | None,
        class_names: Sequence[str] | None,
        ids: Sequence[Any] | None,
        *,
        same_shape: bool = False,
    ) -> None:
        self.train_set, self.unlabeled_set = train_set, unlabeled_set
        self.all = _joined(train_set, unlabeled_set)
        self.query = self._without_augmentation(query_view)
        with preserved_rng():
            example = train_set[0]
        self.place = TargetPlace(target, example)
        own = self.place.get(example)
        self.template = None if own is MISSING else own
        self.class_names = class_names
        self.kind = LabelKind.of_target(self.template, class_names, same_shape=same_shape)
        self.names = None if ids is None else Names([str(name) for name in ids])
        self._prints: dict[int, str] = {}

    def __len__(self) -> int:
        return len(self.all)

    def _without_augmentation(self, view: Any) -> Any:
        if view is None or len(view) == len(self.all):
            return self.all if view is None else view
        if len(view) == len(self.train_set):
            return _joined(view, self.unlabeled_set)
        raise ValueError(
            f"`query_view` has {len(view):,} samples, `train_set` {len(self.train_set):,}; they must be the "
            "same samples in the same order, the one without augmentation."
        )

    def own_targets(self, indices: Indices) -> list[Any]:
        """The targets that the data set itself holds.

        Raises:
            MissingLabelsError: If one is missing.
        """
        values: list[Any] = []
        with preserved_rng():
            for start in range(0, len(indices), _CHUNK):
                items = fetch(self.all, indices[start : start + _CHUNK].tolist())
                values += [self.place.get(item) for item in items]
        bad = [int(i) for i, value in zip(indices, values, strict=True) if is_missing(value)]
        if bad:
            raise MissingLabelsError(
                f"The data set has no label for samples {bad[:5]} (missing, None, NaN or a negative class).",
                'Pass the targets, or `oracle="people"` or a function as `oracle`, to have them labelled.',
            )
        return values

    def check_own_labels(self) -> None:
        """Refuse to simulate with a set that has no labels to give.

        Raises:
            MissingLabelsError: If the first of the unlabelled samples has no target.
        """
        if self.unlabeled_set is not None and len(self.unlabeled_set):
            with preserved_rng():
                own = self.place.get(self.unlabeled_set[0])
            if is_missing(own):
                raise MissingLabelsError(
                    f"`unlabeled_set` has no labels (its first is {own}), and the oracle is the data set: "
                    "what is asked for could never be answered.",
                    'Pass `oracle="people"` or a function.',
                )

    def initial(self, initial: int | Sequence[int], seed: int, *, balanced: bool) -> Indices:
        """The samples of round 0."""
        if self.unlabeled_set is not None:
            return np.arange(len(self.train_set))
        with preserved_rng():
            classes = class_of_every_sample(self.train_set, self.place) if balanced else None
        return initial_indices(initial, len(self.train_set), seed, classes)

    def fingerprint(self, length: int) -> str:
        """What tells the first `length` samples from another data set's."""
        if length not in self._prints:
            self._prints[length] = fingerprint(
                self.query, length, self.place, None if self.names is None else self.names.ids
            )
        return self._prints[length]

    def warn_if_stochastic(self) -> None:
        """Say that the pool would be scored with augmentation."""
        if is_stochastic(self.query, self.place):
            warnings.warn(
                "The first sample of the pool differs when fetched twice: it is augmented or random, and so "
                "will be its score. Pass the same samples without augmentation as `query_view`.",
                stacklevel=2,
            )


def _joined(train_set: Any, unlabeled_set: Any) -> Any:
    return train_set if unlabeled_set is None else ConcatDataset([train_set, unlabeled_set])

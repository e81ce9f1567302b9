"""SAMPLES: the data set behind one index, with and without augmentation, and its own targets."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from functools import cached_property
from itertools import chain
from typing import Any

import numpy as np
from torch.utils.data import ConcatDataset

from lightning_al.data.fingerprint import fingerprint, is_stochastic
from lightning_al.data.initial import class_of_every_sample, initial_indices
from lightning_al.data.targets import MISSING, TargetPlace, is_missing
from lightning_al.data.views import fetch
from lightning_al.ledger.indices import Indices
from lightning_al.ledger.label_values import by_name, check_label, encode, is_class, kind_of, whole
from lightning_al.ledger.state import PoolState
from lightning_al.randomness import preserved_rng

__all__ = ["Samples"]

_CHUNK = 256


class Samples:
    """Labelled-or-not samples and further unlabelled ones, in one row.

    Args:
        train_set: As in `ActiveDataModule`.
        unlabeled_set: Its indices follow those of `train_set`.
        query_view: The same without augmentation, for `train_set` or for both.
        target: Place or key of the target.
        class_names: Names of the classes, or `None`.
        ids: Names of the samples, or `None`.
    """

    def __init__(
        self,
        train_set: Any,
        unlabeled_set: Any,
        query_view: Any,
        target: int | str | None,
        class_names: Sequence[str] | None,
        ids: Sequence[Any] | None,
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
        self.ids = None if ids is None else [str(name) for name in ids]
        self._prints: dict[int, str] = {}

    @cached_property
    def index_of(self) -> dict[str, int]:
        """From the user's name of a sample to its index."""
        return {name: index for index, name in enumerate(self.ids or [])}

    def find(self, name: str) -> int | None:
        """The index of a sample by the name in a file, in which outer spaces may have come or gone."""
        return next((self._loose[f] for f in (name, name.strip(), whole(name)) if f in self._loose), None)

    @cached_property
    def _loose(self) -> dict[str, int]:
        return by_name(self.ids or [])

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
            ValueError: If one is missing.
        """
        values: list[Any] = []
        with preserved_rng():
            for start in range(0, len(indices), _CHUNK):
                items = fetch(self.all, indices[start : start + _CHUNK].tolist())
                values += [self.place.get(item) for item in items]
        bad = [int(i) for i, value in zip(indices, values, strict=True) if is_missing(value)]
        if bad:
            raise ValueError(
                f"The data set has no label for samples {bad[:5]} (missing, None, NaN or a negative "
                'class). Pass the targets, or `oracle="people"` or a function as `oracle`, to have '
                "them labelled."
            )
        return values

    def template_for(self, index: int, state: PoolState, fresh: Mapping[int, Any]) -> Any:
        """What a label must be like: the data set's own targets, else the first label of another sample.

        Args:
            index: The sample to be labelled.
            state: Labels on record.
            fresh: Labels that come with it.
        """
        if self.template is not None or self.class_names is not None:
            return self.template
        known = chain((state.target(i) for i in state.values if i != index), fresh.values())
        return kind_of(next(known, None))

    def checked_target(self, value: Any, index: int, template: Any) -> Any:
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
        if is_missing(plain) and (classes or not isinstance(plain, int)):
            raise ValueError(
                f"The target of sample {index} is {value}, which is no label. Leave the sample out until "
                "its label is known, or `ignore` it."
            )
        try:
            return check_label(plain, self.class_names, template)
        except ValueError as error:
            encode(plain)  # what cannot be kept at all says so itself
            raise ValueError(
                f"The target of sample {index} is {plain!r}, but {error}. Give a target of that kind, or "
                "leave the sample out; `class_names` lets classes be given by name."
            ) from None

    def check_own_labels(self) -> None:
        """Refuse to simulate with a set that has no labels to give.

        Raises:
            ValueError: If the first of the unlabelled samples has no target.
        """
        if self.unlabeled_set is not None and len(self.unlabeled_set):
            with preserved_rng():
                own = self.place.get(self.unlabeled_set[0])
            if is_missing(own):
                raise ValueError(
                    f"`unlabeled_set` has no labels (its first is {own}), and the oracle is the data set: "
                    'what is asked for could never be answered. Pass `oracle="people"` or a function.'
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
            self._prints[length] = fingerprint(self.query, length, self.place, self.ids)
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

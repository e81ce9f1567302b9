"""ROUND 0: the events that a run begins with, and what is written down of targets that the data set holds."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from lightning_al.data.initial import listed_targets
from lightning_al.data.samples import Samples
from lightning_al.data.targets import is_missing
from lightning_al.ledger.indices import Indices
from lightning_al.ledger.label_values import encode
from lightning_al.ledger.schema import Event

__all__ = ["asked_first", "labeled_first", "recorded"]

#: Characters of a target that is written down.
_LONGEST = 200


def asked_first(chosen: Indices, event: Callable[..., Event], seed: int) -> list[Event]:
    """The first set, asked for as queries are.

    Args:
        chosen: Its samples, `(n,)`, in the order that they are wanted.
        event: Makes an event of a kind about a sample.
        seed: Of the run.
    """
    return [
        event("asked", index, round=0, rank=rank, seed=seed, strategy="initial")
        for rank, index in enumerate(chosen.tolist())
    ]


def labeled_first(
    samples: Samples, chosen: Indices, event: Callable[..., Event], seed: int, *, read: bool
) -> list[Event]:
    """The first set, whose labels the data set holds.

    Args:
        samples: The data set behind one index.
        chosen: The set's samples, `(n,)`.
        event: Makes an event of a kind about a sample.
        seed: Of the run.
        read: Otherwise the data set is left alone, and targets are unknown.
    """
    texts = _targets(samples, chosen) if read else [None] * len(chosen)
    return [
        event("labeled", index, value=text, who="dataset", round=0, rank=rank, seed=seed)
        for rank, (index, text) in enumerate(zip(chosen.tolist(), texts, strict=True))
    ]


def _targets(samples: Samples, chosen: Indices) -> list[str | None]:
    """As the data set lists them, where it does, else item by item."""
    known = listed_targets(samples.train_set, samples.place)
    values = None if known is None else [known[index] for index in chosen.tolist()]
    if values is None or any(is_missing(value) for value in values):
        values = samples.own_targets(chosen)
    return [recorded(value) for value in values]


def recorded(target: Any) -> str | None:
    """A data set's own target is kept if it is small (a class, a number); a mask stays where it is."""
    try:
        text = encode(target)
    except TypeError:
        return None
    return text if len(text) <= _LONGEST else None

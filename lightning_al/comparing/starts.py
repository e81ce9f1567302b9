"""STARTS: that all strategies began alike; else what is compared is not the strategies.

Run -> [Start] -> the same for all strategies of a seed, or an error that says what differs
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from lightning_al.comparing.settings import Run
from lightning_al.ledger.book import Book
from lightning_al.ledger.state import LABELED

__all__ = ["Start", "Starts"]


@dataclass(frozen=True)
class Start:
    """What a run began with.

    Args:
        samples: How many, and a digest of some.
        initial: The samples of round 0, in order.
        weights: A digest of the weights before the first step; `None` of a committee, whose members have
            their own.
    """

    samples: tuple[int, str]
    initial: tuple[int, ...]
    weights: str | None

    @classmethod
    def of(cls, run: Run) -> Start:
        """Of a run that has finished round 0."""
        book = Book(run.folder)
        labeled = book.state.indices(LABELED)
        path = run.folder / "initial_weights.pt"
        return cls(
            (book.size, str(book.meta.get("fingerprint"))),
            tuple(labeled[book.state.round[labeled] == 0].tolist()),
            _digest(torch.load(path, map_location="cpu", weights_only=False)) if path.exists() else None,
        )


class Starts:
    """The first run of each seed, and what others of the seed are held against."""

    def __init__(self) -> None:
        self._first: dict[int, dict[str, tuple[str, Any]]] = {}
        self._seen: set[Run] = set()

    def check(self, run: Run) -> None:
        """Compare a run that has finished round 0 with the others of its seed, once.

        Raises:
            ValueError: If they began with other samples, labels or weights.
        """
        if run in self._seen:
            return
        self._seen.add(run)
        first = self._first.setdefault(run.seed, {})
        for what, value in vars(Start.of(run)).items():
            if value is None:
                continue
            other, before = first.setdefault(what, (run.strategy, value))
            if value != before:
                raise ValueError(_unlike(run, other, what, value, before))


def _unlike(run: Run, other: str, what: str, value: Any, before: Any) -> str:
    said = "different weights"
    if what == "samples":
        said = f"{before[0]:,} samples and {value[0]:,}, not the same ones"
    elif what == "initial":
        said = f"the initial sets {list(before)[:8]}... and {list(value)[:8]}..."
    mend = {
        "samples": "Let `make_data` give the same samples for the same seed",
        "initial": "Let `make_data` pass the same `initial` for the same seed",
        "weights": "Let `make_model` draw weights by the seed that it is given, or by torch's own generator",
    }[what]
    return (
        f"With seed {run.seed}, {other!r} and {run.strategy!r} began with {said}; needed are the same, so "
        f"that only the strategies differ. {mend}; for runs that were made otherwise before, use another "
        "`state_dir`."
    )


def _digest(state: Any) -> str:
    digest = hashlib.sha256()
    for name in sorted(state):
        value = state[name]
        digest.update(name.encode())
        if isinstance(value, Tensor):
            digest.update(value.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()

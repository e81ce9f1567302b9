"""STARTS: that all strategies began alike; else what is compared is not the strategies.

Run -> [Start] -> the same for all strategies of a seed, or an error that says what differs
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.utilities.rank_zero import rank_zero_warn
from torch import Tensor

from lightning_al.comparing.settings import RefusedError, Run, folder_of
from lightning_al.comparing.table import metrics_of
from lightning_al.ledger.book import Book
from lightning_al.ledger.state import LABELED

__all__ = ["Start", "Starts"]


#: What is known of sets and loaders; like all of the training, `accept_changes` lets it differ.
_COUNTED = {
    "tested": "test samples", "validated": "validation samples", "batches": "batches an epoch",
}  # fmt: skip


@dataclass(frozen=True)
class Start:
    """What a run began with.

    Args:
        samples: How many, and a digest of some.
        initial: The samples of round 0, in order.
        weights: A digest of the weights before the first step, of a committee those of the member that is
            tested; `None` of a committee of several kinds of modules.
        tested: How many samples it is tested on; `None`: unknown, like the three that follow.
        validated: How many samples it is validated on.
        batches: How many an epoch of round 0 has.
        training: What round 0 was trained with, by name.
    """

    samples: tuple[int, str]
    initial: tuple[int, ...]
    weights: str | None
    tested: int | None
    validated: int | None
    batches: str | None
    training: dict[str, str] | None

    @classmethod
    def of(cls, run: Run) -> Start:
        """Of a run that has finished round 0."""
        book, known = Book(run.folder), run.known()
        labeled = book.state.indices(LABELED)
        training = known.get("training", {}).get("0")
        path = _first_weights(run) if training and "module" in training else None
        return cls(
            (book.size, str(book.meta.get("fingerprint"))),
            tuple(labeled[book.state.round[labeled] == 0].tolist()),
            None if path is None else _digest(torch.load(path, map_location="cpu", weights_only=False)),
            known.get("test"),
            known.get("val"),
            known.get("batches"),
            training,
        )


def _first_weights(run: Run) -> Path | None:
    """Those of a run, or of its committee's last member."""
    members = sorted((run.folder / "member").glob("*"), key=lambda folder: int(folder.name))
    return next(
        (path for folder in (run.folder, *members[::-1]) if (path := folder / "initial_weights.pt").exists()),
        None,
    )


class Starts:
    """The first run of each seed, and what others of the seed are held against.

    Args:
        metric: That all runs are to have; `None`: any.
        accept_changes: Whether what they were trained with may differ.
    """

    def __init__(self, metric: str | None = None, *, accept_changes: bool = False) -> None:
        self.metric, self.accept_changes = metric, accept_changes
        self._first: dict[int, dict[str, tuple[str, Any]]] = {}
        self._seen: set[Run] = set()
        self._weights: dict[str, int] = {}
        self._has_warned = False

    def check(self, run: Run) -> None:
        """Compare a run that has finished round 0 with the others of its seed, once.

        Raises:
            RefusedError: If they began with other samples, labels or weights, are trained or tested
                otherwise, or have no such metric.
        """
        if run in self._seen:
            return
        self._seen.add(run)
        self._check_metric(run)
        start = Start.of(run)
        first = self._first.setdefault(run.seed, {})
        for what, value in self._compared(start).items():
            other, before = first.setdefault(what, (run.strategy, value))
            if value != before:
                folder = run.folder.parents[1] / folder_of(other) / run.folder.name
                raise RefusedError(_unlike(run, other, folder, what, value, before))
        if start.weights is not None:
            self._compare_seeds(start.weights, run.seed)

    def _compared(self, start: Start) -> dict[str, Any]:
        """What is known, and has to be the same."""
        found = {name: value for name, value in vars(start).items() if value is not None}
        trained = found.pop("training", {})
        if self.accept_changes:
            return {name: value for name, value in found.items() if name not in _COUNTED}
        # What is set says more than how many batches come of it.
        return dict(sorted({**found, **trained}.items(), key=lambda pair: pair[0] == "batches"))

    def _check_metric(self, run: Run) -> None:
        metrics = metrics_of(run.rows()[0])
        if not metrics:
            raise RefusedError(
                f"Round 0 of {run.strategy!r} with seed {run.seed} has no test metric, so there is nothing "
                'to compare by. Log one in the module\'s `test_step`: `self.log("test_acc", ...)`.'
            )
        if self.metric is not None and self.metric not in metrics:
            raise RefusedError(
                f"`metric` is {self.metric!r}; needed is a metric that the module's `test_step` logs, and "
                f"round 0 of {run.strategy!r} with seed {run.seed} has {metrics}. Name one of these."
            )

    def _compare_seeds(self, weights: str, seed: int) -> None:
        other = self._weights.setdefault(weights, seed)
        if other == seed or self._has_warned:
            return
        self._has_warned = True
        rank_zero_warn(
            f"The seeds {other} and {seed} began with the same weights, so seeds say less than they "
            "seem to: they differ in data and queries alone. Let `make_model` draw weights by the seed that "
            "it is given; if all weights are pre-trained ones, this is as it must be."
        )


def _unlike(run: Run, other: str, folder: Path, what: str, value: Any, before: Any) -> str:
    said = "different weights"
    if what == "samples":
        said = f"{before[0]:,} samples and {value[0]:,}, not the same ones"
    elif what == "initial":
        said = _initial_sets(before, value)
    elif what in _COUNTED:
        said = f"{before} and {value} {_COUNTED[what]}"
    elif what != "weights":
        said = f"{what} = {before} and {what} = {value}"
    mend = {
        "samples": "Let `make_data` give the same samples for the same seed",
        "initial": "Let `make_data` pass the same `initial` for the same seed",
        "weights": "Let `make_model` draw weights by the seed that it is given, or by torch's own generator",
    }.get(what, "Let `make_model`, `make_trainer` and `make_data` give the same for the same seed")
    return (
        f"With seed {run.seed}, {other!r} and {run.strategy!r} began with {said}; needed are the same, so "
        f"that only the strategies differ. {mend}, and remove the folder of the run that was made otherwise, "
        f"{folder} or {run.folder}, which is then made anew; or use another `state_dir`."
    )


def _initial_sets(before: tuple[int, ...], value: tuple[int, ...]) -> str:
    """From where they differ."""
    shorter = min(len(before), len(value))
    place = next((n for n in range(shorter) if before[n] != value[n]), shorter)
    ends = [f"{list(one[place : place + 4])}" for one in (before, value)]
    return (
        f"initial sets of {len(before):,} and {len(value):,} samples, which differ from place {place} on: "
        f"{ends[0]} and {ends[1]}"
    )


def _digest(state: Any) -> str:
    digest = hashlib.sha256()
    for name in sorted(state):
        value = state[name]
        digest.update(name.encode())
        if isinstance(value, Tensor):
            digest.update(value.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()

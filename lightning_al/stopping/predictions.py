"""Stopping when more labels do not change what the model says."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torchmetrics.functional.classification import multiclass_cohen_kappa

from lightning_al.data import ActiveDataModule
from lightning_al.data.checks import check_positive
from lightning_al.ledger.indices import Indices
from lightning_al.randomness import generator_for
from lightning_al.stopping.base import Ended, Row, StopCriterion, value_of
from lightning_al.together import agree
from lightning_al.whole_file import replacing

__all__ = ["StablePredictions"]

_COLUMN = "stop_agreement"


class StablePredictions(StopCriterion):
    """Stops when the models of consecutive rounds predict alike; it needs no labels of its own.

    Each round's model predicts the classes of a fixed set of samples, labelled or not, whose labels are not
    looked at. How two rounds agree is Cohen's kappa, 0 for chance and 1 for all; of models that both predict
    one class alone nothing is known, and the value is NaN. Predictions are those that are tested: of the
    committee that a round trains, of `test_posterior`, or else of a single pass, without dropout. Where
    labels are numbers, or several a sample and the strategy is not `multilabel`, it is refused before the
    training.

    Args:
        agreement: Stop where the mean kappa is as high; lower stops sooner.
        rounds: Over how many of the last rounds the mean is taken.
        samples: In the fixed set; drawn by the run's seed, from labelled samples and pool alike. Those that
            are ignored are left out.

    Raises:
        ValueError: If an argument does not fit.

    References:
        Bloodgood & Vijay-Shanker, "A Method for Stopping Active Learning Based on Stabilizing Predictions and
        the Need for User-Adjustable Stopping", 2009 (arXiv:1409.5165): kappa on a stop set, its mean
        over some rounds, and the cutoff of 0.99. Cost: one pass over the samples a round, and a small file a
        round in `state_dir`.

    Example:
        >>> criterion = StablePredictions(agreement=0.9, rounds=2)
        >>> criterion.decide([{"stop_agreement": value} for value in (float("nan"), 0.7, 0.89, 0.93)])
        'predictions agree by 0.91, of 0.9, over 2 rounds'
    """

    columns = (_COLUMN,)

    def __init__(self, agreement: float = 0.99, *, rounds: int = 2, samples: int = 1000) -> None:
        if isinstance(agreement, bool) or not isinstance(agreement, int | float) or not 0 < agreement <= 1:
            raise ValueError(
                f"`agreement` is {agreement!r}; needed is a kappa above 0 and up to 1, such as 0.99."
            )
        check_positive(rounds=rounds, samples=samples)
        self.agreement, self.rounds, self.samples = float(agreement), rounds, samples

    def rehearse(self, ended: Ended) -> None:  # noqa: D102
        ended.rehearse_predictions()

    def measure(self, ended: Ended) -> dict[str, float]:  # noqa: D102
        if ended.was_tried:
            return {_COLUMN: math.nan}
        indices = self.stop_set(ended.data)
        found = ended.predictions(indices)
        return {_COLUMN: agree(lambda: _compared(ended, indices, found))}

    def decide(self, rows: Sequence[Row]) -> str | None:  # noqa: D102
        values = [value_of(row, _COLUMN) for row in rows[-self.rounds :]]
        mean = sum(values) / len(values)
        if len(values) < self.rounds or not mean >= self.agreement:
            return None
        return f"predictions agree by {mean:.4g}, of {self.agreement:g}, over {self.rounds} rounds"

    def stop_set(self, data: ActiveDataModule) -> Indices:
        """Its samples, the same in every round and on every rank, ascending."""
        order = torch.randperm(len(data.samples), generator=generator_for(data.seed, "stop set"))
        drawn = np.sort(order[: self.samples].numpy())
        return np.setdiff1d(drawn, data.ignored_indices, assume_unique=True)


def _compared(ended: Ended, indices: Indices, found: npt.NDArray[np.int64]) -> float:
    """Rank 0 keeps this round's predictions, and compares with those that it kept of the last."""
    before = _read(_file(ended, ended.number - 1))
    with (
        replacing(_file(ended, ended.number), "The predictions by which to stop") as part,
        part.open("wb") as file,
    ):
        np.savez(file, indices=indices, classes=found)
    if before is None:
        return math.nan
    # The set of all samples may have grown, and samples may be ignored by now.
    both, here, there = np.intersect1d(indices, before["indices"], return_indices=True)
    if len(both) < len(indices) / 2:
        return math.nan
    return kappa(found[here], before["classes"][there])


def kappa(one: npt.NDArray[np.int64], other: npt.NDArray[np.int64]) -> float:
    """Cohen's, of two predictions of the same samples; NaN where both say one class alone.

    Example:
        >>> round(kappa(np.array([0, 0, 1, 1]), np.array([0, 1, 1, 1])), 4)
        0.5
    """
    first, second = (torch.from_numpy(np.ascontiguousarray(part)).flatten() for part in (one, other))
    classes = max(2, 1 + int(max(first.max(), second.max())))
    return float(multiclass_cohen_kappa(first, second, num_classes=classes))


def _file(ended: Ended, number: int) -> Path:
    assert ended.data.state_dir is not None
    return ended.data.state_dir / "stop_set" / f"round_{number}.npz"


def _read(path: Path) -> Any:
    if not path.exists():
        return None
    with np.load(path) as kept:
        return {name: kept[name] for name in ("indices", "classes")}

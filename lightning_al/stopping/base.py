"""What a stopping criterion is, and what it may look at.

a fit that ended -> [measure] -> columns of the round's row -> [decide] -> why the rounds end, before a query
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import lightning as L
import numpy as np
import numpy.typing as npt
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch import Tensor

from lightning_al.acquisition.base import Summarizer
from lightning_al.data import ActiveDataModule
from lightning_al.inference.misreading import misread_of
from lightning_al.inference.outputs import Outputs
from lightning_al.inference.posteriors import Posterior, SinglePass
from lightning_al.inference.scoring import rehearse, summarize_samples
from lightning_al.ledger.indices import Indices
from lightning_al.randomness import derive_seed
from lightning_al.together import agree

__all__ = ["Ended", "Row", "StopCriterion"]

#: Of the history, one a round.
Row = Mapping[str, Any]


@dataclass(frozen=True)
class Ended:
    """A fit that ended, before its query: what may decide whether there is to be one. Test data is not there.

    Args:
        trainer: Of the fit.
        module: With the weights that are scored.
        data: What it was trained on.
        posterior: Whose mean prediction the model's is, as it is tested.
        multilabel: Every logit is a label of its own.
        numbers: The outputs are numbers, not classes.
        best: The weights are those of the best checkpoint.
    """

    trainer: L.Trainer
    module: L.LightningModule
    data: ActiveDataModule
    posterior: Posterior
    multilabel: bool = False
    numbers: bool = False
    best: bool = False

    @property
    def number(self) -> int:
        """Of the round."""
        return self.data.round

    @property
    def was_tried(self) -> bool:
        """Whether it was a `fast_dev_run`, of which nothing is kept."""
        return bool(self.trainer.fast_dev_run)  # type: ignore[attr-defined]

    def metric(self, name: str) -> float:
        """What the fit logged last; with the best checkpoint's weights, what that one was chosen for.

        Rank 0's value counts for all: log with `sync_dist=True` for that of all processes.

        Raises:
            MisconfigurationException: If the fit did not log it; the message says what it did.
        """
        return agree(lambda: self._metric(name))

    def _metric(self, name: str) -> float:
        logged = self.trainer.callback_metrics
        if name not in logged:
            there = ", ".join(f"`{key}`" for key in sorted(logged)) or "nothing"
            hint = "" if self.data.has_val_data() else " There is no validation data: pass `val_set`."
            raise MisconfigurationException(
                f"The rounds are to stop by `{name}`, which the fit of round {self.number} did not log; "
                f"it logged {there}. Log it in `validation_step` with `self.log({name!r}, ...)`, or name "
                f"one of these.{hint}"
            )
        checkpoint = self.trainer.checkpoint_callback
        score = getattr(checkpoint, "best_model_score", None)
        if self.best and score is not None and getattr(checkpoint, "monitor", None) == name:
            return float(score)
        return float(logged[name])

    def predictions(self, indices: Indices) -> npt.NDArray[np.int64]:
        """The predicted class of each of some samples, or of each of their labels `(n, L)`.

        Samples are scored as the pool is: shared by the ranks, without their labels, and the module is left
        as it was.

        Args:
            indices: Data set indices, the same on every rank.
        """
        seed = derive_seed(self.data.seed, "stop set")
        found = summarize_samples(
            self._predicting, self.trainer, self.module, self.data, indices, seed=seed
        )  # fmt: skip
        classes: npt.NDArray[np.int64] = found.gathered(found["class"]).cpu().long().numpy()
        return classes

    def rehearse_predictions(self) -> None:
        """Try them on a block of the pool: what cannot be done is known before the training.

        Raises:
            MisconfigurationException: If the outputs are no classes, or are not read as the labels are.
        """
        if self.numbers:
            raise MisconfigurationException(
                "The rounds are to stop when the predicted classes are stable, but the strategy is one for "
                "numbers. Stop by a metric, such as `Plateau`."
            )
        rehearse(
            SinglePass(), ("logits",), self.trainer, self.module, self.data, summarize=self._refuse_misread
        )
        one = self._predicting
        rehearse(
            one.posterior, one.needs, self.trainer, self.module, self.data,
            summarize=one.summarize, multilabel=one.multilabel,
        )  # fmt: skip

    def _refuse_misread(self, outputs: Outputs) -> dict[str, Tensor]:
        wrong = misread_of(outputs.logits.shape[1:], self.data, multilabel=self.multilabel)
        if wrong is None:
            return {}
        numbers = wrong.kind == "numbers"
        what = "the labels are numbers" if numbers else "here a sample has several labels"
        remedy = "Stop" if numbers else "Ask by a strategy with `multilabel=True`, or stop"
        raise MisconfigurationException(
            "The rounds are to stop when the predicted classes are stable, one a sample, but "
            f"{what}, such as {wrong.example}. {remedy} by a metric, such as `Plateau`."
        )

    @property
    def _predicting(self) -> _Predicting:
        return _Predicting(self.posterior, multilabel=self.multilabel)


class StopCriterion(ABC):
    """When to ask for no more labels; for `fit_rounds(stop=...)`.

    It is judged when a round's training has ended and before its query is asked, so that no label is asked
    for in vain. What it measures goes into the round's row, and the decision rests on the rows alone: a run
    that is called again decides the same.

    Attributes:
        columns: Of the row, that `measure` fills; no names of the history's own.

    Example:
        >>> class Long(StopCriterion):
        ...     columns = ("stop_seconds",)
        ...
        ...     def measure(self, ended):
        ...         return {"stop_seconds": 7.0}
        ...
        ...     def decide(self, rows):
        ...         return "long enough" if rows[-1].get("stop_seconds", 0) > 5 else None
        >>> Long().decide([{"round": 0, "stop_seconds": 7.0}])
        'long enough'
    """

    columns: tuple[str, ...] = ()

    def rehearse(self, ended: Ended) -> None:
        """Refuse, before the training, what could not be measured after it."""
        del ended

    @abstractmethod
    def measure(self, ended: Ended) -> dict[str, float]:
        """The columns of this round; the same on every rank."""

    @abstractmethod
    def decide(self, rows: Sequence[Row]) -> str | None:
        """Why to stop, or `None`.

        Args:
            rows: Of the rounds so far, the newest last. One that ended before this criterion was there lacks
                its columns; a value that could not be told is NaN.
        """

    def __repr__(self) -> str:
        values = ", ".join(f"{name}={value!r}" for name, value in vars(self).items())
        return f"{type(self).__name__}({values})"


class _Predicting(Summarizer):
    """Keeps the predicted class of a sample."""

    needs = ("probs",)

    def __init__(self, posterior: Posterior, *, multilabel: bool) -> None:
        self.posterior, self.multilabel = posterior, multilabel

    def summarize(self, outputs: Outputs) -> dict[str, Tensor]:
        probs: Tensor = outputs.probs
        if probs.ndim != (3 if self.multilabel else 2):
            raise ValueError(
                f"The probabilities have shape {tuple(probs.shape)}; that predictions are stable is known of "
                "one a sample, (B, C). Stop by a metric, such as `Plateau`."
            )
        return {"class": probs.argmax(-1).int()}


def value_of(row: Row, column: str) -> float:
    """NaN where there is none."""
    value = row.get(column)
    return math.nan if value is None else float(value)

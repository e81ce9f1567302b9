"""REACHING: when a metric is at a target, and how many labels that took.

Which way is better a metric's name says, unless the user does. Needs neither torch nor matplotlib.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from numbers import Real
from typing import Any

from lightning_al.history import History

__all__ = ["check_metric", "finite", "is_accuracy", "labels_to_target", "reaches", "rises"]

#: Whole words: of `terrain_iou` and `interrater_kappa` none is an error.
_LOWER = frozenset((
    "bce", "brier", "ce", "cer", "deviance", "distance", "distances", "divergence", "ece", "eer", "entropy",
    "err", "errors", "fdr", "fid", "fnr", "fpr", "hamming", "kl", "lpips", "losses", "mae", "mape", "mce",
    "mer", "miss", "misses", "mse", "msle", "nll", "perplexity", "ppl", "regret", "rmse", "rmsle", "smape",
    "wape", "wer", "xent",
))  # fmt: skip
_ACCURACIES = ("acc", "accs", "accuracy", "accuracies")


def rises(metric: str) -> bool:
    """Whether higher is better: unless a word of the name is a loss, an error or a distance.

    Args:
        metric: Its name, words apart by anything but letters, or by capitals.

    Example:
        >>> [rises(name) for name in ("test_acc", "terrain_iou", "test_wer", "testLoss", "val/MSE")]
        [True, True, False, False, False]
    """
    return not any(word in _LOWER or word.endswith(("loss", "error")) for word in _words(metric))


def is_accuracy(metric: str) -> bool:
    """Whether a word of the name is an accuracy, and none a loss or an error.

    Args:
        metric: Its name, as in `rises`.

    Example:
        >>> [is_accuracy(name) for name in ("test_acc", "valAccuracies", "accumulated_loss", "acc_loss")]
        [True, True, False, False]
    """
    return rises(metric) and any(word.endswith(_ACCURACIES) for word in _words(metric))


def _words(metric: str) -> list[str]:
    return [word.lower() for word in re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+", metric)]


def reaches(value: float, target: float, *, higher_is_better: bool = True) -> bool:
    """Whether a metric is at its target or beyond.

    Metrics are logged in float32, in which 9 right of 10 are 0.8999999762: a millionth of the target more or
    less is at it.

    Args:
        value: Of the metric; NaN is at no target.
        target: In the metric's own units.
        higher_is_better: Else beyond is below.

    Example:
        >>> reaches(0.8999999762, 0.9), reaches(0.89, 0.9), reaches(0.89, 0.9, higher_is_better=False)
        (True, False, True)
    """
    beyond = value >= target if higher_is_better else value <= target
    return beyond or math.isclose(value, target, rel_tol=1e-6)


def labels_to_target(
    history: History, metric: str, target: float, *, rounds: int = 2, higher_is_better: bool | None = None
) -> float:
    """How many labels a run needed until a metric stayed at a target.

    The target counts as reached at the first of `rounds` consecutive rounds at or above it: one lucky
    round is not enough, and a last round that nothing confirms is not either.

    Args:
        history: Of one run.
        metric: Column of the history.
        target: In the metric's own units.
        rounds: How many rounds in a row.
        higher_is_better: Else the target is reached at or below it; `None`: unless the metric's name speaks
            of a loss or an error, see `rises`.

    Returns:
        Labels that the model was trained on; infinity if the run never got there.

    Raises:
        TypeError: If `history` is none.
        ValueError: If no round has the metric, or `rounds` is not positive.

    Example:
        >>> history = History([{"round": r, "labeled": 20 + 10 * r, "test_acc": acc}
        ...                    for r, acc in enumerate([0.6, 0.91, 0.88, 0.90, 0.93])])
        >>> labels_to_target(history, "test_acc", 0.9), labels_to_target(history, "test_acc", 0.92)
        (50.0, inf)
    """
    if not isinstance(history, History):
        raise TypeError(
            f"`history` is a {type(history).__name__}; needed is the `History` of one run, as `fit_rounds` "
            "returns it. `Comparison.histories()` has one a run; its `summary` counts labels by itself."
        )
    if rounds < 1:
        raise ValueError(f"`rounds` is {rounds}; needed is how many rounds in a row, 1 or more.")
    check_metric([history], metric)
    higher = rises(metric) if higher_is_better is None else higher_is_better
    labeled, in_a_row = history.column("labeled"), 0
    for place, value in enumerate(history.column(metric)):
        reached = reaches(value, target, higher_is_better=higher)
        in_a_row = in_a_row + 1 if reached else 0
        if in_a_row == rounds:
            return float(labeled[place - rounds + 1])
    return math.inf


def check_metric(every: Sequence[History], metric: str) -> None:
    """An error if no history has a value of it."""
    if not any(finite(history.column(metric)) for history in every):
        raise ValueError(
            f"No round of {every[0]} has a value of {metric!r}. Name one of its columns; test metrics are "
            "there if the data module has a test set and the module logs them in `test_step`."
        )


def finite(values: Sequence[Any]) -> list[Any]:
    """Those of a column that are numbers, and neither NaN nor infinite."""
    return [value for value in values if isinstance(value, Real) and math.isfinite(value)]

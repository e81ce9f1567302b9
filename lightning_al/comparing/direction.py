"""DIRECTION: whether a metric is better higher, as its name says."""

from __future__ import annotations

import re

__all__ = ["rises"]

#: Whole words: of `terrain_iou` and `interrater_kappa` none is an error.
_LOWER = frozenset((
    "bce", "brier", "cer", "deviance", "distance", "distances", "divergence", "ece", "eer", "entropy", "err",
    "errors", "fdr", "fid", "fnr", "fpr", "hamming", "kl", "lpips", "losses", "mae", "mape", "mce", "mer",
    "mse", "msle", "nll", "perplexity", "ppl", "regret", "rmse", "rmsle", "smape", "wape", "wer",
))  # fmt: skip


def rises(metric: str) -> bool:
    """Whether higher is better: unless a word of the name is a loss, an error or a distance.

    Args:
        metric: Its name, words apart by anything but letters, or by capitals.

    Example:
        >>> [rises(name) for name in ("test_acc", "terrain_iou", "test_wer", "testLoss", "val/MSE")]
        [True, True, False, False, False]
    """
    words = [word.lower() for word in re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+", metric)]
    return not any(word in _LOWER or word.endswith(("loss", "error")) for word in words)

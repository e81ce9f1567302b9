"""CLASS ENTROPY: how evenly labels lie on the classes; of counts alone, without torch."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["class_entropy"]


def class_entropy(counts: Any) -> npt.NDArray[np.float64]:
    """Shannon entropy of the classes among labels, in nats: 0 of one class, `log(C)` of C alike.

    Args:
        counts: Labels a class `(..., C)`.

    Returns:
        `(...)`; NaN where there is no label.

    Example:
        >>> class_entropy([[4, 0], [2, 2], [0, 0]]).round(4).tolist()
        [0.0, 0.6931, nan]
    """
    array = np.asarray(counts, np.float64)
    totals = array.sum(axis=-1, keepdims=True)
    with np.errstate(invalid="ignore"):  # 0 / 0: of no label nothing is known
        shares = array / totals
    found: npt.NDArray[np.float64] = (shares * np.log(np.where(shares > 0, shares, 1))).sum(axis=-1)
    return np.where(totals[..., 0] > 0, np.abs(found), np.nan)  # no -0

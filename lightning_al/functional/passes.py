"""PASSES: what the predictions of several passes, or several models, must be to be compared.

`mc_probs` is `(N, K, C)`, the class axis last, or dense `(N, K, ..., C)` with scores `(N, ...)`.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from lightning_al.functional.rows import by_rows, check_tensors, checked, refuse_nan

__all__ = ["check_enough", "checked_passes", "scored_passes"]


def scored_passes(score: Callable[[Tensor], Tensor], mc_probs: Tensor, *, compares: str = "") -> Tensor:
    """A score of `(N, ..., K, C)`, piece by piece; `compares` as in `checked_passes`."""
    scores = by_rows(score, checked_passes(mc_probs, compares), axes=2)
    return refuse_nan(scores, "mc_probs").clamp_min_(0)


def checked_passes(mc_probs: Tensor, compares: str = "") -> Tensor:
    """`(N, ..., K, C)`, checked; `compares` names the score for which one pass is not enough."""
    check_tensors(mc_probs=mc_probs)
    shape = tuple(mc_probs.shape)
    if mc_probs.ndim < 3:
        raise ValueError(
            f"`mc_probs` has shape {shape}; needed is (N, K, C), the K passes over a sample in the second "
            "axis. Stack them with `torch.stack(passes, dim=1)`; for one pass see `entropy` and `margin`."
        )
    if shape[-1] < 2:
        raise ValueError(
            f"`mc_probs` has shape {shape}, with {shape[-1]} classes; needed are at least two to disagree "
            "about. Write a single-logit head's probability p as the pair [1 - p, p]."
        )
    check_enough(mc_probs, "mc_probs", compares)
    return checked(mc_probs.movedim(1, -2), "mc_probs")


def check_enough(passes: Tensor, name: str, compares: str) -> None:
    """Refuse passes `(N, K, ...)` of which there are too few; `compares` as in `checked_passes`."""
    if passes.shape[1] < (2 if compares else 1):
        need = f"`{compares}` compares at least two" if compares else "needed is at least one"
        raise ValueError(
            f"`{name}` has shape {tuple(passes.shape)}, {passes.shape[1]} pass over each sample; {need}. "
            "Make more of them with `MCDropout` or a `Committee`; the second axis is theirs."
        )

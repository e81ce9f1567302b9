"""OPTIONS of Learning Loss; the defaults are the paper's."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Literal

from lightning_al.data.checks import check_positive
from lightning_al.functional.ranking import Pairing

__all__ = ["LearningLossOptions"]

_CHOICES = {
    "pairing": ("flip", "random"),
    "objective": ("hinge", "smooth", "mse"),
    "channels": ("auto", "first", "last"),
}


@dataclass(frozen=True)
class LearningLossOptions:
    """Settings of `LearningLossMixin`, for a class or for one module of it.

    Args:
        hidden: Width of the head's branch for each layer.
        margin: By how much the predictions of a pair are to differ; of `"hinge"`.
        weight: What the head's loss counts beside the task's.
        detach_after: When the head stops shaping the module and only learns from it: at an epoch of the fit
            (a whole number; 0: from the start, 1: after the first epoch) or after a share of the fit (0.6:
            the paper's 120 of 200 epochs), of `max_epochs` or of `max_steps`, whichever ends it first; a fit
            that a callback stops early may end before. `None`: never.
        pairing: How samples of a batch are paired, see `functional.pairwise_ranking_loss`.
        objective: `"hinge"` (the paper's), `"smooth"` (LearningLoss++, for losses that are not negative), or
            `"mse"`: the naive regression on the loss itself, which is there to be compared with. An infinite
            loss is the largest of a pair; for `"mse"` it has no size, and is left out.
        channels: Which axis of a layer's output holds its channels: `"first"` (after the samples), `"last"`,
            or `"auto"`: as the part says that makes the output (a convolution, a normalisation, a linear or
            sequence layer); else as the width of the last of the parts inside fits; else last in sequences
            `(B, T, D)`, first in maps `(B, C, H, W)`. Where two axes are as wide, the one that had the
            channels in the shapes before. For layers that differ, a tuple with one for each.
        log_ranking: Whether `learning_loss`, called in `validation_step`, runs the head and logs how well it
            ranks: `val_loss_ranking_accuracy` and `val_loss_spearman`; in `test_step`, with `test_`. It keeps
            a few numbers a sample for the length of an epoch. In training it logs what the head minimises,
            without its weight: `train_ranking_loss_step` and `train_ranking_loss_epoch`.

    Raises:
        ValueError: If a setting does not fit.
        TypeError: If it is of the wrong kind.

    Example:
        >>> LearningLossOptions(detach_after=0.6).hidden
        128
    """

    hidden: int = 128
    margin: float = 1.0
    weight: float = 1.0
    detach_after: int | float | None = None
    pairing: Pairing = "flip"
    objective: Literal["hinge", "smooth", "mse"] = "hinge"
    channels: Literal["auto", "first", "last"] | Sequence[Literal["auto", "first", "last"]] = "auto"
    log_ranking: bool = False

    def __post_init__(self) -> None:
        check_positive(hidden=self.hidden)
        for name in ("margin", "weight"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, Real):
                raise TypeError(f"`{name}` is {value!r}; needed is a number, such as 1.0.")
            if not 0 <= float(value) < float("inf"):
                raise ValueError(f"`{name}` is {value}; needed is a number, 0 or more, such as 1.0.")
        for name, choices in _CHOICES.items():
            given = getattr(self, name)
            each = given if name == "channels" and isinstance(given, list | tuple) and given else [given]
            if any(one not in choices for one in each):
                known = ", ".join(f'"{choice}"' for choice in choices)
                raise ValueError(f"`{name}` is {given!r}; needed is one of {known}.")
        if not isinstance(self.log_ranking, bool):
            raise TypeError(f"`log_ranking` is {self.log_ranking!r}; needed is True or False.")
        _check_detach(self.detach_after)
        if isinstance(self.channels, list):
            object.__setattr__(self, "channels", tuple(self.channels))

    def detaches(self, epoch: int, progress: float) -> bool:
        """Whether features are cut off from the module in an epoch, after a share of the fit."""
        if self.detach_after is None:
            return False
        return bool((epoch if self._counts_epochs else progress) >= self.detach_after)

    @property
    def needs_progress(self) -> bool:
        """Whether it must be known how long the fit will be."""
        return self.detach_after is not None and not self._counts_epochs

    @property
    def _counts_epochs(self) -> bool:
        return isinstance(self.detach_after, Integral)


def _check_detach(value: object) -> None:
    if value is None:
        return
    if isinstance(value, bool) or not isinstance(value, Real):
        raise TypeError(
            f"`detach_after` is {value!r}; needed is an epoch (a whole number), a share of the fit such as "
            "0.6, or None."
        )
    if isinstance(value, Integral) and int(value) >= 0:
        return
    if isinstance(value, Integral) or not 0 < float(value) < 1:
        raise ValueError(
            f"`detach_after` is {value!r}; an epoch is a whole number, 0 or more, a share of the fit a "
            "fraction between 0.0 and 1.0. Write 120 for an epoch, or 0.6 for a share; 0 for from the start "
            "on, None for never."
        )

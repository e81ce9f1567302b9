"""PROGRESS: the pool's pass in the Trainer's own progress bar, and nothing where there is none."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from typing import Any, TypeVar

from lightning.pytorch.callbacks import RichProgressBar, TQDMProgressBar

__all__ = ["track"]

T = TypeVar("T")


def track(trainer: Any, steps: Iterable[T], total: int, title: str = "Scoring pool") -> Iterator[T]:
    """Go through `steps`, shown on rank 0 for as long as it takes."""
    bar = trainer.progress_bar_callback
    if bar is None or not trainer.is_global_zero or not getattr(bar, "is_enabled", True):
        return iter(steps)
    if isinstance(bar, RichProgressBar):
        return _rich(bar, steps, total, title)
    if isinstance(bar, TQDMProgressBar):
        return _tqdm(steps, total, title)
    return iter(steps)


def _tqdm(steps: Iterable[T], total: int, title: str) -> Iterator[T]:
    from tqdm.auto import tqdm

    yield from tqdm(steps, total=total, desc=title, leave=False, file=sys.stdout)


def _rich(bar: RichProgressBar, steps: Iterable[T], total: int, title: str) -> Iterator[T]:
    """A task in the live display that is already running: a second one would tear it."""
    progress = getattr(bar, "progress", None)
    try:
        task = bar._add_task(total, title)
    except Exception:  # the display's inner workings differ between versions
        progress = None
    try:
        for step in steps:
            yield step
            if progress is not None:
                progress.update(task, advance=1)
                bar.refresh()
    finally:  # also if not all steps were wanted
        if progress is not None:
            progress.update(task, visible=False)

"""TRAINERS: a fresh Trainer for every fit, with its checkpoints in the round's folder."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import lightning as L
import torch
from lightning.fabric.utilities.load import _METADATA_FILENAME
from lightning.fabric.utilities.seed import _collect_rng_states, _set_rng_states
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from lightning.pytorch.utilities.rank_zero import rank_zero_info

from lightning_al.callbacks import ActiveLearning
from lightning_al.callbacks.rearm import KEEPS_STATE
from lightning_al.callbacks.seat import Seat
from lightning_al.data import ActiveDataModule
from lightning_al.data.book import is_writer
from lightning_al.fitting.connecting import connect
from lightning_al.history import COLUMNS
from lightning_al.together import agree, gathered, shared

__all__ = ["Trainers", "check_whole"]


class Trainers:
    """The Trainers of a run: each fresh, all with the first one's loggers, whose steps go on.

    Args:
        make: From the number of a round to a Trainer.
        data: What the rounds train on.
        resume: `"checkpoint"` goes on from an interrupted fit's checkpoint, `"restart"` puts it aside.
    """

    def __init__(self, make: Callable[[int], L.Trainer], data: ActiveDataModule, resume: str) -> None:
        self.make, self.data, self.resume = make, data, resume
        self._loggers: list[Any] | None = None
        self._steps = 0
        self._last: L.Trainer | None = None
        #: A Trainer that was made before its fit, by number and member; and the random streams after that.
        self._ahead: tuple[int, tuple[str | int, ...], L.Trainer, dict[str, Any]] | None = None
        self.has_met = False

    def connect(self, number: int, name: tuple[str | int, ...]) -> bool:
        """Meet the other processes, by the Trainer of a fit; whether there are any.

        Args:
            number: Of the round.
            name: Of the committee's member.
        """
        self.has_met = True
        trainer = self.make(number)
        self._check(trainer, number)
        self._ahead = (number, name, trainer, _collect_rng_states(include_cuda=False))
        return connect(trainer)

    def _made(self, number: int, name: tuple[str | int, ...]) -> L.Trainer:
        ahead, self._ahead = self._ahead, None
        if ahead is None or ahead[:2] != (number, name):
            return self.make(number)
        _set_rng_states(ahead[3])
        return ahead[2]

    def fresh(self, number: int, seat: Seat | None) -> L.Trainer:
        """The Trainer of a fit.

        Raises:
            MisconfigurationException: If it is no fresh plain one.
        """
        trainer = self._made(number, () if seat is None else seat.name)
        self._check(trainer, number)
        self._last = trainer
        for checkpoint in trainer.checkpoint_callbacks:
            if isinstance(checkpoint, ModelCheckpoint) and self.data.state_dir is not None:
                home = Path(checkpoint.dirpath) if checkpoint.dirpath else self.data.state_dir
                member = "" if seat is None else f"member_{seat.number}"
                checkpoint.dirpath = str((home / f"round_{number}" / member).absolute())
        if self._loggers is not None and trainer.loggers:
            trainer.loggers = self._loggers
            # Lightning's own steps go on where the last round's ended: one curve in the logger.
            trainer.fit_loop.epoch_loop._batches_that_stepped = self._steps
        return trainer

    def checkpoint(self, trainer: L.Trainer) -> str | None:
        """What to go on from; an interrupted attempt's checkpoints are put aside otherwise."""
        folders = {
            Path(c.dirpath)
            for c in trainer.checkpoint_callbacks
            if isinstance(c, ModelCheckpoint) and c.dirpath
        }
        files = sorted(
            (file for folder in folders for file in folder.glob("*.ckpt")), key=lambda f: f.stat().st_mtime
        )
        if not files:
            return None
        for file in reversed(files) if self.resume == "checkpoint" else ():
            saved = _saved(file)
            if saved is not None:  # the newest that is whole
                if _can_go_on(saved, trainer):
                    return str(file)
                break
        if is_writer():
            for folder in folders:
                _put_aside(folder)
        return None

    def keep_steps(self, trainer: L.Trainer) -> None:
        """After a fit: its loggers are the next one's too, and know its steps."""
        if self._loggers is None and trainer.loggers:
            self._loggers = list(trainer.loggers)
        self._steps = max(self._steps, trainer.fit_loop.epoch_loop._batches_that_stepped)

    def log(self, trainer: L.Trainer, row: dict[str, Any]) -> None:
        """What the test of a round said, against the number of labels."""
        metrics = {
            f"active/{key}": float(value)
            for key, value in row.items()
            if key not in (*COLUMNS, "tested") and isinstance(value, int | float)
        }
        for logger in trainer.loggers if metrics else []:
            logger.log_metrics(metrics, step=row["labeled"])
            logger.save()

    def _check(self, trainer: Any, number: int) -> None:
        if not isinstance(trainer, L.Trainer):
            raise MisconfigurationException(
                f"`make_trainer({number})` returned a {type(trainer).__name__}; needed is a "
                "`lightning.Trainer`. Return a fresh one each round."
            )
        if trainer is self._last or trainer.global_step > 0:
            raise MisconfigurationException(
                "`make_trainer` returned a Trainer that has fitted before; its epochs are used up. Make a "
                "fresh one, with fresh callbacks, in every call."
            )
        if any(isinstance(c, ActiveLearning) for c in trainer.callbacks):  # type: ignore[attr-defined]
            raise MisconfigurationException(
                "The Trainer holds an `ActiveLearning` already, and `fit_rounds` adds the one that it was "
                "given: the round would ask twice. Leave it out of `make_trainer`."
            )
        _refuse_shared(trainer, self._last)


def _refuse_shared(trainer: L.Trainer, last: L.Trainer | None) -> None:
    """Early stopping that has stopped once would stop the next round too."""
    for callback in trainer.callbacks:  # type: ignore[attr-defined]
        shared = last is not None and any(callback is other for other in last.callbacks)  # type: ignore[attr-defined]
        if shared and isinstance(callback, KEEPS_STATE):
            raise MisconfigurationException(
                f"`make_trainer` put the same `{type(callback).__name__}` into two Trainers; it still knows "
                "the last round's values. Make fresh callbacks in every call."
            )


def check_whole(checkpoint: str | None) -> None:
    """Refuse to go on from a checkpoint in parts that some process does not see whole; all come here.

    A file is sent to those whose disk has none like it; the parts of a sharded module are too large for that.

    Args:
        checkpoint: What rank 0 would go on from.

    Raises:
        RuntimeError: On all ranks, if one of them sees other files than rank 0.
    """
    if checkpoint is None or not shared() or not agree(Path(checkpoint).is_dir):
        return
    seen = gathered(lambda: _files_in(Path(checkpoint)), "Looking for a checkpoint")
    for rank, files in enumerate(seen):
        if files != seen[0]:
            raise RuntimeError(
                f'`resume="checkpoint"` would go on from {checkpoint}, which is in parts, but rank {rank} '
                f"sees {len(files)} of its files and rank 0 {len(seen[0])}; every process needs them all. "
                'Put them on a disk that all processes have, or use `resume="restart"`.'
            )


def _files_in(folder: Path) -> list[tuple[str, int]]:
    """Names and sizes, as far as this process sees them."""
    try:
        return sorted((file.name, file.stat().st_size) for file in folder.iterdir())
    except OSError:
        return []


def _saved(file: Path) -> dict[str, Any] | None:
    """What is in a checkpoint; `None` if the run was stopped while it was being written."""
    if file.is_dir():  # of a sharded module, with a file for all but its tensors
        file = file / _METADATA_FILENAME
    try:
        saved: dict[str, Any] = torch.load(file, map_location="cpu", weights_only=False)
    except (OSError, RuntimeError, EOFError, UnpicklingError) as error:
        reason = str(error).partition(". ")[0]
        rank_zero_info(f"{file} is no whole checkpoint ({reason}); an older one is looked for.")
        return None
    return saved


def _can_go_on(saved: dict[str, Any], trainer: L.Trainer) -> bool:
    """Whether a checkpoint is of a training that has epochs and steps left."""
    # A checkpoint at the end of an epoch is written before that epoch counts as completed.
    epochs = saved["loops"]["fit_loop"]["epoch_progress"]["current"]["processed"]
    limits = ((epochs, trainer.max_epochs), (saved["global_step"], trainer.max_steps))
    return all(limit is None or limit < 0 or done < limit for done, limit in limits)


def _put_aside(folder: Path) -> None:
    if not folder.exists():
        return
    number = 1
    while (target := folder.with_name(f"{folder.name}.interrupted{number}")).exists():
        number += 1
    folder.rename(target)

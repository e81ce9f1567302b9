"""RUN: one strategy with one seed, from its data to its last round.

Task, Run -> [carry_out] -> the run's ledger; a word after every round
"""

from __future__ import annotations

import copy
import json
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import lightning as L

from lightning_al.acquisition import Acquisition
from lightning_al.callbacks import ActiveLearning
from lightning_al.comparing.settings import RefusedError, Run
from lightning_al.comparing.table import RESERVED
from lightning_al.comparing.training import Known, Training
from lightning_al.data import ActiveDataModule
from lightning_al.randomness import derive_seed
from lightning_al.rounds import fit_rounds

__all__ = ["Task", "carry_out", "try_data"]

_LABELED = (
    "A comparison is of data whose labels are known: give `make_data` a labelled data set and "
    '`oracle="dataset"`, or an oracle that answers at once.'
)


@dataclass(frozen=True)
class Task:
    """What all runs of a comparison are made of.

    Args:
        strategies: By name.
        make_model: From a seed to a module.
        make_trainer: From the number of a round to a Trainer.
        make_data: From a seed and a folder to a data module.
        query_size: Samples a round.
        rounds: Queries a run.
        options: Further arguments of `ActiveLearning`.
        known: What all runs were trained with so far.
        made_with: What else the runs are said to be made with.
        accept_changes: Whether they may be trained otherwise than before.
    """

    strategies: Mapping[str, Acquisition]
    make_model: Callable[[int], L.LightningModule]
    make_trainer: Callable[[int], L.Trainer]
    make_data: Callable[[int, Path], ActiveDataModule]
    query_size: int
    rounds: int
    options: Mapping[str, Any] = field(default_factory=dict)
    known: Known = field(default_factory=dict)
    made_with: Mapping[str, Any] = field(default_factory=dict)
    accept_changes: bool = False


def carry_out(task: Task, run: Run, tell: Callable[[int], None]) -> None:
    """From the initial set, or from where it stopped, to the end.

    Args:
        task: What it is made of.
        run: Which.
        tell: Is told how many rounds are behind it.

    Raises:
        ValueError: If an oracle does not answer at once.
        RefusedError: If the data or the Trainer cannot be compared by, or it would train otherwise than the
            rounds that are known.
    """
    data = _made_data(task, run)
    # A strategy may keep something from one round to the next; a committee may be in both.
    acquisition, options = copy.deepcopy((task.strategies[run.strategy], dict(task.options)))
    active = ActiveLearning(acquisition, query_size=task.query_size, **options)
    makers = None if active.committee is None else active.committee.makers

    def made_trainer(number: int) -> L.Trainer:
        with _inside(run.folder):  # where loggers write that were not told where
            return task.make_trainer(number)

    # Of a committee of several kinds no module is that of the other strategies.
    training = Training(
        run, data, _sizes(data), task.known, made_trainer,
        with_module=makers is None, made_with=task.made_with, accept_changes=task.accept_changes,
    )  # fmt: skip
    clock = _Clock(run.times, tell)

    def make_trainer(number: int) -> L.Trainer:
        clock.begin(number)
        trainer = made_trainer(number)
        if isinstance(trainer, L.Trainer):
            _check_trainer(trainer)
            trainer.callbacks.append(_Stages(clock, training))  # type: ignore[attr-defined]
        return trainer

    history = fit_rounds(
        task.make_model if makers is None else None, make_trainer, data, active, rounds=task.rounds
    )
    clock.end()
    if history.waiting:
        raise ValueError(f"{history.waiting} {_LABELED}")
    tell(len(history))


def try_data(task: Task, run: Run, tell: Callable[[int], None]) -> None:
    """Make the data of a run, and nothing of it.

    Args:
        task: What it is made of.
        run: Which, in a folder that is not its own.
        tell: Is told nothing.

    Raises:
        RefusedError: If the data cannot be compared by.
    """
    _made_data(task, run)


def _made_data(task: Task, run: Run) -> ActiveDataModule:
    run.folder.mkdir(parents=True, exist_ok=True)
    # For those who split or draw without a seed: every strategy finds the same.
    L.seed_everything(derive_seed(run.seed, "compare", "data"), workers=True, verbose=False)
    data = task.make_data(run.seed, run.folder)
    _check_data(data, run)
    return data


def _check_data(data: Any, run: Run) -> None:
    if not isinstance(data, ActiveDataModule):
        raise RefusedError(
            f"`make_data({run.seed}, {str(run.folder)!r})` returned a {type(data).__name__}; needed is an "
            "`ActiveDataModule`. `ActiveDataModule.from_datamodule` and `.from_dataloaders` make one of what "
            "you have."
        )
    if data.seed != run.seed:
        raise RefusedError(
            f"`make_data({run.seed}, ...)` returned a data module with seed {data.seed}, so other seeds "
            "would repeat the same run. Pass what it is given: `ActiveDataModule(..., seed=seed)`."
        )
    if data.state_dir is None or Path(data.state_dir).absolute() != run.folder.absolute():
        raise RefusedError(
            f"`make_data({run.seed}, {str(run.folder)!r})` returned a data module with state_dir="
            f"{data.state_dir}, where runs would meet. Pass what it is given: "
            "`ActiveDataModule(..., state_dir=state_dir)`."
        )
    if not data.has_test_data():
        raise RefusedError(
            "`make_data` gave a data module without test data, so there is nothing to compare by. Give it a "
            "`test_set`, and log a metric in the module's `test_step`."
        )
    if data.oracle == "people":
        raise RefusedError(f'`make_data` gave a data module with `oracle="people"`. {_LABELED}')


def _check_trainer(trainer: L.Trainer) -> None:
    if trainer.fast_dev_run:  # type: ignore[attr-defined]
        raise RefusedError(
            "`make_trainer` gave a Trainer with `fast_dev_run`, of which no round is recorded, so nothing "
            "can be compared. For a quick look pass `rounds=1` and `max_epochs=1`."
        )
    if trainer.world_size > 1:
        raise RefusedError(
            f"`make_trainer` gave a Trainer of {trainer.world_size} processes, but `compare` runs whole runs "
            "side by side, each in one process. Use `devices=1`."
        )


def _sizes(data: ActiveDataModule) -> dict[str, int | None]:
    return {
        "val": _size(data.val_set, data.val_dataloader) if data.has_val_data() else 0,
        "test": _size(data.test_set, data.test_dataloader),
    }


def _size(dataset: Any, loaders: Callable[[], Any]) -> int | None:
    """How many samples; `None` where only a fit would show it."""
    if dataset is not None:
        return len(dataset)
    try:
        loader = loaders()
        return sum(len(one.dataset) for one in (loader if isinstance(loader, list | tuple) else [loader]))
    except Exception:  # a loader that is not there before `setup`, or of its own kind
        return None


@contextmanager
def _inside(folder: Path) -> Iterator[None]:
    before = Path.cwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)


class _Clock:
    """How long rounds and their tests take, written beside the ledger.

    Args:
        path: Of the lines, one a round.
        tell: Is told how many rounds are behind.
    """

    def __init__(self, path: Path, tell: Callable[[int], None]) -> None:
        self.path, self.tell = path, tell
        self.number: int | None = None
        self.test_s, self.fitted = 0.0, False

    def begin(self, number: int) -> None:
        if number == self.number:  # the next member of a committee
            return
        self.end()
        self.tell(number)
        self.number, self.begun = number, time.perf_counter()

    def end(self) -> None:
        if self.number is not None and self.fitted:
            row = {"round": self.number, "round_s": time.perf_counter() - self.begun, "test_s": self.test_s}
            with self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(row) + "\n")
        self.number, self.test_s, self.fitted = None, 0.0, False


class _Stages(L.Callback):
    """Tells the clock of tests and fits, and looks at what they train with and how metrics are named."""

    def __init__(self, clock: _Clock, training: Training) -> None:
        self.clock, self.training, self.begun = clock, training, 0.0

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.clock.fitted = True

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        assert self.clock.number is not None
        self.training.begins(trainer, pl_module, self.clock.number)

    def on_test_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.begun = time.perf_counter()

    def on_test_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.clock.test_s += time.perf_counter() - self.begun
        taken = sorted(RESERVED & set(trainer.callback_metrics))
        if taken:
            raise RefusedError(
                f"The module's `test_step` logs {', '.join(map(repr, taken))}, which a column of the table "
                "is named that holds something else; needed are other names. Log it as `test_...`."
            )

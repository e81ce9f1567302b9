"""ROUNDS: train, query, label, train again, with a fresh Trainer each round.

for every round: weights -> fit -> query (the callback) -> test -> a row of the history
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any, Literal

import lightning as L
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from lightning.pytorch.utilities.model_helpers import is_overridden
from lightning.pytorch.utilities.rank_zero import rank_zero_info

from lightning_al.callbacks import ActiveLearning
from lightning_al.callbacks.rearm import KEEPS_STATE
from lightning_al.callbacks.seat import Seat
from lightning_al.data import ActiveDataModule
from lightning_al.data.agreement import agree
from lightning_al.data.book import is_writer
from lightning_al.data.checks import check_positive
from lightning_al.history import COLUMNS, History
from lightning_al.inference.averaging import AveragedTest, Kind, Targets
from lightning_al.inference.committee import Committee, Member, check_maker
from lightning_al.inference.posteriors import SinglePass
from lightning_al.inference.sharing import Apart
from lightning_al.querying import check_module
from lightning_al.randomness import derive_seed

__all__ = ["fit_rounds"]


def fit_rounds(
    model: L.LightningModule | Callable[[int], L.LightningModule] | None,
    make_trainer: Callable[[int], L.Trainer],
    data: ActiveDataModule,
    active: ActiveLearning,
    *,
    rounds: int,
    resume: Literal["restart", "checkpoint"] = "restart",
) -> History:
    """Train on the initial set, then `rounds` times: query, label, train again.

    Every round has a fresh Trainer and seed, so that schedules, early stopping and averaged weights begin
    anew. It ends at the budget or with the pool (which it takes the rest of first), or when samples wait
    for people's labels; called again, it goes on from the ledger. Round r is written to `state_dir`:
    checkpoints to `round_{r}/`, the history to `history.csv`.

    Args:
        model: A module, or a function from a seed to a fresh one; `None` with `Committee(models=[...])`. The
            members of a `Committee(5)` are all of it: a module's weights are drawn anew for each by its
            layers' `reset_parameters`, so pre-trained ones come from a function. What the modules that a
            function makes have in common must be frozen.
        make_trainer: From the number of the round to a fresh `Trainer` with fresh callbacks; without an
            `ActiveLearning`, which is added.
        data: The samples; with a test set, every round is tested.
        active: The strategy and what goes with it.
        rounds: How many queries; the last one's labels are trained on too, so there are `rounds + 1` fits.
        resume: What becomes of a round that was interrupted: `"restart"` begins it anew, and the queries are
            those of an undisturbed run; `"checkpoint"` goes on from its newest checkpoint, if there is one
            to go on from: no label is lost, but the queries may differ.

    Returns:
        The history, of all rounds in the ledger; `history.waiting` says how many samples wait for labels.

    Raises:
        MisconfigurationException: If `make_trainer` does not give fresh plain Trainers.
        TypeError: If `model` is a class, or a function that takes no seed.
        ValueError: If members of a committee have trainable parameters in common.

    Example:
        >>> import tempfile
        >>> class Net(L.LightningModule):
        ...     def __init__(self):
        ...         super().__init__()
        ...         self.layer = torch.nn.Linear(1, 2)
        ...
        ...     def forward(self, x):
        ...         return self.layer(x)
        ...
        ...     def training_step(self, batch, batch_idx):
        ...         return torch.nn.functional.cross_entropy(self(batch[0]), batch[1])
        ...
        ...     def configure_optimizers(self):
        ...         return torch.optim.SGD(self.parameters(), 0.1)
        >>> def make_trainer(number):
        ...     return L.Trainer(
        ...         max_epochs=2, logger=False, enable_checkpointing=False, enable_progress_bar=False,
        ...         enable_model_summary=False, devices=1,
        ...     )
        >>> x = torch.linspace(-1, 1, 40)[:, None]
        >>> samples = torch.utils.data.TensorDataset(x, (x[:, 0] > 0).long())
        >>> data = ActiveDataModule(samples, initial=4, state_dir=tempfile.mkdtemp())
        >>> history = fit_rounds(Net(), make_trainer, data, ActiveLearning(query_size=3), rounds=2)
        >>> history.column("labeled"), history.column("asked")
        ([4, 7, 10], [3, 3, 0])
    """
    check_positive(rounds=rounds)
    if resume not in ("restart", "checkpoint"):
        raise ValueError(f'`resume` is {resume!r}; needed is "restart" or "checkpoint".')
    makers = None if active.committee is None else active.committee.makers
    if model is None and makers is None:
        raise ValueError(
            "`model` is None, which only a committee with `models` of its own allows. Pass a module, or a "
            "function from a seed to one."
        )
    if model is not None and makers is not None:
        raise ValueError(
            f"`model` is given, but the members of {active.committee!r} are made by its own functions. Pass "
            "`None` for `model`, or add it to `models` as a function from a seed to a module."
        )
    if model is not None and not isinstance(model, torch.nn.Module):
        check_maker(model)
    with data.held():
        return _Driver(model, make_trainer, data, active, rounds, resume).run()


class _Driver:
    def __init__(
        self,
        model: L.LightningModule | Callable[[int], L.LightningModule] | None,
        make_trainer: Callable[[int], L.Trainer],
        data: ActiveDataModule,
        active: ActiveLearning,
        rounds: int,
        resume: str,
    ) -> None:
        self.model, self.make_trainer, self.data, self.active = model, make_trainer, data, active
        self.rounds, self.resume = rounds, resume
        self.rows: dict[int, dict[str, Any]] = {}
        self.done: set[int] = set()
        self.loggers: list[Any] | None = None
        self.steps = 0
        self.last_trainer: L.Trainer | None = None
        self.last_module: L.LightningModule | None = None
        self.apart = Apart()
        shares = active.committee is not None and isinstance(model, torch.nn.Module)
        buffers = model.named_buffers() if shares and isinstance(model, torch.nn.Module) else ()
        self.buffers = {name: buffer.detach().clone() for name, buffer in buffers}

    def run(self) -> History:
        data = self.data
        data.open()
        committee = self.active.committee
        if committee is not None and isinstance(self.model, torch.nn.Module):
            rank_zero_info(
                f"{committee!r}: the weights of the given module are drawn anew for each member; pass a "
                "function from a seed to a module for pre-trained ones"
            )
        if data.state_dir is not None and data.ledger.exists():
            self.rows = {int(row["round"]): row for row in data.ledger.rounds()}
        while True:
            if len(data.asked_indices):
                rank_zero_info(data.waiting_message())
                break
            number = self._next_round()
            if number is None:
                break
            with data.as_of(number):
                trainer = self._run_round(number)
            data.open()
            if trainer.fast_dev_run:  # type: ignore[attr-defined]
                rank_zero_info("fast_dev_run: one round was tried; no query of it was recorded")
                break
        return History([self.rows[n] for n in sorted(self.rows)], waiting=len(data.asked_indices))

    def _next_round(self) -> int | None:
        """The first round that is not finished; the newest one also if it could still ask."""
        last = self.data.state.last_round
        for number in range(last + 1):
            row = self.rows.get(number)
            tested = row is not None and (row.get("tested") or not self.data.has_test_data())
            if not tested:
                return number
        # Labels given or corrected since, by whomever, are to be trained on too.
        stale = last not in self.done and self.rows[last].get("trained") != self.data.training_set().digest
        return last if stale or self._can_ask(last) else None

    def _can_ask(self, number: int) -> bool:
        return number < self.rounds and self.active.num_to_ask(self.data) > 0

    def _run_round(self, number: int) -> L.Trainer:
        """An older round, which lacks its test, is trained again on the labels that it had."""
        data = self.data
        committee = self.active.committee
        with ExitStack() as block:
            seat: Seat | None = None
            before = 0.0
            if committee is not None:
                members, before = self._train_members(number, committee)
                block.enter_context(committee.seated(members))
                seat = self._seat(number, committee, committee.num_samples - 1)
            trainer, module, callback = self._fit(number, committee, seat)
            self.active.last_query = callback.last_query
            if trainer.fast_dev_run:  # type: ignore[attr-defined]
                return trainer
            data.open()
            row = self._row(number, callback)
            row["train_s"] += before
            if data.has_test_data():
                row |= self._test(trainer, module, number)
        row["tested"] = True
        self.rows[number] = self.active.row = row
        self.done.add(number)
        data.record_round(row)
        if is_writer():
            assert data.state_dir is not None
            History([self.rows[n] for n in sorted(self.rows)]).write_csv(data.state_dir / "history.csv")
        self._keep_loggers(trainer, row)
        return trainer

    def _fit(
        self, number: int, committee: Committee | None, seat: Seat | None
    ) -> tuple[L.Trainer, L.LightningModule, ActiveLearning]:
        """One fit: the round's, or that of one member of its committee."""
        data = self.data
        name = () if seat is None else seat.name
        L.seed_everything(derive_seed(data.seed, "round", number, *name), workers=True, verbose=False)
        trainer = self._trainer(number, seat)
        last = seat is None or seat.is_last
        fresh = not isinstance(self.model, torch.nn.Module) or (committee is not None and committee.makers)
        can_ask = not data.repeats_round and self._can_ask(number)
        callback = self.active.for_round(
            asks=last and can_ask,
            drawn=bool(fresh) and self.active.restart == "redraw",
            seat=seat,
            # What cannot be scored is known before the first member's training, not only the last one's.
            rehearses=can_ask and (last or (seat is not None and seat.number == 0)),
        )
        trainer.callbacks.append(callback)  # type: ignore[attr-defined]
        module = self._module(number, committee, seat)
        if type(trainer.strategy.launcher).__name__ == "_MultiProcessingLauncher":
            self._make_layers(module, trainer)
        path = agree(lambda: self._checkpoint(trainer, number))
        with data.drawn_for(*name, bootstrap=committee is not None and committee.bootstrap):
            trainer.fit(module, datamodule=data, ckpt_path=path)
        return trainer, module, callback

    def _make_layers(self, module: L.LightningModule, trainer: L.Trainer) -> None:
        """Layers made in processes started anew are not in this one's module when they end."""
        module = getattr(module, "_orig_mod", module)
        if is_overridden("configure_model", module):
            module.trainer = self.data.trainer = trainer
            trainer.datamodule = self.data  # type: ignore[attr-defined]
            module.configure_model()

    def _train_members(self, number: int, committee: Committee) -> tuple[list[Member | None], float]:
        """All members but the last, whose fit asks; those that are there already stay. And the seconds."""
        members: list[Member | None] = []
        seconds = 0.0
        for place in range(committee.num_samples - 1):
            seat = self._seat(number, committee, place)
            took = agree(partial(seat.kept, self.data.training_set().digest))
            if took is None:
                with committee.seated([None] * committee.num_samples):
                    trainer, _, _ = self._fit(number, committee, seat)
                self.data.open()
                if trainer.fast_dev_run:  # type: ignore[attr-defined]
                    return [None] * committee.num_samples, 0.0
                self._keep_steps(trainer)
                took = agree(partial(seat.kept, self.data.training_set().digest))
                assert took is not None
                rank_zero_info(f"round {number}: member {place + 1} of {committee.num_samples} is trained")
            seconds += took
            make = None if committee.makers is None else committee.makers[place]
            members.append(Member(seat.file, make, self._weights_seed(number, seat)))
        return [*members, None], seconds

    def _seat(self, number: int, committee: Committee, place: int) -> Seat:
        assert self.data.state_dir is not None
        file = self.data.state_dir / f"round_{number}" / f"member_{place}.pt"
        shares = committee.makers is None and isinstance(self.model, torch.nn.Module)
        return Seat(place, committee.num_samples, file, shares)

    def _weights_seed(self, number: int, seat: Seat | None) -> int:
        drawn = number if self.active.restart == "redraw" else 0
        return derive_seed(self.data.seed, "weights", drawn, *(() if seat is None else seat.name))

    def _module(self, number: int, committee: Committee | None, seat: Seat | None) -> L.LightningModule:
        seed = self._weights_seed(number, seat)
        if committee is not None and committee.makers is not None and seat is not None:
            module = committee.makers[seat.number](seed)
        elif isinstance(self.model, torch.nn.Module):
            check_module(self.model)
            for name, buffer in self.model.named_buffers() if self.buffers else ():
                if name in self.buffers:  # no member begins with what another one counted
                    buffer.copy_(self.buffers[name])
            return self.model  # type: ignore[return-value]  # perhaps compiled, which `fit` takes too
        else:
            assert self.model is not None
            module = self.model(seed)
        check_module(module)
        if committee is not None and module is self.last_module:
            raise ValueError(
                "The function that makes a committee's members returned the same module twice, so training "
                "one would change another. Make a fresh one in every call."
            )
        if committee is not None:
            self.apart.check(module)
        self.last_module = module
        return module

    def _row(self, number: int, callback: ActiveLearning) -> dict[str, Any]:
        """Of this process if the fit ran in it; else, under spawn and fork, what it wrote."""
        if callback.row:
            return self.rows.get(number, {}) | callback.row
        return next(row for row in self.data.ledger.rounds() if row["round"] == number)

    def _test(self, trainer: L.Trainer, module: L.LightningModule, number: int) -> dict[str, Any]:
        best = "best" if self.active.score_with == "best" else None
        posterior = self.active.test_posterior or self.active.committee
        if posterior is not None and not isinstance(posterior, SinglePass):
            acquisition = self.active.acquisition
            numbers: Kind | None = "numbers" if {"mean", "variance"} & set(acquisition.needs) else None
            outputs: Kind | None = "labels" if acquisition.multilabel else numbers
            seed = derive_seed(self.data.seed, "test", number)
            averaged = AveragedTest(posterior, Targets.of(self.data, outputs=outputs), seed)
            trainer.callbacks.append(averaged)  # type: ignore[attr-defined]
        results = trainer.test(module, datamodule=self.data, ckpt_path=best, verbose=False)
        return {key: value for result in results for key, value in result.items()}

    # ------------------------------------------------------------------ the Trainer of a round

    def _trainer(self, number: int, seat: Seat | None) -> L.Trainer:
        trainer = self.make_trainer(number)
        if not isinstance(trainer, L.Trainer):
            raise MisconfigurationException(
                f"`make_trainer({number})` returned a {type(trainer).__name__}; needed is a "
                "`lightning.Trainer`. Return a fresh one each round."
            )
        if trainer is self.last_trainer or trainer.global_step > 0:
            raise MisconfigurationException(
                "`make_trainer` returned a Trainer that has fitted before; its epochs are used up. Make a "
                "fresh one, with fresh callbacks, in every call."
            )
        if any(isinstance(c, ActiveLearning) for c in trainer.callbacks):  # type: ignore[attr-defined]
            raise MisconfigurationException(
                "The Trainer holds an `ActiveLearning` already, and `fit_rounds` adds the one that it was "
                "given: the round would ask twice. Leave it out of `make_trainer`."
            )
        _refuse_shared(trainer, self.last_trainer)
        self.last_trainer = trainer
        for checkpoint in trainer.checkpoint_callbacks:
            if isinstance(checkpoint, ModelCheckpoint) and self.data.state_dir is not None:
                home = Path(checkpoint.dirpath) if checkpoint.dirpath else self.data.state_dir
                member = "" if seat is None else f"member_{seat.number}"
                checkpoint.dirpath = str((home / f"round_{number}" / member).absolute())
        if self.loggers is not None and trainer.loggers:
            trainer.loggers = self.loggers
            # Lightning's own steps go on where the last round's ended: one curve in the logger.
            trainer.fit_loop.epoch_loop._batches_that_stepped = self.steps
        return trainer

    def _keep_steps(self, trainer: L.Trainer) -> None:
        if self.loggers is None and trainer.loggers:
            self.loggers = list(trainer.loggers)
        self.steps = max(self.steps, trainer.fit_loop.epoch_loop._batches_that_stepped)

    def _keep_loggers(self, trainer: L.Trainer, row: dict[str, Any]) -> None:
        self._keep_steps(trainer)
        metrics = {
            f"active/{key}": float(value)
            for key, value in row.items()
            if key not in (*COLUMNS, "tested") and isinstance(value, int | float)
        }
        for logger in trainer.loggers if metrics else []:
            logger.log_metrics(metrics, step=row["labeled"])
            logger.save()

    def _checkpoint(self, trainer: L.Trainer, number: int) -> str | None:
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
        if self.resume == "checkpoint" and _can_go_on(files[-1], trainer):
            return str(files[-1])
        if is_writer():
            for folder in folders:
                _put_aside(folder)
        return None


def _refuse_shared(trainer: L.Trainer, last: L.Trainer | None) -> None:
    """Early stopping that has stopped once would stop the next round too."""
    for callback in trainer.callbacks:  # type: ignore[attr-defined]
        shared = last is not None and any(callback is other for other in last.callbacks)  # type: ignore[attr-defined]
        if shared and isinstance(callback, KEEPS_STATE):
            raise MisconfigurationException(
                f"`make_trainer` put the same `{type(callback).__name__}` into two Trainers; it still knows "
                "the last round's values. Make fresh callbacks in every call."
            )


def _can_go_on(file: Path, trainer: L.Trainer) -> bool:
    """Whether a checkpoint is of a training that has epochs and steps left."""
    saved = torch.load(file, map_location="cpu", weights_only=False)
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

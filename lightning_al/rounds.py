"""ROUNDS: train, query, label, train again, with a fresh Trainer each round.

for every round: weights -> fit -> query (the callback) -> test -> a row of the history

Here is the loop, and which round comes next; what one fit is made of is in `fitting/`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from typing import Any, Literal

import lightning as L
import torch
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from lightning.pytorch.utilities.rank_zero import rank_zero_info

from lightning_al.callbacks import ActiveLearning
from lightning_al.callbacks.seat import Seat
from lightning_al.data import ActiveDataModule
from lightning_al.data.book import is_writer
from lightning_al.data.checks import check_positive
from lightning_al.data.ranks import asking_by, check_ranks
from lightning_al.fitting import Fit, Fits, Models, Trainers, train_members
from lightning_al.fitting.connecting import may_be_one_of_several
from lightning_al.fitting.members import seat_of
from lightning_al.history import COLUMNS, History
from lightning_al.inference.averaging import AveragedTest, Kind, Targets
from lightning_al.inference.committee import check_maker
from lightning_al.inference.posteriors import SinglePass
from lightning_al.randomness import derive_seed
from lightning_al.stopping import StopCriterion, Stopping, checked_criteria
from lightning_al.together import agree, on_every_rank, shared

__all__ = ["fit_rounds"]

#: What no test metric may be named.
_TAKEN = frozenset((*COLUMNS, "tested", "trained", "stopped"))


def fit_rounds(
    model: L.LightningModule | Callable[[int], L.LightningModule] | None,
    make_trainer: Callable[[int], L.Trainer],
    data: ActiveDataModule,
    active: ActiveLearning,
    *,
    rounds: int,
    resume: Literal["restart", "checkpoint"] = "restart",
    stop: StopCriterion | Sequence[StopCriterion] | None = None,
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
            `ActiveLearning`, which is added. The first call comes before any look at the ledger where
            processes were started from outside (torchrun, SLURM), and they meet by what it returns. It is
            called once even if no round is left to do: only a Trainer knows whether there are other
            processes, and those that Lightning starts later in the script begin it anew and meet here.
        data: The samples; with a test set, every round is tested.
        active: The strategy and what goes with it.
        rounds: How many queries; the last one's labels are trained on too, so there are `rounds + 1` fits.
        resume: What becomes of a round that was interrupted: `"restart"` begins it anew, and the queries are
            those of an undisturbed run; `"checkpoint"` goes on from its newest checkpoint, if there is one
            to go on from: no label is lost, but the queries may differ.
        stop: When to end before all rounds are done: a criterion, or several, any of which ends them:
            `TargetMetric("val_acc", 0.95)`, `Plateau("val_acc")`, `StablePredictions()`. They are judged
            after a round's training and before its query, by what goes into its row; so called again with the
            same ones nothing more is done, with a higher target it goes on. The column `stopped` says why.

    Returns:
        The history, of all rounds in the ledger; `history.waiting` says what waits for labels.

    Raises:
        MisconfigurationException: If `make_trainer` does not give fresh plain Trainers.
        TypeError: If `model` is a class, or a function that takes no seed; or `stop` no criterion.
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
    criteria = checked_criteria(stop)
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
        fits = Fits(Trainers(make_trainer, data, resume), Models(model, data, active), data, active)
        return _Driver(fits, data, active, rounds, criteria).run()


def _check_names(tests: Mapping[str, Any]) -> None:
    """Refuse a test metric that would take the place of what the row says of the round."""
    taken = sorted(_TAKEN & tests.keys())
    if taken:
        raise MisconfigurationException(
            f"The module's `test_step` logs {', '.join(map(repr, taken))}, which a column of the history is "
            "named that holds something else; needed are other names. Log it as `test_...`."
        )


class _Driver:
    """The loop.

    Args:
        fits: Makes the fits of a round.
        data: What is trained on and asked for.
        active: The strategy.
        rounds: How many queries.
        criteria: What may end them before.
    """

    def __init__(
        self, fits: Fits, data: ActiveDataModule, active: ActiveLearning, rounds: int,
        criteria: tuple[StopCriterion, ...] = (),
    ) -> None:  # fmt: skip
        self.fits, self.data, self.active, self.rounds = fits, data, active, rounds
        self.criteria = criteria
        self.resume = fits.trainers.resume
        self.rows: dict[int, dict[str, Any]] = {}
        self.done: set[int] = set()

    def run(self) -> History:
        data = self.data
        committee = self.active.committee
        number = self._begin()
        if number is None and self.rows:  # what ended after its last row was recorded has not written it
            agree(self._write_history)
        if committee is not None and isinstance(self.fits.models.model, torch.nn.Module):
            rank_zero_info(
                f"{committee!r}: the weights of the given module are drawn anew for each member; pass a "
                "function from a seed to a module for pre-trained ones"
            )
        while number is not None:
            with data.as_of(number):
                fit = self._run_round(number)
            data.open()
            if fit.was_tried:
                rank_zero_info("fast_dev_run: one round was tried; no query of it was recorded")
                break
            number = self._next_round()
        waiting = data.waiting
        if waiting:
            rank_zero_info(str(waiting))
        return History([self.rows[n] for n in sorted(self.rows)], waiting=waiting)

    def _begin(self) -> int | None:
        """Which round is first; all processes are there then, and have heard it of rank 0."""
        committee = self.active.committee
        if may_be_one_of_several():
            # Which round is next only rank 0 may look up, and who that is shows when all have met.
            self.fits.connect(0, committee)
        self._look()
        number = self._next_round()
        # Also if there is nothing to do: processes that are started later begin here and expect this one.
        like = self.data.round if number is None else number
        with self.data.as_of(like):
            met = self.fits.connect(like, committee)
        if met:
            self._look()
            number = self._next_round()
        return number

    def _look(self) -> None:
        """What rank 0 finds in the ledger, and what rounds it has."""
        data = self.data
        driving = {"`rounds`": self.rounds, "`resume`": self.resume, "`stop`": self.criteria}
        check_ranks(data, asking_by(self.active) | driving)
        data.open()
        rows = agree(self._recorded)
        self.rows = {int(row["round"]): row for row in rows}

    def _recorded(self) -> list[dict[str, Any]]:
        if not is_writer():
            return []
        # Also the budget, which a callback writes only once there is a training.
        meta, planned = self.data.ledger.meta(), {"rounds": self.rounds, "budget": self.active.budget}
        if any(meta.get(name) != value for name, value in planned.items()):
            self.data.ledger.set_meta(**planned)
        return self.data.ledger.rounds()

    def _next_round(self) -> int | None:
        """The first round that is not finished; the newest one also if it could still ask.

        `None` if there is no such, or labels must come first.
        """
        if self.data.book.waiting().blocks:
            return None
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
        left = number < self.rounds and self.active.num_to_ask(self.data) > 0
        return left and not self._has_stopped(number)

    def _has_stopped(self, number: int) -> bool:
        """By what is on record of this training, under the criteria as they are now."""
        row = self.rows.get(number)
        if not self.criteria or row is None or row.get("trained") != self.data.training_set().digest:
            return False
        return self._stopping(number).reason(row) is not None

    def _stopping(self, number: int) -> Stopping:
        known = tuple(self.rows[n] for n in sorted(self.rows) if n <= number)
        return Stopping(self.criteria, known)

    def _asks(self, number: int) -> bool:
        return not self.data.repeats_round and self._can_ask(number)

    def _run_round(self, number: int) -> Fit:
        """An older round, which lacks its test, is trained again on the labels that it had."""
        data = self.data
        committee = self.active.committee
        self.fits.stopping = self._stopping(number)
        with ExitStack() as block:
            seat: Seat | None = None
            before = 0.0
            if committee is not None:
                members, before = train_members(self.fits, number, committee, asks=self._asks(number))
                block.enter_context(committee.seated(members))
                seat = seat_of(self.fits, number, committee, committee.num_samples - 1)
            fit = self.fits.fit(number, committee, seat, asks=self._asks(number))
            self.active.last_query = fit.callback.last_query
            if fit.was_tried:
                return fit
            data.open()
            row = self._row(number, fit.callback)
            row["train_s"] += before
            tests = self._test(fit, number) if data.has_test_data() else {}
        _check_names(tests)
        row |= tests
        row["tested"] = True
        self.rows[number] = self.active.row = row
        self.done.add(number)
        data.record_round(row)
        agree(self._write_history)
        self.fits.trainers.keep_steps(fit.trainer)
        self.fits.trainers.log(fit.trainer, {"labeled": row["labeled"], **tests})
        return fit

    def _write_history(self) -> None:
        if is_writer():
            assert self.data.state_dir is not None
            History([self.rows[n] for n in sorted(self.rows)]).write_csv(self.data.state_dir / "history.csv")

    def _row(self, number: int, callback: ActiveLearning) -> dict[str, Any]:
        """Of this process if the fit ran in it; else, under spawn and fork, what it wrote."""
        if callback.row:
            return self.rows.get(number, {}) | callback.row
        return next(row for row in self.data.ledger.rounds() if row["round"] == number)

    def _test(self, fit: Fit, number: int) -> dict[str, Any]:
        best = "best" if self.active.score_with == "best" else None
        posterior = self.active.test_posterior or self.active.committee
        if posterior is not None and not isinstance(posterior, SinglePass):
            acquisition = self.active.acquisition
            numbers: Kind | None = "numbers" if {"mean", "variance"} & set(acquisition.needs) else None
            outputs: Kind | None = "labels" if acquisition.multilabel else numbers
            seed = derive_seed(self.data.seed, "test", number)
            averaged = AveragedTest(posterior, Targets.of(self.data, outputs=outputs), seed)
            fit.trainer.callbacks.append(averaged)  # type: ignore[attr-defined]
        if best and shared():
            best = agree(lambda: getattr(fit.trainer.checkpoint_callback, "best_model_path", "")) or best
        with on_every_rank(best) as file:
            results = fit.trainer.test(fit.module, datamodule=self.data, ckpt_path=file, verbose=False)
        return {key: value for result in results for key, value in result.items()}

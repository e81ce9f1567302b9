"""The query at the end of fit: a drop-in callback.

end of training -> score the pool -> select -> ledger -> labels; the next fit trains on them
"""

from __future__ import annotations

import copy
import time
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Literal

import lightning as L
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from lightning.pytorch.utilities.model_helpers import is_overridden
from lightning.pytorch.utilities.rank_zero import rank_zero_info

from lightning_al.acquisition import Acquisition, Margin, PowerSampling
from lightning_al.acquisition.base import checked_posterior
from lightning_al.callbacks.checks import (
    advise_configure_model,
    check_not_wrapped,
    check_sharded,
    check_strategy,
    check_wrapped_once,
    data_of,
    no_step,
)
from lightning_al.callbacks.class_balance import ClassBalance
from lightning_al.callbacks.rearm import Rearm
from lightning_al.callbacks.report import log_round, said_of_round
from lightning_al.callbacks.seat import Seat
from lightning_al.callbacks.unread import check_unread
from lightning_al.callbacks.weights import Restart, StoredWeights, best_weights
from lightning_al.data import ActiveDataModule, AwaitingLabels
from lightning_al.data.book import is_writer
from lightning_al.data.checks import check_lightning, check_positive
from lightning_al.data.snapshot import sign
from lightning_al.inference.committee import Committee
from lightning_al.inference.posteriors import Posterior, SinglePass
from lightning_al.inference.scoring import rehearse
from lightning_al.inference.sharded import root_of
from lightning_al.querying import Query, check_acquisition, choose
from lightning_al.randomness import derive_seed
from lightning_al.stopping.base import Ended
from lightning_al.stopping.judging import Stopping
from lightning_al.together import agree, close_at_exit, leave_open

__all__ = ["ActiveLearning"]


class ActiveLearning(L.Callback):
    """Asks for the labels of the most informative samples when a fit ends. One fit is one round.

    `for _ in range(11): trainer.fit(model, datamodule=data)` makes eleven rounds: before each, the
    Trainer's counters and Lightning's own callbacks are put back, and the module's weights as `restart`
    says. `fit_rounds` does the same with a fresh Trainer a round and works with every strategy.

    Args:
        acquisition: The strategy; `None` is `PowerSampling(Margin())`, a draw by margins, which any
            classifier can be asked by: in `docs/evidence.md` the simplest of those that the seeds cannot tell
            from the one with the least to regret. It may not be the best for your data: `compare` tells.
        query_size: Samples a round.
        budget: Labels in all, initial ones included; at the budget a fit trains and asks nothing. `None`:
            until the pool is empty.
        candidates: Score a seeded subset of the pool of this size; `None`: all of it.
        restart: What a round's training begins with: `"initial"` (the weights of round 0), `"redraw"` (new
            random ones), `"shrink_perturb"`, or `"warm"` (the last round's).
        score_with: `"last"` scores the weights that training ended with, `"best"` those of the best
            checkpoint, which needs a `ModelCheckpoint` with a monitor.
        embedding_layer: Layer whose output is the embedding; `None`: the input of the last linear layer.
        test_posterior: With `fit_rounds`, test the mean prediction of these passes, such as `MCDropout(20)`;
            `None`: one pass, or the mean of the committee that was trained. `test_step` must call `self(x)`
            and compute its loss from what it gives: a loss that `forward` returns is one pass's. Whether it
            calls it is known only at the first test; `SinglePass()` is a plain test of the module, or of a
            committee's last member, for those that do not.
        accept_changes: Go on with a ledger that was made with another strategy.

    Attributes:
        last_query: What the last fit asked for, or `None`.

    Raises:
        ValueError: If an argument does not fit.
        MisconfigurationException: At the start of a fit, if the Trainer or data module does not.

    Example:
        >>> from lightning_al import acquisition as acq
        >>> active = ActiveLearning(acq.Entropy(), query_size=100, budget=1020)
        >>> active.query_size, active.budget
        (100, 1020)
    """

    def __init__(
        self,
        acquisition: Acquisition | None = None,
        *,
        query_size: int,
        budget: int | None = None,
        candidates: int | None = None,
        restart: Restart = "initial",
        score_with: Literal["last", "best"] = "last",
        embedding_layer: str | None = None,
        test_posterior: Posterior | None = None,
        accept_changes: bool = False,
    ) -> None:
        acquisition = PowerSampling(Margin()) if acquisition is None else acquisition
        check_acquisition(acquisition)
        check_positive(query_size=query_size, budget=budget, candidates=candidates)
        if candidates is not None and candidates < query_size:
            raise ValueError(
                f"`candidates` is {candidates}, fewer than the `query_size` of {query_size} that is to be "
                "chosen among them. Raise it, or leave it out."
            )
        if restart not in ("initial", "redraw", "shrink_perturb", "warm"):
            raise ValueError(
                f'`restart` is {restart!r}; needed is "initial", "redraw", "shrink_perturb" or "warm".'
            )
        if score_with not in ("last", "best"):
            raise ValueError(f'`score_with` is {score_with!r}; needed is "last" or "best".')
        self.acquisition = acquisition
        self.query_size, self.budget, self.candidates = query_size, budget, candidates
        self.restart: Restart = restart
        self.score_with, self.embedding_layer = score_with, embedding_layer
        self.test_posterior = None if test_posterior is None else checked_posterior(test_posterior)
        self._check_committees()
        self.accept_changes = accept_changes
        self.last_query: Query | None = None
        #: Measurements of the last fit, as `fit_rounds` collects them.
        self.row: dict[str, Any] = {}
        self._driven, self._asks, self._drawn, self._rehearses = False, True, False, True
        self._made = False
        self._seat: Seat | None = None
        self._stopping = Stopping()
        self._rearm = Rearm()
        self._begun = 0.0
        self._ended = False

    # ------------------------------------------------------------------ what is asked

    def num_to_ask(self, data: ActiveDataModule) -> int:
        """How many samples to ask for now: within the budget, and no more than there are."""
        spent = len(data.labeled_indices) + len(data.asked_indices)
        left = self.query_size if self.budget is None else self.budget - spent
        return max(0, min(self.query_size, left, len(data.pool_indices)))

    @property
    def committee(self) -> Committee | None:
        """The committee whose members a round is to train, if there is one."""
        for posterior in (self.acquisition.posterior, self.test_posterior):
            if isinstance(posterior, Committee) and posterior.trains:
                return posterior
        return None

    def _check_committees(self) -> None:
        asked, tested = self.acquisition.posterior, self.test_posterior
        trained = [p for p in (asked, tested) if isinstance(p, Committee) and p.trains]
        if len(trained) == 2 and asked is not tested:
            raise ValueError(
                f"`acquisition` has {asked!r} and `test_posterior` is another {tested!r}, but a round trains "
                "one committee. Leave `test_posterior` out, or pass the same object twice."
            )

    def for_round(
        self, *, asks: bool, drawn: bool, seat: Seat | None = None, rehearses: bool | None = None,
        made: bool = False, stopping: Stopping | None = None,
    ) -> ActiveLearning:  # fmt: skip
        """The callback of one fit of a driver, whose Trainers are fresh.

        Args:
            asks: Whether the round is to ask for anything.
            drawn: Whether the module's weights are those to begin with, fresh from a factory.
            seat: The committee's member that the fit trains.
            rehearses: Whether to try the scoring before the training; `None`: if it asks.
            made: Whether every fit has a module of its own.
            stopping: What may end the rounds before the query.
        """
        one = copy.copy(self)
        one._driven, one._asks, one._drawn, one._seat = True, asks, drawn, seat
        one._rehearses, one._made = asks if rehearses is None else rehearses, made
        one._stopping = stopping or Stopping()
        one.row, one.last_query = {}, None
        return one

    # ------------------------------------------------------------------ hooks, in order

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:  # noqa: D102
        leave_open()
        check_lightning(trainer)
        advise_configure_model(pl_module)
        if stage != "fit":
            return
        check_strategy(trainer)
        check_not_wrapped(pl_module)
        data = data_of(trainer)
        data.check_oracle()
        self.acquisition.check(len(data.samples))
        self._check_trainer(trainer)
        if not self._driven:
            self._refuse_committee()
            self._rearm(trainer, pl_module)
        if not trainer.fast_dev_run:  # type: ignore[attr-defined]
            agree(lambda: self._check_record(data))
        # Last of all callbacks: after averaged weights are in place and the best checkpoint is written.
        # A new list, since Lightning is walking through the old one.
        others = [c for c in trainer.callbacks if c is not self]  # type: ignore[attr-defined]
        trainer.callbacks = [*others, self]  # type: ignore[attr-defined]

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:  # noqa: D102
        self._begun, self._ended, self.last_query = time.perf_counter(), False, None
        data = data_of(trainer)
        asked = self.acquisition
        check_sharded(
            trainer, pl_module, posterior=asked.posterior, needs=asked.needs, restart=self.restart,
            drawn=self._drawn, score_with=self.score_with, test_posterior=self.test_posterior,
        )  # fmt: skip
        check_wrapped_once(trainer, pl_module, loops=self._driven, made=self._made, tests=data.has_test_data)
        if trainer.fast_dev_run:  # type: ignore[attr-defined]
            return
        weights = self._weights(data)
        root = root_of(trainer, pl_module)
        if trainer.ckpt_path is None:
            seed = derive_seed(
                data.seed, "weights", data.round, *([] if self._seat is None else self._seat.seeds)
            )
            redraws = self._seat is not None and self._seat.shares_module
            weights.begin(root, data.round, seed, drawn=self._drawn, redraws=redraws)
        elif not trainer.strategy.restore_checkpoint_after_setup:  # the weights are those of the checkpoint
            weights.remember(root)
        if self._driven and any(is_overridden(hook, pl_module) for hook in ("setup", "configure_model")):
            # They draw what they make only at the first fit of a process, perhaps of a later round.
            name = () if self._seat is None else self._seat.seeds
            L.seed_everything(derive_seed(data.seed, "fit", data.round, *name), workers=True, verbose=False)

    def on_load_checkpoint(  # noqa: D102
        self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        if trainer.state.fn == "fit":
            data_of(trainer).compare_with(checkpoint)

    def on_save_checkpoint(  # noqa: D102
        self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        data = trainer.datamodule  # type: ignore[attr-defined]
        # By rank 0 alone, whose copy is written: a process that saves when it fails meets no other.
        if isinstance(data, ActiveDataModule) and data.state_dir is not None and is_writer():
            sign(checkpoint, data.state_dir)

    def on_exception(  # noqa: D102
        self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException
    ) -> None:
        if isinstance(exception, AwaitingLabels) and trainer.state.fn == "fit":
            check_unread(trainer, data_of(trainer), exception)

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:  # noqa: D102
        data = data_of(trainer)
        late = trainer.ckpt_path is not None and trainer.strategy.restore_checkpoint_after_setup
        if late and not trainer.fast_dev_run:  # type: ignore[attr-defined]
            self._weights(data).remember(root_of(trainer, pl_module))
        if self._rehearses and self.num_to_ask(data):
            asked = self.acquisition
            rehearse(
                asked.posterior, asked.needs, trainer, pl_module, data,
                summarize=asked.summarize, multilabel=asked.multilabel, embedding_layer=self.embedding_layer,
            )  # fmt: skip
            self._rehearse_test(trainer, pl_module, data)
            self._stopping.rehearse(self._ended_fit(trainer, pl_module, data))

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:  # noqa: D102
        self._ended = True
        data = data_of(trainer)
        number = data.round
        if trainer.global_step == 0:
            raise no_step(trainer)
        assert data.training is not None
        labeled = data.training.labeled
        self.row = {
            "round": number,
            "labeled": len(labeled),
            "trained": data.training.digest,
            "train_s": time.perf_counter() - self._begun,
            "label_entropy": data.state.label_entropy(labeled),
            **_noted(trainer),
        }
        if self._seat is not None and not trainer.fast_dev_run:  # type: ignore[attr-defined]
            if not self._seat.is_last:  # before it counts as trained
                self._weights(data).end(pl_module, number)
            with self._scored_weights(trainer, pl_module):
                self._seat.keep(pl_module, self.row)
            if not self._seat.is_last:
                return
        if not data.repeats_round:  # a round trained again keeps what is known of its query
            self.row |= {"asked": 0, "score_s": 0.0, "select_s": 0.0}
            judged = self._scored_weights(trainer, pl_module) if self._stopping.criteria else nullcontext()
            with judged:
                self.row |= self._stopping.judge(self._ended_fit(trainer, pl_module, data), self.row)
        if trainer.fast_dev_run:  # type: ignore[attr-defined]
            self._try(trainer, pl_module, data)
            return
        self._weights(data).end(root_of(trainer, pl_module), number)
        stopped = self.row.get("stopped", "")
        count = self.num_to_ask(data) if self._asks and not stopped else 0
        if count:
            self._ask(trainer, pl_module, data, count)
        else:
            data.record_round(self.row)
        log_round(trainer, self.row, self.last_query)
        if self._asks:
            asked, budget = self.row["asked"], self.budget
            rank_zero_info(said_of_round(data, number, asked, budget, driven=self._driven, stopped=stopped))

    def on_fit_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:  # noqa: D102
        if not self._ended:  # Lightning skipped the loop
            raise no_step(trainer)

    def teardown(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:  # noqa: D102
        close_at_exit()

    # ------------------------------------------------------------------ helpers

    def _choose(
        self, trainer: L.Trainer, module: L.LightningModule, data: ActiveDataModule, count: int
    ) -> Query:
        with self._scored_weights(trainer, module):
            return choose(
                self.acquisition, trainer, module, data, count,
                candidates=self.candidates, embedding_layer=self.embedding_layer,
            )  # fmt: skip

    def _scored_weights(self, trainer: L.Trainer, module: L.LightningModule) -> AbstractContextManager[None]:
        if self.score_with == "best" and not trainer.fast_dev_run:  # type: ignore[attr-defined]
            return best_weights(trainer, root_of(trainer, module))
        return nullcontext()

    def _ended_fit(self, trainer: L.Trainer, module: L.LightningModule, data: ActiveDataModule) -> Ended:
        acquisition = self.acquisition
        posterior = self.test_posterior or self.committee or SinglePass()
        numbers = bool({"mean", "variance"} & set(acquisition.needs))
        best = self.score_with == "best"
        return Ended(trainer, module, data, posterior, acquisition.multilabel, numbers, best)

    def _rehearse_test(self, trainer: L.Trainer, module: L.LightningModule, data: ActiveDataModule) -> None:
        """The mean that is to be tested, of one block of the pool."""
        posterior = self.test_posterior
        asked = self.acquisition.posterior
        if posterior in (None, asked) or isinstance(posterior, SinglePass) or not data.has_test_data():
            return
        if not self.acquisition.needs:
            try:
                rehearse(SinglePass(), ("mean",), trainer, module, data)
            except Exception:  # the module need not say how it is called, and the test may know
                return
        rehearse(posterior, ("mean",), trainer, module, data)

    def _refuse_committee(self) -> None:
        if self.committee is not None:
            raise MisconfigurationException(
                f"{self.committee!r} has no members yet, and a fit trains only one model. Loop with "
                "`fit_rounds`, which trains them all; or give trained ones, `Committee(models=[...])` of "
                "modules or checkpoints; or use `MCDropout()`."
            )
        if self.test_posterior is not None:
            raise MisconfigurationException(
                f"`test_posterior={self.test_posterior!r}` is for the tests that `fit_rounds` makes, but the "
                "Trainer's fit was called. Leave it out, or loop with `fit_rounds`."
            )

    def _try(self, trainer: L.Trainer, module: L.LightningModule, data: ActiveDataModule) -> None:
        """`fast_dev_run`: everything is tried, nothing is asked for."""
        count = self.num_to_ask(data)
        if count and self._asks:
            found = self._choose(trainer, module, data, count)
            rank_zero_info(f"fast_dev_run: would ask for {len(found)} samples; no query was recorded")

    def _ask(self, trainer: L.Trainer, module: L.LightningModule, data: ActiveDataModule, count: int) -> None:
        found = self._choose(trainer, module, data, count)
        self.row |= {"asked": len(found), "score_s": found.score_s, "select_s": found.select_s}
        data.ask(
            found.indices,
            strategy=repr(self.acquisition),
            scores=found.scores.tolist(),
            round_row=self.row,
        )
        self.last_query = found

    def _weights(self, data: ActiveDataModule) -> StoredWeights:
        assert data.state_dir is not None
        folder = data.state_dir if self._seat is None else data.state_dir.joinpath(*map(str, self._seat.name))
        return StoredWeights(folder, self.restart)

    def _check_trainer(self, trainer: L.Trainer) -> None:
        if sum(isinstance(c, ActiveLearning) for c in trainer.callbacks) > 1:  # type: ignore[attr-defined]
            raise MisconfigurationException(
                "The Trainer has two `ActiveLearning` callbacks, which would both ask in one round. Keep "
                "one; wrappers in `acquisition` combine strategies."
            )
        checkpoint = trainer.checkpoint_callback
        if self.score_with == "best" and getattr(checkpoint, "monitor", None) is None:
            raise MisconfigurationException(
                '`score_with="best"` needs a checkpoint that knows what is best, but the Trainer has '
                + (f"`ModelCheckpoint(monitor={None})`" if checkpoint else "no `ModelCheckpoint`")
                + '. Add `ModelCheckpoint(monitor="val_loss")` to its callbacks, or use `score_with="last"`.'
            )

    def _check_record(self, data: ActiveDataModule) -> None:
        now = f"{self.acquisition!r}, candidates={self.candidates}"
        meta = data.ledger.meta()
        then = meta.get("strategy", now)
        if then != now and not self.accept_changes:
            raise MisconfigurationException(
                f"The ledger in {data.state_dir} was made with the strategy {then}, this run has {now}. "
                "Set it as it was, use another `state_dir`, or pass `accept_changes=True` to go on with both."
            )
        facts = {"strategy": now, "query_size": self.query_size, "budget": self.budget}
        if any(key not in meta or meta[key] != value for key, value in facts.items()):
            data.ledger.set_meta(**facts)


def _noted(trainer: L.Trainer) -> dict[str, float]:
    """What was noticed about the round's labels."""
    watches = [c for c in trainer.callbacks if isinstance(c, ClassBalance)]  # type: ignore[attr-defined]
    return {name: value for watch in watches for name, value in watch.row.items()}

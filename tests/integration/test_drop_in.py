"""One Trainer, one fit a round."""

import csv
import time

import numpy as np
import pytest
import torch
from lightning.pytorch.callbacks import Callback, EarlyStopping, LambdaCallback, ModelCheckpoint, Timer
from lightning.pytorch.loggers import CSVLogger

from integration.small import Net, Validated, blobs, margin, pool, queries, quiet
from lightning_al import ActiveLearning, History, Ledger, LedgerError, query
from lightning_al import acquisition as acq

pytestmark = pytest.mark.filterwarnings("ignore:Checkpoint directory .* exists:UserWarning")


class OneCycle(Net):
    """Keeps what the Trainer promised and what the schedule did."""

    def __init__(self):
        super().__init__()
        self.promised, self.rates = [], []

    def configure_optimizers(self):
        optimizer = torch.optim.SGD(self.parameters(), 0.1)
        self.promised.append(self.trainer.estimated_stepping_batches)
        self.rates.append([])
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.1, total_steps=self.promised[-1])
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def on_train_batch_start(self, batch, batch_idx):
        self.rates[-1].append(self.optimizers().param_groups[0]["lr"])


def one_cycle(steps):
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], 0.1)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.1, total_steps=steps)
    rates = []
    for _ in range(steps):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    return rates


def three_fits(module, data, trainer):
    for _ in range(3):
        trainer.fit(module, datamodule=data)


def logged(logger):
    with open(f"{logger.log_dir}/metrics.csv", newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture
def a_run_with_everything(tmp_path):
    class Both(OneCycle, Validated): ...

    module, logger = Both(), CSVLogger(tmp_path, flush_logs_every_n_steps=1)
    data = pool(tmp_path / "state", val_set=blobs(12, 1))
    callbacks = [margin(), EarlyStopping("val_loss", patience=5), ModelCheckpoint(monitor="val_loss")]
    trainer = quiet(
        max_epochs=3, callbacks=callbacks, logger=logger, log_every_n_steps=1, enable_checkpointing=True
    )
    three_fits(module, data, trainer)
    return module, data, trainer, logger


def test_schedules_checkpoints_and_logs_mean_one_round_each(a_run_with_everything):
    module, data, trainer, logger = a_run_with_everything
    assert module.promised == [9, 15, 21]  # 12, 20 and 28 labels in batches of 4, 3 epochs
    for total, rates in zip(module.promised, module.rates, strict=True):
        np.testing.assert_allclose(rates, one_cycle(total))
    assert trainer.current_epoch == 3
    assert trainer.global_step == 21
    checkpoint = trainer.checkpoint_callback
    assert torch.load(checkpoint.best_model_path, weights_only=False)["global_step"] in (7, 14, 21)
    assert len(checkpoint.best_k_models) == 1
    rows = logged(logger)
    steps = [int(row["step"]) for row in rows if row["train_loss"]]
    assert steps == list(range(45))
    asked = [row for row in rows if row["active/asked"]]
    assert [int(row["step"]) for row in asked] == [12, 20, 28]
    assert [float(row["active/labeled"]) for row in asked] == [12, 20, 28]
    assert [float(row["active/round"]) for row in asked] == [0, 1, 2]
    assert all(0 <= float(row["active/score_min"]) <= float(row["active/score_max"]) <= 1 for row in asked)
    history = History.of(data)
    assert history.column("labeled") == [12, 20, 28]
    assert all(0 < entropy <= np.log(3) for entropy in history.column("label_entropy"))


def test_the_callback_is_the_last_of_all(a_run_with_everything):
    _, _, trainer, _ = a_run_with_everything
    assert [type(c).__name__ for c in trainer.callbacks[-2:]] == ["ModelCheckpoint", "ActiveLearning"]


def test_with_steps_per_epoch_every_round_has_the_same_curve(tmp_path):
    module = OneCycle()
    three_fits(
        module,
        pool(tmp_path, steps_per_epoch=4),
        quiet(max_epochs=3, callbacks=[margin()]),
    )
    assert module.promised == [12, 12, 12]
    assert module.rates[0] == module.rates[1] == module.rates[2]
    assert len(module.rates[0]) == 12


class Worse(Net):
    """A metric that never improves after the first epoch."""

    def on_train_epoch_end(self):
        self.log("worse", float(self.trainer.current_epoch))


def test_early_stopping_waits_anew_in_every_round(tmp_path):
    stopping, ends = EarlyStopping("worse", patience=2), []
    note = LambdaCallback(on_train_end=lambda *_: ends.append((stopping.stopped_epoch, stopping.wait_count)))
    trainer = quiet(max_epochs=10, callbacks=[stopping, note, margin()])
    three_fits(Worse(), pool(tmp_path), trainer)
    assert ends == [(2, 2)] * 3


def test_max_steps_and_accumulation_mean_one_round_each(tmp_path):
    module = OneCycle()
    trainer = quiet(max_epochs=-1, max_steps=5, accumulate_grad_batches=2, callbacks=[margin()])
    steps = []
    for _ in range(3):
        trainer.fit(module, datamodule=pool(tmp_path, steps_per_epoch=4))
        steps.append(trainer.global_step)
    assert steps == [5, 5, 5]
    assert module.promised == [5, 5, 5]


class Manual(Net):
    """Steps its optimizer itself."""

    def __init__(self):
        super().__init__()
        self.automatic_optimization = False

    def training_step(self, batch, batch_idx):
        optimizer = self.optimizers()
        optimizer.zero_grad()
        self.manual_backward(super().training_step(batch, batch_idx))
        optimizer.step()


def test_manual_optimization_has_its_steps_anew_in_every_round(tmp_path):
    logger, steps = CSVLogger(tmp_path, flush_logs_every_n_steps=1), []
    trainer = quiet(max_epochs=-1, max_steps=5, callbacks=[margin()], logger=logger, log_every_n_steps=1)
    data = pool(tmp_path / "state", steps_per_epoch=4)
    for _ in range(3):
        trainer.fit(Manual(), datamodule=data)
        steps.append(trainer.global_step)
    assert steps == [5, 5, 5]
    assert [int(row["step"]) for row in logged(logger) if row["train_loss"]] == list(range(15))


@pytest.mark.parametrize("kind", [OneCycle, Manual])
def test_a_checkpoint_counts_its_own_round_only(tmp_path, kind):
    trainer = quiet(callbacks=[margin()], max_epochs=2)
    data, loops = pool(tmp_path / "state", steps_per_epoch=4), []
    for number in range(3):
        trainer.fit(kind(), datamodule=data)
        trainer.save_checkpoint(tmp_path / f"{number}.ckpt")
        saved = torch.load(tmp_path / f"{number}.ckpt", weights_only=False)
        loops.append(saved["loops"]["fit_loop"] | {"step": saved["global_step"]})
        # The one thing that goes on: the step that loggers see.
        assert loops[-1]["epoch_loop.state_dict"].pop("_batches_that_stepped") == 8 * (number + 1)
    assert loops[0] == loops[1] == loops[2]


def test_a_timer_has_its_whole_time_in_every_round(tmp_path):
    timer, elapsed = Timer(duration={"hours": 1}), []
    trainer = quiet(callbacks=[timer, margin()])
    for _ in range(3):
        trainer.fit(Net(), datamodule=pool(tmp_path))
        elapsed.append(timer.time_elapsed())
        timer._offset += 3601  # as if the hour had been used up
    assert max(elapsed) < 3600
    assert len(queries(tmp_path)) == 3


class Lengths(Callback):
    def __init__(self):
        self.seen = []

    def on_train_start(self, trainer, pl_module):
        self.seen.append(len(trainer.datamodule.training.indices))


def test_the_budget_is_met_when_the_query_size_does_not_divide_it(tmp_path):
    seen, data = Lengths(), pool(tmp_path)
    trainer = quiet(max_epochs=1, callbacks=[seen, margin(budget=30)])
    for _ in range(5):
        trainer.fit(Net(), datamodule=data)
    assert seen.seen == [12, 20, 28, 30, 30]
    assert {r: len(q) for r, q in queries(tmp_path).items()} == {1: 8, 2: 8, 3: 2}


def test_the_rest_of_the_pool_is_taken_then_nothing(tmp_path):
    seen, data = Lengths(), pool(tmp_path, size=25)
    trainer = quiet(max_epochs=1, callbacks=[seen, margin(query_size=10)])
    for _ in range(4):
        trainer.fit(Net(), datamodule=data)
    assert seen.seen == [12, 22, 25, 25]
    assert len(data.pool_indices) == 0
    assert sorted(data.labeled_indices) == list(range(25))


def test_candidates_are_a_seeded_subset_that_bounds_what_is_forwarded(tmp_path):
    class Counting(Net):
        def active_step(self, batch, batch_idx):
            if self.trainer.global_step:  # not in the rehearsal
                self.forwarded += len(batch[0])
            return self(batch[0])

    picked = []
    for folder in ("a", "b"):
        torch.manual_seed(0)
        module = Counting()
        module.forwarded = 0
        data = pool(tmp_path / folder)
        quiet(callbacks=[margin(candidates=15)]).fit(module, datamodule=data)
        assert module.forwarded == 15
        picked.append(set(data.labeled_indices[12:]))
    assert picked[0] == picked[1]
    assert len(picked[0]) == 8


def test_last_rounds_trains_on_the_newest_labels_only(tmp_path):
    seen, data = Lengths(), pool(tmp_path, last_rounds=2)
    three_fits(Net(), data, quiet(max_epochs=1, callbacks=[seen, margin()]))
    assert seen.seen == [12, 20, 16]
    assert len(data.labeled_indices) == 36


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_batch_norm_trains_and_scoring_leaves_its_statistics(tmp_path, precision):
    module, data = Net(batch_norm=True, dropout=0.2), pool(tmp_path)
    before = {}

    def keep(trainer, pl_module):
        before.update({k: v.clone() for k, v in pl_module.state_dict().items()})
        before["rng"] = torch.get_rng_state()

    trainer = quiet(precision=precision, callbacks=[margin(), LambdaCallback(on_train_end=keep)])
    three_fits(module, data, trainer)
    rng = before.pop("rng")
    assert torch.equal(rng, torch.get_rng_state())
    for name, value in module.state_dict().items():
        assert torch.equal(value.cpu(), before[name].cpu()), name
    assert module.training
    assert len(data.labeled_indices) == 36


@pytest.mark.filterwarnings("ignore:You have overridden `on_after_batch_transfer`:UserWarning")
def test_augmentation_in_a_transfer_hook_is_off_while_scoring(tmp_path):
    class Augmented(Net):
        def on_after_batch_transfer(self, batch, dataloader_idx):
            x, y = batch
            if self.trainer.training:
                return x + 100.0, y
            return x, y

        def active_step(self, batch, batch_idx):
            self.largest = max(self.largest, float(batch[0].abs().max()))
            return self(batch[0])

        def training_step(self, batch, batch_idx):
            assert float(batch[0].min()) > 50
            return super().training_step(batch, batch_idx)

    module = Augmented()
    module.largest = 0.0
    three_fits(module, pool(tmp_path), quiet(callbacks=[margin()]))
    assert 0 < module.largest < 50


class Inputs(Net):
    """Notes what each epoch trains on."""

    def __init__(self):
        super().__init__()
        self.epochs = {}

    def training_step(self, batch, batch_idx):
        self.epochs.setdefault(self.trainer.current_epoch, []).append(batch[0].tolist())
        return super().training_step(batch, batch_idx)


def test_overfitting_sees_the_same_first_batches_in_every_epoch(tmp_path):
    module, data = Inputs(), pool(tmp_path)
    first = data.labeled_indices[:8]
    quiet(max_epochs=3, overfit_batches=2, callbacks=[margin()]).fit(module, datamodule=data)
    expected = blobs().tensors[0][first].split(4)
    assert list(module.epochs.values()) == [[rows.tolist() for rows in expected]] * 3
    assert len(data.labeled_indices) == 20


class Slow(acq.ScoreAcquisition):
    """Takes its time in one of the two stages."""

    needs = ("logits",)

    def __init__(self, stage):
        self.stage = stage

    def pause(self, stage):
        if stage == self.stage:
            time.sleep(0.3)

    def score(self, outputs):
        self.pause("score_s")
        return outputs.logits[:, 0]

    def select(self, pool, query_size, *, labeled, generator):
        self.pause("select_s")
        return super().select(pool, query_size, labeled=labeled, generator=generator)


@pytest.mark.parametrize("stage", ["score_s", "select_s"])
def test_time_is_booked_where_it_was_spent(tmp_path, stage):
    data = pool(tmp_path, pool_batch_size=48)
    active = ActiveLearning(Slow(stage), query_size=8)
    quiet(callbacks=[active]).fit(Net(), datamodule=data)
    (row,) = History.of(data)
    assert row[stage] >= 0.3
    assert getattr(active.last_query, stage) >= 0.3
    assert getattr(query(Net(), data, Slow(stage), 3, trainer=quiet()), stage) >= 0.3


def test_the_ledger_is_backed_up_before_every_training(tmp_path):
    found, data = [], pool(tmp_path)

    def look(trainer, pl_module):
        newest = max((tmp_path / "backups").glob("*.sqlite3"), key=lambda path: path.stat().st_mtime)
        found.append((newest.stem, Ledger(newest).last() == data.ledger.last(), Ledger(newest).verify()))

    three_fits(Net(), data, quiet(max_epochs=1, callbacks=[margin(), LambdaCallback(on_train_start=look)]))
    # 12 labels, then 8 questions and 8 answers a round.
    assert found == [("round_0", True, 12), ("round_1", True, 28), ("round_2", True, 44)]


def test_a_fit_that_fails_lets_other_runs_in(tmp_path, monkeypatch):
    # As from another process: the own one is never kept out.
    monkeypatch.setattr("lightning_al.ledger.ledger.may_live", lambda *_: True)

    class Failing(Net):
        def training_step(self, batch, batch_idx):
            with pytest.raises(LedgerError, match=r"in use by process"):
                pool(tmp_path).label(free)
            raise ZeroDivisionError

    data = pool(tmp_path)
    free = data.pool_indices[:1]
    with pytest.raises(ZeroDivisionError):
        quiet(callbacks=[margin()]).fit(Failing(), datamodule=data)
    pool(tmp_path).label(free)
    assert pool(tmp_path).labeled_indices[12:].tolist() == free.tolist()


def test_each_rounds_line_says_what_was_asked(tmp_path, caplog):
    import logging

    with caplog.at_level(logging.INFO, logger="lightning.pytorch.utilities.rank_zero"):
        three_fits(Net(), pool(tmp_path), quiet(callbacks=[margin(budget=25)]))
    said = [m for m in caplog.messages if m.startswith("round ")]
    assert said == [
        "round 0: asked 8, 20 labelled of budget 25; fit again to train on them",
        "round 1: asked 5, 25 labelled of budget 25; fit again to train on them",
        "round 2: asked 0, 25 labelled of budget 25; the budget is spent",
    ]

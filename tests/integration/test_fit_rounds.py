"""A fresh Trainer a round: history, files, logger, going on."""

import csv
import random

import numpy as np
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger
from lightning.pytorch.utilities.exceptions import MisconfigurationException

from integration.small import Net, Validated, blobs, margin, pool, queries, quiet, weights
from lightning_al import History, fit_rounds

TIMES = ("train_s", "score_s", "select_s")


def seeded(seed):
    torch.manual_seed(seed)
    return Net()


def untimed(history):
    return [{k: v for k, v in row.items() if k not in TIMES} for row in history]


def test_the_history_has_a_row_a_round_with_fixed_columns_and_test_metrics(tmp_path):
    data = pool(tmp_path, test_set=blobs(30, 1))
    history = fit_rounds(seeded, lambda r: quiet(), data, margin(), rounds=3)
    assert history.columns == [
        "round", "labeled", "asked", "train_s", "score_s", "select_s", "label_entropy", "test_acc",
    ]  # fmt: skip
    assert history.column("round") == [0, 1, 2, 3]
    assert history.column("labeled") == [12, 20, 28, 36]
    assert history.column("asked") == [8, 8, 8, 0]
    assert all(0 <= value <= 1 for value in history.column("test_acc"))
    assert all(seconds > 0 for seconds in history.column("train_s"))
    assert [seconds > 0 for seconds in history.column("score_s")] == [True, True, True, False]
    assert list(history.to_frame().columns) == history.columns
    with (tmp_path / "history.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [{k: float(v) for k, v in row.items()} for row in rows] == [dict(row) for row in history]
    assert untimed(History.of(data)) == untimed(history)


@pytest.mark.parametrize("name", ["round", "labeled", "stopped"])
def test_a_metric_takes_no_columns_place(tmp_path, name):
    class Named(Net):
        def test_step(self, batch, batch_idx):
            self.log(name, torch.tensor(7.0))

    data = pool(tmp_path, test_set=blobs(30, 1))
    with pytest.raises(MisconfigurationException, match=f"logs '{name}', which a column of the history"):
        fit_rounds(Named(), lambda r: quiet(), data, margin(), rounds=1)
    history = fit_rounds(Net(), lambda r: quiet(), data, margin(), rounds=1)
    assert history.column("labeled") == [12, 20]


def test_the_csv_is_there_after_every_round(tmp_path):
    lines = []

    def make(number):
        path = tmp_path / "history.csv"
        lines.append(len(path.read_text().splitlines()) if path.exists() else 0)
        return quiet()

    fit_rounds(seeded, make, pool(tmp_path), margin(), rounds=3)
    assert lines == [0, 2, 3, 4]


def test_checkpoints_of_a_round_are_in_its_folder(tmp_path):
    def make(number):
        return quiet(enable_checkpointing=True, callbacks=[ModelCheckpoint(filename="weights")])

    fit_rounds(seeded, make, pool(tmp_path / "state"), margin(), rounds=2)
    found = sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*.ckpt"))
    assert found == [f"state/round_{number}/weights.ckpt" for number in range(3)]


def test_checkpoints_go_under_a_folder_that_was_named(tmp_path):
    def make(number):
        checkpoint = ModelCheckpoint(tmp_path / "mine", filename="weights")
        return quiet(enable_checkpointing=True, callbacks=[checkpoint])

    fit_rounds(seeded, make, pool(tmp_path / "state"), margin(), rounds=1)
    found = sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*.ckpt"))
    assert found == [f"mine/round_{number}/weights.ckpt" for number in range(2)]


def test_one_logger_holds_the_whole_run_with_steps_that_go_on(tmp_path):
    def make(number):
        logger = CSVLogger(tmp_path / "logs", flush_logs_every_n_steps=1)
        return quiet(logger=logger, log_every_n_steps=1)

    class Both(Validated): ...

    data = pool(tmp_path / "state", val_set=blobs(9, 2), test_set=blobs(9, 1))
    fit_rounds(Both(), make, data, margin(), rounds=2)
    files = list((tmp_path / "logs").rglob("metrics.csv"))
    assert len(files) == 1
    with files[0].open(newline="") as file:
        rows = list(csv.DictReader(file))
    steps = [int(row["step"]) for row in rows if row["train_loss"]]
    assert steps == list(range(6 + 10 + 14))
    assert [int(row["step"]) for row in rows if row["active/asked"]] == [12, 20, 28]
    assert [int(row["step"]) for row in rows if row["active/test_acc"]] == [12, 20, 28]


def test_max_steps_means_one_round_with_a_logger_for_all(tmp_path):
    steps = []

    class Counted(Net):
        def on_train_end(self):
            steps.append(self.trainer.global_step)

    def make(number):
        return quiet(max_epochs=-1, max_steps=5, logger=CSVLogger(tmp_path / "logs"), log_every_n_steps=1)

    fit_rounds(Counted(), make, pool(tmp_path / "state"), margin(), rounds=2)
    assert steps == [5, 5, 5]


def test_it_stops_at_the_budget(tmp_path):
    history = fit_rounds(seeded, lambda r: quiet(), pool(tmp_path), margin(budget=30), rounds=10)
    assert history.column("labeled") == [12, 20, 28, 30]
    assert history.column("asked") == [8, 8, 2, 0]


def test_it_takes_the_rest_of_the_pool_and_stops(tmp_path):
    data = pool(tmp_path, size=25)
    history = fit_rounds(seeded, lambda r: quiet(), data, margin(), rounds=10)
    assert history.column("labeled") == [12, 20, 25]
    assert history.column("asked") == [8, 5, 0]
    assert len(data.pool_indices) == 0


@pytest.mark.parametrize("test_set", [None, blobs(9, 1)], ids=["untested", "tested"])
def test_a_finished_run_trains_and_asks_nothing_when_called_again(tmp_path, test_set, monkeypatch):
    first = fit_rounds(seeded, lambda r: quiet(), pool(tmp_path, test_set=test_set), margin(), rounds=2)

    def never(number):
        trainer = quiet()
        monkeypatch.setattr(trainer, "fit", lambda *_, **__: pytest.fail(f"round {number} was trained again"))
        return trainer

    again = fit_rounds(seeded, never, pool(tmp_path, test_set=test_set), margin(), rounds=2)
    assert list(again) == list(first)


def test_called_with_more_rounds_it_goes_on_as_if_never_ended(tmp_path):
    fit_rounds(seeded, lambda r: quiet(), pool(tmp_path / "a"), margin(), rounds=1)
    on = fit_rounds(seeded, lambda r: quiet(), pool(tmp_path / "a"), margin(), rounds=3)
    whole = fit_rounds(seeded, lambda r: quiet(), pool(tmp_path / "b"), margin(), rounds=3)
    assert untimed(on) == untimed(whole)
    assert queries(tmp_path / "a") == queries(tmp_path / "b")


def test_each_round_has_one_trainer_and_what_it_draws_does_not_matter(tmp_path):
    """The first one is made before its round, to meet other processes by."""

    def make(number):
        torch.rand(3)
        made.append(number)
        return quiet()

    made = []
    fit_rounds(seeded_later, make, pool(tmp_path / "a"), margin(), rounds=1)
    fit_rounds(seeded_later, make, pool(tmp_path / "a"), margin(), rounds=2)
    assert made == [0, 1, 1, 2]
    fit_rounds(seeded_later, make, pool(tmp_path / "b"), margin(), rounds=2)
    assert queries(tmp_path / "a") == queries(tmp_path / "b")


def seeded_later(seed):
    """Drawn from the stream that making the Trainer left."""
    return Net()


def test_the_same_seed_asks_the_same_and_another_one_does_not(tmp_path):
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        torch.rand(len(name) + seed)  # what the process drew before does not matter
        fit_rounds(seeded, lambda r: quiet(), pool(tmp_path / name, seed=seed), margin(), rounds=2)
    assert queries(tmp_path / "a") == queries(tmp_path / "b")
    assert queries(tmp_path / "a") != queries(tmp_path / "c")


def test_the_last_query_is_at_hand(tmp_path):
    active, data = margin(), pool(tmp_path)
    fit_rounds(seeded, lambda r: quiet(), data, active, rounds=1)
    assert queries(tmp_path)[1] == data.labeled_indices[12:].tolist()


class Drawing(Net):
    """Notes what augmentation would draw, from each generator, and trains with dropout."""

    def __init__(self):
        super().__init__(dropout=0.5)
        self.drawn = {}

    def training_step(self, batch, batch_idx):
        draws = (torch.rand(1).item(), np.random.rand(), random.random())  # noqa: NPY002
        self.drawn.setdefault(self.trainer.datamodule.state.last_round, []).append(draws)
        return super().training_step(batch, batch_idx)


def test_rounds_draw_differently_and_a_repeated_run_draws_the_same(tmp_path):
    torch.manual_seed(0)
    begin, runs, ends = Drawing().state_dict(), [], []
    for name in ("a", "b"):
        module = Drawing()  # draws: the second run begins with other generators
        module.load_state_dict(begin)
        np.random.rand(), random.random()  # noqa: NPY002
        fit_rounds(module, lambda r: quiet(), pool(tmp_path / name), margin(), rounds=2)
        runs.append(module.drawn)
        ends.append(weights(module))
    assert runs[0] == runs[1]
    assert torch.equal(*ends)
    assert queries(tmp_path / "a") == queries(tmp_path / "b")
    for stream in range(3):
        firsts = [runs[0][number][0][stream] for number in range(3)]
        assert len(set(firsts)) == 3

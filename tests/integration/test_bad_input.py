"""Mistakes: one message each that says what was given, what is needed and what to do; nothing is written."""

import re
import warnings

import lightning as L
import pytest
import torch
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint, Timer
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch.utils.data import DataLoader

from integration.small import Net, blobs, margin, pool, queries, quiet
from lightning_al import ActiveLearning, LedgerError, fit_rounds, query
from lightning_al import acquisition as acq

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import pytorch_lightning as pl


def one_round(way, make, module, data, active):
    if way == "drop-in":
        make(0, active).fit(module, datamodule=data)
    elif way == "query":
        query(module, data, active.acquisition, 3, commit=True)
    else:
        fit_rounds(module, make, data, active, rounds=1)


class OtherModule(L.LightningDataModule):
    def train_dataloader(self):
        return DataLoader(blobs(), 4)


def test_plain_loaders():
    with pytest.raises(MisconfigurationException, match=r"given plain data loaders.*datamodule=data"):
        quiet(callbacks=[margin()]).fit(Net(), DataLoader(blobs(), 4))


def test_another_data_module():
    with pytest.raises(MisconfigurationException, match=r"given a OtherModule.*from_datamodule"):
        quiet(callbacks=[margin()]).fit(Net(), datamodule=OtherModule())


def test_a_trainer_of_fit_rounds_that_holds_the_callback_already(tmp_path):
    with pytest.raises(MisconfigurationException, match="holds an `ActiveLearning` already"):
        fit_rounds(Net(), lambda r: quiet(callbacks=[margin()]), pool(tmp_path), margin(), rounds=1)
    assert queries(tmp_path) == {}


def test_a_trainer_that_is_returned_twice(tmp_path):
    trainer = quiet()
    with pytest.raises(MisconfigurationException, match="Make a fresh one"):
        fit_rounds(Net(), lambda r: trainer, pool(tmp_path), margin(), rounds=2)
    assert list(queries(tmp_path)) == [1]  # round 0 was right; its query is kept


def test_a_trainer_that_has_fitted_elsewhere(tmp_path):
    trainer = quiet()
    trainer.fit(Net(), DataLoader(blobs(), 4))
    with pytest.raises(MisconfigurationException, match="Make a fresh one"):
        fit_rounds(Net(), lambda r: trainer, pool(tmp_path), margin(), rounds=2)


def test_no_trainer_at_all(tmp_path):
    with pytest.raises(MisconfigurationException, match="returned a NoneType"):
        fit_rounds(Net(), lambda r: None, pool(tmp_path), margin(), rounds=1)


@pytest.mark.parametrize("kind", [EarlyStopping, ModelCheckpoint, Timer])
def test_callbacks_shared_between_the_trainers_of_fit_rounds(tmp_path, kind):
    arguments = {EarlyStopping: ("train_loss",), ModelCheckpoint: (), Timer: ()}
    shared = kind(*arguments[kind])
    with pytest.raises(MisconfigurationException, match=f"`{kind.__name__}`.*fresh callbacks"):
        fit_rounds(
            Net(),
            lambda r: quiet(callbacks=[shared], enable_checkpointing=kind is ModelCheckpoint),
            pool(tmp_path),
            margin(),
            rounds=2,
        )


@pytest.mark.parametrize(
    ("callbacks", "given"),
    [([], "no `ModelCheckpoint`"), ([ModelCheckpoint], r"`ModelCheckpoint\(monitor=None\)`")],
)
@pytest.mark.parametrize("way", ["drop-in", "fit_rounds"])
def test_best_without_a_checkpoint_that_monitors(tmp_path, callbacks, given, way):
    def make(number=0, *more):
        return quiet(enable_checkpointing=bool(callbacks), callbacks=[c() for c in callbacks] + list(more))

    active = margin(score_with="best")
    with pytest.raises(MisconfigurationException, match=f"Trainer has {given}"):
        one_round(way, make, Net(), pool(tmp_path), active)
    assert queries(tmp_path) == {}


OTHER = {
    "accelerator": "cpu", "max_epochs": 1, "logger": False, "enable_checkpointing": False,
    "enable_progress_bar": False,
}  # fmt: skip


def other_lightning():
    return pl.Trainer(**OTHER)


class OtherNet(pl.LightningModule):
    def training_step(self, batch, batch_idx):
        raise AssertionError("it trained")

    def configure_optimizers(self):
        return None


def test_a_pytorch_lightning_trainer_in_fit_rounds(tmp_path):
    with pytest.raises(MisconfigurationException, match=r"`lightning\.Trainer`"):
        fit_rounds(Net(), lambda r: other_lightning(), pool(tmp_path), margin(), rounds=1)


@pytest.mark.filterwarnings("ignore:You passed in a `val_dataloader`:UserWarning")
@pytest.mark.filterwarnings("ignore:You defined a `test_step`:UserWarning")
def test_a_pytorch_lightning_trainer_with_our_data_module(tmp_path):
    with pytest.raises(MisconfigurationException, match="import lightning as L"):
        other_lightning().fit(OtherNet(), datamodule=pool(tmp_path))


def test_a_pytorch_lightning_trainer_with_our_callback_trains_nothing(tmp_path):
    # Older versions of that package refuse it in a way of their own, before we are asked.
    with pytest.raises(Exception, match=r"import lightning as L|Expected a parent"):
        pl.Trainer(**OTHER, callbacks=[margin()]).fit(OtherNet(), train_dataloaders=DataLoader(blobs(), 4))


def test_a_pytorch_lightning_module(tmp_path):
    with pytest.raises(TypeError, match="import lightning as L"):
        fit_rounds(OtherNet(), lambda r: quiet(), pool(tmp_path), margin(), rounds=1)
    with pytest.raises(TypeError, match="import lightning as L"):
        query(OtherNet(), pool(tmp_path), acq.Margin(), 3)


@pytest.mark.parametrize("limit", [{"max_epochs": 0}, {"limit_train_batches": 0}, {"max_steps": 0}])
@pytest.mark.parametrize("way", ["drop-in", "fit_rounds"])
def test_a_fit_that_made_no_step_asks_nothing(tmp_path, limit, way):
    def make(number, *callbacks):
        return quiet(callbacks=list(callbacks), **limit)

    with pytest.raises(RuntimeError, match="without a single training step"):
        one_round(way, make, Net(), pool(tmp_path), margin())
    assert queries(tmp_path) == {}


def one_fit(state_dir, active, **options):
    quiet(callbacks=[active]).fit(Net(), datamodule=pool(state_dir, **options))


def test_another_strategy_than_recorded(tmp_path):
    one_fit(tmp_path, margin())
    other = ActiveLearning(acq.Entropy(), query_size=8)
    with pytest.raises(MisconfigurationException, match=r"strategy Margin\(.*this run has Entropy\("):
        one_fit(tmp_path, other)
    assert list(queries(tmp_path)) == [1]
    one_fit(tmp_path, ActiveLearning(acq.Entropy(), query_size=8, accept_changes=True))
    assert list(queries(tmp_path)) == [1, 2]


@pytest.mark.parametrize(
    ("changed", "shown"),
    [({"seed": 7}, "seed 0, this run has 7"), ({"initial": 13}, "initial 12, this run has 13")],
)
def test_another_seed_or_initial_set_than_recorded(tmp_path, changed, shown):
    one_fit(tmp_path, margin())
    with pytest.raises(LedgerError, match=shown):
        one_fit(tmp_path, margin(), **changed)
    assert list(queries(tmp_path)) == [1]


def test_a_ledger_where_none_may_be(tmp_path):
    one_fit(tmp_path, margin())
    with pytest.raises(LedgerError, match="holds a ledger already"):
        one_fit(tmp_path, margin(), on_existing="error")


def test_another_model_than_the_run_began_with(tmp_path):
    one_fit(tmp_path, margin())
    with pytest.raises(RuntimeError, match="does not fit the weights"):
        quiet(callbacks=[margin()]).fit(Net(batch_norm=True), datamodule=pool(tmp_path))
    assert list(queries(tmp_path)) == [1]


class NotFinite(Net):
    def active_step(self, batch, batch_idx):
        return self(batch[0]).log() * torch.nan


@pytest.mark.parametrize("way", ["drop-in", "fit_rounds", "query"])
def test_logits_that_are_not_finite_name_the_samples_and_ask_nothing(tmp_path, way):
    data, module = pool(tmp_path), NotFinite()
    first = str(data.pool_indices[:8].tolist())  # a batch of the pool
    with pytest.raises(ValueError, match=rf"logits of samples {re.escape(first)} are NaN"):
        one_round(way, lambda r, *c: quiet(callbacks=list(c)), module, data, margin())
    assert len(data.labeled_indices) == 12
    assert len(data.asked_indices) == 0
    assert module.training  # modes were put back


def test_a_strategy_that_needs_one_vector_a_sample_and_gets_dense_logits(tmp_path):
    class Dense(Net):
        def active_step(self, batch, batch_idx):
            return {
                "logits": torch.zeros(len(batch[0]), 3, 2),
                "embeddings": torch.zeros(len(batch[0]), 2, 8),
            }

    trainer = quiet(callbacks=[ActiveLearning(acq.HyperplaneDistance(), query_size=8)])
    with pytest.raises(ValueError, match=r"needs one vector a sample"):
        trainer.fit(Dense(), datamodule=pool(tmp_path))
    assert queries(tmp_path) == {}


def test_no_linear_layer_where_an_embedding_is_needed(tmp_path):
    class Bent(Net):
        def forward(self, x):
            return super().forward(x) * 2

    trainer = quiet(callbacks=[ActiveLearning(acq.HyperplaneDistance(), query_size=8)])
    with pytest.raises(ValueError, match=r"No `nn.Linear` of the module made its logits"):
        trainer.fit(Bent(), datamodule=pool(tmp_path))
    assert queries(tmp_path) == {}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"query_size": 0}, "`query_size` is 0"),
        ({"query_size": -3}, "`query_size` is -3"),
        ({"budget": 0}, "`budget` is 0"),
        ({"candidates": 5}, "`candidates` is 5, fewer than the `query_size` of 8"),
        ({"restart": "cold"}, "`restart` is 'cold'"),
        ({"score_with": "first"}, "`score_with` is 'first'"),
    ],
)
def test_arguments_of_the_callback(arguments, message):
    with pytest.raises(ValueError, match=message):
        margin(**arguments)


def test_a_strategy_that_was_not_called():
    with pytest.raises(TypeError, match=r"Call it: `Margin\(\)`"):
        ActiveLearning(acq.Margin, query_size=8)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [({"rounds": 0}, "`rounds` is 0"), ({"rounds": 2, "resume": "again"}, "`resume` is 'again'")],
)
def test_arguments_of_fit_rounds(tmp_path, arguments, message):
    with pytest.raises(ValueError, match=message):
        fit_rounds(Net(), lambda r: quiet(), pool(tmp_path), margin(), **arguments)


def test_query_with_a_trainer_of_several_processes(tmp_path):
    several = quiet(devices=2, strategy="ddp")
    with pytest.raises(ValueError, match="a Trainer of 2 processes"):
        query(Net(), pool(tmp_path), acq.Margin(), 3, trainer=several)


@pytest.mark.parametrize("strategy", ["ddp_spawn", "ddp_fork"])
def test_strategies_that_start_processes_anew_are_refused_in_the_drop_in_loop(tmp_path, strategy):
    trainer = quiet(devices=1, strategy=strategy, callbacks=[margin()])
    with pytest.raises(Exception, match="Use `fit_rounds"):
        trainer.fit(Net(), datamodule=pool(tmp_path))

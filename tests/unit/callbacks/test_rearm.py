import pickle

import lightning as L
import pytest
import torch
from lightning.pytorch.callbacks import (
    EarlyStopping,
    ModelCheckpoint,
    StochasticWeightAveraging,
    Timer,
)
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from lightning_al.callbacks.rearm import Rearm


class Net(L.LightningModule):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(1, 1)

    def forward(self, x):
        return self.layer(x)

    def training_step(self, batch, batch_idx):
        loss = self(batch[0]).square().mean() + 1
        self.log("loss", torch.tensor(1.0))  # never gets better
        return loss

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.1)


def trainer_with(*callbacks, **options):
    return L.Trainer(**{
        "accelerator": "cpu", "devices": 1, "max_epochs": 4, "logger": False, "enable_checkpointing": False,
        "enable_progress_bar": False, "enable_model_summary": False, "callbacks": list(callbacks), **options,
    })  # fmt: skip


def loader():
    return DataLoader(TensorDataset(torch.ones(4, 1)), 2)


@pytest.mark.filterwarnings("ignore:Checkpoint directory:UserWarning")
def test_a_second_fit_counts_and_stops_as_the_first_did(tmp_path):
    stopping = EarlyStopping("loss", patience=1, check_on_train_epoch_end=True)
    best = ModelCheckpoint(tmp_path, monitor="loss", filename="{epoch}")
    trainer, module, rearm = trainer_with(stopping, best, enable_checkpointing=True), Net(), Rearm()
    found = []
    for _ in range(3):
        rearm(trainer, module)
        assert trainer.global_step == trainer.current_epoch == 0 or not found
        trainer.fit(module, loader())
        found.append((trainer.global_step, stopping.stopped_epoch, stopping.wait_count))
        trainer.should_stop = False
    assert found == [(4, 1, 1)] * 3
    assert best.best_model_path


@pytest.mark.parametrize(
    ("callback", "strategy", "words"),
    [
        (StochasticWeightAveraging(0.1), "auto", "`StochasticWeightAveraging`"),
        (Timer("00:00:01:00"), "ddp_spawn", "starts its processes anew"),
    ],
)
def test_what_cannot_be_made_ready_is_refused(callback, strategy, words):
    trainer = trainer_with(callback, strategy=strategy)
    with pytest.raises(MisconfigurationException, match=rf"Trainer has .*{words}.*Use `fit_rounds\("):
        Rearm()(trainer, Net())


def test_it_forgets_the_trainer_when_it_travels():
    rearm = Rearm()
    rearm(trainer_with(EarlyStopping("loss")), Net())
    assert vars(pickle.loads(pickle.dumps(rearm))) == {"_trainer": None, "_states": []}

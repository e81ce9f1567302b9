"""The pool's pass shows in whichever progress bar the Trainer has, and nowhere without one."""

import io

import lightning as L
import pytest
import torch
from lightning.pytorch.callbacks import RichProgressBar, TQDMProgressBar
from torch.utils.data import TensorDataset

from lightning_al import ActiveDataModule, ActiveLearning
from lightning_al import acquisition as acq


class Net(L.LightningModule):
    def __init__(self):
        super().__init__()
        self.net = torch.nn.Linear(4, 3)

    def forward(self, x):
        return self.net(x)

    def training_step(self, batch, batch_idx):
        return torch.nn.functional.cross_entropy(self(batch[0]), batch[1])

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.1)


def fit(tmp_path, callbacks, **options):
    generator = torch.Generator().manual_seed(0)
    samples = TensorDataset(torch.randn(64, 4, generator=generator), torch.arange(64) % 3)
    data = ActiveDataModule(samples, initial=8, batch_size=4, state_dir=tmp_path)
    trainer = L.Trainer(
        max_epochs=1,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_model_summary=False,
        callbacks=[ActiveLearning(acq.Margin(), query_size=4), *callbacks],
        **options,
    )
    trainer.fit(Net(), datamodule=data)
    return data


def test_tqdm_shows_the_pool_being_scored(tmp_path, capsys):
    data = fit(tmp_path, [TQDMProgressBar()])
    assert "Scoring pool" in capsys.readouterr().out
    assert len(data.labeled_indices) == 12


def test_rich_shows_the_pool_being_scored(tmp_path):
    rich = pytest.importorskip("rich")
    screen = io.StringIO()
    bar = RichProgressBar(console_kwargs={"file": screen, "force_terminal": True, "width": 100})
    try:
        data = fit(tmp_path, [bar])
    finally:
        rich.reconfigure()
    assert "Scoring pool" in screen.getvalue()
    assert len(data.labeled_indices) == 12


def test_without_a_progress_bar_nothing_shows(tmp_path, capsys):
    fit(tmp_path, [], enable_progress_bar=False)
    printed = capsys.readouterr()
    assert "Scoring pool" not in printed.out + printed.err

"""Tiny data, models and Trainers: a fit of a few rounds takes less than a second."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lightning as L
import torch
from torch import nn
from torch.utils.data import TensorDataset

from lightning_al import ActiveDataModule, ActiveLearning, Ledger
from lightning_al import acquisition as acq

CLASSES, FEATURES = 3, 4


def blobs(size: int = 60, seed: int = 0) -> TensorDataset:
    """Three overlapping clouds."""
    generator = torch.Generator().manual_seed(seed)
    y = torch.arange(size) % CLASSES
    centers = 2 * torch.eye(CLASSES, FEATURES)
    return TensorDataset(centers[y] + torch.randn(size, FEATURES, generator=generator), y)


class Net(L.LightningModule):
    """A small classifier."""

    def __init__(self, lr: float = 0.05, *, batch_norm: bool = False, dropout: float = 0.0) -> None:
        super().__init__()
        self.lr = lr
        norm = nn.BatchNorm1d(8) if batch_norm else nn.Identity()
        self.net = nn.Sequential(
            nn.Linear(FEATURES, 8), norm, nn.ReLU(), nn.Dropout(dropout), nn.Linear(8, CLASSES)
        )

    def forward(self, x):
        return self.net(x)

    def training_step(self, batch, batch_idx):
        x, y = batch
        loss = nn.functional.cross_entropy(self(x), y)
        self.log("train_loss", loss)
        return loss

    def test_step(self, batch, batch_idx):
        x, y = batch
        self.log("test_acc", (self(x).argmax(1) == y).float().mean(), sync_dist=True)

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), self.lr, momentum=0.9)


class Validated(Net):
    """For data that has a validation set: Lightning warns of a step without data."""

    def validation_step(self, batch, batch_idx):
        x, y = batch
        self.log("val_loss", nn.functional.cross_entropy(self(x), y), sync_dist=True)


def quiet(**options: Any) -> L.Trainer:
    """A Trainer that says, writes and draws nothing unless told to."""
    silent = {
        "accelerator": "cpu",
        "devices": 1,
        "max_epochs": 2,
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
    }
    return L.Trainer(**{**silent, **options})


def pool(state_dir: Path, *, size: int = 60, **options: Any) -> ActiveDataModule:
    """A data module over blobs, 12 of them labelled."""
    return ActiveDataModule(
        blobs(size), **{"initial": 12, "batch_size": 4, "state_dir": state_dir, **options}
    )


def margin(**options: Any) -> ActiveLearning:
    """Asks for 8 a round."""
    return ActiveLearning(acq.Margin(), **{"query_size": 8, **options})


def queries(state_dir: Path) -> dict[int, list[int]]:
    """What every round asked for, in order, from a ledger whose digests all follow."""
    ledger = Ledger(Path(state_dir) / "ledger.sqlite3")
    ledger.verify()
    found: dict[int, list[int]] = {}
    for _, event in ledger.events():
        if event.kind == "asked":
            found.setdefault(event.round, []).append(event.sample)
    return found


def weights(module: nn.Module) -> torch.Tensor:
    """All parameters in one row."""
    return torch.cat([p.detach().flatten().clone() for p in module.parameters()])

"""A LightningDataModule that you have already, taken over as it is.

    python examples/existing_datamodule.py --rounds 8

`from_datamodule` takes data set, batch size, collate function, workers and transfer hooks from its train
loader; validation and test loaders stay its own. The samples it trained on become the pool.
"""

import argparse

import lightning as L
import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import DataLoader, TensorDataset
from torchmetrics.functional import accuracy

from lightning_al import ActiveDataModule, ActiveLearning, fit_rounds
from lightning_al import acquisition as acq


class Digits(L.LightningDataModule):
    """An ordinary data module: nothing in it knows of active learning."""

    def setup(self, stage):
        """Read the data."""
        x, y = load_digits(return_X_y=True)
        x, y = torch.tensor(x, dtype=torch.float32), torch.tensor(y)
        self.train_set, self.test_set = TensorDataset(x[:1297], y[:1297]), TensorDataset(x[1297:], y[1297:])

    def train_dataloader(self):
        """All samples that may be trained on."""
        return DataLoader(self.train_set, batch_size=32, shuffle=True)

    def test_dataloader(self):
        """Samples that are never trained on."""
        return DataLoader(self.test_set, batch_size=256)

    def on_after_batch_transfer(self, batch, dataloader_idx):
        """Scale the pixels; pool batches come through here too, with None for the targets."""
        x, y = batch
        return x / 16, y


class Classifier(L.LightningModule):
    """An ordinary module."""

    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 10))

    def forward(self, x):
        """Logits of the ten digits."""
        return self.net(x)

    def training_step(self, batch, batch_idx):
        """Cross-entropy."""
        x, y = batch
        return nn.functional.cross_entropy(self(x), y)

    def test_step(self, batch, batch_idx):
        """Accuracy."""
        x, y = batch
        self.log("test_acc", accuracy(self(x), y, task="multiclass", num_classes=10))

    def configure_optimizers(self):
        """Adam."""
        return torch.optim.Adam(self.parameters(), lr=1e-3)


def main():
    """Before: `trainer.fit(Classifier(), datamodule=Digits())`, with all 1,297 labels."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=8, help="queries")
    parser.add_argument("--query-size", type=int, default=10, help="labels a round")
    parser.add_argument("--epochs", type=int, default=20, help="epochs a round, of 10 batches each")
    parser.add_argument("--state-dir", help="where labels and queries are kept; default: a fresh folder")
    args = parser.parse_args()
    L.seed_everything(0)

    data = ActiveDataModule.from_datamodule(
        Digits(), initial=10, steps_per_epoch=10, state_dir=args.state_dir
    )
    active = ActiveLearning(acq.Margin(), query_size=args.query_size)

    def make_trainer(number):
        return L.Trainer(max_epochs=args.epochs, logger=False, enable_model_summary=False)

    history = fit_rounds(Classifier(), make_trainer, data, active, rounds=args.rounds)
    print(history.to_frame()[["round", "labeled", "asked", "test_acc"]].to_string(index=False))


if __name__ == "__main__":
    main()

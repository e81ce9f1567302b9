"""Active learning in an ordinary Lightning script: the three statements marked with an arrow.

    python examples/drop_in.py --budget 120

Stop it whenever you like, by Ctrl-C or the power switch: the same command goes on where it stopped.
"""

import argparse

import lightning as L
import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import TensorDataset
from torchmetrics.functional import accuracy

from lightning_al import ActiveDataModule, ActiveLearning
from lightning_al import acquisition as acq


class Classifier(L.LightningModule):
    """An ordinary module: nothing in it knows of active learning."""

    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(
            nn.Conv2d(1, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(), nn.MaxPool2d(2),
            nn.Flatten(), nn.Linear(256, 64), nn.ReLU(), nn.Linear(64, 10),
        )  # fmt: skip

    def forward(self, x):
        """Logits of the ten digits."""
        return self.net(x)

    def training_step(self, batch, batch_idx):
        """Cross-entropy."""
        x, y = batch
        return nn.functional.cross_entropy(self(x), y)

    def test_step(self, batch, batch_idx):
        """Accuracy on digits that are never trained on."""
        x, y = batch
        self.log("test_acc", accuracy(self(x), y, task="multiclass", num_classes=10))

    def configure_optimizers(self):
        """Adam."""
        return torch.optim.Adam(self.parameters(), lr=1e-3)


def main():
    """Train, query, label, train again, until the budget is spent."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--budget", type=int, default=120, help="labels in all")
    parser.add_argument("--query-size", type=int, default=10, help="labels a round")
    parser.add_argument("--epochs", type=int, default=20, help="epochs a round, of 10 batches each")
    parser.add_argument("--state-dir", default="runs/drop_in", help="where labels and queries are kept")
    args = parser.parse_args()
    L.seed_everything(0)

    x, y = load_digits(return_X_y=True)  # 1,797 handwritten digits of 8 x 8 pixels
    x, y = torch.tensor(x, dtype=torch.float32).reshape(-1, 1, 8, 8) / 16, torch.tensor(y)
    train_set, test_set = TensorDataset(x[:1297], y[:1297]), TensorDataset(x[1297:], y[1297:])

    data = ActiveDataModule(  # <- knows which samples are labelled
        train_set, test_set=test_set, initial=10, batch_size=32, steps_per_epoch=10,
        state_dir=args.state_dir,
    )  # fmt: skip
    active = ActiveLearning(acq.Margin(), query_size=args.query_size, budget=args.budget)  # <- asks
    model = Classifier()
    trainer = L.Trainer(max_epochs=args.epochs, callbacks=[active], logger=False, enable_checkpointing=False)
    while True:
        trainer.fit(model, datamodule=data)  # <- one fit is one round
        trainer.test(model, datamodule=data, verbose=False)
        tested = float(trainer.callback_metrics["test_acc"])
        print(f"{active.row['labeled']} labels: test accuracy {tested:.3f}")
        if active.last_query is None:  # nothing was asked: all that was labelled has been trained on
            break


if __name__ == "__main__":
    main()

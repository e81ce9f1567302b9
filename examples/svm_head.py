"""A linear support vector machine on a network's features, queried by distance to its boundaries.

    python examples/svm_head.py --rounds 8

The last linear layer is trained with the multi-class hinge loss (Crammer & Singer, 2001) and weight decay.
`HyperplaneDistance` asks for the samples nearest to a boundary between two classes: the rule of Tong &
Koller (2001, "Simple Margin"). Its scores are distances, negated: 0 lies on a boundary.
"""

import argparse

import lightning as L
import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import TensorDataset
from torchmetrics.functional import accuracy

from lightning_al import ActiveDataModule, ActiveLearning, fit_rounds
from lightning_al import acquisition as acq


class SVMHead(L.LightningModule):
    """Features, then one linear layer; the hinge loss acts on its output, there is no softmax."""

    def __init__(self):
        super().__init__()
        self.features = nn.Sequential(nn.Linear(64, 128), nn.ReLU())
        self.head = nn.Linear(128, 10)

    def forward(self, x):
        """Ten decision values."""
        return self.head(self.features(x))

    def training_step(self, batch, batch_idx):
        """Every wrong class must stay a margin of 1 below the right one."""
        x, y = batch
        return nn.functional.multi_margin_loss(self(x), y)

    def test_step(self, batch, batch_idx):
        """Accuracy."""
        x, y = batch
        self.log("test_acc", accuracy(self(x), y, task="multiclass", num_classes=10))

    def configure_optimizers(self):
        """Weight decay on the head is the machine's wish for a wide margin."""
        return torch.optim.AdamW([
            {"params": self.features.parameters(), "weight_decay": 0.0},
            {"params": self.head.parameters(), "weight_decay": 0.1},
        ], lr=2e-3)  # fmt: skip


def main():
    """A simulation on handwritten digits."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=8, help="queries")
    parser.add_argument("--query-size", type=int, default=10, help="labels a round")
    parser.add_argument("--epochs", type=int, default=20, help="epochs a round, of 10 batches each")
    parser.add_argument("--state-dir", help="where labels and queries are kept; default: a fresh folder")
    args = parser.parse_args()
    L.seed_everything(0)

    x, y = load_digits(return_X_y=True)
    x, y = torch.tensor(x, dtype=torch.float32) / 16, torch.tensor(y)
    data = ActiveDataModule(
        TensorDataset(x[:1297], y[:1297]), test_set=TensorDataset(x[1297:], y[1297:]),
        initial=10, batch_size=32, steps_per_epoch=10, state_dir=args.state_dir,
    )  # fmt: skip
    active = ActiveLearning(acq.HyperplaneDistance(), query_size=args.query_size)

    def make_trainer(number):
        return L.Trainer(max_epochs=args.epochs, logger=False, enable_model_summary=False)

    history = fit_rounds(SVMHead(), make_trainer, data, active, rounds=args.rounds)
    print(history.to_frame()[["round", "labeled", "asked", "test_acc"]].to_string(index=False))
    distances = [-event.score for _, event in data.ledger.events() if event.kind == "asked"]
    print(f"distance to a boundary when asked: {min(distances):.4f} to {max(distances):.4f}")


if __name__ == "__main__":
    main()

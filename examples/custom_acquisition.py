"""A strategy of your own: say what you need of the model, and score a batch.

    python examples/custom_acquisition.py --rounds 8 --temperature 2

Temperature scaling before the margin: a network that is too sure of itself ranks by more than its two
largest logits. The class works with every way of looping, on any number of processes, and inside of
wrappers such as `acq.PowerSampling(Tempered())`.
"""

import argparse

import lightning as L
import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.utils.data import TensorDataset
from torchmetrics.functional import accuracy

from lightning_al import ActiveDataModule, ActiveLearning, fit_rounds
from lightning_al import acquisition as acq
from lightning_al import functional as F


class Tempered(acq.ScoreAcquisition):
    """Asks where two classes compete after the logits are divided by a temperature."""

    needs = ("logits",)  # nothing else is computed

    def __init__(self, temperature: float = 2.0) -> None:
        self.temperature = temperature

    def score(self, outputs) -> Tensor:
        """One number a sample, `(batch,)`; higher = more informative, always."""
        return F.margin((outputs.logits / self.temperature).softmax(-1))


class Classifier(L.LightningModule):
    """An ordinary module."""

    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Dropout(), nn.Linear(128, 10))

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
    """A simulation with the strategy above."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=8, help="queries")
    parser.add_argument("--query-size", type=int, default=10, help="labels a round")
    parser.add_argument("--epochs", type=int, default=20, help="epochs a round, of 10 batches each")
    parser.add_argument("--temperature", type=float, default=2.0)
    parser.add_argument("--state-dir", help="where labels and queries are kept; default: a fresh folder")
    args = parser.parse_args()
    L.seed_everything(0)

    x, y = load_digits(return_X_y=True)
    x, y = torch.tensor(x, dtype=torch.float32) / 16, torch.tensor(y)
    data = ActiveDataModule(
        TensorDataset(x[:1297], y[:1297]), test_set=TensorDataset(x[1297:], y[1297:]),
        initial=10, batch_size=32, steps_per_epoch=10, state_dir=args.state_dir,
    )  # fmt: skip
    active = ActiveLearning(Tempered(args.temperature), query_size=args.query_size)

    def make_trainer(number):
        return L.Trainer(max_epochs=args.epochs, logger=False, enable_model_summary=False)

    history = fit_rounds(Classifier(), make_trainer, data, active, rounds=args.rounds)
    print(history.to_frame()[["round", "labeled", "asked", "test_acc"]].to_string(index=False))
    print(f"The history is in {data.state_dir / 'history.csv'}")


if __name__ == "__main__":
    main()

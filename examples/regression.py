"""Regression: ask where several models predict different numbers.

    python examples/regression.py                        # scikit-learn's diabetes
    python examples/regression.py --data-root DIR        # concrete: DIR/regression/regression.npz
    python examples/regression.py --seeds 10             # for a claim

The variance of the predicted numbers over passes of MC dropout or over the members of a committee, its
highest values or draws in proportion to it, against labels drawn at random, on the same splits and first
labels. The network learns numbers of mean 0 and variance 1: those of the labels that there are, since the
pool's are not known.

With 120 labels, the mean error of three seeds was, for random, MC dropout, committee and drawn: on diabetes
65.3, 61.1, 61.6 and 58.5; on concrete 7.20, 8.42, 7.84 and 7.12. Three seeds are too few to tell these
apart, which is what the table says. It took 80 s of one core.
"""

import tempfile

import lightning as L
import torch
from data_sets import numbers, options
from torch import nn
from torchmetrics import MeanSquaredError

from lightning_al import ActiveDataModule, Committee, MCDropout, compare
from lightning_al import acquisition as acq


class Regressor(L.LightningModule):
    """A number for a row, in the unit of the targets."""

    def __init__(self, inputs):
        super().__init__()
        self.register_buffer("mean", torch.zeros(()))  # kept with the weights, also those of a committee
        self.register_buffer("scale", torch.ones(()))
        self.net = nn.Sequential(
            nn.Linear(inputs, 64), nn.ReLU(), nn.Dropout(0.1), nn.Linear(64, 64), nn.ReLU(), nn.Dropout(0.1),
            nn.Linear(64, 1),
        )  # fmt: skip
        self.rmse = MeanSquaredError(squared=False)

    def forward(self, x):
        """`(B, 1)`: no logits, but what is said of a sample all the same."""
        return self.mean + self.scale * self.net(x)

    def on_train_start(self):
        """Every round has more labels, and so a better guess of their scale."""
        targets = torch.stack([y for _, y in self.trainer.train_dataloader.dataset])
        self.mean.copy_(targets.mean())
        self.scale.copy_(targets.std())

    def training_step(self, batch, batch_idx):
        """Squared error, in the scale that the network learns."""
        x, y = batch
        return nn.functional.mse_loss(self.net(x), (y - self.mean) / self.scale)

    def test_step(self, batch, batch_idx):
        """Root of the mean squared error, in the unit of the targets."""
        x, y = batch
        self.rmse(self(x), y)
        self.log("test_rmse", self.rmse)

    def configure_optimizers(self):
        """Adam."""
        return torch.optim.AdamW(self.parameters(), 3e-3, weight_decay=0.01)


def main():
    """A simulation: all targets are there, and stay hidden until they are asked for."""
    parser = options(__doc__, rounds=5)
    parser.add_argument("--query-size", type=int, default=20, help="labels to begin with, and asked a round")
    parser.add_argument("--seeds", type=int, default=3, help="runs of each strategy")
    parser.add_argument("--steps", type=int, default=300, help="training batches a round")
    parser.add_argument("--members", type=int, default=3, help="of the committee")
    args = parser.parse_args()

    inputs = numbers(args.data_root, args.seed)[0].tensors[0].shape[1]

    def make_data(seed, state_dir):
        train_set, test_set = numbers(args.data_root, seed)
        return ActiveDataModule(
            train_set, test_set=test_set, initial=args.query_size, batch_size=32, pool_batch_size=512,
            steps_per_epoch=args.steps, seed=seed, state_dir=state_dir,
        )  # fmt: skip

    def make_model(seed):
        torch.manual_seed(seed)
        return Regressor(inputs)

    def make_trainer(number):
        return L.Trainer(
            max_epochs=1, logger=False, enable_checkpointing=False, enable_model_summary=False,
            enable_progress_bar=False, accelerator="cpu", devices=1,
        )  # fmt: skip

    strategies = {
        "MC dropout": acq.PredictiveVariance(MCDropout(50)),
        "committee": acq.PredictiveVariance(Committee(args.members)),
        "drawn": acq.PowerSampling(acq.PredictiveVariance(Committee(args.members))),
    }
    comparison = compare(
        strategies, make_model, make_trainer, make_data, query_size=args.query_size, rounds=args.rounds,
        seeds=range(args.seed, args.seed + args.seeds), state_dir=args.state_dir or tempfile.mkdtemp(),
        progress=False,
    )  # fmt: skip
    frame = comparison.to_frame().groupby(["labeled", "strategy"], sort=False)["test_rmse"].mean()
    print(frame.unstack().round(2).to_string())
    print()
    print(comparison)


if __name__ == "__main__":
    main()

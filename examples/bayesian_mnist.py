"""Deep Bayesian active learning: what the passes of MC dropout say of each image, on handwritten digits.

    python examples/bayesian_mnist.py                                  # scikit-learn's small digits
    python examples/bayesian_mnist.py --data-root DIR --strategy BALD  # MNIST: the .gz files in DIR/mnist

The protocol of Gal, Islam & Ghahramani (2017, arXiv:1703.02910): 20 labels, of which 2 of every digit, 10
more a round, chosen by many passes over 2,000 of the pool; a new network every round; tested on the mean of
several passes. benchmarks/dbal_mnist.py compares the strategies on it.
"""

import argparse
import os

import lightning as L
import torch
from data_sets import images
from torch import nn
from torch.utils.data import DataLoader
from torchmetrics.functional import accuracy

from lightning_al import ActiveDataModule, ActiveLearning, MCDropout, fit_rounds
from lightning_al import acquisition as acq

STRATEGIES = {
    "BALD": lambda passes: acq.BALD(MCDropout(passes)),
    "Entropy": lambda passes: acq.Entropy(posterior=MCDropout(passes)),
    "VariationRatio": lambda passes: acq.VariationRatio(MCDropout(passes)),
    "MeanSTD": lambda passes: acq.MeanSTD(MCDropout(passes)),
    "Random": lambda passes: acq.Random(),
}


class BayesianCNN(L.LightningModule):
    """The paper's network. Dropout comes after the convolutions, so these run once for all passes."""

    def __init__(self, side, steps):
        super().__init__()
        self.steps = steps
        features = 32 * ((side - 6) // 2) ** 2  # two convolutions of 4 x 4, then pooling
        self.net = nn.Sequential(
            nn.Conv2d(1, 32, 4), nn.ReLU(), nn.Conv2d(32, 32, 4), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(),
            nn.Dropout(0.25), nn.Linear(features, 128), nn.ReLU(), nn.Dropout(0.5), nn.Linear(128, 10),
        )  # fmt: skip

    def forward(self, x):
        """Logits of the ten digits."""
        return self.net(x)

    def training_step(self, batch, batch_idx):
        """Cross-entropy."""
        x, y = batch
        return nn.functional.cross_entropy(self(x), y)

    def test_step(self, batch, batch_idx):
        """Accuracy; with `test_posterior`, `self(x)` is the mean prediction of its passes."""
        x, y = batch
        self.log("test_acc", accuracy(self(x), y, task="multiclass", num_classes=10))

    def configure_optimizers(self):
        """Adam with an L2 penalty that weakens as labels come in, as the prior of the weights does."""
        labels = len(self.trainer.datamodule.labeled_indices)
        optimizer = torch.optim.Adam(self.parameters(), weight_decay=0.1 / labels)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, total_steps=self.steps)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


def main():
    """A simulation: all labels are there, and stay hidden until they are asked for."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data-root", default=os.environ.get("LIGHTNING_AL_DATA"))
    parser.add_argument("--strategy", choices=STRATEGIES, default="VariationRatio")
    parser.add_argument("--passes", type=int, default=50, help="of MC dropout over the candidates")
    parser.add_argument("--rounds", type=int, default=10, help="queries of 10 images")
    parser.add_argument("--steps", type=int, default=100, help="training batches a round")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--state-dir", help="where labels and queries are kept; default: a fresh folder")
    args = parser.parse_args()

    train_set, test_set = images(args.data_root, "mnist")
    data = ActiveDataModule.from_dataloaders(
        DataLoader(train_set, batch_size=32), test=DataLoader(test_set, batch_size=250), pool_batch_size=250,
        initial=20, initial_balanced=True, steps_per_epoch=args.steps, seed=args.seed,
        state_dir=args.state_dir,
    )  # fmt: skip
    active = ActiveLearning(
        STRATEGIES[args.strategy](args.passes), query_size=10, candidates=2000, restart="redraw",
        test_posterior=MCDropout(10),
    )  # fmt: skip

    def make_model(seed):
        torch.manual_seed(seed)
        return BayesianCNN(train_set[0][0].shape[-1], args.steps)

    def make_trainer(number):
        return L.Trainer(max_epochs=1, logger=False, enable_checkpointing=False, enable_model_summary=False)

    history = fit_rounds(make_model, make_trainer, data, active, rounds=args.rounds)
    print(history.to_frame()[["round", "labeled", "asked", "test_acc"]].to_string(index=False))


if __name__ == "__main__":
    main()

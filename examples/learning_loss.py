"""Learning Loss: a head predicts which images the model gets wrong, and these are asked for.

    python examples/learning_loss.py                     # scikit-learn's small digits
    python examples/learning_loss.py --data-root DIR     # Fashion-MNIST: the .gz files in DIR/fashion_mnist
    python examples/learning_loss.py --strategy Random   # the same network, asked at random

After Yoo & Kweon (2019, arXiv:1905.03677): a head on four stages of a network, trained beside it by comparing
pairs of losses, stops shaping it after 60 % of a round's epochs. Each round's test also tells how many pairs
of test images the head puts in the order of their losses: 50 % is chance.
"""

import argparse
import os

import lightning as L
import torch
from data_sets import images
from torch import nn
from torchmetrics.functional import accuracy

from lightning_al import ActiveDataModule, ActiveLearning, LearningLossMixin, LearningLossOptions, fit_rounds
from lightning_al import acquisition as acq


def stage(before, width, *, halves):
    """A convolution that may halve the image."""
    layers = [nn.Conv2d(before, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU()]
    return nn.Sequential(*layers, *[nn.MaxPool2d(2)] * halves)


class FourStages(LearningLossMixin, L.LightningModule):
    """What the head takes: a base, the names of layers, and `self.learning_loss` around the losses."""

    learning_loss_layers = ("stages.0", "stages.1", "stages.2", "stages.3")
    learning_loss_options = LearningLossOptions(detach_after=0.6, log_ranking=True)

    def __init__(self):
        super().__init__()
        self.stages = nn.Sequential(
            stage(1, 16, halves=True), stage(16, 16, halves=True), stage(16, 32, halves=True),
            stage(32, 64, halves=False),
        )  # fmt: skip
        self.last = nn.Linear(64, 10)

    def forward(self, x):
        """Logits of the ten classes."""
        return self.last(self.stages(x).mean((2, 3)))

    def training_step(self, batch, batch_idx):
        """Cross-entropies, one an image, and what teaches the head to rank them."""
        x, y = batch
        return self.learning_loss(nn.functional.cross_entropy(self(x), y, reduction="none"))

    def test_step(self, batch, batch_idx):
        """Accuracy; with `log_ranking`, the same line logs how well losses are ranked."""
        x, y = batch
        logits = self(x)
        self.log("test_acc", accuracy(logits, y, task="multiclass", num_classes=10))
        self.learning_loss(nn.functional.cross_entropy(logits, y, reduction="none"))

    def configure_optimizers(self):
        """Of all parameters, the head's among them."""
        optimizer = torch.optim.Adam(self.parameters(), weight_decay=1e-4)
        steps = self.trainer.estimated_stepping_batches
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 5e-3, total_steps=int(steps))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


def main():
    """A simulation: all labels are there, and stay hidden until they are asked for."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data-root", default=os.environ.get("LIGHTNING_AL_DATA"))
    parser.add_argument("--strategy", choices=("LearningLoss", "Random"), default="LearningLoss")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--initial", type=int, default=100, help="labels to begin with, and asked each round")
    parser.add_argument("--steps", type=int, default=30, help="training batches an epoch, of ten epochs")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--state-dir", help="where labels and queries are kept; default: a fresh folder")
    args = parser.parse_args()

    train_set, test_set = images(args.data_root)
    data = ActiveDataModule(
        train_set, test_set=test_set, initial=args.initial, batch_size=64, pool_batch_size=250,
        steps_per_epoch=args.steps, seed=args.seed, state_dir=args.state_dir,
    )  # fmt: skip
    # Of a subset drawn anew each round: the highest predictions of all are too much alike.
    active = ActiveLearning(
        getattr(acq, args.strategy)(), query_size=args.initial, candidates=5000, restart="redraw"
    )

    def make_model(seed):
        torch.manual_seed(seed)
        return FourStages()

    def make_trainer(number):
        return L.Trainer(max_epochs=10, logger=False, enable_checkpointing=False, enable_model_summary=False)

    history = fit_rounds(make_model, make_trainer, data, active, rounds=args.rounds)
    columns = ["round", "labeled", "asked", "test_acc", "test_loss_ranking_accuracy"]
    print(history.to_frame()[columns].to_string(index=False))


if __name__ == "__main__":
    main()

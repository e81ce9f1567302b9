"""Segmentation: a class at every pixel, and one score an image.

    python examples/segmentation.py                       # shapes on a noisy ground, made here
    python examples/segmentation.py --reduction max       # the worst pixel counts
    python examples/segmentation.py --strategy Random

A model that says a class at every pixel has an uncertainty at every pixel. `reduction` makes one score an
image of them: their mean, their maximum, their sum, or what a function makes of them. All images hold a
square and a disc; one in eight holds a cross too.

Of 48 images asked for, 22 held a cross with the mean entropy, 17 with `worst`, 13 with `max`, 27 with the
mean of `BALD`, and 10 at random; the intersection over union of crosses was 0.36, 0.22, 0.22, 0.32 and 0.15
in the end. One run each, in 16 s of one core, `BALD` in 26 s.
"""

import lightning as L
import torch
from data_sets import options
from torch import nn
from torch.utils.data import TensorDataset
from torchmetrics.classification import MulticlassJaccardIndex

from lightning_al import ActiveDataModule, ActiveLearning, MCDropout, fit_rounds
from lightning_al import acquisition as acq

SIDE, CLASSES = 32, ("ground", "square", "disc", "cross")


def worst_twentieth(scores, mask):
    """The mean of the highest 5 % of an image: scores `(B, pixels)`, and which of these count."""
    scores = scores.masked_fill(~mask, 0.0)
    return scores.topk(scores.shape[1] // 20, dim=1).values.mean(1)


REDUCTIONS = {"mean": "mean", "max": "max", "sum": "sum", "worst": worst_twentieth}
STRATEGIES = {
    "Entropy": lambda reduction: acq.Entropy(reduction=reduction),
    "Margin": lambda reduction: acq.Margin(reduction=reduction),
    "BALD": lambda reduction: acq.BALD(MCDropout(20), reduction=reduction),
    "Random": lambda reduction: acq.Random(),
}


def shapes(count, seed):
    """Images `(1, 32, 32)` and masks `(32, 32)` of classes; one in eight has a cross."""
    draw = torch.Generator().manual_seed(seed)
    rows, columns = torch.meshgrid(torch.arange(SIDE), torch.arange(SIDE), indexing="ij")
    masks = torch.zeros(count, SIDE, SIDE, dtype=torch.long)
    for mask in masks:
        kinds = [1, 2, 3] if torch.rand((), generator=draw) < 1 / 8 else [1, 2]
        for kind in kinds:
            row, column = torch.randint(6, SIDE - 6, (2,), generator=draw).tolist()
            down, right = (rows - row).abs(), (columns - column).abs()
            size = int(torch.randint(4, 7, (), generator=draw))
            inside = {
                1: torch.maximum(down, right) < size,
                2: down**2 + right**2 < size**2,
                3: (torch.minimum(down, right) < 2) & (torch.maximum(down, right) < 5),
            }[kind]
            mask[inside] = kind
    bright = torch.tensor([0.0, 0.8, 0.8, 0.8])[masks]
    return TensorDataset((bright + 0.2 * torch.randn(bright.shape, generator=draw))[:, None], masks)


class SmallUNet(L.LightningModule):
    """Down once, up again, with what was seen on the way."""

    def __init__(self, width=16):
        super().__init__()
        self.first = self._block(1, width)
        self.deep = nn.Sequential(
            nn.MaxPool2d(4), self._block(width, 2 * width), self._block(2 * width, 2 * width),
            self._block(2 * width, width), nn.Upsample(scale_factor=4),
        )  # fmt: skip
        self.last = nn.Sequential(nn.Dropout2d(0.2), nn.Conv2d(2 * width, len(CLASSES), 1))
        self.iou = MulticlassJaccardIndex(len(CLASSES), average="none")

    @staticmethod
    def _block(before, width):
        return nn.Sequential(nn.Conv2d(before, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU())

    def forward(self, x):
        """Logits `(B, classes, 32, 32)`: classes on axis 1."""
        first = self.first(x)
        return self.last(torch.cat([first, self.deep(first)], 1))

    def training_step(self, batch, batch_idx):
        """Cross-entropy of every pixel."""
        x, masks = batch
        return nn.functional.cross_entropy(self(x), masks)

    def test_step(self, batch, batch_idx):
        """Intersection over union of each class, over all images: a mean over batches would be another."""
        x, masks = batch
        self.iou.update(self(x).argmax(1), masks)

    def on_test_epoch_end(self):
        """Their mean, and that of the rare class."""
        found = self.iou.compute()
        self.log_dict({"test_iou": found.mean(), "test_cross_iou": found[3]})
        self.iou.reset()

    def configure_optimizers(self):
        """Adam, with a schedule that means one round."""
        optimizer = torch.optim.AdamW(self.parameters())
        steps = int(self.trainer.estimated_stepping_batches)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 1e-2, total_steps=steps)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


def main():
    """A simulation: all masks are there, and stay hidden until they are asked for."""
    parser = options(__doc__, rounds=4)
    parser.add_argument("--strategy", choices=STRATEGIES, default="Entropy")
    parser.add_argument("--reduction", choices=REDUCTIONS, default="mean")
    parser.add_argument("--query-size", type=int, default=12, help="masks to begin with, and asked a round")
    parser.add_argument("--steps", type=int, default=200, help="training batches a round")
    parser.add_argument("--pool", type=int, default=600, help="images")
    args = parser.parse_args()

    train_set, test_set = shapes(args.pool, seed=args.seed), shapes(200, seed=args.seed + 1000)
    data = ActiveDataModule(
        train_set, test_set=test_set, initial=args.query_size, batch_size=12, pool_batch_size=50,
        steps_per_epoch=args.steps, seed=args.seed, state_dir=args.state_dir,
    )  # fmt: skip
    strategy = STRATEGIES[args.strategy](REDUCTIONS[args.reduction])
    active = ActiveLearning(strategy, query_size=args.query_size, restart="redraw")

    def make_model(seed):
        torch.manual_seed(seed)
        return SmallUNet()

    def make_trainer(number):
        return L.Trainer(
            max_epochs=1, logger=False, enable_checkpointing=False, enable_model_summary=False,
            enable_progress_bar=False,
        )  # fmt: skip

    history = fit_rounds(make_model, make_trainer, data, active, rounds=args.rounds)
    columns = ["round", "labeled", "asked", "test_iou", "test_cross_iou"]
    print(history.to_frame()[columns].to_string(index=False))
    crosses = [(train_set.tensors[1][index] == 3).any() for index in data.labeled_indices[args.query_size :]]
    print(f"images with a cross among those asked for: {int(sum(crosses))} of {len(crosses)}")


if __name__ == "__main__":
    main()

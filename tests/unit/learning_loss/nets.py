"""Small modules with a loss head."""

from __future__ import annotations

import lightning as L
import torch
from torch import nn

from lightning_al import LearningLossMixin

FEATURES, CLASSES = 4, 3


def losses_of(output, y):
    return nn.functional.cross_entropy(output, y, reduction="none")


class Plain(L.LightningModule):
    """A classifier, as it is without the mixin."""

    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(
            nn.Linear(FEATURES, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.2), nn.Linear(8, CLASSES)
        )

    def forward(self, x):
        return self.net(x)

    def training_step(self, batch, batch_idx):
        x, y = batch
        return losses_of(self(x), y).mean()

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.1)


class Net(LearningLossMixin, Plain):
    """The same with it."""

    learning_loss_layers = ("net.0", "net.2")
    example_input_array = torch.zeros(2, FEATURES)

    def training_step(self, batch, batch_idx):
        x, y = batch
        return self.learning_loss(losses_of(self(x), y))


class Own(LearningLossMixin, L.LightningModule):
    """Any layers, any forward, a loss a sample."""

    learning_loss_layers = ("layer",)

    def __init__(self, layer, *, example=None, after=None):
        super().__init__()
        self.layer = layer
        self.after = after
        self.example_input_array = example

    def forward(self, x):
        output = self.layer(x)
        return output if self.after is None else self.after(output)

    def training_step(self, batch, batch_idx):
        return self.learning_loss(batch[1] * next(self.parameters()).sum().exp())


def ready(module):
    """As a fit would make it."""
    module.configure_model()
    return module.train()


def batch(size=6, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(size, FEATURES, generator=generator), torch.arange(size) % CLASSES

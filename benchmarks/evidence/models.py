"""MODELS: two small networks trained from scratch, in plain torch, and how a round of them is trained.

Settings -> [Classifier] -> test_acc, test_bal_acc (mean recall of the classes), test_auroc of two classes
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import lightning as L
import torch
from torch import Tensor, nn
from torchmetrics.classification import BinaryAUROC, MulticlassConfusionMatrix

__all__ = ["Classifier", "ProcessorTime", "Settings", "TextLayers", "image_layers"]


@dataclass(frozen=True)
class Settings:
    """How a round is trained: a fixed number of steps, however few the labels.

    Args:
        steps: Batches.
        learning_rate: The most of one cycle.
        weight_decay: Of AdamW.
        batch_size: Samples a batch.
    """

    steps: int
    learning_rate: float
    weight_decay: float = 0.01
    batch_size: int = 32


def image_layers(classes: int) -> nn.Module:
    """From images `(B, 1, 28, 28)` to logits; its dropout is behind the convolutions, run once."""
    layers = nn.Sequential(
        nn.Conv2d(1, 16, 5), nn.MaxPool2d(2), nn.ReLU(), nn.Conv2d(16, 32, 5), nn.MaxPool2d(2), nn.ReLU(),
        nn.Dropout(0.25), nn.Flatten(), nn.Linear(32 * 4 * 4, 128), nn.ReLU(), nn.Dropout(0.5),
        nn.Linear(128, classes),
    )  # fmt: skip
    layers.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # quicker convolutions
    return layers


class TextLayers(nn.Module):
    """From word numbers `(B, words)` to logits: a convolution over neighbours, and its highest values.

    Args:
        words: In the vocabulary; 0 is padding, which changes nothing.
        classes: Logits.
        size: Of a word's vector, and of what the convolution finds.
    """

    def __init__(self, words: int, classes: int, size: int = 64) -> None:
        super().__init__()
        self.words = nn.Embedding(words, size, padding_idx=0)
        self.neighbours = nn.Conv1d(size, 2 * size, 3, padding=1)
        self.dropout = nn.Dropout(0.5)
        self.classes = nn.Linear(2 * size, classes)

    def forward(self, words: Tensor) -> Tensor:
        """Logits `(B, classes)`."""
        found = self.neighbours(self.words(words).transpose(1, 2)).relu()
        # No place of padding is the highest: what is above 0 elsewhere is taken, and 0 if nothing is.
        found = found.masked_fill((words == 0).unsqueeze(1), 0.0)
        logits: Tensor = self.classes(self.dropout(found.amax(2)))
        return logits


class Classifier(L.LightningModule):
    """Any layers, trained by AdamW with one cycle of the learning rate.

    Args:
        layers: From inputs to logits `(B, classes)`.
        classes: How many.
        settings: Of the training.
    """

    def __init__(self, layers: nn.Module, classes: int, settings: Settings) -> None:
        super().__init__()
        self.layers, self.settings = layers, settings
        self.confusion = MulticlassConfusionMatrix(classes, validate_args=False)
        self.auroc = BinaryAUROC(validate_args=False) if classes == 2 else None

    def forward(self, x: Tensor) -> Tensor:
        """Logits."""
        logits: Tensor = self.layers(x)
        return logits

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:  # noqa: D102
        return nn.functional.cross_entropy(self(batch[0]), batch[1])

    def test_step(self, batch: Any, batch_idx: int) -> None:  # noqa: D102
        logits, targets = self(batch[0]), batch[1]
        self.confusion.update(logits, targets)
        if self.auroc is not None:
            self.auroc.update(logits.softmax(1)[:, 1], targets)

    def on_test_epoch_end(self) -> None:  # noqa: D102
        found = self.confusion.compute().double()
        self.log("test_acc", found.diagonal().sum() / found.sum())
        self.log("test_bal_acc", (found.diagonal() / found.sum(1)).mean())
        self.confusion.reset()
        if self.auroc is not None:
            self.log("test_auroc", self.auroc.compute())
            self.auroc.reset()

    def configure_optimizers(self) -> Any:  # noqa: D102
        chosen = self.settings
        optimizer = torch.optim.AdamW(
            self.parameters(), chosen.learning_rate, weight_decay=chosen.weight_decay
        )
        schedule = torch.optim.lr_scheduler.OneCycleLR(
            optimizer, chosen.learning_rate, total_steps=chosen.steps
        )
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


class ProcessorTime(L.Callback):
    """Logs as `processor_s` what this process spent since the test before, or since it began.

    A run is a process, so the sum over its rounds is the run's, all but the end of its last test; a round
    that was begun anew after a kill counts once.
    """

    _before = 0.0

    def on_test_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:  # noqa: D102
        now = time.process_time()
        pl_module.log("processor_s", now - ProcessorTime._before)
        ProcessorTime._before = now

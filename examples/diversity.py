"""What the highest scores take, and what strategies that look at the query as a whole take.

    python examples/diversity.py --plane plane.png --digits digits.png

On the left of the plane lies a clump of near-copies where two classes meet; of the digits every image is in
the pool five times, with a little noise. What scores samples one by one spends its query on copies.
"""

import argparse
import logging
import tempfile
from pathlib import Path

import lightning as L
import matplotlib.pyplot as plt
import numpy as np
import torch
from sklearn.datasets import load_digits
from sklearn.decomposition import PCA
from torch import nn
from torch.utils.data import TensorDataset

from lightning_al import ActiveDataModule, query
from lightning_al import acquisition as acq

COPIES = 5


class Net(L.LightningModule):
    """Features, then a linear layer: what enters that is the embedding."""

    def __init__(self, features, width, classes):
        super().__init__()
        self.features, self.head = features, nn.Linear(width, classes)

    def forward(self, x):
        """Logits."""
        return self.head(self.features(x))

    def training_step(self, batch, batch_idx):
        """Cross-entropy."""
        x, y = batch
        return nn.functional.cross_entropy(self(x), y)

    def configure_optimizers(self):
        """Adam."""
        return torch.optim.Adam(self.parameters(), lr=1e-2)


def plane():
    """Three classes around the centre, and a clump of 120 near-copies between two of them."""
    draw = torch.Generator().manual_seed(0)
    angles = torch.tensor([90.0, 210.0, 330.0]).deg2rad()
    centers = 2 * torch.stack([angles.cos(), angles.sin()], 1)
    y = torch.arange(3).repeat_interleave(150)
    x = centers[y] + 0.9 * torch.randn(450, 2, generator=draw)
    clump = torch.tensor([-1.9, -0.158]) + 0.04 * torch.randn(120, 2, generator=draw)
    return torch.cat([x, clump]), torch.cat([y, torch.arange(120) % 2])


def digits():
    """Handwritten digits, each several times, with noise of its own."""
    draw = torch.Generator().manual_seed(0)
    x, y = load_digits(return_X_y=True)
    x = torch.tensor(x, dtype=torch.float32).div(16).repeat(COPIES, 1)
    return x + 0.01 * torch.randn(x.shape, generator=draw), torch.tensor(y).repeat(COPIES)


def trained(model, data, epochs):
    """The model, trained on what is labelled; and a Trainer to ask with. A simulation of one round."""
    options = {
        "accelerator": "cpu", "devices": 1, "logger": False, "enable_checkpointing": False,
        "enable_progress_bar": False, "enable_model_summary": False,
    }  # fmt: skip
    L.Trainer(max_epochs=epochs, **options).fit(model, datamodule=data)
    return model, L.Trainer(**options)


def draw(ax, title, places, asked, labeled):
    """Pool, labelled samples and the query."""
    ax.scatter(*places.T, s=5, color="#C8C8C8", linewidths=0)
    ax.scatter(*places[labeled].T, s=26, color="#333333", marker="x", linewidths=1)
    ax.scatter(*places[asked].T, s=26, color="#D55E00", edgecolors="white", linewidths=0.5)
    ax.set_title(title, fontsize=10, loc="left")
    ax.set(xticks=[], yticks=[])
    ax.spines[:].set_color("#D9D9D9")


def picture(path, model, trainer, data, places, strategies, query_size, said, heading):
    """A panel a strategy; `said` tells a query in words."""
    rows = (len(strategies) + 2) // 3
    figure, axes = plt.subplots(rows, 3, figsize=(9.5, 3.1 * rows), layout="constrained", dpi=150)
    for ax, (name, strategy) in zip(axes.flat, strategies.items(), strict=True):
        asked = query(model, data, strategy, query_size, trainer=trainer).indices
        title = f"{name}: {said(asked)}"
        print(title)
        draw(ax, title, places, asked, data.labeled_indices)
    figure.suptitle(heading, x=0.01, ha="left", fontsize=11)
    figure.savefig(path)
    plt.close(figure)


def main():
    """Train on few labels, ask by six strategies, draw."""
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    parser = argparse.ArgumentParser()
    parser.add_argument("--plane", type=Path, default=Path("plane.png"))
    parser.add_argument("--digits", type=Path, default=Path("digits.png"))
    parser.add_argument("--epochs", type=int, default=60, help="of 10 batches each")
    args = parser.parse_args()
    strategies = {
        "Random": acq.Random(),
        "Margin": acq.Margin(),
        "CoreSet": acq.CoreSet(),
        "Margin, then CoreSet": acq.TwoStage(acq.Margin(), then=acq.CoreSet(), keep=0.3),
        "DiverseMiniBatch": acq.DiverseMiniBatch(beta=10),
        "BADGE": acq.BADGE(),
    }

    L.seed_everything(0, verbose=False)
    x, y = plane()
    data = ActiveDataModule(
        TensorDataset(x, y), initial=[0, 1, 150, 151, 300, 301], steps_per_epoch=10,
        state_dir=tempfile.mkdtemp(),
    )  # fmt: skip
    model, trainer = trained(Net(nn.Identity(), 2, 3), data, args.epochs)
    picture(
        args.plane, model, trainer, data, x.numpy(), strategies, 15,
        lambda asked: f"{np.sum(asked >= 450)} from the clump",
        "Queries of 15 (orange); labelled (crosses); the clump of 120 near-copies is on the left",
    )  # fmt: skip

    L.seed_everything(0, verbose=False)
    x, y = digits()
    images = len(x) // COPIES
    data = ActiveDataModule(TensorDataset(x, y), initial=40, steps_per_epoch=10, state_dir=tempfile.mkdtemp())
    model, trainer = trained(Net(nn.Sequential(nn.Linear(64, 64), nn.ReLU()), 64, 10), data, args.epochs)
    with torch.no_grad():
        places = PCA(2).fit_transform(model.features(x).numpy())
    picture(
        args.digits, model, trainer, data, places, strategies, 60,
        lambda asked: f"{len(np.unique(asked % images))} of 60 images differ",
        f"Queries of 60 (orange) from digits that are there {COPIES} times; embeddings, two main components",
    )  # fmt: skip


if __name__ == "__main__":
    main()

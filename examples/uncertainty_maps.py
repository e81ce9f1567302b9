"""A committee's entropy and its two parts, over the plane: what BALD asks for, and entropy does not.

    python examples/uncertainty_maps.py --picture maps.png

Two classes overlap on the left and lie far apart on the right. The committee is of modules that are trained
already; every point of the plane is a sample of a pool, and `query` scores them all without any fit.
"""

import argparse
from pathlib import Path

import lightning as L
import matplotlib.pyplot as plt
import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader, RandomSampler, TensorDataset

from lightning_al import ActiveDataModule, Committee, query
from lightning_al import acquisition as acq

LIMITS = (-4.5, 4.5, -3.5, 3.5)


class Member(L.LightningModule):
    """A small network of the plane."""

    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(2, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 2))

    def forward(self, x):
        """Logits of the two classes."""
        return self.net(x)

    def training_step(self, batch, batch_idx):
        """Cross-entropy."""
        x, y = batch
        return nn.functional.cross_entropy(self(x), y)

    def configure_optimizers(self):
        """Adam."""
        return torch.optim.Adam(self.parameters(), lr=1e-2)


def points():
    """Of each class 100 points on the left, where it overlaps the other, and 40 on the right, where not."""
    draw = torch.Generator().manual_seed(0)

    def cloud(count, x, y, spread):
        return torch.tensor([x, y]) + spread * torch.randn(count, 2, generator=draw)

    x = torch.cat([
        cloud(100, -2.5, 0.3, 0.5), cloud(40, 2.0, 2.4, 0.3),
        cloud(100, -2.5, -0.3, 0.5), cloud(40, 2.0, -2.4, 0.3),
    ])  # fmt: skip
    return x, torch.arange(2).repeat_interleave(140)


def trained(seed, x, y, steps):
    """A member, with weights, points drawn with replacement, and an order of its own."""
    L.seed_everything(seed, verbose=False)
    mine = torch.randint(len(x), (len(x),))
    order = RandomSampler(mine, replacement=True, num_samples=steps * 64)
    member = Member()
    trainer = L.Trainer(
        max_epochs=1, logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, accelerator="cpu",
    )  # fmt: skip
    trainer.fit(member, DataLoader(TensorDataset(x[mine], y[mine]), batch_size=64, sampler=order))
    return member


def main():
    """Train the committee, score the plane, draw."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--members", type=int, default=10)
    parser.add_argument("--steps", type=int, default=600, help="of the training of each")
    parser.add_argument("--side", type=int, default=121, help="points in a row of the plane")
    parser.add_argument("--picture", type=Path, default=Path("uncertainty_maps.png"))
    args = parser.parse_args()
    side = args.side

    x, y = points()
    members = [trained(seed, x, y, args.steps) for seed in range(args.members)]
    left, right, low, high = LIMITS
    grid = torch.cartesian_prod(torch.linspace(left, right, side), torch.linspace(low, high, side))
    plane = ActiveDataModule(TensorDataset(grid, torch.zeros(len(grid)).long()), pool_batch_size=4096)

    def scores(strategy):
        found = query(members[0], plane, strategy, query_size=len(grid))
        values = np.empty(len(grid))
        values[found.indices] = found.scores
        return values

    committee = Committee(models=members)
    total = scores(acq.Entropy(posterior=committee))
    information = scores(acq.BALD(committee))
    maps = {
        "predictive entropy": total,
        "BALD: members disagree": information,
        "the rest: members are unsure": total - information,
    }
    figure, axes = plt.subplots(1, 3, figsize=(10, 3.1), layout="constrained", sharey=True)
    for axis, (name, values) in zip(axes, maps.items(), strict=True):
        image = axis.imshow(
            values.reshape(side, side).T,
            origin="lower",
            extent=LIMITS,
            vmin=0,
            vmax=np.log(2),
            cmap="magma",
            aspect="auto",
        )
        for label, color in enumerate(("#4cc9f0", "#80ed99")):
            axis.scatter(*x[y == label].T, s=4, color=color, linewidths=0, alpha=0.8)
        axis.set(title=name, xlim=LIMITS[:2], ylim=LIMITS[2:], xticks=[], yticks=[])
    figure.colorbar(image, ax=axes, label="nats", shrink=0.95)
    figure.savefig(args.picture, dpi=100)
    for place, where in {"overlap": (-2.5, 0.0), "gap": (2.0, 0.5), "cluster": (2.0, 2.4)}.items():
        nearest = (grid - torch.tensor(where)).norm(dim=1).argmin()
        print(place, {name: round(float(values[nearest]), 3) for name, values in maps.items()})


if __name__ == "__main__":
    main()

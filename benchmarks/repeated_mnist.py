"""Redundant data: Repeated-MNIST, where the best samples of a round are copies of one another.

    python benchmarks/repeated_mnist.py --data-root DIR    # about half an hour on two cores; resumable
    python benchmarks/repeated_mnist.py --report           # tables and plot of what there is
    python benchmarks/repeated_mnist.py --tune --data-root DIR

After Kirsch, van Amersfoort & Gal, "BatchBALD", 2019 (arXiv:1906.08158), figure 2: every image three times,
each with noise of its own; the ten highest BALD scores are then near-copies, and BatchBALD counts what they
share only once. What is done differently is listed in docs/reproductions.md.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import inf

import torch
from reproduction import Images, Needed, Protocol, Settings, main
from torch import nn

from lightning_al import MCDropout
from lightning_al import acquisition as acq

PASSES, COPIES, DISTINCT, NOISE = 20, 3, 3_000, 0.1


class RepeatedMNIST(Protocol):
    """BatchBALD, the highest BALD scores of the same passes and of noisier ones, and random sampling."""

    name = "repeated_mnist"
    strategies: Mapping[str, acq.Acquisition] = {
        "BatchBALD": acq.BatchBALD(MCDropout(PASSES)),
        "BALD": acq.BALD(MCDropout(PASSES)),
        "Random": acq.Random(),
        "BALD, own masks": acq.BALD(MCDropout(PASSES, consistent=False)),
    }
    test_passes = 10
    settings = Settings(steps=200, learning_rate=5e-3, decay=0.1)
    tried = (
        *(Settings(steps, rate, 0.1) for steps in (100, 200) for rate in (2e-3, 5e-3, 1e-2)),
        *(Settings(100, 5e-3, decay) for decay in (0.0, 1.0)),
    )
    tuned_to = 220
    least_labels, last_target = 200, 0.90
    most_labels: Mapping[str, int] = {"*": 300}

    published: Mapping[str, Mapping[float, str]] = {
        "BatchBALD": {0.90: "135"},
        "BALD": {0.90: "> 290"},
        "Random": {0.90: "202"},
        "BALD, own masks": {},
    }
    published_as = "labels in the authors' logs"

    def layers(self) -> nn.Module:
        """The paper's without dropout after the first convolution, so that both run once a sample.

        Dropping whole channels before or after pooling and ReLU is the same; after is cheaper.
        """
        return nn.Sequential(
            nn.Conv2d(1, 32, 5), nn.MaxPool2d(2), nn.ReLU(), nn.Conv2d(32, 64, 5), nn.MaxPool2d(2),
            nn.ReLU(), nn.Dropout2d(0.5), nn.Flatten(), nn.Linear(64 * 4 * 4, 128), nn.Dropout(0.5),
            nn.ReLU(), nn.Linear(128, 10),
        )  # fmt: skip

    def samples(self, train: Images, seed: int) -> Images:
        """As many distinct images, drawn by the seed, each several times with noise of its own."""
        generator = torch.Generator().manual_seed(seed)
        chosen = torch.randperm(len(train), generator=generator)[:DISTINCT]
        part = train.part(chosen.repeat(COPIES))
        part.images += NOISE * torch.randn(part.images.shape, generator=generator)
        return part

    def gates(self, needed: Needed) -> list[tuple[str, bool | None]]:
        """What is promised."""
        random, least = needed.median("Random", 0.90), needed.at_least("Random", 0.90)
        known = random is not None and least is not None
        found: list[tuple[str, bool | None]] = []
        labels = needed.median("BatchBALD", 0.90)
        holds = labels <= 0.8 * least if known and labels is not None else None
        found.append(("BatchBALD: 90 % with at most 0.8 times random's labels", holds))
        labels = needed.median("BALD", 0.90)
        holds = labels > 0.8 * random if known and labels is not None and random < inf else None
        found.append(("BALD: not 90 % with at most 0.8 times random's labels", holds))
        return found


if __name__ == "__main__":
    raise SystemExit(main(RepeatedMNIST(), __doc__ or ""))

"""Deep Bayesian active learning on MNIST: how many labels do 10 % and 5 % test error take?

    python benchmarks/dbal_mnist.py --data-root DIR    # about an hour on two cores; resumable
    python benchmarks/dbal_mnist.py --report           # tables and plot of what there is
    python benchmarks/dbal_mnist.py --tune --data-root DIR

After Gal, Islam & Ghahramani, "Deep Bayesian Active Learning with Image Data", 2017 (arXiv:1703.02910),
table 1: their network, 20 labels of which 2 of every class, 10 more a round, chosen among 2,000 of the pool,
the test on the mean of several passes. What is done differently is listed in docs/reproductions.md.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import inf

from reproduction import Images, Needed, Protocol, Settings, main
from torch import nn

from lightning_al import MCDropout
from lightning_al import acquisition as acq

PASSES = 50


class DBAL(Protocol):
    """Random sampling against BALD, the entropy of the mean prediction, and variation ratios."""

    name = "dbal_mnist"
    strategies: Mapping[str, acq.Acquisition] = {
        "BALD": acq.BALD(MCDropout(PASSES)),
        "Entropy": acq.Entropy(posterior=MCDropout(PASSES)),
        "VariationRatio": acq.VariationRatio(MCDropout(PASSES)),
        "Random": acq.Random(),
    }
    candidates, test_passes, precision = 2_000, 10, "bf16-mixed"
    settings = Settings(steps=400, learning_rate=5e-3, decay=0.1)
    tried = (
        *(Settings(steps, rate, 0.1) for steps in (100, 200, 400) for rate in (2e-3, 5e-3)),
        *(Settings(200, 5e-3, decay) for decay in (0.0, 1.0)),
    )
    tuned_to = 420
    # The three may take the 400 acquired that are promised; random sampling, 1.4 times what the three took.
    least_labels, last_target = 230, 0.95
    most_labels: Mapping[str, int] = {"*": 430, "Random": 560}

    published: Mapping[str, Mapping[float, int]] = {
        "BALD": {0.90: 145, 0.95: 335},
        "Entropy": {0.90: 165, 0.95: 355},
        "VariationRatio": {0.90: 120, 0.95: 295},
        "Random": {0.90: 255, 0.95: 835},
    }
    published_as = "acquired in the paper"

    def layers(self) -> nn.Module:
        """The paper's: dropout only where the convolutions have ended, so that these run once a sample."""
        return nn.Sequential(
            nn.Conv2d(1, 32, 4), nn.ReLU(), nn.Conv2d(32, 32, 4), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(),
            nn.Dropout(0.25), nn.Linear(32 * 11 * 11, 128), nn.ReLU(), nn.Dropout(0.5), nn.Linear(128, 10),
        )  # fmt: skip

    def samples(self, train: Images, seed: int) -> Images:
        """All training images; the seed draws initial set, weights and candidates."""
        return train

    def gates(self, needed: Needed) -> list[tuple[str, bool | None]]:
        """What is promised."""
        found: list[tuple[str, bool | None]] = []
        for target, most in ((0.90, 200), (0.95, 400)):
            error, random = f"{1 - target:.0%} error", needed.median("Random", target)
            for name in self.strategies:
                labels = needed.median(name, target)
                if name == "Random":
                    continue
                found.append(
                    (
                        f"{name}: {error} by {most} acquired",
                        None if labels is None else labels - self.initial <= most,
                    )
                )
                holds = None
                if labels is not None and random is not None:
                    limit = self.initial + 1.4 * (labels - self.initial)
                    holds = random >= limit and limit < inf
                    if random == inf and needed.at_least("Random", target) < limit:  # type: ignore[operator]
                        holds = None  # raise its `most_labels`
                found.append((f"Random: at least 1.4 times as many as {name}", holds))
        return found


if __name__ == "__main__":
    raise SystemExit(main(DBAL(), __doc__ or ""))

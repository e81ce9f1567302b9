"""What the data module's train loader costs beside a plain `Subset`: processor time of one epoch.

    python benchmarks/loader.py

50,000 labelled samples of a larger set, shuffled, one process, one thread; the median of 9 runs that
take turns. The promise is a ratio of at most 1.05, whether or not the data set fetches whole batches.
"""

from __future__ import annotations

import argparse
import platform
import statistics
import time
from collections.abc import Iterable
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset, Subset

from lightning_al import ActiveDataModule

LIMIT = 1.05


class OneByOne(Dataset[Any]):
    """Small images with a class, fetched one at a time."""

    def __init__(self, size: int) -> None:
        self.images = torch.zeros(size, 1, 8, 8)
        self.classes = torch.arange(size) % 10

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        return self.images[index], self.classes[index]


class WholeBatches(OneByOne):
    """The same, fetched a batch at a time."""

    def __getitems__(self, indices: list[int]) -> list[tuple[torch.Tensor, torch.Tensor]]:
        return list(zip(self.images[indices].unbind(), self.classes[indices].unbind(), strict=True))


def epoch_cost(loader: Iterable[Any]) -> float:
    """Processor time of going through `loader` once."""
    begun = time.process_time()
    for _ in loader:
        pass
    return time.process_time() - begun


def compare(dataset: OneByOne, size: int, batch_size: int, runs: int) -> tuple[float, float]:
    """Median cost of an epoch of a plain loader over `Subset`, and of the data module's."""
    chosen = torch.randperm(len(dataset), generator=torch.Generator().manual_seed(0))[:size].tolist()
    data = ActiveDataModule(dataset, initial=chosen, batch_size=batch_size)
    plain = DataLoader(Subset(dataset, chosen), batch_size, shuffle=True)
    ours = data.train_dataloader()
    costs: list[tuple[float, float]] = []
    for run in range(runs + 1):  # the first is for warming up
        pair = [(0, plain), (1, ours)]
        found = {place: epoch_cost(loader) for place, loader in (pair if run % 2 else pair[::-1])}
        costs.append((found[0], found[1]))
    first, second = zip(*costs[1:], strict=True)
    return statistics.median(first), statistics.median(second)


def main() -> int:
    """Print the table; the exit status says whether the promise is kept."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--size", type=int, default=50_000)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--runs", type=int, default=9)
    options = parser.parse_args()
    torch.set_num_threads(1)
    print(f"{platform.machine()}, Python {platform.python_version()}, torch {torch.__version__}")
    print(f"{'data set':<16}{'Subset s':>10}{'ours s':>10}{'ratio':>8}")
    kept = True
    for kind in (OneByOne, WholeBatches):
        dataset = kind(options.size + options.size // 5)
        plain, ours = compare(dataset, options.size, options.batch_size, options.runs)
        kept &= ours <= LIMIT * plain
        print(f"{kind.__name__:<16}{plain:>10.3f}{ours:>10.3f}{ours / plain:>8.3f}")
    print(f"at most {LIMIT}: {'yes' if kept else 'NO'}")
    return not kept


if __name__ == "__main__":
    raise SystemExit(main())

"""Processor time of MC dropout beside plain passes through the whole model.

    python benchmarks/mc_dropout.py            # under two minutes
    python benchmarks/mc_dropout.py --quick    # a few passes: does it run?

A small CNN (four convolutions, 28 x 28) with dropout only in its head, 500 images, 50 passes, one thread.
The plain way puts the dropout into training mode and runs the model 50 times. Both keep sums of
probabilities and of entropies, as BALD needs them. They take turns; the median of the runs is shown. On a
CUDA device, if there is one, the time is that of the clock, synchronised. The exit status says whether
the promised ratios are kept, which are for all images in one batch; batches of 64 are shown beside it.
"""

from __future__ import annotations

import argparse
import platform
import statistics
import time
from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional

from lightning_al import MCDropout
from lightning_al.inference.posteriors import Draw
from lightning_al.inference.statistics import Statistics

PROMISED = {"independent": 9, "consistent": 25}
BATCHES = (500, 64)


class SmallCNN(nn.Module):
    """Four convolutions and a head with dropout."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(1, 32, 3, padding=1), nn.Conv2d(32, 32, 3, padding=1)
        self.third, self.fourth = nn.Conv2d(32, 64, 3, padding=1), nn.Conv2d(64, 64, 3, padding=1)
        self.head = nn.Sequential(
            nn.Dropout(0.5), nn.Linear(64 * 7 * 7, 128), nn.ReLU(), nn.Dropout(0.5), nn.Linear(128, 10)
        )

    def forward(self, x: Tensor) -> Tensor:
        """Logits."""
        x = functional.relu(self.second(functional.relu(self.first(x))))
        x = functional.relu(self.fourth(functional.relu(self.third(functional.max_pool2d(x, 2)))))
        return self.head(functional.max_pool2d(x, 2).flatten(1))


def plain(model: nn.Module, x: Tensor, passes: int) -> Iterator[Tensor]:
    """Every pass through the whole model, dropout in training mode."""
    layers = [part for part in model.modules() if isinstance(part, nn.Dropout)]
    for layer in layers:
        layer.train()
    for _ in range(passes):
        yield model(x)[None]
    for layer in layers:
        layer.eval()


def ours(model: nn.Module, x: Tensor, passes: int, *, consistent: bool) -> Iterator[Tensor]:
    """The same by `MCDropout`."""
    posterior = MCDropout(passes, consistent)
    draw = Draw(0, torch.arange(len(x), device=x.device))
    return posterior.passes(lambda module, x: module(x), model, x, draw)


def cost(passes: Callable[[Tensor], Iterator[Tensor]], batches: tuple[Tensor, ...]) -> float:
    """Seconds until every batch's sums are there."""
    on_device = batches[0].is_cuda
    clock = time.perf_counter if on_device else time.process_time
    begun = clock()
    with torch.no_grad():
        for batch in batches:
            found = Statistics(("probs", "expected_entropy"))
            for logits in passes(batch):
                found.add(logits)
            found.fields()
    if on_device:
        torch.cuda.synchronize()
    return clock() - begun


def main() -> int:
    """Print the table; the exit status says whether the promises are kept."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="few passes, nothing promised")
    parser.add_argument("--runs", type=int, default=3)
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model = SmallCNN().eval().to(device)
    images, passes = torch.randn(500, 1, 28, 28, device=device), 5 if options.quick else 50
    where = torch.cuda.get_device_name() if device == "cuda" else f"{platform.machine()}, one thread"
    print(f"{where}, Python {platform.python_version()}, torch {torch.__version__}")
    print(f"500 images, {passes} passes, median of {options.runs} runs\n")
    print(f"{'batch':>5}  {'':<22}{'s':>8}{'ratio':>8}")
    kept = True
    for size in BATCHES:
        batches = torch.split(images, size)
        ways: dict[str, Callable[[Tensor], Iterator[Tensor]]] = {
            "one pass": lambda x: plain(model, x, 1),
            "plain passes": lambda x: plain(model, x, passes),
            "independent": lambda x: ours(model, x, passes, consistent=False),
            "consistent": lambda x: ours(model, x, passes, consistent=True),
        }
        times: dict[str, list[float]] = {name: [] for name in ways}
        for _ in range(options.runs):
            for name, way in ways.items():
                times[name].append(cost(way, batches))
        medians = {name: statistics.median(values) for name, values in times.items()}
        for name, median in medians.items():
            ratio = statistics.median(p / t for p, t in zip(times["plain passes"], times[name], strict=True))
            print(f"{size:>5}  {name:<22}{median:>8.2f}{ratio:>8.1f}")
            kept = kept and (size != BATCHES[0] or ratio >= PROMISED.get(name, 0))
    if options.quick or device == "cuda":
        return 0
    print(f"\npromised ratios {PROMISED}: {'kept' if kept else 'NOT KEPT'}")
    return not kept


if __name__ == "__main__":
    raise SystemExit(main())

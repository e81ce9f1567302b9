"""What a training step costs with the loss head, beside a plain one.

    python benchmarks/learning_loss.py            # about two minutes
    python benchmarks/learning_loss.py --quick    # one run: does it work?

A ResNet-18 as for CIFAR-10 (3 x 3 stem, 32 x 32 images), its four stages named as layers, cross-entropy,
SGD with momentum; forward, backward and step of one batch, in turns, processor time on one thread. On a
CUDA device, if there is one, the time is that of the clock, synchronised. The promise is a ratio of at
most 1.15.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import time
from itertools import pairwise

import lightning as L
import torch
from torch import Tensor, nn
from torch.nn import functional

from lightning_al import LearningLossMixin

LIMIT = 1.15


class Block(nn.Module):
    """Two convolutions and a way past them."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.second = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.norms = nn.ModuleList([nn.BatchNorm2d(outputs), nn.BatchNorm2d(outputs)])
        self.past = nn.Identity() if stride == 1 else nn.Conv2d(inputs, outputs, 1, stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """As He et al. 2016."""
        h = functional.relu(self.norms[0](self.first(x)))
        return functional.relu(self.norms[1](self.second(h)) + self.past(x))


class Plain(L.LightningModule):
    """A ResNet-18 for small images."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 64, 3, 1, 1, bias=False), nn.BatchNorm2d(64), nn.ReLU())
        widths = [64, 64, 128, 256, 512]
        self.stages = nn.ModuleList(
            nn.Sequential(Block(a, b, 1 if a == b else 2), Block(b, b, 1)) for a, b in pairwise(widths)
        )
        self.last = nn.Linear(512, 10)

    def forward(self, x: Tensor) -> Tensor:
        """Logits."""
        x = self.stem(x)
        for stage in self.stages:
            x = stage(x)
        return self.last(x.mean((2, 3)))

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        """The mean loss."""
        return functional.cross_entropy(self(batch[0]), batch[1])


class Predicting(LearningLossMixin, Plain):
    """The same with a loss head on its four stages."""

    learning_loss_layers = tuple(f"stages.{n}" for n in range(4))
    example_input_array = torch.zeros(1, 3, 32, 32)

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        """The mean loss and the head's."""
        return self.learning_loss(functional.cross_entropy(self(batch[0]), batch[1], reduction="none"))


def cost(module: Plain, optimizer: torch.optim.Optimizer, batch: tuple[Tensor, Tensor]) -> float:
    """Seconds of one step."""
    on_device = batch[0].is_cuda
    clock = time.perf_counter if on_device else time.process_time
    begun = clock()
    optimizer.zero_grad()
    module.training_step(batch, 0).backward()
    optimizer.step()
    if on_device:
        torch.cuda.synchronize()
    return clock() - begun


def main() -> int:
    """Print the table; the exit status says whether the promise is kept."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one run of a small batch, nothing promised")
    parser.add_argument("--runs", type=int, default=7)
    parser.add_argument("--batch-size", type=int, default=32)
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    size, runs = (4, 1) if options.quick else (options.batch_size, options.runs)
    batch = (torch.randn(size, 3, 32, 32, device=device), torch.randint(10, (size,), device=device))
    modules = {"plain": Plain(), "with the head": Predicting()}
    times: dict[str, list[float]] = {name: [] for name in modules}
    ready = {}
    for name, module in modules.items():
        module.configure_model()
        module.to(device).train()
        ready[name] = module, torch.optim.SGD(module.parameters(), 0.1, momentum=0.9)
    for run in range(runs + 1):  # the first is for warming up
        for name in list(ready) if run % 2 else list(ready)[::-1]:
            seconds = cost(*ready[name], batch)
            times[name] += [seconds] if run else []
    where = torch.cuda.get_device_name() if device == "cuda" else f"{platform.machine()}, one thread"
    print(f"{where}, load {os.getloadavg()[0]:.1f}, Python {platform.python_version()}, "
          f"torch {torch.__version__}")  # fmt: skip
    print(f"batches of {size}, median of {runs} runs that take turns\n")
    for name, values in times.items():
        print(f"{name:<16}{statistics.median(values):>8.3f} s")
    ratio = statistics.median(b / a for a, b in zip(times["plain"], times["with the head"], strict=True))
    print(f"\nratio {ratio:.3f}, at most {LIMIT}: {'yes' if ratio <= LIMIT else 'NO'}")
    return int(ratio > LIMIT and not options.quick and device == "cpu")


if __name__ == "__main__":
    raise SystemExit(main())

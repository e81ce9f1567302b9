"""What scoring and choosing cost on one GPU, beside what they must cost there.

    python benchmarks/gpu.py [--quick] [--device cuda] [--parts scoring k_center badge]

Some five minutes on a GPU with 40 GB of memory; everything is made by seed, on the device.

scoring: a ResNet-50 over images of 224 x 224 that are held in memory as bytes, by `query` with `Entropy`
and by `trainer.predict`, of the same loader settings, in turns. Promised: 0.95 of the speed of `predict`.
k_center: 1,000,000 x 512 float32 in 100 clusters, 1,000 labelled, 1,000 picks.
badge: 1,000,000 x (2,048 features, 1,000 classes) float32, 1,000 picks.

Both are timed beside a plain loop, which reads the pool once a pick: 50 picks of it, prolonged to all. What
a copy of a large tensor reaches is taken for the device's bandwidth. The floor of the plain loop is reading
the pool once a pick, that of ours reading it once; `kernels` are the operations that were launched.
`--device cpu` only shows that the script runs.
"""

from __future__ import annotations

import argparse
import logging
import os
import platform
import shutil
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning as L
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.data import DataLoader, Dataset

from lightning_al import ActiveDataModule, query
from lightning_al import acquisition as acq
from lightning_al.functional import badge, k_center_greedy
from lightning_al.functional.arithmetic import exact_arithmetic

NEEDED = 0.95
LABELED, PLAIN = 1000, 50


@dataclass(frozen=True)
class Sizes:
    """How much is done."""

    images: int = 16_384
    pixels: int = 224
    batch: int = 256
    runs: int = 5
    rows: int = 1_000_000
    picks: int = 1000
    copied: int = 2**32  # bytes


QUICK = Sizes(images=24, pixels=32, batch=8, runs=1, rows=3000, picks=60, copied=2**22)


def clock(device: torch.device, work: Callable[[], Any]) -> tuple[float, Any]:
    """Seconds until the device has done it, and what came of it."""
    wait = torch.cuda.synchronize if device.type == "cuda" else lambda: None
    wait()
    begun = time.perf_counter()
    found = work()
    wait()
    return time.perf_counter() - begun, found


def bandwidth(device: torch.device, size: int) -> float:
    """Bytes a second that a copy reads and writes."""
    source = torch.empty(size // 4, device=device)
    target = torch.empty_like(source)
    target.copy_(source)
    seconds = min(clock(device, lambda: target.copy_(source))[0] for _ in range(5))
    return 2 * source.nbytes / seconds


def described(device: torch.device) -> str:
    """The machine."""
    said = f"{platform.machine()}, Python {platform.python_version()}, torch {torch.__version__}"
    if device.type != "cuda":
        return f"{device}; {said}"
    driver = "unknown"
    if shutil.which("nvidia-smi"):
        command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
        driver = subprocess.run(command, capture_output=True, text=True, check=False).stdout.split("\n")[0]
    memory = torch.cuda.get_device_properties(device).total_memory / 2**30
    name = torch.cuda.get_device_name(device)
    return f"{name}, {memory:.0f} GiB, driver {driver}, CUDA {torch.version.cuda}; {said}"


# ---------------------------------------------------------------------- scoring


class Bottleneck(nn.Module):
    """Three convolutions and a shortcut."""

    def __init__(self, entering: int, width: int, stride: int) -> None:
        super().__init__()
        leaving = 4 * width

        def layer(before: int, after: int, size: int, stride: int = 1) -> list[nn.Module]:
            convolution = nn.Conv2d(before, after, size, stride, size // 2, bias=False)
            return [convolution, nn.BatchNorm2d(after)]

        self.way = nn.Sequential(
            *layer(entering, width, 1), nn.ReLU(inplace=True),
            *layer(width, width, 3, stride), nn.ReLU(inplace=True),
            *layer(width, leaving, 1),
        )  # fmt: skip
        same = entering == leaving and stride == 1
        self.shortcut = nn.Identity() if same else nn.Sequential(*layer(entering, leaving, 1, stride))

    def forward(self, x: Tensor) -> Tensor:
        """Images to images."""
        return (self.way(x) + self.shortcut(x)).relu_()


class ResNet50(L.LightningModule):
    """He et al., "Deep Residual Learning for Image Recognition", 2016, table 1; on bytes."""

    def __init__(self) -> None:
        super().__init__()
        parts: list[nn.Module] = [
            nn.Conv2d(3, 64, 7, 2, 3, bias=False), nn.BatchNorm2d(64), nn.ReLU(inplace=True),
            nn.MaxPool2d(3, 2, 1),
        ]  # fmt: skip
        entering = 64
        for width, count in ((64, 3), (128, 4), (256, 6), (512, 3)):
            for number in range(count):
                stride = 2 if number == 0 and width > 64 else 1
                parts.append(Bottleneck(entering, width, stride))
                entering = 4 * width
        self.net = nn.Sequential(*parts, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(2048, 1000))
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def forward(self, x: Tensor) -> Tensor:
        """Images to logits."""
        x = x.contiguous(memory_format=torch.channels_last)
        return self.net(x.to(self.dtype).div_(255))  # type: ignore[no-any-return]

    def predict_step(self, batch: Any, batch_idx: int) -> Tensor:
        """As the Trainer does it."""
        return self(batch[0])


class Images(Dataset[Any]):
    """Random ones in memory, a batch at a time."""

    def __init__(self, count: int, pixels: int) -> None:
        generator = torch.Generator().manual_seed(0)
        self.images = torch.randint(256, (count, 3, pixels, pixels), generator=generator, dtype=torch.uint8)

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.images[index], 0

    def __getitems__(self, indices: list[int]) -> list[tuple[Tensor, int]]:
        return [(image, 0) for image in self.images[indices]]


def workers_for(sizes: Sizes) -> int:
    """Processes that load: as many as have cores and room for the batches that they hand over."""
    shared = Path("/dev/shm")
    room = shutil.disk_usage(shared).free if shared.is_dir() else 0
    return (
        0 if sizes is QUICK else min(8, os.cpu_count() or 1, room // (4 * 3 * sizes.batch * sizes.pixels**2))
    )


def scoring(device: torch.device, sizes: Sizes, workers: int) -> None:
    """A line for each precision."""
    print(f"\n{workers} processes load")
    print("scoring        images  query, images/s  predict, images/s  ratio (at least 0.95)", flush=True)
    pins = device.type == "cuda"
    torch.manual_seed(0)
    module = ResNet50()
    samples = Images(sizes.images, sizes.pixels)
    with tempfile.TemporaryDirectory() as folder:
        data = ActiveDataModule(
            samples, initial=1, batch_size=sizes.batch, pool_batch_size=sizes.batch, state_dir=folder,
            num_workers=workers, pin_memory=pins,
        )  # fmt: skip
        loader = DataLoader(samples, sizes.batch, num_workers=workers, pin_memory=pins)
        for precision in ("bf16-mixed", "32-true"):
            trainer = L.Trainer(
                accelerator="gpu" if pins else "cpu", devices=1, precision=precision, logger=False,
                enable_progress_bar=False, enable_model_summary=False, enable_checkpointing=False,
            )  # fmt: skip

            def ask(trainer: L.Trainer = trainer) -> None:
                query(module, data, acq.Entropy(), 1000, trainer=trainer)

            def predict(trainer: L.Trainer = trainer) -> None:
                trainer.predict(module, loader)

            ask(), predict()  # kernels are chosen
            pairs = [(clock(device, ask)[0], clock(device, predict)[0]) for _ in range(sizes.runs)]
            asked, predicted = (statistics.median(column) for column in zip(*pairs, strict=True))
            print(
                f"{precision:>12} {sizes.images:8,} {sizes.images / asked:16,.0f}"
                f" {sizes.images / predicted:18,.0f} {predicted / asked:6.3f}"
                f"{'' if predicted / asked >= NEEDED else '  LESS THAN PROMISED'}",
                flush=True,
            )


# ---------------------------------------------------------------------- choosing


def embeddings(rows: int, width: int, device: torch.device, seed: int = 0) -> Tensor:
    """100 clusters in 20 dimensions through one random layer, with noise of full rank; part by part."""
    generator = torch.Generator(device).manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, device=device)

    layer, middles = normal(20, width) / 20**0.5, normal(100, 20)
    made = torch.empty(rows, width, device=device)
    for part in made.split(50_000):
        of = torch.randint(100, (len(part),), generator=generator, device=device)
        torch.mm(middles[of] + 0.3 * normal(len(part), 20), layer, out=part)
        part.relu_().add_(normal(*part.shape), alpha=0.1)
    return made


def probabilities(rows: Tensor, classes: int) -> Tensor:
    """Of a random linear layer; part by part."""
    generator = torch.Generator(rows.device).manual_seed(1)
    head = torch.randn(rows.shape[1], classes, generator=generator, device=rows.device)
    made = rows.new_empty(len(rows), classes)
    for given, part in zip(rows.split(50_000), made.split(50_000), strict=True):
        torch.softmax(3 * given @ head / rows.shape[1] ** 0.5, 1, out=part)
    return made


@exact_arithmetic()
def plain_k_center(rows: Tensor, labeled: Tensor, picks: int) -> None:
    """All distances at every pick; those to the labelled rows are made by the first ones, as many picks."""
    squares = torch.cat([part.square().sum(1) for part in rows.split(50_000)])
    nearest = torch.full_like(squares, torch.inf)
    last = labeled[0]
    for _ in range(picks):
        distance = torch.addmv(squares, rows, last, alpha=-2)
        torch.minimum(nearest, distance.add_(last.square().sum()), out=nearest)
        last = rows[nearest.argmax()]


@exact_arithmetic()
def plain_badge(residuals: Tensor, rows: Tensor, picks: int) -> None:
    """All distances at every pick, of factors that are there."""
    squares = torch.linalg.vecdot(residuals, residuals) * torch.linalg.vecdot(rows, rows)
    nearest, last = torch.full_like(squares, torch.inf), squares.argmax()
    for _ in range(picks):
        distance = (rows @ rows[last]).mul_(residuals @ residuals[last]).mul_(-2)
        torch.minimum(nearest, distance.add_(squares).add_(squares[last]).clamp_min_(0), out=nearest)
        sums = nearest.cumsum(0, dtype=torch.float64)
        last = torch.searchsorted(
            sums, torch.rand(1, dtype=torch.float64, device=rows.device) * sums[-1]
        ).clamp_max(len(rows) - 1)[0]


class Kernels(TorchDispatchMode):
    """Counts operations that do more than look at a tensor in another way."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += not func.is_view
        return func(*args, **(kwargs or {}))


def choosing(
    name: str, device: torch.device, sizes: Sizes, speed: float, given: int, ours: Any, plain: Any
) -> None:
    """A line: `given` bytes are read by a pick of the plain loop."""
    on_gpu = device.type == "cuda"
    few = min(PLAIN, sizes.picks)
    ours(), plain(2)
    if on_gpu:
        torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device) if on_gpu else 0
    seconds = [clock(device, ours)[0] for _ in range(sizes.runs)]
    memory = torch.cuda.max_memory_allocated(device) - before if on_gpu else 0
    with Kernels() as kernels:
        ours()
    begun, done = (clock(device, lambda picks=picks: plain(picks))[0] for picks in (few // 5, few))
    slow = done + (done - begun) / (few - few // 5) * (sizes.picks - few)
    once = given / speed
    middle = statistics.median(seconds)
    print(
        f"{name:>9} {sizes.rows:9,} {sizes.picks:6,} {middle:8.3f} {once:8.4f} {middle / once:7.0f}x"
        f" {slow:9.3f} {sizes.picks * once:8.3f} {slow / middle:6.1f}x {kernels.count:9,}"
        f" {f'{memory / 2**20:9,.0f}' if on_gpu else 'unknown':>9} {given / 2**20:9,.0f}",
        flush=True,
    )


def choices(device: torch.device, sizes: Sizes, parts: list[str]) -> None:
    """The table of selections."""
    speed = bandwidth(device, sizes.copied)
    print(f"\na copy of {sizes.copied / 2**30:.3g} GiB reads and writes {speed / 1e9:,.0f} GB/s")
    print(
        "choosing       rows  picks   ours s  floor s  of floor  plain s*  floor s   plain   kernels"
        "  extra MB   pool MB   * of 50 picks, prolonged",
        flush=True,
    )
    if "k_center" in parts:
        every = embeddings(sizes.rows + LABELED, 512, device)
        rows, labeled = every[LABELED:], every[:LABELED]
        choosing(
            "k_center", device, sizes, speed, rows.nbytes,
            lambda: k_center_greedy(rows, sizes.picks, labeled),
            lambda picks: plain_k_center(rows, labeled, picks),
        )  # fmt: skip
        del every, rows, labeled
    if "badge" in parts:
        width, classes = (2048, 1000) if sizes is not QUICK else (64, 10)
        rows = embeddings(sizes.rows, width, device)
        probs = probabilities(rows, classes)

        def plain(picks: int) -> None:
            probs.scatter_add_(1, labels, minus)  # in place: another pool would not fit beside it
            try:
                plain_badge(probs, rows, picks)
            finally:
                probs.scatter_add_(1, labels, -minus)

        labels = probs.argmax(1, keepdim=True)
        minus = probs.new_full(labels.shape, -1.0)
        choosing(
            "badge", device, sizes, speed, rows.nbytes + probs.nbytes,
            lambda: badge(probs, rows, sizes.picks, generator=torch.Generator().manual_seed(0)), plain,
        )  # fmt: skip


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    every = ["scoring", "k_center", "badge"]
    parser.add_argument("--quick", action="store_true", help="tiny, which only shows that it runs")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--parts", nargs="+", choices=every, default=every)
    parser.add_argument(
        "--workers", type=int, help="processes that load; 8, if there are cores and shared memory for them"
    )
    options = parser.parse_args()
    device = torch.device(options.device)
    if device.type == "cuda" and not torch.cuda.is_available():
        print("This benchmark needs an NVIDIA GPU, which torch does not find here; it has not run.")
        return
    sizes = QUICK if options.quick else Sizes()
    workers = workers_for(sizes) if options.workers is None else options.workers
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    print(described(device), flush=True)
    with torch.cuda.device(device) if device.type == "cuda" else nullcontext():
        if "scoring" in options.parts:
            scoring(device, sizes, workers)
        if {"k_center", "badge"} & set(options.parts):
            choices(device, sizes, options.parts)


if __name__ == "__main__":
    main()

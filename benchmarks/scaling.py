"""What a round costs on several processes: time by the clock, exchanges and bytes between them.

    python benchmarks/scaling.py [--quick] [--ranks 1 2] [--rows 10000 200000] [--runs 5]

Selection: rows of 512 numbers in 100 clusters, held by the processes in blocks of 1,000 as scoring
leaves them, 1,000 labelled; `k_center_greedy` (5,000 picks of 200,000 rows and more, else 1,000),
`badge` (10 classes, 1,000 picks), `top_k` and `power_sample`. Scoring: a small convolutional network
over images by `ActiveLearning`'s own loop under `ddp`. One thread a process, gloo, medians of runs; the
clock starts when all are ready and stops when the last one is done. Exchanges are collectives (each
`Shard.gather` is two); bytes are what a process sends. Promised: on two processes scoring 1.8 times as
fast as on one, `k_center_greedy` of 200,000 rows and 5,000 picks 1.4 times, at most 0.2 exchanges a
pick, and bytes a pick that do not grow with the pool. More processes than cores share these: their times
say nothing, their exchanges do.
"""

from __future__ import annotations

import argparse
import math
import os
import platform
import socket
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import torch
import torch.distributed as dist
from k_center import pool
from torch import Tensor, multiprocessing, nn
from torch.utils.data import TensorDataset

from lightning_al import functional as F
from lightning_al.functional import Shard

BLOCK = 1000

Select = Callable[[Tensor, Tensor, int, Shard], Tensor]


def k_center(rows: Tensor, labeled: Tensor, query_size: int, shard: Shard) -> Tensor:
    """Rows far from each other."""
    return F.k_center_greedy(rows, query_size, labeled, shard=shard)


def badge(rows: Tensor, labeled: Tensor, query_size: int, shard: Shard) -> Tensor:
    """Large gradients; the probabilities are made of the rows."""
    probs = (rows[:, :10] * 0.3).softmax(1)
    return F.badge(probs, rows, query_size, generator=torch.Generator().manual_seed(0), shard=shard)


def top_k(rows: Tensor, labeled: Tensor, query_size: int, shard: Shard) -> Tensor:
    """Highest scores."""
    return F.top_k(rows[:, 0], query_size, shard=shard)


def power_sample(rows: Tensor, labeled: Tensor, query_size: int, shard: Shard) -> Tensor:
    """Higher scores rather."""
    generator = torch.Generator().manual_seed(0)
    scores = rows[:, 0].abs()
    return F.power_sample(scores, query_size, generator=generator, shard=shard, return_scores=True)[0]


SELECTIONS: dict[str, Select] = {
    "k_center_greedy": k_center,
    "badge": badge,
    "top_k": top_k,
    "power_sample": power_sample,
}


class Counted(Shard):
    """A shard that counts what it exchanges."""

    exchanges = 0
    sent = 0

    def gather(self, tensor: Tensor, counts: Sequence[int] | None = None) -> Tensor:
        """As it is, counted; in a round, ranks tell how many rows each has even if all know."""
        if self.world_size > 1:
            if counts is None:
                counts = super().gather(torch.tensor([len(tensor)]), [1] * self.world_size).tolist()
            Counted.exchanges += 2  # how many rows each has, then these, as many as the rank that has most
            Counted.sent += 8 + max(counts) * tensor.element_size() * math.prod(tensor.shape[1:])
        return super().gather(tensor, counts)

    def gather_objects(self, value: Any) -> list[Any]:
        """As it is, counted; torch tells lengths first here, too."""
        if self.world_size > 1:
            Counted.exchanges += 2
            Counted.sent += 8 + 128
        return super().gather_objects(value)


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def _rank(rank: int, world: int, port: int, name: str, rows: int, picks: int, runs: int, found: Any) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=world)
    every, labeled = pool(rows)
    cut = Shard.blocks(rows, BLOCK, rank=rank, world_size=world)
    mine = every[cut.positions].clone()
    del every
    shard = Counted(cut.positions, rows, dist.group.WORLD if world > 1 else None)
    SELECTIONS[name](mine[:0], labeled, 1, Counted(cut.positions[:0], 0, shard.group))
    seconds, chosen = [], torch.empty(0)
    for _ in range(runs):
        Counted.exchanges = Counted.sent = 0
        dist.barrier()
        begun = time.perf_counter()
        chosen = SELECTIONS[name](mine, labeled, picks, shard)
        dist.barrier()
        seconds.append(time.perf_counter() - begun)
    if rank == 0:
        found.put((statistics.median(seconds), Counted.exchanges, Counted.sent, hash(tuple(chosen.tolist()))))
    dist.barrier()
    dist.destroy_process_group()


def on_ranks(world: int, work: Callable[..., None], *arguments: Any) -> Any:
    """What rank 0 of so many processes found."""
    context = multiprocessing.get_context("spawn")
    found = context.SimpleQueue()
    started = multiprocessing.start_processes(
        work, args=(world, _free_port(), *arguments, found), nprocs=world, join=False, start_method="spawn"
    )
    while not started.join():
        pass
    return found.get()


def selection(rows: int, worlds: list[int], runs: int) -> None:
    """A line for each selection and number of processes."""
    for name in SELECTIONS:
        picks = 5000 if name == "k_center_greedy" and rows >= 200_000 else min(1000, rows // 5)
        alone: tuple[float, int] | None = None
        for world in worlds:
            seconds, exchanges, sent, picked = on_ranks(world, _rank, name, rows, picks, runs)
            alone = alone or (seconds, picked)
            print(
                f"{name:>16} {rows:9,} {picks:6,} {world:5} {seconds:8.3f} {alone[0] / seconds:6.2f}x"
                f" {exchanges / picks:10.3f} {sent / picks:12,.0f}  {'yes' if picked == alone[1] else 'NO'}",
                flush=True,
            )


# ---------------------------------------------------------------------- scoring


def _score(rank: int, world: int, port: int, images: int, runs: int, found: Any) -> None:
    os.environ.update(
        MASTER_ADDR="127.0.0.1",
        MASTER_PORT=str(port),
        RANK=str(rank),
        LOCAL_RANK=str(rank),
        WORLD_SIZE=str(world),
    )
    torch.set_num_threads(1)
    import lightning as L

    from lightning_al import ActiveDataModule, ActiveLearning
    from lightning_al import acquisition as acq

    class Net(L.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            widths = (3, 32, 64, 64)
            layers = [
                layer
                for before, width in pairwise(widths)
                for layer in (nn.Conv2d(before, width, 3, 2, 1), nn.BatchNorm2d(width), nn.ReLU())
            ]
            self.net = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10))

        def forward(self, x: Tensor) -> Any:
            return self.net(x)

        def training_step(self, batch: Any, batch_idx: int) -> Tensor:
            return nn.functional.cross_entropy(self(batch[0]), batch[1])

        def configure_optimizers(self) -> Any:
            return torch.optim.SGD(self.parameters(), 0.01)

    torch.manual_seed(0)
    samples = TensorDataset(torch.randn(images, 3, 32, 32), torch.randint(10, (images,)))
    seconds = []
    with tempfile.TemporaryDirectory() as folder:
        data = ActiveDataModule(samples, initial=64, batch_size=32, pool_batch_size=128, state_dir=folder)
        for _ in range(runs):
            active = ActiveLearning(acq.Margin(), query_size=10)
            L.Trainer(
                accelerator="cpu", devices=world, strategy="ddp" if world > 1 else "auto", max_steps=2,
                logger=False, enable_checkpointing=False, enable_progress_bar=False,
                enable_model_summary=False, callbacks=[active],
            ).fit(Net(), datamodule=data)  # fmt: skip
            seconds.append(active.row["score_s"])
    if rank == 0:
        found.put(statistics.median(seconds))
    if dist.is_initialized():
        dist.barrier()
        dist.destroy_process_group()


def scoring(images: int, worlds: list[int], runs: int) -> None:
    """A line for each number of processes."""
    alone = 0.0
    for world in worlds:
        seconds = on_ranks(world, _score, images, runs)
        alone = alone or seconds
        print(
            f"{'scoring':>16} {images:9,} {'':6} {world:5} {seconds:8.3f} {alone / seconds:6.2f}x", flush=True
        )


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="5,000 rows, one run")
    parser.add_argument("--ranks", type=int, nargs="+", default=[1, 2, 4])
    parser.add_argument("--rows", type=int, nargs="+", default=[10_000, 50_000, 200_000, 1_000_000])
    parser.add_argument("--runs", type=int, default=5)
    options = parser.parse_args()
    rows, runs = ([5000], 1) if options.quick else (options.rows, options.runs)
    print(
        f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}, "
        f"torch {torch.__version__}"
    )
    print("                      rows  picks ranks  seconds  speed  exchanges  bytes a pick  same picks")
    scoring(2000 if options.quick else 10_000, options.ranks, runs)
    for count in rows:
        selection(count, options.ranks, runs)


if __name__ == "__main__":
    main()

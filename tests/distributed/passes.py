"""Rounds that ask by several passes over each sample: each of the ways in which processes are started.

Training changes no weight, so that every number of processes has the same ones to score.
"""

import sys
from functools import partial
from multiprocessing import set_forkserver_preload
from multiprocessing.context import ForkServerProcess, SpawnProcess
from pathlib import Path

import torch
from integration.small import FEATURES, Net, blobs, quiet
from lightning.pytorch.strategies import ModelParallelStrategy

from distributed.launch import note
from lightning_al import ActiveDataModule, ActiveLearning, Committee, MCDropout, fit_rounds
from lightning_al import acquisition as acq
from lightning_al.inference.sharded import FSDPModule

try:
    from torch.distributed.fsdp import fully_shard
except ImportError:  # before torch 2.6
    from torch.distributed._composable.fsdp import fully_shard

STRATEGIES = {
    "committee": lambda: acq.BALD(Committee(3)),
    "bald": lambda: acq.BALD(MCDropout(5)),
    "batch_bald": lambda: acq.BatchBALD(MCDropout(5), num_joint_samples=200),
    "vote_entropy": lambda: acq.VoteEntropy(MCDropout(5, consistent=False)),
}
#: Samples a block: all ranks have some, or all but one have none.
BLOCKS = {"uneven": 8, "empty": 64}


class Drifting(Net):
    """Its buffers are others on every rank when it is scored."""

    def __init__(self):
        super().__init__(lr=0.0, dropout=0.3)
        self.register_buffer("order", torch.arange(FEATURES))

    def forward(self, x):
        return super().forward(x[:, self.order])

    def on_train_end(self):
        self.order.copy_(self.order.roll(self.global_rank))


class Sharded(Drifting):
    """Its layers are sharded one by one."""

    def configure_model(self):
        if not isinstance(self.net, FSDPModule):
            fully_shard(self.net[0])
            fully_shard(self.net)


def rounds(folder, name, blocks, kind=Drifting, **options):
    """One query, and training on its labels."""

    def make(number):
        strategy = options.get("strategy", "auto")
        return quiet(max_epochs=1, **{**options, "strategy": strategy() if callable(strategy) else strategy})

    torch.manual_seed(0)
    data = ActiveDataModule(
        blobs(65), initial=12, batch_size=2, pool_batch_size=BLOCKS[blocks],
        state_dir=folder / blocks / name,
    )  # fmt: skip
    active = ActiveLearning(STRATEGIES[name](), query_size=8)
    return fit_rounds(kind(), make, data, active, rounds=1)


def anew(strategy):
    """By strategies that start their processes for every fit."""
    # By forks of a server that has imported everything, which is quicker; learning_loss.py truly spawns.
    set_forkserver_preload(["distributed.scenes"])
    SpawnProcess._Popen = staticmethod(ForkServerProcess._Popen)
    for name in STRATEGIES:
        rounds(Path(), name, "uneven", devices=2, strategy=strategy)


def sharded(devices):
    """Each process with a part of every weight."""
    strategy = partial(ModelParallelStrategy, data_parallel_size=devices, tensor_parallel_size=1)
    for blocks in BLOCKS:
        for name in STRATEGIES:
            try:
                rounds(Path(), name, blocks, Sharded, devices=devices, strategy=strategy)
            except Exception as error:
                note(f"{blocks}_{name}", f"{type(error).__name__}: {error}")


if __name__ == "__main__":
    how, devices = sys.argv[1], int(sys.argv[2])
    if how == "sharded":
        sharded(devices)
    elif how == "ddp":
        for blocks in BLOCKS:
            for name in STRATEGIES:
                rounds(Path(), name, blocks, devices=devices, strategy="ddp")
    else:
        anew(how)

"""Several processes, and all goes well: the ranks write down what they saw."""

import sys
from pathlib import Path

import torch.distributed as dist
from integration.small import blobs, margin, pool, quiet

from distributed.launch import note
from distributed.scenes import (
    Sometimes,
    frozen_queries,
    rounds,
    scored_once,
    seeded,
    wrong_targets,
)
from lightning_al import ActiveDataModule, fit_rounds


def everything(options):
    note("scored", scored_once(Path("scored"), options["devices"], **options))
    seen, data = wrong_targets(Path("wrong"), **options)
    note("seen", seen)
    note("wrong_digest", data.state.digest())
    note("rounds", rounds(Path("rounds"), test=True, **options))
    again = pool(Path("rounds"), test_set=blobs(21, 1))
    note("again", list(fit_rounds(seeded, lambda r: quiet(**options), again, margin(), rounds=2)))
    more = pool(Path("rounds"), test_set=blobs(21, 1))
    note("more", len(fit_rounds(seeded, lambda r: quiet(**options), more, margin(), rounds=3)))
    sometimes = ActiveDataModule(
        blobs(), unlabeled_set=blobs(30, 5), oracle=Sometimes(), batch_size=4, state_dir="sometimes"
    )
    history = fit_rounds(seeded, lambda r: quiet(**options), sometimes, margin(), rounds=2)
    note("sometimes", history.column("labeled"))


if __name__ == "__main__":
    devices = int(sys.argv[1])
    options = {"devices": devices, "strategy": "ddp"}
    note("frozen", frozen_queries(Path("frozen"), **options))
    if len(sys.argv) > 2:
        everything(options)
    note("world_size", dist.get_world_size())

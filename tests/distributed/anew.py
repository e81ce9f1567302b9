"""Strategies that start their processes anew for every fit."""

from contextlib import suppress
from multiprocessing import set_forkserver_preload
from multiprocessing.context import ForkServerProcess, SpawnProcess
from pathlib import Path

from distributed.launch import note
from distributed.scenes import EnoughError, committee_rounds, rounds

if __name__ == "__main__":
    # By forks of a server that has imported everything, which is quicker; learning_loss.py truly spawns.
    set_forkserver_preload(["distributed.scenes"])
    SpawnProcess._Popen = staticmethod(ForkServerProcess._Popen)
    for strategy in ("ddp_fork", "ddp_spawn"):
        history = rounds(Path(strategy), test=strategy == "ddp_fork", devices=2, strategy=strategy)
        note(strategy, [{k: v for k, v in row.items() if v == v} for row in history])
    options = {"devices": 2, "strategy": "ddp_fork"}
    history = committee_rounds(Path("ddp_fork_committee"), test=True, **options)
    note("committee", [{k: v for k, v in row.items() if v == v} for row in history])
    with suppress(EnoughError):
        committee_rounds(Path("ddp_spawn_committee"), test=False, last=0, devices=2, strategy="ddp_spawn")

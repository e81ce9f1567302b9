"""Strategies that start their processes anew for every fit."""

from pathlib import Path

from distributed.launch import note
from distributed.scenes import committee_rounds, rounds

if __name__ == "__main__":
    for strategy in ("ddp_fork", "ddp_spawn"):
        history = rounds(Path(strategy), test=strategy == "ddp_fork", devices=2, strategy=strategy)
        note(strategy, [{k: v for k, v in row.items() if v == v} for row in history])
        test = strategy == "ddp_fork"
        history = committee_rounds(Path(f"{strategy}_committee"), test=test, devices=2, strategy=strategy)
        note(f"{strategy}_committee", [{k: v for k, v in row.items() if v == v} for row in history])

"""What the ledger costs: labels to disk, opening with many samples and labels, importing a large table.

    python benchmarks/ledger.py

A pool of 1,000,000 samples of which 100,000 were asked for and labelled (200,000 events), with and without
ids. Each figure is the best of several runs, by the clock and in processor time: on a busy machine the clock
tells of the others.
"""

from __future__ import annotations

import argparse
import csv
import platform
import sqlite3
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset

from lightning_al import ActiveDataModule
from lightning_al.exchange import collect, read_csv
from lightning_al.ledger import Book, Event, Ledger

QUERIES = 10


class Numbers(Dataset[Any]):
    """As many samples as wanted, none of them kept."""

    def __init__(self, size: int) -> None:
        self.size = size

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, index: int) -> tuple[torch.Tensor]:
        return (torch.tensor([float(index)]),)


def module(folder: Path, size: int, ids: list[str] | None) -> ActiveDataModule:
    """A run whose labels come from people."""
    return ActiveDataModule(
        Numbers(size), oracle="people", ids=ids, class_names=[str(c) for c in range(10)], state_dir=folder
    )


def fill(folder: Path, size: int, labels: int, ids: list[str] | None) -> None:
    """A ledger with queries and their labels."""
    data = module(folder, size, ids)
    data.book.attach()
    chosen = np.random.default_rng(0).permutation(size)[:labels]
    for number, part in enumerate(np.array_split(chosen, QUERIES)):
        events = [
            Event("asked", i, None if ids is None else ids[i], round=number, strategy="Margin()", seed=0,
                  score=1 / (3 + rank), rank=rank)
            for rank, i in enumerate(part.tolist())
        ]  # fmt: skip
        data.ledger.append(events)
        answers = [
            Event("labeled", e.sample, e.id, value=str(e.sample % 10), who="Ada", round=number)
            for e in events
        ]
        data.ledger.append(answers)


def best(act: Callable[[], object], runs: int, before: Callable[[], object] = lambda: None) -> str:
    """Seconds by the clock and of the processor, of the quickest run."""
    found = []
    for _ in range(runs):
        before()
        clock, processor = time.perf_counter(), time.process_time()
        act()
        found.append((time.perf_counter() - clock, time.process_time() - processor))
    return f"{min(c for c, _ in found):8.3f} s  ({min(p for _, p in found):.3f} s of the processor)"


def opening(folder: Path, size: int, ids: list[str] | None, runs: int) -> None:
    """How long it takes until everything is known: with the data set, and from the ledger alone."""
    made: list[ActiveDataModule] = []

    def make() -> None:
        made[:] = [module(folder, size, ids)]

    named = "without ids" if ids is None else "with ids"
    print(f"{f'open, {named}':<34}{best(lambda: made[0].open(), runs, make)}")
    print(f"{f'ledger alone, {named}':<34}{best(lambda: Book(folder).state, runs)}")


def labelling(folder: Path, size: int, ids: list[str] | None, runs: int) -> None:
    """1,000 labels in one call, to disk."""
    data = module(folder, size, ids)
    data.open()
    free = iter(np.array_split(data.pool_indices[: 1000 * (runs + 1)], runs + 1))

    def label() -> None:
        part = next(free)
        data.label(part, part % 10, who="Ada")

    label()
    print(f"{'1,000 labels':<34}{best(label, runs)}")
    data.release()


def importing(folder: Path, size: int, rows: int, ids: list[str] | None) -> None:
    """A table of answers to samples that nobody labelled, read from the ledger alone."""
    path = folder / "answers.csv"
    book = Book(folder)
    free = np.flatnonzero(book.state.status == 0)[:rows].tolist()
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["index", "label"] if ids is None else ["id", "label"])
        writer.writerows([i if ids is None else ids[i], i % 10] for i in free)

    def take() -> None:
        fresh = Book(folder)
        assert fresh.take(collect(fresh, read_csv(path), path, who="Ada")) == rows

    named = "without ids" if ids is None else "with ids"
    print(f"{f'{rows:,} rows of a CSV, {named}':<34}{best(take, 1)}")
    print(f"{'the same again, nothing new':<34}", end="")
    again = Book(folder)
    print(best(lambda: again.take(collect(again, read_csv(path), path, who="Ada")), 1))


def main() -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--size", type=int, default=1_000_000)
    parser.add_argument("--labels", type=int, default=100_000)
    parser.add_argument("--runs", type=int, default=5)
    options = parser.parse_args()
    print(f"{platform.machine()}, Python {platform.python_version()}, SQLite {sqlite3.sqlite_version}")
    for ids in (None, [f"scans/2026/{i:09}.png" for i in range(options.size)]):
        with tempfile.TemporaryDirectory() as place:
            folder = Path(place) / "run"
            fill(folder, options.size, options.labels, ids)
            print(f"{'file':<34}{Ledger(folder / 'ledger.sqlite3').path.stat().st_size / 1e6:8.1f} MB")
            opening(folder, options.size, ids, options.runs)
            labelling(folder, options.size, ids, options.runs)
            importing(folder, options.size, options.labels, ids)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())

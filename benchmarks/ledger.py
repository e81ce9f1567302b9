"""What the ledger costs: labels to disk, opening with many samples and labels, importing a large table.

    python benchmarks/ledger.py

A pool of 1,000,000 samples of which 100,000 were asked for and labelled (200,000 events), with and without
ids. Each figure is the best of several runs, by the clock and in processor time: on a busy machine the clock
tells of the others.
"""

from __future__ import annotations

import argparse
import csv
import json
import platform
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset

from lightning_al import ActiveDataModule
from lightning_al.exchange import collect, import_answers, read_csv, write_query
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


def formats(folder: Path, size: int, rows: int, runs: int) -> None:
    """A query out and its answers in, by every format; `lightning-al status` from a shell."""
    waiting = np.random.default_rng(1).permutation(size)[:rows].tolist()
    first = [
        Event("asked", i, round=0, rank=rank, strategy="Margin()", score=0.5)
        for rank, i in enumerate(waiting)
    ]
    meta = {
        "size": size, "samples": size, "names": None, "fingerprint": "x", "label_kind": "class",
        "class_names": [str(c) for c in range(10)],
    }  # fmt: skip
    shown = {rank: {"text": f"text {rank}"} for rank in range(rows)}
    whole = folder / "whole.sqlite3"
    Ledger(whole).create(meta, first, shown=shown)
    for suffix, answered in (("csv", _answered_csv), ("jsonl", _answered_jsonl), ("json", _answered_tasks)):
        place = folder / suffix
        place.mkdir()
        shutil.copy(whole, place / "ledger.sqlite3")
        path = place / f"query.{suffix}"
        print(f"{f'{rows:,} samples to .{suffix}':<34}{best(partial(write_query, Book(place), path), 1)}")
        answered(path)
        print(f"{f'{rows:,} answers from .{suffix}':<34}{best(partial(_import, place, path, rows), 1)}")
    command = [sys.executable, "-m", "lightning_al.cli", "status", str(folder / "csv")]
    status = partial(subprocess.run, command, check=True, capture_output=True)
    print(f"{'lightning-al status':<34}{best(status, runs)}")


def _import(place: Path, path: Path, rows: int) -> None:
    assert import_answers(Book(place), path).new == rows


def _answered_csv(path: Path) -> None:
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(row | {"label": int(row["index"]) % 10} for row in rows)


def _answered_jsonl(path: Path) -> None:
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    path.write_text("".join(f"{json.dumps(row | {'label': str(row['index'] % 10)})}\n" for row in rows))


def _answered_tasks(path: Path) -> None:
    """What Label Studio exports."""
    tasks = json.loads(path.read_text())
    at = "2026-11-01T10:00:00.000000Z"
    for number, task in enumerate(tasks):
        value = {"choices": [str(int(task["data"]["lal_sample"]) % 10)]}
        result = [{"from_name": "label", "to_name": "text", "type": "choices", "value": value}]
        task["id"] = number
        task["annotations"] = [
            {"id": number, "completed_by": {"id": 1, "email": "ada@example.org"}, "created_at": at,
             "updated_at": at, "was_cancelled": False, "result": result}
        ]  # fmt: skip
    path.write_text(json.dumps(tasks))


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
    with tempfile.TemporaryDirectory() as place:
        formats(Path(place), options.size, options.labels, options.runs)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())

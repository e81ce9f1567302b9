"""The examples as processes of their own: started, read, ended, side by side."""

from __future__ import annotations

import gzip
import os
import re
import sqlite3
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from warm import Started

EXAMPLES = Path(__file__).parents[2] / "examples"
ENVIRONMENT = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONIOENCODING": "utf-8", "COLUMNS": "120"}
ENVIRONMENT.pop("LIGHTNING_AL_DATA", None)  # without it, examples take small data of their own
SECONDS = 600


def start(script: str, folder: Path, *options: str) -> Started:
    """An example that keeps its labels in `folder`, and runs beside it."""
    return started(script, folder, "--state-dir", str(folder), *options)


def started(script: str, folder: Path, *options: str) -> Started:
    """An example with just these options."""
    return Started(EXAMPLES / f"{script}.py", *options, cwd=folder.parent, env=ENVIRONMENT)


def finish(process: Started, text: str | None = None) -> str:
    """What it says until it ends, in time and well; it and all that it started are ended in any case."""
    try:
        said, _ = process.communicate(text, timeout=SECONDS)
    finally:
        process.end()
    assert process.returncode == 0, said
    return said


def run(script: str, folder: Path, *options: str) -> str:
    """What an example says."""
    return finish(start(script, folder, *options))


def rows(folder: Path, sql: str) -> list[tuple[Any, ...]]:
    """Of the ledger."""
    with closing(sqlite3.connect(folder / "ledger.sqlite3")) as db:
        return db.execute(sql).fetchall()


def table(said: str, *, metrics: int = 1) -> list[tuple[int, int, int]]:
    """The rows `round labeled asked` and metrics that an example prints at its end, but for these."""
    found = re.findall(r"^ *(\d+) +(\d+) +(\d+)" + r" +([\d.]+)" * metrics + "$", said, flags=re.MULTILINE)
    return [(int(a), int(b), int(c)) for a, b, c, *_ in found]


def uses(*names: str) -> Callable[[Any], Any]:
    """Marks a test with the jobs whose results it looks at."""

    def mark(test: Any) -> Any:
        test.jobs = names
        return test

    return mark


def published_files(folder: Path, name: str) -> str:
    """60 images to learn from and 30 to test on, in the published format: the folder that holds theirs."""
    home = folder.parent / "data" / name
    home.mkdir(parents=True)
    random = np.random.default_rng(0)
    for part, count in (("train", 60), ("t10k", 30)):
        for kind, values, shape in (
            ("images-idx3", random.integers(0, 256, (count, 28, 28)), (count, 28, 28)),
            ("labels-idx1", np.arange(count) % 10, (count,)),
        ):
            header = bytes([0, 0, 8, len(shape)]) + np.array(shape, ">i4").tobytes()
            content = gzip.compress(header + values.astype(np.uint8).tobytes())
            (home / f"{part}-{kind}-ubyte.gz").write_bytes(content)
    return str(home.parent)


@contextmanager
def side_by_side(
    jobs: dict[str, Callable[[Path], Any]], home: Path, request: pytest.FixtureRequest
) -> Iterator[Callable[[str], tuple[Any, Path]]]:
    """Those jobs that the tests of this session use, two at a time, each in a folder of its own.

    Gives a function from a job's name to what it returned, and where its ledger is.
    """
    wanted = {name for item in request.session.items for name in getattr(item.function, "jobs", ())}
    with ThreadPoolExecutor(max_workers=2) as executor:
        futures = {}
        for name, job in jobs.items():
            if name in wanted:
                (home / name).mkdir()
                futures[name] = executor.submit(job, home / name / "state")
        yield lambda name: (futures[name].result(timeout=4 * SECONDS), home / name / "state")
        executor.shutdown(cancel_futures=True)

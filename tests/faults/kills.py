"""A kill, and the process that suffers it.

A `Kill` says where (a step of `STEPS`, or at any instant), when (which call; before, within or after it) and
whom (which rank, or the whole group). `main` is one start of a run, on one rank, that may be struck by one.
The runs are started, killed and judged in command.py; which kills there are is in plans.py.
"""

from __future__ import annotations

import ctypes
import json
import os
import resource
import signal
import sqlite3
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial, wraps
from pathlib import Path
from typing import Any, NamedTuple

import lightning as L
import torch
from integration.small import blobs, margin, pool, quiet
from lightning.pytorch.callbacks import ModelCheckpoint

import lightning_al.callbacks.active_learning as callback_file
from faults.runs import Slowed, seeded
from lightning_al import History, Ledger, fit_rounds
from lightning_al.callbacks.weights import StoredWeights
from lightning_al.data.labelling import Labelling
from lightning_al.stopping import StablePredictions
from lightning_al.stopping.judging import Stopping

ROUNDS = 2
INSTANT = "any instant"
#: Who labels; "stopping": the data set, until a criterion ends the rounds.
SCENES = ("dataset", "people", "stopping")


@dataclass(frozen=True)
class Kill:
    """`kill -9` of a process of a run.

    Args:
        start: Of which start of the command, 0 first.
        step: Where: a name of `STEPS`, or `INSTANT`.
        moment: "before", "within" or "after" the call.
        call: Which call of the step, 1 first.
        victim: Which rank; -1 is all of them.
        seconds: After the beginning of the start, or of the call for "within".
        room: Instead of being killed, none of its files grows beyond so many bytes, as on a full disk.
    """

    start: int
    step: str
    moment: str = "before"
    call: int = 1
    victim: int = -1
    seconds: float = 0.0
    room: int | None = None


class Spilling(sqlite3.Connection):
    """Writes half of a transaction into the ledger before its commit, as SQLite does with large ones."""

    def execute(self, sql: str, *arguments: Any) -> sqlite3.Cursor:
        found = super().execute(sql, *arguments)
        if sql.startswith("BEGIN"):
            super().execute("PRAGMA cache_size = 1")
        return found


class Step(NamedTuple):
    """A function that a kill may hit, on which of its calls, and whether every rank calls it."""

    owner: Any
    name: str
    counts: Callable[..., bool] = lambda *args, **options: True
    everywhere: bool = False


def of_kind(kind: str) -> Callable[..., bool]:
    return lambda ledger, events, **options: any(event.kind == kind for event in events)


def into(*names: str) -> Callable[..., bool]:
    """Of replacements: those of a file in whose path one of the names is."""
    return lambda source, target, **options: any(name in str(target) for name in names)


STEPS = {
    "training": Step(Slowed, "training_step", everywhere=True),
    "checkpoint": Step(L.Trainer, "save_checkpoint", everywhere=True),
    "scoring": Step(Slowed, "active_step", everywhere=True),
    "selection": Step(callback_file, "choose", everywhere=True),
    "query commit": Step(Ledger, "append", of_kind("asked")),
    "label commit": Step(Ledger, "append", of_kind("labeled")),
    "half a commit": Step(Spilling, "execute", lambda db, sql, *more: sql == "COMMIT"),
    "test": Step(Slowed, "test_step", everywhere=True),
    "stop measured": Step(StablePredictions, "measure", everywhere=True),
    "stop set replaced": Step(os, "replace", into("stop_set")),
    "stop decision": Step(
        Stopping, "judge", lambda stopping, *more: bool(stopping.criteria), everywhere=True
    ),
    "round row": Step(Ledger, "append", lambda ledger, events, *, round_row=None, **more: bool(round_row)),
    "backup": Step(Ledger, "backup"),
    "backup replaced": Step(os, "replace", into("backups")),
    "query file replaced": Step(os, "replace", into("query_")),
    "history replaced": Step(os, "replace", into("history.csv")),
    "weights replaced": Step(os, "replace", into("weights")),
    "ledger creation": Step(Ledger, "create"),
    "owner claim": Step(Ledger, "claim"),
    "owner release": Step(Ledger, "release"),
}


#: Where a file is written whose disk may be full.
WRITERS = {
    "weights file": Step(StoredWeights, "begin"),
    "query file": Step(Labelling, "export_query"),
    "history file": Step(History, "write_csv"),
}


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def watch(name: str, act: Callable[[int, Callable[[], Any]], Any]) -> None:
    """From now on the step's calls go through `act`, with their number."""
    step, number = (STEPS | WRITERS)[name], 0
    function = getattr(step.owner, step.name)

    @wraps(function)
    def watched(*args: Any, **options: Any) -> Any:
        nonlocal number
        if not step.counts(*args, **options):
            return function(*args, **options)
        number += 1
        return act(number, partial(function, *args, **options))

    setattr(step.owner, step.name, watched)


def fill(room: int) -> None:
    """From now on the disk is as good as full."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, resource.RLIM_INFINITY))


def aim(kill: Kill) -> None:
    """This process will not survive the call; or its disk is full from then on."""
    strike = die if kill.room is None else partial(fill, kill.room)
    if kill.step == "half a commit":
        spill()

    def act(number: int, call: Callable[[], Any]) -> Any:
        if number != kill.call:
            return call()
        if kill.moment == "before":
            strike()
        if kill.moment == "within":
            threading.Timer(kill.seconds, strike).start()
        found = call()
        if kill.moment == "after":
            strike()
        return found

    watch(kill.step, act)


def be_bound() -> None:
    """Permissions bind this process from now on, also where root runs the tests."""
    if sys.platform == "linux":
        version, none = (ctypes.c_uint32 * 2)(0x20080522, 0), (ctypes.c_uint32 * 6)()
        assert ctypes.CDLL(None).capset(version, none) == 0


def spill() -> None:
    connect = sqlite3.connect
    sqlite3.connect = lambda *args, **options: connect(*args, **{"factory": Spilling, **options})


def take_times(into: dict[str, list[float]]) -> None:
    """How long every call of every step takes."""
    spill()

    def act(name: str, number: int, call: Callable[[], Any]) -> Any:
        begun = time.perf_counter()
        found = call()
        into[name].append(time.perf_counter() - begun)
        return found

    for name in STEPS:
        watch(name, partial(act, name))


def note_accepted(path: Path) -> None:
    """What may be counted on from the moment that the call which wrote it has returned."""
    append = Ledger.append

    def noted(ledger: Ledger, events: Any, **options: Any) -> None:
        append(ledger, events, **options)
        with path.open("a") as file:
            file.writelines(f"{e.sample} {e.value}\n" for e in events if e.kind == "labeled")
            file.flush()
            os.fsync(file.fileno())

    Ledger.append = noted  # type: ignore[method-assign]


def trainer(number: int, *, processes: int) -> L.Trainer:
    several = {} if processes == 1 else {"devices": processes, "strategy": "ddp"}
    checkpoint = ModelCheckpoint(save_top_k=-1, filename="{epoch}")
    return quiet(max_epochs=2, enable_checkpointing=True, callbacks=[checkpoint], **several)


def main(
    folder: Path, scene: str, told: dict[str, str], processes: int, rank: int, start: int, kill: Kill | None,
    timed: bool,
) -> None:  # fmt: skip
    """One start of the command, on one rank."""
    os.setsid()
    be_bound()
    os.environ.update(told)
    log = os.open(folder / f"said_{rank}.txt", os.O_CREAT | os.O_WRONLY | os.O_APPEND)
    for number in (1, 2):
        os.dup2(log, number)
    sys.stdout, sys.stderr = (open(n, "w", buffering=1, closefd=False) for n in (1, 2))  # noqa: SIM115
    os.chdir(folder)
    times: dict[str, list[float]] = defaultdict(list)
    note_accepted(folder / "accepted")
    if timed:
        take_times(times)
    if kill is not None and kill.step != INSTANT and rank == max(kill.victim, 0):
        aim(kill)
    people = {"oracle": "people"} if scene == "people" else {}
    # Predictions of round 1 agree with those of round 0 so far, so that no second query is made.
    stop = StablePredictions(0.01, rounds=1) if scene == "stopping" else None
    active = margin(restart="warm" if people else "initial")
    data = pool(folder / "state", test_set=blobs(21, 1), **people)
    try:
        fit_rounds(seeded, partial(trainer, processes=processes), data, active, rounds=ROUNDS, stop=stop)
    finally:
        fill(resource.RLIM_INFINITY)  # to say what was wrong
    (folder / f"times_{start}_{rank}.json").write_text(json.dumps(times))
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()

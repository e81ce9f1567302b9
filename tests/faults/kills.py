"""A kill, and a run that suffers it, goes on, and is compared with one that was left alone.

A `Kill` says where (a step of `STEPS`, or at any instant), when (which call; before, within or after it) and
whom (which rank, or the whole group). A `Command` is started until it has nothing left to do; `suffer` kills
some of its starts. What must hold after that is in `verdict`.
"""

from __future__ import annotations

import csv
import ctypes
import json
import os
import random
import resource
import signal
import sqlite3
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial, wraps
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any, NamedTuple

import lightning as L
import torch
from distributed.launch import in_session, told_to
from integration.small import blobs, margin, pool, quiet
from lightning.pytorch.callbacks import ModelCheckpoint
from warm import server

import lightning_al.callbacks.active_learning as callback_file
from faults.runs import Slowed, known, seeded
from lightning_al import History, Ledger, fit_rounds
from lightning_al.callbacks.weights import StoredWeights
from lightning_al.data.labelling import Labelling

ROUNDS, LIMIT, GRACE = 2, 120, 1.0
INSTANT = "any instant"
SCENES = ("dataset", "people")
TIMES = ("train_s", "score_s", "select_s")


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


# ---------------------------------------------------------------- in the process that is killed


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
    active = margin(restart="warm" if people else "initial")
    data = pool(folder / "state", test_set=blobs(21, 1), **people)
    try:
        fit_rounds(seeded, partial(trainer, processes=processes), data, active, rounds=ROUNDS)
    finally:
        fill(resource.RLIM_INFINITY)  # to say what was wrong
    (folder / f"times_{start}_{rank}.json").write_text(json.dumps(times))
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


# ---------------------------------------------------------------- beside it


class RunFailedError(AssertionError):
    """A start ended as it should not; with what it said."""


@dataclass
class Command:
    """One command line, for one state directory.

    Args:
        folder: Where it runs.
        scene: Who labels, a name of `SCENES`.
        processes: How many.
    """

    folder: Path
    scene: str
    processes: int
    starts: int = 0
    seconds: list[float] = field(default_factory=list)

    @property
    def state(self) -> Path:
        return self.folder / "state"

    def suffer(self, kills: list[Kill], *, timed: bool = False) -> list[Kill]:
        """Start until nothing is left to do; the kills that took place."""
        due, done = {kill.start: kill for kill in kills}, []
        while True:
            kill = due.get(self.starts)
            killed = self.start(kill, timed=timed)
            if killed and kill is not None:
                done.append(kill)
                self.check_accepted()
            if not self.annotate() and not killed:
                return done
            assert self.starts < 40, f"{self.folder}: it never comes to an end"

    def start(self, kill: Kill | None = None, *, timed: bool = False) -> bool:
        """Start all ranks once; whether they were killed."""
        self.folder.mkdir(parents=True, exist_ok=True)
        told = told_to(self.processes, "hand") if self.processes > 1 else [{}]
        context = server()  # which takes its time to begin
        begun = time.monotonic()
        ranks = [
            context.Process(
                target=main,
                args=(self.folder, self.scene, told[rank], self.processes, rank, self.starts, kill, timed),
            )
            for rank in range(self.processes)
        ]
        for process in ranks:
            process.start()
        self.starts += 1
        try:
            return self._end(ranks, kill)
        finally:
            self.seconds.append(time.monotonic() - begun)
            for process in ranks:
                end(process)

    def _end(self, ranks: list[Any], kill: Kill | None) -> bool:
        sentinels = [process.sentinel for process in ranks]
        if kill is not None and kill.step == INSTANT:
            wait(sentinels, kill.seconds)
            for rank, process in enumerate(ranks):
                if kill.victim in (-1, rank):
                    process.kill()
        until = time.monotonic() + LIMIT
        while sentinels and all(process.exitcode in (None, 0) for process in ranks):
            ended = wait(sentinels, max(0, until - time.monotonic()))
            if not ended:
                raise self._failed("hangs")
            sentinels = [sentinel for sentinel in sentinels if sentinel not in ended]
        if all(process.exitcode == 0 for process in ranks):
            return False
        if kill is not None:  # a rank that misses the victim may have ended before it
            wait([ranks[max(kill.victim, 0)].sentinel], GRACE)
        full = kill is not None and kill.room is not None
        if not full and (kill is None or all(process.exitcode != -signal.SIGKILL for process in ranks)):
            raise self._failed(f"ended with status {[process.exitcode for process in ranks]}")
        if kill is not None and kill.victim >= 0:  # a job's scheduler gives the others some time
            wait([p.sentinel for p in ranks if p.exitcode is None], GRACE)
        return True

    def _failed(self, what: str) -> RunFailedError:
        said = "".join(path.read_text()[-3000:] for path in sorted(self.folder.glob("said_*.txt")))
        return RunFailedError(f"{self.folder}, start {self.starts}: {what}; it said\n{said}")

    def said(self) -> str:
        """The last that the last start said: what the user is told."""
        return (self.folder / "said_0.txt").read_text().strip().rpartition("\n")[2]

    def refused(self) -> str:
        """Start; it is to end with an error, and this is what it tells the user."""
        try:
            self.start()
        except RunFailedError:
            return self.said()
        raise AssertionError("it was not refused")

    def annotate(self, rows: int = 8) -> bool:
        """Fill in some rows of the files that ask; whether there were any."""
        truth, filled = blobs().tensors[1], False
        for path in sorted(self.state.glob("query_?.csv")):
            with path.open(newline="") as file:
                sheet = list(csv.DictReader(file))
            empty = [row for row in sheet if not row["label"]][:rows]
            for row in empty:
                row["label"] = str(int(truth[int(row["index"])]))
            if empty:
                filled = True
                with path.open("w", newline="") as file:
                    writer = csv.DictWriter(file, list(sheet[0]))
                    writer.writeheader()
                    writer.writerows(sheet)
        return filled

    def accepted(self) -> list[tuple[int, int]]:
        """Indices and targets that calls of `label` returned for."""
        path = self.folder / "accepted"
        lines = path.read_text().splitlines() if path.exists() else []
        return [(int(index), int(target)) for index, target in map(str.split, lines)]

    def labels(self) -> list[tuple[int, int]]:
        """What the ledger says was labelled, event by event; its digests all follow."""
        ledger = Ledger(self.state / "ledger.sqlite3")
        if not ledger.exists():
            return []
        return [(e.sample, json.loads(e.value)) for _, e in ledger.events() if e.kind == "labeled"]

    def check_accepted(self) -> None:
        """Nothing that was accepted may be missing, also before anything else has looked."""
        lost = set(self.accepted()) - set(self.labels())
        if lost:
            raise RunFailedError(f"{self.folder}: accepted and lost {sorted(lost)}")

    def outcome(self) -> dict[str, Any]:
        """Everything a finished run has that must not depend on what happened on the way."""
        queries, rows = known(self.state)
        with (self.state / "history.csv").open(newline="") as file:
            history = [{k: v for k, v in row.items() if k not in TIMES} for row in csv.DictReader(file)]
        return {"queries": queries, "measurements": rows, "history": history}


def end(process: Any) -> None:
    """With all that it started."""
    if process.pid is None:
        return
    process.kill()
    process.join()
    for pid in in_session(process.pid):
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


@dataclass
class Undisturbed:
    """A run that nobody disturbs: what comes out, and how long its steps take by start and rank."""

    outcome: dict[str, Any]
    seconds: list[float]
    times: dict[tuple[int, int], dict[str, list[float]]]

    @classmethod
    def of(cls, command: Command) -> Undisturbed:
        command.suffer([], timed=True)
        times = {
            (start, rank): json.loads((command.folder / f"times_{start}_{rank}.json").read_text())
            for start in range(command.starts)
            for rank in range(command.processes)
        }
        return cls(command.outcome(), command.seconds, times)


def verdict(command: Command, undisturbed: Undisturbed) -> dict[str, int]:
    """What a finished run lost, doubled, moved, or has otherwise than the undisturbed one."""
    labels, truth = command.labels(), blobs().tensors[1].tolist()
    accepted, found = set(command.accepted()), command.outcome()
    samples = [index for index, _ in labels]
    return {
        "lost": len(accepted - set(labels)),
        "doubled": len(samples) - len(set(samples)),
        "moved": sum(truth[index] != target for index, target in labels),
        **{f"{name} different": int(found[name] != undisturbed.outcome[name]) for name in found},
    }


# ---------------------------------------------------------------- which kills

#: Every step at every moment, and some at any instant, in an order in which neighbours differ.
SLOTS = [(step, moment) for step in STEPS for moment in ("before", "within", "after")]
SLOTS += [(INSTANT, "")] * 13
random.Random(0).shuffle(SLOTS)


def plan(seed: int, processes: int, undisturbed: dict[str, Undisturbed]) -> tuple[str, list[Kill]]:
    """The scene and the kills of a seed: one, or, of every fifth seed, three in three starts."""
    draw = random.Random(f"{seed} {processes}")
    step, moment = SLOTS[seed % len(SLOTS)]
    scene = draw.choice([s for s in SCENES if step == INSTANT or _places(step, undisturbed[s])])
    first = _kill(draw, step, moment, processes, undisturbed[scene])
    kills = [first]
    if seed % 5 == 4:
        for start in (first.start + 1, first.start + 2):
            step, moment = draw.choice(SLOTS)
            if step != INSTANT and not _places(step, undisturbed[scene]):
                step = INSTANT
            later = _kill(draw, step, moment, processes, undisturbed[scene], first_calls=True)
            kills.append(Kill(**{**vars(later), "start": start}))
    return scene, kills


def _places(step: str, undisturbed: Undisturbed) -> list[tuple[int, int]]:
    return [place for place, times in undisturbed.times.items() if step in times]


def _kill(
    draw: random.Random, step: str, moment: str, processes: int, undisturbed: Undisturbed,
    *, first_calls: bool = False,
) -> Kill:  # fmt: skip
    if step == INSTANT:
        start = draw.randrange(len(undisturbed.seconds))
        seconds = draw.uniform(0.02, 0.95) * undisturbed.seconds[start]
        return Kill(start, step, victim=draw.choice([-1, *range(processes)]), seconds=seconds)
    start, rank = draw.choice(_places(step, undisturbed))
    times = undisturbed.times[start, rank][step]
    call = draw.randint(1, min(len(times), 2) if first_calls else len(times))
    victim = rank if rank or draw.random() < 0.5 else -1
    seconds = draw.random() * times[call - 1] if moment == "within" else 0.0
    return Kill(start, step, moment, call, victim, seconds)

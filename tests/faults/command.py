"""A run, started until it has nothing left to do, killed on the way, and compared with one left alone."""

from __future__ import annotations

import csv
import json
import os
import signal
import time
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

from distributed.launch import in_session, told_to
from integration.small import blobs
from warm import server

from faults.kills import INSTANT, Kill, main
from faults.runs import TIMES, known
from lightning_al import Ledger

LIMIT, GRACE = 600, 1.0


class RunFailedError(AssertionError):
    """A start ended as it should not; with what it said."""


@dataclass
class Command:
    """One command line, for one state directory.

    Args:
        folder: Where it runs.
        scene: A name of `SCENES`.
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
        **{f"{name} different": int(not same(found[name], undisturbed.outcome[name])) for name in found},
    }


def same(one: Any, other: Any) -> bool:
    """To the last digit; NaN is like NaN."""
    return json.dumps(one, sort_keys=True) == json.dumps(other, sort_keys=True)

"""Starts a script that starts processes of its own, and never waits for it for ever."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ports import free_port
from warm import Started

from lightning_al.together import close_at_exit

TESTS = Path(__file__).parents[1]


close_at_exit()  # ranks that Lightning starts import this too


@dataclass
class Ended:
    """How a script ended, and what its ranks wrote down."""

    status: int
    said: str
    folder: Path
    apart: bool = False
    seconds: float = 0.0

    def notes(self, rank: int) -> dict[str, Any]:
        """What a rank wrote with `note`."""
        found, folder = {}, self.folder_of(rank)
        for path in sorted(folder.glob(f"note_{rank}_*.json")):
            found[path.stem.split("_", 2)[2]] = json.loads(path.read_text())
        return found

    def folder_of(self, rank: int) -> Path:
        """Where a rank ran."""
        return self.folder / f"rank_{rank}" if self.apart else self.folder


def launch(
    script: str, folder: Path, *arguments: str, ranks: int = 0, limit: float = 600, by: str = "hand",
    apart: bool = False,
) -> Ended:  # fmt: skip
    """Run a script of this folder in `folder`; it and all it started are killed after `limit` seconds.

    Lightning starts the other ranks, or, with `ranks`, finds as many started already, which is quicker. It
    traps SIGTERM, so nothing less than SIGKILL will do.

    Args:
        script: Its name.
        folder: Its working directory.
        arguments: Its arguments.
        ranks: How many are started at once from here; 0: one, by which Lightning starts others.
        limit: Seconds.
        by: What the ranks are told, as from `"hand"`, `"torchrun"` or `"slurm"`, or of `"nodes"` of one each.
        apart: Every rank has a working directory of its own, and sees none of the others'.
    """
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("PL_", "PYTEST_", "MASTER_"))}
    environment |= {"PYTHONPATH": str(TESTS), "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    path, started, begun = TESTS / "distributed" / script, [], time.monotonic()
    ended = Ended(0, "", folder, apart)
    for number, told in enumerate(told_to(ranks, by) if ranks else [meeting_place()]):
        home = ended.folder_of(number)
        home.mkdir(parents=True, exist_ok=True)
        hidden = {"HIDDEN": os.pathsep.join(str(ended.folder_of(n)) for n in range(ranks) if n != number)}
        own = told | (hidden if apart else {})
        started.append(Started(path, *arguments, cwd=home, env=environment | own))
    try:
        with ThreadPoolExecutor(len(started)) as readers:
            said = "".join(readers.map(lambda process: end_of(process, started, limit), started))
        left = [pid for process in started for pid in still_there(process.pid)]
        assert not left, f"{script} ended and left processes {left} behind; it said:\n{said[-4000:]}"
    except subprocess.TimeoutExpired:
        said = "".join(process.said for process in started)
        raise AssertionError(f"{script} hung for {limit} s; it said:\n{said[-4000:]}") from None
    finally:
        for process in started:
            process.end()
    ended.status = next((p.returncode for p in started if p.returncode), 0)
    ended.said, ended.seconds = said, time.monotonic() - begun
    return ended


def run_anew(*arguments: str, folder: Path, limit: float = 600, env: dict[str, str] | None = None) -> Ended:
    """Run an interpreter of its own, one that has imported nothing; all it started is killed after `limit`.

    Args:
        arguments: Python's.
        folder: Its working directory, in which it leaves what it says.
        limit: Seconds.
        env: Its environment, but for where the tests are.
    """
    environment = dict(os.environ) if env is None else env
    paths = [str(TESTS), environment.get("PYTHONPATH", "")]
    environment = environment | {"PYTHONPATH": os.pathsep.join(filter(None, paths))}
    path = folder / "said"
    with open(path, "w") as said:  # no pipe, which what it forked could keep open
        process = subprocess.Popen(
            [sys.executable, *arguments], cwd=folder, env=environment, stdout=said, stderr=said,
            start_new_session=True,
        )  # fmt: skip
        try:
            process.wait(limit)
        except subprocess.TimeoutExpired:
            text = path.read_text()[-4000:]
            raise AssertionError(f"{arguments} hung for {limit} s; it said:\n{text}") from None
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    return Ended(process.returncode, path.read_text(), folder)


def meeting_place() -> dict[str, str]:
    """Where ranks meet, in their environment; Lightning takes it too, where it starts them."""
    return {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}


def told_to(ranks: int, by: str) -> list[dict[str, str]]:
    """What who starts ranks puts into the environment of each."""
    meeting = meeting_place()
    world = {"WORLD_SIZE": str(ranks), "LOCAL_WORLD_SIZE": str(ranks), "GROUP_RANK": "0"}
    job = {
        "SLURM_JOB_ID": "7", "SLURM_JOB_NAME": "test", "SLURM_NTASKS": str(ranks), "SLURM_NODEID": "0",
        "SLURM_NTASKS_PER_NODE": str(ranks), "SLURM_NODELIST": "127.0.0.1",
    }  # fmt: skip
    told = {
        "hand": lambda n: {"NODE_RANK": "0", "LOCAL_RANK": n},
        "nodes": lambda n: {"NODE_RANK": n, "LOCAL_RANK": "0"},
        "torchrun": lambda n: {**world, "RANK": n, "LOCAL_RANK": n, "TORCHELASTIC_RUN_ID": "none"},
        "slurm": lambda n: {**job, "SLURM_PROCID": n, "SLURM_LOCALID": n},
    }[by]
    return [meeting | told(str(number)) for number in range(ranks)]


def end_of(process: Started, ranks: list[Started], limit: float) -> str:
    """What it said; the others would wait for a rank that failed."""
    said, _ = process.communicate(timeout=limit)
    if process.returncode:
        for other in ranks:
            other.kill()
    return said


def still_there(session: int, grace: float = 10) -> list[int]:
    """Processes of a session that have not ended after `grace` seconds."""
    until = time.monotonic() + grace
    while (found := in_session(session)) and time.monotonic() < until:
        time.sleep(0.05)
    return found


def in_session(session: int) -> list[int]:
    """Processes of a session that run now."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rsplit(")", 1)[1].split()
        except OSError:
            continue
        if int(fields[3]) == session and fields[0] != "Z":
            found.append(int(stat.parent.name))
    return found


def rank() -> int:
    """Of this process, as Lightning's launcher numbers them."""
    return int(os.environ.get("LOCAL_RANK", "0"))


def note(name: str, value: Any, *, of: int | None = None) -> None:
    """Write something down for the test that started the script."""
    Path(f"note_{rank() if of is None else of}_{name}.json").write_text(json.dumps(value))

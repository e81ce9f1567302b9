"""Scripts in processes that have imported torch and Lightning already, which takes longer than most of them.

They are forks of one server of this test session that has run nothing: a script finds its arguments, folder,
environment and streams as it would from a shell.
"""

from __future__ import annotations

import atexit
import os
import runpy
import select
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from multiprocessing import get_context, process
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pytest
from lightning.fabric.utilities.rank_zero import _get_rank, rank_zero_only

__all__ = ["Started", "server"]

TESTS = Path(__file__).parent
PRELOADED = ["faults.runs", "distributed.scenes", "sklearn.datasets", "sklearn.svm"]


LOCK, RUNS = threading.Lock(), threading.Event()


def server() -> Any:
    """The context whose processes are forks of the server, which has imported everything by then."""
    context = get_context("forkserver")
    with LOCK, pytest.MonkeyPatch.context() as patch:
        if not RUNS.is_set():
            patch.setenv("PYTHONPATH", str(TESTS))
            context.set_forkserver_preload(PRELOADED)
            first = context.Process(target=int)
            first.start()
            first.join()
            RUNS.set()
    return context


class Started:
    """A script at work, as `subprocess.Popen` would show it; errors are said where the rest is."""

    def __init__(self, script: Path, *arguments: str, cwd: Path, env: dict[str, str]) -> None:
        context = server()
        (stdin, to_it), (from_it, stdout) = context.Pipe(duplex=False), context.Pipe(duplex=False)
        given = (str(script), list(arguments), str(cwd), dict(env), stdin, stdout)
        self.process = context.Process(target=_run, args=given)
        self.process.start()
        stdin.close()
        stdout.close()
        self.stdin = os.fdopen(os.dup(to_it.fileno()), "w", encoding="utf-8")
        self.stdout = os.fdopen(os.dup(from_it.fileno()), "r", encoding="utf-8")
        to_it.close()
        from_it.close()
        self.args, self.pid, self.said = given[0], self.process.pid, ""

    @property
    def returncode(self) -> int | None:
        return self.process.exitcode

    def communicate(self, text: str | None = None, timeout: float = 120) -> tuple[str, None]:
        """What it says until it ends."""
        until = time.monotonic() + timeout
        with suppress(BrokenPipeError):  # it may have ended
            self.stdin.write(text or "")
            self.stdin.close()
        while True:
            if not select.select([self.stdout], [], [], max(0, until - time.monotonic()))[0]:
                raise subprocess.TimeoutExpired(self.args, timeout)
            part = os.read(self.stdout.fileno(), 2**16)
            if not part:
                break
            self.said += part.decode(errors="replace")
        self.stdout.close()
        self.process.join(max(0, until - time.monotonic()))
        if self.returncode is None:
            raise subprocess.TimeoutExpired(self.args, timeout)
        return self.said, None

    def send_signal(self, number: int) -> None:
        os.kill(self.pid, number)

    def kill(self) -> None:
        self.process.kill()

    def end(self) -> None:
        """With all that it started and that still runs."""
        with suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        self.process.join()
        for stream in (self.stdin, self.stdout):
            with suppress(BrokenPipeError):
                stream.close()


def _run(
    script: str, arguments: list[str], folder: str, environment: dict[str, str], stdin: Connection,
    stdout: Connection,
) -> None:  # fmt: skip
    os.setsid()
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for stream, numbers in ((stdin, [0]), (stdout, [1, 2])):
        for number in numbers:
            os.dup2(stream.fileno(), number)
        stream.close()
    sys.stdin, sys.stdout, sys.stderr = (
        open(number, mode, encoding="utf-8", buffering=1)  # noqa: SIM115
        for number, mode in enumerate("rww")
    )
    os.chdir(folder)
    process.ORIGINAL_DIR = folder  # where processes that it starts begin
    os.environ.clear()
    os.environ.update(environment)
    rank_zero_only.rank = _get_rank() or 0  # as when Lightning is imported in this environment
    sys.argv = [script, *arguments]
    sys.path.insert(0, str(Path(script).parent))
    try:
        runpy.run_path(script, run_name="__main__")
    finally:
        atexit._run_exitfuncs()
        sys.stdout.flush()

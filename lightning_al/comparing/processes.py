"""PROCESSES: runs side by side, each in a process of its own, of which none is left behind.

runs -> [side_by_side] -> what each tells, and which failed

A process is a fork where that is safe, so that what users pass may be closures. It has one thread, a log in
place of the terminal, and a group of its own: Ctrl-C reaches the one who asked, who then ends them all.
Should that one be killed, they end too.
"""

from __future__ import annotations

import ctypes
import logging
import multiprocessing
import os
import pickle
import signal
import sys
import threading
import traceback
import warnings
from collections.abc import Callable, Sequence
from contextlib import suppress
from multiprocessing.connection import Connection, wait
from multiprocessing.reduction import ForkingPickler
from pathlib import Path
from typing import Any

import torch

from lightning_al.comparing.settings import FailedRun, RefusedError, Run

__all__ = ["cores", "side_by_side", "workers_of"]

Work = Callable[[Run, Callable[[int], None]], None]
Told = Callable[[Run, int], None]


def cores() -> int:
    """Those that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def workers_of(workers: int | None) -> int:
    """How many runs go side by side: 1 with a GPU, which they would share; else one a core."""
    if workers is not None:
        return workers
    # Asks the driver without starting CUDA, after which nothing could be forked.
    return 1 if torch.cuda.device_count() else cores()


def side_by_side(runs: Sequence[Run], work: Work, workers: int, told: Told) -> list[FailedRun]:
    """Carry out all runs, `workers` at a time.

    Args:
        runs: In this order.
        work: Does one; is given it, and what to tell after every round.
        workers: How many at a time; 0: in this process.
        told: Is given a run and how many rounds are behind it.

    Returns:
        The runs that failed.

    Raises:
        RefusedError: If a run shows what is wrong with all, or `told` says so; all are ended.
    """
    if workers == 0:
        return [failure for run in runs for failure in _here(run, work, told)]
    context = multiprocessing.get_context(_method(work))
    left, children, failures = list(runs), list[_Child](), list[FailedRun]()
    try:
        while left or children:
            while left and len(children) < workers:
                child = _Child(left.pop(0), context)
                children.append(child)
                child.start(work)
            # What a run has started may hold its pipe open after it has ended, so that is looked at too.
            wait([child.news for child in children], timeout=1)
            for child in list(children):
                if child.listen(told):
                    continue
                children.remove(child)
                failures += child.failure()
    finally:
        for child in children:
            child.kill()
    return failures


def _here(run: Run, work: Work, told: Told) -> list[FailedRun]:
    from lightning_al.randomness import preserved_rng

    try:
        with preserved_rng():
            work(run, lambda rounds: told(run, rounds))
    except RefusedError:
        raise
    except Exception:
        return [FailedRun(run.strategy, run.seed, traceback.format_exc())]
    return []


def _method(work: Work) -> str:
    """Fork on Linux, unless CUDA has been started here; else processes that begin anew.

    Raises:
        TypeError: If those cannot be given what the user passed.
    """
    if sys.platform == "linux" and not torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        return "fork"
    try:
        ForkingPickler.dumps(work)
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        why = "CUDA has been started in this process" if sys.platform == "linux" else "this is not Linux"
        raise TypeError(
            f"The runs cannot be given to processes of their own ({error}): {why}, so nothing can be forked, "
            "and needed are functions of a module, neither lambdas nor made inside others. Move them there, "
            "or pass `workers=0` for one run after another in this process."
        ) from error
    return "spawn"


class _Child:
    """A run in a process of its own.

    Args:
        run: Which.
        context: How processes are started.
    """

    def __init__(self, run: Run, context: Any) -> None:
        self.run, self.context = run, context
        self.process: Any = None
        self.reason: str | None = None
        self.has_ended = False
        self.news: Connection

    def start(self, work: Work) -> None:
        self.run.folder.mkdir(parents=True, exist_ok=True)
        self.news, voice = self.context.Pipe(duplex=False)
        self.process = self.context.Process(
            target=_main,
            args=(work, self.run, voice, os.getpid()),
            name=f"{self.run.strategy}-{self.run.seed}",
        )
        for stream in (sys.stdout, sys.stderr):
            with suppress(Exception):  # else both would print what waits in them
                stream.flush()
        with warnings.catch_warnings():
            # Threads there are of torch's are idle, and a child takes none but its own: as in a DataLoader.
            warnings.filterwarnings("ignore", ".*use of fork.*", DeprecationWarning)
            self.process.start()
        with suppress(OSError):
            os.setpgid(self.process.pid, self.process.pid)
        voice.close()

    def listen(self, told: Told) -> bool:
        """Hear what it has to say; False when it has ended."""
        ended = not self.process.is_alive()  # first, so that its last words are heard
        with suppress(EOFError, OSError, pickle.UnpicklingError):
            while self.news.poll():
                kind, what = self.news.recv()
                if kind == "refused":
                    raise RefusedError(what)
                if kind == "failed":
                    self.reason = what
                elif kind == "ended":
                    self.has_ended = True
                else:
                    told(self.run, what)
            if not ended:
                return True
        self.process.join(None if ended else 5)
        self.kill()
        return False

    def failure(self) -> list[FailedRun]:
        """Why it failed, if it did."""
        code = self.process.exitcode
        if self.reason is None and code == 0 and self.has_ended:
            return []
        ended = f"signal {-code}" if code < 0 else f"exit code {code}"
        hint = ": perhaps the memory did not suffice" if code == -signal.SIGKILL else ""
        reason = self.reason or f"Its process was ended by {ended}, before the run was{hint}."
        return [FailedRun(self.run.strategy, self.run.seed, reason, self.run.log)]

    def kill(self) -> None:
        """With all that it started."""
        if self.process is None or self.process.pid is None:
            return
        if hasattr(os, "killpg"):
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(self.process.pid, signal.SIGKILL)
        self.process.kill()
        self.process.join()
        self.news.close()


# ---------------------------------------------------------------------- in the child


def _main(work: Work, run: Run, voice: Connection, parent: int) -> None:
    _end_with(parent)
    _write_to(run.log)
    _take_one_thread()
    try:
        work(run, lambda rounds: voice.send(("rounds", rounds)))
    except BaseException as error:  # a `sys.exit` of the user's too
        text = traceback.format_exc()
        print(text, file=sys.stderr, flush=True)
        refused = isinstance(error, RefusedError)
        voice.send(("refused", str(error)) if refused else ("failed", text))
        sys.stdout.flush()
        raise SystemExit(1) from None
    voice.send(("ended", None))
    sys.stdout.flush()


def _end_with(parent: int) -> None:
    """A group of its own, which ends with the one who asked for the run, however that ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # if Ctrl-C comes before the group is its own
    if hasattr(os, "setpgid"):
        with suppress(OSError):
            os.setpgid(0, 0)
    if sys.platform == "linux":
        with suppress(OSError, AttributeError):
            ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
        if os.getppid() != parent:  # it ended before that
            os._exit(1)
    else:
        threading.Thread(target=_watch, daemon=True).start()


def _watch() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _write_to(log: Path) -> None:
    """All that is printed, by libraries too, goes to the log; there is nothing to read."""
    with log.open("ab") as file, Path(os.devnull).open("rb") as nothing:
        os.dup2(nothing.fileno(), 0)
        for number in (1, 2):
            os.dup2(file.fileno(), number)
    streams = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = (
        os.fdopen(os.dup(number), "w", encoding="utf-8", errors="replace", buffering=1) for number in (1, 2)
    )
    # A notebook's streams, for instance, are no files; loggers took them when they were made.
    known = [logging.root, *logging.root.manager.loggerDict.values()]
    for handler in {handler for one in known for handler in getattr(one, "handlers", ())}:
        if isinstance(handler, logging.StreamHandler) and handler.stream in streams:
            handler.setStream(sys.stderr)


def _take_one_thread() -> None:
    """Those of the parent do not live on in a fork; and runs side by side would fight for the cores."""
    os.environ["OMP_NUM_THREADS"] = "1"
    torch.set_num_threads(1)
    if "faiss" in sys.modules:
        sys.modules["faiss"].omp_set_num_threads(1)

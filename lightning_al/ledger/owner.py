"""OWNER: which process holds a ledger, and whether it may still live."""

from __future__ import annotations

import os
import socket
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

__all__ = ["Holder", "began", "may_live", "this_process"]


def this_process() -> tuple[str, int, str | None, str | None]:
    """Host, pid, when it began, and the cluster job it belongs to."""
    pid = os.getpid()
    return socket.gethostname(), pid, began(pid), os.environ.get("SLURM_JOB_ID")


def began(pid: int) -> str | None:
    """When the process began, where the system tells: a pid alone may have been given out again."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    except OSError:
        return None
    return "ended" if fields[0] in "ZX" else fields[19]


def may_live(host: str, pid: int, started: str | None, job: str | None) -> bool:
    """Whether a process, as `this_process` described it, is another one that may still write."""
    if (host, pid, started) == this_process()[:3]:
        return False  # this very process, by another data module
    if host != socket.gethostname():
        return job is None or job != os.environ.get("SLURM_JOB_ID")  # a requeued job moved here
    if os.name == "nt":
        return True  # no way to ask: on Windows signal 0 is Ctrl+C
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return started is None or began(pid) in (None, started)


@dataclass(frozen=True)
class Holder:
    """The process that holds a ledger.

    Args:
        host: Where it runs.
        pid: Its number there.
        since: When it took the ledger, UTC.
        may_live: Whether it may still write; another host cannot be asked.

    Example:
        >>> print(Holder("node7", 4711, "2026-11-28T14:00:00+00:00", may_live=False))
        Process 4711 on node7 held the ledger since 2026-11-28T14:00:00+00:00 and is gone
    """

    host: str
    pid: int
    since: str
    may_live: bool

    def as_dict(self) -> dict[str, Any]:
        """Of plain values, for JSON."""
        return asdict(self)

    def __str__(self) -> str:
        who = f"Process {self.pid} on {self.host}"
        return f"{who} holds the ledger since {self.since}" if self.may_live else (
            f"{who} held the ledger since {self.since} and is gone"
        )  # fmt: skip

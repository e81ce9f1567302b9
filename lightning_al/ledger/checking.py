"""CHECKING: is a ledger as it was written, and if not, which copy is whole and what would be lost with it.

ledger.sqlite3, backups/ -> [check] -> Checked: the first bad event, the copies newest first, the commands
"""

from __future__ import annotations

import json
import shlex
import sqlite3
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

from lightning_al.ledger.backups import is_whole, named
from lightning_al.ledger.connection import LedgerError
from lightning_al.ledger.ledger import Ledger

__all__ = ["Checked", "Copy", "check"]


@dataclass(frozen=True)
class Copy:
    """A backup.

    Args:
        path: The file.
        is_whole: Whether nothing is damaged in it.
        labels: How many samples are labelled in it.
        lacks: How many labels of the ledger, so far as that can still be read, are not in it.
    """

    path: Path
    is_whole: bool
    labels: int
    lacks: int

    def __str__(self) -> str:
        lacks = f"lacks {self.lacks:,} labels of the ledger" if self.lacks else "lacks none of the ledger"
        said = f"whole, {self.labels:,} labels, {lacks}" if self.is_whole else "damaged"
        return f"{self.path}: {said}"


@dataclass(frozen=True)
class Checked:
    """What was found.

    Args:
        path: The ledger's file.
        events: How many events are as they were written.
        labels: How many samples are labelled, so far as that can be read.
        problem: What is wrong; empty: nothing.
        copies: The backups, newest first; of a ledger that is whole none is looked at.
    """

    path: Path
    events: int
    labels: int
    problem: str = ""
    copies: list[Copy] = field(default_factory=list)

    @property
    def is_whole(self) -> bool:
        """Whether the ledger is as it was written."""
        return not self.problem

    @property
    def good(self) -> Copy | None:
        """The newest backup that is whole."""
        return next((copy for copy in self.copies if copy.is_whole), None)

    @property
    def commands(self) -> list[str]:
        """What puts the good backup in the ledger's place, and keeps the damaged file."""
        if self.good is None:
            return []
        kept = self.path.with_name(f"{self.path.name}.damaged")
        number = 1
        while kept.exists():
            number += 1
            kept = self.path.with_name(f"{self.path.name}.damaged{number}")
        moves = [(self.path, kept)] if self.path.exists() else []
        journal = Path(f"{self.path}-journal")
        if journal.exists():
            moves.append((journal, Path(f"{kept}-journal")))
        said = [f"mv {shlex.quote(str(old))} {shlex.quote(str(new))}" for old, new in moves]
        return [*said, f"cp {shlex.quote(str(self.good.path))} {shlex.quote(str(self.path))}"]

    def __str__(self) -> str:
        if self.is_whole:
            return f"{self.path}: {self.events:,} events, {self.labels:,} labels, all as they were written."
        lines = [self.problem, *(f"  {copy}" for copy in self.copies)]
        said = named(self.path, None if self.good is None else self.good.path)
        return "\n".join([*lines, said, *(f"  {command}" for command in self.commands)])


def check(path: Path) -> Checked:
    """Every digest of a ledger; where one is wrong, also every backup.

    Args:
        path: The ledger's file.

    Raises:
        LedgerError: If there is neither a ledger nor a backup of one.

    Example:
        >>> import tempfile
        >>> from lightning_al.ledger import Event, Ledger
        >>> path = Path(tempfile.mkdtemp()) / "ledger.sqlite3"
        >>> _ = Ledger(path).create({"size": 9}, [Event("labeled", 4, value="1", round=0)])
        >>> checked = check(path)
        >>> checked.is_whole, checked.events, checked.labels
        (True, 1, 1)
    """
    ledger, copies = Ledger(path), _copies(path)
    mine = _labels(path)
    try:
        events = ledger.verify()
    except LedgerError as error:
        if not path.exists() and not copies:
            raise
        problem, events = str(error), 0
    else:
        whole = is_whole(path)
        problem = "" if whole else f"{path} is damaged where the digests do not reach; SQLite says so."
    if not problem:
        return Checked(path, events, len(mine))
    return Checked(
        path, events, len(mine), problem.split(" Nothing was changed.")[0], [_held(c, mine) for c in copies]
    )


def _copies(path: Path) -> list[Path]:
    found = (path.parent / "backups").glob("*.sqlite3")
    return sorted(found, key=lambda copy: copy.stat().st_mtime, reverse=True)


def _held(copy: Path, labels: Mapping[str, str | None]) -> Copy:
    theirs = _labels(copy)
    lacks = sum(name not in theirs or theirs[name] != value for name, value in labels.items())
    return Copy(copy, is_whole(copy), len(theirs), lacks)


def _labels(path: Path) -> dict[str, str | None]:
    """The label of every sample, so far as the file can be read; nothing is checked."""
    labels: dict[str, str | None] = {}
    try:
        with closing(sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True)) as db:
            rows = db.execute("SELECT coalesce(id, sample), kind, value FROM events ORDER BY seq")
            for sample, kind, value in rows:
                _apply(labels, str(sample), kind, value)
    except sqlite3.Error:  # what was read until then is what there is
        pass
    return labels


def _apply(labels: dict[str, str | None], sample: str, kind: str, value: str | None) -> None:
    if kind == "reverted":
        try:
            before = json.loads(value or "")
            kind, value = before["status"], before["value"]
        except (ValueError, KeyError, TypeError):
            return
    if kind in ("labeled", "relabeled"):
        labels[sample] = value
    elif kind in ("undone", "ignored", "pool", "asked"):
        labels.pop(sample, None)

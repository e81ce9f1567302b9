"""CHECKING: is a ledger as it was written, and if not, which copy is whole and what would be lost with it.

ledger.sqlite3, backups/ -> [check] -> Checked: the first bad event, the copies newest first, the commands
"""

from __future__ import annotations

import json
import os
import shlex
import sqlite3
from collections.abc import Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lightning_al.ledger.backups import is_whole, named
from lightning_al.ledger.chain import GENESIS, digest
from lightning_al.ledger.connection import LedgerError
from lightning_al.ledger.ledger import Ledger
from lightning_al.ledger.schema import COLUMNS
from lightning_al.ledger.statements import said_in_file

__all__ = ["Checked", "Copy", "check"]


@dataclass(frozen=True)
class Copy:
    """A backup.

    Args:
        path: The file.
        is_whole: Whether nothing is damaged in it.
        labels: How many samples are labelled in it.
        lacks: How many labels of the ledger are not in it, so far as those can be read and are as written.
        changed: How many events that the ledger has beyond it were changed: their labels cannot be told.
        is_all: Whether the ledger could be read to its end; else it may have more than that.
    """

    path: Path
    is_whole: bool
    labels: int
    lacks: int
    changed: int = 0
    is_all: bool = True

    def __str__(self) -> str:
        if not self.is_whole:
            return f"{self.path}: damaged"
        parts = [f"whole, {self.labels:,} labels"]
        if self.lacks:
            parts.append(f"lacks {self.lacks:,} labels of the ledger")
        elif self.is_all and not self.changed:
            parts.append("lacks none of the ledger")
        if self.changed:
            parts.append(f"the labels of {self.changed:,} later events, which were changed, cannot be told")
        if not self.is_all:
            more = "what else" if self.lacks else "what"
            parts.append(f"{more} the ledger had cannot be told: it cannot be read to its end")
        return f"{self.path}: {', '.join(parts)}"


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
        LedgerError: If there is neither a ledger nor a backup of one, or it may not be read.

    Example:
        >>> import tempfile
        >>> from lightning_al.ledger import Event, Ledger
        >>> path = Path(tempfile.mkdtemp()) / "ledger.sqlite3"
        >>> _ = Ledger(path).create({"size": 9}, [Event("labeled", 4, value="1", round=0)])
        >>> checked = check(path)
        >>> checked.is_whole, checked.events, checked.labels
        (True, 1, 1)
    """
    ledger = Ledger(path)
    ledger.exists()  # says so if the folder may not be entered
    copies = _copies(path)
    try:
        events = ledger.verify()
    except LedgerError as error:
        if not copies and not path.exists():
            raise
        if path.is_file() and not os.access(path, os.R_OK):  # what this user may not read need not be damaged
            raise
        problem = str(error)
    else:
        if is_whole(path):
            return Checked(path, events, len(_read(path).labels))
        problem = f"{path} is damaged where the digests do not reach; SQLite says so."
    labels = len(_read(path, checks=True).labels)
    held = [_held(copy, path) for copy in copies]
    return Checked(path, 0, labels, problem.split(" Nothing was changed.")[0], held)


def _copies(path: Path) -> list[Path]:
    found = (path.parent / "backups").glob("*.sqlite3")
    return sorted(found, key=lambda copy: copy.stat().st_mtime, reverse=True)


@dataclass
class _Read:
    """What could be read of a file.

    Args:
        labels: The label of every sample that has one.
        last: Number of the last event.
        digest: Its digest.
        changed: How many events are not as they were written; they were passed over.
        is_all: Whether that is all there is.
    """

    labels: dict[str, str | None] = field(default_factory=dict)
    last: int = 0
    digest: str = GENESIS
    changed: int = 0
    is_all: bool = False


def _held(copy: Path, ledger: Path) -> Copy:
    theirs = _read(copy)
    mine = _read(ledger, upon=theirs, checks=True)
    lacks = sum(
        name not in theirs.labels or theirs.labels[name] != value for name, value in mine.labels.items()
    )
    return Copy(copy, is_whole(copy), len(theirs.labels), lacks, mine.changed, mine.is_all)


def _read(path: Path, *, upon: _Read | None = None, checks: bool = False) -> _Read:
    """The labels, so far as the file can be read.

    Args:
        path: Of a ledger or a copy.
        upon: What is known of its first events: whatever became of these in the file, it goes on from there.
        checks: Pass over events that do not have the digest that they were written with.
    """
    known = upon or _Read()
    found = _Read(dict(known.labels))
    place = f"{path.resolve().as_uri()}?mode=ro"
    # What was read until the file fails is what there is.
    with suppress(sqlite3.Error), closing(sqlite3.connect(place, uri=True)) as db:
        rows = db.execute(f"SELECT {', '.join(COLUMNS)}, {said_in_file(db)}, digest FROM events ORDER BY seq")
        for *row, said, link in rows:
            is_next = row[0] == found.last + 1  # of one that follows a missing one there is nothing to check
            if row[0] == known.last and link != known.digest:  # a copy of another course of events
                return _read(path, checks=checks)
            if row[0] > known.last:
                if checks and is_next and not _follows(found.digest, row, said, link):
                    found.changed += 1
                else:
                    _apply(found.labels, str(row[2] if row[3] is None else row[3]), row[1], row[4])
            found.last, found.digest = row[0], link
        # Rows at the end may be gone without an error, but not from the index too.
        indexed = db.execute("SELECT max(seq) FROM events INDEXED BY events_by_name").fetchone()[0]
        found.is_all = found.last == (indexed or 0)
    return found


def _follows(previous: str, row: Sequence[Any], said: str | None, link: str) -> bool:
    try:
        return digest(previous, (*row, *([] if said is None else [said]))) == link
    except (TypeError, ValueError):  # bytes or a number where there was text
        return False


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

"""5 LEDGER: what was asked, labelled and ignored, on disk before anything goes on.

    ActiveDataModule -> [Ledger] -> ledger.sqlite3

One SQLite file; how it is opened is in connection.py, what its tables are in schema.py.
"""

from __future__ import annotations

import json
import math
import os
import sqlite3
import uuid
from collections.abc import Iterator, Sequence
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from lightning_al.ledger.connection import LedgerError, LedgerFile
from lightning_al.ledger.owner import may_live, this_process
from lightning_al.ledger.schema import (
    COLUMNS,
    GENESIS,
    SCHEMA_VERSION,
    TABLES,
    Event,
    digest,
)

__all__ = ["Ledger", "LedgerError"]

_KEPT_BACKUPS = 3
_SELECT = f"SELECT {', '.join(COLUMNS)}, digest FROM events"


class Ledger:
    """The append-only record of one run's queries and labels.

    Args:
        path: The file; created by the first write.
        token: Who writes: processes of one run share it, others are kept out while it lives.

    Example:
        >>> import tempfile
        >>> ledger = Ledger(Path(tempfile.mkdtemp()) / "ledger.sqlite3")
        >>> ledger.create({"size": 10})
        True
        >>> ledger.append([Event("asked", 7, round=1, rank=0), Event("labeled", 7, value="3", round=1)])
        >>> [(event.kind, event.sample) for _, event in ledger.events()]
        [('asked', 7), ('labeled', 7)]
        >>> ledger.verify()
        2
    """

    def __init__(self, path: str | os.PathLike[str], *, token: str | None = None) -> None:
        self.path = Path(path)
        self._file = LedgerFile(self.path)
        self.token = token or uuid.uuid4().hex

    # ------------------------------------------------------------------ reading

    def exists(self) -> bool:
        """Whether the file is there and not empty (a run killed while creating it leaves it empty)."""
        return self._file.exists()

    def meta(self) -> dict[str, Any]:
        """What the run recorded about itself when it began: seed, size, fingerprint, strategy, ..."""
        with self._file.reading() as db:
            return {key: json.loads(value) for key, value in db.execute("SELECT * FROM meta")}

    def events(self, after: int = 0) -> Iterator[tuple[int, Event]]:
        """Sequence numbers and events in order, those after `after`; checks the chain on the way.

        Raises:
            LedgerError: At the first row that does not follow from the one before.
        """
        with self._file.reading() as db:
            previous, expected = GENESIS, after + 1
            if after:
                row = db.execute("SELECT digest FROM events WHERE seq = ?", (after,)).fetchone()
                if row is None:
                    raise self._broken(after, "is gone")
                previous = row[0]
            for *row, link in db.execute(f"{_SELECT} WHERE seq > ? ORDER BY seq", (after,)):
                if row[0] != expected:
                    raise self._broken(expected, "is missing")
                if digest(previous, tuple(row)) != link:
                    raise self._broken(expected, "was changed after it was written")
                previous, expected = link, expected + 1
                seq, kind, sample, name, value, who, _at, *rest = row
                yield seq, Event(kind, sample, name, value, who, *rest)

    def last(self) -> tuple[int, str]:
        """Sequence number and digest of the newest event; `(0, GENESIS)` of an empty ledger."""
        with self._file.reading() as db:
            return _last(db)

    def verify(self) -> int:
        """Check the digest of every event; returns how many there are.

        Raises:
            LedgerError: At the first row that does not follow from the one before.
        """
        return sum(1 for _ in self.events())

    def rounds(self) -> list[dict[str, Any]]:
        """The measurements of every round, in order."""
        with self._file.reading() as db:
            rows = db.execute("SELECT row FROM rounds ORDER BY round").fetchall()
        return [_finite(json.loads(row)) for (row,) in rows]

    # ------------------------------------------------------------------ writing

    def create(self, meta: dict[str, Any], first: Sequence[Event] = ()) -> bool:
        """Make the ledger with its first events, whole or not at all.

        Returns:
            Whether it was made: another process may have been quicker, then nothing happens.
        """
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise LedgerError(
                f"The state directory {self.path.parent} cannot be made ({error}); labels must be on "
                "disk before training goes on. Pass a `state_dir` that can be written."
            ) from error
        with self._file.writing(new=True, check=self._check_owner) as db:
            if db.execute("SELECT 1 FROM sqlite_master WHERE name = 'events'").fetchone():
                return False
            for statement in TABLES:
                db.execute(statement)
            meta = {"schema_version": SCHEMA_VERSION, "run_id": uuid.uuid4().hex[:12]} | meta
            db.executemany("INSERT INTO meta VALUES (?, ?)", [(k, json.dumps(v)) for k, v in meta.items()])
            _put_events(db, first, _now())
        return True

    def append(
        self,
        events: Sequence[Event],
        *,
        round_row: dict[str, Any] | None = None,
        after: int | None = None,
    ) -> None:
        """Write events, and on request a round's measurements, all of them or none.

        They are on disk when the call returns.

        Args:
            events: In order.
            round_row: Measurements of a round, with its number as `round`.
            after: Number of the event that the caller saw last; `None`: it does not matter.

        Raises:
            LedgerError: If another process wrote since, or the disk refuses.
        """
        at = _now()
        with self._file.writing(check=self._check_owner) as db:
            last = _last(db)[0]
            if after is not None and last != after:
                raise LedgerError(
                    f"{self.path} was at event {after} and is at {last}: another process wrote at the same "
                    "moment. Nothing of this call was written; repeat it."
                )
            _put_events(db, events, at)
            if round_row is not None:
                _put_round(db, round_row, at)

    def set_meta(self, **values: Any) -> None:
        """Record further facts about the run."""
        with self._file.writing(check=self._check_owner) as db:
            db.executemany(
                "INSERT INTO meta VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET value = excluded.value",
                [(key, json.dumps(value)) for key, value in values.items()],
            )

    def backup(self, name: str) -> Path:
        """Copy the ledger with SQLite's own backup to `backups/<name>.sqlite3`; the newest few stay."""
        folder = self.path.parent / "backups"
        target, part = folder / f"{name}.sqlite3", folder / f"{name}.part"
        try:
            folder.mkdir(exist_ok=True)
            part.unlink(missing_ok=True)
            with self._file.reading() as db, closing(sqlite3.connect(part)) as copy:
                db.backup(copy)
            os.replace(part, target)
        except (OSError, sqlite3.Error) as error:
            raise self._file.explained(error) from error
        for old in sorted(folder.glob("*.sqlite3"), key=lambda p: p.stat().st_mtime)[:-_KEPT_BACKUPS]:
            old.unlink(missing_ok=True)
        return target

    # ------------------------------------------------------------------ ownership

    def claim(self) -> None:
        """Keep other runs out until `release`, or until this process is gone.

        Raises:
            LedgerError: If another run that may still live holds the ledger.
        """
        with self._file.writing(check=self._check_owner) as db:
            db.execute("DELETE FROM owner")
            db.execute(
                "INSERT INTO owner VALUES (1, ?, ?, ?, ?, ?, ?)",
                (self.token, *this_process(), datetime.now(UTC).isoformat(timespec="seconds")),
            )

    def release(self, *, force: bool = False) -> None:
        """Let other runs in; `force` also where another host's run, known to be dead, holds it."""
        if self.exists():
            with self._file.writing(check=None if force else self._check_owner) as db:
                db.execute("DELETE FROM owner")

    def _check_owner(self, db: sqlite3.Connection) -> None:
        owner = db.execute("SELECT token, host, pid, started, job, since FROM owner").fetchone()
        if owner is None or owner[0] == self.token or not may_live(*owner[1:5]):
            return
        _, host, pid, _, _, since = owner
        raise LedgerError(
            f"The state directory {self.path.parent} is in use by process {pid} on {host} since "
            f"{since}; two runs must not write one ledger. Wait for that run or end it; if it is gone "
            f"(another host cannot be asked), call `Ledger({str(self.path)!r}).release(force=True)`; "
            "or choose another `state_dir`."
        )

    def _broken(self, seq: int, what: str) -> LedgerError:
        backups = sorted((self.path.parent / "backups").glob("*.sqlite3"), key=lambda p: p.stat().st_mtime)
        newest = f"The newest backup is {backups[-1]}; " if backups else "There is no backup; "
        return LedgerError(
            f"Event {seq} of {self.path} {what}: the digests do not follow on. Nothing was changed. "
            f"{newest}copy the damaged file somewhere safe before you put another in its place."
        )


def _last(db: sqlite3.Connection) -> tuple[int, str]:
    row = db.execute("SELECT seq, digest FROM events ORDER BY seq DESC LIMIT 1").fetchone()
    return (int(row[0]), str(row[1])) if row else (0, GENESIS)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="microseconds")


def _put_events(db: sqlite3.Connection, events: Sequence[Event], at: str) -> None:
    seq, previous = _last(db)
    rows = []
    for number, event in enumerate(events, start=seq + 1):
        row = (
            number, event.kind, event.sample, event.id, event.value, event.who, at,
            event.round, event.strategy, event.seed, _real(event.score), event.rank,
        )  # fmt: skip
        previous = digest(previous, row)
        rows.append((*row, previous))
    marks = ", ".join("?" * (len(COLUMNS) + 1))
    db.executemany(f"INSERT INTO events VALUES ({marks})", rows)


def _put_round(db: sqlite3.Connection, row: dict[str, Any], at: str) -> None:
    """A round trained again replaces its measurements and keeps what only the earlier run knew."""
    old = db.execute("SELECT row FROM rounds WHERE round = ?", (row["round"],)).fetchone()
    merged = (json.loads(old[0]) if old else {}) | row
    db.execute("INSERT OR REPLACE INTO rounds VALUES (?, ?, ?)", (row["round"], at, _dumps(merged)))


def _dumps(row: dict[str, Any]) -> str:
    return json.dumps({k: None if _is_nan(v) else v for k, v in row.items()})


def _finite(row: dict[str, Any]) -> dict[str, Any]:
    return {key: float("nan") if value is None else value for key, value in row.items()}


def _is_nan(value: Any) -> bool:
    return isinstance(value, float) and math.isnan(value)


def _real(score: float | None) -> float | None:
    """SQLite stores NaN as NULL; write it so that the digest sees what will be read back."""
    return None if score is None or math.isnan(score) else float(score)

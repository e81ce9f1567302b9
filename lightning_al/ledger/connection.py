"""CONNECTION: one transaction on the ledger's file; a connection lives no longer than that.

It never crosses a fork, spawn or pickle. Rollback journal (WAL fails on cluster file systems), full
synchronous commits: what a transaction wrote is on disk when it ends.
"""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from lightning_al.ledger.schema import MIGRATIONS, SCHEMA_VERSION

__all__ = ["LedgerError", "LedgerFile", "version_of"]


class LedgerError(RuntimeError):
    """The ledger cannot be read or written as asked; the message says what to do."""


class LedgerFile:
    """The SQLite file of a ledger.

    Args:
        path: Where it is, or will be.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def exists(self) -> bool:
        """Whether the file is there and not empty (a run killed while creating it leaves it empty)."""
        return self.path.is_file() and self.path.stat().st_size > 0

    @contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """For the block, a connection that only reads.

        Raises:
            LedgerError: If there is no ledger, or it cannot be read.
        """
        if not self.exists():
            raise LedgerError(
                f"There is no ledger at {self.path}. It is made when training starts or the first "
                "label is given; check `state_dir`."
            )
        try:
            # A journal may be what a killed process left: only who may write can undo its half commit.
            mode = "rw" if Path(f"{self.path}-journal").exists() else "ro"
            with closing(sqlite3.connect(f"{self.path.resolve().as_uri()}?mode={mode}", uri=True)) as db:
                self._check_schema(db, migrate=False)
                yield db
        except sqlite3.Error as error:
            raise self.explained(error) from error

    @contextmanager
    def writing(
        self, *, new: bool = False, check: Callable[[sqlite3.Connection], None] | None = None
    ) -> Iterator[sqlite3.Connection]:
        """For the block, a transaction: all of it is on disk after, or nothing.

        Args:
            new: The file may be made.
            check: Asked before anything is written to a ledger that is there; it raises to refuse.

        Raises:
            LedgerError: If it cannot be written, or is no ledger.
        """
        try:
            with closing(
                sqlite3.connect(
                    f"{self.path.absolute().as_uri()}?mode={'rwc' if new else 'rw'}",
                    timeout=30,
                    isolation_level=None,
                    uri=True,
                )
            ) as db:
                db.execute("PRAGMA journal_mode = DELETE")
                db.execute("PRAGMA synchronous = EXTRA")
                self._keep_older(db)
                db.execute("BEGIN IMMEDIATE")
                try:
                    empty = db.execute("SELECT count(*) FROM sqlite_master").fetchone()[0] == 0
                    if not (new and empty):
                        self._check_schema(db, migrate=True)
                        if check is not None:
                            check(db)
                    yield db
                    db.execute("COMMIT")
                except BaseException:
                    if db.in_transaction:
                        db.execute("ROLLBACK")
                    raise
        except sqlite3.Error as error:
            raise self.explained(error) from error

    def copy(self, name: str) -> Path:
        """Copy the file with SQLite's own backup to `backups/<name>.sqlite3`, whole or not at all."""
        folder = self.path.parent / "backups"
        target, part = folder / f"{name}.sqlite3", folder / f"{name}.part"
        try:
            folder.mkdir(exist_ok=True)
            part.unlink(missing_ok=True)
            with self.reading() as db, closing(sqlite3.connect(part)) as copy:
                db.backup(copy)
            os.replace(part, target)
        except (OSError, sqlite3.Error) as error:
            raise self.explained(error) from error
        return target

    def _keep_older(self, db: sqlite3.Connection) -> None:
        """Before the file is brought up to date: a copy as it was."""
        if _is_ledger(_tables(db)) and version_of(db) < SCHEMA_VERSION:
            name = f"before_schema_{SCHEMA_VERSION}"
            if not (self.path.parent / "backups" / f"{name}.sqlite3").exists():
                self.copy(name)

    def _check_schema(self, db: sqlite3.Connection, *, migrate: bool) -> None:
        tables = _tables(db)
        if not _is_ledger(tables):
            raise LedgerError(
                f"{self.path} is a database, but no ledger of lightning_al: tables {sorted(tables)}. "
                "Choose another `state_dir`, or move that file away."
            )
        version = version_of(db)
        if version > SCHEMA_VERSION:
            raise LedgerError(
                f"{self.path} has schema version {version}; this lightning_al knows up to "
                f"{SCHEMA_VERSION}. Upgrade lightning_al, or choose another `state_dir`."
            )
        if migrate:
            for step in range(version, SCHEMA_VERSION):
                MIGRATIONS[step](db)
                db.execute(
                    "UPDATE meta SET value = ? WHERE key = 'schema_version'",
                    (json.dumps(step + 1),),
                )

    def explained(self, error: Exception) -> LedgerError:
        """What an error of SQLite or the disk means here."""
        text = str(error)
        if "not a database" in text or "malformed" in text:
            backups = self.path.parent / "backups"
            return LedgerError(
                f"{self.path} is not a readable ledger ({text}). Nothing was changed. Choose another "
                f"`state_dir`, or put a copy from {backups} in its place."
            )
        if "readonly" in text or "unable to open" in text or isinstance(error, PermissionError):
            return LedgerError(
                f"{self.path} cannot be written ({text}); a label must be on disk before the call "
                "returns. Pass a `state_dir` that can be written."
            )
        return LedgerError(
            f"Writing or reading {self.path} failed ({text}). What was written before is safe, the "
            "last call was undone. Free disk space or wait for the other process, then run again."
        )


def version_of(db: sqlite3.Connection) -> int:
    """The schema that the file has: one that is only read stays as it is."""
    row = db.execute("SELECT value FROM meta WHERE key = 'schema_version'").fetchone()
    return int(json.loads(row[0])) if row else 0


def _tables(db: sqlite3.Connection) -> set[str]:
    return {name for (name,) in db.execute("SELECT name FROM sqlite_master")}


def _is_ledger(tables: set[str]) -> bool:
    return {"meta", "events", "rounds", "owner"} <= tables

"""CONNECTION: one transaction on the ledger's file; a connection lives no longer than that.

It never crosses a fork, spawn or pickle. Rollback journal (WAL fails on cluster file systems), full
synchronous commits: what a transaction wrote is on disk when it ends.
"""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Callable, Collection, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

from lightning_al.ledger.backups import advice
from lightning_al.ledger.schema import MIGRATIONS, SCHEMA_VERSION

__all__ = ["LedgerError", "LedgerFile", "from_json", "version_of"]

#: What SQLite says of files whose content is wrong; the disk and other processes have other codes.
#: What SQLite may keep of the file while it writes, for it puts names into their index in no order.
_CACHE_KIB = 65_536
_DAMAGED = frozenset(
    {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_FORMAT, sqlite3.SQLITE_MISMATCH}
)


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
        """Whether there is a ledger; a run killed while making it leaves an empty file, or half of one.

        Raises:
            LedgerError: If the folder may not be entered, so that it cannot be told.
        """
        try:
            self.path.stat()
        except PermissionError as error:
            raise LedgerError(self._denied(str(error), reads=True)) from error
        except OSError:
            return False
        if self.path.is_file() and Path(f"{self.path.resolve()}-journal").exists():
            with suppress(sqlite3.Error), closing(self._opened("rw")) as db:
                db.execute("SELECT count(*) FROM sqlite_master").fetchone()  # undoes what was half done
        return self.path.is_file() and self.path.stat().st_size > 0

    @contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """For the block, a connection that only reads.

        Raises:
            LedgerError: If there is no ledger, or it cannot be read.
        """
        if not self.exists():
            self.check_not_lost()
            raise LedgerError(
                f"There is no ledger at {self.path}. It is made when training starts or the first "
                "label is given; check `state_dir`."
            )
        try:
            # Able to write where that is allowed: a killed process may have left half a commit to be undone.
            with closing(self._opened("rw")) as db:
                self._check_schema(db, migrate=False)
                yield db
        except sqlite3.Error as error:
            raise self.explained(error, _DAMAGED | {sqlite3.SQLITE_ERROR}, reads=True) from error

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
            with closing(self._opened("rwc" if new else "rw")) as db:
                db.execute("PRAGMA journal_mode = DELETE")
                db.execute("PRAGMA synchronous = EXTRA")
                db.execute(f"PRAGMA cache_size = -{_CACHE_KIB}")
                self._keep_older(db)
                db.execute("BEGIN IMMEDIATE")
                try:
                    empty = db.execute("SELECT count(*) FROM sqlite_master").fetchone()[0] == 0
                    if not (new and empty):
                        self._check_length(db)
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

    def _opened(self, mode: str) -> sqlite3.Connection:
        place = f"{self.path.resolve().as_uri()}?mode={mode}"
        return sqlite3.connect(place, timeout=30, isolation_level=None, uri=True)

    def check_not_lost(self) -> None:
        """Refuse to take a ledger for one that was never made, if there are copies of it.

        Raises:
            LedgerError: If it is empty or gone, and there are.
        """
        if not self.exists() and self._has_backups():
            raise LedgerError(
                f"{self.path} is {self._instead()}, but there are backups of it: "
                f"its labels would be lost if a new one were made. {advice(self.path)} To begin anew, choose "
                "another `state_dir`."
            )

    def _instead(self) -> str:
        if not self.path.exists():
            return "gone"
        return "empty" if self.path.is_file() else "no file"

    def _has_backups(self) -> bool:
        return any((self.path.parent / "backups").glob("*.sqlite3"))

    def copy(self, name: str) -> Path:
        """Copy the file with SQLite's own backup to `backups/<name>.sqlite3`, whole or not at all."""
        folder = self.path.parent / "backups"
        target, part = folder / f"{name}.sqlite3", folder / f"{name}.part"
        try:
            folder.mkdir(exist_ok=True)
            part.unlink(missing_ok=True)
            with self.reading() as db:
                _copy(db, part)
            os.replace(part, target)
        except OSError as error:
            with suppress(OSError):
                part.unlink(missing_ok=True)
            raise LedgerError(
                f"The backup {target} cannot be written ({error}); one is needed before every training. "
                "Labels are safe in the ledger: free disk space or make that folder writable, then run again."
            ) from error
        return target

    def _keep_older(self, db: sqlite3.Connection) -> None:
        """Before the file is brought up to date: a copy as it was."""
        if _is_ledger(_tables(db)) and version_of(db) < SCHEMA_VERSION:
            name = f"before_schema_{SCHEMA_VERSION}"
            if not (self.path.parent / "backups" / f"{name}.sqlite3").exists():
                self.copy(name)

    def _check_length(self, db: sqlite3.Connection) -> None:
        """SQLite takes the rest of a page that is cut off for zeros, until it needs that page."""
        (pages,), (size,) = (db.execute(f"PRAGMA {name}").fetchone() for name in ("page_count", "page_size"))
        if self.path.stat().st_size < pages * size:
            raise sqlite3.DatabaseError(f"malformed: its end is cut off, it had {pages * size} bytes")

    def _check_schema(self, db: sqlite3.Connection, *, migrate: bool) -> None:
        tables = _tables(db)
        if not _is_ledger(tables):
            raise LedgerError(
                f"{self.path} is a database, but no ledger of lightning_al: tables {sorted(tables)}. "
                "Choose another `state_dir`, or move that file away."
                + (f" {advice(self.path)}" if self._has_backups() else "")
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

    def explained(
        self, error: Exception, wrong: Collection[int] = _DAMAGED, *, reads: bool = False
    ) -> LedgerError:
        """What an error of SQLite or the disk means here.

        Args:
            error: What was raised.
            wrong: SQLite's codes that mean damage.
            reads: Nothing was to be written.
        """
        text = str(error)
        if _is_damage(error, wrong):
            return LedgerError(
                f"{self.path} is not a readable ledger ({text}). Nothing was changed. {advice(self.path)} Or "
                "choose another `state_dir`."
            )
        if "readonly" in text or "unable to open" in text or isinstance(error, PermissionError):
            return LedgerError(self._denied(text, reads))
        return LedgerError(
            f"Writing or reading {self.path} failed ({text}). What was written before is safe, the "
            "last call was undone. Free disk space or wait for the other process, then run again."
        )

    def _denied(self, text: str, reads: bool) -> str:
        """What is not allowed, and what to do: a run that has begun must not be told to begin elsewhere."""
        make = "Make the file and its folder writable for this user, then run again"
        if reads and "readonly" in text:
            return (
                f"{self.path} holds a commit that a killed process left half done, and cannot be written to "
                f"undo it ({text}). {make}."
            )
        if reads:
            return (
                f"{self.path} cannot be read ({text}). Let this user read the file and enter its folder, "
                "then run again."
            )
        said = f"{self.path} cannot be written ({text}); a label must be on disk before the call returns."
        if not self.path.exists():
            return f"{said} Pass a `state_dir` that can be written."
        return f"{said} {make}: another `state_dir` would begin a new run."


def _copy(db: sqlite3.Connection, path: Path) -> None:
    try:
        with closing(sqlite3.connect(path)) as copy:
            db.backup(copy)
    except sqlite3.Error as error:
        if _is_damage(error):
            raise
        raise OSError(str(error)) from error  # what is wrong is not the ledger


def _is_damage(error: Exception, wrong: Collection[int] = _DAMAGED) -> bool:
    code = getattr(error, "sqlite_errorcode", None)
    if code is None:  # what cannot be read as text or JSON
        return type(error) in (sqlite3.DatabaseError, sqlite3.OperationalError)
    return code & 0xFF in wrong


def from_json(text: Any) -> Any:
    """A value that was written as JSON.

    Raises:
        sqlite3.DatabaseError: If it is none any more.
    """
    try:
        return json.loads(text)
    except (TypeError, ValueError) as error:
        raise sqlite3.DatabaseError(f"malformed value {text!r:.100}") from error


def version_of(db: sqlite3.Connection) -> int:
    """The schema that the file has: one that is only read stays as it is.

    Raises:
        sqlite3.DatabaseError: If it is no version.
    """
    row = db.execute("SELECT value FROM meta WHERE key = 'schema_version'").fetchone()
    version = from_json(row[0]) if row else None
    if type(version) is not int or version < 1:
        raise sqlite3.DatabaseError(f"malformed schema version {version!r}")
    return version


def _tables(db: sqlite3.Connection) -> set[str]:
    return {name for (name,) in db.execute("SELECT name FROM sqlite_master")}


def _is_ledger(tables: set[str]) -> bool:
    return {"meta", "events", "rounds", "owner"} <= tables

"""BACKUPS: which copy of a damaged ledger is whole, and what to do with it.

backups/*.sqlite3 -> [newest_whole] -> advice for whoever finds the ledger damaged or gone
"""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

from lightning_al.ledger.chain import CHECKED, GENESIS, Calls, verified

__all__ = ["advice", "is_whole", "named", "newest_whole"]

_CHUNK = 5000


def newest_whole(ledger: Path) -> Path | None:
    """The newest backup of a ledger of which nothing is damaged.

    Args:
        ledger: The ledger's file.
    """
    copies = (ledger.parent / "backups").glob("*.sqlite3")
    for copy in sorted(copies, key=lambda path: path.stat().st_mtime, reverse=True):
        if is_whole(copy):
            return copy
    return None


def is_whole(path: Path) -> bool:
    """Whether SQLite and the digests find nothing wrong in a file."""
    try:
        with closing(sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True)) as db:
            if db.execute("PRAGMA integrity_check(1)").fetchone() != ("ok",):
                return False
            there = {row[1] for row in db.execute("PRAGMA table_info(events)")}
            columns = CHECKED.format(said="said" if "said" in there else "NULL")
            rows = db.execute(f"SELECT {columns} FROM events ORDER BY seq")
            rows.arraysize = _CHUNK
            parts = iter(rows.fetchmany, [])
            return all(verified(parts, (0, GENESIS), lambda seq, what: ValueError(what), Calls()))
    except (sqlite3.Error, ValueError):
        return False


def advice(ledger: Path) -> str:
    """What to do about a ledger that is damaged, or gone; reads the backups."""
    copy = newest_whole(ledger)
    said = named(ledger, copy)
    if copy is None:
        return said
    return (
        f"{said} move the damaged file, and {ledger.name}-journal if it is there, somewhere safe, and copy "
        f"the backup to {ledger}."
    )


def named(ledger: Path, copy: Path | None) -> str:
    """The words for the newest backup that is whole, or for there being none."""
    if copy is None:
        return f"There is no backup in {ledger.parent / 'backups'} that is whole; look for another copy."
    return f"The newest backup that is whole is {copy}; to go on with it:"

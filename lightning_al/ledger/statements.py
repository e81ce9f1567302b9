"""STATEMENTS: what the ledger asks and tells SQLite, inside of a connection or transaction that is open."""

from __future__ import annotations

import json
import math
import sqlite3
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from lightning_al.ledger.chain import GENESIS, Row, linked
from lightning_al.ledger.connection import from_json, version_of
from lightning_al.ledger.schema import COLUMNS, Event

__all__ = [
    "digest_of", "event_of", "finite", "has_moved", "last", "now", "put_events", "put_meta", "put_names",
    "put_round", "put_shown", "said_in_file", "select",
]  # fmt: skip

_COLUMNS = ", ".join(COLUMNS)


def last(db: sqlite3.Connection) -> tuple[int, str]:
    """Number and digest of the newest event."""
    row = db.execute("SELECT seq, digest FROM events ORDER BY seq DESC LIMIT 1").fetchone()
    return (int(row[0]), str(row[1])) if row else (0, GENESIS)


def digest_of(db: sqlite3.Connection, number: int) -> str | None:
    """Digest of the event of a number; `None`: there is no such."""
    row = db.execute("SELECT digest FROM events WHERE seq = ?", (number,)).fetchone()
    return str(row[0]) if row else None


def now() -> str:
    """The time, as it is written down."""
    return datetime.now(UTC).isoformat(timespec="microseconds")


def select(db: sqlite3.Connection) -> str:
    """What begins a query for events, as `event_of` takes them."""
    return f"SELECT {_COLUMNS}, {said_in_file(db)}"


def said_in_file(db: sqlite3.Connection) -> str:
    """The column `said`, which version 1 did not have."""
    return "said" if version_of(db) > 1 else "NULL"


def event_of(row: Row) -> Event:
    """An event, from `COLUMNS` and `said`; what follows is passed over."""
    _seq, kind, sample, name, value, who, _at, number, strategy, seed, score, rank, said, *_ = row
    return Event(kind, sample, name, value, who, number, strategy, seed, score, rank, said)


def put_events(
    db: sqlite3.Connection,
    events: Sequence[Event],
    at: str,
    shown: Mapping[int, Mapping[str, Any]] | None = None,
) -> None:
    """Events after the newest, and what annotators are shown, by place in `events`."""
    newest = last(db)
    marks = ", ".join("?" * (len(COLUMNS) + 2))
    db.executemany(
        f"INSERT INTO events ({_COLUMNS}, digest, said) VALUES ({marks})", linked(events, newest, at)
    )
    put_shown(db, {newest[0] + 1 + place: what for place, what in (shown or {}).items()})


def put_shown(db: sqlite3.Connection, shown: Mapping[int, Mapping[str, Any]]) -> None:
    """What annotators are shown, by the number of the event `asked`."""
    db.executemany(
        "INSERT OR REPLACE INTO shown VALUES (?, ?)",
        [(number, json.dumps(what)) for number, what in shown.items()],
    )


def put_names(db: sqlite3.Connection, names: Sequence[str] | None) -> None:
    """The names of all samples, in place of those that were there."""
    db.execute("DROP INDEX names_by_id")  # faster made at once than row by row
    db.execute("DELETE FROM names")
    db.executemany("INSERT INTO names VALUES (?, ?)", enumerate(names or ()))
    db.execute("CREATE UNIQUE INDEX names_by_id ON names (id)")


def has_moved(db: sqlite3.Connection) -> bool:
    """Whether samples were elsewhere when they were written down than their names are now."""
    query = (
        "SELECT EXISTS (SELECT 1 FROM events AS e LEFT JOIN names AS n ON n.sample = e.sample "
        "WHERE e.id IS NOT NULL AND e.id IS NOT n.id)"
    )
    return bool(db.execute(query).fetchone()[0])


def put_meta(db: sqlite3.Connection, values: Mapping[str, Any]) -> None:
    """Facts about the run."""
    db.executemany(
        "INSERT INTO meta VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET value = excluded.value",
        [(key, json.dumps(value)) for key, value in values.items()],
    )


def put_round(db: sqlite3.Connection, row: dict[str, Any], at: str) -> None:
    """A round trained again replaces its measurements and keeps what only the earlier run knew."""
    old = db.execute("SELECT row FROM rounds WHERE round = ?", (row["round"],)).fetchone()
    merged = (from_json(old[0]) if old else {}) | row
    db.execute("INSERT OR REPLACE INTO rounds VALUES (?, ?, ?)", (row["round"], at, _dumps(merged)))


def _dumps(row: dict[str, Any]) -> str:
    return json.dumps({k: None if _is_nan(v) else v for k, v in row.items()})


def finite(row: dict[str, Any]) -> dict[str, Any]:
    """A round's measurements as they were given: JSON has no NaN."""
    return {key: float("nan") if value is None else value for key, value in row.items()}


def _is_nan(value: Any) -> bool:
    return isinstance(value, float) and math.isnan(value)

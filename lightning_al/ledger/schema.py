"""The ledger's tables, and how an older ledger is brought up to date.

`events` is append-only; every row carries a digest over the one before, so that a changed, missing or
moved row shows. `state` is a view: what the events amount to now. Open it with the `sqlite3` shell or
`pandas.read_sql("SELECT * FROM state", sqlite3.connect(path))`.
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

__all__ = ["COLUMNS", "GENESIS", "MIGRATIONS", "SCHEMA_VERSION", "TABLES", "Event", "digest"]

SCHEMA_VERSION = 1

#: From version n to n + 1, inside the transaction that opens the ledger for writing.
MIGRATIONS: dict[int, Callable[[sqlite3.Connection], None]] = {}

GENESIS = "0" * 64

TABLES = (
    # run_id, schema_version, seed, size, fingerprint, strategy, ...: one JSON value a key
    "CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL)",
    """CREATE TABLE events (
        seq      INTEGER PRIMARY KEY,  -- 1, 2, 3, ...
        kind     TEXT NOT NULL,        -- asked, labeled, relabeled, ignored, undone
        sample   INTEGER NOT NULL,     -- data set index
        id       TEXT,                 -- the user's name of the sample
        value    TEXT,                 -- the target, as JSON
        who      TEXT,                 -- who gave it; 'dataset' where the data set holds it
        at       TEXT NOT NULL,        -- when, UTC
        round    INTEGER,              -- 0 is the initial set
        strategy TEXT,                 -- what asked for it
        seed     INTEGER,
        score    REAL,                 -- the strategy's score when it was asked for
        rank     INTEGER,              -- place in the query, 0 first
        digest   TEXT NOT NULL         -- sha256 over the row before and this one
    )""",
    # of samples with ids, the index may change
    "CREATE INDEX events_by_name ON events (coalesce(id, sample), seq)",
    # one row a round, with its measurements as JSON; written again when a round is trained again
    "CREATE TABLE rounds (round INTEGER PRIMARY KEY, at TEXT NOT NULL, row TEXT NOT NULL)",
    # the run that may write now
    """CREATE TABLE owner (
        only INTEGER PRIMARY KEY CHECK (only = 1),
        token TEXT NOT NULL, host TEXT NOT NULL, pid INTEGER NOT NULL, started TEXT, job TEXT,
        since TEXT NOT NULL
    )""",
    """CREATE VIEW state AS
        SELECT e.sample, e.id,
               CASE e.kind WHEN 'relabeled' THEN 'labeled' ELSE e.kind END AS status,
               e.value, e.who, e.at, e.round,
               coalesce(a.strategy, e.strategy) AS strategy, coalesce(a.score, e.score) AS score,
               coalesce(a.rank, e.rank) AS rank
        FROM events AS e
        JOIN (SELECT max(seq) AS seq FROM events GROUP BY coalesce(id, sample)) AS last ON e.seq = last.seq
        LEFT JOIN events AS a ON a.seq = (
            SELECT max(seq) FROM events  -- back in the pool or ignored, it is no longer an answer
            WHERE coalesce(id, sample) = coalesce(e.id, e.sample) AND seq <= e.seq
                  AND kind IN ('asked', 'undone', 'ignored')
        ) AND a.kind = 'asked'
        WHERE e.kind <> 'undone'
        ORDER BY e.round, coalesce(a.rank, e.rank), e.seq""",
)


@dataclass(frozen=True)
class Event:
    """Something that happened to one sample; the columns of `events` but `seq`, `at` and `digest`."""

    kind: str
    sample: int
    id: str | None = None
    value: str | None = None
    who: str | None = None
    round: int | None = None
    strategy: str | None = None
    seed: int | None = None
    score: float | None = None
    rank: int | None = None


COLUMNS = (
    "seq", "kind", "sample", "id", "value", "who", "at", "round", "strategy", "seed", "score", "rank",
)  # fmt: skip


def digest(previous: str, row: tuple[Any, ...]) -> str:
    """The chain's next link: `row` holds the values of `COLUMNS`, in that order."""
    text = json.dumps(row, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(f"{previous}{text}".encode()).hexdigest()

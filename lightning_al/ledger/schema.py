"""The ledger's tables, and how an older ledger is brought up to date.

`events` is append-only; every row carries a digest over the one before, so that a changed, missing or
moved row shows. `state` is a view: what the events amount to now. Open it with the `sqlite3` shell or
`pandas.read_sql("SELECT * FROM state", sqlite3.connect(path))`.

What happens to a sample:

    asked      it is in a query now
    labeled    it has a label; relabeled: another one
    answered   an annotator's answer that is not the label, or not yet: a rule decides
    unsure     an annotator cannot tell yet; it goes on waiting
    ignored    never to be asked for again: skipped, broken, not wanted
    undone     back in the pool
    reverted   as it was before its last change; `value` says how that was
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from dataclasses import dataclass

__all__ = ["COLUMNS", "MIGRATIONS", "SCHEMA_VERSION", "TABLES", "Event"]

SCHEMA_VERSION = 2

_NAMES = "CREATE TABLE names (sample INTEGER PRIMARY KEY, id TEXT NOT NULL)"
_NAMES_BY_ID = "CREATE UNIQUE INDEX names_by_id ON names (id)"
# what an annotator is shown of a sample: a JSON object of texts and numbers, by its event `asked`
_SHOWN = "CREATE TABLE shown (asked INTEGER PRIMARY KEY, what TEXT NOT NULL)"

_STATE = """CREATE VIEW state AS
        SELECT e.sample, e.id,
               CASE e.kind WHEN 'relabeled' THEN 'labeled'
                           WHEN 'reverted' THEN json_extract(e.value, '$.status') ELSE e.kind END AS status,
               CASE e.kind WHEN 'reverted' THEN json_extract(e.value, '$.value') ELSE e.value END AS value,
               CASE e.kind WHEN 'reverted' THEN json_extract(e.value, '$.who') ELSE e.who END AS who,
               e.at, e.round,
               coalesce(a.strategy, e.strategy) AS strategy, coalesce(a.score, e.score) AS score,
               coalesce(a.rank, e.rank) AS rank
        FROM events AS e
        JOIN (SELECT max(seq) AS seq FROM events  -- what does not change the state left out
              WHERE kind NOT IN ('answered', 'unsure') GROUP BY coalesce(id, sample)) AS last
             ON e.seq = last.seq
        LEFT JOIN events AS a ON a.seq = (
            SELECT max(seq) FROM events  -- back in the pool or ignored, it is no longer an answer
            WHERE coalesce(id, sample) = coalesce(e.id, e.sample) AND seq <= e.seq
                  AND kind IN ('asked', 'undone', 'ignored', 'reverted')
        ) AND a.kind IN ('asked', 'reverted')
        WHERE e.kind <> 'undone'
              AND NOT (e.kind = 'reverted' AND json_extract(e.value, '$.status') = 'pool')
        ORDER BY e.round, coalesce(a.rank, e.rank), e.seq"""

TABLES = (
    # run_id, schema_version, seed, size, fingerprint, class_names, ...: one JSON value a key, see facts.py
    "CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL)",
    """CREATE TABLE events (
        seq      INTEGER PRIMARY KEY,  -- 1, 2, 3, ...
        kind     TEXT NOT NULL,        -- asked, labeled, ...: see above
        sample   INTEGER NOT NULL,     -- data set index
        id       TEXT,                 -- the user's name of the sample
        value    TEXT,                 -- the target, as JSON
        who      TEXT,                 -- who gave it; 'dataset' where the data set holds it
        at       TEXT NOT NULL,        -- when it was written here, UTC
        round    INTEGER,              -- of a query; of a label, the first training that sees it; 0: initial
        strategy TEXT,                 -- what asked for it
        seed     INTEGER,
        score    REAL,                 -- the strategy's score when it was asked for
        rank     INTEGER,              -- place in the query, 0 first
        digest   TEXT NOT NULL,        -- sha256 over the row before and this one
        said     TEXT                  -- when it was said, UTC, where the annotator's tool tells
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
    _NAMES, _NAMES_BY_ID, _SHOWN, _STATE,
)  # fmt: skip


def _with_answers_of_several(db: sqlite3.Connection) -> None:
    """1 to 2: names and descriptions of samples, answers by several annotators, changes taken back."""
    db.execute("ALTER TABLE events ADD COLUMN said TEXT")
    db.execute("DROP VIEW state")
    for statement in (_NAMES, _NAMES_BY_ID, _SHOWN, _STATE):
        db.execute(statement)


#: From version n to n + 1, inside the transaction that opens the ledger for writing, after a backup.
MIGRATIONS: dict[int, Callable[[sqlite3.Connection], None]] = {1: _with_answers_of_several}


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
    said: str | None = None


#: What a digest is made over; `said` follows, where there is such.
COLUMNS = (
    "seq", "kind", "sample", "id", "value", "who", "at", "round", "strategy", "seed", "score", "rank",
)  # fmt: skip

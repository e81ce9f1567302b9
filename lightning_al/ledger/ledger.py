"""5 LEDGER: what was asked, labelled and ignored, on disk before anything goes on.

    ActiveDataModule -> [Ledger] -> ledger.sqlite3

One SQLite file; how it is opened is in connection.py, what its tables are in schema.py.
"""

from __future__ import annotations

import os
import sqlite3
import uuid
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from lightning_al.ledger import statements as sql
from lightning_al.ledger.backups import advice
from lightning_al.ledger.chain import CHECKED, GENESIS, Calls, Row, verified
from lightning_al.ledger.connection import LedgerError, LedgerFile, from_json, version_of
from lightning_al.ledger.owner import Holder, may_live, this_process
from lightning_al.ledger.schema import SCHEMA_VERSION, TABLES, Event

__all__ = ["Ledger", "LedgerError"]

_KEPT_BACKUPS = 3
_AT_ONCE = 500  # numbers in one query; SQLite takes 999
_CHUNK = 1000


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
            values = {key: from_json(value) for key, value in db.execute("SELECT * FROM meta")}
        return _Facts(values, self.path)

    def events(self, after: int = 0) -> Iterator[tuple[int, Event]]:
        """Sequence numbers and events in order, those after `after`; checks the chain on the way.

        Raises:
            LedgerError: At the first row that does not follow from the one before.
        """
        calls = Calls()
        for part in self.parts(after, calls):
            for seq, kind, sample, name, value, common, score, rank, said, _ in part:
                call = calls[common]
                yield seq, Event(
                    kind, sample, name, value, call.who, call.round, call.strategy, call.seed, score, rank,
                    said,
                )  # fmt: skip

    def parts(self, after: int, calls: Calls) -> Iterator[list[Row]]:
        """The same some at a time, as rows of the columns `CHECKED`.

        Args:
            after: Number of the event before the first.
            calls: Takes in what rows have in common.

        Raises:
            LedgerError: At the first row that does not follow from the one before.
        """
        with self._file.reading() as db:
            previous = GENESIS
            if after:
                row = db.execute("SELECT digest FROM events WHERE seq = ?", (after,)).fetchone()
                if row is None:
                    raise self._broken(after, "is gone")
                previous = row[0]
            columns = CHECKED.format(said=sql.said_in_file(db))
            cursor = db.execute(f"SELECT {columns} FROM events WHERE seq > ? ORDER BY seq", (after,))
            cursor.arraysize = _CHUNK
            yield from verified(iter(cursor.fetchmany, []), (after, previous), self._broken, calls)
            if not after:
                self._check_end(db)

    def of_samples(self, samples: Sequence[int | str]) -> list[list[tuple[int, str, Event]]]:
        """What happened to each of some samples: number, time and event, in order.

        Args:
            samples: Their names where the run has `ids`, else their indices.
        """
        found: dict[int | str, list[tuple[int, str, Event]]] = {sample: [] for sample in samples}
        with self._file.reading() as db:
            query = f"{sql.select(db)} FROM events WHERE coalesce(id, sample) IN "
            for start in range(0, len(samples), _AT_ONCE):
                part = samples[start : start + _AT_ONCE]
                for row in db.execute(f"{query}({','.join('?' * len(part))}) ORDER BY seq", part):
                    sample = row[2] if row[3] is None else row[3]
                    found[sample].append((row[0], row[6], sql.event_of(row)))
        return [found[sample] for sample in samples]

    def asked(self, numbers: Sequence[int]) -> dict[int, tuple[Event, dict[str, Any] | None]]:
        """Events of kind "asked" by their number, each with what an annotator is shown, if that is known."""
        found: dict[int, tuple[Event, dict[str, Any] | None]] = {}
        with self._file.reading() as db:
            shown = "what FROM events LEFT JOIN shown ON asked = seq"
            query = f"{sql.select(db)}, {shown if version_of(db) > 1 else 'NULL FROM events'} WHERE seq IN "
            for start in range(0, len(numbers), _AT_ONCE):
                part = numbers[start : start + _AT_ONCE]
                for row in db.execute(f"{query}({','.join('?' * len(part))})", part):
                    found[row[0]] = sql.event_of(row), None if row[-1] is None else from_json(row[-1])
        return found

    def names(self) -> list[str] | None:
        """The names of all samples, in the order of the data set; `None` where they have none."""
        with self._file.reading() as db:
            if version_of(db) == 1:
                return None
            # As one text: a million rows take half as long again.
            names = "SELECT json_group_array(id) FROM (SELECT id FROM names ORDER BY sample)"
            found: list[str] = from_json(db.execute(names).fetchone()[0])
            return found or None

    def last(self) -> tuple[int, str]:
        """Sequence number and digest of the newest event; `(0, GENESIS)` of an empty ledger."""
        with self._file.reading() as db:
            return sql.last(db)

    def verify(self) -> int:
        """Check the digest of every event, and the file as SQLite does; returns how many events there are.

        Raises:
            LedgerError: At the first row that does not follow from the one before, or if the file is damaged.
        """
        count = sum(1 for _ in self.events())
        with self._file.reading() as db:
            (said,) = db.execute("PRAGMA integrity_check(1)").fetchone()
            if said != "ok":
                raise sqlite3.DatabaseError(f"malformed: {said}")
        return count

    def rounds(self) -> list[dict[str, Any]]:
        """The measurements of every round, in order."""
        with self._file.reading() as db:
            rows = db.execute("SELECT row FROM rounds ORDER BY round")
            return [sql.finite(from_json(row)) for (row,) in rows]

    # ------------------------------------------------------------------ writing

    def create(
        self,
        meta: dict[str, Any],
        first: Sequence[Event] = (),
        *,
        shown: Mapping[int, Mapping[str, Any]] | None = None,
        names: Sequence[str] | None = None,
    ) -> bool:
        """Make the ledger with its first events, whole or not at all.

        Args:
            meta: What the run records about itself.
            first: The events of round 0.
            shown: What an annotator is shown, by place in `first`.
            names: Of all samples, where they have such.

        Returns:
            Whether it was made: another process may have been quicker, then nothing happens.

        Raises:
            LedgerError: If it cannot be written, or was there before and is lost.
        """
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise LedgerError(
                f"The state directory {self.path.parent} cannot be made ({error}); labels must be on "
                "disk before training goes on. Pass a `state_dir` that can be written."
            ) from error
        self._file.check_not_lost()
        with self._file.writing(new=True, check=self._check_owner) as db:
            if db.execute("SELECT 1 FROM sqlite_master WHERE name = 'events'").fetchone():
                return False
            for statement in TABLES:
                db.execute(statement)
            meta = {"schema_version": SCHEMA_VERSION, "run_id": uuid.uuid4().hex[:12]} | meta
            sql.put_meta(db, meta)
            sql.put_events(db, first, sql.now(), shown)
            sql.put_names(db, names)
        return True

    def append(
        self,
        events: Sequence[Event],
        *,
        round_row: dict[str, Any] | None = None,
        after: int | None = None,
        shown: Mapping[int, Mapping[str, Any]] | None = None,
    ) -> None:
        """Write events, and on request a round's measurements, all of them or none.

        They are on disk when the call returns.

        Args:
            events: In order.
            round_row: Measurements of a round, with its number as `round`.
            after: Number of the event that the caller saw last; `None`: it does not matter.
            shown: What an annotator is shown, by place in `events`.

        Raises:
            LedgerError: If another process wrote since, or the disk refuses.
        """
        at = sql.now()
        with self._file.writing(check=self._check_owner) as db:
            last = sql.last(db)[0]
            if after is not None and last != after:
                raise LedgerError(
                    f"{self.path} was at event {after} and is at {last}: another process wrote at the same "
                    "moment. Nothing of this call was written; repeat it."
                )
            sql.put_events(db, events, at, shown)
            if round_row is not None:
                sql.put_round(db, round_row, at)

    def set_meta(self, **values: Any) -> None:
        """Record further facts about the run."""
        with self._file.writing(check=self._check_owner) as db:
            sql.put_meta(db, values)

    def set_names(self, names: Sequence[str] | None, meta: Mapping[str, Any]) -> None:
        """Record the names of all samples anew, with facts that go with them."""
        with self._file.writing(check=self._check_owner) as db:
            sql.put_names(db, names)
            sql.put_meta(db, {**meta, "moved": sql.has_moved(db)})

    def show(self, shown: Mapping[int, Mapping[str, Any]]) -> None:
        """Record what an annotator is shown, by the number of the event `asked`."""
        if shown:
            with self._file.writing(check=self._check_owner) as db:
                sql.put_shown(db, shown)

    def backup(self, name: str) -> Path:
        """Copy the ledger with SQLite's own backup to `backups/<name>.sqlite3`; the newest `round_*` stay."""
        target = self._file.copy(name)
        rounds = target.parent.glob("round_*.sqlite3")
        for old in sorted(rounds, key=lambda p: p.stat().st_mtime)[:-_KEPT_BACKUPS]:
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

    def holder(self) -> Holder | None:
        """The process that holds the ledger, or did until it died; `None`: nobody."""
        with self._file.reading() as db:
            row = db.execute("SELECT host, pid, started, job, since FROM owner").fetchone()
        if row is None:
            return None
        host, pid, started, job, since = row
        mine = (host, pid, started) == this_process()[:3]
        return Holder(str(host), int(pid), str(since), may_live=mine or may_live(host, pid, started, job))

    def _check_owner(self, db: sqlite3.Connection) -> None:
        owner = db.execute("SELECT token, host, pid, started, job, since FROM owner").fetchone()
        if owner and not (type(owner[1]) is str and type(owner[2]) is int and 0 < owner[2] < 2**31):
            raise sqlite3.DatabaseError(f"malformed owner {owner!r:.100}")
        if owner is None or owner[0] == self.token or not may_live(*owner[1:5]):
            return
        _, host, pid, _, _, since = owner
        raise LedgerError(
            f"The state directory {self.path.parent} is in use by process {pid} on {host} since "
            f"{since}; two runs must not write one ledger. Wait for that run or end it; if it is gone "
            f"(another host cannot be asked), run `lightning-al release --force {self.path.parent}`, "
            f"or `Ledger({str(self.path)!r}).release(force=True)`; "
            "or choose another `state_dir`."
        )

    def _check_end(self, db: sqlite3.Connection) -> None:
        """The digests cannot tell that the last rows are gone; the index, which is elsewhere, can."""
        last, indexed = db.execute(
            "SELECT (SELECT max(seq) FROM events), (SELECT max(seq) FROM events INDEXED BY events_by_name)"
        ).fetchone()
        if last != indexed:
            raise self._broken(min(last or 0, indexed or 0) + 1, "is missing")

    def _broken(self, seq: int, what: str) -> LedgerError:
        return LedgerError(
            f"Event {seq} of {self.path} {what}: the digests do not follow on. Nothing was changed. "
            f"{advice(self.path)}"
        )


class _Facts(dict[str, Any]):
    """What a run recorded of itself; what it lacks, every run records: the file is damaged."""

    def __init__(self, values: Mapping[str, Any], path: Path) -> None:
        super().__init__(values)
        self.path = path

    def __missing__(self, key: str) -> Any:
        raise LedgerError(
            f"{self.path} does not say what {key!r} of its run is, which every run records: it was changed. "
            f"{advice(self.path)}"
        )

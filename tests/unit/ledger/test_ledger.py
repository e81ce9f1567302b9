import json
import os
import resource
import shutil
import socket
import sqlite3
import subprocess
import sys
from contextlib import closing, contextmanager

import pytest

from lightning_al.ledger import connection
from lightning_al.ledger import ledger as ledger_module
from lightning_al.ledger.chain import GENESIS
from lightning_al.ledger.checking import check
from lightning_al.ledger.ledger import Ledger, LedgerError
from lightning_al.ledger.owner import began
from lightning_al.ledger.schema import SCHEMA_VERSION, Event


@pytest.fixture
def ledger(tmp_path):
    """Three samples asked for, of which two are labelled."""
    ledger = Ledger(tmp_path / "run" / "ledger.sqlite3")
    ledger.create({"size": 10, "seed": 0})
    ledger.append([Event("asked", i, round=1, rank=r, score=0.5) for r, i in enumerate([4, 2, 7])])
    ledger.append([Event("labeled", 4, value="1", who="a", round=1), Event("labeled", 2, value="0", round=1)])
    return ledger


def change(ledger, *statements):
    with closing(sqlite3.connect(ledger.path)) as db, db:
        for statement in statements:
            db.execute(statement)


def in_child(work):
    """Exit status 0 of a forked child in which `work` raised `LedgerError`; its message is returned."""
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        status, text = 1, ""
        try:
            work()
        except LedgerError as error:
            status, text = 0, str(error)
        except BaseException as error:
            text = repr(error)
        finally:
            os.write(write, text.encode())
            os._exit(status)
    os.close(write)
    with os.fdopen(read) as file:
        text = file.read()
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0, text
    return text


# ---------------------------------------------------------------- what it keeps


def test_events_come_back_as_they_were_written(ledger):
    kinds = [(seq, event.kind, event.sample, event.value) for seq, event in ledger.events()]
    assert kinds == [
        (1, "asked", 4, None), (2, "asked", 2, None), (3, "asked", 7, None),
        (4, "labeled", 4, "1"), (5, "labeled", 2, "0"),
    ]  # fmt: skip
    assert [seq for seq, _ in ledger.events(after=3)] == [4, 5]
    assert ledger.verify() == ledger.last()[0] == 5
    assert ledger.meta()["size"] == 10
    assert ledger.meta()["schema_version"] == SCHEMA_VERSION


def test_an_empty_ledger(tmp_path):
    ledger = Ledger(tmp_path / "ledger.sqlite3")
    assert not ledger.exists()
    with pytest.raises(LedgerError, match=r"no ledger at .* made when training starts.*check `state_dir`"):
        ledger.meta()
    assert not ledger.path.exists()
    ledger.create({})
    assert ledger.last() == (0, GENESIS)
    assert ledger.verify() == 0


def test_making_it_twice_changes_nothing(ledger):
    before = ledger.meta()
    assert ledger.create({"size": 99}, [Event("asked", 1)]) is False
    assert ledger.meta() == before
    assert ledger.verify() == 5


def test_it_is_made_with_its_first_events_or_not_at_all(tmp_path, monkeypatch):
    ledger = Ledger(tmp_path / "ledger.sqlite3")
    monkeypatch.setattr(ledger_module.sql, "put_events", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        ledger.create({}, [Event("labeled", 1)])
    monkeypatch.undo()
    assert not ledger.exists()
    assert ledger.create({}, [Event("labeled", 1)])
    assert ledger.verify() == 1


def test_the_view_says_what_the_events_amount_to(ledger):
    ledger.append([Event("relabeled", 4, value="3", round=1), Event("undone", 2), Event("ignored", 9)])
    with closing(sqlite3.connect(ledger.path)) as db:
        rows = db.execute("SELECT sample, status, value FROM state ORDER BY sample").fetchall()
    assert rows == [(4, "labeled", "3"), (7, "asked", None), (9, "ignored", None)]


def test_the_view_tells_samples_apart_by_id_where_the_order_has_changed(tmp_path):
    """The data set was turned round: place 0 was a's when it was asked for, and is b's when b is labelled."""
    ledger = Ledger(tmp_path / "ledger.sqlite3")
    ledger.create({}, [Event("asked", 0, id="a", round=1, rank=0, score=0.5)])
    ledger.append([Event("labeled", 0, id="b", value="1", round=1)])
    with closing(sqlite3.connect(ledger.path)) as db:
        rows = db.execute("SELECT id, status, score FROM state ORDER BY id").fetchall()
    assert rows == [("a", "asked", 0.5), ("b", "labeled", None)]


def test_a_label_shows_the_score_and_rank_it_was_asked_for_with(ledger):
    with closing(sqlite3.connect(ledger.path)) as db:
        rows = db.execute("SELECT sample, status, score, rank FROM state").fetchall()
    assert rows == [(4, "labeled", 0.5, 0), (2, "labeled", 0.5, 1), (7, "asked", 0.5, 2)]


def test_the_view_knows_what_asked_for_a_sample_wherever_it_has_moved_since(tmp_path):
    ledger = Ledger(tmp_path / "ledger.sqlite3")
    ledger.create({}, [Event("asked", 0, id="a", round=1, rank=3, score=0.5, strategy="mine")])
    ledger.append([Event("labeled", 5, id="a", value="1", round=1)])
    with closing(sqlite3.connect(ledger.path)) as db:
        rows = db.execute("SELECT id, status, strategy, score, rank FROM state").fetchall()
    assert rows == [("a", "labeled", "mine", 0.5, 3)]


@pytest.mark.parametrize("kind", ["undone", "ignored"])
def test_a_query_that_was_taken_back_did_not_ask_for_a_later_label(ledger, kind):
    ledger.append([Event(kind, 7), Event("labeled", 7, value="2", round=1)])
    with closing(sqlite3.connect(ledger.path)) as db:
        rows = db.execute("SELECT status, score, rank FROM state WHERE sample = 7").fetchall()
    assert rows == [("labeled", None, None)]


def test_the_view_of_a_large_ledger_is_quick(ledger):
    ledger.append([Event("asked", i, id=f"s{i}", round=2, rank=i) for i in range(20_000)])
    ledger.append([Event("labeled", i, id=f"s{i}", value="0", round=2) for i in range(20_000)])
    with closing(sqlite3.connect(ledger.path)) as db:
        plan = str(db.execute("EXPLAIN QUERY PLAN SELECT * FROM state").fetchall())
        rows = db.execute("SELECT count(*) FROM state WHERE rank IS NOT NULL AND id IS NOT NULL").fetchall()
    assert rows == [(20_000,)]
    assert "SEARCH events USING" in plan  # one look-up a sample, not a walk through all events


def test_scores_that_are_not_finite_keep_the_chain_whole(ledger):
    scores = [float("nan"), float("inf"), float("-inf")]
    ledger.append([Event("asked", i, score=score) for i, score in enumerate(scores)])
    assert ledger.verify() == 8
    assert [event.score for _, event in ledger.events(after=5)] == [None, float("inf"), float("-inf")]


def test_rounds_keep_what_only_an_earlier_run_knew(ledger):
    ledger.append([], round_row={"round": 0, "asked": 3, "acc": float("nan")})
    ledger.append([], round_row={"round": 1, "asked": 2})
    ledger.append([], round_row={"round": 0, "acc": 0.5})
    assert ledger.rounds() == [{"round": 0, "asked": 3, "acc": 0.5}, {"round": 1, "asked": 2}]


def test_facts_can_be_corrected(ledger):
    ledger.set_meta(strategy="Margin()", seed=3)
    assert (ledger.meta()["strategy"], ledger.meta()["seed"]) == ("Margin()", 3)


def test_who_saw_an_older_state_writes_nothing(ledger):
    with pytest.raises(LedgerError, match=r"at event 3 and is at 5: another process.*Nothing.*repeat"):
        ledger.append([Event("asked", 1)], after=3)
    assert ledger.verify() == 5
    ledger.append([Event("asked", 1)], after=5)
    assert ledger.verify() == 6


# ---------------------------------------------------------------- damage


TAMPERED = {
    "a changed value": ["UPDATE events SET value = '2' WHERE seq = 4"],
    "a changed sample": ["UPDATE events SET sample = 5 WHERE seq = 1"],
    "a changed digest": ["UPDATE events SET digest = 'x' || substr(digest, 2) WHERE seq = 5"],
    "a changed time": ["UPDATE events SET at = '2000-01-01' WHERE seq = 2"],
    "a deleted row": ["DELETE FROM events WHERE seq = 2"],
    "a deleted first row": ["DELETE FROM events WHERE seq = 1"],
    "a moved row": ["UPDATE events SET seq = 99 WHERE seq = 2"],
    "two rows in each other's place": [
        "UPDATE events SET seq = 99 WHERE seq = 4",
        "UPDATE events SET seq = 4 WHERE seq = 5",
        "UPDATE events SET seq = 5 WHERE seq = 99",
    ],
    "an inserted row": ["INSERT INTO events SELECT 6, kind, 8, id, value, who, at, round, strategy, seed, "
                        "score, rank, digest, said FROM events WHERE seq = 5"],
}  # fmt: skip


@pytest.mark.parametrize("what", TAMPERED)
def test_tampering_shows(ledger, what):
    change(ledger, *TAMPERED[what])
    with pytest.raises(LedgerError, match=r"Event \d+ of .*digests do not follow on.*Nothing was changed"):
        ledger.verify()


def test_damage_names_the_newest_backup(ledger):
    backup = ledger.backup("round_1")
    change(ledger, *TAMPERED["a deleted row"])
    with pytest.raises(
        LedgerError, match=rf"Event 2 .* is missing.*{backup.name}; to go on with it: move the damaged"
    ):
        ledger.verify()
    shutil.copy(backup, ledger.path)
    assert ledger.verify() == 5


def test_reading_on_from_an_event_that_is_gone(ledger):
    change(ledger, "DELETE FROM events WHERE seq > 3")
    with pytest.raises(LedgerError, match=r"Event 5 .* is gone"):
        list(ledger.events(after=5))


def test_a_flipped_byte_in_the_file(ledger):
    content = bytearray(ledger.path.read_bytes())
    place = content.index(b"labeled", content.index(b"asked")) if b"asked" in content else 0
    flipped = 0
    for at in (place, content.rindex(b"labeled"), content.rindex(b"asked")):
        damaged = bytearray(content)
        damaged[at] ^= 1
        ledger.path.write_bytes(damaged)
        try:
            ledger.verify()
        except LedgerError:
            flipped += 1
    assert flipped >= 2  # the first may lie in the text of the schema


@pytest.mark.parametrize("size", [1, 100, 4096, 5000])
def test_a_truncated_file_is_no_ledger_and_stays_as_it_is(ledger, size):
    content = ledger.path.read_bytes()[:size]
    ledger.path.write_bytes(content)
    for act in (ledger.verify, lambda: ledger.append([Event("asked", 1)]), ledger.claim):
        with pytest.raises(LedgerError, match=r"not a readable ledger|no ledger of"):
            act()
    assert ledger.path.read_bytes() == content


def test_what_is_no_database_is_left_alone(tmp_path):
    path = tmp_path / "ledger.sqlite3"
    path.write_text("my notes " * 100)
    for act in (Ledger(path).meta, lambda: Ledger(path).create({}), lambda: Ledger(path).backup("x")):
        with pytest.raises(LedgerError, match=r"not a readable ledger.*Nothing was changed.*`state_dir`"):
            act()
    assert path.read_text().startswith("my notes")


def test_a_database_of_something_else_is_left_alone(tmp_path):
    path = tmp_path / "ledger.sqlite3"
    with closing(sqlite3.connect(path)) as db, db:
        db.execute("CREATE TABLE cats (name TEXT)")
    content = path.read_bytes()
    for act in (Ledger(path).meta, lambda: Ledger(path).create({}), Ledger(path).claim):
        with pytest.raises(LedgerError, match=r"no ledger of .*: tables \['cats'\].*move that file"):
            act()
    assert path.read_bytes() == content


# ---------------------------------------------------------------- versions


def test_a_newer_schema_is_refused(ledger):
    ledger.set_meta(schema_version=SCHEMA_VERSION + 1)
    for act in (ledger.verify, lambda: ledger.append([]), ledger.claim):
        with pytest.raises(LedgerError, match=rf"version {SCHEMA_VERSION + 1}; .* up to .*Upgrade"):
            act()


def migrate(monkeypatch, step):
    monkeypatch.setattr(connection, "SCHEMA_VERSION", SCHEMA_VERSION + 1)
    monkeypatch.setitem(connection.MIGRATIONS, SCHEMA_VERSION, step)


def test_an_older_schema_is_brought_up_to_date_by_the_first_write(ledger, monkeypatch):
    migrate(monkeypatch, lambda db: db.execute("CREATE TABLE notes (text TEXT)"))
    assert ledger.verify() == 5  # reading does not write
    assert ledger.meta()["schema_version"] == SCHEMA_VERSION
    ledger.append([Event("asked", 1)])
    assert ledger.meta()["schema_version"] == SCHEMA_VERSION + 1
    ledger.append([Event("asked", 3)])  # not migrated twice: the table is there
    with closing(sqlite3.connect(ledger.path)) as db:
        assert db.execute("SELECT count(*) FROM notes").fetchone() == (0,)
    assert ledger.verify() == 7


def test_a_failing_migration_leaves_the_old_ledger(ledger, monkeypatch):
    def step(db):
        db.execute("CREATE TABLE notes (text TEXT)")
        db.execute("no sql")

    migrate(monkeypatch, step)
    with pytest.raises(LedgerError, match="last call was undone"):
        ledger.append([Event("asked", 1)])
    monkeypatch.undo()
    assert ledger.meta()["schema_version"] == SCHEMA_VERSION
    assert ledger.verify() == 5
    with closing(sqlite3.connect(ledger.path)) as db:
        assert not db.execute("SELECT 1 FROM sqlite_master WHERE name = 'notes'").fetchone()


# ---------------------------------------------------------------- disks


def test_a_state_directory_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(LedgerError, match=r"state directory .* cannot be made.*Pass a `state_dir` that can"):
        Ledger(tmp_path / "file" / "ledger.sqlite3").create({})


@contextmanager
def as_nobody(ledger):
    """For the block, the ledger's folder is where others come to, and this runs work as one of them."""
    own = 4 if "PYTEST_XDIST_WORKER" in os.environ else 3
    for path in ledger.path.parent.parents[:own]:  # pytest's own folders
        path.chmod(0o755)

    def run(act):
        def work():
            if os.getuid() == 0:
                os.setuid(65534)
            act()

        return in_child(work)

    try:
        yield run
    finally:
        ledger.path.parent.chmod(0o755)
        ledger.path.chmod(0o644)


def test_a_read_only_directory_says_so_and_can_still_be_read(ledger):
    with as_nobody(ledger) as run:
        ledger.path.chmod(0o444)
        ledger.path.parent.chmod(0o555)
        for act in (
            lambda: ledger.append([Event("asked", 1)]),
            ledger.claim,
            lambda: ledger.backup("round_1"),
            lambda: Ledger(ledger.path.parent / "other.sqlite3").create({}),
        ):
            assert "cannot be written" in run(lambda act=act: (ledger.verify(), act()))
    assert ledger.verify() == 5


def test_what_has_begun_is_to_be_made_writable_and_not_begun_elsewhere(ledger):
    with as_nobody(ledger) as run:
        ledger.path.chmod(0o444)
        ledger.path.parent.chmod(0o555)
        for act in (ledger.claim, lambda: ledger.append([Event("asked", 1)])):
            said = run(act)
            assert "cannot be written" in said
            assert "Make the file and its folder writable" in said
            assert "Pass a `state_dir`" not in said
        assert "Pass a `state_dir`" in run(lambda: Ledger(ledger.path.parent / "new.sqlite3").create({}))


def test_who_may_not_read_is_not_told_of_writing(ledger):
    ledger.backup("round_0")
    with as_nobody(ledger) as run:
        for place, bits in ((ledger.path, 0o200), (ledger.path.parent, 0o600)):
            before = place.stat().st_mode
            place.chmod(bits)
            for act in (ledger.meta, ledger.verify, lambda: check(ledger.path), ledger.exists):
                if act == ledger.exists and place == ledger.path:
                    continue
                said = run(act)
                assert "cannot be read" in said
                assert "Let this user read the file" in said
                assert "written" not in said
                assert "backup" not in said
            place.chmod(before)


def test_half_a_commit_that_may_not_be_undone_says_so(ledger):
    db = sqlite3.connect(ledger.path, isolation_level=None)
    db.execute("PRAGMA cache_size = 1")
    db.execute("BEGIN")
    db.executemany("INSERT INTO shown VALUES (?, ?)", [(i, "x" * 4000) for i in range(100, 200)])
    half = [(path, path.read_bytes()) for path in ledger.path.parent.glob("ledger*") if path.is_file()]
    db.execute("ROLLBACK")
    db.close()
    assert len(half) == 2
    for path, content in half:
        path.write_bytes(content)
    with as_nobody(ledger) as run:
        ledger.path.chmod(0o444)
        ledger.path.parent.chmod(0o555)
        said = run(ledger.meta)
        assert "a commit that a killed process left half done, and cannot be written to undo it" in said
        assert "Make the file and its folder writable" in said
    assert ledger.verify() == 5


def test_a_full_disk_undoes_the_call(ledger):
    def work():
        resource.setrlimit(resource.RLIMIT_FSIZE, (ledger.path.stat().st_size + 8192,) * 2)
        ledger.append([Event("labeled", i, value="7" * 100) for i in range(5000)])

    before = ledger.last()
    text = in_child(work)
    assert "What was written before is safe" in text
    assert "Free disk space" in text
    assert ledger.last() == before
    assert ledger.verify() == 5


def test_a_kill_in_the_middle_of_a_commit_loses_nothing(ledger, tmp_path):
    """The journal that a killed process leaves is rolled back by the next who reads."""
    script = (
        "import os, signal, sqlite3, sys\n"
        "db = sqlite3.connect(sys.argv[1], isolation_level=None)\n"
        "db.execute('PRAGMA cache_size = 1'); db.execute('BEGIN')\n"
        "db.execute('UPDATE events SET value = 9')\n"
        "db.executemany('INSERT INTO meta VALUES (?, ?)', [(str(i), 'x' * 3000) for i in range(200)])\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    subprocess.run([sys.executable, "-c", script, str(ledger.path)], check=False, timeout=600)
    assert os.path.getsize(f"{ledger.path}-journal") > 0
    assert ledger.verify() == 5
    assert "1" not in ledger.meta()
    ledger.append([Event("asked", 1)])
    assert ledger.verify() == 6


def test_a_path_with_odd_characters(tmp_path):
    ledger = Ledger(tmp_path / "50% of #1? größe" / "ledger.sqlite3")
    ledger.create({}, [Event("asked", 1)])
    assert ledger.verify() == 1
    assert ledger.backup("round_0").exists()


# ---------------------------------------------------------------- owners


def test_a_live_run_keeps_others_out(ledger):
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        claim_for(ledger, process.pid)
        for act in (lambda: ledger.append([Event("asked", 1)]), ledger.claim, ledger.release):
            with pytest.raises(
                LedgerError, match=rf"in use by process {process.pid} on .*Wait .*release\(force=True\)"
            ):
                act()
        assert ledger.verify() == 5  # reading is always allowed
        process.communicate(b"\n")
    ledger.claim()  # the other process is gone
    ledger.append([Event("asked", 1)])
    assert ledger.verify() == 6


def claim_for(ledger, pid, host=None, started=None, job=None):
    """As if another process had claimed it."""
    started = began(pid) if started is None else started
    with closing(sqlite3.connect(ledger.path)) as db, db:
        db.execute("DELETE FROM owner")
        db.execute(
            "INSERT INTO owner VALUES (1, 'other', ?, ?, ?, ?, 'today')",
            (host or socket.gethostname(), pid, started, job),
        )


def test_a_process_id_given_out_again_is_not_the_owner(ledger):
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        claim_for(ledger, process.pid, started="1")  # began at another time
        ledger.claim()
        process.communicate(b"\n")


def test_a_run_on_another_host_is_let_go_by_force_only(ledger, monkeypatch):
    claim_for(ledger, 1, host="elsewhere")
    with pytest.raises(LedgerError, match="on elsewhere"):
        ledger.append([Event("asked", 1)])
    ledger.release(force=True)
    ledger.append([Event("asked", 1)])
    claim_for(ledger, 1, host="elsewhere", job="77")
    monkeypatch.setenv("SLURM_JOB_ID", "77")  # a requeued job goes on, on another host
    ledger.append([Event("asked", 3)])


def test_processes_of_one_run_share_it(ledger):
    ledger.claim()
    other = Ledger(ledger.path, token=ledger.token)
    other.append([Event("asked", 1)])
    other.release()
    with closing(sqlite3.connect(ledger.path)) as db:
        assert db.execute("SELECT count(*) FROM owner").fetchone() == (0,)


@pytest.mark.parametrize("mode", ["delete", "wal"])
def test_every_transaction_waits_for_the_disk_and_keeps_a_rollback_journal(ledger, mode):
    change(ledger, f"PRAGMA journal_mode = {mode}")
    with ledger._file.writing() as db:
        assert db.execute("PRAGMA synchronous").fetchone() == (3,)  # EXTRA: the journal's removal too
        assert db.execute("PRAGMA journal_mode").fetchone() == ("delete",)


# ---------------------------------------------------------------- backups


def test_the_newest_three_backups_stay(ledger):
    for number in range(5):
        path = ledger.backup(f"round_{number}")
        os.utime(path, (number, number))
        ledger.append([Event("asked", number)])
    kept = sorted(p.name for p in (ledger.path.parent / "backups").iterdir())
    assert kept == ["round_2.sqlite3", "round_3.sqlite3", "round_4.sqlite3"]
    assert Ledger(path).verify() == 5 + 4


def test_a_backup_replaces_one_of_its_name(ledger):
    ledger.backup("round_0")
    ledger.append([Event("asked", 1)])
    assert Ledger(ledger.backup("round_0")).verify() == 6


def test_values_in_the_ledger_are_plain_json(ledger):
    with closing(sqlite3.connect(ledger.path)) as db:
        assert [json.loads(v) for (v,) in db.execute("SELECT value FROM meta WHERE key = 'size'")] == [10]

"""Two that write at once, and owners that are alive, dead or cannot be asked."""

import os
import signal
import socket
import sqlite3
import time
from contextlib import closing

import pytest
from integration.small import blobs, pool
from warm import server

from faults.command import LIMIT, Command, Undisturbed, end, verdict
from faults.kills import Kill, main, watch
from lightning_al import Ledger
from lightning_al.ledger import LedgerError
from lightning_al.ledger.book import Book

HOW = {"script": pool, "tool": Book}


def label_all(folder, how, name, samples):
    """One after the other, in a process of its own; notes what was accepted."""
    writer, truth = HOW[how](folder), blobs().tensors[1].tolist()
    with (folder / name).open("w") as accepted:
        while samples:
            try:
                new = writer.label(samples[:1], [truth[samples[0]]], who=name)
            except LedgerError as error:
                if "another process wrote at the same moment. Nothing" not in str(error):
                    raise
                continue  # as it says
            if new != 0:
                accepted.write(f"{samples[0]}\n")
                accepted.flush()
                os.fsync(accepted.fileno())
            samples = samples[1:]


@pytest.mark.parametrize("hows", [("script", "script"), ("script", "tool"), ("tool", "tool")])
def test_what_two_label_at_once_is_there_once(tmp_path, hows):
    data = pool(tmp_path)
    data.open()
    data.release()
    rest, names = data.pool_indices.tolist(), ("Ada", "Bob")
    shares = [[s for s in rest if s % 3 != 1], [s for s in rest if s % 3 != 2]]  # a third of them by both
    processes = [
        server().Process(target=label_all, args=(tmp_path, how, name, share))
        for how, name, share in zip(hows, names, shares, strict=True)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join(LIMIT)
    assert [process.exitcode for process in processes] == [0, 0]
    ledger = Ledger(tmp_path / "ledger.sqlite3")
    assert ledger.verify() > 12 + len(rest)
    said = [event for _, event in ledger.events() if event.who in names]
    for name, share in zip(names, shares, strict=True):
        accepted = [int(line) for line in (tmp_path / name).read_text().splitlines()]
        assert sorted(event.sample for event in said if event.who == name) == sorted(accepted) == share
    truth = blobs().tensors[1].tolist()
    assert all(int(event.value) == truth[event.sample] for event in said)
    assert sorted(event.sample for event in said if event.kind == "labeled") == rest


# ---------------------------------------------------------------- owners


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    return Undisturbed.of(Command(tmp_path_factory.mktemp("undisturbed"), "dataset", 1))


@pytest.fixture
def killed(tmp_path):
    """A run that was killed: its ledger is still held."""
    command = Command(tmp_path / "run", "dataset", 1)
    assert command.start(Kill(0, "training", call=15))
    return command


def held(command, **values):
    """The row of the owner, changed as given."""
    with closing(sqlite3.connect(command.state / "ledger.sqlite3")) as db, db:
        for name, value in values.items():
            db.execute(f"UPDATE owner SET {name} = ?", (value,))
        (pid,) = db.execute("SELECT pid FROM owner").fetchone()
    return pid


def goes_on(command, undisturbed):
    command.suffer([])
    return not any(verdict(command, undisturbed).values())


def test_a_dead_owner_is_passed_over(killed, undisturbed):
    assert not os.path.exists(f"/proc/{held(killed)}")
    assert goes_on(killed, undisturbed)


def test_another_process_with_the_number_of_the_dead_owner_is_not_it(killed, undisturbed):
    """Also after the host was started anew: numbers begin again, times since then are others."""
    held(killed, pid=os.getpid(), started="12345")
    assert goes_on(killed, undisturbed)


def test_an_owner_on_another_host_is_let_go_by_who_knows_that_it_is_gone(killed, undisturbed):
    held(killed, host="elsewhere")
    assert "in use by process" in killed.refused()
    assert "release(force=True)" in killed.said()
    killed.check_accepted()
    Ledger(killed.state / "ledger.sqlite3").release(force=True)
    assert goes_on(killed, undisturbed)


def run_that_stops(folder):
    """For a while, in the middle of a training."""

    def act(number, call):
        if number == 15:
            (folder / "stopped").touch()
            os.kill(os.getpid(), signal.SIGSTOP)
        return call()

    watch("training", act)
    main(folder, "dataset", {}, 1, 0, 0, None, False)


def test_a_live_owner_is_not_passed_over_and_ends_as_if_nobody_had_come(tmp_path, undisturbed):
    command = Command(tmp_path / "run", "dataset", 1)
    command.folder.mkdir()
    process = server().Process(target=run_that_stops, args=(command.folder,))
    process.start()
    try:
        until = time.monotonic() + LIMIT
        while not (command.folder / "stopped").exists():
            assert time.monotonic() < until
            time.sleep(0.02)
        assert f"in use by process {process.pid} on {socket.gethostname()}" in command.refused()
        os.kill(process.pid, signal.SIGCONT)
        process.join(LIMIT)
        assert process.exitcode == 0
    finally:
        end(process)
    assert not any(verdict(command, undisturbed).values())

"""Ctrl-C, sent to a run in a process of its own; kill -9 is in test_kills.py."""

import os
import signal
import time

import pytest
from distributed.launch import in_session, still_there
from integration.small import queries
from warm import server

from faults.runs import known, main
from lightning_al import Ledger

LIMIT = 300


@pytest.fixture(scope="module")
def processes():
    """Forks of a process that has imported everything, to be quick."""
    context = server()
    started = []

    def start(*arguments):
        process = context.Process(target=main, args=[str(a) for a in arguments])
        process.start()
        started.append(process)
        return process

    yield start
    for process in started:
        if process.is_alive():
            process.kill()
        process.join()
        for pid in in_session(process.pid):
            os.kill(pid, signal.SIGKILL)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory, processes):
    """What the run ends with."""
    folder = tmp_path_factory.mktemp("undisturbed") / "state"
    ended(processes(folder, ""))
    return known(folder)


def ended(process):
    process.join(LIMIT)
    assert process.exitcode is not None, "it hangs"
    return process.exitcode


def wait_for(path):
    until = time.monotonic() + LIMIT
    while not path.exists():
        assert time.monotonic() < until, f"{path} never came"
        time.sleep(0.01)


@pytest.mark.parametrize(
    ("place", "asked", "labeled"), [("training", 8, 8), ("scoring", 8, 8), ("labelling", 8, 0)]
)
def test_ctrl_c_leaves_no_half_query_and_no_child_and_the_same_command_goes_on(
    tmp_path, processes, undisturbed, place, asked, labeled
):
    state = tmp_path / "state"
    process = processes(state, place)
    wait_for(tmp_path / "state.at")
    assert len(in_session(process.pid)) == (2 if place == "training" else 1)  # a loader's worker
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does
    assert ended(process) == 1
    assert still_there(process.pid, grace=10) == []
    initial = 12 if place == "labelling" else 0
    assert {r: len(q) for r, q in queries(state).items() if r} == {1: asked}
    kinds = [event.kind for _, event in Ledger(state / "ledger.sqlite3").events()]
    assert kinds.count("labeled") == 12 + labeled
    assert kinds.count("asked") == initial + asked
    (tmp_path / "state.told").touch()
    assert ended(processes(state, place)) == 0
    asked_for, rows = undisturbed
    got, got_rows = known(state)
    assert {r: q for r, q in got.items() if r} == asked_for
    assert got_rows == rows

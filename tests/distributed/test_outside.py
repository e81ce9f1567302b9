"""Ranks started from outside meet before they look at the ledger; they need no disk in common."""

import pytest
from integration.small import queries

from distributed.launch import launch
from lightning_al import Ledger

pytestmark = pytest.mark.distributed


@pytest.fixture(scope="module")
def begun(tmp_path_factory):
    """By torchrun, in a folder without any ledger."""
    ended = launch("outside.py", tmp_path_factory.mktemp("begun"), "2", "devices", ranks=2, by="torchrun")
    assert ended.status == 0, ended.said[-4000:]
    return ended.notes(0), ended.notes(1), asked(ended)


@pytest.fixture(scope="module")
def apart(tmp_path_factory):
    """Every rank in a folder of its own, which is all that it sees."""
    folder = tmp_path_factory.mktemp("apart")
    ended = launch("outside.py", folder, "2", "devices", ranks=2, apart=True)
    assert ended.status == 0, ended.said[-4000:]
    return ended


def asked(ended):
    folders = ("best", "given", "committee", "lightning_al_runs/run_0001")
    return {folder: queries(ended.folder_of(0) / folder) for folder in folders}


def test_ranks_started_at_once_begin_with_fit_rounds_or_fit(begun):
    first, second, there = begun
    assert first == second
    assert [row["labeled"] for row in first["best"]] == [12, 20, 28]
    assert [len(there[folder]) for folder in there] == [2, 1, 1, 2]
    assert len(first["drop_in"]) == 28


def test_they_go_on_from_a_ledger_that_is_there_also_where_lightning_starts_them(begun, tmp_path_factory):
    first, _, there = begun
    folder = next(tmp_path_factory.getbasetemp().glob("begun*"))
    for rounds, how in (("3", {"ranks": 2, "by": "slurm"}), ("4", {})):
        ended = launch("outside.py", folder, rounds, "devices", **how)
        assert ended.status == 0, ended.said[-4000:]
        found = [ended.notes(rank)["best"] for rank in (0, 1)]
        assert found[0] == found[1]
        assert len(found[0]) == int(rounds) + 1
        assert found[0][:2] == first["best"][:2]
        now = queries(folder / "best")
        assert len(now) == int(rounds)
        assert {number: now[number] for number in (1, 2)} == there["best"]


def test_ranks_without_a_disk_in_common_ask_the_same(begun, apart):
    """Weights, best checkpoints, members, given vectors and what is kept of the pool."""
    first, second, there = begun
    assert asked(apart) == there
    assert [apart.notes(rank) for rank in (0, 1)] == [first, second]


def test_only_rank_0_has_a_ledger_and_writes_weights(apart):
    assert {path.parent.name for path in apart.folder_of(0).rglob("ledger.sqlite3")} == {
        "best", "given", "committee", "run_0001",
    }  # fmt: skip
    assert all(Ledger(path).verify() for path in apart.folder_of(0).rglob("ledger.sqlite3"))
    left = [path.name for path in apart.folder_of(1).rglob("*") if path.is_file()]
    assert sorted(name for name in left if not name.startswith("note_1_")) == ["given.npy"]


def test_two_nodes_of_one_device_ask_as_two_devices_of_one_node(begun, tmp_path):
    first, _, there = begun
    ended = launch("outside.py", tmp_path, "1", "nodes", ranks=2, by="nodes", apart=True)
    assert ended.status == 0, ended.said[-4000:]
    assert queries(ended.folder_of(0) / "best") == {1: there["best"][1]}
    assert [ended.notes(rank)["best"][0] for rank in (0, 1)] == [first["best"][0]] * 2
    assert not list(ended.folder_of(1).rglob("ledger.sqlite3"))

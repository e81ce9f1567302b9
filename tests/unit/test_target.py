"""Where no command writes to."""

import os

import pytest

from lightning_al.target import check_target
from tests.unit.exchange.runs import make

KEPT = (
    "ledger.sqlite3", "LEDGER.sqlite3", "ledger.sqlite3-journal", "ledger.sqlite3.damaged", "backups/x.csv",
    "backups/a/x.csv", "backups/../ledger.sqlite3", "initial_weights.pt", "weights_3.pt",
    "member/weights_3.pt", "fit_rounds.yaml", "round_0/last.ckpt", "round_0/c.png", "mine.ckpt",
    "stop_set/round_0.npz",
)  # fmt: skip


@pytest.fixture
def folder(tmp_path):
    return make(tmp_path / "run").folder


@pytest.mark.parametrize("place", KEPT)
@pytest.mark.parametrize("is_query", [False, True])
def test_what_a_run_keeps(folder, place, is_query):
    (folder / "backups").mkdir(exist_ok=True)
    with pytest.raises(ValueError, match="belongs to the ledger and its run; needed is another place for it"):
        check_target(folder / place, "it", is_query=is_query)


def test_by_links_and_from_elsewhere(folder, tmp_path, monkeypatch):
    (tmp_path / "way").symlink_to(folder)
    (tmp_path / "x.csv").symlink_to(folder / "ledger.sqlite3")
    monkeypatch.chdir(folder)
    for path in ("ledger.sqlite3", "../way/ledger.sqlite3", "../x.csv", "../run/./weights_1.pt"):
        with pytest.raises(ValueError, match="belongs to the ledger"):
            check_target(type(folder)(path), "it")


def test_where_the_ledger_itself_is_gone(folder):
    (folder / "ledger.sqlite3").unlink()
    with pytest.raises(ValueError, match="belongs to the ledger"):
        check_target(folder / "backups" / "round_1.sqlite3", "it", folders=[folder])


def test_only_a_query_takes_the_place_of_a_query(folder):
    check_target(folder / "query_1.csv", "the query", is_query=True)
    with pytest.raises(ValueError, match="belongs to the ledger"):
        check_target(folder / "query_1.csv", "it")


def test_devices_pipes_and_folders(tmp_path):
    os.mkfifo(tmp_path / "pipe.csv")
    (tmp_path / "null.csv").symlink_to("/dev/null")
    for path in (tmp_path, tmp_path / "pipe.csv", tmp_path / "null.csv", tmp_path / "/dev/stdout"):
        with pytest.raises(ValueError, match="is no file; needed is one to write it to"):
            check_target(path, "it")


def test_other_places_are_free(folder, tmp_path):
    for path in (
        folder / "history.csv",
        folder / "curves.png",
        tmp_path / "ledger.sqlite3",
        tmp_path / "a" / "b",
    ):
        check_target(path, "it", folders=[folder])

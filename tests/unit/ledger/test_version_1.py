"""Ledgers that the first version wrote, kept as SQL: they open, are read, and are brought up to date."""

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
import torch
from torch.utils.data import TensorDataset

from lightning_al import ActiveDataModule
from lightning_al.ledger import Book, Ledger
from lightning_al.ledger.schema import SCHEMA_VERSION

IDS = [f"scan-{i:03}" for i in range(12)]
DIGEST = "607d8523de4caf1db2be4b56fa21d89df0fad87da02f387f572655e95245aabe"  # as that version knew it
TRAINED = [(7, 2), (5, 1), (4, 1)]
KINDS = ["asked"] * 3 + [
    "labeled",
    "labeled",
    "ignored",
    "asked",
    "asked",
    "relabeled",
    "labeled",
    "labeled",
    "undone",
]


@pytest.fixture(params=["version_1.sql", "version_1_with_ids.sql"])
def old(request, tmp_path):
    with closing(sqlite3.connect(tmp_path / "ledger.sqlite3")) as db:
        db.executescript((Path(__file__).parent / request.param).read_text())
    return tmp_path, IDS if "ids" in request.param else None


def tables(path):
    with closing(sqlite3.connect(path)) as db:
        return {name for (name,) in db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}


def module(folder, ids, **options):
    return ActiveDataModule(
        TensorDataset(torch.arange(12.0)[:, None]),
        oracle="people", initial=[7, 5, 3], ids=ids, class_names=["cat", "dog", "cow"],
        describe=lambda i: f"scans/{i}.png", state_dir=folder, **options,
    )  # fmt: skip


def as_it_was(state):
    return (
        state.digest() == DIGEST
        and [(i, state.target(i)) for i in state.labeled_up_to().tolist()] == TRAINED
        and [state.indices(status).tolist() for status in (1, 3)] == [[1], [3]]
    )


def test_it_is_read_as_it_is_and_stays_so(old):
    folder, ids = old
    before = (folder / "ledger.sqlite3").read_bytes()
    ledger = Ledger(folder / "ledger.sqlite3")
    assert [event.kind for _, event in ledger.events()] == KINDS
    assert ledger.rounds()[0]["train_s"] == 1.5
    book = Book(folder)
    assert as_it_was(book.state)
    assert [(a.value, a.who) for a in book.answers(5)] == [(0, "Ada"), (1, "Ben")]
    assert book.shown([1])[0][1] == {}
    assert as_it_was(module(folder, ids).state)
    assert (folder / "ledger.sqlite3").read_bytes() == before
    assert not (folder / "backups").exists()


def test_the_first_write_brings_it_up_to_date_after_a_backup(old):
    folder, ids = old
    ledger = Ledger(folder / "ledger.sqlite3")
    before, meta = list(ledger.events()), ledger.meta()
    module(folder, ids).label([1], ["cow"], who="Eve")
    assert ledger.verify() == len(before) + 1
    assert list(ledger.events())[:-1] == before
    assert ledger.meta()["schema_version"] == SCHEMA_VERSION
    backup = folder / "backups" / f"before_schema_{SCHEMA_VERSION}.sqlite3"
    assert Ledger(backup).meta() == meta
    assert "names" not in tables(backup)
    assert {"names", "shown"} <= tables(ledger.path)
    for number in range(5):
        ledger.backup(f"round_{number}")
    assert backup.exists()  # however many rounds follow


def test_the_run_adds_what_the_first_version_did_not_record(old):
    folder, ids = old
    module(folder, ids).open()
    book = Book(folder)
    assert as_it_was(book.state)
    assert book.shown([1])[0][1] == {"sample": "scans/1.png"}
    assert book.kind.class_names == ["cat", "dog", "cow"]
    assert (None if book.names is None else list(book.names)) == ids
    book.label([1], ["cow"], who="Eve")
    assert book.state.target(1) == 2


def test_what_it_says_can_be_taken_back(old):
    folder, ids = old
    data = module(folder, ids)
    data.undo([5, 3, 9], who="Eve")
    assert (data.state.target(5), data.asked_indices.tolist()) == (0, [3, 1])
    assert data.state.target(9) == 2  # its label had been taken back
    assert as_it_was_but(data, Book(folder))


def as_it_was_but(data, book):
    return data.state.digest() == book.state.digest()

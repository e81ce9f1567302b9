"""What `verify` finds, and what it says that a backup lacks: no more than can be told."""

import sqlite3
from contextlib import closing

import pytest

from lightning_al.ledger import Book, Event, Ledger, LedgerError
from lightning_al.ledger.checking import check


@pytest.fixture
def ledger(tmp_path):
    """Six labels, of which a backup has four; long enough for pages of their own."""
    ledger = Ledger(tmp_path / "ledger.sqlite3")
    ledger.create({"size": 100, "class_names": ["cat", "dog"], "classes": 2})
    ledger.append([Event("asked", i, round=0, rank=i, strategy="s" * 200) for i in range(100)])
    ledger.append([Event("labeled", i, value="0", who="Ada", round=0) for i in range(4)])
    ledger.backup("round_0")
    ledger.append([Event("labeled", i, value="1", who="Ada", round=0) for i in (4, 5)])
    return ledger


def change(path, *statements):
    with closing(sqlite3.connect(path)) as db:
        for statement in statements:
            db.execute(statement)
        db.commit()


def said_of_the_copy(ledger):
    checked = check(ledger.path)
    assert not checked.is_whole
    (copy,) = checked.copies
    return str(copy).partition(": ")[2]


UNTOLD = "the ledger had cannot be told: it cannot be read to its end"


def test_labels_that_only_the_ledger_has_are_counted(ledger):
    change(ledger.path, "UPDATE events SET who = 'Eve' WHERE seq = 1")
    assert said_of_the_copy(ledger) == "whole, 4 labels, lacks 2 labels of the ledger"


def test_a_ledger_that_cannot_be_read_has_an_unknown_number_of_labels(ledger):
    ledger.path.write_bytes(ledger.path.read_bytes()[:9000])
    assert said_of_the_copy(ledger) == f"whole, 4 labels, what {UNTOLD}"
    ledger.path.unlink()
    assert said_of_the_copy(ledger) == f"whole, 4 labels, what {UNTOLD}"


def test_so_has_one_that_is_cut_by_a_page(ledger):
    size = ledger.path.stat().st_size
    for pages in (1, 2, 3):
        ledger.path.write_bytes(ledger.path.read_bytes()[: size - 4096 * pages])
        said = said_of_the_copy(ledger)
        assert "lacks none" not in said
        assert UNTOLD in said or "lacks 2 labels" in said


def test_events_gone_at_the_end_are_not_nothing(ledger):
    with closing(sqlite3.connect(ledger.path)) as db:
        (root,) = db.execute("SELECT rootpage FROM sqlite_master WHERE name = 'events_by_name'").fetchone()
        index = ledger.path.read_bytes()[(root - 1) * 4096 : root * 4096]
    change(ledger.path, "DELETE FROM events WHERE seq > 104")
    content = bytearray(ledger.path.read_bytes())
    content[(root - 1) * 4096 : root * 4096] = index
    ledger.path.write_bytes(content)
    assert said_of_the_copy(ledger) == f"whole, 4 labels, what {UNTOLD}"


def test_a_label_that_was_tampered_with_is_not_one_that_a_copy_lacks(ledger):
    change(ledger.path, "DELETE FROM events WHERE seq > 104", "UPDATE events SET value = '1' WHERE seq = 102")
    assert check(ledger.path).labels == 3
    assert said_of_the_copy(ledger) == "whole, 4 labels, lacks none of the ledger"


def test_nor_is_one_whose_correction_was_tampered_with(ledger):
    book = Book(ledger.path.parent)
    book.label([0], ["dog"], who="Ben", overwrite=True)
    ledger.backup("round_1")
    change(ledger.path, "UPDATE events SET value = '0' WHERE seq = 107")
    newest, older = check(ledger.path).copies
    assert str(newest).endswith("whole, 6 labels, lacks none of the ledger")
    assert "lacks 2 labels of the ledger, the labels of 1 later events, which" in str(older)


def test_a_copy_of_another_course_of_events_is_held_label_by_label(ledger):
    older = ledger.path.parent / "backups" / "round_0.sqlite3"
    ledger.backup("round_1")
    ledger.path.write_bytes(older.read_bytes())
    ledger.append([Event("labeled", i, value="0", who="Ben", round=0) for i in (5, 6, 7)])
    change(ledger.path, "UPDATE events SET who = 'Eve' WHERE seq = 1")
    newest, *_ = check(ledger.path).copies
    assert "whole, 6 labels, lacks 3 labels of the ledger, " in str(newest)


def test_an_event_that_was_changed_after_the_copy_was_made_is_told_of(ledger):
    change(ledger.path, "UPDATE events SET value = '0' WHERE seq = 106")
    said = "lacks 1 labels of the ledger, the labels of 1 later events, which were changed, cannot be told"
    assert said_of_the_copy(ledger) == f"whole, 4 labels, {said}"
    change(ledger.path, "UPDATE events SET value = x'00' WHERE seq = 105")
    said = "the labels of 2 later events, which were changed, cannot be told"
    assert said_of_the_copy(ledger) == f"whole, 4 labels, {said}"


def test_a_missing_event_does_not_spoil_those_after_it(ledger):
    change(ledger.path, "DELETE FROM events WHERE seq = 50")
    assert said_of_the_copy(ledger) == "whole, 4 labels, lacks 2 labels of the ledger"


def test_a_record_checks_every_digest_on_request(ledger):
    book = Book(ledger.path.parent)
    book.check()
    change(ledger.path, "UPDATE events SET value = '1' WHERE seq = 102")
    with pytest.raises(LedgerError, match=r"Event 102 .* was changed"):
        book.check()

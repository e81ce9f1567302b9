from lightning_al.cli.samples import label_text
from lightning_al.ledger import Book, Event, Ledger
from lightning_al.ledger.label_values import NoLabel, encode


def test_what_was_said_is_shown_as_people_write_it(tmp_path):
    Ledger(tmp_path / "ledger.sqlite3").create(
        {"size": 9, "class_names": ["cat", "dog"], "label_kind": "class"},
        [Event("asked", 4, round=0, rank=0)],
    )
    book = Book(tmp_path)
    said = [None, encode(1), encode(7), encode(NoLabel("skip")), encode(NoLabel("unsure")), encode([1, 2])]
    assert [label_text(book, text) for text in said] == [
        "its own label", "dog", "7", "skip", "unsure", "[1, 2]",
    ]  # fmt: skip

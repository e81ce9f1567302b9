"""Ledgers that are made without a data set."""

from lightning_al.ledger import Book, Event, Ledger

CLASSES = ["cat", "dog", "10", "2", "007", "true", "-1.5", "=sum"]


def make(
    folder, *, kind="class", names=CLASSES, ids=None, size=12, asked=(7, 5, 9, 1), shown=None, scores=None
):
    """A run of which some samples wait.

    Args:
        shown: What annotators see, by place in `asked`.
    """
    meta = {
        "size": size, "samples": size, "names": None if ids is None else "ids:x", "fingerprint": "x",
        "class_names": names if kind == "class" else None, "label_kind": kind, "oracle": "people",
        "budget": 40, "rounds": 3, "strategy": "Margin()",
    }  # fmt: skip
    events = [
        Event("asked", index, ids and ids[index], round=0, rank=rank, strategy="Margin()",
              score=None if scores is None else scores[rank])
        for rank, index in enumerate(asked)
    ]  # fmt: skip
    assert Ledger(folder / "ledger.sqlite3").create(meta, events, shown=shown, names=ids)
    return Book(folder)


def labels(book):
    """All labels on record by index, as they were given."""
    state = Book(book.ledger.path).state
    return {index: state.target(index) for index in state.values}


def content(book):
    """Every byte that a refused import must not change."""
    return book.ledger.path.read_bytes(), sorted(path.name for path in book.folder.iterdir())

"""ASKING: what waits in a ledger goes out, to a project or into a file that it imports.

    Book -> [push_query] -> LabelStudio

What was sent already is not sent again, so a push can be repeated.
"""

from __future__ import annotations

import json
from pathlib import Path

from lightning_al.exchange.label_studio.form import Form
from lightning_al.exchange.label_studio.sending import Pushed
from lightning_al.exchange.label_studio.server import LabelStudio
from lightning_al.exchange.label_studio.tasks import Key, Task, is_address, medium_of
from lightning_al.exchange.queries import waiting_queries
from lightning_al.exchange.writing import new_file
from lightning_al.ledger.book import Book

__all__ = ["export_tasks", "form_for", "push_query", "waiting_tasks"]


def waiting_tasks(book: Book) -> list[Task]:
    """The samples that wait, as tasks."""
    run = book.state.run_id
    return [
        Task(
            Key(run, query.round, str(query.index) if query.id is None else query.id),
            query.shown, query.rank, query.score, query.strategy,
        )
        for query in waiting_queries(book)
    ]  # fmt: skip


def form_for(book: Book) -> Form:
    """What a new project for this run is to ask.

    Args:
        book: The ledger.

    Raises:
        ValueError: If the ledger does not say what a label is.

    Example:
        >>> import tempfile
        >>> from lightning_al.ledger import Event, Ledger
        >>> folder = tempfile.mkdtemp()
        >>> meta = {"size": 9, "class_names": ["cat", "dog"], "label_kind": "class"}
        >>> _ = Ledger(f"{folder}/ledger.sqlite3").create(meta, [Event("asked", 4, round=0, rank=0)])
        >>> form_for(Book(folder)).labels
        ('cat', 'dog')
    """
    seen = (medium_of(task.shown) for task in waiting_tasks(book))
    medium = next((found[0] for found in seen if found is not None), "text")
    names, kind = book.kind.class_names, book.kind.name
    if names is not None and kind in ("class", "text"):
        return Form("choices", medium, tuple(str(name) for name in names))
    if kind not in ("number", "text"):
        raise ValueError(
            f"A label of this run is {'not known yet' if kind is None else f'of kind {kind!r}'} and has no "
            "class names; needed are classes, numbers or text to ask for. Pass `class_names` to "
            "`ActiveDataModule`, or make the project in Label Studio and give its number."
        )
    return Form(kind, medium)


def push_query(book: Book, studio: LabelStudio) -> Pushed:
    """Send the samples that wait and are not there yet, those wanted most first.

    Args:
        book: The ledger.
        studio: The project; its classes must be the ledger's.

    Raises:
        ValueError: If the project asks for something else, or a sample cannot be shown; nothing was sent.
        LabelStudioError: If the server cannot be reached. Run it again: it goes on.
    """
    book.current()
    return studio.push(waiting_tasks(book), book.kind.class_names)


def export_tasks(book: Book, path: Path, form: Form) -> Path:
    """Write the samples that wait to a file that Label Studio imports.

    Args:
        book: The ledger.
        path: The file.
        form: What the project asks.

    Raises:
        ValueError: If a sample shows a picture that lies here: a file does not take it along.
    """
    tasks = waiting_tasks(book)
    for task in tasks:
        look = task.look(form)
        if look is None or (form.medium == "image" and not is_address(look)):
            raise ValueError(
                f"Sample {task.key.sample} shows {look or dict(task.shown)}; needed in a file is an address "
                "that annotators' browsers find. Let `describe` return one, or push to a server, which takes "
                "pictures along."
            )
    lines = (json.dumps(task.as_json(form), ensure_ascii=False, allow_nan=False) for task in tasks)
    text = ",\n".join(lines)
    with new_file(book, path) as file:
        file.write(f"[\n{text}\n]\n")
    return path

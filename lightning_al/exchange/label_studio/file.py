"""FILE: the JSON that Label Studio exports, checked from end to end before anything looks at it.

    path -> [read_export] -> tasks as a server would give them -> [form_of] -> what the project asks

Nothing that a task names is opened, be it a path or an address.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from lightning_al.exchange.label_studio.form import KINDS, Form
from lightning_al.exchange.reading import parse_json, read_text
from lightning_al.ledger.book import Book

__all__ = ["form_of", "read_export"]

_SHOWN_PROBLEMS = 20
_KINDS = {tag.lower(): kind for kind, tag in KINDS.items()}


def read_export(path: Path) -> list[dict[str, Any]]:
    """The tasks of a file that was exported as `JSON`.

    Raises:
        ValueError: If it is no such file; the message names what is wrong.
    """
    try:
        tasks = parse_json(read_text(path, "JSON"), unique=False)
    except ValueError as error:
        raise ValueError(f"{path} cannot be read ({error}). Export the project again, as JSON.") from error
    if not isinstance(tasks, list) or not all(
        isinstance(task, dict) and _is_number(task.get("id")) and isinstance(task.get("annotations"), list)
        for task in tasks
    ):
        raise ValueError(
            f"{path} is no list of tasks with `data` and `annotations`; needed is the format JSON, not "
            "JSON-MIN or CSV, which leave out what was skipped. Export the project again."
        )
    problems = [f"task {task['id']}: {problem}" for task in tasks for problem in _problems(task)]
    if problems:
        shown = "\n  ".join(problems[:_SHOWN_PROBLEMS])
        raise ValueError(
            f"{path} was not read, no label was taken over:\n  {shown}\nNeeded is what Label Studio writes. "
            "Export the project again, as JSON."
        )
    return tasks


def _is_number(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _problems(task: Mapping[str, Any]) -> Iterator[str]:
    """What no server says of an annotation: such a file was changed by hand."""
    for given in task["annotations"]:
        if not isinstance(given, dict) or not _is_number(given.get("id")):
            yield f"{given!r:.60} is no annotation with an `id`"
            continue
        by = given.get("completed_by")
        if not _is_account(by):
            yield f"annotation {given['id']} is by {by!r:.60}; needed is a number, or an account with `email`"
        if not isinstance(given.get("was_cancelled"), bool | None):
            yield f"annotation {given['id']} has {given['was_cancelled']!r:.60} as `was_cancelled`"
        at: Any = given.get("updated_at") or given.get("created_at")
        try:
            is_time = 1 < datetime.fromisoformat(at).year < 9999  # in any zone
        except (TypeError, ValueError):
            is_time = False
        if not is_time:
            yield f"annotation {given['id']} is of {at!r:.60}; needed is `updated_at` as ISO 8601"


def _is_account(by: Any) -> bool:
    """Nobody, a number, or an account with both or one of them."""
    if not isinstance(by, dict):
        return by is None or _is_number(by)
    number, email = by.get("id"), by.get("email")
    return (number is None or _is_number(number)) and isinstance(email, str | None)


def form_of(tasks: Iterable[Mapping[str, Any]], book: Book, path: Path) -> Form:
    """What the project asks, as the answers in an export of it show.

    Args:
        tasks: Of the file.
        book: The ledger, whose classes must be chosen from.
        path: The file, for messages.

    Raises:
        ValueError: If no task is of this run, or answers are to several questions.
    """
    run = book.state.run_id
    mine = [
        task for task in tasks if isinstance(task.get("data"), dict) and task["data"].get("lal_run") == run
    ]
    if not mine:
        raise ValueError(
            f"{path} has no task of run {book.state.run_id}; needed is an export of the project that its "
            "query was sent to. Check the state directory and the project."
        )
    asked = Counter(_questions(mine))
    names = book.kind.class_names
    labels = tuple(str(name) for name in names) if names is not None else ()
    if labels:
        asked = Counter({question: n for question, n in asked.items() if question[0] == "choices"}) or asked
    if not asked:  # nobody answered; what was skipped has no question
        return Form("choices", labels=labels) if labels else Form("text")
    if len(asked) > 1 and "label" not in {name for _, name in asked}:
        found = ", ".join(f"{name} ({kind})" for kind, name in asked)
        raise ValueError(
            f"{path} answers {len(asked)} questions: {found[:200]}; needed is one, or one named 'label'. "
            "Import it by `import_export(book, path, form)`, whose form says which is meant."
        )
    kind, name = next((each for each in asked if each[1] == "label"), next(iter(asked)))
    if kind == "choices" and not labels:
        labels = ("?",)  # what there is to choose from, only the project knows
    return Form(kind, labels=labels if kind == "choices" else (), from_name=name)


def _questions(tasks: Iterable[Mapping[str, Any]]) -> Iterator[tuple[str, str]]:
    for task in tasks:
        for given in task["annotations"]:
            result = given.get("result")
            for part in result if isinstance(result, list) else ():
                if not isinstance(part, dict):
                    continue
                kind, name = part.get("type"), part.get("from_name")
                if isinstance(kind, str) and isinstance(name, str) and kind in _KINDS:
                    yield _KINDS[kind], name

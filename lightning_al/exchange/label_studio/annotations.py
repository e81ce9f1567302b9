"""ANNOTATIONS: what a server's tasks or an exported file say, and what that amounts to.

    tasks as JSON -> [read] -> Annotation, one a submission -> [newest_of_each] -> one a person

A server takes nearly anything (an unknown class, two choices, no result at all), so everything is checked
here, and what is wrong is reported and never raised: one annotator's slip must not hide the others' work.
What several people's answers amount to is the ledger's to say.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from lightning_al.exchange.label_studio.form import Form
from lightning_al.exchange.label_studio.tasks import Key, key_of

__all__ = ["Annotation", "newest_of_each", "read"]


@dataclass(frozen=True)
class Annotation:
    """One submission of one person.

    Args:
        key: Of the sample that it is about.
        task: The server's id of the task.
        id: The server's id of the annotation.
        who: E-mail of the annotator, else the server's number; `None`: that account is gone.
        at: When it was last changed, UTC.
        value: The answer; `None`: skipped, or there is a problem.
        skipped: The annotator could not tell.
        problem: Why it is no answer.
        account: The server's number of the annotator, where it is known.

    Example:
        >>> from lightning_al.exchange.label_studio.tasks import Key
        >>> at = datetime(2026, 11, 22, 9, tzinfo=UTC)
        >>> Annotation(Key("4f0c", 3, "17"), 5, 8, "ada@example.org", at, "good").place
        'task 5, annotation 8 by ada@example.org'
    """

    key: Key
    task: int
    id: int
    who: str | None
    at: datetime
    value: str | float | None = None
    skipped: bool = False
    problem: str | None = None
    account: int | None = None

    @property
    def place(self) -> str:
        """How messages name it."""
        return f"task {self.task}, annotation {self.id} by {self.who or 'an account that is gone'}"


def read(
    tasks: Iterable[Mapping[str, Any]], form: Form, users: Mapping[int, str] | None = None
) -> dict[Key, list[Annotation]]:
    """All annotations by the key of their sample; an empty list: nobody answered yet.

    Args:
        tasks: The server's tasks, or those of an exported file; without our key they are passed over.
        form: What the project asks.
        users: E-mails by the server's number; those that the tasks have themselves are added.
    """
    found: dict[Key, list[Annotation]] = {}
    tasks = list(tasks)
    users = _emails(tasks) | dict(users or {})
    for task in tasks:
        key = key_of(task.get("data"))
        if key is not None:
            mine = found.setdefault(key, [])
            given = task.get("annotations")
            for annotation in given if isinstance(given, list) else ():
                mine.append(_annotation(key, task["id"], annotation, form, users))
    return found


def _emails(tasks: Iterable[Mapping[str, Any]]) -> dict[int, str]:
    """Who is behind a number, as some editions write it beside an annotation."""
    found: dict[int, str] = {}
    for task in tasks:
        given = task.get("annotations")
        for annotation in given if isinstance(given, list) else ():
            by = annotation.get("completed_by")
            if isinstance(by, dict) and by.get("email") and isinstance(by.get("id"), int):
                found[by["id"]] = by["email"]
    return found


def _annotation(
    key: Key, task: int, given: Mapping[str, Any], form: Form, users: Mapping[int, str]
) -> Annotation:
    value, problem = None, None
    skipped = bool(given.get("was_cancelled"))
    if not skipped:
        try:
            value = form.value(given.get("result"))
        except ValueError as error:
            problem = str(error)
    by = given.get("completed_by")
    account = by.get("id") if isinstance(by, dict) else by
    return Annotation(
        key, task, int(given["id"]), _who(by, users), _time(given), value, skipped, problem, account
    )


def _who(completed_by: Any, users: Mapping[int, str]) -> str | None:
    if isinstance(completed_by, dict):  # whoever was asked knows better than the file
        number: Any = completed_by.get("id")
        return users.get(number) or completed_by.get("email") or _who(number, users)
    return None if completed_by is None else users.get(completed_by, f"user {completed_by}")


def _time(given: Mapping[str, Any]) -> datetime:
    at = datetime.fromisoformat(given.get("updated_at") or given["created_at"])
    return at.replace(tzinfo=UTC) if at.tzinfo is None else at.astimezone(UTC)


def newest_of_each(annotations: Iterable[Annotation]) -> list[Annotation]:
    """What each person said last, oldest first: who annotates twice has had second thoughts."""
    annotations = list(annotations)
    if len(annotations) == 1:  # as nearly all samples have
        return annotations
    newest: dict[Any, Annotation] = {}
    for annotation in sorted(annotations, key=lambda each: (each.at, each.id)):
        newest[annotation.who or annotation.id] = annotation
    return sorted(newest.values(), key=lambda each: (each.at, each.id))

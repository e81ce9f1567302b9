"""SENDING: tasks into a project, each once, with their scores.

    Task -> [Sending] -> tasks on the server

An import is not idempotent, may land though the connection broke, and may lose its scores. So what is there
is looked up by our key before anything is sent, after every break, and at the end.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lightning_al.exchange.label_studio.connection import LabelStudioError
from lightning_al.exchange.label_studio.form import Form
from lightning_al.exchange.label_studio.images import check_images, upload
from lightning_al.exchange.label_studio.project import Project
from lightning_al.exchange.label_studio.tasks import Key, Task, is_address, key_of

__all__ = ["Pushed", "Sending"]

_BATCH = 100  # tasks of one import: 0.1 s, so that annotators' answers seldom come in between
_BATCH_BYTES = 20 << 20
_TRIES = 3
_PAUSE = 2.0  # seconds until what a broken connection left undone is looked at
_PATIENCE = 900.0  # seconds: a server whose database is locked tries an import again, ever more seldom

_There = dict[Key, list[dict[str, Any]]]


@dataclass
class Pushed:
    """What a push did.

    Args:
        project: The project's number.
        sent: Samples that were not there before.
        there: Samples that were.
        doubled: Samples that several tasks are about (two pushes at once do that), with their numbers. Their
            answers count as if given to one task; delete one of them in Label Studio to spare work.
    """

    project: int
    sent: list[Key] = field(default_factory=list)
    there: list[Key] = field(default_factory=list)
    doubled: dict[Key, tuple[int, ...]] = field(default_factory=dict)


class Sending:
    """One push.

    Args:
        project: Where to.
        form: What it asks.
        tasks: What is to be there in the end.

    Raises:
        ValueError: If a task does not fit the project.
    """

    def __init__(self, project: Project, form: Form, tasks: Iterable[Task]) -> None:
        self.project, self.form = project, form
        self.tasks = sorted(tasks, key=lambda task: (task.key.round, task.rank))
        self._check_tasks()

    def run(self) -> Pushed:
        """Send what is missing.

        Raises:
            ValueError: If a picture cannot be shown; nothing was sent.
            LabelStudioError: If it could not be done. Run again, it goes on.
        """
        before = self._there(self.tasks)
        missing = [task for task in self.tasks if task.key not in before]
        self._import(missing, self._pictures(missing))
        there = self._complete()
        self._show_scores()
        return Pushed(
            self.project.number,
            sent=[task.key for task in missing],
            there=[task.key for task in self.tasks if task.key in before],
            doubled={key: tuple(t["id"] for t in found) for key, found in there.items() if len(found) > 1},
        )

    def _there(self, tasks: Iterable[Task]) -> _There:
        """The server's tasks by our key, of the rounds that `tasks` are of."""
        found: _There = {}
        for run, number in sorted({task.key[:2] for task in tasks}):
            for task in self.project.tasks(run, number, include="id,data,predictions,model_version"):
                key = key_of(task["data"])
                if key is not None:
                    found.setdefault(key, []).append(task)
        return found

    def _pictures(self, tasks: Sequence[Task]) -> dict[Path, str]:
        looks = [look for task in tasks if (look := self._file(task)) is not None]
        paths = [Path(look) for look in looks]
        check_images(paths)
        if not paths:
            return {}
        progress = self.project.progress
        return upload(
            self.project.connection, self.project.number, paths, lambda n: progress("pictures", n, len(paths))
        )

    def _import(self, tasks: Sequence[Task], addresses: dict[Path, str]) -> None:
        done = 0
        for batch in _batches(tasks, lambda task: self._as_json(task, addresses)):
            self._import_batch(batch)
            done += len(batch)
            self.project.progress("tasks sent", done, len(tasks))

    def _file(self, task: Task) -> str | None:
        look = task.look(self.form)
        return look if self.form.medium == "image" and look is not None and not is_address(look) else None

    def _as_json(self, task: Task, addresses: dict[Path, str]) -> dict[str, Any]:
        file = self._file(task)
        return task.as_json(self.form, None if file is None else addresses[Path(file)])

    def _import_batch(self, batch: list[tuple[Task, dict[str, Any]]]) -> None:
        """One import; if the connection breaks, what did not land is sent again."""
        for attempt in range(1, _TRIES + 1):
            try:
                self._send("/import", [made for _, made in batch])
                return
            except LabelStudioError as error:
                if not error.unsure:
                    raise
                time.sleep(_PAUSE)
                there = self._there(task for task, _ in batch)
                batch = [pair for pair in batch if pair[0].key not in there]
                if not batch:
                    return
                if error.late or attempt == _TRIES:  # late: it may land yet, and would be there twice
                    raise

    def _complete(self) -> _There:
        """Whether all arrived, scores included: a busy server drops these, and says nothing."""
        for attempt in range(1, _TRIES + 1):
            there = self._there(self.tasks)
            lost = [task for task in self.tasks if task.key not in there]
            bare = [(task, there[task.key][0]["id"]) for task in self.tasks if self._lacks_score(task, there)]
            if not lost and not bare:
                return there
            if lost or attempt == _TRIES:
                break
            self._import_predictions(bare)
        raise LabelStudioError(
            f"{len(lost)} of {len(self.tasks)} samples are not in project {self.project.number} after they "
            f"were sent, {len(bare)} are there without their score. Somebody may have deleted them, or the "
            "server is busy. Push again: only what is missing is sent."
        )

    def _lacks_score(self, task: Task, there: _There) -> bool:
        if task.prediction(self.form) is None or task.key not in there:
            return False
        return task.model_version not in [p.get("model_version") for p in there[task.key][0]["predictions"]]

    def _import_predictions(self, bare: Sequence[tuple[Task, int]]) -> None:
        made_of = lambda pair: {"task": pair[1], **(pair[0].prediction(self.form) or {})}  # noqa: E731
        for batch in _batches(bare, made_of):
            try:
                self._send("/import/predictions", [made for _, made in batch])
            except LabelStudioError as error:
                if not error.unsure or error.late:
                    raise
                time.sleep(_PAUSE)  # what is still missing is seen by whoever looks again

    def _send(self, path: str, content: Any) -> None:
        self.project.connection.call("POST", self.project.path + path, content, patience=_PATIENCE)

    def _show_scores(self) -> None:
        """Have the newest round's scores listed: the first import sets whose are, later ones do not."""
        scored = [task for task in self.tasks if task.prediction(self.form) is not None]
        if scored:
            version = {"model_version": scored[-1].model_version}
            self.project.connection.call("PATCH", f"{self.project.path}/", version)

    def _check_tasks(self) -> None:
        keys = [task.key for task in self.tasks]
        if len({*keys}) < len(keys):
            raise ValueError(
                "A sample is to be sent twice; needed is each once. Push what `asked_indices` names."
            )
        for task in self.tasks:
            _check_task(task, self.form)


def _check_task(task: Task, form: Form) -> None:
    sample = task.key.sample
    if task.score is not None and not math.isfinite(task.score):
        raise ValueError(
            f"Sample {sample} has score {task.score}; needed is a finite number. Give None where there is "
            "none."
        )
    if task.look(form) is None:
        raise ValueError(
            f"Sample {sample} shows {dict(task.shown)}; needed is a picture for ${form.field} of the "
            f"project. Let `describe` return a mapping with {form.field!r}: a file's path, or an address."
        )
    if task.predicted is not None and form.kind == "choices" and task.predicted not in form.labels:
        raise ValueError(
            f"Sample {sample} is predicted to be {task.predicted!r}; the project offers "
            f"{list(form.labels)[:20]}. Give one of these, or None."
        )


def _batches(
    things: Sequence[Any], made_of: Callable[[Any], dict[str, Any]]
) -> Iterator[list[tuple[Any, dict[str, Any]]]]:
    """What is sent at once, with what it is made of: so many, or so many bytes."""
    batch: list[tuple[Any, dict[str, Any]]] = []
    size = 0
    for thing in things:
        made = made_of(thing)
        more = len(json.dumps(made))
        if batch and (len(batch) == _BATCH or size + more > _BATCH_BYTES):
            yield batch
            batch, size = [], 0
        batch.append((thing, made))
        size += more
    if batch:
        yield batch

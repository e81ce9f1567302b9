"""SERVER: tasks to a running Label Studio, and its annotators' answers back.

Task -> [LabelStudio.push] -> the server -> [LabelStudio.pull] -> Annotation
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from lightning_al.exchange.label_studio.annotations import Annotation, newest_of_each, read
from lightning_al.exchange.label_studio.connection import Connection
from lightning_al.exchange.label_studio.form import Form
from lightning_al.exchange.label_studio.project import IN_ORDER, Progress, Project
from lightning_al.exchange.label_studio.sending import Pushed, Sending
from lightning_al.exchange.label_studio.tasks import Key, Task, key_of
from lightning_al.exchange.label_studio.token import token_from_environment

__all__ = ["LabelStudio", "Pulled"]


@dataclass
class Pulled:
    """What a server knows about samples.

    Args:
        said: What each annotator said last, oldest first, by sample; empty where nobody answered yet.
        tasks: The server's numbers of a sample's tasks.
        missing: Samples that are not there: never pushed, or their tasks were deleted.
    """

    said: dict[Key, list[Annotation]] = field(default_factory=dict)
    tasks: dict[Key, list[int]] = field(default_factory=dict)
    missing: list[Key] = field(default_factory=list)


class LabelStudio:
    """A project on a Label Studio server (tested with 1.23.2, Community).

    Args:
        url: Where the server is; default: the environment variable `LABEL_STUDIO_URL`.
        token: A personal access token or a legacy token; default: `LABEL_STUDIO_API_KEY`, which keeps it out
            of scripts and shell histories.
        project: The project's number; `None`: `create_project` makes one.
        control: Name of the question that is ours, should the project ask several.
        timeout: Seconds without a sign of life after which a request is given up.
        progress: Called while much is sent or fetched.

    Example:
        >>> LabelStudio("http://localhost:8080", "0123456789abcdef0123456789abcdef01234567", project=5)
        LabelStudio('http://localhost:8080', Token(***), project=5)
    """

    def __init__(
        self,
        url: str | None = None,
        token: str | None = None,
        *,
        project: int | None = None,
        control: str | None = None,
        timeout: float = 60.0,
        progress: Progress | None = None,
    ) -> None:
        self._token = token_from_environment(token)
        address = url if url is not None else os.environ.get("LABEL_STUDIO_URL", "")
        self.connection = Connection(address, self._token, timeout=timeout)
        self.project, self.control = project, control
        self._progress: Progress = progress or (lambda what, done, of: None)
        self._form: Form | None = None

    def __repr__(self) -> str:
        return f"LabelStudio({self.connection.url!r}, {self._token!r}, project={self.project})"

    # ------------------------------------------------------------------ the project

    def create_project(self, title: str, form: Form) -> int:
        """Make a project that asks for `form`, and serves tasks in the order of the query.

        Args:
            title: At least three letters.
            form: What annotators are asked.

        Returns:
            Its number, also in `project`: keep it for the next start.
        """
        content = {"title": title, "label_config": form.as_xml(), "sampling": IN_ORDER}
        made = self.connection.call("POST", "/api/projects/", content)
        self.project = int(made["id"])
        self._form = Form.read(made)
        self._form.check(form.labels or None)
        return self.project

    def form(self) -> Form:
        """What the project asks.

        Raises:
            ValueError: If that is not one question that a label answers.
        """
        if self._form is None:
            self._form = Form.read(self._place().described(), self.control)
        return self._form

    def _place(self) -> Project:
        if self.project is None:
            raise ValueError(
                f"No project of {self.connection.url} is given; needed is its number, as in the address of "
                "its page (/projects/5/data). Give `--project 5`, in Python `project=5`; or make one, by "
                "`push --create TITLE`, in Python `create_project`."
            )
        return Project(self.connection, self.project, self._progress)

    # ------------------------------------------------------------------ out and in

    def push(self, tasks: Iterable[Task], class_names: Sequence[str] | None = None) -> Pushed:
        """Send the samples that are not there yet, those wanted most first.

        After an error run it again: what arrived is found by its key and not sent twice.

        Args:
            tasks: The samples that wait.
            class_names: The ledger's; the project must offer exactly these.

        Returns:
            What was sent, and what was there.

        Raises:
            ValueError: If the project asks for something else, or a sample cannot be shown; nothing was sent.
            LabelStudioError: If the server cannot be reached, or refuses.
        """
        project = self._place()
        described = project.described()
        self._form = Form.read(described, self.control)
        self._form.check(class_names)
        project.check_order(described)
        return Sending(project, self._form, tasks).run()

    def pull(self, keys: Iterable[Key], users: Mapping[int, str] | None = None) -> Pulled:
        """What the server knows about samples now; changes nothing there.

        Args:
            keys: The samples, asked for by any number of runs.
            users: Names by the numbers of accounts, in place of the e-mails that the server has for them.

        Raises:
            LabelStudioError: If the server cannot be reached: nothing of a half-way pull is returned.
        """
        project, form, wanted = self._place(), self.form(), list(dict.fromkeys(keys))
        include = "id,data,annotations,result,was_cancelled,completed_by,created_at,updated_at"
        tasks = [
            t for run in sorted({key.run for key in wanted}) for t in project.tasks(run, include=include)
        ]
        emails = project.users() if any(task["annotations"] for task in tasks) else {}
        said = read(tasks, form, emails | dict(users or {}))
        places: dict[Key | None, list[int]] = {}
        for task in tasks:
            places.setdefault(key_of(task["data"]), []).append(task["id"])
        there = [key for key in wanted if key in said]
        return Pulled(
            {key: newest_of_each(said[key]) for key in there},
            {key: places[key] for key in there},
            [key for key in wanted if key not in said],
        )

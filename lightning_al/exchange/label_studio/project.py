"""PROJECT: reading one project of a server: what it is, and its tasks, page by page."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

from lightning_al.exchange.label_studio.connection import Connection, LabelStudioError

__all__ = ["IN_ORDER", "Progress", "Project"]

#: Called with what is done, how many of it, and of how many.
Progress = Callable[[str, int, int], None]

#: Tasks are handed out oldest first; they are sent in the order of the query.
IN_ORDER = "Sequential sampling"

_PAGE = 500


class Project:
    """A project on a server.

    Args:
        connection: To the server.
        number: The server's id of it.
        progress: Called while much is sent or fetched.
    """

    def __init__(self, connection: Connection, number: int, progress: Progress) -> None:
        self.connection, self.number, self.progress = connection, number, progress

    @property
    def path(self) -> str:
        """Where the server has it."""
        return f"/api/projects/{self.number}"

    def described(self) -> dict[str, Any]:
        """The server's description of it."""
        return self.connection.get_with("parsed_label_config", f"{self.path}/")

    def check_order(self, described: dict[str, Any]) -> None:
        """Whether annotators get what is wanted most first.

        Raises:
            ValueError: If they do not.
        """
        sampling = described.get("sampling")
        if sampling != IN_ORDER:
            raise ValueError(
                f"Project {self.number} hands out tasks by {sampling!r}; needed is {IN_ORDER!r}, which is "
                "the order of the query (uncertainty sampling there serves the lowest score first, and ours "
                "are higher where a label is wanted more). Change it in the project's settings, Annotation."
            )

    def tasks(self, run: str, number: int | None = None, *, include: str) -> Iterator[dict[str, Any]]:
        """Tasks of a run, oldest first. Pages begin after the last id: deleting a task must not hide another.

        Args:
            run: The ledger's `run_id`.
            number: Of one round of it.
            include: Which fields.
        """
        last, done = 0, 0
        while True:
            page = self._page(run, number, last, include)
            yield from page["tasks"]
            done += len(page["tasks"])
            if len(page["tasks"]) < _PAGE:
                return
            if page["tasks"][-1]["id"] <= last:
                raise LabelStudioError(
                    f"{self.connection.url} lists the same tasks again where later ones were asked for; "
                    "needed is a server that filters them by id. Update Label Studio to 1.23 or newer."
                )
            last = page["tasks"][-1]["id"]
            self.progress("tasks listed", done, done - _PAGE + page["total"])

    def _page(self, run: str, number: int | None, last: int, include: str) -> dict[str, Any]:
        items = [_filter("data.lal_run", "equal", "String", run), _filter("id", "greater", "Number", last)]
        if number is not None:
            items.append(_filter("data.lal_round", "equal", "Number", number))
        query = {"ordering": ["tasks:id"], "filters": {"conjunction": "and", "items": items}}
        return self.connection.get_with(
            "tasks", "/api/tasks", project=self.number, fields="all", include=include, resolve_uri="false",
            page=1, page_size=_PAGE, query=json.dumps(query),
        )  # fmt: skip

    def users(self) -> dict[int, str]:
        """E-mails of those who annotate, as far as the token may see them."""
        try:
            users = self.connection.get("/api/users/")
        except LabelStudioError as error:
            if error.status in (403, 404):
                return {}
            raise
        return {user["id"]: user["email"] for user in users if user.get("email")}


def _filter(column: str, operator: str, kind: str, value: Any) -> dict[str, Any]:
    return {"filter": f"filter:tasks:{column}", "operator": operator, "type": kind, "value": value}

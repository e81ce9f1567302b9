"""IMAGES: pictures that lie here, taken to the server, each once.

    local files -> [upload] -> addresses for the tasks

A picture is stored under a name made of its content, so one that is there is found again. It becomes part of
no task by this: a task made of an upload has no room for our key.
"""

from __future__ import annotations

import hashlib
import json
import mimetypes
import uuid
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from lightning_al.exchange.label_studio.connection import Connection, LabelStudioError
from lightning_al.exchange.label_studio.tasks import IMAGE_SUFFIXES

__all__ = ["LARGEST_IMAGE", "check_images", "upload"]

#: Bytes of one picture. The server takes 250 MiB a request; a browser is slow long before that.
LARGEST_IMAGE = 50 << 20
_FILES, _BYTES = 50, 50 << 20  # of one request; the server takes 100 files


def check_images(paths: Iterable[Path]) -> None:
    """Whether the server would take them.

    Raises:
        ValueError: If one is not there, of another kind, or too large; the message names each.
    """
    problems = [f"{path}: {problem}" for path in paths if (problem := _problem(path))]
    if problems:
        shown = "\n  ".join(problems[:20])
        raise ValueError(
            f"{len(problems)} pictures cannot be shown, nothing was sent:\n  {shown}\nNeeded are files of "
            f"the kinds {', '.join(IMAGE_SUFFIXES)} below {LARGEST_IMAGE >> 20} MiB, or addresses. Mend what "
            "`describe` returns (paths count from the working directory)."
        )


def _problem(path: Path) -> str | None:
    if path.suffix.lower() not in IMAGE_SUFFIXES:
        return f"a browser shows no {path.suffix or 'file without suffix'}"
    try:
        size = path.stat().st_size
    except OSError as error:
        return str(error.strerror)
    return None if 0 < size <= LARGEST_IMAGE else f"has {size:,} bytes"


def upload(
    connection: Connection, project: int, paths: Iterable[Path], told: Callable[[int], None]
) -> dict[Path, str]:
    """Take pictures to the server that are not there yet.

    Args:
        connection: To the server.
        project: Its number of the project.
        paths: The pictures.
        told: Is called with how many are there.

    Returns:
        The address of each, as a task's data needs it.
    """
    names = {path: _name(path) for path in paths}
    there = _there(connection, project)
    for batch in _batches({name: path for path, name in names.items() if name not in there}):
        there |= _send(connection, project, batch)
        told(sum(name in there for name in names.values()))
    return {path: there[name] for path, name in names.items()}


def _name(path: Path) -> str:
    with path.open("rb") as file:
        return f"lal-{hashlib.file_digest(file, 'sha256').hexdigest()[:40]}{path.suffix.lower()}"


def _there(connection: Connection, project: int) -> dict[str, str]:
    return _addresses(connection.get(f"/api/projects/{project}/file-uploads", all="true"))


def _addresses(uploads: list[dict[str, Any]]) -> dict[str, str]:
    """By our name; the server puts some letters and a dash before it."""
    names = {each["file"]: Path(each["file"]).name.partition("-")[2] for each in uploads}
    return {name: f"/data/{file}" for file, name in names.items() if name.startswith("lal-")}


def _send(connection: Connection, project: int, batch: dict[str, Path]) -> dict[str, str]:
    content, kind = _multipart(batch)
    path = f"/api/projects/{project}/import?commit_to_project=false"
    try:
        ids = connection.call("POST", path, content, kind=kind)["file_upload_ids"]
        found = _addresses(connection.get(f"/api/projects/{project}/file-uploads", ids=json.dumps(ids)))
    except LabelStudioError as error:
        if not error.unsure:
            raise
        found = _there(connection, project)  # it may have arrived all the same
        if not batch.keys() <= found.keys():
            raise
    return {name: found[name] for name in batch}


def _batches(files: dict[str, Path]) -> Iterator[dict[str, Path]]:
    batch: dict[str, Path] = {}
    size = 0
    for name, path in files.items():
        more = path.stat().st_size
        if batch and (len(batch) == _FILES or size + more > _BYTES):
            yield batch
            batch, size = {}, 0
        batch[name] = path
        size += more
    if batch:
        yield batch


def _multipart(files: dict[str, Path]) -> tuple[bytes, str]:
    boundary = uuid.uuid4().hex
    parts = []
    for number, (name, path) in enumerate(files.items()):
        kind = mimetypes.guess_type(name)[0] or "application/octet-stream"
        head = (
            f'--{boundary}\r\nContent-Disposition: form-data; name="file{number}"; filename="{name}"\r\n'
            f"Content-Type: {kind}\r\n\r\n"
        )
        parts += [head.encode(), path.read_bytes(), b"\r\n"]
    return b"".join([*parts, f"--{boundary}--\r\n".encode()]), f"multipart/form-data; boundary={boundary}"

"""TARGET: may a table, a picture or a query be written to this path? Never in the place of what a run keeps.

a path of the user's -> [check_target] -> `replacing`
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

__all__ = ["check_target"]

#: What a run keeps in its state directory, at any depth; some systems take upper case for lower case.
_FILES = re.compile(
    r"ledger\.sqlite3.*|initial_weights\.pt|weights_\d+\.pt|fit_rounds(\.old\d+)?\.yaml|.*\.ckpt|run\.json"
    r"|times\.jsonl|log\.txt|comparison\.json",
    re.IGNORECASE,
)
_FOLDERS = re.compile(r"backups|round_\d+|stop_set", re.IGNORECASE)
#: People's answers may be in one; only another query takes its place, and keeps it beside.
_QUERY = re.compile(r"query_\d+(\.old\d+)?\.(csv|jsonl|json)", re.IGNORECASE)
_DEVICES = ("/dev", "/proc", "/sys")


def check_target(
    path: Path, what: str, *, folders: Iterable[str | os.PathLike[str]] = (), is_query: bool = False
) -> None:
    """Refuse a place that a run keeps something in: the ledger, its copies, weights, answers, any run's.

    Args:
        path: Where to.
        what: What is to be written, for the message.
        folders: State directories, also where they hold no ledger now; others are found by their ledgers.
        is_query: Whether it is one, which may take the place of another.

    Raises:
        ValueError: If it is such a place, a folder, a device or a pipe.

    Example:
        >>> check_target(Path("runs/digits/backups/round_1.sqlite3"), "the history", folders=["runs/digits"])
        Traceback (most recent call last):
        ...
        ValueError: runs/digits/backups/round_1.sqlite3 belongs to the ledger and its run; ...
    """
    # A link at the place itself is replaced; links on the way there are followed, and so are they here. The
    # place that the link stands for is looked at too: whoever names it may mean that.
    for real in (path.parent.resolve() / path.name, path.resolve()):
        if any(_is_kept(real, folder, is_query) for folder in _runs_around(real, folders)):
            raise ValueError(
                f"{path} belongs to the ledger and its run; needed is another place for {what}. Choose a "
                "file of its own, in another folder."
            )
        if str(real).startswith(_DEVICES) and not str(real).startswith("/dev/shm/"):
            raise ValueError(f"{path} is no file; needed is one to write {what} to. Choose another name.")
    if path.exists() and not path.is_file():
        raise ValueError(f"{path} is no file; needed is one to write {what} to. Choose another name.")


def _runs_around(real: Path, folders: Iterable[str | os.PathLike[str]]) -> Iterator[Path]:
    given = {Path(folder).resolve() for folder in folders}
    for folder in real.parents:
        if (
            folder in given
            or os.path.lexists(folder / "ledger.sqlite3")
            or (folder / "comparison.json").exists()
        ):
            yield folder


def _is_kept(real: Path, folder: Path, is_query: bool) -> bool:
    *between, name = real.relative_to(folder).parts
    if any(_FOLDERS.fullmatch(part) for part in between) or _FILES.fullmatch(name):
        return True
    return not is_query and bool(_QUERY.fullmatch(name))

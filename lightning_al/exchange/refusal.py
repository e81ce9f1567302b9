"""REFUSAL: the error of answers that cannot be read: a slip in a file, and nothing wrong with any code."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence

from lightning_al.ledger.status import printable

__all__ = ["RefusedAnswers", "listed", "refusal"]

_SHOWN_PROBLEMS = 20
_SHOWN_LETTERS = 500


class RefusedAnswers(ValueError):
    """Answers of a file that cannot be used: none was taken over, and the message names every line."""


def listed(lines: Iterable[str]) -> str:
    """What a report tells of, a line each, beneath its heading."""
    return "".join(f"\n  {printable(line)}" for line in lines)


def refusal(source: str | os.PathLike[str], problems: Sequence[str]) -> RefusedAnswers:
    """The error that names every row which is wrong."""
    shown = "\n  ".join(printable(problem[:_SHOWN_LETTERS]) for problem in problems[:_SHOWN_PROBLEMS])
    more = len(problems) - _SHOWN_PROBLEMS
    shown += f"\n  and {more:,} more" if more > 0 else ""
    return RefusedAnswers(
        f"{source} was not read, no label was taken over:\n  {shown}\nMend these lines and run "
        "again; `lightning-al import --overwrite`, in Python `import_labels(overwrite=True)`, lets a new "
        "answer win over a label on record. (Spreadsheets turn an id such as 00123 into 123: read and write "
        "that column as text.)"
    )

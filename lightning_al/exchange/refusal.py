"""REFUSAL: the error of answers that cannot be read: a slip in a file, and nothing wrong with any code."""

from __future__ import annotations

from collections.abc import Iterable

from lightning_al.ledger.status import printable

__all__ = ["RefusedAnswers", "listed"]


class RefusedAnswers(ValueError):
    """Answers of a file that cannot be used: none was taken over, and the message names every line."""


def listed(lines: Iterable[str]) -> str:
    """What a report tells of, a line each, beneath its heading."""
    return "".join(f"\n  {printable(line)}" for line in lines)

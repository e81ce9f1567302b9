"""REFUSAL: the error of answers that cannot be read: a slip in a file, and nothing wrong with any code."""

from __future__ import annotations

__all__ = ["RefusedAnswers"]


class RefusedAnswers(ValueError):
    """Answers of a file that cannot be used: none was taken over, and the message names every line."""

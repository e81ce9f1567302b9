"""TEXTS: from what a row says to a target as the ledger keeps it, or why it seems to mean something else.

Given -> [Texts.of] -> JSON
"""

from __future__ import annotations

from functools import cached_property
from typing import Any

from lightning_al.exchange.given import Given
from lightning_al.exchange.reading import check_answer
from lightning_al.ledger.book import Book
from lightning_al.ledger.label_values import check_not_missing, encode, is_class, no_first_label

__all__ = ["Texts"]

#: What people and programs write into `skip` and `unsure` for "yes", whatever the classes are called.
_MARKS = ("?", "unsure", "1", "1.0", "x", "y", "yes", "true")


class Texts:
    """From what a row says to a target as JSON; where every label is of one kind, each text is read once.

    Args:
        book: What labels there are, and what they must be like.
    """

    def __init__(self, book: Book) -> None:
        self.book, self.kind = book, book.kind
        self.is_known = self.kind.template is not None or self.kind.class_names is not None
        self._read: dict[Any, str] = {}
        self._fresh: dict[int, Any] = {}

    @cached_property
    def _names(self) -> dict[str, str]:
        """Names of the classes by what they are in small letters."""
        return {str(name).strip().casefold(): str(name) for name in self.kind.class_names or ()}

    @cached_property
    def _on_record(self) -> set[str]:
        return set(self.book.state.values.values())

    def doubt_of(self, row: Given) -> str | None:
        """Why a row does not seem to mean what it says; `None`: it does.

        An answer that was typed one cell too far would skip the sample or be lost, and a program labels all
        that is empty by its word for nothing. What is on record already is not argued with.
        """
        if row.score and self._is_label(row.score):
            return (
                f"its score is {row.score[:40]!r}; needed is a number or nothing: is a cell missing, or this "
                "a label?"
            )
        if row.doubt and row.doubt.casefold() in self._names and row.doubt.lower() not in _MARKS:
            return (
                f"its `{'skip' if row.skip else 'unsure'}` says {row.doubt[:40]!r}, which is a class; needed "
                "is the class in `label`, or in this cell a word that is none"
            )
        if not row.is_value and isinstance(row.label, str):
            try:
                check_not_missing(row.label, self.kind.class_names, self.kind.template)
            except ValueError as error:
                return None if encode(row.label) in self._on_record else str(error)
        return None

    def _is_label(self, text: str) -> bool:
        """Whether a text in a place for numbers is a label; without names, any word is, and no date."""
        if self.kind.class_names is not None:
            return text.casefold() in self._names
        return text[:1].isalpha() and not any(map(str.isdigit, text))

    def of(self, row: Given, index: int) -> str:
        """The target that a row means, as JSON.

        Raises:
            ValueError: If it is none of the classes, or of another kind.
        """
        key = (row.is_value, type(row.label), row.label) if type(row.label) in (str, int) else None
        if key in self._read:
            return self._read[key]
        template = self.kind.template_for(index, self.book.state, self._fresh)
        numbers = is_class(template) or isinstance(template, int | float)
        known = self.book.state.values.get(index)
        if template is None and known in ("true", "false") and str(row.label).strip().lower() == known:
            return known  # the only label on record, by a version that took truth for one
        if template is None and self.kind.class_names is None and isinstance(row.label, bool):
            raise ValueError(no_first_label(row.label))
        if row.is_value and isinstance(row.label, bool) and (numbers or self.kind.class_names is not None):
            raise ValueError(f"{row.label} is no class or number, as the other targets are; 0 and 1 are")
        if row.is_value:
            check_answer(row.label)
        if row.is_value and not (isinstance(row.label, str) and numbers):
            value = self.kind.checked(row.label, index, template)
            if type(row.label) in (int, float):
                self.kind.check_number(row.label, template)
        else:
            value = self.kind.parse(row.label, template)
            check_answer(value)
        text = encode(value)
        if not self.is_known and not self._fresh:
            self._fresh[index] = value
        elif self.is_known and key is not None:
            self._read[key] = text
        return text

"""GIVEN: one row of a file, whatever its format: what an annotator said, and of which sample and query.

a row of CSV, JSON lines or Label Studio -> Given -> [index_of, of_its_query] -> its sample here
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

from lightning_al.ledger.book import Book
from lightning_al.ledger.label_values import whole
from lightning_al.ledger.state import POOL

__all__ = ["Given", "as_of_this_run", "index_of", "is_number", "is_of_another", "name_in", "of_its_query"]

_LONGEST_INDEX = 40
#: What programs write where nobody has a name; people are called Nan.
_NOBODY = ("nan", "NaN", "None", "<NA>")


@dataclass(frozen=True)
class Given:
    """One row: what an annotator said of one sample.

    Args:
        where: How messages name the row, such as `"line 3"`.
        index: Data set index, as text; may be empty where `id` is not.
        id: The user's name of the sample.
        label: The answer: text that is parsed as a person's, or with `is_value` a target; `None`: no answer.
        is_value: `label` is a target, not a text that stands for one.
        skip: Never ask for the sample again, where there is no answer.
        unsure: The annotator cannot tell yet, where there is no answer.
        doubt: What stands where the row says that it is one of these, if it is a text of any kind.
        who: The annotator's name, if the row has one.
        said: When, by the clock of the annotator's tool; see `lightning_al.ledger.answer.moment`.
        round: Of the query that the row is from, as text; empty: of any.
        run: The `run_id` that the row is from; empty: of any.
        score: What stands for the strategy's score, where that is neither a number nor nothing.
    """

    where: str
    index: str = ""
    id: str = ""
    label: Any = None
    is_value: bool = False
    skip: bool = False
    unsure: bool = False
    doubt: str = ""
    who: str = ""
    said: str | None = None
    round: str = ""
    run: str = ""
    score: str = ""

    @property
    def is_filled(self) -> bool:
        """Whether an annotator said anything."""
        return self.label is not None or self.skip or self.unsure


def index_of(row: Given, book: Book) -> int:
    """The sample of a row, by its name if it has one.

    Raises:
        ValueError: If there is no such sample.
    """
    text = whole(row.index)
    if book.names is not None and row.id.strip():
        index = book.names.find(row.id)
        if index is None:
            raise ValueError(f"there is no sample with id {row.id[:200]!r}")
        # Of samples that have moved since, a file has the old indices.
        if text and text != str(index) and not book.has_moved:
            raise ValueError(
                f"id {row.id[:200]!r} is sample {index}, and not {text[:40]!r}, as its index says; one of "
                "the two is damaged"
            )
        return index
    if not text.isdecimal() or len(text) > _LONGEST_INDEX or int(text) >= book.size:
        raise ValueError(_unknown(text, row, book))
    if book.names is not None and book.has_moved:
        raise ValueError(
            f"it has no `id`, and sample {text} may be another one by now: the samples of this run have "
            "changed places since its first query; needed is the `id`"
        )
    return int(text)


def _unknown(text: str, row: Given, book: Book) -> str:
    """Why the sample of a row cannot be told, and what is needed."""
    needed = f"needed is an `index` from 0 to {book.size - 1:,}{'' if book.names is None else ', or an `id`'}"
    if text:
        return f"there is no sample {text[:40]!r}; {needed}"
    if row.id.strip():
        return f"it has the id {row.id[:200]!r} alone, and the samples of this run have no ids; {needed}"
    return f"it does not say which sample it is of; {needed}"


def of_its_query(book: Book, row: Given, index: int) -> bool:
    """Whether the row is of the query that the sample is in: an answer taken back must not come again.

    A row of another run, whose file was left here, is of none.
    """
    number = whole(row.round)
    if is_of_another(book, row):
        return False
    if not number:
        return True
    query = int(book.state.query[index])
    return number == str(query if query >= 0 else book.state.round[index])


def is_of_another(book: Book, row: Given) -> bool:
    """Whether the row says that it is from another run."""
    return bool(row.run) and row.run != book.state.run_id


def as_of_this_run(book: Book, rows: Iterable[Given]) -> tuple[list[Given], int]:
    """Rows of another run, whose ledger is lost, as if they were this one's.

    Returns:
        All rows but those of other runs' samples that nobody asked for here, and how many these are.
    """
    found, passed = [], 0
    for row in rows:
        if not is_of_another(book, row):
            found.append(row)
            continue
        mine = replace(row, run="", round="")
        try:
            known = book.state.status[index_of(mine, book)] != POOL
        except ValueError:
            known = True  # `collect` says why it is none
        if known:
            found.append(mine)
        else:
            passed += row.is_filled
    return found, passed


def name_in(text: str) -> str:
    """The annotator that a cell names; empty: nobody, as programs write it too.

    Example:
        >>> name_in(" Ada "), name_in("nan"), name_in("Nan")
        ('Ada', '', 'Nan')
    """
    name = text.strip()
    return "" if name in _NOBODY else name


def is_number(text: str) -> bool:
    """Whether a text is a whole number from 0 on, of no more digits than any index or query has."""
    return text.isdecimal() and len(text) < _LONGEST_INDEX

"""ANSWERS: what annotators said, from rows of text to labels that the ledger does not know yet.

    rows of a file -> [collect] -> Answers

A file is read as a whole or not at all, and as often as one likes.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lightning_al.ledger.label_values import encode, parse_label, whole
from lightning_al.ledger.state import ASKED, LABELED, POOL

if TYPE_CHECKING:
    from lightning_al.data.book import LabelBook
    from lightning_al.data.samples import Samples

__all__ = ["Answers", "Row", "collect", "index_of", "is_filled", "of_its_query", "refusal"]

Row = dict[str, str]
_SHOWN_PROBLEMS = 20


@dataclass
class Answers:
    """What a file said that the ledger does not know yet."""

    labels: dict[int, Any] = field(default_factory=dict)
    skipped: list[int] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.labels) + len(self.skipped)


def collect(
    book: LabelBook,
    rows: Iterable[tuple[int, Row]],
    path: Path,
    *,
    overwrite: bool = False,
    automatic: bool = False,
) -> Answers:
    """The answers of a file, all of them or none; those already on record are passed over.

    Args:
        book: Ledger and state.
        rows: Line number and columns of each row.
        path: The file that they are from.
        overwrite: Let a changed answer correct a label.
        automatic: Read without being told to: pass over rows of another query than the one their sample is in
            now, and answers that were read before and have been corrected since.

    Raises:
        ValueError: If a row is wrong; the message names every one.
    """
    answers, problems = Answers(), []
    earlier = _earlier_values(book) if automatic else {}
    for line, row in rows:
        if not is_filled(row):
            continue
        try:
            index = index_of(row, book.samples)
            if automatic and (not of_its_query(book, row, index) or _was_read(book, row, index, earlier)):
                continue
            _collect_row(book, index, row, answers, overwrite)
        except ValueError as error:
            problems.append(f"line {line}: {error}")
    if problems:
        raise refusal(path, problems)
    return answers


def _earlier_values(book: LabelBook) -> dict[int, set[str | None]]:
    """All values that labelled samples ever had."""
    place = book.identity.places(book.state_dir)
    values: dict[int, set[str | None]] = {}
    for _, event in book.ledger.events():
        if event.kind in ("labeled", "relabeled"):
            values.setdefault(place(event), set()).add(event.value)
    return values


def _was_read(book: LabelBook, row: Row, index: int, earlier: dict[int, set[str | None]]) -> bool:
    """Whether a row says what is, or was, on record: a correction by other ways is not argued with."""
    if book.state.status[index] != LABELED:
        return False
    samples, text = book.samples, row["label"].strip()
    if not text:
        return True
    value = parse_label(text, samples.class_names, samples.template_for(index, book.state, {}))
    return encode(value) in earlier.get(index, ())


def _collect_row(book: LabelBook, index: int, row: Row, answers: Answers, overwrite: bool) -> None:
    state, samples = book.state, book.samples
    if index in answers.labels or index in answers.skipped:
        raise ValueError(f"sample {index} is there twice")
    text = row["label"].strip()
    if not text:
        if state.status[index] in (POOL, ASKED):
            answers.skipped.append(index)
        return
    value = parse_label(text, samples.class_names, samples.template_for(index, state, answers.labels))
    if state.status[index] == LABELED:
        if encode(value) == state.values.get(index):
            return
        if not overwrite:
            raise ValueError(f"sample {index} is labelled {state.target(index)} already, not {text}")
    answers.labels[index] = value


def index_of(row: Row, samples: Samples) -> int:
    """The sample of a row, by its name if it has one.

    Raises:
        ValueError: If there is no such sample.
    """
    name, text = row.get("id", ""), whole(row.get("index", ""))
    if samples.ids is not None and name.strip():
        index = samples.find(name)
        if index is None:
            raise ValueError(f"there is no sample with id {name!r}")
        return index
    if not text.isdecimal() or int(text) >= len(samples):
        raise ValueError(f"there is no sample {text!r}")
    return int(text)


def of_its_query(book: LabelBook, row: Row, index: int) -> bool:
    """Whether the row is of the query that the sample is in: an answer taken back must not come again."""
    return whole(row.get("round", "")) in ("", str(book.state.round[index]))


def is_filled(row: Row) -> bool:
    """Whether an annotator said anything."""
    return bool(row["label"].strip() or row.get("skip", "").strip())


def refusal(path: Path, problems: list[str]) -> ValueError:
    """The error that names every line which is wrong."""
    shown = "\n  ".join(problems[:_SHOWN_PROBLEMS])
    return ValueError(
        f"{path} was not read, no label was taken over:\n  {shown}\nMend these lines and run "
        "again; `import_labels(overwrite=True)` lets a new answer win over a label on record. (Spreadsheets "
        "turn an id such as 00123 into 123: read and write that column as text.)"
    )

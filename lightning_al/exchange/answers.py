"""ANSWERS: what annotators said, from the rows of a file or a server to opinions that the ledger takes over.

    Given rows -> [collect] -> Intake, for `book.take`

A file is read as a whole or not at all, and as often as one likes. A format of its own needs no more than
to make a `Given` of every row.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from lightning_al.exchange.progress import with_progress
from lightning_al.exchange.reading import check_answer
from lightning_al.exchange.refusal import RefusedAnswers
from lightning_al.ledger.answer import RESERVED, Opinion, bare, check_annotator
from lightning_al.ledger.book import Book
from lightning_al.ledger.intake import Intake, said_in
from lightning_al.ledger.label_values import check_not_missing, encode, is_class, no_first_label, whole
from lightning_al.ledger.state import ASKED, IGNORED, LABELED, POOL
from lightning_al.ledger.status import printable
from lightning_al.ledger.trail import Happened, newest_of_each, standing

__all__ = [
    "Given",
    "Texts",
    "as_of_this_run",
    "collect",
    "index_of",
    "is_of_another",
    "name_in",
    "of_its_query",
    "refusal",
    "unread",
]

_SHOWN_PROBLEMS = 20
_SHOWN_LETTERS = 500
_LONGEST_INDEX = 40
_ROWS_A_SAMPLE, _MOST_ROWS = 100, 5_000_000
#: What programs write where nobody has a name; people are called Nan.
_NOBODY = ("nan", "NaN", "None", "<NA>")
#: What people and programs write into `skip` and `unsure` for "yes", whatever the classes are called.
_MARKS = ("?", "unsure", "1", "1.0", "x", "y", "yes", "true")


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


def collect(
    book: Book,
    rows: Iterable[Given],
    source: str | os.PathLike[str],
    *,
    who: str | None = None,
    overwrite: bool = False,
    automatic: bool = False,
) -> Intake:
    """The answers of a file, all of them or none; those already on record are passed over.

    Args:
        book: Ledger and state.
        rows: Of the file.
        source: The file, for messages and, by its name, for rows of which nobody says who gave them.
        who: The annotator of rows that name none.
        overwrite: Let a changed answer correct a label, and one that was taken back count again.
        automatic: Read without being told to: pass over rows of another query than the one their sample is in
            now, and answers that were read before and have been corrected since.

    Returns:
        What `book.take` writes.

    Raises:
        ValueError: If a row is wrong; the message names every one.
    """
    intake = book.intake(overwrite=overwrite)
    who = None if who is None else bare(who)
    name = _name_of(source, who)
    read: list[tuple[int, Opinion]] = []
    rows, texts = list(rows), Texts(book)
    _check_number(book, rows, source)
    problems = _lost_among(book, rows, texts, automatic=automatic)
    for number, row in enumerate(with_progress(rows, name)):
        if not row.is_filled:
            continue
        try:
            index = index_of(row, book)
            if automatic and not of_its_query(book, row, index):
                continue
            _check_row(book, row)
            opinion = _opinion(
                row, index, texts, who=row.who or who or name, named=bool(row.who or who), file=name
            )
        except (ValueError, TypeError, RecursionError) as error:
            said = "it is nested too deeply" if isinstance(error, RecursionError) else error
            problems.append((number, f"{row.where}: {said}"))
        else:
            if not (who and not row.who and _is_of_file(book, opinion, name)):
                read.append((number, opinion))
    problems += _new_among(book, rows, read, texts)
    if not overwrite:
        read, intake.taken_back = _not_read_before(book, read, corrected=automatic)
    refused = intake.add_all([opinion for _, opinion in read])
    problems += [(read[n][0], f"{rows[read[n][0]].where}: {error}") for n, error in refused]
    if problems:
        raise refusal(source, [text for _, text in sorted(problems)])
    return intake


def unread(book: Book, rows: Iterable[Given], source: str | os.PathLike[str], *, automatic: bool) -> int:
    """How many answers of a file are on record by nobody; arguments as those of `collect`.

    A doubt of which the file does not say whose it is may have been read under somebody's name.
    """
    intake = collect(book, rows, source, automatic=automatic)
    name = _name_of(source, None)
    doubts = [
        (event.sample, what)
        for event in intake.events
        if event.who == name and (what := said_in(event)) is not None and what[0] != "label"
    ]
    said = {i: _ever_said(trail) for i, trail in book.trails(sorted({i for i, _ in doubts})).items()}
    return len(intake) - sum((*what, None) in said[index] for index, what in doubts if index in said)


def _name_of(source: str | os.PathLike[str], who: str | None) -> str:
    """The file's name, which stands for an annotator where nobody says who gave its answers."""
    if who is not None:
        try:
            check_annotator(who)
        except ValueError as error:
            raise ValueError(f"`who` cannot be used: {error}. Give the annotator's own name.") from None
    name = Path(source).name.encode(errors="replace").decode()
    return f"file {name}" if name in RESERVED else name


def _check_number(book: Book, rows: list[Given], source: str | os.PathLike[str]) -> None:
    most = min(_ROWS_A_SAMPLE * (book.size + 1), _MOST_ROWS)
    if len(rows) > most:
        raise ValueError(
            f"{source} has {len(rows):,} rows for {book.size:,} samples; needed are at most {most:,}. "
            "Nothing was read. Take the file apart, or check that it is of this run."
        )


def _check_row(book: Book, row: Given) -> None:
    """Refuse what one of this run's queries cannot be, and an answer that contradicts itself."""
    state, number = book.state, whole(row.round)
    if is_of_another(book, row):
        raise ValueError(f"it is of run {row.run[:40]!r}, and this ledger is of run {state.run_id!r}")
    is_number = number.isdecimal() and len(number) < _LONGEST_INDEX
    if number and not (is_number and int(number) <= state.last_round):
        raise ValueError(f"there is no query {number[:40]!r}; the newest is {state.last_round}")
    if row.label is not None and (row.skip or row.unsure):
        doubt = "skip" if row.skip else "unsure"
        raise ValueError(f"it has the label {str(row.label)[:40]!r} and `{doubt}`; needed is one of them")


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


def _opinion(row: Given, index: int, texts: Texts, *, who: str, named: bool, file: str) -> Opinion:
    if row.label is None:
        return Opinion(index, "skip" if row.skip else "unsure", None, who, named, row.said, file=file)
    return Opinion(index, "label", texts.of(row, index), who, named, row.said, str(row.label), file)


def _is_of_file(book: Book, opinion: Opinion, name: str) -> bool:
    """Whether the label on record was read from the same file, when nobody said whose answers it holds."""
    state, index = book.state, opinion.index
    return state.who.get(index) == name and state.values.get(index) == opinion.text


def _lost_among(book: Book, rows: list[Given], texts: Texts, *, automatic: bool) -> list[tuple[int, str]]:
    """Rows that say nothing, with a label in the wrong place: nobody would miss it; places and why."""
    found = []
    for number, row in enumerate(rows):
        doubt = texts.doubt_of(row) if row.score and not row.is_filled else None
        if doubt and not (automatic and not _waits(book, row)):
            found.append((number, f"{row.where}: {doubt}"))
    return found


def _waits(book: Book, row: Given) -> bool:
    """Whether the sample of a row waits, in the query that the row is of."""
    try:
        index = index_of(row, book)
    except ValueError:
        return False
    return of_its_query(book, row, index) and book.state.status[index] == ASKED


def _new_among(
    book: Book, rows: list[Given], read: list[tuple[int, Opinion]], texts: Texts
) -> list[tuple[int, str]]:
    """Rows that may mean something else than they say, by place, and why, but for those on record already."""
    doubts = {number: why for number, _ in read if (why := texts.doubt_of(rows[number]))}
    suspects = [(number, opinion) for number, opinion in read if number in doubts]
    trails = book.trails(sorted({o.index for _, o in suspects}))
    said = {index: _ever_said(trail) for index, trail in trails.items()}
    return [
        (number, f"{rows[number].where}: {doubts[number]}")
        for number, o in suspects
        if (o.kind, o.text, o.who if o.named else None) not in said[o.index]
    ]


def _not_read_before(
    book: Book, read: list[tuple[int, Opinion]], *, corrected: bool
) -> tuple[list[tuple[int, Opinion]], int]:
    """Without what was on record once and was taken back, and how many that are: it is not argued with.

    Args:
        book: The record.
        read: Places and opinions.
        corrected: Also without what was corrected since, also while the sample waits for a rule's decision,
            and what the sample was ignored after.
    """
    state = book.state

    def is_corrected(opinion: Opinion) -> bool:
        index, status = opinion.index, state.status[opinion.index]
        if status == LABELED:
            return opinion.text != state.values.get(index)
        return status == IGNORED or (status == ASKED and index in state.answered)

    doubtful = [o.index for _, o in read if o.index in state.reverted or (corrected and is_corrected(o))]
    trails = book.trails(doubtful)
    said = {index: _ever_said(trail) for index, trail in trails.items()}

    def is_new(opinion: Opinion) -> bool:
        index, who = opinion.index, opinion.who if opinion.named else None
        if index not in said or (opinion.kind, opinion.text, who) not in said[index]:
            return True
        return not corrected and state.values.get(index) == opinion.text and state.status[index] == LABELED

    new = [(number, opinion) for number, opinion in read if is_new(opinion)]
    places = {number for number, _ in new}
    old = [opinion for number, opinion in read if number not in places]
    # An answer that stands beside the label, whoever gave it, is on record and was not taken back.
    stand = {(o.index, said.text) for o in old for said in newest_of_each(standing(trails[o.index]))}
    return new, sum(o.kind != "label" or (o.index, o.text) not in stand for o in old)


def _ever_said(trail: list[Happened]) -> set[tuple[str, str | None, str | None]]:
    """What was said of a sample since it was last asked for: by each, and, without a name, by anybody."""
    said: set[tuple[str, str | None, str | None]] = set()
    for _, _, event in trail:
        if event.kind == "asked":
            said.clear()
        elif (what := said_in(event)) is not None:
            said |= {(*what, event.who), (*what, None)}
    return said


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


def refusal(source: str | os.PathLike[str], problems: list[str]) -> RefusedAnswers:
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

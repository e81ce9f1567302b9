"""ANSWERS: what annotators said, from the rows of a file or a server to opinions that the ledger takes over.

    Given rows -> [collect] -> Intake, for `book.take`

A file is read as a whole or not at all, and as often as one likes. A format of its own needs no more than
to make a `Given` of every row.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from lightning_al.exchange.given import Given, index_of, is_number, is_of_another, of_its_query
from lightning_al.exchange.progress import with_progress
from lightning_al.exchange.refusal import refusal
from lightning_al.exchange.texts import Texts
from lightning_al.ledger.answer import RESERVED, Opinion, bare, check_annotator
from lightning_al.ledger.book import Book
from lightning_al.ledger.intake import Intake, said_in
from lightning_al.ledger.label_values import whole
from lightning_al.ledger.state import ASKED, IGNORED, LABELED
from lightning_al.ledger.trail import Happened, newest_of_each, standing

__all__ = ["collect", "unread"]

_ROWS_A_SAMPLE, _MOST_ROWS = 100, 5_000_000


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
    if number and not (is_number(number) and int(number) <= state.last_round):
        raise ValueError(f"there is no query {number[:40]!r}; the newest is {state.last_round}")
    if row.label is not None and (row.skip or row.unsure):
        doubt = "skip" if row.skip else "unsure"
        raise ValueError(f"it has the label {str(row.label)[:40]!r} and `{doubt}`; needed is one of them")


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

"""CSV: a query out to people and their answers in, as a table that every spreadsheet opens.

One row a sample; the annotator fills the column `label`, or writes into `skip`: "?" or "unsure" where it
cannot be told yet, anything else but the name of a class where the sample is never to be asked for again.
What programs and people write for "no" (False, 0, no, nein, nan, n/a, -) is nothing there. A column `who`
may name the annotator of each row; a column `unsure` is read as `skip` is.

A row must fit the header: cells beyond it are refused, and so is a column of ours that is there twice, or
answers in one in capital letters, unless ours is there too or it was exported with the query. Empty
cells at the end of a row may be missing, since spreadsheets leave them out.

A spreadsheet takes text that begins with = + - @ for a formula, and computes it. Such names and descriptions
get an apostrophe before them, and lose it again when the file is read.
"""

from __future__ import annotations

import csv
import io
import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from lightning_al.exchange.given import Given, name_in
from lightning_al.exchange.queries import Query, waiting_queries
from lightning_al.exchange.reading import read_text
from lightning_al.exchange.refusal import refusal
from lightning_al.exchange.writing import new_file
from lightning_al.ledger.book import Book
from lightning_al.ledger.label_values import whole

__all__ = ["read_csv", "write_csv"]

_OURS = ("index", "id", "run", "round", "rank", "score", "label", "skip", "unsure", "who")
_OF_ONE_LINE = ("index", "run", "round", "rank", "skip", "unsure", "who")
_UNSURE = ("?", "unsure")
_ANSWERS = ("label", "skip", "unsure", "who")
#: As programs and people write "no" and "nothing".
_NO = (
    "", "false", "0", "0.0", "n", "no", "none", "null", "nan", "-", "nein", "non", "falsch", "faux", "na",
    "n/a", "#n/a", "<na>",
)  # fmt: skip
#: Before the run's id, which a spreadsheet would else take for a number now and then: 12e456 is one.
_RUN = "run-"
#: What OWASP names ("CSV Injection"), wide forms and blanks before it included, and apostrophes of our own.
_FORMULA = re.compile(r"'*\s*[=+\-@\uff0b\uff0d\uff1d\uff20]|'*[\t\r\n]")
_NUMBER = re.compile(r"-?[0-9]+(\.[0-9]+)?")
#: A score as it was, or as a spreadsheet leaves it: 2.5 may be the second of May, and what is too wide ###.
_SCORE = re.compile(
    r"[-+0-9.,:/'\s]*(E[-+]?[0-9]+)?|[-+]?inf|#.*"
    r"|[0-9]{1,2}[-. ]+[^\W\d_]{3,9}\.?([-. ]+[0-9]{2,4})?|[^\W\d_]{3,9}\.?[-. ]*[0-9]{2,4}",
    re.IGNORECASE,
)


def write_csv(book: Book, path: Path) -> Path:
    """Write the waiting samples, whole or not at all; a file that was there is kept beside it.

    Raises:
        OSError: If the disk is full, or the folder cannot be written.
    """
    run = f"{_RUN}{book.state.run_id}"
    rows = [_row(query) | {"run": run} for query in waiting_queries(book)]
    fixed = ["index", *([] if book.names is None else ["id"]), "run", "round", "rank", "score"]
    columns = [*dict.fromkeys([*fixed, *(key for row in rows for key in row)]), "label", "skip"]
    with new_file(book, path) as file:
        writer = csv.writer(file)
        writer.writerow([_harmless(column) for column in columns])
        writer.writerows([_harmless(row.get(column, "")) for column in columns] for row in rows)
    return path


def _row(query: Query) -> dict[str, Any]:
    row = {
        "index": query.index,
        "id": query.id,
        "round": query.round,
        "rank": query.rank,
        "score": query.score,
    }
    shown = {_free_name(key, query.shown): value for key, value in query.shown.items()}
    return {key: value for key, value in row.items() if value is not None} | shown


def _free_name(name: str, taken: Mapping[str, Any]) -> str:
    """A column beside ours: on a day of annotation nothing fails over a name."""
    if name.strip().lower() not in _OURS:
        return name
    name = f"sample_{name}"
    while name in taken:
        name += "_"
    return name


def _harmless(value: Any) -> Any:
    """A cell that no spreadsheet computes; numbers stay as they are."""
    if not isinstance(value, str) or not _FORMULA.match(value) or _NUMBER.fullmatch(value):
        return value
    return f"'{value}"


def _as_it_was(text: str) -> str:
    """What `_harmless` was given."""
    return text[1:] if text.startswith("'") and _FORMULA.match(text) else text


def read_csv(path: Path) -> list[Given]:
    """The rows of a table; columns are parted by comma, semicolon or tab.

    Raises:
        ValueError: If it is no such table.
    """
    text = read_text(path, "CSV UTF-8")
    for delimiter in ",;\t":
        # strict: a quote that is never closed must not take the rest of the file for one cell
        reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
        try:
            columns = [name.strip() for name in next(reader, [])]
        except csv.Error:  # of another delimiter, perhaps
            continue
        if "label" in columns and {"index", "id"} & set(columns):
            _check_header(path, columns)
            return _read(path, columns, reader, text)
    first = text.partition("\n")[0].strip()
    raise ValueError(
        f"{path} has columns [{first[:200]}]; needed are `label` and `index` or `id`, parted by comma, "
        "semicolon or tab. Fill in the file that the query was exported to."
    )


def _check_header(path: Path, columns: Sequence[str]) -> None:
    twice = [name for name in _OURS if columns.count(name) > 1]
    if twice:
        raise ValueError(
            f"{path} has the column {twice[0]!r} {columns.count(twice[0])} times; needed is one, since "
            "nobody can tell which of them counts. Rename or delete the others."
        )


def _misspelt(columns: Sequence[str]) -> list[int]:
    """Places of columns for answers in capital letters; beside ours such a one is another.

    In a query, `label` and what comes after it are for answers, and what comes before was shown.
    """
    first = columns.index("label") if "run" in columns else 0
    return [
        place
        for place, name in enumerate(columns)
        if place >= first and name.lower() in _ANSWERS and name.lower() not in columns
    ]


def _read(path: Path, columns: Sequence[str], rows: Any, text: str) -> list[Given]:
    """Every row that holds something; `rows` is the reader, which knows the line, and `text` all of it."""
    found: list[Given] = []
    problems: list[str] = []
    named = max(place for place, name in enumerate(columns) if name) + 1
    misspelt = _misspelt(columns)
    line = rows.line_num
    for cells in _cells(path, rows, text):
        lines, line = rows.line_num - line, rows.line_num
        if not any(map(str.strip, cells)):
            continue
        for place in misspelt:
            if cells[place : place + 1] and cells[place].strip():
                raise ValueError(
                    f"{path} has the column {columns[place]!r}, and none that is called "
                    f"{columns[place].lower()!r}, which alone is read. Rename it, in small letters if it is "
                    "meant."
                )
        row = dict(itertools.zip_longest(columns[:named], cells[:named], fillvalue=""))
        try:
            if lines > 1:
                _check_lines(row)
            _check_row(cells[named:], row, is_short=len(cells) <= columns.index("label"))
        except ValueError as error:
            problems.append(f"line {rows.line_num}: {error}")
        else:
            found.append(_given(rows.line_num, row))
    if problems:
        raise refusal(path, problems)
    return found


def _cells(path: Path, rows: Any, text: str) -> Iterator[list[str]]:
    """The rows as `csv` gives them; of one that it cannot read, the line that it begins in is named."""
    begun = rows.line_num + 1
    try:
        for cells in rows:
            yield cells
            begun = rows.line_num + 1
    except csv.Error as error:
        if _is_long(text, begun, rows.line_num):
            raise ValueError(
                f"{path} has a cell of more than {csv.field_size_limit():,} letters in line {begun}; needed "
                "are fewer. Nothing was read. Shorten it, or give the answers as JSON lines."
            ) from error
        raise ValueError(
            f"{path} is no CSV file (line {begun}: {error}; a quote that opens a cell has to close it, and "
            "one inside is written twice). Nothing was read. Mend that line."
        ) from error


def _is_long(text: str, first: int, last: int) -> bool:
    """Whether a line that cannot be read is whole, and has a cell that is too long."""
    line = next(itertools.islice(io.StringIO(text, newline=""), first - 1, None), "")
    return first == last and len(line) > csv.field_size_limit() and line.count('"') % 2 == 0


def _check_lines(row: Mapping[str, str]) -> None:
    """Refuse a row of several lines where it cannot be one: it holds the rows after it."""
    for name in _OF_ONE_LINE:
        if "\n" in row.get(name, "").strip():
            raise ValueError(
                f"its {name} has several lines, {row[name][:40]!r}; needed is one: is a quote missing?"
            )


def _check_row(beyond: Sequence[str], row: Mapping[str, str], *, is_short: bool) -> None:
    """Refuse a row whose cells are not where the header says: its answer is in another column, or cut off.

    Args:
        beyond: Cells to the right of the last column that has a name.
        row: The others.
        is_short: It ends before the column `label`.
    """
    surplus = [cell for cell in beyond if cell.strip()]
    if surplus:
        raise ValueError(
            f"{surplus[0][:40]!r} is beyond the last column; a label with a comma needs quotes around it, "
            "and notes a column of their own"
        )
    if is_short and not (row.get("index", "").strip() or row.get("id", "").strip()):
        raise ValueError("it ends before `label`, and has neither `index` nor `id`; needed are all columns")
    for name in ("round", "rank"):
        text = whole(row.get(name, ""))
        if text and not text.isdecimal():
            raise ValueError(f"its {name} is {text[:40]!r}; needed is a number: is a cell missing?")


def _odd_score(row: Mapping[str, str]) -> str:
    """What stands for a score and may be a label, with a cell missing before it."""
    score = row.get("score", "").strip()
    # In a table of somebody's own, without ranks, a score may be anything.
    return score if "rank" in row and not (_SCORE.fullmatch(score) or score.lower() in _NO) else ""


def _given(line: int, row: Mapping[str, str]) -> Given:
    said, also = row.get("skip", "").strip(), row.get("unsure", "").strip()
    skip, unsure = said.lower(), also.lower()
    doubts = skip in _UNSURE or unsure not in _NO
    return Given(
        f"line {line}", row.get("index", ""), _as_it_was(row.get("id", "")),
        row["label"].strip() or None,
        skip=skip not in _NO and not doubts, unsure=doubts,
        doubt=also if unsure not in _NO else said if skip not in _NO else "", who=name_in(row.get("who", "")),
        score=_odd_score(row), round=row.get("round", ""), run=row.get("run", "").strip().removeprefix(_RUN),
    )  # fmt: skip

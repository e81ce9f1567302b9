"""CSV: a query out to people and their answers in, as a table that every spreadsheet opens.

One row a sample; the annotator fills the column `label`, or writes into `skip`: "?" or "unsure" where it
cannot be told yet, anything else where the sample is never to be asked for again. A column `who` may name the
annotator of each row.

A spreadsheet takes text that begins with = + - @ for a formula, and computes it. Such names and descriptions
get an apostrophe before them, and lose it again when the file is read.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Mapping
from itertools import zip_longest
from pathlib import Path
from typing import Any

from lightning_al.exchange.answers import Given
from lightning_al.exchange.queries import Query, waiting_queries
from lightning_al.exchange.reading import read_text
from lightning_al.exchange.writing import new_file
from lightning_al.ledger.book import Book

__all__ = ["read_csv", "write_csv"]

_OURS = ("index", "id", "round", "rank", "score", "label", "skip", "who")
_UNSURE = ("?", "unsure")
#: What OWASP names ("CSV Injection"), wide forms and blanks before it included, and apostrophes of our own.
_FORMULA = re.compile(r"'*\s*[=+\-@\uff0b\uff0d\uff1d\uff20]|'*[\t\r\n]")
_NUMBER = re.compile(r"-?[0-9]+(\.[0-9]+)?")


def write_csv(book: Book, path: Path) -> Path:
    """Write the waiting samples, whole or not at all; a file that was there is kept beside it.

    Raises:
        OSError: If the disk is full, or the folder cannot be written.
    """
    rows = [_row(query) for query in waiting_queries(book)]
    fixed = ["index", *([] if book.names is None else ["id"]), "round", "rank", "score"]
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
    if name not in _OURS:
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
        reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)
        try:
            columns = [name.strip() for name in next(reader, [])]
            if "label" in columns and {"index", "id"} & set(columns):
                return [
                    _given(reader.line_num, dict(zip_longest(columns, cells[: len(columns)], fillvalue="")))
                    for cells in reader
                    if cells
                ]
        except csv.Error as error:
            raise ValueError(
                f"{path} is no CSV file (line {reader.line_num}: {error}). Export the query again."
            ) from error
    first = text.partition("\n")[0].strip()
    raise ValueError(
        f"{path} has columns [{first[:200]}]; needed are `label` and `index` or `id`, parted by comma, "
        "semicolon or tab. Fill in the file that the query was exported to."
    )


def _given(line: int, row: Mapping[str, str]) -> Given:
    skip = row.get("skip", "").strip()
    unsure = skip.lower() in _UNSURE
    return Given(
        f"line {line}", row.get("index", ""), _as_it_was(row.get("id", "")),
        row["label"] if row["label"].strip() else None,
        skip=bool(skip) and not unsure, unsure=unsure, who=row.get("who", "").strip(),
        round=row.get("round", ""),
    )  # fmt: skip

"""CSV: a query out to people and their answers in, as a table that every spreadsheet opens.

One row a sample; the annotator fills the column `label`, or writes into `skip`: "?" or "unsure" where it
cannot be told yet, anything else where the sample is never to be asked for again. A column `who` may name the
annotator of each row.
"""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Mapping
from itertools import zip_longest
from pathlib import Path
from typing import Any

from lightning_al.exchange.answers import Given
from lightning_al.exchange.queries import Query, waiting_queries
from lightning_al.ledger.book import Book
from lightning_al.whole_file import replacing

__all__ = ["read_csv", "write_csv"]

_OURS = ("index", "id", "round", "rank", "score", "label", "skip", "who")
_UNSURE = ("?", "unsure")


def write_csv(book: Book, path: Path) -> Path:
    """Write the waiting samples, whole or not at all; a file that was there is kept beside it.

    Raises:
        OSError: If the disk is full, or the folder cannot be written.
    """
    rows = [_row(query) for query in waiting_queries(book)]
    fixed = ["index", *([] if book.names is None else ["id"]), "round", "rank", "score"]
    columns = [*dict.fromkeys([*fixed, *(key for row in rows for key in row)]), "label", "skip"]
    with replacing(path, "The query") as part:
        with part.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, columns, restval="")
            writer.writeheader()
            writer.writerows(rows)
        if path.exists():
            os.replace(path, _unused(path))
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


def _unused(path: Path) -> Path:
    number = 1
    while (kept := path.with_name(f"{path.stem}.old{number}.csv")).exists():
        number += 1
    return kept


def read_csv(path: Path) -> list[Given]:
    """The rows of a table; columns are parted by comma, semicolon or tab.

    Raises:
        ValueError: If it is no such table.
    """
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise ValueError(f"{path} cannot be read ({error}). Check the path.") from error
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{path} is in another encoding than UTF-8 ({error}); needed is UTF-8. Save it again as "
            '"CSV UTF-8".'
        ) from error
    try:
        for delimiter in ",;\t":
            reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)
            columns = [name.strip() for name in next(reader, [])]
            if "label" in columns and {"index", "id"} & set(columns):
                return [
                    _given(reader.line_num, dict(zip_longest(columns, cells[: len(columns)], fillvalue="")))
                    for cells in reader
                    if cells
                ]
    except csv.Error as error:
        raise ValueError(f"{path} is no CSV file ({error}). Export the query again.") from error
    first = text.partition("\n")[0].strip()
    raise ValueError(
        f"{path} has columns [{first[:200]}]; needed are `label` and `index` or `id`, parted by comma, "
        "semicolon or tab. Fill in the file that the query was exported to."
    )


def _given(line: int, row: Mapping[str, str]) -> Given:
    skip = row.get("skip", "").strip()
    unsure = skip.lower() in _UNSURE
    return Given(
        f"line {line}", row.get("index", ""), row.get("id", ""), row["label"].strip() or None,
        skip=bool(skip) and not unsure, unsure=unsure, who=row.get("who", "").strip(),
        round=row.get("round", ""),
    )  # fmt: skip

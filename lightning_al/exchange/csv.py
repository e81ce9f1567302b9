"""CSV: a query out to people and their answers in, as a table that every spreadsheet opens.

One row a sample; the annotator fills the column `label`, or writes anything into `skip`.
"""

from __future__ import annotations

import csv
import io
import os
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING

from lightning_al.exchange.answers import Row
from lightning_al.exchange.queries import Describe, described_rows

if TYPE_CHECKING:
    from lightning_al.data.book import LabelBook

__all__ = ["read_rows", "write_query"]


def write_query(book: LabelBook, path: Path, describe: Describe | None = None) -> Path:
    """Write the waiting samples, whole or not at all; a file that was there is kept beside it."""
    described = described_rows(book, describe)
    fixed = ["index", *([] if book.samples.ids is None else ["id"]), "round", "rank", "score"]
    columns = [*dict.fromkeys([*fixed, *(key for row in described for key in row)]), "label", "skip"]
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    with part.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns, restval="")
        writer.writeheader()
        writer.writerows(described)
        file.flush()
        os.fsync(file.fileno())
    if path.exists():
        os.replace(path, _unused(path))
    os.replace(part, path)
    return path


def _unused(path: Path) -> Path:
    number = 1
    while (kept := path.with_name(f"{path.stem}.old{number}.csv")).exists():
        number += 1
    return kept


def read_rows(path: Path) -> list[tuple[int, Row]]:
    """Line number and columns of every row; columns are parted by comma, semicolon or tab."""
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
                return [(reader.line_num, dict(zip_longest(columns, cells[: len(columns)], fillvalue="")))
                        for cells in reader if cells]  # fmt: skip
    except csv.Error as error:
        raise ValueError(f"{path} is no CSV file ({error}). Export the query again.") from error
    first = text.partition("\n")[0].strip()
    raise ValueError(
        f"{path} has columns [{first[:200]}]; needed are `label` and `index` or `id`, parted by comma, "
        "semicolon or tab. Fill in the file that the query was exported to."
    )

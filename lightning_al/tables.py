"""TABLES: rows of names and values, as a data frame or a CSV file.

rows -> [frame_of] -> pandas;  rows -> [write_table] -> a file, whole or not at all
"""

from __future__ import annotations

import csv
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lightning_al.target import check_target
from lightning_al.whole_file import replacing

__all__ = ["frame_of", "write_table"]

Rows = Sequence[Mapping[str, Any]]


def frame_of(rows: Rows, columns: Sequence[str] | None, instead: str) -> Any:
    """Rows as a pandas `DataFrame`.

    Args:
        rows: Mappings of columns to values.
        columns: In their order; `None`: as the rows have them.
        instead: What has the rows where pandas is not installed, for the message.

    Raises:
        ModuleNotFoundError: If pandas is not installed.
    """
    try:
        import pandas as pd
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "`to_frame` needs pandas, which is not installed. `pip install lightning-al[frame]`, or use "
            f"`{instead}`."
        ) from error
    return pd.DataFrame(rows, columns=columns)


def write_table(
    path: str | os.PathLike[str], rows: Rows, columns: Sequence[str], what: str, *, keep_old: bool = False
) -> None:
    """Write rows as CSV, whole or not at all.

    Args:
        path: Where to.
        rows: Mappings of columns to values.
        columns: In their order.
        what: What the table is of, for messages.
        keep_old: Let an older file there become `<name>.old1<suffix>`.

    Raises:
        ValueError: If a run keeps something else there: its ledger, weights, answers of people.
        OSError: If the disk is full, or the folder cannot be written.
    """
    check_target(Path(path), f"the {what}")
    with (
        replacing(Path(path), f"The {what}", keep_old=keep_old) as part,
        part.open("w", newline="", encoding="utf-8") as file,
    ):
        writer = csv.DictWriter(file, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)

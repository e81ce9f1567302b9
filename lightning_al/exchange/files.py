"""FILES: the CSV files of the state directory that waiting samples are in."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from lightning_al.exchange.answers import index_of, is_filled, of_its_query, refusal
from lightning_al.exchange.csv import read_rows
from lightning_al.ledger.state import ASKED

if TYPE_CHECKING:
    from lightning_al.data.book import LabelBook

__all__ = ["place_of_answers", "query_files", "query_path"]


def query_path(book: LabelBook) -> Path:
    """Where the waiting query is exported to."""
    state = book.state
    asked = state.indices(ASKED)
    number = int(state.round[asked[-1]]) if len(asked) else state.last_round
    return book.ledger.path.parent / f"query_{number}.csv"


def query_files(book: LabelBook) -> dict[Path, set[int]]:
    """Files of the state directory that hold samples which wait now, oldest first, and which these are.

    Raises:
        ValueError: If a file cannot be read: it may hold answers.
    """
    waiting = set(book.state.indices(ASKED).tolist())
    folder = book.ledger.path.parent
    paths = {
        int(m[1]): p for p in folder.glob("query_*.csv") if (m := re.fullmatch(r"query_(\d+)\.csv", p.name))
    }
    held = {paths[number]: _held(book, paths[number]) & waiting for number in sorted(paths)}
    return {path: indices for path, indices in held.items() if indices}


def _held(book: LabelBook, path: Path) -> set[int]:
    held, problems = set(), []
    for line, row in read_rows(path):
        try:
            index = index_of(row, book.samples)
        except ValueError as error:
            if is_filled(row):  # an answer whose sample cannot be told must not be put aside
                problems.append(f"line {line}: {error}")
            continue
        if of_its_query(book, row, index):
            held.add(index)
    if problems:
        raise refusal(path, problems)
    return held


def place_of_answers(book: LabelBook) -> str:
    """The file that holds all waiting samples, the newest of them; if none does, those that hold some."""
    files, count = query_files(book), len(book.state.indices(ASKED))
    whole_ones = [path for path, held in files.items() if len(held) == count]
    return ", ".join(str(path) for path in whole_ones[-1:] or files or [query_path(book)])

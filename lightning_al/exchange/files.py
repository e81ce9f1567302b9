"""FILES: the CSV files of the state directory that waiting samples are in."""

from __future__ import annotations

import re
from pathlib import Path

from lightning_al.exchange.csv import read_csv
from lightning_al.exchange.given import index_of, of_its_query
from lightning_al.exchange.refusal import refusal
from lightning_al.ledger.book import Book
from lightning_al.ledger.state import ASKED

__all__ = ["place_of_answers", "query_files", "query_path"]


def query_path(book: Book) -> Path:
    """Where the waiting query is exported to."""
    state = book.state
    asked = state.indices(ASKED)
    number = int(state.query[asked].max()) if len(asked) else state.last_round
    return book.folder / f"query_{number}.csv"


def query_files(book: Book) -> dict[Path, set[int]]:
    """Files of the state directory that hold samples which wait now, oldest first, and which these are.

    Raises:
        ValueError: If a file cannot be read: it may hold answers.
    """
    waiting = set(book.state.indices(ASKED).tolist())
    paths = {
        int(m[1]): p
        for p in book.folder.glob("query_*.csv")
        if (m := re.fullmatch(r"query_(\d+)\.csv", p.name))
    }
    held = {paths[number]: _held(book, paths[number]) & waiting for number in sorted(paths)}
    return {path: indices for path, indices in held.items() if indices}


def _held(book: Book, path: Path) -> set[int]:
    held, problems = set(), []
    for row in read_csv(path):
        try:
            index = index_of(row, book)
        except ValueError as error:
            if row.is_filled:  # an answer whose sample cannot be told must not be put aside
                problems.append(f"{row.where}: {error}")
            continue
        if of_its_query(book, row, index):
            held.add(index)
    if problems:
        raise refusal(path, problems)
    return held


def place_of_answers(book: Book) -> str:
    """The file that holds all waiting samples, the newest of them; if none does, those that hold some."""
    files, count = query_files(book), len(book.state.indices(ASKED))
    whole_ones = [path for path, held in files.items() if len(held) == count]
    return ", ".join(str(path) for path in whole_ones[-1:] or files or [query_path(book)])

"""JSONL: a query out and answers in, one JSON object a line: for programs, and for text of several lines.

    {"index": 7, "id": "scan-7", "run": "4f0c8e21b7d3", "round": 1, "rank": 0, "score": 0.9,
     "strategy": "Margin()", "shown": {"path": "img/7.png"}, "label": null, "skip": false, "unsure": false,
     "who": null, "at": null}

Whoever answers fills in `label` (a class by name or number, a number, text, or lists and objects), or `skip`
or `unsure`; `who` and `at` (ISO 8601) if they like. An answer needs `index` or `id`, and one of these.
"""

from __future__ import annotations

import json
import math
from difflib import get_close_matches
from functools import lru_cache
from pathlib import Path
from typing import Any

from lightning_al.exchange.given import Given, name_in
from lightning_al.exchange.progress import with_progress
from lightning_al.exchange.queries import Query, waiting_queries
from lightning_al.exchange.reading import parse_json, read_text
from lightning_al.exchange.refusal import refusal
from lightning_al.exchange.writing import new_file
from lightning_al.ledger.answer import moment
from lightning_al.ledger.book import Book

__all__ = ["read_jsonl", "write_jsonl"]

_LONGEST_LINE = 16 << 20
_ANSWERS = ("label", "skip", "unsure")
_READ = (*_ANSWERS, "who", "at")
_OTHERS = ("index", "id", "run", "round", "rank", "score", "strategy", "shown", "who", "at")
_BLANKS = " \t\r"


def write_jsonl(book: Book, path: Path) -> Path:
    """Write the waiting samples, whole or not at all; a file that was there is kept beside it.

    Raises:
        ValueError: If `path` is the ledger's.
        OSError: If the disk is full, or the folder cannot be written.
    """
    with new_file(book, path) as file:
        for query in waiting_queries(book):
            file.write(_line(query, book.state.run_id))
    return path


def _line(query: Query, run: str) -> str:
    score = query.score if query.score is not None and math.isfinite(query.score) else None
    row = {
        "index": query.index, **({} if query.id is None else {"id": query.id}), "run": run,
        "round": query.round, "rank": query.rank, "score": score, "strategy": query.strategy,
        "shown": {name: _finite(value) for name, value in query.shown.items()},
        "label": None, "skip": False, "unsure": False, "who": None, "at": None,
    }  # fmt: skip
    text = json.dumps(row, ensure_ascii=False)
    try:
        text.encode()
    except UnicodeEncodeError:  # halves of characters, which JSON can name
        text = json.dumps(row)
    return f"{text}\n"


def _finite(value: Any) -> Any:
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def read_jsonl(path: Path) -> list[Given]:
    """The rows of a file, of which unknown names are passed over.

    Raises:
        ValueError: If it is no such file; the message names every line.
    """
    lines = read_text(path, "UTF-8").split("\n")
    found: list[Given] = []
    problems: list[str] = []
    answers = not any(line.strip(_BLANKS) for line in lines)
    for number, line in enumerate(with_progress(lines, Path(path).name), start=1):
        if not line.strip(_BLANKS):
            continue
        try:
            row = _row(line)
            _check_names(row)
            found.append(_given(number, row))
        except (ValueError, TypeError) as error:
            problems.append(f"line {number}: {error}")
        else:
            answers = answers or any(name in row for name in _ANSWERS)
    if problems:
        raise refusal(path, problems)
    if not answers:
        raise ValueError(
            f"{path} has no line with `label`, `skip` or `unsure`; needed are objects with one of these and "
            "`index` or `id`. Fill in the file that the query was exported to."
        )
    return found


def _row(line: str) -> dict[str, Any]:
    if len(line) > _LONGEST_LINE:
        raise ValueError(f"has {len(line):,} letters; needed are at most {_LONGEST_LINE:,}")
    row = parse_json(line)
    if not isinstance(row, dict):
        raise ValueError(f'is {line[:40]!r}; needed is an object, such as {{"index": 7, "label": "cat"}}')
    return row


def _check_names(row: dict[str, Any]) -> None:
    """Refuse an answer under a name that is misspelt: it would be passed over.

    Beside one that says something it is another; a query that goes out has all names, and nothing in them.
    """
    if any(name in row for name in _ANSWERS):
        others = _misspelt(tuple(row))
        right_ones = {name for name in _READ if row.get(name) not in (None, False, "")} if others else ()
        other = next((name for name in others if name.strip().lower() not in right_ones), None)
        if other is not None:
            right = other.strip().lower()
            raise ValueError(f"has `{other[:40]}`, which is not read; needed is `{right}`, in small letters")
        return
    for name in row:
        meant = [] if name in _OTHERS else get_close_matches(name.lower(), _ANSWERS, 1, 0.7)
        if meant:
            raise ValueError(f"has `{name[:40]}` and no answer; needed is `{meant[0]}`, if that is meant")


@lru_cache(maxsize=8)  # the lines of a file have the same names
def _misspelt(names: tuple[str, ...]) -> list[str]:
    """Those that are names of ours but for capitals and spaces."""
    return [name for name in names if name not in _READ and name.strip().lower() in _READ]


def _given(number: int, row: dict[str, Any]) -> Given:
    label, skip = row.get("label"), row.get("skip")
    if isinstance(label, str) and not label.strip():
        label = None
    unsure = row.get("unsure")
    for name, value in (("skip", skip), ("unsure", unsure)):
        if not (value is None or isinstance(value, bool)):
            raise ValueError(f"`{name}` is {value!r:.40}; needed is true, false or null")
    at = _text(row, "at")
    given = Given(
        f"line {number}", _text(row, "index"), _text(row, "id"), label, is_value=True,
        skip=bool(skip) and not unsure, unsure=bool(unsure), who=name_in(_text(row, "who")),
        said=moment(at) if at else None, round=_text(row, "round"), run=_text(row, "run").strip(),
    )  # fmt: skip
    if given.is_filled and not (given.index or given.id):
        raise ValueError("has neither `index` nor `id`; needed is one")
    return given


def _text(row: dict[str, Any], name: str) -> str:
    """A number or text as text; empty where there is none."""
    value = row.get(name)
    if type(value) is str:
        return value
    if value is None:
        return ""
    needed = "text" if name in ("who", "at") else "a number or text"
    if needed == "text" or type(value) not in (int, float):
        raise ValueError(f"`{name}` is {value!r:.40}; needed is {needed}")
    return str(value)

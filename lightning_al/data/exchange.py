"""EXCHANGE: a query out to people and their answers in, as a CSV file.

One row a sample; the annotator fills the column `label`, or writes anything into `skip`. A file is
read as a whole or not at all, and as often as one likes.
"""

from __future__ import annotations

import csv
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lightning_al.data.state import ASKED, LABELED, POOL
from lightning_al.data.targets import encode, parse_label

if TYPE_CHECKING:
    from lightning_al.data.book import LabelBook
    from lightning_al.data.samples import Samples

__all__ = ["Answers", "collect", "query_path", "write_query"]

Describe = Callable[[int], Any]
_SHOWN_PROBLEMS = 20


@dataclass
class Answers:
    """What a file said that the ledger does not know yet."""

    labels: dict[int, Any] = field(default_factory=dict)
    skipped: list[int] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.labels) + len(self.skipped)


def query_path(book: LabelBook) -> Path:
    """Where the waiting query is exported to, and its answers looked for."""
    state = book.state
    asked = state.indices(ASKED)
    number = int(state.round[asked[-1]]) if len(asked) else state.last_round
    return book.ledger.path.parent / f"query_{number}.csv"


def write_query(book: LabelBook, path: Path, describe: Describe | None = None) -> Path:
    """Write the waiting samples, whole or not at all; a file that was there is kept beside it."""
    described = [row | _description(row["index"], describe) for row in _rows(book)]
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


def _rows(book: LabelBook) -> list[dict[str, Any]]:
    state, ids = book.state, book.samples.ids
    asked = [event for _, event in book.ledger.events() if event.kind == "asked"]
    scores = {event.sample if ids is None else event.id: event.score for event in asked}
    rows = []
    for index in state.indices(ASKED).tolist():
        score = scores.get(index if ids is None else ids[index])
        rows.append(
            {"index": index, **({} if ids is None else {"id": ids[index]}),
             "round": int(state.round[index]), "rank": int(state.rank[index]),
             "score": "" if score is None else score}
        )  # fmt: skip
    return rows


def _unused(path: Path) -> Path:
    number = 1
    while (kept := path.with_name(f"{path.stem}.old{number}.csv")).exists():
        number += 1
    return kept


def _description(index: int, describe: Describe | None) -> dict[str, Any]:
    if describe is None:
        return {}
    shown = describe(index)
    shown = shown if isinstance(shown, Mapping) else {"sample": shown}
    return {key: value for key, value in shown.items() if isinstance(value, str | int | float)}


def collect(book: LabelBook, path: Path, *, overwrite: bool = False) -> Answers:
    """The answers of a file, all of them or none; those already on record are passed over.

    Raises:
        ValueError: If a row is wrong; the message names every one.
    """
    answers, problems = Answers(), []
    for line, row in _filled(path):
        try:
            _collect_row(book, row, answers, overwrite)
        except ValueError as error:
            problems.append(f"line {line}: {error}")
    if problems:
        shown = "\n  ".join(problems[:_SHOWN_PROBLEMS])
        raise ValueError(
            f"{path} was not read, no label was taken over:\n  {shown}\nMend these lines and run "
            "again; `import_labels(overwrite=True)` lets a new answer win over a label on record."
        )
    return answers


def _collect_row(book: LabelBook, row: dict[str, str], answers: Answers, overwrite: bool) -> None:
    state, samples = book.state, book.samples
    index = _index_of(row, samples)
    if index in answers.labels or index in answers.skipped:
        raise ValueError(f"sample {index} is there twice")
    text = row["label"].strip()
    if not text:
        if state.status[index] in (POOL, ASKED):
            answers.skipped.append(index)
        return
    value = parse_label(text, samples.class_names, samples.template)
    if state.status[index] == LABELED:
        if encode(value) == state.values.get(index):
            return
        if not overwrite:
            raise ValueError(f"sample {index} is labelled {state.target(index)} already, not {text}")
    answers.labels[index] = value


def _index_of(row: dict[str, str], samples: Samples) -> int:
    name, text = row.get("id", "").strip(), row.get("index", "").strip()
    if samples.ids is not None and name:
        if name not in samples.index_of:
            raise ValueError(f"there is no sample with id {name!r}")
        return samples.index_of[name]
    if not text.isdecimal() or int(text) >= len(samples):
        raise ValueError(f"there is no sample {text!r}")
    return int(text)


def _filled(path: Path) -> list[tuple[int, dict[str, str]]]:
    """Line number and columns of every row with a label or a skip."""
    try:
        file = path.open(newline="", encoding="utf-8-sig")
    except OSError as error:
        raise ValueError(f"{path} cannot be read ({error}). Check the path.") from error
    with file:
        reader = csv.DictReader(file)
        columns = reader.fieldnames or []
        if "label" not in columns or not {"index", "id"} & set(columns):
            raise ValueError(
                f"{path} has columns {list(columns)}; needed are `label` and `index` or `id`. Fill in "
                "the file that the query was exported to."
            )
        rows = [(reader.line_num, {k: v or "" for k, v in row.items() if k}) for row in reader]
    return [(n, row) for n, row in rows if row["label"].strip() or row.get("skip", "").strip()]

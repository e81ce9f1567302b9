"""EXCHANGE: a query out to people and their answers in, as a CSV file.

One row a sample; the annotator fills the column `label`, or writes anything into `skip`. A file is
read as a whole or not at all, and as often as one likes.
"""

from __future__ import annotations

import csv
import io
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lightning_al.data.label_values import encode, parse_label, whole
from lightning_al.data.state import ASKED, LABELED, POOL

if TYPE_CHECKING:
    from lightning_al.data.book import LabelBook
    from lightning_al.data.samples import Samples

__all__ = ["Answers", "collect", "place_of_answers", "query_files", "query_path", "write_query"]

Describe = Callable[[int], Any]
Row = dict[str, str]
_SHOWN_PROBLEMS = 20
_OURS = ("index", "id", "round", "rank", "score", "label", "skip")


@dataclass
class Answers:
    """What a file said that the ledger does not know yet."""

    labels: dict[int, Any] = field(default_factory=dict)
    skipped: list[int] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.labels) + len(self.skipped)


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
    for line, row in _table(path):
        try:
            index = _index_of(row, book.samples)
        except ValueError as error:
            if _is_filled(row):  # an answer whose sample cannot be told must not be put aside
                problems.append(f"line {line}: {error}")
            continue
        if _of_its_query(book, row, index):
            held.add(index)
    if problems:
        raise _refusal(path, problems)
    return held


def _is_filled(row: Row) -> bool:
    return bool(row["label"].strip() or row.get("skip", "").strip())


def _refusal(path: Path, problems: list[str]) -> ValueError:
    shown = "\n  ".join(problems[:_SHOWN_PROBLEMS])
    return ValueError(
        f"{path} was not read, no label was taken over:\n  {shown}\nMend these lines and run "
        "again; `import_labels(overwrite=True)` lets a new answer win over a label on record. (Spreadsheets "
        "turn an id such as 00123 into 123: read and write that column as text.)"
    )


def _of_its_query(book: LabelBook, row: Row, index: int) -> bool:
    """Whether the row is of the query that the sample is in: an answer taken back must not come again."""
    return whole(row.get("round", "")) in ("", str(book.state.round[index]))


def place_of_answers(book: LabelBook) -> str:
    """The file that holds all waiting samples, the newest of them; if none does, those that hold some."""
    files, count = query_files(book), len(book.state.indices(ASKED))
    whole_ones = [path for path, held in files.items() if len(held) == count]
    return ", ".join(str(path) for path in whole_ones[-1:] or files or [query_path(book)])


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
    return {
        _free_name(str(key), shown): value
        for key, value in shown.items()
        if isinstance(value, str | int | float)
    }


def _free_name(name: str, taken: Mapping[Any, Any]) -> str:
    """A column beside ours: on a day of annotation nothing fails over a name."""
    if name not in _OURS:
        return name
    name = f"sample_{name}"
    while name in taken:
        name += "_"
    return name


def collect(book: LabelBook, path: Path, *, overwrite: bool = False, of_its_query: bool = False) -> Answers:
    """The answers of a file, all of them or none; those already on record are passed over.

    Args:
        book: Ledger and state.
        path: The file.
        overwrite: Let a changed answer correct a label.
        of_its_query: Read automatically: pass over rows of another query than the one their sample is in
            now, and answers that were read before and have been corrected since.

    Raises:
        ValueError: If a row is wrong; the message names every one.
    """
    answers, problems = Answers(), []
    earlier = _earlier_values(book) if of_its_query else {}
    for line, row in _table(path):
        if not _is_filled(row):
            continue
        try:
            index = _index_of(row, book.samples)
            if of_its_query and (not _of_its_query(book, row, index) or _was_read(book, row, index, earlier)):
                continue
            _collect_row(book, index, row, answers, overwrite)
        except ValueError as error:
            problems.append(f"line {line}: {error}")
    if problems:
        raise _refusal(path, problems)
    return answers


def _earlier_values(book: LabelBook) -> dict[int, set[str | None]]:
    """All values that labelled samples ever had."""
    place = book.identity.places(book.state_dir)
    values: dict[int, set[str | None]] = {}
    for _, event in book.ledger.events():
        if event.kind in ("labeled", "relabeled"):
            values.setdefault(place(event), set()).add(event.value)
    return values


def _was_read(book: LabelBook, row: Row, index: int, earlier: dict[int, set[str | None]]) -> bool:
    """Whether a row says what is, or was, on record: a correction by other ways is not argued with."""
    if book.state.status[index] != LABELED:
        return False
    samples, text = book.samples, row["label"].strip()
    if not text:
        return True
    value = parse_label(text, samples.class_names, samples.template_for(index, book.state, {}))
    return encode(value) in earlier.get(index, ())


def _collect_row(book: LabelBook, index: int, row: Row, answers: Answers, overwrite: bool) -> None:
    state, samples = book.state, book.samples
    if index in answers.labels or index in answers.skipped:
        raise ValueError(f"sample {index} is there twice")
    text = row["label"].strip()
    if not text:
        if state.status[index] in (POOL, ASKED):
            answers.skipped.append(index)
        return
    value = parse_label(text, samples.class_names, samples.template_for(index, state, answers.labels))
    if state.status[index] == LABELED:
        if encode(value) == state.values.get(index):
            return
        if not overwrite:
            raise ValueError(f"sample {index} is labelled {state.target(index)} already, not {text}")
    answers.labels[index] = value


def _index_of(row: Row, samples: Samples) -> int:
    name, text = row.get("id", ""), whole(row.get("index", ""))
    if samples.ids is not None and name.strip():
        index = samples.find(name)
        if index is None:
            raise ValueError(f"there is no sample with id {name!r}")
        return index
    if not text.isdecimal() or int(text) >= len(samples):
        raise ValueError(f"there is no sample {text!r}")
    return int(text)


def _table(path: Path) -> list[tuple[int, Row]]:
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

"""FORMATS: which files a query can go out to, and answers come in from.

    Book -> [write_query] -> a file -> [import_answers] -> Book

A file is taken over as a whole or not at all. Only Label Studio's export is read as its server is: what
annotators said well is taken over, and every slip is named.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from lightning_al.exchange.answers import Given, collect
from lightning_al.exchange.collector import uncollected
from lightning_al.exchange.csv import read_csv, write_csv
from lightning_al.exchange.files import query_path
from lightning_al.exchange.jsonl import read_jsonl, write_jsonl
from lightning_al.exchange.refusal import RefusedAnswers, listed
from lightning_al.ledger.book import Book

__all__ = ["Format", "Imported", "format_of", "import_answers", "read_answers", "write_query"]

Format = Literal["csv", "jsonl", "label-studio"]

_SUFFIXES: dict[str, Format] = {
    ".jsonl": "jsonl", ".ndjson": "jsonl", ".json": "label-studio"
}  # fmt: skip
_ENDINGS: dict[str, str] = {"csv": ".csv", "jsonl": ".jsonl", "label-studio": ".json"}
_READERS = {"csv": read_csv, "jsonl": read_jsonl}
_WRITERS = {"csv": write_csv, "jsonl": write_jsonl}
_KINDS = {
    "labeled": "new", "relabeled": "corrected", "ignored": "skipped", "unsure": "unsure",
    "answered": "beside",
}  # fmt: skip


@dataclass(frozen=True)
class Imported:
    """What came of a file of answers.

    Args:
        new: Samples that have a label now and had none.
        corrected: Labels that others took the place of.
        skipped: Samples that are never asked for again.
        unsure: Answers that somebody cannot tell yet.
        beside: Answers that stand beside the label, or that a rule of the run makes it of.
        known: Answers that were on record already.
        unasked: Of the new ones, those to samples that nobody asked for.
        taken_back: Answers that were taken back here, and stay so unless `overwrite` says otherwise.
        problems: What was not taken over, of a file that is read all the same.
        notes: What somebody should know besides.

    Example:
        >>> print(Imported(new=3, unsure=1, known=2))
        3 new labels, 0 corrected, 0 skipped, 1 unsure, 2 already known
    """

    new: int = 0
    corrected: int = 0
    skipped: int = 0
    unsure: int = 0
    beside: int = 0
    known: int = 0
    unasked: int = 0
    taken_back: int = 0
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        unasked = f" ({self.unasked:,} of them not asked for)" if self.unasked else ""
        said = f"{self.new:,} new labels{unasked}, {self.corrected:,} corrected, {self.skipped:,} skipped, "
        said += f"{self.unsure:,} unsure, {self.known:,} already known"
        if self.beside:
            said += f", {self.beside:,} kept beside the label or until a rule decides"
        if self.taken_back:
            said += f", {self.taken_back:,} taken back here before, which only `overwrite` brings back"
        if self.problems:
            said += f"; {len(self.problems):,} not taken over:{listed(self.problems)}"
        if self.notes:
            said += ("\n" if self.problems else "; ") + f"to look at:{listed(self.notes)}"
        return said


def format_of(path: str | os.PathLike[str], given: str | None = None) -> Format:
    """The format of a file: the one given, else what its name ends in, else a table.

    Raises:
        ValueError: If the one given is unknown.

    Example:
        >>> format_of("answers.jsonl"), format_of("export.json"), format_of("export.json", "jsonl")
        ('jsonl', 'label-studio', 'jsonl')
    """
    if given is None:
        return _SUFFIXES.get(Path(path).suffix.lower(), "csv")
    if given not in _ENDINGS:
        raise ValueError(
            f"The format is {given!r}; needed is one of {', '.join(_ENDINGS)}. Leave it out where the "
            f"name of the file ends in {', '.join(_ENDINGS.values())}."
        )
    return given  # type: ignore[return-value]


@uncollected()
def write_query(
    book: Book,
    path: str | os.PathLike[str] | None = None,
    *,
    format: str | None = None,
    over_answers: bool = False,
) -> Path:
    """Write the samples that wait for labels, most wanted first.

    Args:
        book: The ledger.
        path: Where to; default `query_<round>.csv` in the state directory, or with the format's ending.
        format: `"csv"`, `"jsonl"` or `"label-studio"`; default: what the path ends in.
        over_answers: Take the place of a file with answers that nobody has read yet, which is kept beside it.

    Returns:
        The path.

    Raises:
        ValueError: If the format is unknown, or cannot hold the query; or there are such answers.
        OSError: If the file cannot be written.
    """
    kind = format_of("" if path is None else path, format)
    target = query_path(book).with_suffix(_ENDINGS[kind]) if path is None else Path(path)
    if kind == "label-studio":
        from lightning_al.exchange.label_studio import export_tasks, form_for

        return export_tasks(book, target, form_for(book))
    if not over_answers and target.is_file() and not target.is_symlink():
        _check_read(book, target, kind)
    return _WRITERS[kind](book, target)


def _check_read(book: Book, target: Path, kind: str) -> None:
    """Refuse to put answers aside that are not on record: nobody would miss them before it is too late."""
    try:
        unread = len(collect(book, _READERS[kind](target), target))
    except RefusedAnswers as error:
        if kind == "jsonl" and not target.read_text("utf-8", "replace").lstrip().startswith("{"):
            return  # somebody's, but no answers
        raise ValueError(f"{target} is there already, with answers that cannot be read. {error}") from error
    except ValueError:  # no answers of anybody's
        return
    if unread:
        raise ValueError(
            f"{target} is there already, with {unread:,} answers that are not on record; a new query would "
            "put them aside. Import it first, or export to another file."
        )


def read_answers(path: str | os.PathLike[str], *, format: str | None = None) -> list[Given]:
    """The rows of a table or of JSON lines.

    Raises:
        ValueError: If it is no such file.
    """
    kind = format_of(path, format)
    if kind == "label-studio":
        raise ValueError(
            f"{path} is an export of Label Studio, which is no list of rows. Read it with `import_answers`."
        )
    return _READERS[kind](Path(path))


@uncollected()
def import_answers(
    book: Book,
    path: str | os.PathLike[str],
    *,
    who: str | None = None,
    overwrite: bool = False,
    format: str | None = None,
) -> Imported:
    """Take over the answers in a file, and say what they were.

    Args:
        book: The ledger.
        path: The file.
        who: Who labelled, where a row does not say; for an export of Label Studio only if one person did.
        overwrite: Let a changed answer correct a label, and one that was taken back count again.
        format: `"csv"`, `"jsonl"` or `"label-studio"`; default: what the path ends in.

    Raises:
        ValueError: If a row is wrong; the message names every one, and nothing was taken over.
        LedgerError: If they cannot be written.
    """
    if format_of(path, format) == "label-studio":
        from lightning_al.exchange.label_studio import import_export

        report = import_export(book, Path(path), who=who, overwrite=overwrite)
        return Imported(
            **_counts(report.kinds), known=report.known, taken_back=report.taken_back,
            problems=report.refused, notes=report.notes,
        )  # fmt: skip
    rows = read_answers(path, format=format)
    intake = collect(book, rows, path, who=who, overwrite=overwrite)
    query = book.state.query
    unasked = sum(event.kind == "labeled" and query[event.sample] < 0 for event in intake.events)
    book.take(intake)
    kinds = Counter(event.kind for event in intake.events)
    given = sum(row.is_filled for row in rows) - intake.taken_back
    return Imported(
        **_counts(kinds), known=max(0, given - len(intake.events)), unasked=unasked,
        taken_back=intake.taken_back,
    )  # fmt: skip


def _counts(kinds: Mapping[str, int]) -> dict[str, Any]:
    return {_KINDS[kind]: count for kind, count in kinds.items()}

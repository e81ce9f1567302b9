"""FORMATS: which files a query can go out to, and answers come in from.

    Book -> [write_query] -> a file -> [import_answers] -> Book

A file is taken over as a whole or not at all. Only Label Studio's export is read as its server is: what
annotators said well is taken over, and every slip is named.
"""

from __future__ import annotations

import codecs
import os
import re
import shlex
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from lightning_al.exchange.answers import collect, unread
from lightning_al.exchange.collector import uncollected
from lightning_al.exchange.csv import read_csv, write_csv
from lightning_al.exchange.files import query_path
from lightning_al.exchange.given import Given, as_of_this_run, is_of_another
from lightning_al.exchange.jsonl import read_jsonl, write_jsonl
from lightning_al.exchange.reading import read_bytes
from lightning_al.exchange.refusal import RefusedAnswers, listed
from lightning_al.ledger.book import Book
from lightning_al.ledger.status import printable
from lightning_al.target import check_target

__all__ = [
    "Format", "Imported", "format_of", "import_answers", "kept_beside", "read_answers", "write_query"
]  # fmt: skip

Format = Literal["csv", "jsonl", "label-studio"]

_SUFFIXES: dict[str, Format] = {
    ".jsonl": "jsonl", ".ndjson": "jsonl", ".json": "label-studio"
}  # fmt: skip
_ENDINGS: dict[str, str] = {"csv": ".csv", "jsonl": ".jsonl", "label-studio": ".json"}
_READERS = {"csv": read_csv, "jsonl": read_jsonl}
_WRITERS = {"csv": write_csv, "jsonl": write_jsonl}
#: Names that say what nothing here writes.
_OTHERS = (".xlsx", ".xls", ".xlsm", ".xlsb", ".ods", ".numbers", ".parquet", ".feather", ".xml", ".pkl")
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
        over_answers: Take the place of a file with answers that nobody has read yet, which is kept beside it;
            not of one with answers of another run, which nothing reads by itself.

    Returns:
        The path.

    Raises:
        ValueError: If the format is unknown, or cannot hold the query; there are such answers, or the folder
            is not there.
        OSError: If the file cannot be written.
    """
    kind, target = _place(book, path, format)
    if kind == "label-studio":
        from lightning_al.exchange.label_studio import export_tasks, form_for

        return export_tasks(book, target, form_for(book))
    if target.is_file() and not target.is_symlink():
        _check_read(book, target, kind, others=over_answers)
    return _WRITERS[kind](book, target)


def _place(book: Book, path: str | os.PathLike[str] | None, format: str | None) -> tuple[str, Path]:
    """The format of a query, and where it goes."""
    kind = format_of("" if path is None else path, format)
    if path is None:
        return kind, query_path(book).with_suffix(_ENDINGS[kind])
    target = Path(path)
    check_target(target, "the query", folders=[book.folder], is_query=True)
    if format is None and target.suffix.lower() in _OTHERS:
        raise ValueError(
            f"{target} is named as what no query is written to; needed is a name that ends in "
            f"{', '.join(_ENDINGS.values())}. Spreadsheets open .csv."
        )
    if not target.parent.is_dir():
        raise ValueError(
            f"{target.parent} is no folder; needed is one to write the query to. Make it, or check the path."
        )
    return kind, target


def kept_beside(
    book: Book, path: str | os.PathLike[str] | None = None, *, format: str | None = None
) -> set[Path]:
    """The older files beside that of a query; what `write_query` puts aside is one more of them."""
    _, target = _place(book, path, format)
    pattern = re.compile(rf"{re.escape(target.stem)}\.old[0-9]+{re.escape(target.suffix)}")
    return {older for older in target.parent.iterdir() if pattern.fullmatch(older.name)}


def _check_read(book: Book, target: Path, kind: str, *, others: bool) -> None:
    """Refuse to put answers aside that are not on record: nobody would miss them before it is too late.

    Args:
        book: The ledger.
        target: The file that is there.
        kind: Its format.
        others: Look for answers of other runs alone.
    """
    try:
        rows = _READERS[kind](target)
    except ValueError as error:
        if others or not read_bytes(target).removeprefix(codecs.BOM_UTF8).strip():
            return
        raise RefusedAnswers(
            f"{target} is there already and may hold answers, which cannot be read; a new query would put "
            f"them aside. Mend it, move it away, or export to another file. {error}"
        ) from error
    of_others = [row for row in rows if row.is_filled and is_of_another(book, row)]
    if of_others:
        _check_others(book, target, of_others)
    if others:
        return
    try:
        count = unread(book, [row for row in rows if not is_of_another(book, row)], target, automatic=False)
    except RefusedAnswers as error:
        raise RefusedAnswers(
            f"{target} is there already, with answers that cannot be read. {error}"
        ) from error
    if count:
        raise ValueError(
            f"{target} is there already, with {count:,} answers that are not on record; a new query would "
            "put them aside. Import it first, or export to another file."
        )


def _check_others(book: Book, target: Path, rows: list[Given]) -> None:
    """Refuse to put answers of another run aside: if its ledger is lost, they are nowhere else."""
    try:
        mine, passed = as_of_this_run(book, rows)
        count = passed + unread(book, mine, target, automatic=True)
    except RefusedAnswers:
        count = len(rows)
    if count:
        command = shlex.join(["lightning-al", "import", str(book.folder), str(target), "--of-other-run"])
        raise RefusedAnswers(
            f"{target} holds {count:,} answers of another run, {printable(rows[0].run[:40])!r}, that are "
            "not on record here; a new query would put them aside. If that run's ledger is lost and the "
            f"samples are the same, read them by `{command}`, in Python "
            "`import_answers(..., other_run=True)`. Else move the file away."
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
    users: Mapping[int, str] | None = None,
    other_run: bool = False,
) -> Imported:
    """Take over the answers in a file, and say what they were.

    Args:
        book: The ledger.
        path: The file.
        who: Who labelled, where a row does not say; for an export of Label Studio only if one person did.
        overwrite: Let a changed answer correct a label, and one that was taken back count again.
        format: `"csv"`, `"jsonl"` or `"label-studio"`; default: what the path ends in.
        users: Who is behind the numbers of accounts, in an export of Label Studio.
        other_run: Read the rows of another run as if they were this one's, so far as their samples were asked
            for here: of one whose ledger is lost, over the same data set.

    Raises:
        ValueError: If a row is wrong; the message names every one, and nothing was taken over.
        LedgerError: If they cannot be written.
    """
    if format_of(path, format) == "label-studio":
        from lightning_al.exchange.label_studio import import_export

        if other_run:
            raise ValueError(
                f"{path} is an export of Label Studio, and `other_run` (`--of-other-run`) is given; needed "
                "is a table or JSON lines. Leave it out."
            )
        report = import_export(book, Path(path), users=users, who=who, overwrite=overwrite)
        return Imported(
            **_counts(report.kinds), known=report.known, taken_back=report.taken_back,
            problems=report.refused, notes=report.notes,
        )  # fmt: skip
    if users is not None:
        raise ValueError(
            f"{path} comes with `users`; needed is an export of Label Studio alone, a .json. Other files "
            "name their annotators: leave `users` out."
        )
    rows, notes = read_answers(path, format=format), []
    if other_run:
        rows, passed = as_of_this_run(book, rows)
        if passed:
            notes.append(f"{passed:,} answers of another run are of samples not asked for here: passed over")
    intake = collect(book, rows, path, who=who, overwrite=overwrite)
    query = book.state.query
    unasked = sum(event.kind == "labeled" and query[event.sample] < 0 for event in intake.events)
    book.take(intake)
    kinds = Counter(event.kind for event in intake.events)
    given = sum(row.is_filled for row in rows) - intake.taken_back
    return Imported(
        **_counts(kinds), known=max(0, given - len(intake.events)), unasked=unasked,
        taken_back=intake.taken_back, notes=notes,
    )  # fmt: skip


def _counts(kinds: Mapping[str, int]) -> dict[str, Any]:
    return {_KINDS[kind]: count for kind, count in kinds.items()}

"""TAKING: what people said in a project, or in a file that was exported there, comes into a ledger.

    LabelStudio -> [pull_answers] -> Book

A server is no file: it is read while people work. So good answers are taken over, and each that is none is
named and left where it is, for one slip must not hold up a day's work of others. What is on record is known
again by annotator and time, so a pull can be repeated as often as one likes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from lightning_al.exchange.given import Given, is_number
from lightning_al.exchange.label_studio.annotations import Annotation, newest_of_each, read
from lightning_al.exchange.label_studio.file import form_of, read_export
from lightning_al.exchange.label_studio.form import Form
from lightning_al.exchange.label_studio.people import all_by, by_one_name, name_users, under_another_name
from lightning_al.exchange.label_studio.server import LabelStudio
from lightning_al.exchange.label_studio.tasks import Key, key_of
from lightning_al.exchange.refusal import listed
from lightning_al.exchange.texts import Texts
from lightning_al.ledger.answer import Opinion, bare, moment
from lightning_al.ledger.book import Book
from lightning_al.ledger.intake import said_in
from lightning_al.ledger.state import ASKED, LABELED
from lightning_al.ledger.trail import steps

__all__ = ["Report", "import_export", "pull_answers"]


@dataclass
class Report:
    """What came of a pull.

    Args:
        given: Answers that are there, the newest of each annotator.
        taken: Answers that were new and are on record now.
        refused: What was not taken over, and why; each names task, annotation and annotator.
        notes: What somebody should know besides; nothing came of it.
        missing: Samples that wait and are not in the project: push them.
        known: Answers that were on record already.
        taken_back: Answers that were taken back here, and stay so unless `overwrite` says otherwise.
        waiting: How many wait for an answer after it.
        kinds: What was written down, by the kinds of events.

    Example:
        >>> print(Report(taken=2, waiting=1, missing=[5]))
        2 answers taken over, 1 samples wait. 1 of them are not in the project: push them.
    """

    given: int = 0
    taken: int = 0
    known: int = 0
    taken_back: int = 0
    refused: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    missing: list[int] = field(default_factory=list)
    waiting: int = 0
    kinds: Counter[str] = field(default_factory=Counter)

    @property
    def problems(self) -> list[str]:
        """All that somebody should look at."""
        return [*self.refused, *self.notes]

    def __str__(self) -> str:
        said = f"{self.taken:,} answers taken over, {self.waiting:,} samples wait."
        if self.missing:
            said += f" {len(self.missing):,} of them are not in the project: push them."
        if self.taken_back:
            said += f" {self.taken_back:,} were taken back here before, which only `overwrite` brings back."
        if self.refused:
            said += f" {len(self.refused):,} were not taken over:{listed(self.refused)}"
        if self.notes:
            said += ("\n" if self.refused else " ") + f"To look at:{listed(self.notes)}"
        return said


def pull_answers(
    book: Book, studio: LabelStudio, *, users: Mapping[int, str] | None = None, overwrite: bool = False
) -> Report:
    """Take over what annotators said since the last time.

    Args:
        book: The ledger.
        studio: The project.
        users: Names by the numbers of accounts, in place of the server's e-mails; they are recorded. Needed
            where an account's e-mail has changed: call it by the one on record.
        overwrite: Let an answer win over a label that the data set or a file gave, and one that was taken
            back count again.

    Raises:
        ValueError: If one of `users` cannot be an annotator's name; nothing was taken over.
        LabelStudioError: If the server cannot be reached; nothing was taken over.
        LedgerError: If a run holds the ledger; nothing was taken over.
    """
    book.current()
    keys = _keys(book)
    users = {number: bare(name) for number, name in (users or {}).items()}
    pulled = studio.pull(keys, users)
    notes = name_users(book, users)
    said = {keys[key]: annotations for key, annotations in pulled.said.items()}
    report = _take(book, said, studio.form(), overwrite=overwrite)
    report.notes += notes
    report.missing = [i for i in map(keys.__getitem__, pulled.missing) if book.state.status[i] == ASKED]
    return report


def import_export(
    book: Book,
    path: Path,
    form: Form | None = None,
    *,
    users: Mapping[int, str] | None = None,
    who: str | None = None,
    overwrite: bool = False,
) -> Report:
    """Take over what is in a file that was exported as JSON, as `pull_answers` does from a server.

    Args:
        book: The ledger.
        path: The file.
        form: What the project asks; `None`: what its answers show.
        users: E-mails by the server's numbers, which is all that most such files have; they are recorded,
            so that later files need not come with them. A name that a number has on record stays.
        who: Whose answers these are, where one person gave them all.
        overwrite: Let an answer win over a label that the data set or a file gave, and one that was taken
            back count again.

    Raises:
        ValueError: If it is no such file, or several people's where `who` says whose it is; nothing was taken
            over.
    """
    book.current()
    keys = _keys(book)
    users = {number: bare(name) for number, name in (users or {}).items()}
    tasks = read_export(path)
    form = form_of(tasks, book, path) if form is None else form
    said = dict[Key, list[Annotation]]()
    for key, each in read(tasks, form, users).items():
        if key.run == book.state.run_id:
            said.setdefault(_by_name(book, key), []).extend(each)
    if who is not None:
        said = all_by(book, bare(who), said, path)
    notes = name_users(book, users)
    mine = {keys[key]: each for key, each in said.items() if key in keys}
    report = _take(book, mine, form, overwrite=overwrite)
    report.notes += notes
    damaged = _damaged(book, tasks, keys)
    report.refused += damaged.values()
    report.refused += _passed_over(
        key for key, each in said.items() if each and key not in keys and key not in damaged
    )
    return report


def _damaged(book: Book, tasks: Iterable[Mapping[str, Any]], keys: Mapping[Key, int]) -> dict[Key | int, str]:
    """Tasks of this run with answers, of which nobody can tell the sample: by their keys, or numbers."""
    found, run = dict[Key | int, str](), book.state.run_id
    for task in tasks:
        data = task.get("data")
        if not (isinstance(data, dict) and data.get("lal_run") == run and task["annotations"]):
            continue
        number, sample = data.get("lal_round"), data.get("lal_sample")
        if type(number) is int and type(sample) is str and Key(run, number, sample) in keys:
            continue  # as nearly all are
        key = key_of(data)
        key = key if key is None else _by_name(book, key)
        if key is None or not _exists(book, key.sample):
            found[task["id"] if key is None else key] = (
                f"task {task['id']}: there is no sample {sample!r:.60} of round {number!r:.40}; needed are "
                "`lal_sample` and `lal_round` as they were exported, of a sample that is still where it was "
                "if that was before this run had names; its answers were passed over"
            )
    return found


def _by_name(book: Book, key: Key) -> Key:
    """The key of a task that was exported before the samples had names, as it would be now."""
    if book.names is None or book.has_moved or book.names.find(key.sample) is not None:
        return key
    index = _index_in(book, key.sample)
    return key if index is None else key._replace(sample=book.names[index])


def _exists(book: Book, sample: str) -> bool:
    if book.names is not None:
        index = book.names.find(sample)
        return index is not None and book.names[index] == sample
    return _index_in(book, sample) is not None


def _index_in(book: Book, sample: str) -> int | None:
    """The index that a sample without a name is called by, as it was exported."""
    if not is_number(sample) or str(int(sample)) != sample or int(sample) >= book.size:
        return None
    return int(sample)


def _passed_over(keys: Iterable[Key]) -> list[str]:
    """Answers that nobody waits for: why they are not taken over, a round in a line."""
    rounds = Counter(key.round for key in keys)
    return [
        f"round {number}: {count} answered samples are not in that query now (put back into the pool, asked "
        "for again in another round, or never asked for there); their answers were passed over"
        for number, count in sorted(rounds.items())
    ]


def _keys(book: Book) -> dict[Key, int]:
    """All samples that were asked for and not put back since, and their indices."""
    state, names = book.state, book.names
    asked = np.flatnonzero(state.query >= 0)
    return {
        Key(state.run_id, number, str(index) if names is None else names[index]): index
        for index, number in zip(asked.tolist(), state.query[asked].tolist(), strict=True)
    }


def _take(book: Book, said: Mapping[int, list[Annotation]], form: Form, *, overwrite: bool) -> Report:
    """Hold what was said against the record; the good ones are written in one transaction."""
    said = {index: newest_of_each(each) for index, each in by_one_name(book, said).items()}
    report = Report(given=sum(len(each) for each in said.values()))
    opinions, texts = list[tuple[Annotation, Opinion]](), Texts(book)
    for index, each in said.items():
        for annotation in each:
            try:
                opinions.append((annotation, _opinion(texts, index, annotation, form)))
            except ValueError as wrong:
                report.refused.append(_named(book, index, annotation, wrong))
    if not overwrite:
        count = len(opinions)
        opinions = _without(opinions, _taken_back(book, said.keys() & book.state.reverted))
        report.taken_back = count - len(opinions)
    count = len(opinions)
    opinions = _without(opinions, under_another_name(book, [opinion for _, opinion in opinions]))
    report.notes += _contradictions(book, said)
    intake = book.intake(overwrite=overwrite)
    refused = intake.add_all([opinion for _, opinion in opinions])
    for place, error in refused:
        annotation, opinion = opinions[place]
        report.refused.append(_named(book, opinion.index, annotation, error))
    report.taken = book.take(intake)
    report.known = count - len(refused) - report.taken
    report.kinds = Counter(event.kind for event in intake.events)
    report.waiting = len(book.state.indices(ASKED))
    return report


def _opinion(texts: Texts, index: int, annotation: Annotation, form: Form) -> Opinion:
    who = annotation.who or f"annotation {annotation.id}"
    at = moment(annotation.at)
    if annotation.problem is not None:
        raise ValueError(annotation.problem)
    if annotation.skipped:
        return Opinion(index, "skip", None, who, named=True, said=at)
    given = annotation.value
    row = Given(annotation.place, label=given, is_value=form.kind != "choices")
    return Opinion(index, "label", texts.of(row, index), who, named=True, said=at, given=str(given))


def _named(book: Book, index: int, annotation: Annotation, why: ValueError) -> str:
    return f"{annotation.place}, {_sample(book, index)}: {why}"


def _sample(book: Book, index: int) -> str:
    return f"sample {index}" if book.names is None else f"sample {index} ({book.names[index]!r})"


def _without(
    opinions: list[tuple[Annotation, Opinion]], known: set[tuple[Any, ...]]
) -> list[tuple[Annotation, Opinion]]:
    if not known:  # as nearly always, of very many
        return opinions
    return [(a, o) for a, o in opinions if (o.index, o.kind, o.text, o.who, o.said) not in known]


def _taken_back(book: Book, indices: Iterable[int]) -> set[tuple[Any, ...]]:
    """What was said of samples of which a change was taken back, and does not stand now."""
    found = set[tuple[Any, ...]]()
    for index, trail in book.trails(sorted(indices)).items():
        last = steps(trail)[-1]
        stands = {(one.text, one.who, one.at) for one in last.said}
        for _, _, event in trail:
            what = said_in(event)
            skipped = event.kind == "ignored" and last.status == "ignored"
            if what and event.said and not (skipped or (event.value, event.who, event.said) in stands):
                found.add((index, *what, event.who, event.said))
    return found


def _contradictions(book: Book, said: Mapping[int, list[Annotation]]) -> list[str]:
    """Labels on record whose annotation was deleted or skipped since: they stay, and somebody should know."""
    state, doubtful, known = book.state, dict[int, str](), book.annotators
    for index, each in said.items():
        who = state.who.get(index)
        who = known.get(who, who) if who else who
        if state.status[index] == LABELED and who and not any(a.who == who and not a.skipped for a in each):
            doubtful[index] = who
    gone = []
    for index, trail in book.trails(sorted(doubtful)).items():
        last = [event for _, _, event in trail if event.kind in ("labeled", "relabeled")][-1:]
        if last and last[0].said is not None:
            gone.append(
                f"{_sample(book, index)}: the annotation by {doubtful[index]} that its label is from is "
                "deleted or skipped now; the label stays. If it is to go: `undo`, or in Python `unlabel`."
            )
    return gone

"""BOOK: every change of a ledger that can be made without the data set.

    label, skip, unsure, ignore, undo, ... -> [Book] -> Ledger first, then PoolState

The run's own book, which also knows the data set and other processes, is `lightning_al.data.book`.
"""

from __future__ import annotations

import shlex
import warnings
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import numpy as np

from lightning_al.ledger.answer import UNNAMED, Opinion, bare, check_annotator, name_of_rule
from lightning_al.ledger.indices import Indices, as_indices
from lightning_al.ledger.intake import Conflict, Intake
from lightning_al.ledger.label_values import NoLabel, encode
from lightning_al.ledger.record import Record
from lightning_al.ledger.schema import Event
from lightning_al.ledger.state import ASKED, IGNORED, LABELED, POOL
from lightning_al.ledger.trail import Said, newest_of_each, reverting, steps

__all__ = ["Book"]


class Book(Record):
    """What is asked and labelled in a run, from its state directory alone.

    Args:
        path: The state directory, or the ledger's file.
        resolve: The run's function that makes one label of several answers, if it has one and it is at hand;
            without it answers are recorded, and the run decides when it next opens.

    Raises:
        LedgerError: If there is no ledger.

    Example:
        >>> import tempfile
        >>> from lightning_al.ledger import Event, Ledger
        >>> folder = tempfile.mkdtemp()
        >>> _ = Ledger(f"{folder}/ledger.sqlite3").create(
        ...     {"size": 9, "class_names": ["cat", "dog"], "label_kind": "class"},
        ...     [Event("asked", 4, round=0, rank=0)],
        ... )
        >>> book = Book(folder)
        >>> book.label([4], ["dog"], who="Ada")
        1
        >>> book.answers(4)[0].value, book.waiting().count
        (1, 0)
    """

    def write(
        self,
        events: Sequence[Event],
        *,
        round_row: dict[str, Any] | None = None,
        shown: Mapping[int, Mapping[str, Any]] | None = None,
    ) -> None:
        """Events to disk, then to memory; nothing of them if the disk refuses.

        They must have been made from `current()`.
        """
        state = self.state
        if events or round_row:
            self.ledger.append(events, round_row=round_row, after=state.seq, shown=shown)
        self._apply(events)

    def _apply(self, events: Sequence[Event]) -> None:
        self.state.apply(enumerate(events, start=self.state.seq + 1))

    def event(self, kind: str, index: int, **values: Any) -> Event:
        """An event of one sample, with the user's name of it."""
        return Event(kind, index, None if self.names is None else self.names[index], **values)

    def intake(self, *, overwrite: bool = False, strict: bool = False) -> Intake:
        """Begin to collect what annotators say, checked against the ledger as it is now."""
        self.current()
        return Intake(self, overwrite=overwrite, strict=strict)

    def take(self, intake: Intake) -> int:
        """Write what was collected, and what the rule makes of it: all or nothing.

        Returns:
            How many opinions were new.

        Raises:
            ValueError: If the rule's function gives what is no label; what was collected is written then too.
        """
        if intake.events:
            try:
                decisions, unsupported = self._decisions(intake.samples, intake.events)
            except Exception:  # the rule is the user's; what people said is on record all the same
                self.write(intake.events)
                raise
            self.write([*intake.events, *decisions])
            _tell(unsupported)
        return len(intake)

    def label(
        self, indices: Any, targets: Sequence[Any], *, who: str, overwrite: bool = False
    ) -> int:  # fmt: skip
        """Record one annotator's labels, all or none.

        Args:
            indices: Of the samples.
            targets: Class names or numbers, numbers, text, or what the run's targets are.
            who: The annotator.
            overwrite: A changed answer of the same annotator wins.

        Returns:
            How many were new.

        Raises:
            ValueError: If a target does not fit, or contradicts what the annotator said.
        """
        found = as_indices(indices, self.size)
        single = isinstance(targets, str | bytes | Mapping) or not hasattr(targets, "__iter__")
        if single or len(targets) != len(found):
            given = f"one, {targets!r:.40}" if single else f"{len(targets)}"
            raise ValueError(
                f"{len(found)} `indices` came with {given} `targets`; needed is one each, as a list."
            )
        check_annotator(who)
        intake = self.intake(overwrite=overwrite)
        checked = self.checked(found, targets)
        for _, error in intake.add_all(
            Opinion(index, "label", encode(value), who, named=True) for index, value in checked.items()
        ):
            advice = "Pass `overwrite=True` to correct it; the ledger keeps the old one too."
            raise ValueError(f"{error}. {advice if isinstance(error, Conflict) else 'Nothing was written.'}")
        return self.take(intake)

    def checked(self, indices: Indices, targets: Sequence[Any]) -> dict[int, Any]:
        """Targets as they go into the ledger, by sample.

        Raises:
            ValueError: If one is missing, or not of the kind of the others.
        """
        state, checked = self.state, dict[int, Any]()
        for value, index in zip(targets, indices.tolist(), strict=True):
            checked[index] = self.kind.checked(value, index, self.kind.template_for(index, state, checked))
        return checked

    def unsure(self, indices: Any, who: str) -> None:
        """Record that an annotator cannot tell yet; the samples go on waiting."""
        check_annotator(who)
        intake = self.intake(strict=True)
        for index in self._of_status(indices, {ASKED}, "be put off").tolist():
            intake.add(Opinion(index, "unsure", None, who, named=True))
        self.take(intake)

    def unlabel(self, indices: Any, who: str | None = None) -> None:
        """Put labelled, asked or ignored samples back into the pool."""
        who = _checked_who(who)
        self.current()
        found = self._of_status(indices, {LABELED, ASKED, IGNORED}, "go back to the pool")
        self.write([self.event("undone", index, who=who) for index in found.tolist()])

    def ignore(self, indices: Any, who: str | None = None) -> None:
        """Never ask for these samples again: unclear, broken, not wanted."""
        who = _checked_who(who)
        self.current()
        found = self._of_status(indices, {POOL, ASKED}, "be ignored")
        self.write([self.event("ignored", index, who=who) for index in found.tolist()])

    def undo(self, indices: Any, who: str | None = None) -> None:
        """Take back the last change of each sample; the ledger keeps what was.

        Raises:
            ValueError: If nothing ever happened to one.
        """
        who = _checked_who(who)
        self.current()
        found = as_indices(indices, self.size).tolist()
        events = []
        for index, trail in self.trails(found).items():
            how = reverting(steps(trail))
            if how is None:
                raise ValueError(
                    f"Nothing happened to sample {index} yet, so nothing of it can be taken back. Leave it "
                    f"out. {self._where_to_look(index)}."
                )
            events.append(self.event("reverted", index, who=who, **how[1]))
        self.write(events)

    def _of_status(self, indices: Any, allowed: Iterable[int], purpose: str) -> Indices:
        found = as_indices(indices, self.size)
        wrong = found[~np.isin(self.state.status[found], list(allowed))]
        if wrong.size:
            names = ["in the pool", "asked for already", "labelled", "ignored"]
            index = int(wrong[0])
            raise ValueError(
                f"Samples {wrong[:5].tolist()} cannot {purpose}: sample {index} is "
                f"{names[self.state.status[index]]}. Leave it out. {self._where_to_look(index)}, "
                "`pool_indices`, `asked_indices`, `labeled_indices` and `ignored_indices`."
            )
        return found

    def _where_to_look(self, index: int) -> str:
        """For whoever is surprised by how a sample stands, in the shell or in Python."""
        name = str(index if self.names is None else self.names[index])
        return f"See `lightning-al history --sample {shlex.quote(name)}`, in Python `answers({index})`"

    def name_annotators(self, names: Mapping[str, str]) -> None:
        """Record who is behind numbers of a tool; a name that a number has already stays."""
        vars(self).pop("meta", None)  # another process may have named some
        known = self.annotators
        new = {number: known.get(name, name) for number, name in names.items() if number not in known}
        if new:
            self.ledger.set_meta(annotators=known | new)
            vars(self).pop("meta", None)

    # ------------------------------------------------------------------ the rule

    def decide(self) -> None:
        """Let the rule make labels of answers that came in where it was not at hand."""
        state = self.state
        open_ = sorted(state.answered)
        if self.resolve == "newest":  # a label that somebody gave is newer, or meant to win
            open_ = [i for i in open_ if state.status[i] != LABELED or state.who.get(i) == "resolve"]
        events, unsupported = self._decisions(open_)
        if events:
            self.write(events)
        _tell(unsupported)

    def _decisions(
        self, indices: Sequence[int], written: Sequence[Event] = ()
    ) -> tuple[list[Event], list[int]]:
        """Labels that the rule makes of the answers of samples, and the samples whose label it makes no more.

        Args:
            indices: The samples.
            written: Events that are written in the same moment.
        """
        if self.resolve is None or (self.resolve == "newest" and written):
            return [], []
        at, events = datetime.now(UTC).isoformat(timespec="microseconds"), list[Event]()
        unsupported = list[int]()
        trails = self.trails(indices)
        for number, event in enumerate(written, start=self.state.seq + 1):
            trails[event.sample].append((number, at, event))
        for index in indices:
            last = steps(trails[index])[-1]
            if not last.answered:
                continue
            value = self._decided(newest_of_each(last.said))
            if value is None:
                if last.status == "labeled" and last.who == "resolve":
                    unsupported.append(index)
                continue
            text = self._text_of(value, index)
            if last.status != "labeled":
                events.append(
                    self.event("labeled", index, value=text, who="resolve", round=self.state.last_round)
                )
            elif last.value != text:
                events.append(self.event("relabeled", index, value=text, who="resolve", round=last.round))
        return events, unsupported

    def _text_of(self, value: Any, index: int) -> str:
        """A label that the rule made, as it goes into the ledger."""
        try:
            checked = self.kind.checked(value, index, self.kind.template_for(index, self.state, {}))
        except ValueError as error:
            raise ValueError(
                f"`resolve` ({name_of_rule(self.resolve)}) made {value!r} of the answers of sample {index}, "
                f"which is no label: {error} The answers are on record; mend the function, and it decides "
                "when the run is opened again."
            ) from None
        return encode(checked)

    def _decided(self, said: Sequence[Said]) -> Any:
        """What the rule makes of them; an answer without a name counts once with the same one of a person."""
        named = {one.text for one in said if one.who != UNNAMED}
        counted = [one for one in said if one.who != UNNAMED or one.text not in named]
        answers = [answer for one in counted if not isinstance((answer := one.answer()).value, NoLabel)]
        if callable(self.resolve) and answers:
            return self.resolve(answers)
        return answers[-1].value if answers else None


def _checked_who(who: str | None) -> str | None:
    if who is None:
        return None
    check_annotator(who)
    return bare(who)


def _tell(unsupported: Sequence[int]) -> None:
    """Of labels that the rule would not make now; once all is written, as warnings may be errors."""
    if unsupported:
        warnings.warn(
            f"{len(unsupported)} samples have a label that `resolve` made of answers that were corrected "
            f"since, and of which it makes none now: {unsupported[:5]}. They keep it for training. "
            "Have somebody answer again, or take them back by `unlabel`.",
            stacklevel=3,
        )

"""INTAKE: what annotators say, held against the record: known already, a new event, or refused.

Opinion -> [Intake.add] -> events, all of which are then written together or not at all
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from functools import cached_property
from typing import TYPE_CHECKING

from lightning_al.ledger.answer import Opinion, bare, check_opinion, latest
from lightning_al.ledger.label_values import NoLabel, decode, encode
from lightning_al.ledger.schema import Event
from lightning_al.ledger.state import ASKED, IGNORED, LABELED
from lightning_al.ledger.trail import Happened, Said, standing

if TYPE_CHECKING:
    from lightning_al.ledger.book import Book

__all__ = ["Conflict", "Intake", "said_in"]

#: Whose answers are no annotator's: the rule is not asked, and nobody overrules them unasked.
_NOBODY = ("dataset", "oracle")
_OPINIONS = {
    "labeled": "label", "relabeled": "label", "answered": "label", "ignored": "skip", "unsure": "unsure"
}  # fmt: skip
#: As they stand beside a label.
_DOUBTS = {encode(NoLabel(what)): what for what in ("skip", "unsure")}


class Conflict(ValueError):
    """An answer contradicts one on record, and nobody said that it may win."""


def said_in(event: Event) -> tuple[str, str | None] | None:
    """What an annotator said by an event: the kind of an opinion and its text; `None`: it is no opinion."""
    if event.kind == "answered" and event.value in _DOUBTS:
        return _DOUBTS[event.value], None
    kind = _OPINIONS.get(event.kind)
    return None if kind is None else (kind, event.value if kind == "label" else None)


class Intake:
    """Collects opinions that are to be written together.

    Args:
        book: What is on record.
        overwrite: A changed answer wins over the same annotator's earlier one, or over a label on record.
        strict: An answer that says nothing new is refused, not passed over.
    """

    def __init__(self, book: Book, *, overwrite: bool = False, strict: bool = False) -> None:
        self.book, self.overwrite, self.strict = book, overwrite, strict
        self.events: list[Event] = []
        self.taken = 0
        self.taken_back = 0  # opinions that were left out: somebody took them back
        self._latest = latest()
        self._seen: set[tuple[int, str]] = set()
        self._now: dict[int, tuple[int, str | None, str | None]] = {}
        self._at = datetime.now(UTC).isoformat(timespec="microseconds")
        self._trails: dict[int, list[Happened]] = {}
        self._pending: dict[int, list[Happened]] = {}

    def __len__(self) -> int:
        return self.taken

    @property
    def samples(self) -> list[int]:
        """Those that something was said of, in order."""
        return list(dict.fromkeys(event.sample for event in self.events))

    def add_all(self, opinions: Iterable[Opinion]) -> list[tuple[int, ValueError]]:
        """Take all over; of those that contradict what is on record, their place and the reason.

        Labels come first, so that doubts stand beside them whether they are read in one go or again.
        """
        opinions = list(opinions)
        state = self.book.state
        by_rule = self.book.resolve != "newest"
        self._trails |= self.book.trails(
            {
                o.index for o in opinions
                if by_rule
                or (o.index in state.who and (o.kind != "label" or (o.named and not self._says(o))))
                or (o.kind == "unsure" and state.status[o.index] != ASKED)
                or (o.kind == "skip" and state.status[o.index] == IGNORED)
            }
        )  # fmt: skip
        refused = []
        for place in sorted(range(len(opinions)), key=lambda place: opinions[place].kind != "label"):
            try:
                self.add(opinions[place])
            except ValueError as error:
                refused.append((place, error))
        return sorted(refused, key=lambda each: each[0])

    def add(self, opinion: Opinion) -> bool:
        """Take one over; whether it says anything new.

        Raises:
            Conflict: If it contradicts what is on record.
            ValueError: If there was one of the same annotator already, or it cannot be an annotator's.
        """
        check_opinion(opinion, self._latest)
        key = (opinion.index, opinion.who if opinion.named else "")
        if key in self._seen:
            raise ValueError(f"sample {opinion.index} is there twice")
        status, who, text = self._status(opinion.index)
        if opinion.kind == "label":
            taken = self._label(opinion, status, who, text)
        elif opinion.kind == "skip":
            taken = self._skip(opinion, status)
        else:
            taken = self._unsure(opinion, status)
        self._seen.add(key)
        self.taken += taken
        return taken

    def _status(self, index: int) -> tuple[int, str | None, str | None]:
        state = self.book.state
        return self._now.get(index) or (
            int(state.status[index]),
            state.who.get(index),
            state.values.get(index),
        )

    def _skip(self, opinion: Opinion, status: int) -> bool:
        if status in (LABELED, IGNORED) or self._waits_for_rule(opinion.index):
            return self._doubt(opinion)
        self._put("ignored", opinion, text=None)
        self._now[opinion.index] = (IGNORED, None, None)
        return True

    def _waits_for_rule(self, index: int) -> bool:
        """Whether there are answers that a function is to decide on: nobody's skip wipes them out."""
        return self.book.resolve != "newest" and any(one.text not in _DOUBTS for one in self._said(index))

    def _unsure(self, opinion: Opinion, status: int) -> bool:
        if status != ASKED:
            return self._doubt(opinion)
        if self.book.resolve != "newest" and any(one.who == opinion.who for one in self._said(opinion.index)):
            return self._doubt(opinion)  # takes the place of what the same annotator said before
        known = self.book.state.unsure.get(opinion.index, ())
        if any(self._is(who, opinion) for who in known):
            return False
        self._put("unsure", opinion, text=None)
        return True

    def _doubt(self, opinion: Opinion) -> bool:
        """Somebody cannot tell, and the sample does not wait for that: it stands beside the rest, once."""
        self._said(opinion.index)
        trail = [*self._trails[opinion.index], *self._pending.get(opinion.index, ())]
        mine = [event for _, _, event in trail if bare(event.who) == opinion.who and said_in(event)]
        if self.strict:  # said now, and not read from a file that may be old
            mine = mine[-1:]
        if any(said_in(event) == (opinion.kind, None) and event.said == opinion.said for event in mine):
            return False
        self._put("answered", opinion, text=encode(NoLabel(opinion.kind)))
        return True

    def _label(self, opinion: Opinion, status: int, who: str | None, text: str | None) -> bool:
        by_rule = self.book.resolve != "newest" and opinion.who not in _NOBODY
        if status != LABELED and not by_rule:
            return self._enter(opinion, status)
        if not by_rule and not self.strict and self._says(opinion):
            return False
        if by_rule or (opinion.named and who not in _NOBODY):
            return self._by_several(opinion, status, text, by_rule=by_rule)
        if not self.strict and text is not None and text == opinion.text:
            return False
        if not self.overwrite:
            raise self._conflict(opinion, text)
        return self._correct(opinion)

    def _says(self, opinion: Opinion) -> bool:
        """Whether the label on record is this very answer of this annotator."""
        state, index = self.book.state, opinion.index
        return state.values.get(index) == opinion.text and self._is(state.who.get(index), opinion)

    @cached_property
    def _annotators(self) -> dict[str, str]:
        return self.book.annotators

    def _is(self, who: str | None, opinion: Opinion) -> bool:
        """Whether a name on record is that of an opinion's annotator."""
        return bare(who) == opinion.who or (who is not None and self._annotators.get(who) == opinion.who)

    def _enter(self, opinion: Opinion, status: int) -> bool:
        self._put("labeled", opinion, round_=self.book.state.last_round)
        self._now[opinion.index] = (LABELED, opinion.who, opinion.text)
        return True

    def _correct(self, opinion: Opinion) -> bool:
        self._put("relabeled", opinion, round_=int(self.book.state.round[opinion.index]))
        self._now[opinion.index] = (LABELED, opinion.who, opinion.text)
        return True

    def _by_several(self, opinion: Opinion, status: int, text: str | None, *, by_rule: bool) -> bool:
        """An answer beside those of others; the newest counts, or a function decides."""
        said = self._said(opinion.index)
        mine = [one for one in said if one.who == opinion.who]
        own = max(mine, key=lambda one: (one.at, one.seq), default=None)
        known = own is not None and own.text == opinion.text
        if (known or any(_same(one, opinion) for one in mine)) and not self.strict:
            return False
        # Nobody's answer is no further person's: a file that is read once with a name and once without.
        nobodys = [one for one in said if not opinion.named or one.who == opinion.file]
        if any(one.text == opinion.text for one in nobodys) and not self.strict:
            return False
        timed = opinion.said is not None and own is not None and opinion.said != own.at
        if own is not None and not self.overwrite and not timed:
            raise self._conflict(opinion, own.text, None if status == LABELED else own.who)
        newest = max((one.at for one in said if one.text not in _DOUBTS), default="")
        is_newest = opinion.said is None or opinion.said >= newest
        if by_rule or not is_newest or text == opinion.text:
            self._put("answered", opinion)
            return True
        return self._correct(opinion)

    def _said(self, index: int) -> tuple[Said, ...]:
        """Answers that stand, those of this intake too."""
        if index not in self._trails:
            self._trails |= self.book.trails([index])
        return standing([*self._trails[index], *self._pending.get(index, ())])

    def _put(self, kind: str, opinion: Opinion, *, round_: int | None = None, text: str | None = "") -> None:
        if text == "":
            text = opinion.text
        event = self.book.event(
            kind, opinion.index, value=text, who=opinion.who, round=round_, said=opinion.said
        )
        self.events.append(event)
        number = self.book.state.seq + len(self.events)
        self._pending.setdefault(opinion.index, []).append((number, self._at, event))

    def _conflict(self, opinion: Opinion, text: str | None, waits_with: str | None = None) -> Conflict:
        """With `waits_with`, an annotator, the sample has no label yet, but that one's answer."""
        now = "the data set's own label" if text is None else self._shown(text)
        new = f", not {self._shown(opinion.text)}" if opinion.given and opinion.text else ""
        is_ = "is labelled" if waits_with is None else f"was answered by {waits_with} with"
        return Conflict(f"sample {opinion.index} {is_} {now} already{new}")

    def _shown(self, text: str) -> str:
        """A target as people know it: a class by its name."""
        value, names = decode(text), self.book.kind.class_names
        if names is not None and type(value) is int and 0 <= value < len(names):
            return str(names[value])
        return f"{value.what!r}, no label," if isinstance(value, NoLabel) else str(value)


def _same(one: Said, opinion: Opinion) -> bool:
    """Whether it is an answer that was read before."""
    return one.text == opinion.text and one.at == opinion.said

"""TRAIL: what happened to one sample, step by step: who answered what, and how it was before.

events of one sample -> [steps] -> its state after each -> answers, and what taking back a change gives
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from lightning_al.ledger.answer import Answer, bare
from lightning_al.ledger.label_values import NoLabel, decode, encode
from lightning_al.ledger.schema import Event

__all__ = ["UNSURE", "Said", "Step", "newest_of_each", "reverting", "standing", "steps"]

#: That somebody cannot tell, where it stands beside answers.
UNSURE = encode(NoLabel("unsure"))
#: Number, time and event, as the ledger gives them.
Happened = tuple[int, str, Event]


@dataclass(frozen=True)
class Said:
    """An answer that stands, as it is on record."""

    seq: int
    text: str
    who: str | None
    at: str

    def answer(self) -> Answer:
        """For a rule or a reader."""
        return Answer(decode(self.text), self.who, self.at)


@dataclass(frozen=True)
class Step:
    """The state of one sample after an event; `seq` is 0 before the first."""

    seq: int = 0
    kind: str = ""
    status: str = "pool"
    round: int | None = None
    rank: int | None = None
    first: int = 0
    query: int = -1
    value: str | None = None
    who: str | None = None
    unsure: tuple[str, ...] = ()
    said: tuple[Said, ...] = ()
    answered: bool = False
    asked: Event | None = None


def steps(events: Iterable[Happened]) -> list[Step]:
    """The states that a sample went through, the untouched one first."""
    found = [Step()]
    by_number = {0: found[0]}
    for seq, at, event in events:
        if event.kind == "reverted":
            step = replace(by_number[_goes_back_to(event)], seq=seq, kind="reverted")
        else:
            step = replace(_after(found[-1], seq, at, event), seq=seq, kind=event.kind)
        found.append(step)
        by_number[seq] = step
    return found


def _after(step: Step, seq: int, at: str, event: Event) -> Step:
    said = _said_after(step.said, seq, at, event)
    number = step.round if event.round is None else event.round
    if event.kind == "asked":
        return replace(
            step, status="asked", round=number, rank=event.rank, first=seq, query=event.round or 0,
            asked=event,
        )  # fmt: skip
    if event.kind == "labeled":
        rank = step.rank if event.rank is None else event.rank
        return replace(
            step, status="labeled", round=number, rank=rank, first=seq, value=event.value, who=event.who,
            unsure=(), said=said,
        )  # fmt: skip
    if event.kind == "relabeled":
        return replace(step, value=event.value, who=event.who, said=said)
    if event.kind == "answered":
        others = tuple(who for who in step.unsure if who != event.who)
        doubts = step.status == "asked" and event.value == UNSURE
        unsure = (*others, str(event.who)) if doubts else others
        return replace(step, said=said, answered=True, unsure=unsure)
    if event.kind == "unsure":
        return replace(step, unsure=(*step.unsure, str(event.who)))
    if event.kind == "ignored":
        return Step(status="ignored", first=seq, query=step.query, who=event.who)
    return Step()


def standing(events: Iterable[Happened]) -> tuple[Said, ...]:
    """The answers that stand in the end, as `steps` has them: of all else, 100,000 samples take long."""
    said: tuple[Said, ...] = ()
    by_number = {0: said}
    for seq, at, event in events:
        is_back = event.kind == "reverted"
        said = by_number[_goes_back_to(event)] if is_back else _said_after(said, seq, at, event)
        by_number[seq] = said
    return said


def _said_after(said: tuple[Said, ...], seq: int, at: str, event: Event) -> tuple[Said, ...]:
    if event.kind in ("ignored", "undone"):
        return ()
    if (
        event.kind in ("labeled", "relabeled", "answered")
        and event.value is not None
        and event.who != "resolve"
    ):
        return (*said, Said(seq, event.value, bare(event.who), event.said or at))
    return said


def _goes_back_to(event: Event) -> int:
    return int(json.loads(event.value or "")["to"])


def newest_of_each(said: Sequence[Said]) -> list[Said]:
    """The newest answer of each annotator, oldest first."""
    newest: dict[str | None, Said] = {}
    for one in sorted(said, key=lambda s: (s.at, s.seq)):
        newest.pop(one.who, None)
        newest[one.who] = one
    return list(newest.values())


def reverting(trail: Sequence[Step]) -> tuple[Step, dict[str, Any]] | None:
    """The state before the last change, and the values of an event that says so; `None`: nothing changed.

    What a rule decided goes back together with the answer that it was decided by.
    """
    place = len(trail) - 1
    if place == 0:
        return None
    last = trail[place]
    if last.kind in ("labeled", "relabeled") and last.who == "resolve":
        opinions = [i for i in range(1, place) if trail[i].kind == "answered"]
        place = opinions[-1] if opinions else place
    before = trail[place - 1]
    how = {
        "to": before.seq, "status": before.status, "value": before.value, "who": before.who,
        "first": before.first, "query": before.query, "unsure": list(before.unsure),
        "answered": before.answered,
    }  # fmt: skip
    asked = before.asked
    return before, {
        "value": json.dumps(how, separators=(",", ":")), "round": before.round, "rank": before.rank,
        "strategy": asked and asked.strategy, "seed": asked and asked.seed, "score": asked and asked.score,
    }  # fmt: skip

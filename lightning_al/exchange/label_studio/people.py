"""PEOPLE: whose an annotation is: one person is one annotator, under whichever name an answer comes in.

    Annotation -> [by_one_name] -> the same, each account under the name that the ledger has for its number

Exports name accounts by number, servers by e-mail, and accounts that are gone not at all. Else one person's
answer would be that of two, and a rule that asks for two would have them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from lightning_al.exchange.label_studio.annotations import Annotation
from lightning_al.exchange.label_studio.tasks import Key
from lightning_al.ledger.answer import Opinion, check_annotator
from lightning_al.ledger.book import Book
from lightning_al.ledger.intake import said_in

__all__ = ["all_by", "by_one_name", "name_users", "under_another_name"]

#: How annotators are called whose names nobody told.
_NUMBERED = re.compile(r"(user|annotation) -?[0-9]+")
_GONE = re.compile(r"annotation -?[0-9]+")


def all_by(
    book: Book, who: str, said: Mapping[Key, list[Annotation]], path: Path
) -> dict[Key, list[Annotation]]:
    """The same, by one person under the name given, which is that person's from now on.

    Raises:
        ValueError: If they are several people's, or on record under another name.
    """
    check_annotator(who)
    everyone = {(each.account, each.who) for listed in said.values() for each in listed}
    known = book.annotators
    numbered = [(f"user {account}", by) for account, by in everyone if account is not None]
    names = {name for pair in numbered for name in pair if name}
    by = sorted({name or "an account that is gone" for _, name in everyone})
    others = sorted({known[name] for name in names if known.get(name, who) != who})
    if len(by) > 1 or others:
        shown = ", ".join((others or by)[:10])[:300]
        what = f"answers that are on record as by {shown}" if others else f"{len(by)} annotators ({shown})"
        raise ValueError(
            f"{path} has {what}, and `who` says that all are by {who!r}; needed is one annotator, of one "
            "name. Leave it out (in the shell `--who`), or say who is behind each number: `--users FILE`, in "
            "Python `import_export(..., users=...)`."
        )
    book.name_annotators({name: who for name in names if name != who})
    return {key: [replace(each, who=who) for each in listed] for key, listed in said.items()}


def name_users(book: Book, users: Mapping[int, str]) -> list[str]:
    """Record who is behind numbers of accounts, whether or not they answer in this file.

    Returns:
        Which of them have another name on record, and keep it.

    Raises:
        ValueError: If one cannot be an annotator's name.
    """
    for number, name in users.items():
        try:
            check_annotator(name)
        except ValueError as error:
            raise ValueError(
                f"`users` cannot be used, for account {number}: {error}. Give people's own names."
            ) from None
    given = {number: name for number, name in users.items() if not _NUMBERED.fullmatch(name)}
    book.name_annotators({_number(number): name for number, name in given.items()})
    known = book.annotators
    return [
        f"account {number} is {recorded!r} on record, and stays so; `users` says {name!r}"
        for number, name in given.items()
        if (recorded := known[_number(number)]) != known.get(name, name)
    ]


def by_one_name(book: Book, said: Mapping[int, list[Annotation]]) -> dict[int, list[Annotation]]:
    """The same, each account under one name, whether or not this time somebody told which."""
    everyone = {each.account: each.who for listed in said.values() for each in listed}
    book.name_annotators({
        _number(account): who
        for account, who in everyone.items()
        if account is not None and who and not _NUMBERED.fullmatch(who) and _can_be_named(who)
    })  # fmt: skip
    known = book.annotators
    return {index: [_as_known(each, known) for each in listed] for index, listed in said.items()}


def _number(account: int) -> str:
    """How an account is called of which only its number is told."""
    return f"user {account}"


def _as_known(each: Annotation, known: Mapping[str, str]) -> Annotation:
    """Under the name on record for its number, whatever it is called now; two addresses are two people's."""
    name = known.get(each.who or "", each.who)
    recorded = name if each.account is None else known.get(_number(each.account), name)
    if name and recorded and name != recorded and "@" in name and "@" in recorded:
        return replace(
            each,
            problem=f"account {each.account} is {recorded!r} on record and {name!r} here; needed is one "
            "person a number. If they are one, give `users` (in the shell `--users FILE`) that call it "
            f"{recorded!r}; answers of another server need a run of their own",
        )
    return each if recorded == each.who else replace(each, who=recorded)


def under_another_name(book: Book, opinions: Iterable[Opinion]) -> set[tuple[Any, ...]]:
    """What is on record already, by an annotator whose name was not told then, or is not told now.

    Time and answer tell, to a millionth of a second: an account that is gone has no number any more.
    """
    state, found = book.state, set[tuple[Any, ...]]()
    known = set(book.annotators.values())
    by_index: dict[int, list[Opinion]] = {}
    for opinion in opinions:
        index = opinion.index
        if (index in state.who or index in state.answered) and state.who.get(index) != opinion.who:
            by_index.setdefault(index, []).append(opinion)
    for index, trail in book.trails(sorted(by_index)).items():
        for _, _, event in trail:
            what = said_in(event)
            for o in by_index[index]:
                same = what == (o.kind, o.text) and event.said == o.said
                if same and event.who and _may_be_one(o.who, event.who, known):
                    found.add((index, o.kind, o.text, o.who, o.said))
    return found


def _can_be_named(who: str) -> bool:
    try:
        check_annotator(who)
    except ValueError:
        return False
    return True


def _may_be_one(one: str, other: str, known: set[str]) -> bool:
    """Whether two names may be one account's: a number, and a name that has no number yet."""
    if _GONE.fullmatch(one) or _GONE.fullmatch(other):
        return one != other
    numbered = [name for name in (one, other) if _NUMBERED.fullmatch(name)]
    return len(numbered) == 1 and not {one, other} & known

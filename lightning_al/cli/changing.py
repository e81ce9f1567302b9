"""CHANGING: undo, relabel and ignore: single samples, by hand. The ledger keeps what was."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from jsonargparse import ArgumentParser

from lightning_al.cli.looking import add_one_sample, add_state_dir, the_one
from lightning_al.cli.parsing import Command
from lightning_al.cli.samples import annotator, find, find_all, label_text, name_of
from lightning_al.ledger.book import Book
from lightning_al.ledger.state import LABELED, STATUSES

__all__ = ["IGNORE", "RELABEL", "UNDO"]

_WORDS = {"pool": "in the pool", "asked": "waiting", "labeled": "labelled", "ignored": "ignored"}


def _add_samples(parser: ArgumentParser) -> None:
    add_state_dir(parser)
    parser.add_argument(
        "--sample", type=str, nargs="+", action="extend", required=True, metavar="INDEX_OR_ID",
        help="Which samples; may be given more than once.",
    )  # fmt: skip
    parser.add_argument("--who", type=str, default=None, help="Your name; by default your account's.")


def _now(book: Book, index: int) -> str:
    """How a sample stands now."""
    state = book.state
    status = STATUSES[state.status[index]]
    label = f" {label_text(book, state.values.get(index))}" if status == "labeled" else ""
    return f"{name_of(book, index)}: {_WORDS[status]}{label}"


def _change(options: Any, change: Callable[[Book, Any, str], None]) -> int:
    book = Book(options.state_dir)
    found, who = find_all(book, options.sample), annotator(options.who)
    change(book, found, who)
    print("\n".join(_now(book, index) for index in found))
    return 0


def _undo(options: Any) -> int:
    return _change(options, Book.undo)


UNDO = Command(
    "Take back the last change of samples",
    "STATE_DIR --sample INDEX_OR_ID [...] [--who NAME]",
    "lightning-al undo runs/digits --sample 17 --who Ada",
    _add_samples,
    _undo,
    more="A corrected label is the earlier one again, a label that came in waits again. Once more\n"
    "brings it back.",
)


def _ignore(options: Any) -> int:
    return _change(options, Book.ignore)


IGNORE = Command(
    "Never ask for samples again: unclear, broken, not wanted",
    "STATE_DIR --sample INDEX_OR_ID [...] [--who NAME]",
    "lightning-al ignore runs/digits --sample 17 18 --who Ada",
    _add_samples,
    _ignore,
    more="`lightning-al undo` takes it back.",
)


def _add_relabel(parser: ArgumentParser) -> None:
    add_state_dir(parser)
    add_one_sample(parser, "Which sample.", required=True)
    parser.add_argument(
        "--label", type=str, required=True, help="A class by name or number, a number, text, JSON."
    )
    parser.add_argument("--who", type=str, required=True, metavar="NAME", help="Your name.")


def _relabel(options: Any) -> int:
    book = Book(options.state_dir)
    index, who = find(book, the_one(options.sample)), annotator(options.who)
    state = book.current()
    if state.status[index] != LABELED:
        raise ValueError(
            f"{name_of(book, index)} is {_WORDS[STATUSES[state.status[index]]]} and has no label to correct. "
            "Give first labels by `lightning-al import`."
        )
    try:
        value = book.kind.parse(options.label, book.kind.template_for(index, state, {}))
    except ValueError as error:
        raise ValueError(f"`--label` cannot be used: {error}.") from None
    count = book.label([index], [value], who=who, overwrite=True)
    said = "" if count else " (on record already)"
    if count and book.resolve is None:
        said = "; the answer is on record, and the run's own function decides when it is started again"
    print(f"{_now(book, index)}{said}")
    return 0


RELABEL = Command(
    "Correct the label of a sample",
    "STATE_DIR --sample INDEX_OR_ID --label LABEL --who NAME",
    "lightning-al relabel runs/digits --sample 17 --label seven --who Ada",
    _add_relabel,
    _relabel,
    more="The next training sees it; `lightning-al undo` takes it back.",
)

"""EXCHANGING: export and import, by files; push and pull, by a Label Studio server."""

from __future__ import annotations

import os
import re
import stat
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from jsonargparse import ArgumentParser

from lightning_al.cli.looking import add_state_dir
from lightning_al.cli.parsing import Command
from lightning_al.exchange.formats import format_of, import_answers, kept_beside, write_query
from lightning_al.exchange.reading import parse_json, read_text
from lightning_al.ledger.answer import check_annotator
from lightning_al.ledger.book import Book
from lightning_al.ledger.state import ASKED
from lightning_al.ledger.status import printable

if TYPE_CHECKING:
    from lightning_al.exchange.label_studio import LabelStudio

__all__ = ["EXPORT", "IMPORT", "PULL", "PUSH"]

_FORMAT = Literal["csv", "jsonl", "label-studio"]
_HELP_FORMAT = "By default what the path ends in: .csv, .jsonl, or .json for Label Studio."
_USERS = 'one object from the numbers of accounts to names, such as {"1": "Ada"}'
_LONGEST_TOKEN = 1 << 16


# ---------------------------------------------------------------------- files


def _add_export(parser: ArgumentParser) -> None:
    add_state_dir(parser)
    parser.add_argument(
        "--to", type=str, default=None, metavar="PATH",
        help="The file; by default query_<round>.csv in STATE_DIR. One that is there is kept beside it.",
    )  # fmt: skip
    parser.add_argument("--format", type=_FORMAT, default=None, help=_HELP_FORMAT)


def _export(options: Any) -> int:
    book = Book(options.state_dir)
    count = len(book.current().indices(ASKED))
    if not count:
        print(book.waiting())
        return 0
    before = kept_beside(book, options.to, format=options.format)
    path = write_query(book, options.to, format=options.format)
    print(f"{path}: {count:,} samples wait for their labels.")
    for older in kept_beside(book, options.to, format=options.format) - before:
        print(f"The file that was there is {older} now, and is not read again.")
    return 0


EXPORT = Command(
    "Write the samples that wait for labels to a file, most wanted first",
    "STATE_DIR [--to PATH] [--format csv|jsonl|label-studio]",
    "lightning-al export runs/digits --to query.jsonl",
    _add_export,
    _export,
)


def _add_import(parser: ArgumentParser) -> None:
    add_state_dir(parser)
    parser.add_argument("path", type=str, metavar="PATH", help="File with answers.")
    parser.add_argument("--who", type=str, default=None, help="Who labelled, where a row does not say.")
    _add_users(parser, "Who is who in an export of Label Studio, which has the numbers of accounts alone")
    parser.add_argument(
        "--overwrite",
        action="store_true",
        help="Let a changed answer correct a label, and one that was taken back count again; the ledger "
        "keeps all.",
    )
    parser.add_argument(
        "--of-other-run",
        action="store_true",
        help="Read rows of another run as if they were this one's: its ledger is lost, the samples are the "
        "same.",
    )
    parser.add_argument("--format", type=_FORMAT, default=None, help=_HELP_FORMAT)


def _import(options: Any) -> int:
    book = Book(options.state_dir)
    users = None if options.users is None else _users_of_export(options)
    found = import_answers(
        book, options.path, who=options.who, overwrite=options.overwrite, format=options.format, users=users,
        other_run=options.of_other_run,
    )  # fmt: skip
    print(f"{options.path}: {found}")
    if found.beside and book.resolve is None:
        print("The run's own function makes labels of answers, when it is started again.")
    print(book.waiting())
    return 0


def _users_of_export(options: Any) -> dict[int, str]:
    if options.who is not None or format_of(options.path, options.format) != "label-studio":
        raise ValueError(
            f"`--users` is given with {'`--who`' if options.who is not None else options.path}; needed is an "
            "export of Label Studio alone, a .json. Other files name their annotators: leave `--users` out."
        )
    return _users(options.users)


def _add_users(parser: ArgumentParser, what: str) -> None:
    parser.add_argument(
        "--users", type=str, default=None, metavar="FILE", help=f'{what}: JSON such as {{"1": "Ada"}}.'
    )


def _users(path: str) -> dict[int, str]:
    """Names of annotators by the numbers of their accounts."""
    try:
        names = parse_json(read_text(path, "JSON"))
    except ValueError as error:
        raise ValueError(f"`--users` {path} cannot be read ({error}); needed is {_USERS}.") from None
    whole = isinstance(names, dict) and all(re.fullmatch("[0-9]{1,18}", number) for number in names)
    if not whole or not all(isinstance(name, str) for name in names.values()):
        raise ValueError(f"`--users` {path} is another kind of JSON; needed is {_USERS}. Mend the file.")
    for name in names.values():
        try:
            check_annotator(name)
        except ValueError as error:
            raise ValueError(f"`--users` {path} cannot be used: {error}. Give people's own names.") from None
    return {int(number): name for number, name in names.items()}


IMPORT = Command(
    "Read answers from a file, all of them or none",
    "STATE_DIR PATH [--who NAME | --users FILE] [--overwrite] [--of-other-run] [--format ...]",
    "lightning-al import runs/digits query.csv --who Ada",
    _add_import,
    _import,
    more="Answers that are on record already are passed over, so a file can be read as often as you like.\n"
    "Of an export of Label Studio the good answers are taken over, and every other is named.",
)


# ---------------------------------------------------------------------- Label Studio


def _add_server(parser: ArgumentParser) -> None:
    add_state_dir(parser)
    parser.add_argument(
        "--url", type=str, default=None, help="The server; by default the variable LABEL_STUDIO_URL."
    )
    parser.add_argument("--project", type=int, default=None, metavar="N", help="The number of the project.")
    parser.add_argument(
        "--token-file", type=str, default=None, metavar="PATH",
        help="File with the access token; by default the variable LABEL_STUDIO_API_KEY holds it. It is "
        "never an argument: others on this machine could see it.",
    )  # fmt: skip


def _studio(options: Any) -> LabelStudio:
    from lightning_al.exchange.label_studio import LabelStudio

    token = None if options.token_file is None else _token(Path(options.token_file))
    return LabelStudio(options.url, token, project=options.project, progress=_tell)


def _token(path: Path) -> str:
    """What a file of one's own holds; nothing of it is ever part of a message."""
    try:
        with path.open(encoding="ascii", errors="replace") as file:
            mode = os.fstat(file.fileno()).st_mode
            text = file.read(_LONGEST_TOKEN).strip()
    except OSError as error:
        raise ValueError(
            f"The token file {path} cannot be read ({error.strerror}). Check `--token-file`."
        ) from None
    if os.name != "nt" and mode & (stat.S_IRWXG | stat.S_IRWXO):
        print(f"lightning-al: warning: others may read {path}; `chmod 600` it.", file=sys.stderr)
    return text


def _tell(what: str, done: int, of: int) -> None:
    if sys.stderr.isatty():
        print(f"\r{what}: {done:,} of {of:,}", end="" if done < of else "\n", file=sys.stderr, flush=True)


def _add_push(parser: ArgumentParser) -> None:
    _add_server(parser)
    parser.add_argument(
        "--create",
        type=str,
        default=None,
        metavar="TITLE",
        help="Make a project first, and say its number.",
    )


def _push(options: Any) -> int:
    from lightning_al.exchange.label_studio import form_for, push_query

    book, studio = Book(options.state_dir), _studio(options)
    if options.create is not None:
        if options.project is not None:
            raise ValueError("`--project` and `--create` are both given; needed is one. Leave out the other.")
        number = studio.create_project(options.create, form_for(book))
        print(f"Project {number} is made; from now on: --project {number}")
    pushed = push_query(book, studio)
    print(f"{len(pushed.sent):,} samples sent, {len(pushed.there):,} were there.")
    for key, numbers in pushed.doubled.items():
        print(f"Sample {printable(key.sample)} has several tasks {list(numbers)}: delete all but one there.")
    return 0


PUSH = Command(
    "Send the samples that wait to a Label Studio project",
    "STATE_DIR [--url URL] (--project N | --create TITLE) [--token-file PATH]",
    "LABEL_STUDIO_API_KEY=... lightning-al push runs/digits --url http://localhost:8080 --project 5",
    _add_push,
    _push,
    more="What is there is not sent twice, so it can be run as often as you like.",
)


def _add_pull(parser: ArgumentParser) -> None:
    _add_server(parser)
    _add_users(parser, "Who an account is on record whose e-mail has changed since")
    parser.add_argument(
        "--overwrite", action="store_true",
        help="Let an answer win over a label that the data set or a file gave, and one that was taken back "
        "count again.",
    )  # fmt: skip


def _pull(options: Any) -> int:
    from lightning_al.exchange.label_studio import pull_answers

    users = None if options.users is None else _users(options.users)
    book, studio = Book(options.state_dir), _studio(options)
    print(pull_answers(book, studio, users=users, overwrite=options.overwrite))
    return 0


PULL = Command(
    "Take over what annotators said in a Label Studio project",
    "STATE_DIR [--url URL] --project N [--token-file PATH] [--users FILE] [--overwrite]",
    "LABEL_STUDIO_API_KEY=... lightning-al pull runs/digits --url http://localhost:8080 --project 5",
    _add_pull,
    _pull,
    more="Good answers are taken over, and every other is named.",
)

"""LOOKING: status, history and plot, which change nothing."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jsonargparse import ArgumentParser

from lightning_al.cli.parsing import Command
from lightning_al.cli.samples import find, label_text, name_of
from lightning_al.ledger.book import Book
from lightning_al.ledger.schema import Event
from lightning_al.ledger.status import printable
from lightning_al.target import check_target
from lightning_al.whole_file import replacing

__all__ = ["HISTORY", "PLOT", "STATUS", "add_one_sample", "add_state_dir", "the_one"]

_DONE = {
    "asked": "asked for", "labeled": "labelled", "relabeled": "labelled anew", "answered": "answered",
    "unsure": "cannot tell", "ignored": "ignored", "undone": "back in the pool", "reverted": "taken back",
}  # fmt: skip


def add_state_dir(parser: ArgumentParser) -> None:
    """The argument of every command."""
    parser.add_argument("state_dir", type=str, metavar="STATE_DIR", help="Folder of the run's ledger.")


def add_one_sample(parser: Any, what: str, *, required: bool = False) -> None:
    """The argument of commands about a single sample; read it by `the_one`."""
    parser.add_argument(
        "--sample", type=str, action="append", required=required, metavar="INDEX_OR_ID", help=what
    )


def the_one(samples: Sequence[str]) -> str:
    """The sample that was given.

    Raises:
        ValueError: If there are several, of which all but the last would be passed over.
    """
    if len(samples) > 1:
        raise ValueError(f"`--sample` was given {len(samples)} times, and needed is one sample at a time. "
                         "Run the command once for each.")  # fmt: skip
    return samples[0]


# ---------------------------------------------------------------------- status


def _add_status(parser: ArgumentParser) -> None:
    add_state_dir(parser)
    parser.add_argument("--json", action="store_true", help="As one JSON object, for programs.")


def _status(options: Any) -> int:
    book = Book(options.state_dir)
    status = book.status()
    print(json.dumps(status.as_dict(), indent=2) if options.json else status)
    if status.waiting and not options.json and book.meta.get("oracle") == "people":
        from lightning_al.exchange.files import place_of_answers

        print(f"Answers go into {place_of_answers(book)}, or come by `lightning-al import`.")
    return 0


STATUS = Command(
    "Show how far a run is: labels and budget, classes, what waits, who holds the ledger",
    "STATE_DIR [--json]",
    "lightning-al status runs/digits",
    _add_status,
    _status,
)


# ---------------------------------------------------------------------- history


def _add_history(parser: ArgumentParser) -> None:
    add_state_dir(parser)
    either = parser.add_mutually_exclusive_group()
    either.add_argument(
        "--csv", type=str, default=None, metavar="PATH",
        help="Write the table to a file; one that is there is kept beside it.",
    )  # fmt: skip
    add_one_sample(either, "Show all that happened to one sample instead: what, when and by whom.")


def _history(options: Any) -> int:
    from lightning_al.history import History

    if options.sample is not None:
        return _history_of(Book(options.state_dir), the_one(options.sample))
    history = History.of(options.state_dir)
    if options.csv is not None:
        check_target(Path(options.csv), "the history", folders=[options.state_dir])
        history.write_csv(options.csv, keep_old=True)
        print(f"{options.csv}: {len(history)} rounds.")
    elif not len(history):
        print("No round is finished yet.")
    else:
        rows = [[_cell(row.get(name, math.nan)) for name in history.columns] for row in history]
        print("\n".join(_aligned([list(map(printable, history.columns)), *rows])))
    if history.waiting and options.csv is None:
        print(f"\n{history.waiting}")
    return 0


def _history_of(book: Book, sample: str) -> int:
    index = find(book, sample)
    book.check()
    trail = book.trails([index])[index]
    print(f"{name_of(book, index)}: {'nothing happened to it yet.' if not trail else ''}".rstrip(" "))
    print("\n".join(_aligned([_step(book, at, event) for _, at, event in trail], left=True)))
    return 0


def _step(book: Book, at: str, event: Event) -> list[str]:
    """When, what, by whom, and what else is known."""
    what = _DONE.get(event.kind, printable(event.kind))
    if event.kind in ("labeled", "relabeled", "answered"):
        what += f" {label_text(book, event.value)}"
    elif event.kind == "reverted":
        before = json.loads(event.value or "{}")
        label = f" {label_text(book, before['value'])}" if before.get("status") == "labeled" else ""
        what += f", again {_AGAIN.get(str(before.get('status')), '?')}{label}"
    more = [] if event.round is None else [f"round {event.round}"]
    if event.kind == "asked":
        more += [f"rank {event.rank}"] if event.rank is not None else []
        more += [f"score {event.score:g}"] if event.score is not None else []
        more += [f"by {printable(event.strategy)}"] if event.strategy else []
    if event.said is not None:
        more.append(f"said {event.said}")
    return [at[:19] + "Z", what, printable(event.who or ""), ", ".join(more)]


_AGAIN = {"labeled": "labelled", "asked": "waiting", "ignored": "ignored", "pool": "in the pool"}


def _cell(value: Any) -> str:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return "-"
    return f"{value:.4g}" if isinstance(value, float) else printable(str(value))


def _aligned(rows: Sequence[Sequence[str]], *, left: bool = False) -> list[str]:
    """Columns of equal width: numbers to the right, or text to the left."""
    wide = [max(map(len, column)) for column in zip(*rows, strict=True)]
    side = "<" if left else ">"
    return [
        "  ".join(f"{cell:{side}{n}}" for cell, n in zip(row, wide, strict=True)).rstrip() for row in rows
    ]


HISTORY = Command(
    "Show the rounds of a run, or all that happened to one sample",
    "STATE_DIR [--csv PATH | --sample INDEX_OR_ID]",
    "lightning-al history runs/digits --csv rounds.csv\nlightning-al history runs/digits --sample 17",
    _add_history,
    _history,
)


# ---------------------------------------------------------------------- plot


def _add_plot(parser: ArgumentParser) -> None:
    parser.add_argument("state_dir", type=str, nargs="+", metavar="STATE_DIR", help="Folders of ledgers.")
    parser.add_argument(
        "--to", type=str, required=True, metavar="PATH", help="The picture: .png, .svg, .pdf."
    )
    parser.add_argument(
        "--metric",
        type=str,
        default=None,
        help="Column of the history; by default its first test metric.",
    )


def _plot(options: Any) -> int:
    from lightning_al.history import COLUMNS, History
    from lightning_al.plotting import learning_curves

    path = Path(options.to)
    check_target(path, "the picture", folders=options.state_dir)
    runs: dict[str, list[History]] = {}
    for folder in options.state_dir:
        history, strategy = History.of(folder), Book(folder).status().strategy
        runs.setdefault(strategy or Path(folder).name, []).append(history)
    columns = [
        name for history in next(iter(runs.values())) for name in history.columns if name not in COLUMNS
    ]
    metric = options.metric or next(
        (name for name in columns if "acc" in name), columns[0] if columns else None
    )
    if metric is None:
        raise ValueError(
            f"{options.state_dir[0]} has no test metrics; needed is one to draw. Give the data module a "
            "`test_set` and log a metric in `test_step`, or name a column: `--metric label_entropy`."
        )
    figure, kind = learning_curves(runs, metric), path.suffix[1:].lower()
    if kind not in figure.canvas.get_supported_filetypes():
        raise ValueError(
            f"{path} ends in {path.suffix!r}, which is no kind of picture; needed is one that can be drawn, "
            "such as .png, .svg or .pdf. Name a file such as curves.png."
        )
    with replacing(path, "The picture", keep_old=True) as part:
        figure.savefig(part, format=kind)
    print(f"{options.to}: {metric} of {sum(map(len, runs.values()))} runs.")
    return 0


PLOT = Command(
    "Draw a test metric against the number of labels",
    "STATE_DIR [STATE_DIR ...] --to PATH [--metric NAME]",
    "lightning-al plot runs/digits --to curves.png --metric test_acc",
    _add_plot,
    _plot,
    more="Several runs of one strategy become a median with its quartiles. Needs lightning-al[plot].",
)

"""COMMAND LINE: `lightning-al`, what can be done with a state directory from a shell, and `fit-rounds`.

    arguments -> [main] -> one command -> Book, Ledger, exchange; fit_rounds

commands.py    which commands there are; parsing.py their arguments and help
looking.py     status, history, plot
exchanging.py  export, import, push, pull
changing.py    undo, relabel, ignore
keeping.py     verify, backup, release
fit_rounds.py  training, with LightningCLI
compare.py     strategies against each other, likewise; these two commands alone import torch
"""

from __future__ import annotations

import io
import os
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Do what the command line says.

    Args:
        arguments: Without the program's name; default those of this process.

    Returns:
        The exit code: 0 done, 1 refused or damaged, 130 after Ctrl-C; wrong arguments end with 2.

    Raises:
        SystemExit: After help, and for wrong arguments.
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    for stream in (sys.stdout, sys.stderr):  # what was done is done, whatever letters a terminal lacks
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    try:
        import jsonargparse  # noqa: F401
    except ModuleNotFoundError as error:
        return _said(
            f"{error.name} is not installed; the command line needs it. `pip install lightning-al[cli]`"
        )
    try:
        return _run(given)
    except KeyboardInterrupt:
        return _interrupted(given)
    except SystemExit as end:
        if not _is_of_ctrl_c(end):
            raise
        return _interrupted(given)
    except BrokenPipeError:  # whoever read the output has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def _is_of_ctrl_c(end: SystemExit) -> bool:
    """Whether a Trainer was interrupted: it takes the `KeyboardInterrupt`, and exits with 1."""
    return end.code == 1 and isinstance(end.__context__, KeyboardInterrupt)


def _interrupted(arguments: list[str]) -> int:
    """Say of a training that Ctrl-C ended it, by rank 0 alone; the exit code that a shell has for that."""
    book = sys.modules.get("lightning_al.data.book")  # whoever stops the start does not wait for torch
    is_writer = getattr(book, "is_writer", None)
    if arguments[:1] in (["fit-rounds"], ["compare"]) and (is_writer is None or is_writer()):
        said = "stopped by Ctrl-C; no label is lost, and the same command goes on."
        print(f"lightning-al: {said}", file=sys.stderr)
    return 130


def _run(arguments: list[str]) -> int:
    from lightning_al.exchange.refusal import RefusedAnswers
    from lightning_al.ledger.connection import LedgerError

    try:
        if arguments[:1] == ["fit-rounds"]:
            from lightning_al.cli.fit_rounds import train

            return train(arguments[1:])
        if arguments[:1] == ["compare"]:
            from lightning_al.cli.compare import run

            return run(arguments[1:])
        from lightning_al.cli.commands import COMMANDS
        from lightning_al.cli.parsing import parsed

        name, options = parsed(arguments, COMMANDS)
    except (LedgerError, RefusedAnswers) as error:  # what else a training raises keeps its traceback
        return _said(error)
    except ValueError as error:
        if not _is_of_a_file(error):
            raise
        return _said(error)
    try:
        code = COMMANDS[name].run(options)
        sys.stdout.flush()
    except BrokenPipeError:
        raise
    except (LedgerError, ValueError, TypeError, IndexError, OSError, ModuleNotFoundError) as error:
        return _said(error)
    except RuntimeError as error:
        if type(error).__name__ != "LabelStudioError":  # not imported for its name alone
            raise
        return _said(error)
    return code


def _is_of_a_file(error: ValueError) -> bool:
    """Whether a file of answers was refused as a whole: no table, another encoding."""
    frames = traceback.extract_tb(error.__traceback__)
    return bool(frames) and (Path(__file__).parents[1] / "exchange") in Path(frames[-1].filename).parents


#: What messages advise in Python, and what it is from here.
_FROM_HERE = {
    "Pass `overwrite=True`": "Give `--overwrite`",
    "pass `accept_changes=True`": "give `--data.accept_changes true`",
    "only `overwrite` brings": "only `--overwrite` brings",
    "`lightning-al import --overwrite`, in Python `import_labels(overwrite=True)`,": "`import --overwrite`",
    "Import it by `import_export(": "Import it in Python, by `import_export(",
}


def _said(what: object) -> int:
    text = str(what)
    for python, shell in _FROM_HERE.items():
        text = text.replace(python, shell)
    print(f"lightning-al: error: {text}", file=sys.stderr)
    return 1

"""PARSING: the arguments of the commands, and what `--help` says of them.

COMMANDS -> [parsed] -> the name of one, and its options
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from jsonargparse import ArgumentParser, DefaultHelpFormatter, Namespace

import lightning_al
from lightning_al.cli.mistakes import OneMessage

__all__ = ["Command", "parsed"]

_DESCRIPTION = """Active learning from the shell: what a run asked for, who labelled what, labels out and in.

A run is named by its state directory (`state_dir=` of ActiveDataModule). All commands but fit-rounds and
compare work on the ledger that is there; they need neither the data set nor torch."""
_EXAMPLE = """Example:
  lightning-al status runs/digits
  lightning-al export runs/digits --to query.csv
  lightning-al import runs/digits query.csv --who Ada

`lightning-al COMMAND --help` says more. Exit codes: 0 done, 1 refused or damaged, 2 wrong arguments."""


@dataclass(frozen=True)
class Command:
    """A command.

    Args:
        what: In a line, for the list of commands.
        usage: Its arguments.
        example: One use of it, or several.
        add: Adds its arguments to a parser.
        run: Does it, and returns the exit code.
        more: What else its help says.
    """

    what: str
    usage: str
    example: str
    add: Callable[[ArgumentParser], None]
    run: Callable[[Any], int]
    more: str = ""


class _Help(DefaultHelpFormatter, argparse.RawDescriptionHelpFormatter):
    """Descriptions keep their lines; usages are ours, since argparse puts the state directory last."""

    def _expand_help(self, action: argparse.Action) -> str:
        text = re.sub(
            r"type: Literal\[[^\]]*\](, )?", "", super()._expand_help(action)
        )  # the metavar has them
        return re.sub(r",? ?default: null", "", text).replace(" ()", "")

    def _format_usage(self, usage: Any, actions: Any, groups: Any, prefix: Any) -> str:
        text = super()._format_usage(usage, actions, groups, prefix)
        return text.replace("lightning-al [options] ", "lightning-al ")


def parsed(arguments: Sequence[str], commands: Mapping[str, Command]) -> tuple[str, Namespace]:
    """Which command, and its options.

    Raises:
        SystemExit: After help, with 0; for wrong arguments, with 2.
    """
    parser = OneMessage(
        prog="lightning-al", usage="lightning-al COMMAND STATE_DIR ...", description=_DESCRIPTION,
        epilog=_EXAMPLE, formatter_class=_Help, version=lightning_al.__version__, allow_abbrev=False,
    )  # fmt: skip
    subcommands = parser.add_subcommands(
        dest="command", metavar="COMMAND", title="commands", prog="lightning-al"
    )
    parser.commands = {name: _parser(name, command) for name, command in commands.items()}
    for name, command in commands.items():
        subcommands.add_subcommand(name, parser.commands[name], help=command.what)
    found = parser.parse_args(list(arguments))
    return found.command, found[found.command]


def _parser(name: str, command: Command) -> ArgumentParser:
    parser = OneMessage(
        usage=f"lightning-al {name} {command.usage}", epilog=f"Example:\n{_indented(command.example)}",
        description="\n\n".join(filter(None, [f"{command.what}.", command.more])), formatter_class=_Help,
        allow_abbrev=False,  # `--token` is no `--token-file`
    )  # fmt: skip
    command.add(parser)
    return parser


def _indented(text: str) -> str:
    return "\n".join(f"  {line}" for line in text.splitlines())

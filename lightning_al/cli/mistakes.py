"""MISTAKES: what jsonargparse says of a wrong argument in ten lines, in one: what was given, what is needed.

its message -> [in_one_line] -> `OneMessage.error`, which ends the program
"""

from __future__ import annotations

import difflib
import re
import sys
from collections.abc import Collection, Mapping, Sequence
from typing import NoReturn

from jsonargparse import ArgumentParser

__all__ = ["OneMessage", "in_one_line"]

_PASSED_OVER = re.compile(
    r"Does not validate against any|Subtypes:|Errors:|Given value type:|Given value:"
    r"|Expected a <class 'NoneType'>|Expected a path but .* either not accessible or invalid"
)
_GIVEN = re.compile(r"^ *Given value: (.*)$|\. Got value: (.*)$|Not of type \w+: (.*) does not conform", re.M)
_IN_FILE = re.compile(r"(?:Group '([^']+)' does not accept o|O)ption '([^']+)'(?: is not accepted)?")
_NEEDED = (
    (re.compile(r"Expected an? (?:typing\.)?Literal\[([^\]]*)\].*"), r"one of \1"),
    (re.compile(r"Expected an? <class 'int'>.*"), "a whole number"),
    (re.compile(r"Expected an? <class 'float'>.*"), "a number"),
    (re.compile(r"Expected an? <class 'bool'>.*"), "true or false"),
    (re.compile(r"Expected an? dot import path string.*"), "the import path of a class or a function"),
    (re.compile(r"Expected an? <class '(?:.*\.)?(\w+)'>.*"), r"a \1"),
    (re.compile(r"Not of type \w+: .* does not conform to restriction v(.*)"), r"a number \1"),
)


class OneMessage(ArgumentParser):
    """A parser whose errors are short, and are about the command that was given."""

    #: The parsers of the commands, where this one is of them all.
    commands: Mapping[str, ArgumentParser] = {}

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Say it, and end with 2."""
        command, missing = _missing(message)
        parser = self.commands.get(command, self)
        if missing:
            names = ", ".join(_shown(parser, name) for name in missing)
            ArgumentParser.error(parser, f"{names}: not given, and needed. The usage shows where.", ex)
        unknown = _unknown(message)
        if unknown:
            super().error(_not_there(unknown, self._option_string_actions), ex)
        super().error(in_one_line(message), ex)


def _missing(message: str) -> tuple[str, list[str]]:
    """Which arguments are not there, and of which command, if the message is of that."""
    start, _, names = message.partition("arguments are required: ")
    if not names or start not in ("", "the following "):
        return "", []
    found = names.split(", ")
    command = found[0].partition(".")[0]
    return command, found


def _shown(parser: ArgumentParser, name: str) -> str:
    """As the usage has it."""
    for action in parser._actions:
        if action.dest in (name, name.partition(".")[2]):
            return action.option_strings[-1] if action.option_strings else str(action.metavar or action.dest)
    return f"--{name}"


def _unknown(message: str) -> list[str]:
    """The arguments that the program has not, if the message is of that."""
    in_file = _IN_FILE.fullmatch(message)
    if in_file is not None:
        return [f"--{'.'.join(filter(None, in_file.groups()))}"]
    start, _, given = message.partition("unrecognized arguments: ")
    words = given.split()
    options = [word.partition("=")[0] for word in words if word.startswith("-")]
    return [] if start else options or words


def _not_there(given: Sequence[str], options: Collection[str]) -> str:
    """What is wrong with arguments that there are not, and which are nearly called so."""
    if not given[0].startswith("-"):
        return f"{given[0]!r} is more than is needed; needed are the arguments that the usage shows."
    near = [difflib.get_close_matches(name, options, n=1) for name in given]
    meant = [names[0] for names in near if names]
    hint = f" Do you mean {' and '.join(meant)}?" if meant else ""
    return f"{', '.join(given)}: not an argument; needed is one that `--help` lists.{hint}"


def in_one_line(message: str) -> str:
    r"""What was given and what is needed, of a message about a value; others as they are.

    Args:
        message: Of jsonargparse.

    Example:
        >>> print(in_one_line('Parser key "project":\n  Expected a <class \'int\'>. Got value: five'))
        --project is 'five'; needed is a whole number.
    """
    both = re.fullmatch(r"argument (\S+): not allowed with argument (\S+)", message)
    if both is not None:
        return f"{both[2]} and {both[1]} are both given; needed is one of them."
    key = re.match(r'Parser key "([^"]+)":\s*', message)
    if key is None:
        return message
    lines = [line.strip().removeprefix("- ") for line in message[key.end() :].splitlines()]
    said = [line for line in lines if line and not _PASSED_OVER.match(line)]
    needed, other = list[str](), list[str]()
    for line in said:
        for pattern, text in _NEEDED:
            if pattern.fullmatch(line):
                needed.append(pattern.sub(text, line))
                break
        else:
            other.append(line)
    given = _GIVEN.search(message)
    value = next((group for group in given.groups() if group is not None), "") if given else ""
    if other:
        return f"--{key[1]}: {' '.join(other)}"
    what = " or ".join(dict.fromkeys(needed)) or "another value"
    return f"--{key[1]} is {value[:200]!r}; needed is {what}.{_meant(value)}"


def _meant(value: str) -> str:
    """A strategy that is nearly named so."""
    acquisition = sys.modules.get("lightning_al.acquisition")
    near = difflib.get_close_matches(value, getattr(acquisition, "__all__", ()), n=1)
    return f" Do you mean {near[0]}?" if near and near[0] != value else ""

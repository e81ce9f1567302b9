"""COMMANDS: which there are, in the order of the help."""

from __future__ import annotations

from typing import Any

from jsonargparse import ArgumentParser

from lightning_al.cli.changing import IGNORE, RELABEL, UNDO
from lightning_al.cli.exchanging import EXPORT, IMPORT, PULL, PUSH
from lightning_al.cli.keeping import BACKUP, RELEASE, VERIFY
from lightning_al.cli.looking import HISTORY, PLOT, STATUS
from lightning_al.cli.parsing import Command

__all__ = ["COMMANDS"]


def _no_arguments(parser: ArgumentParser) -> None:
    """Those of `fit-rounds` and `compare` are read by LightningCLI, which needs torch."""


def _elsewhere(options: Any) -> int:
    raise TypeError("the command comes first: lightning-al fit-rounds --config run.yaml")


_FIT_ROUNDS = Command(
    "Train, ask, label, train again: fit_rounds from a YAML file and flags",
    "--config run.yaml ...",
    "lightning-al fit-rounds --config run.yaml",
    _no_arguments,
    _elsewhere,
)

_COMPARE = Command(
    "Run strategies against each other, and say what labels they save",
    "--config compare.yaml ...",
    "lightning-al compare --config compare.yaml",
    _no_arguments,
    _elsewhere,
)

COMMANDS: dict[str, Command] = {
    "fit-rounds": _FIT_ROUNDS, "compare": _COMPARE, "status": STATUS, "history": HISTORY, "plot": PLOT,
    "export": EXPORT, "import": IMPORT, "push": PUSH, "pull": PULL, "undo": UNDO, "relabel": RELABEL,
    "ignore": IGNORE, "verify": VERIFY, "backup": BACKUP, "release": RELEASE,
}  # fmt: skip

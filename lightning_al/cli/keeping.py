"""KEEPING: verify, backup and release: the ledger itself."""

from __future__ import annotations

import socket
from datetime import UTC, datetime
from typing import Any

from jsonargparse import ArgumentParser

from lightning_al.cli.looking import add_state_dir
from lightning_al.cli.parsing import Command
from lightning_al.ledger.checking import check
from lightning_al.ledger.connection import LedgerError
from lightning_al.ledger.ledger import Ledger
from lightning_al.ledger.record import ledger_at

__all__ = ["BACKUP", "RELEASE", "VERIFY"]


def _verify(options: Any) -> int:
    checked = check(ledger_at(options.state_dir).path)
    print(checked)
    return 0 if checked.is_whole else 1


VERIFY = Command(
    "Check the whole chain of digests; where it is broken, find the newest good backup",
    "STATE_DIR",
    "lightning-al verify runs/digits",
    add_state_dir,
    _verify,
    more="Changes nothing. Ends with 1 if the ledger is damaged, and shows the commands that put the backup\n"
    "in its place.",
)


def _backup(options: Any) -> int:
    ledger = ledger_at(options.state_dir)
    ledger.verify()
    path = ledger.backup(f"by_hand_{datetime.now(UTC):%Y%m%dT%H%M%S%fZ}")
    print(f"{path}: {Ledger(path).verify():,} events.")
    return 0


BACKUP = Command(
    "Copy the ledger to STATE_DIR/backups, and check the copy",
    "STATE_DIR",
    "lightning-al backup runs/digits",
    add_state_dir,
    _backup,
    more="A run makes a copy before every training and keeps the newest three; those made by hand stay.",
)


def _add_release(parser: ArgumentParser) -> None:
    add_state_dir(parser)
    parser.add_argument(
        "--force",
        action="store_true",
        help="Also where a run on another host held it, which you know is dead.",
    )


def _release(options: Any) -> int:
    ledger = ledger_at(options.state_dir)
    holder = ledger.holder()
    if holder is None:
        print("No run holds the ledger.")
        return 0
    if holder.may_live and holder.host == socket.gethostname():
        raise LedgerError(
            f"{holder}, and it lives; two runs must not write one ledger. Wait for it or end it: `--force` "
            "is for runs that are dead and cannot be asked."
        )
    ledger.release(force=options.force)
    print(f"Released: process {holder.pid} on {holder.host} held it since {holder.since}.")
    return 0


RELEASE = Command(
    "Let other runs write, after a run died that held the ledger",
    "STATE_DIR [--force]",
    "lightning-al release runs/digits --force",
    _add_release,
    _release,
)

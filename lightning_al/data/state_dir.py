"""STATE DIR: a fresh numbered folder for a run that was given none."""

from __future__ import annotations

from pathlib import Path

from lightning_al.ledger.ledger import LedgerError

__all__ = ["fresh_folder"]

_HOME = "lightning_al_runs"


def fresh_folder() -> Path:
    """Make the first `lightning_al_runs/run_<number>` in the working directory that is not there.

    Raises:
        LedgerError: If it cannot be made.
    """
    home = Path(_HOME).absolute()
    number = 1
    while True:
        folder = home / f"run_{number:04d}"
        try:
            folder.mkdir(parents=True)
        except FileExistsError:
            number += 1
        except OSError as error:
            raise LedgerError(
                f"{folder} cannot be made ({error}); labels must be on disk before training goes on. "
                "Pass a `state_dir` that can be written."
            ) from error
        else:
            return folder

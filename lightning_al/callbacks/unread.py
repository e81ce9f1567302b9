"""UNREAD: the checkpoint of a fit that ends, since samples wait for labels, before Lightning has read it.

AwaitingLabels -> which checkpoint the fit was given -> its copy of the labels -> `snapshot.compare`

People must not be asked again for labels that an older copy of the ledger lacks.
"""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.fabric.utilities.cloud_io import get_filesystem

from lightning_al.data import ActiveDataModule, LedgerError
from lightning_al.data.snapshot import compare, snapshot_in
from lightning_al.together import agree

__all__ = ["check_unread"]

#: What Lightning calls the part of a checkpoint in parts that holds all but tensors.
_OF_PARTS = "meta.pt"


def check_unread(trainer: L.Trainer, data: ActiveDataModule, ended: BaseException) -> None:
    """Hold the checkpoint that the fit was to go on from against the ledger; all processes come here.

    Args:
        trainer: Of the fit.
        data: Its data module.
        ended: What the fit ended with.

    Raises:
        LedgerError: If labels are missing in the ledger, on all processes.
    """
    snapshot = agree(lambda: _snapshot(*_given(trainer, ended)))
    if snapshot is None:
        return
    try:
        compare(snapshot, data.book.state, data.state_dir, goes_on=False)
    except LedgerError as error:
        data.let_go()
        raise error from None


def _given(trainer: L.Trainer, ended: BaseException) -> tuple[Any, bool]:
    """The checkpoint of a fit, and whether code in it may run.

    `Trainer.ckpt_path` has it only when it is read, after all hooks that could ask; who was to read it,
    with "last" and "best" looked up, is in what the error came through.
    """
    place = ended.__traceback__
    while place is not None:
        inside = place.tb_frame.f_locals
        if place.tb_frame.f_code.co_name == "_run" and inside.get("self") is trainer:
            # Releases that have no such argument run it, and so does one that was told to.
            return inside.get("ckpt_path"), inside.get("weights_only", False) is False
        place = place.tb_next
    return None, False


def _snapshot(path: Any, may_run: bool) -> dict[str, Any] | None:
    """The copy of the labels in a checkpoint; `None` where there is none, or Lightning will say why not."""
    if not path:
        return None
    parts = Path(path) / _OF_PARTS
    file = str(parts if parts.exists() else path)
    try:
        try:
            checkpoint = _read(file, weights_only=True)
        except pickle.UnpicklingError:  # hyperparameters of classes, say
            if not may_run:
                return None
            checkpoint = _read(file, weights_only=False)
    except Exception:  # gone, cut short, of another program: the fit says so when it comes to read it
        return None
    return snapshot_in(checkpoint)


def _read(file: str, *, weights_only: bool) -> Any:
    with get_filesystem(file).open(file, "rb") as stream:
        return torch.load(stream, map_location="cpu", weights_only=weights_only)

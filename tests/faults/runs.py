"""One run to be disturbed: digits of it are the same wherever it is started and however often."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any

import torch
from integration.small import Net, blobs, margin, pool, queries, quiet
from lightning.pytorch.callbacks import ModelCheckpoint

from lightning_al import History, Ledger, fit_rounds

ROUNDS = 3
TIMES = ("train_s", "score_s", "select_s")


class Slowed(Net):
    """Writes what it is at to a file, and takes its time there."""

    slow_at: str = ""
    notes: Path | None = None

    def _at(self, place: str) -> None:
        if place == self.slow_at and self.notes is not None:
            self.notes.write_text(place)
            time.sleep(300)

    def training_step(self, batch, batch_idx):
        if self.trainer.datamodule.state.last_round == 1:
            self._at("training")
        return super().training_step(batch, batch_idx)

    def active_step(self, batch, batch_idx):
        if self.trainer.datamodule.state.last_round == 1 and self.trainer.global_step:
            self._at("scoring")  # not the rehearsal of it
        return self(batch[0])


def seeded(seed: int) -> Slowed:
    """A module whose weights are a function of the seed."""
    torch.manual_seed(seed)
    return Slowed()


def trainer(number: int) -> Any:
    """With a checkpoint every epoch."""
    checkpoint = ModelCheckpoint(save_top_k=-1, filename="{epoch}")
    return quiet(max_epochs=3, enable_checkpointing=True, callbacks=[checkpoint])


def run(state_dir: Path, *, resume: str = "restart", module: Any = seeded, **options: Any) -> History:
    """Three rounds of 8 from 12 labels, tested."""
    data = pool(state_dir, test_set=blobs(21, 1), **options)
    return fit_rounds(module, trainer, data, margin(), rounds=ROUNDS, resume=resume)


def known(state_dir: Path) -> tuple[dict[int, list[int]], list[dict[str, Any]]]:
    """Everything a finished run has that must not depend on what happened on the way."""
    ledger = Ledger(Path(state_dir) / "ledger.sqlite3")
    rows = [{k: v for k, v in row.items() if k not in TIMES} for row in ledger.rounds()]
    return queries(state_dir), rows


def main(state_dir: str, slow_at: str) -> None:
    """A run in a session of its own, slow at one place until it was told about the interruption."""
    os.setsid()
    # A shell starts what is to run in the background deaf to Ctrl-C.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    notes = Path(state_dir).with_suffix(".at")
    told = Path(state_dir).with_suffix(".told")
    Slowed.slow_at, Slowed.notes = ("" if told.exists() else slow_at), notes
    labels = blobs().tensors[1]

    def oracle(indices):
        if slow_at == "labelling" and not told.exists() and len(indices) == 8:
            notes.write_text(slow_at)
            time.sleep(300)
        return [int(labels[i]) for i in indices]

    options: dict[str, Any] = {"oracle": oracle} if slow_at == "labelling" else {}
    if slow_at == "training":
        options |= {"num_workers": 1, "loader_options": {"multiprocessing_context": "fork"}}
    run(Path(state_dir), **options)

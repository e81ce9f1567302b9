"""Ranks that were started at once by somebody else, and begin with `fit_rounds`: nobody is connected yet."""

import os
import sys
from pathlib import Path

import lightning as L
import numpy as np
import torch
import torch.distributed as dist
from integration.small import Net, blobs, margin, pool, quiet
from lightning.pytorch.callbacks import ModelCheckpoint

from distributed.launch import note
from distributed.scenes import committee_rounds, seeded
from lightning_al import ActiveLearning, fit_rounds
from lightning_al import acquisition as acq

HIDDEN = [Path(folder) for folder in os.environ.get("HIDDEN", "").split(os.pathsep) if folder]


def hide() -> None:
    """Folders of other ranks are not there, as on a machine of its own."""

    def check(path):
        if isinstance(path, str | bytes | os.PathLike):
            whole = Path(os.path.abspath(os.fsdecode(path)))
            if any(whole.is_relative_to(folder) for folder in HIDDEN):
                raise FileNotFoundError(f"{path} is on another machine")

    def stat(path, *args, **kwargs):
        check(path)
        return true_stat(path, *args, **kwargs)

    def hears(event, args):
        if event in ("open", "os.mkdir", "os.listdir", "os.scandir", "os.rename", "sqlite3.connect"):
            check(args[0])

    true_stat, os.stat = os.stat, stat
    sys.addaudithook(hears)


class BestIsFirst(Net):
    """Its metric is best after the first epoch, so that the best weights are not the last ones."""

    def on_train_epoch_end(self):
        self.log("worse", float(self.current_epoch), sync_dist=True)


def first(seed):
    torch.manual_seed(seed)
    return BestIsFirst()


def best(options, rounds, **more):
    """Scored and tested with the best weights; the next round begins with the last ones."""
    data = pool(Path("best"), test_set=blobs(21, 1))

    def trainer(number):
        return quiet(enable_checkpointing=True, callbacks=[ModelCheckpoint(monitor="worse")], **options)

    active = margin(score_with="best", restart="warm")
    return fit_rounds(first, trainer, data, active, rounds=rounds, **more)


def given(options):
    """Vectors in a file that every rank has."""
    np.save("given.npy", np.random.default_rng(0).normal(size=(60, 5)).astype(np.float32))
    active = ActiveLearning(acq.CoreSet(embeddings="given.npy"), query_size=8)
    data = pool(Path("given"), spill_bytes=0)
    fit_rounds(seeded, lambda r: quiet(**options), data, active, rounds=1)


def drop_in(options):
    """Repeated fits in a folder that rank 0 makes."""
    data = pool(None)
    trainer = quiet(callbacks=[margin()], **options)
    for _ in range(2):
        trainer.fit(seeded(), datamodule=data)
    note("drop_in", data.labeled_indices.tolist(), of=dist.get_rank())


if __name__ == "__main__":
    hide()
    options = {"strategy": "ddp", "devices": 2}
    if sys.argv[2] == "nodes":
        options |= {"devices": 1, "num_nodes": 2}
    if sys.argv[1] == "drop_in":
        drop_in(options)
        sys.exit()
    L.seed_everything(7)
    if int(sys.argv[1]) > 2:
        best(options, int(sys.argv[1]) - 1)  # nothing is left to do there
    history = best(options, int(sys.argv[1]))
    own = dist.get_rank()
    rows = [{k: v for k, v in row.items() if not k.endswith("_s") and v == v} for row in history]
    note("best", rows, of=own)
    if sys.argv[1] == "2":
        given(options)
        rows = committee_rounds(Path("committee"), test=True, **options)
        note("committee", [row["test_acc"] for row in rows], of=own)
        drop_in(options)

"""One of several runs that are started at once and numbered, as in a SLURM sweep: each is one of its own."""

import os
import sys
from pathlib import Path

from integration.small import blobs, margin, pool, quiet
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger
from lightning.pytorch.plugins.environments import LightningEnvironment

from distributed.launch import note
from distributed.scenes import seeded
from lightning_al import fit_rounds


def by_rounds(folder, **options):
    """Of fresh Trainers, with checkpoints and a log."""

    def trainer(number):
        given = {"logger": CSVLogger(folder, "log"), "enable_checkpointing": True, **options}
        return quiet(callbacks=[ModelCheckpoint()], **given)

    fit_rounds(seeded(), trainer, pool(folder / "run", test_set=blobs(21, 1)), margin(), rounds=2)


def by_fits(folder, **options):
    """Repeated ones, in a folder of whose ledger labels are given before there is a Trainer."""
    data = pool(folder / "run")
    first, second, third = data.pool_indices[:3].tolist()
    data.label([first, second], [0, 1])
    data.ignore([third])
    data.unlabel([second])
    data.label([second], [2])
    trainer = quiet(callbacks=[margin()], **options)
    for _ in range(2):
        trainer.fit(seeded(), datamodule=data)


WAYS = {"rounds": by_rounds, "fits": by_fits}

if __name__ == "__main__":
    WAYS[sys.argv[1]](Path(), **({"plugins": [LightningEnvironment()]} if "plugin" in sys.argv else {}))
    note("done", True, of=int(os.environ["SLURM_PROCID"]))

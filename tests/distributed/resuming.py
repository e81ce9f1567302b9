"""Ranks without a disk in common whose training is stopped in a round, and goes on from its checkpoint."""

import sys
from functools import partial
from pathlib import Path

import lightning as L
import torch.distributed as dist
from integration.small import blobs, margin, pool, quiet, weights
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.strategies import ModelParallelStrategy

from distributed.launch import note
from distributed.outside import hide
from distributed.passes import Sharded
from distributed.scenes import seeded
from lightning_al import fit_rounds


class Seen(L.Callback):
    """Which epochs are made in each round, and what they begin with; all ranks stop in the second round."""

    def __init__(self, number, into, stops):
        self.number, self.into, self.stops = number, into, stops

    def on_train_epoch_start(self, trainer, module):
        begun = weights(module) if not isinstance(trainer.strategy, ModelParallelStrategy) else [0.0]
        self.into.append([self.number, trainer.current_epoch, [round(float(w), 5) for w in begun]])

    def on_train_epoch_end(self, trainer, module):
        if self.stops and self.number == 1 and trainer.current_epoch == 1:
            raise ArithmeticError("stopped")


def run(model, strategy, *, stops):
    """Two rounds of three epochs."""
    seen = []

    def make(number):
        # The newest is of the first epoch when the second ends.
        callbacks = [ModelCheckpoint(), Seen(number, seen, stops)]
        return quiet(
            devices=2, strategy=strategy(), max_epochs=3, enable_checkpointing=True, callbacks=callbacks
        )

    error = None
    data = pool(Path("run"), test_set=blobs(21, 1))
    try:
        fit_rounds(model(), make, data, margin(), rounds=1, resume="checkpoint")
    except Exception as failed:
        error = f"{type(failed).__name__}: {failed}"
    return {"seen": seen, "error": error, "labeled": len(data.labeled_indices)}


if __name__ == "__main__":
    hide()
    stops = sys.argv[1] == "stop"
    if sys.argv[2] == "file":
        found = run(seeded, lambda: "ddp", stops=stops)
    else:
        parts = partial(ModelParallelStrategy, data_parallel_size=2, tensor_parallel_size=1)
        found = run(Sharded, parts, stops=stops)
    note("found", found, of=dist.get_rank())

"""Several processes, each with a device of its own: the ranks write down what they saw."""

import sys
from functools import partial
from pathlib import Path

import torch
import torch.distributed as dist
from distributed import sharded
from distributed.launch import note
from distributed.scenes import STRATEGIES, AskAll, Headed, drifted, rounds, scored_once
from integration.small import pool, quiet

from gpu.devices import IS_GPU

ACCELERATOR = "gpu" if IS_GPU else "cpu"


class AskThere(AskAll):
    """With buffers that are on the device too."""

    def on_train_end(self, trainer, module):
        drifted(module).seen = torch.ones(1 + trainer.global_rank, device=module.device)
        for name, make in STRATEGIES.items():
            self.found[name] = self.asked(make, trainer, module)


def frozen_queries(folder, **options):
    torch.manual_seed(0)
    module, asks = Headed(), AskThere()
    module.configure_model()
    trainer = quiet(max_epochs=1, callbacks=[asks], **options)
    trainer.fit(module, datamodule=pool(folder, size=113, pool_batch_size=8))
    return asks.found


def main(what, world):
    options = {"devices": world, "accelerator": ACCELERATOR}
    if what == "ddp":
        options["strategy"] = "ddp"
        note("queries", frozen_queries(Path("frozen"), **options))
        note("once", scored_once(Path("once"), world, **options))
        note("rounds", rounds(Path("rounds"), test=True, **options))
    else:
        sharded.quiet = partial(quiet, accelerator=ACCELERATOR)
        note("queries", sharded.queries(Path("queries"), world))
        note("restarts", sharded.restarts(Path("restarts"), world))
    if dist.is_initialized():
        note("backend", dist.get_backend())


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))

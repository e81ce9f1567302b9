"""Several processes, and all goes well: the ranks write down what they saw."""

import sys
from pathlib import Path

import torch.distributed as dist
from integration.small import Net, Validated, blobs, margin, pool, quiet, weights
from lightning.pytorch.callbacks import ModelCheckpoint

from distributed.launch import note
from distributed.scenes import (
    Sometimes,
    committee_rounds,
    frozen_queries,
    rounds,
    scored_once,
    seeded,
    wrong_targets,
)
from lightning_al import (
    ActiveDataModule,
    ClassBalance,
    MCDropout,
    StablePredictions,
    TargetMetric,
    fit_rounds,
)


def everything(options):
    note("scored", scored_once(Path("scored"), options["devices"], **options))
    seen, data = wrong_targets(Path("wrong"), **options)
    note("seen", seen)
    note("wrong_digest", data.state.digest())
    note("rounds", rounds(Path("rounds"), test=True, **options))
    note("committee", committee_rounds(Path("committee"), test=True, **options))
    dropping = margin(test_posterior=MCDropout(4, consistent=False))
    tested = pool(Path("tested"), test_set=blobs(21, 1))
    history = fit_rounds(
        lambda seed: seeded(dropout=0.3), lambda r: quiet(**options), tested, dropping, rounds=1
    )
    note("tested", history.column("test_acc"))
    again = pool(Path("rounds"), test_set=blobs(21, 1))
    note("again", list(fit_rounds(seeded, lambda r: quiet(**options), again, margin(), rounds=2)))
    more = pool(Path("rounds"), test_set=blobs(21, 1))
    note("more", len(fit_rounds(seeded, lambda r: quiet(**options), more, margin(), rounds=3)))
    sometimes = ActiveDataModule(
        blobs(), unlabeled_set=blobs(30, 5), oracle=Sometimes(), batch_size=4, state_dir="sometimes"
    )
    history = fit_rounds(seeded, lambda r: quiet(**options), sometimes, margin(), rounds=2)
    note("sometimes", history.column("labeled"))
    people = ActiveDataModule(
        blobs(), unlabeled_set=blobs(30, 5), oracle="people", batch_size=4, state_dir="people"
    )
    note("people", len(fit_rounds(seeded, lambda r: quiet(**options), people, margin(), rounds=2)))
    note("best", best(pool(Path("best")), options))
    note("stopped", stopped(pool(Path("stopped"), val_set=blobs(9, 2)), options))


def best(data, options):
    """The weights that were scored, and those that training ended with and were put back."""
    module = BestIsFirst()
    checkpoint = ModelCheckpoint(monitor="worse")
    options = {**options, "max_epochs": 3, "enable_checkpointing": True}
    trainer = quiet(callbacks=[checkpoint, margin(score_with="best")], **options)
    trainer.fit(module, datamodule=data)
    return [weights(module).tolist(), module.ended, module.scored, data.state.digest()]


def stopped(data, options):
    """Rounds that end by what rank 0 logged, and by predictions; their labels are watched."""
    stop = [TargetMetric("mine", 20), StablePredictions(1.0, samples=50)]
    watch = ClassBalance(reference=[1, 1, 1])
    return list(
        fit_rounds(
            lambda seed: Unsynced(), lambda r: quiet(callbacks=[watch], **options), data, margin(),
            rounds=3, stop=stop,
        )
    )  # fmt: skip


class Unsynced(Validated):
    """Its metric is another one on every rank: by that of rank 1 no label would ever be asked for."""

    def validation_step(self, batch, batch_idx):
        super().validation_step(batch, batch_idx)
        count = len(self.trainer.datamodule.labeled_indices)
        self.log("mine", float(count + 100 * self.trainer.global_rank), on_epoch=True)


class BestIsFirst(Net):
    """Its metric is best after the first epoch."""

    def on_train_epoch_end(self):
        self.log("worse", float(self.current_epoch), sync_dist=True)
        self.ended = weights(self).tolist()

    def active_step(self, batch, batch_idx):
        self.scored = weights(self).tolist()
        return self(batch[0])


if __name__ == "__main__":
    devices = int(sys.argv[1])
    options = {"devices": devices, "strategy": "ddp"}
    note("frozen", frozen_queries(Path("frozen"), **options))
    if len(sys.argv) > 2:
        everything(options)
    note("world_size", dist.get_world_size())

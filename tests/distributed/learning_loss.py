"""Learning Loss on two processes: pairs are those of a rank; the head, and how it is judged, one for all."""

import sys
from pathlib import Path

import torch
from integration.small import FEATURES, Net, blobs, pool, quiet
from torch import nn
from torch.utils.data import DataLoader

from distributed.launch import note, rank
from lightning_al import ActiveLearning, LearningLossMixin, LearningLossOptions, fit_rounds
from lightning_al import acquisition as acq

#: 13 a rank, the last batch of one.
HELD_OUT = blobs(26, 3)


class Predicting(LearningLossMixin, Net):
    """Batches of one sample now and then, and no pass over the head in validation."""

    learning_loss_layers = ("net.0", "net.2")
    learning_loss_options = LearningLossOptions(detach_after=1)

    def training_step(self, batch, batch_idx):
        x, y = batch
        if batch_idx == 1:
            x, y = x[:1], y[:1]
        return self.learning_loss(nn.functional.cross_entropy(self(x), y, reduction="none"))

    def on_train_start(self):
        self.begun = head_of(self)


class Forgetful(Predicting):
    """Never teaches its head."""

    def training_step(self, batch, batch_idx):
        return self(batch[0]).sum()


class Sometimes(Predicting):
    """Teaches it in its first step only."""

    def training_step(self, batch, batch_idx):
        return self(batch[0]).sum() if batch_idx else super().training_step(batch, batch_idx)


class WarmUp(Predicting):
    """Teaches it in all but its first step."""

    def training_step(self, batch, batch_idx):
        return super().training_step(batch, batch_idx) if batch_idx else self(batch[0]).sum()


class Judged(Predicting):
    """Says how it ranks what it has not seen."""

    learning_loss_options = LearningLossOptions(log_ranking=True)

    def validation_step(self, batch, batch_idx):
        x, y = batch
        self.learning_loss(nn.functional.cross_entropy(self(x), y, reduction="none"))


def judged():
    """A module, and what its last validation logged."""
    trainer = quiet(devices=2, strategy="ddp")
    module = Judged()
    trainer.fit(module, DataLoader(blobs(40), 4), DataLoader(HELD_OUT, 4))
    names = ["val_loss_ranking_accuracy", "val_loss_spearman", "train_ranking_loss_epoch"]
    return module, [float(trainer.callback_metrics[name]) for name in names]


def head_of(module):
    """All weights of the head."""
    return [round(float(w), 5) for p in module.loss_head.parameters() for w in p.detach().flatten()[:5]]


def predictions(module):
    """Of some samples."""
    x = torch.arange(12.0).reshape(3, FEATURES)
    with module.eval().predicting_loss(), torch.no_grad():
        module(x)
        return module.predicted_loss(3).tolist()


def rounds(strategy, model):
    """Two fits."""
    data = pool(Path(strategy) / type(model).__name__)
    active = ActiveLearning(acq.LearningLoss(), query_size=8)
    return list(fit_rounds(model, lambda r: quiet(devices=2, strategy=strategy), data, active, rounds=1))


if __name__ == "__main__":
    strategy = sys.argv[1]
    torch.manual_seed(0)
    module = Predicting()
    note("rows", [{k: v for k, v in row.items() if v == v} for row in rounds(strategy, module)])
    note("head", head_of(module))
    note("begun", getattr(module, "begun", None))
    note("predictions", predictions(module))
    if strategy == "ddp":
        for kind in (Forgetful, Sometimes):
            try:
                rounds("ddp", kind())
            except RuntimeError as error:
                note(kind.__name__, str(error))
        warm = WarmUp()
        trainer = quiet(devices=2, strategy="ddp_find_unused_parameters_true", max_epochs=1)
        trainer.fit(warm, DataLoader(blobs(24), 4))
        note("warm", [bool(warm.loss_head.learned), trainer.global_step])
        module, logged = judged()
        note("judged", logged)
        torch.save(module.state_dict(), f"judged_{rank()}.pt")

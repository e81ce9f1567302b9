"""What is run on one process and on several, and must come out the same."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import torch
from integration.small import CLASSES, FEATURES, Net, blobs, margin, pool, quiet
from torch.utils.data import Dataset

from distributed.launch import rank
from lightning_al import (
    ActiveDataModule,
    ActiveLearning,
    Committee,
    LearningLossMixin,
    MCDropout,
    fit_rounds,
)
from lightning_al import acquisition as acq
from lightning_al.inference import scoring
from lightning_al.querying import choose

#: Given by data set index, to every rank.
GIVEN = torch.randn(113, 6, generator=torch.Generator().manual_seed(5))
PASSES = MCDropout(6)

STRATEGIES = {
    "random": lambda: acq.Random(),
    "entropy": lambda: acq.Entropy(),
    "least_confidence": lambda: acq.LeastConfidence(),
    "margin": lambda: acq.Margin(),
    "hyperplane_distance": lambda: acq.HyperplaneDistance(),
    "power": lambda: acq.PowerSampling(acq.Entropy(), beta=2.0),
    "softmax": lambda: acq.PowerSampling(acq.Margin(), form="softmax"),
    "softrank": lambda: acq.PowerSampling(acq.LeastConfidence(), form="softrank"),
    "bald": lambda: acq.BALD(PASSES),
    "bald_independent": lambda: acq.BALD(MCDropout(6, consistent=False)),
    "variation_ratio": lambda: acq.PowerSampling(acq.VariationRatio(MCDropout(5))),
    "mean_std": lambda: acq.MeanSTD(PASSES),
    "vote_entropy": lambda: acq.VoteEntropy(PASSES),
    "vote_margin": lambda: acq.VoteMargin(PASSES),
    "consensus_kl": lambda: acq.ConsensusKL(PASSES),
    "predictive_variance": lambda: acq.PredictiveVariance(PASSES),
    "committee": lambda: acq.BALD(Committee(models=[apart(1), apart(2)])),
    "committee_by_blocks": lambda: acq.BALD(Committee(models=[apart(1), apart(2)])),
    "batch_bald": lambda: acq.BatchBALD(PASSES, num_joint_samples=500),
    "batch_bald_half": lambda: half(acq.BatchBALD)(PASSES, num_joint_samples=500),
    "learning_loss": lambda: acq.LearningLoss(),
    "core_set": lambda: acq.CoreSet(),
    "core_set_cosine": lambda: acq.CoreSet(metric="cosine"),
    "core_set_half": lambda: half(acq.CoreSet)(),
    "core_set_given": lambda: acq.CoreSet(embeddings=GIVEN),
    "core_set_given_cosine": lambda: acq.CoreSet(embeddings=GIVEN, metric="cosine"),
    "core_set_given_half": lambda: acq.CoreSet(embeddings=GIVEN.bfloat16()),
    "badge": lambda: acq.BADGE(),
    "badge_random": lambda: acq.BADGE(first="random"),
    "badge_half": lambda: half(acq.BADGE)(),
    "diverse": lambda: acq.DiverseMiniBatch(beta=3),
    "diverse_around": lambda: acq.DiverseMiniBatch(beta=3, around_labeled=True),
    "diverse_half": lambda: half(acq.DiverseMiniBatch)(beta=3, around_labeled=True),
    "diverse_given": lambda: acq.DiverseMiniBatch(beta=3, embeddings=GIVEN, around_labeled=True),
    "balanced": lambda: acq.ClassBalanced(acq.Margin()),
    "balanced_as_in_the_pool": lambda: acq.ClassBalanced(acq.BALD(PASSES), shares="pool"),
    "balanced_random": lambda: acq.ClassBalanced(acq.Random(), shares=[3, 2, 1]),
    "balanced_core_set": lambda: acq.ClassBalanced(acq.CoreSet()),
    "balanced_core_set_given": lambda: acq.ClassBalanced(acq.CoreSet(embeddings=GIVEN)),
    "balanced_badge": lambda: acq.ClassBalanced(acq.BADGE()),
    "balanced_power": lambda: acq.ClassBalanced(acq.PowerSampling(acq.Entropy())),
    "two_stage": lambda: acq.TwoStage(acq.Margin(), then=acq.CoreSet(), keep=40),
    "two_stage_bald": lambda: acq.TwoStage(
        acq.BALD(PASSES), then=acq.BatchBALD(PASSES, num_joint_samples=500), keep=0.4
    ),
    "two_stage_given": lambda: acq.TwoStage(acq.Entropy(), then=acq.CoreSet(embeddings=GIVEN), keep=40),
}  # fmt: skip


def seeded(seed: int = 0, **options: Any) -> Net:
    """A module with the same weights everywhere."""
    torch.manual_seed(seed)
    return Net(**options)


def apart(seed: int) -> Net:
    """A member of a committee, whose buffers are others on every rank."""
    member = seeded(seed, batch_norm=True)
    member.net[1].running_mean.normal_()
    return drifted(member)


def drifted(module: Any) -> Any:
    """As after the last forward under `ddp`: every rank but the first has buffers of its own."""
    for buffer in module.buffers():
        buffer.copy_(buffer.roll(rank()))
    return module


def half(strategy: type[acq.Acquisition]) -> type[acq.Acquisition]:
    """The same, which keeps bfloat16 of a sample."""

    class Half(strategy):
        def summarize(self, outputs):
            return {name: rows.bfloat16() for name, rows in super().summarize(outputs).items()}

    return Half


class Headed(LearningLossMixin, Net):
    """Its head has seeded weights; it has statistics, a buffer outside of checkpoints, and one that grows."""

    learning_loss_layers = ("net.0", "net.2")
    example_input_array = torch.zeros(2, FEATURES)

    def __init__(self) -> None:
        super().__init__(lr=0.0, dropout=0.3, batch_norm=True)
        self.net[1].momentum = 0.0
        self.net[1].running_mean.normal_()
        self.register_buffer("order", torch.arange(FEATURES).flip(0), persistent=False)
        self.register_buffer("seen", torch.ones(1))

    def forward(self, x):
        return super().forward(x[:, self.order] - self.seen.sum())

    def training_step(self, batch, batch_idx):
        x, y = batch
        return self.learning_loss(torch.nn.functional.cross_entropy(self(x), y, reduction="none"))


class AskAll(L.Callback):
    """What every strategy asks for when a fit ends, and its scores, of all of the pool and of one block."""

    def __init__(self) -> None:
        self.found: dict[str, dict[str, Any]] = {}

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        drifted(pl_module).seen = torch.ones(1 + trainer.global_rank)
        before = [(buffer, buffer.clone()) for buffer in pl_module.buffers()]
        for name, make in STRATEGIES.items():
            with sums_of_one_block() if name == "committee_by_blocks" else nullcontext():
                self.found[name] = self.asked(make, trainer, pl_module)
        for name in (
            "core_set",
            "badge",
            "diverse_around",
            "two_stage",
            "batch_bald",
            "core_set_given",
            "balanced_core_set",
        ):
            trainer.datamodule.spill_bytes = 0
            self.found[f"{name}_in_a_file"] = self.asked(STRATEGIES[name], trainer, pl_module)
        after = list(pl_module.buffers())
        assert all(
            new is old and torch.equal(new, kept) for new, (old, kept) in zip(after, before, strict=True)
        )

    def asked(self, make: Any, trainer: L.Trainer, module: L.LightningModule) -> dict[str, Any]:
        data = trainer.datamodule
        query = choose(make(), trainer, module, data, 20)
        few = choose(make(), trainer, module, data, 5, candidates=7)
        return {
            "indices": query.indices.tolist(), "scores": query.scores.tolist(),
            "few": few.indices.tolist(), "few_scores": few.scores.tolist(),
        }  # fmt: skip


def frozen_queries(folder: Path, **trainer_options: Any) -> dict[str, dict[str, Any]]:
    """What every strategy asks for, and its scores, from weights that training does not change."""
    torch.manual_seed(0)
    module, asks = Headed(), AskAll()
    module.configure_model()
    data = pool(folder, size=113, pool_batch_size=8)
    quiet(max_epochs=1, callbacks=[asks], **trainer_options).fit(module, datamodule=data)
    return asks.found


@contextmanager
def sums_of_one_block() -> Iterator[None]:
    """As if the sums of a committee over more than a block were too large to keep."""
    before, scoring._KEPT_BYTES = scoring._KEPT_BYTES, 1
    try:
        yield
    finally:
        scoring._KEPT_BYTES = before


def scored_once(folder: Path, world_size: int, **trainer_options: Any) -> dict[str, Any]:
    """Which samples of pools of all odd sizes this rank forwarded; and what was asked."""
    found = {}
    for size in sorted({0, 1, world_size - 1, world_size, world_size + 1, 101}):

        class Watched(Net):
            def active_step(self, batch, batch_idx):
                if self.trainer.global_step:  # not in the rehearsal
                    self.seen += batch[0][:, 3].long().tolist()
                return self(batch[0])

        samples = blobs(12 + size)
        samples.tensors[0][:, 3] = torch.arange(12 + size)
        data = ActiveDataModule(
            samples, initial=range(12), batch_size=4, pool_batch_size=1 if size < 10 else 8,
            state_dir=folder / str(size),
        )  # fmt: skip
        module = Watched(batch_norm=True)
        module.seen = []
        active = ActiveLearning(acq.Margin(), query_size=5)
        quiet(max_epochs=1, callbacks=[active], **trainer_options).fit(module, datamodule=data)
        asked = [] if active.last_query is None else active.last_query.indices.tolist()
        found[str(size)] = {"seen": module.seen, "asked": asked, "digest": data.state.digest()}
    return found


class Wrong(Dataset):
    """Unlabelled samples with targets of their own, all of them wrong; the first feature is the index."""

    def __init__(self, first: int, size: int, shift: int) -> None:
        self.first, self.size, self.shift = first, size, shift

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, index: int):
        number = self.first + index
        x = torch.randn(4, generator=torch.Generator().manual_seed(number))
        x[0] = number
        return x, (number + self.shift) % CLASSES


class Recorder(Net):
    """Keeps which label came with which sample."""

    seen: dict[int, int]

    def training_step(self, batch, batch_idx):
        x, y = batch
        self.seen.update(zip(x[:, 0].long().tolist(), y.tolist(), strict=True))
        return torch.nn.functional.cross_entropy(self(x / 50), y)


def wrong_targets(state_dir: Path, **trainer_options: Any) -> tuple[dict[int, int], ActiveDataModule]:
    """Three rounds in the drop-in way, with workers."""
    module = Recorder()
    module.seen = {}
    data = ActiveDataModule(
        Wrong(0, 12, 0), unlabeled_set=Wrong(12, 38, 1), oracle=truth, batch_size=3, num_workers=1,
        state_dir=state_dir,
    )  # fmt: skip
    trainer = quiet(max_epochs=1, callbacks=[margin(budget=28)], **trainer_options)
    for _ in range(3):
        trainer.fit(module, datamodule=data)
    return module.seen, data


def truth(indices: np.ndarray) -> list[int]:
    """Labels of `Wrong` as they should be."""
    return [int(i) % CLASSES for i in indices]


def rounds(state_dir: Path, *, test: bool, **trainer_options: Any) -> list[dict[str, Any]]:
    """Two queries by `fit_rounds`."""
    data = pool(state_dir, **({"test_set": blobs(21, 1)} if test else {}))
    history = fit_rounds(seeded, lambda r: quiet(**trainer_options), data, margin(), rounds=2)
    return list(history)


class EnoughError(Exception):
    """The rest would only take time."""


def committee_rounds(
    state_dir: Path, *, test: bool, last: int = 1, **trainer_options: Any
) -> list[dict[str, Any]]:
    """One query by two members."""

    def make(number: int) -> Any:
        if number > last:
            raise EnoughError
        return quiet(**trainer_options)

    data = pool(state_dir, **({"test_set": blobs(21, 1)} if test else {}))
    active = ActiveLearning(acq.BALD(Committee(2)), query_size=8)
    return list(fit_rounds(seeded, make, data, active, rounds=1))


class Sometimes:
    """An oracle that does not know at once: only at every second time of asking."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, indices: np.ndarray) -> list[int | None]:
        self.calls += 1
        return [None] * len(indices) if self.calls % 2 else truth(indices)

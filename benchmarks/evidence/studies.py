"""STUDIES: what is compared on which data, and how every run is made.

Study -> [run] -> `compare`, in runs/evidence/<study> -> Comparison
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import lightning as L
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from benchmarks.evidence.data import Samples, Source, pad, read_images, read_questions, read_x_rays
from benchmarks.evidence.models import Classifier, ProcessorTime, Settings, TextLayers, image_layers
from lightning_al import ActiveDataModule, Committee, Comparison, MCDropout, compare
from lightning_al import acquisition as acq

__all__ = ["DEFAULTS", "STUDIES", "Study", "indices_of", "quick", "run", "tune"]

#: Seeds of the choice of settings, which no run uses again; training samples that it is judged on, at most a
#: quarter of all.
TUNING_SEEDS, HELD_OUT = (100, 101), 1_000


@dataclass(frozen=True)
class Study:
    """Strategies against each other on one data set.

    Args:
        name: Of its folder and files.
        title: What it is called in tables.
        read: From the folder of all data to the data set.
        layers: From the data set to a fresh network.
        strategies: By name; `Random` is among them.
        settings: Of the training, chosen once by `tune`, on random sampling.
        tried: What it was chosen among.
        metric: That areas and regrets are of.
        initial: Labels of round 0, drawn at random.
        query_size: Labels a round.
        rounds: Queries a run.
        pool: Training samples, drawn by the seed; `None`: all.
        extra: Strategies that are told of apart: the rule for the default does not look at them.
        collate: Makes a batch; `None`: torch's own.
        pool_batch_size: Samples a batch in scoring.
    """

    name: str
    title: str
    read: Callable[[Path], Source]
    layers: Callable[[Source], nn.Module]
    strategies: Mapping[str, acq.Acquisition]
    settings: Settings
    tried: Sequence[Settings]
    metric: str
    initial: int
    query_size: int
    rounds: int = 10
    pool: int | None = None
    extra: Mapping[str, acq.Acquisition] = field(default_factory=dict)
    collate: Callable[[list[Any]], Any] | None = None
    pool_batch_size: int = 500

    @property
    def all_strategies(self) -> dict[str, acq.Acquisition]:
        """Those compared and the extra ones."""
        return {**self.strategies, **self.extra}


def indices_of(study: Study, source: Source, seed: int) -> Tensor:
    """Training samples that a run of this seed learns from: index i of its data set is the i-th of these."""
    order = torch.randperm(len(source.train), generator=torch.Generator().manual_seed(seed))
    return order[: study.pool]


# ---------------------------------------------------------------------- how a run is made


class _Data(ActiveDataModule):
    """Tested in larger batches than it is trained in."""

    def test_dataloader(self) -> DataLoader[Any]:
        return DataLoader(self.test_set, self.pool_batch_size, collate_fn=self.collate_fn)


def run(
    study: Study, source: Source, state_dir: Path, *, seeds: int, workers: int | None, progress: bool = True
) -> Comparison:
    """All runs that are missing; then what came of all."""

    def make_data(seed: int, folder: Path) -> ActiveDataModule:
        return _data(study, source.train.part(indices_of(study, source, seed)), source, seed, folder)

    return _compare(study, source, study.all_strategies, make_data, state_dir, seeds, workers, progress)


def tune(study: Study, source: Source, state_dir: Path, *, workers: int | None) -> list[dict[str, Any]]:
    """The area of random sampling with every setting, on training samples that are held out.

    The test set is not looked at, nor any seed of a later run.
    """
    found = []
    for settings in study.tried:
        tried = replace(study, settings=settings, rounds=2, query_size=study.query_size * study.rounds // 2)

        def make_data(seed: int, folder: Path, tried: Study = tried) -> ActiveDataModule:
            order = torch.randperm(len(source.train), generator=torch.Generator().manual_seed(seed))
            rest = len(order) - min(HELD_OUT, len(order) // 4)
            held_out = replace(source, test=source.train.part(order[rest:]))
            return _data(tried, source.train.part(order[:rest][: tried.pool]), held_out, seed, folder)

        folder = state_dir / f"{settings.steps}-{settings.learning_rate}-{settings.weight_decay}"
        comparison = _compare(
            tried, source, {"Random": acq.Random()}, make_data, folder, TUNING_SEEDS, workers, False
        )
        (row,) = comparison.summary(study.metric)
        seconds = [row["processor_s"] for row in comparison.rows]
        found.append(
            {
                "study": study.name, "steps": settings.steps, "learning_rate": settings.learning_rate,
                "weight_decay": settings.weight_decay, "metric": study.metric,
                "aubc": round(row["aubc"], 4), "at_the_end": round(row["final"], 4),
                "processor_s_a_round": round(sum(seconds) / len(seconds), 2),
                "chosen": settings == study.settings,
            }
        )  # fmt: skip
    return found


def _data(study: Study, train: Samples, source: Source, seed: int, folder: Path) -> ActiveDataModule:
    return _Data(
        train, test_set=source.test, initial=study.initial, batch_size=study.settings.batch_size,
        pool_batch_size=study.pool_batch_size, steps_per_epoch=study.settings.steps, seed=seed,
        state_dir=folder, collate_fn=study.collate, class_names=source.class_names,
    )  # fmt: skip


def _compare(
    study: Study,
    source: Source,
    strategies: Mapping[str, acq.Acquisition],
    make_data: Callable[[int, Path], ActiveDataModule],
    state_dir: Path,
    seeds: int | Sequence[int],
    workers: int | None,
    progress: bool,
) -> Comparison:
    def make_model(seed: int) -> Classifier:
        torch.manual_seed(seed)
        return Classifier(study.layers(source), len(source.class_names), study.settings)

    return compare(
        strategies, make_model, _make_trainer, make_data, query_size=study.query_size, rounds=study.rounds,
        seeds=seeds, state_dir=state_dir, workers=workers, progress=progress,
    )  # fmt: skip


def _make_trainer(number: int) -> L.Trainer:
    return L.Trainer(
        max_epochs=1, accelerator="cpu", devices=1, logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, callbacks=[ProcessorTime()],
    )  # fmt: skip


def quick(study: Study) -> Study:
    """So small that it says nothing, but whole."""
    settings = replace(study.settings, steps=3, batch_size=8)
    tried = tuple(replace(one, steps=3 + n, batch_size=8) for n, one in enumerate(study.tried[:2]))
    return replace(study, settings=settings, tried=tried, query_size=10, initial=10, rounds=2, pool=120)


# ---------------------------------------------------------------------- what there is

#: Each asks in a way of its own. All but BALD, which needs dropout, take any module that classifies; those of
#: embeddings take the input of its last linear layer.
DEFAULTS: dict[str, acq.Acquisition] = {
    "Random": acq.Random(),
    "Margin": acq.Margin(),
    "Entropy": acq.Entropy(),
    "PowerMargin": acq.PowerSampling(acq.Margin()),
    "BALD": acq.BALD(MCDropout(20)),
    "CoreSet": acq.CoreSet(),
    "DiverseMiniBatch": acq.DiverseMiniBatch(),
    "BADGE": acq.BADGE(),
}

_IMAGE_SETTINGS = tuple(Settings(steps, rate) for steps in (100, 200) for rate in (2e-3, 5e-3, 1e-2))
_TEXT_SETTINGS = tuple(Settings(steps, rate) for steps in (150, 300) for rate in (2e-3, 5e-3, 1e-2))
_CLOTHES = ["T-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "boot"]


def _of_images(source: Source) -> nn.Module:
    return image_layers(len(source.class_names))


def _of_text(source: Source) -> nn.Module:
    return TextLayers(source.words, len(source.class_names))


STUDIES: dict[str, Study] = {
    "mnist": Study(
        "mnist", "MNIST", partial(read_images, folder="mnist", class_names=[str(n) for n in range(10)]),
        _of_images,
        {
            "Random": acq.Random(),
            "BALD": acq.BALD(MCDropout(20)),
            "MaxEntropy": acq.Entropy(posterior=MCDropout(20)),
            "BALD, committee": acq.BALD(Committee(3)),
            "BatchBALD": acq.BatchBALD(MCDropout(50), candidates=500),
            "BADGE": acq.BADGE(),
        },
        Settings(100, 1e-2), _IMAGE_SETTINGS, "test_acc", initial=20, query_size=20, pool=5_000,
    ),
    "fashion_mnist": Study(
        "fashion_mnist", "Fashion-MNIST",
        partial(read_images, folder="fashion_mnist", class_names=_CLOTHES), _of_images, DEFAULTS,
        Settings(200, 5e-3), _IMAGE_SETTINGS, "test_acc", initial=40, query_size=40, pool=10_000,
    ),
    "trec": Study(
        "trec", "TREC", read_questions, _of_text, DEFAULTS, Settings(150, 1e-2), _TEXT_SETTINGS, "test_acc",
        initial=50, query_size=50, collate=pad,
    ),
    "pneumonia": Study(
        "pneumonia", "PneumoniaMNIST", read_x_rays, _of_images, DEFAULTS, Settings(100, 2e-3),
        _IMAGE_SETTINGS, "test_bal_acc", initial=20, query_size=20,
        extra={"ClassBalanced": acq.ClassBalanced(acq.Margin())},
    ),
}  # fmt: skip

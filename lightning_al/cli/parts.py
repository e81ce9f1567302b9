"""PARTS: what `fit-rounds` is put together from, and the arguments of each.

PARTS -> the parser of the whole command;  [parser_of] -> one of a single part, which makes that part alone
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable
from typing import Any, Literal

import lightning as L
from jsonargparse import DefaultHelpFormatter
from lightning.pytorch.cli import LightningArgumentParser
from torch.utils.data import Dataset

from lightning_al.callbacks import ActiveLearning
from lightning_al.cli.mistakes import OneMessage
from lightning_al.data import ActiveDataModule
from lightning_al.stopping import StopCriterion

__all__ = ["PARTS", "Brief", "Parser", "parser_of"]

_USAGE = "lightning-al fit-rounds --config run.yaml [--data.state_dir runs/mine] [--rounds 10] ..."
_SETS = {
    "train_set": "Samples with their labels, or without any where people label.",
    "val_set": "What is validated on.",
    "test_set": "What every round is tested on.",
    "query_view": "The samples of `train_set` without augmentation.",
    "unlabeled_set": "Further samples without labels.",
}
_FUNCTIONS = {
    "describe": "Import path of a function from an index to what an annotator sees.",
    "collate_fn": "Import path of a function from items to a batch.",
}


class Parser(OneMessage, LightningArgumentParser):
    """LightningCLI's, with messages of one line."""


class Brief(DefaultHelpFormatter):
    """Help without the names of all classes there are, of which a data set alone has some seventy."""

    def _expand_help(self, action: argparse.Action) -> str:
        return re.sub(r", known subclasses:[^)]*", "", super()._expand_help(action))

    def _format_usage(self, usage: Any, actions: Any, groups: Any, prefix: Any) -> str:
        return super()._format_usage(usage or _USAGE, actions, groups, prefix)


def _add_data(parser: LightningArgumentParser) -> None:
    group = parser.add_argument_group("Data sets, by import path")
    for name, what in _SETS.items():
        group.add_argument(f"--data.{name}", type=Dataset | None, default=None, help=what)
    for name, what in _FUNCTIONS.items():
        group.add_argument(f"--data.{name}", type=Callable | None, default=None, help=what)
    group.add_argument(
        "--data.oracle", type=Literal["dataset", "people"] | Callable, default="dataset",
        help="Who labels: the data set, which has the labels, people, or a function by its import path.",
    )  # fmt: skip
    group.add_argument(
        "--data.resolve", type=Literal["newest"] | Callable, default="newest",
        help="What becomes of several answers: the newest counts, or a function decides, by its import path.",
    )  # fmt: skip
    group.add_argument("--data.ids", type=list[str] | None, default=None, help="Stable names of the samples.")
    parser.add_class_arguments(
        ActiveDataModule,
        "data",
        skip={*_SETS, *_FUNCTIONS, "oracle", "resolve", "ids"},
        instantiate=False,  # or taken over from another one
    )


def _add_datamodule(parser: LightningArgumentParser) -> None:
    parser.add_argument(
        "--datamodule", type=L.LightningDataModule | None, default=None,
        help="In place of data sets: a data module of yours, whose data sets and loaders are taken over.",
    )  # fmt: skip


def _add_model(parser: LightningArgumentParser) -> None:
    parser.add_lightning_class_args(L.LightningModule, "model", subclass_mode=True)


def _add_active(parser: LightningArgumentParser) -> None:
    parser.add_class_arguments(ActiveLearning, "active")


def _add_trainer(parser: LightningArgumentParser) -> None:
    parser.add_lightning_class_args(L.Trainer, "trainer")


def _add_stop(parser: LightningArgumentParser) -> None:
    parser.add_argument(
        "--stop", type=StopCriterion | list[StopCriterion] | None, default=None,
        help="When to end before all rounds are done: a criterion such as Plateau, or a list of them.",
    )  # fmt: skip


PARTS = {
    "data": _add_data,
    "datamodule": _add_datamodule,
    "model": _add_model,
    "active": _add_active,
    "trainer": _add_trainer,
    "stop": _add_stop,
}


def parser_of(part: str) -> LightningArgumentParser:
    """The arguments of one part."""
    parser = LightningArgumentParser()
    PARTS[part](parser)
    return parser

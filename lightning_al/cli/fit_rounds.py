"""FIT-ROUNDS: `lightning_al.fit_rounds` from a YAML file and flags, as `LightningCLI` reads them.

YAML, flags -> data sets, module, Trainer of a round, each by class path -> `fit_rounds`
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Literal

import lightning as L
from jsonargparse import DefaultHelpFormatter, Namespace
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI, instantiate_class
from torch.utils.data import Dataset

from lightning_al.callbacks import ActiveLearning
from lightning_al.data import ActiveDataModule
from lightning_al.history import History
from lightning_al.rounds import fit_rounds

__all__ = ["run"]

_DESCRIPTION = """Train, ask, label, train again, until the budget is spent or labels are awaited from people.
The same command goes on where it stopped. Classes are given by their import path, as in LightningCLI:
`--model my_project.Net --data.train_set my_project.Digits --active.acquisition BADGE`; a YAML file says the
same: `--config run.yaml`. `--print_config` writes one to begin with."""
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


def run(arguments: Sequence[str]) -> History:
    """Do what the flags and files say.

    Args:
        arguments: Of the command line, after `fit-rounds`.

    Returns:
        The rounds that are finished.
    """
    return _Command(arguments).fit_rounds()


class _Brief(DefaultHelpFormatter):
    """Help without the names of all classes there are, of which a data set alone has some seventy."""

    def _expand_help(self, action: argparse.Action) -> str:
        return re.sub(r", known subclasses:[^)]*", "", super()._expand_help(action))

    def _format_usage(self, usage: Any, actions: Any, groups: Any, prefix: Any) -> str:
        return super()._format_usage(usage or _USAGE, actions, groups, prefix)


_PARSER = {"prog": "lightning-al fit-rounds", "description": _DESCRIPTION, "formatter_class": _Brief}


class _Command(LightningCLI):
    """What the arguments say. Nothing is made of it before it is needed: a round has a Trainer of its own."""

    def __init__(self, arguments: Sequence[str]) -> None:
        self.arguments = list(arguments)
        super().__init__(
            L.LightningModule, ActiveDataModule, save_config_callback=None, seed_everything_default=False,
            parser_kwargs=_PARSER, run=False,
        )  # fmt: skip

    # ------------------------------------------------------------------ arguments

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        """Those of this command, which are not all of `sys.argv`."""
        self.config = parser.parse_args(self.arguments)

    def add_core_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Every part, and how many rounds."""
        for add in _PARTS.values():
            add(parser)
        parser.add_argument("--rounds", type=int, required=True, help="How many queries.")
        parser.add_argument(
            "--resume", type=Literal["restart", "checkpoint"], default="restart",
            help="Where a round that was interrupted goes on: at its beginning, or at its newest checkpoint.",
        )  # fmt: skip

    def instantiate_classes(self) -> None:
        """Nothing yet."""

    # ------------------------------------------------------------------ what they amount to

    def fit_rounds(self) -> History:
        """Run."""
        L.seed_everything(self.config.data.seed, workers=True, verbose=False)
        data, active = self._data(), self._made("active")
        return fit_rounds(
            self._model, self._trainer, data, active, rounds=self.config.rounds, resume=self.config.resume
        )

    def _data(self) -> ActiveDataModule:
        """Of data sets, or of a data module that exists: what it says holds unless an argument does."""
        given = vars(self._made("data"))
        module = self._made("datamodule")
        if (given["train_set"] is None) == (module is None):
            raise ValueError(
                f"Of `data.train_set` and `datamodule` {'none is' if module is None else 'both are'} given; "
                "needed is one, as the import path of a class: `--data.train_set my_project.Digits`."
            )
        if module is None:
            return ActiveDataModule(**given)
        defaults = _parser_of("data").get_defaults().data
        said = {name: value for name, value in given.items() if value != defaults[name]}
        return ActiveDataModule.from_datamodule(module, **said)

    def _made(self, name: str) -> Any:
        """One part, made anew: the parser of all would make all."""
        parser = _parser_of(name)
        make = getattr(parser, "instantiate", None) or parser.instantiate_classes
        return make(Namespace({name: self.config[name]}).clone())[name]  # type: ignore[no-untyped-call]

    def _model(self, seed: int) -> L.LightningModule:
        """The module of a round; `--optimizer` and `--lr_scheduler` give it what it may lack."""
        L.seed_everything(seed, workers=True, verbose=False)
        module: L.LightningModule = self._made("model")
        optimizer, scheduler = (self.config.get(name) for name in ("optimizer", "lr_scheduler"))
        if optimizer:
            module.configure_optimizers = partial(  # type: ignore[method-assign]
                _optimizers, module, optimizer.as_dict(), scheduler.as_dict() if scheduler else None
            )
        return module

    def _trainer(self, number: int) -> L.Trainer:
        return L.Trainer(**self._made("trainer"))


def _optimizers(
    module: L.LightningModule, optimizer: dict[str, Any], scheduler: dict[str, Any] | None
) -> Any:
    """Made at every fit, not once a module: its state is the fit's."""
    made = instantiate_class(module.parameters(), optimizer)
    return LightningCLI.configure_optimizers(
        module, made, None if scheduler is None else instantiate_class(made, scheduler)
    )


# ---------------------------------------------------------------------- parts


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
    group.add_argument("--data.ids", type=list[str] | None, default=None, help="Stable names of the samples.")
    parser.add_class_arguments(
        ActiveDataModule,
        "data",
        skip={*_SETS, *_FUNCTIONS, "oracle", "ids"},
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


_PARTS = {
    "data": _add_data,
    "datamodule": _add_datamodule,
    "model": _add_model,
    "active": _add_active,
    "trainer": _add_trainer,
}


def _parser_of(part: str) -> LightningArgumentParser:
    parser = LightningArgumentParser()
    _PARTS[part](parser)
    return parser

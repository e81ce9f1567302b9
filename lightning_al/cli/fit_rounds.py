"""FIT-ROUNDS: `lightning_al.fit_rounds` from a YAML file and flags, as `LightningCLI` reads them.

YAML, flags -> data sets, module, Trainer of a round, each by class path -> `fit_rounds`
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal

import lightning as L
from jsonargparse import Namespace
from jsonargparse.typing import PositiveInt
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI, instantiate_class
from lightning.pytorch.strategies.launchers import _MultiProcessingLauncher
from lightning.pytorch.utilities.exceptions import SIGTERMException

from lightning_al.cli.parts import PARTS, Brief, Parser, parser_of
from lightning_al.cli.wrong_arguments import WrongArgumentError, arguments_of, told_by_the_run
from lightning_al.data import ActiveDataModule
from lightning_al.data.book import is_writer
from lightning_al.history import History
from lightning_al.ledger.waiting import AwaitingLabels
from lightning_al.rounds import fit_rounds
from lightning_al.together import gathered
from lightning_al.whole_file import replacing

__all__ = ["FitRounds", "run", "terminated", "train"]

_CONFIG = "fit_rounds.yaml"
#: As a shell has it of a process that SIGTERM ended.
_TERMINATED = 143

_DESCRIPTION = """Train, ask, label, train again, until the budget is spent or labels are awaited from people.
The same command goes on where it stopped. Classes are given by their import path, as in LightningCLI:
`--model my_project.Net --data.train_set my_project.Digits --active.acquisition BADGE`; a YAML file says the
same: `--config run.yaml`. `--print_config` writes one to begin with."""


def train(arguments: Sequence[str]) -> int:
    """The command: do what the flags and files say, and say what came of it.

    Args:
        arguments: Of the command line, after `fit-rounds`.

    Returns:
        The exit code: 0, also where labels are awaited from people; 143 after SIGTERM.

    Raises:
        SystemExit: With 2 for wrong arguments, after one message.
    """
    try:
        command = FitRounds(arguments)
        history = command.fit_rounds()
    except WrongArgumentError as error:
        print(f"lightning-al: error: {error}", file=sys.stderr)
        raise SystemExit(2) from None
    except AwaitingLabels:  # the data module has said so
        return 0
    except SIGTERMException:  # a SystemExit that says 0, which a scheduler would take for being done
        return terminated()
    if is_writer():
        last = f", the last on {history.rows[-1]['labeled']:,} labels" if len(history) else ""
        print(f"{len(history)} rounds are finished{last}{command.why_ended(history)}.")
    return 0


def terminated() -> int:
    """Say that a SIGTERM ended the command; the exit code that says so too."""
    if is_writer():
        said = "ended by SIGTERM; no label is lost, and the same command goes on."
        print(f"lightning-al: {said}", file=sys.stderr)
    return _TERMINATED


def run(arguments: Sequence[str]) -> History:
    """Do what the flags and files say.

    Args:
        arguments: Of the command line, after `fit-rounds`.

    Returns:
        The rounds that are finished.
    """
    return FitRounds(arguments).fit_rounds()


_PARSER = {
    "prog": "lightning-al fit-rounds",
    "description": _DESCRIPTION,
    "formatter_class": Brief,
    "allow_abbrev": False,  # `--trainer.max_epoch` is no `--trainer.max_epochs`
}


class FitRounds(LightningCLI):
    """What the arguments say. Nothing is made of it before it is needed: a round has a Trainer of its own.

    Args:
        arguments: Of the command line, after the command's name.
    """

    parser_options: Mapping[str, Any] = _PARSER
    seed_flag = "--data.seed"

    def __init__(self, arguments: Sequence[str]) -> None:
        self.arguments = list(arguments)
        self._is_kept = False
        super().__init__(
            L.LightningModule, ActiveDataModule, save_config_callback=None, seed_everything_default=False,
            parser_kwargs=dict(self.parser_options), parser_class=Parser, run=False,
        )  # fmt: skip

    # ------------------------------------------------------------------ arguments

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        """Those of this command, which are not all of `sys.argv`."""
        self.config = parser.parse_args(self.arguments)
        if self.config.seed_everything is not False:
            raise WrongArgumentError(
                f"--seed_everything is {self.config.seed_everything}, which no round is seeded from; needed "
                f"is the seed of the run. Give it as {self.seed_flag}."
            )

    def add_default_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """LightningCLI's seed is refused: every round is seeded from that of the data module."""
        parser.add_argument(
            "--seed_everything",
            type=bool | int,
            default=False,
            help=f"Not used; the seed is {self.seed_flag}.",
        )

    def add_core_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Every part, and how many rounds."""
        for add in PARTS.values():
            add(parser)
        parser.add_argument("--rounds", type=PositiveInt, required=True, help="How many queries.")
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
        with arguments_of("data"):
            self.data = data = self._data()
        with arguments_of("active"):
            active = self._made("active")
        with arguments_of("stop"):
            stop = self._made("stop")
        with told_by_the_run():
            history = fit_rounds(
                self._model, self._trainer, data, active, rounds=self.config.rounds,
                resume=self.config.resume, stop=stop,
            )  # fmt: skip
        self._keep_config()
        return history

    def why_ended(self, history: History) -> str:
        """Why there are fewer rounds than were asked for, to be said after how many there are."""
        if len(history) > self.config.rounds or not len(history):
            return ""
        if history.rows[-1].get("stopped"):
            return f"; stopped: {history.rows[-1]['stopped']}"
        if history.waiting:  # which has been said
            return ""
        if not len(self.data.pool_indices):
            return "; the pool is empty"
        budget = self.config.active.budget
        is_spent = budget is not None and len(self.data.labeled_indices) >= budget
        return f"; the budget of {budget:,} labels is spent" if is_spent else ""

    def _keep_config(self) -> None:
        """Write what was asked for beside the ledger, once this run may write there; an older one stays."""
        folder = self.config.data.state_dir
        if self._is_kept or folder is None or not is_writer():
            return
        self._is_kept = True
        path = Path(folder) / _CONFIG
        text = self.parser.dump(self.config, skip_none=False)
        if path.exists() and path.read_text(encoding="utf-8") == text:
            return
        with replacing(path, "The configuration", keep_old=True) as part:
            part.write_text(text, encoding="utf-8")

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
        defaults = parser_of("data").get_defaults().data
        said = {name: value for name, value in given.items() if value != defaults[name]}
        return ActiveDataModule.from_datamodule(module, **said)

    def _made(self, name: str) -> Any:
        """One part, made anew: the parser of all would make all."""
        parser = parser_of(name)
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
        with arguments_of("trainer"):
            trainer = L.Trainer(**self._made("trainer"))
        trainer.callbacks.append(_Terminated())  # type: ignore[attr-defined]
        self._keep_config()
        return trainer


class _Terminated(L.Callback):
    """Heeds a SIGTERM that came after the last batch: Lightning takes it, and looks between batches alone.

    On all ranks or on none, since one that ended alone would be waited for; and not in processes that end
    with the fit, whose parent waits for what they return.
    """

    def on_fit_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if isinstance(trainer.strategy.launcher, _MultiProcessingLauncher):
            return
        if any(gathered(lambda: trainer.received_sigterm)):
            raise SIGTERMException


def _optimizers(
    module: L.LightningModule, optimizer: dict[str, Any], scheduler: dict[str, Any] | None
) -> Any:
    """Made at every fit, not once a module: its state is the fit's."""
    made = instantiate_class(module.parameters(), optimizer)
    return LightningCLI.configure_optimizers(
        module, made, None if scheduler is None else instantiate_class(made, scheduler)
    )

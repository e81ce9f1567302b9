"""COMPARE: `lightning_al.compare` from a YAML file and flags, as `fit-rounds` is.

YAML, flags -> strategies, and what every run is made of -> `compare` -> tables, and pictures of them
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from jsonargparse import ArgumentParser, Namespace
from jsonargparse.typing import NonNegativeInt, PositiveInt
from lightning.pytorch.cli import LightningArgumentParser
from lightning.pytorch.utilities.exceptions import SIGTERMException

from lightning_al.acquisition import Acquisition
from lightning_al.cli.fit_rounds import FitRounds, terminated
from lightning_al.cli.mistakes import OneMessage
from lightning_al.cli.parts import PARTS, Brief
from lightning_al.cli.wrong_arguments import WrongArgumentError, arguments_of
from lightning_al.comparing import Comparison, FailedRunsError, compare
from lightning_al.comparing.penalties import Penalties
from lightning_al.data import ActiveDataModule

__all__ = ["run"]

_USAGE = "lightning-al compare --config compare.yaml [--seeds 5] [--workers 2] ..."
_DESCRIPTION = """Run every strategy with every seed, and say what may be said of them: labels saved against
random sampling, with intervals and tests by seed. The same command goes on where it stopped, and does what is
missing. What every run is made of is given as to fit-rounds; `strategies` are a list of classes, or a mapping
from names to them. `lightning-al compare --report --state_dir runs/comparison` tells of what there is."""

#: What a later call may change, for no result depends on it.
_OF_NO_EFFECT = frozenset((
    "data.state_dir", "data.seed", "data.num_workers", "data.on_existing", "data.pin_memory",
    "trainer.default_root_dir", "trainer.enable_checkpointing", "trainer.enable_model_summary",
    "trainer.enable_progress_bar", "trainer.log_every_n_steps", "trainer.logger", "trainer.profiler",
))  # fmt: skip

Strategies = list[Acquisition] | dict[str, Acquisition]


class _Brief(Brief):
    """With the usage of this command."""

    def _format_usage(self, usage: Any, actions: Any, groups: Any, prefix: Any) -> str:
        return super()._format_usage(usage or _USAGE, actions, groups, prefix)


def run(arguments: Sequence[str]) -> int:
    """The command: do what the flags and files say, and print what came of it.

    Args:
        arguments: Of the command line, after `compare`.

    Returns:
        The exit code: 1 if a run failed, 143 after SIGTERM.

    Raises:
        SystemExit: With 2 for wrong arguments, after one message.
    """
    try:
        if "--report" in arguments:
            _report([argument for argument in arguments if argument != "--report"])
        else:
            _run(arguments)
    except WrongArgumentError as error:
        print(f"lightning-al: error: {error}", file=sys.stderr)
        raise SystemExit(2) from None
    except SIGTERMException:  # of runs in this process (`--workers 0`), where Lightning takes it
        return terminated()
    except FailedRunsError as error:
        print(f"lightning-al: error: {error}", file=sys.stderr)
        if error.comparison is not None and error.comparison.ended:
            print(error.comparison)
        return 1
    return 0


def _add_telling(parser: ArgumentParser) -> None:
    parser.add_argument("--state_dir", type=str, required=True, help="Folder of all runs.")
    parser.add_argument(
        "--metric", type=str | None, default=None, help="Test metric; default: as before, or an accuracy."
    )
    parser.add_argument(
        "--target", type=float | None, default=None,
        help="What labels are counted to; default: what random sampling just reaches.",
    )  # fmt: skip
    parser.add_argument(
        "--higher_is_better", type=bool | None, default=None,
        help="Of the metric; default: unless its name speaks of a loss or an error.",
    )  # fmt: skip
    parser.add_argument("--figures", action="store_true", help="Draw pictures into the folder too.")


def _run(arguments: Sequence[str]) -> None:
    command = _Compare(arguments)
    comparison = command.compare()
    _tell(comparison, command.config)


def _report(arguments: Sequence[str]) -> None:
    parser = OneMessage(
        prog="lightning-al compare --report", description="Tell of what there is.", allow_abbrev=False
    )
    _add_telling(parser)
    parser.add_argument(
        "--rounds", type=PositiveInt | None, default=None,
        help="Look at so many queries of each run; default: at all that were asked for.",
    )  # fmt: skip
    options = parser.parse_args(list(arguments))
    with arguments_of("state_dir"):
        comparison = Comparison.load(options.state_dir, rounds=options.rounds)
    _tell(comparison, options)


def _tell(comparison: Comparison, options: Namespace) -> None:
    """As `_add_telling`'s flags say."""
    if not comparison.ended:
        raise WrongArgumentError(
            f"{comparison!r}: none to tell of. Let the command that runs them go on, or look at fewer "
            "rounds: `--report --rounds 1`."
        )
    with arguments_of("metric"):
        _print(comparison, options)


def _print(comparison: Comparison, options: Namespace) -> None:
    place, metric, higher = Path(options.state_dir), options.metric, options.higher_is_better
    target: Any = "random" if options.target is None else options.target
    print(comparison.summary(metric, target=target, higher_is_better=higher))
    penalties = _penalties(comparison, metric, higher)
    if len(comparison.seeds) > 1:
        print(f"\n{penalties}")
    comparison.write_csv(place / "table.csv")
    print(f"\nEvery round of every run: {place / 'table.csv'}")
    if options.figures:
        print(f"Pictures: {', '.join(str(path) for path in _draw(comparison, place, metric, penalties))}")


def _penalties(comparison: Comparison, metric: str | None, higher: bool | None) -> Penalties | str:
    """Or why there are none: the rest is to be told of nevertheless."""
    try:
        return comparison.penalties(metric, higher_is_better=higher)
    except ValueError as error:
        return f"No penalties: {error}"


def _draw(comparison: Comparison, place: Path, metric: str | None, penalties: Penalties | str) -> list[Path]:
    from lightning_al import plotting

    drawn = {
        "learning_curves": plotting.learning_curves(comparison, metric),
        "time_split": plotting.time_split(comparison),
    }
    if not isinstance(penalties, str):
        drawn["penalty_matrix"] = plotting.penalty_matrix(penalties)
    if all(table.classes is not None for table in comparison.tables):
        drawn["class_balance"] = plotting.class_balance_by_round(comparison)
    for name, figure in drawn.items():
        figure.savefig(place / f"{name}.png")
    return [place / f"{name}.png" for name in drawn]


class _Compare(FitRounds):
    """What the arguments say; a run's data module, module and Trainers are made in its process."""

    parser_options: Mapping[str, Any] = {
        "prog": "lightning-al compare",
        "description": _DESCRIPTION,
        "formatter_class": _Brief,
        "allow_abbrev": False,
    }
    seed_flag = "--seeds"

    def add_core_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Every part but the strategy, and what is compared."""
        for name, add in PARTS.items():
            if name not in ("active", "stop"):
                add(parser)
        _add_strategies(parser)
        parser.add_argument("--query_size", type=PositiveInt, required=True, help="Samples a round.")
        parser.add_argument("--rounds", type=PositiveInt, required=True, help="Queries a run.")
        parser.add_argument(
            "--seeds", type=PositiveInt | list[int], default=5, help="How many seeds, or which."
        )
        parser.add_argument("--candidates", type=PositiveInt | None, default=None, help="Samples scored.")
        parser.add_argument(
            "--restart", type=Literal["initial", "redraw", "shrink_perturb", "warm"], default="initial",
            help="What a round's training begins with.",
        )  # fmt: skip
        parser.add_argument(
            "--score_with", type=Literal["last", "best"], default="last", help="Which weights are scored."
        )
        parser.add_argument("--embedding_layer", type=str | None, default=None, help="Layer of embeddings.")
        parser.add_argument(
            "--workers", type=NonNegativeInt | None, default=None,
            help="Runs side by side; default: one a core, or 1 with a GPU.",
        )  # fmt: skip
        parser.add_argument(
            "--accept_changes", action="store_true", help="Add to runs that were made with other settings."
        )
        _add_telling(parser)

    def compare(self) -> Comparison:
        """Run."""
        config = self.config
        if config.data.state_dir is not None or config.data.seed != 0:
            raise WrongArgumentError(
                "--data: `state_dir` and `seed` are given, but every run has its own. Name the folder of all "
                "by --state_dir, and the seeds by --seeds."
            )
        with arguments_of():
            return compare(
                _made_strategies(config.strategies), self._model, self._trainer, self._data_of,
                query_size=config.query_size, rounds=config.rounds, seeds=config.seeds,
                state_dir=config.state_dir, candidates=config.candidates, restart=config.restart,
                score_with=config.score_with, embedding_layer=config.embedding_layer, workers=config.workers,
                metric=config.metric, made_with=self._made_with(), accept_changes=config.accept_changes,
            )  # fmt: skip

    def _made_with(self) -> dict[str, Any]:
        """What a run is made of, by the names of the flags."""
        said = json.loads(self.parser.dump(self.config, format="json", skip_none=False))
        parts = {name: said[name] for name in (*PARTS, "optimizer", "lr_scheduler") if name in said}
        return dict(_flat(parts))

    def _data_of(self, seed: int, folder: Path) -> ActiveDataModule:
        self.config.data.seed, self.config.data.state_dir = seed, str(folder)
        return self._data()

    def _keep_config(self) -> None:
        """The settings of a comparison are beside its runs."""


def _flat(settings: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in settings.items():
        if f"{before}{name}" in _OF_NO_EFFECT:
            continue
        if isinstance(value, Mapping):
            yield from _flat(value, f"{before}{name}.")
        else:
            yield f"{before}{name}", value


def _add_strategies(parser: LightningArgumentParser) -> None:
    parser.add_argument(
        "--strategies", type=Strategies, required=True, help="Classes, or a mapping from names to them."
    )


def _made_strategies(strategies: Any) -> Any:
    """Alone, as parts are: the parser of all would make all."""
    parser = LightningArgumentParser()
    _add_strategies(parser)
    make = getattr(parser, "instantiate", None) or parser.instantiate_classes
    return make(Namespace(strategies=strategies).clone()).strategies  # type: ignore[no-untyped-call]

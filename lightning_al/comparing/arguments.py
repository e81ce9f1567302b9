"""ARGUMENTS: what `compare` is given, named and checked before anything is run."""

from __future__ import annotations

import inspect
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
from lightning.pytorch.utilities.rank_zero import rank_zero_info

from lightning_al.acquisition import Acquisition, Random
from lightning_al.comparing.processes import workers_of
from lightning_al.comparing.settings import folder_of
from lightning_al.inference.committee import check_maker
from lightning_al.querying import check_acquisition

__all__ = ["check_functions", "count", "described", "folder", "metric_name", "named", "numbers"]


def named(strategies: Any) -> tuple[dict[str, Acquisition], str]:
    """By name, random sampling first; and which one that is.

    Raises:
        TypeError: If one is no strategy.
        ValueError: If there is none, or two have one name.
    """
    if (
        isinstance(strategies, Acquisition | str)
        or not isinstance(strategies, Mapping | Sequence)
        or not strategies
    ):
        raise ValueError(
            f"`strategies` is {strategies!r}; needed is a mapping from names to strategies, or a list of "
            "them. Pass `[acq.Margin(), acq.BADGE()]`."
        )
    pairs = list(strategies.items()) if isinstance(strategies, Mapping) else _by_class(strategies)
    for _, acquisition in pairs:
        check_acquisition(acquisition)
    names = [name for name, _ in pairs]
    folders = [folder_of(str(name)).casefold() for name in names]
    if len(set(folders)) < len(pairs) or not all(isinstance(name, str) and name for name in names):
        raise ValueError(
            f"The strategies are named {names}; needed is a name of its own for each, also in lower case. "
            'Pass a mapping: `{"Power 1": acq.PowerSampling(...), "Power 2": ...}`.'
        )
    baseline = next((name for name, acquisition in pairs if type(acquisition) is Random), None)
    if baseline is None:
        if "random" in folders:
            raise ValueError(
                "The strategy named 'Random' is another one, but random sampling is what all are measured "
                "against, under that name. Name yours differently."
            )
        rank_zero_info("compare: Random was added, which the others are measured against")
        baseline, pairs = "Random", [("Random", Random()), *pairs]
    return dict(sorted(pairs, key=lambda pair: pair[0] != baseline)), baseline


def _by_class(strategies: Sequence[Any]) -> list[tuple[str, Any]]:
    """The name of the class, or, of several of one class, what they were made with."""
    classes = [type(one).__name__ for one in strategies]
    return [
        (name if classes.count(name) == 1 else repr(one), one)
        for name, one in zip(classes, strategies, strict=True)
    ]


def numbers(seeds: Any) -> list[int]:
    """Which seeds.

    Raises:
        ValueError: If they are none, or not different whole numbers.
    """
    whole = isinstance(seeds, int | np.integer) and not isinstance(seeds, bool)
    try:
        found = list(range(int(seeds))) if whole else [_whole(seed) for seed in seeds]
    except TypeError:
        found = []
    if not found or len(set(found)) < len(found) or max(map(abs, found)) >= 2**63:
        raise ValueError(
            f"`seeds` is {seeds!r}; needed is how many, 1 or more, or different whole numbers of 64 bits. "
            "Pass `seeds=5`."
        )
    return found


def _whole(seed: Any) -> int:
    if isinstance(seed, bool) or not isinstance(seed, int | np.integer):
        raise TypeError
    return int(seed)


def folder(state_dir: Any) -> Path:
    """Where all runs are.

    Raises:
        TypeError: If it is no path.
        ValueError: If something else is there.
    """
    if not isinstance(state_dir, str | os.PathLike):
        raise TypeError(
            f"`state_dir` is {state_dir!r}; needed is the folder of all runs, in which a later call finds "
            'them. Pass such as `state_dir="runs/comparison"`.'
        )
    place = Path(state_dir).absolute()
    if place.exists() and not place.is_dir():
        raise ValueError(
            f"`state_dir` is {str(state_dir)!r}, which is a file; needed is a folder, made if it is not "
            "there. Name another."
        )
    return place


def count(workers: Any) -> int:
    """How many runs go side by side; 0: none, all in this process.

    Raises:
        ValueError: If it is no such number.
    """
    if workers is not None and (isinstance(workers, bool) or not isinstance(workers, int) or workers < 0):
        raise ValueError(
            f"`workers` is {workers!r}; needed is how many runs go side by side, or 0 for this process "
            "alone. Leave it out for one a core."
        )
    return workers_of(workers)


def described(made_with: Any) -> dict[str, Any]:
    """As it comes back from the file.

    Raises:
        ValueError: If it is no mapping from names to what JSON can hold.
    """
    try:
        if isinstance(made_with, Mapping | None) and all(isinstance(name, str) for name in made_with or {}):
            found: dict[str, Any] = json.loads(json.dumps(dict(made_with or {})))
            return found
    except (TypeError, ValueError):
        pass
    raise ValueError(
        f"`made_with` is {made_with!r}; needed are numbers and texts by name, kept beside the runs. "
        'Pass such as `{"lr": 0.01, "augmentation": "flips"}`.'
    )


def metric_name(metric: Any) -> str | None:
    """The name, if one is given.

    Raises:
        TypeError: If it is no text.
    """
    if metric is None or isinstance(metric, str):
        return metric
    raise TypeError(
        f"`metric` is {metric!r}; needed is the name of a metric that the module's `test_step` logs. Pass "
        'such as `metric="test_acc"`.'
    )


def check_functions(make_model: Any, make_trainer: Any, make_data: Any) -> None:
    """Refuse what cannot be called, or not with what it is to be given; nothing is called.

    Raises:
        TypeError: If one is no such function.
    """
    if isinstance(make_model, L.LightningModule):
        raise TypeError(
            "`make_model` is a module, whose weights would be those of every seed; needed is a function from "
            "a seed to a fresh one. Write `lambda seed: Net()`."
        )
    check_maker(make_model)
    for name, function, takes, names in (
        ("make_trainer", make_trainer, "the number of a round to a Trainer", ["round"]),
        ("make_data", make_data, "a seed and a folder to an ActiveDataModule", ["seed", "state_dir"]),
    ):
        if not callable(function):
            raise TypeError(f"`{name}` is {function!r}; needed is a function from {takes}. Pass one.")
        _check_takes(name, function, takes, names)


def _check_takes(name: str, function: Any, takes: str, names: Sequence[str]) -> None:
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):  # not every callable says what it takes
        return
    try:
        signature.bind(*names)
    except TypeError as error:
        raise TypeError(
            f"`{name}` takes `{signature}`; needed is a function from {takes}, called as "
            f"`{name}({', '.join(names)})`. Write `def {name}({', '.join(names)}):`."
        ) from error

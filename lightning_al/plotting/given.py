"""What plots are given, checked: strategies by name, their histories, names of them, and numbers."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from lightning_al.history import History


def check_named(argument: str, given: Any, what: str) -> None:
    """Raise what is wrong with something that is neither a comparison nor told apart by names.

    Args:
        argument: Its name.
        given: What was given.
        what: What every name should stand for, in the plural.

    Raises:
        TypeError: If it is no mapping.
    """
    if not isinstance(given, Mapping):
        raise TypeError(
            f"`{argument}` is a {type(given).__name__}; needed is a mapping from names to {what}, or a "
            f'comparison. Name what you have: `{{"Margin": {what}}}`.'
        )


def grouped(argument: str, given: Mapping[str, Any]) -> dict[str, list[History]]:
    """Of every strategy one history a seed, where a single one may be given for several.

    Args:
        argument: Its name.
        given: Histories by strategy.

    Raises:
        TypeError: If it is no mapping, or has what is no history.
        ValueError: If it is empty, or a strategy has no history.
    """
    check_named(argument, given, "histories")
    one = (str, History)  # which are iterable too
    found = {
        name: list(runs) if isinstance(runs, Iterable) and not isinstance(runs, one) else [runs]
        for name, runs in given.items()
    }
    wrong = {n: type(run).__name__ for n, runs in found.items() for run in runs if not hasattr(run, "column")}
    if wrong:
        raise TypeError(
            f"`{argument}` has what is no history: {wrong}; needed is a `History` or several of each. "
            "`fit_rounds` returns one, `History(rows)` makes one of rows."
        )
    empty = [name for name, runs in found.items() if not runs]
    if empty or not found:
        raise ValueError(
            f"`{argument}` has no run of {empty or 'any strategy'}; needed is a history or more of each. "
            "`fit_rounds` returns one."
        )
    return found


def baseline_of(baseline: str | None, names: Collection[str], usual: str = "Random") -> str:
    """The name that is drawn in grey: the usual one need not be there, one that was asked for must.

    Args:
        baseline: Asked for, or `None`.
        names: Of the strategies.
        usual: Where none is asked for.

    Raises:
        ValueError: If there is no such strategy.

    Example:
        >>> baseline_of(None, ["Margin"]), baseline_of("chance", ["chance", "Margin"])
        ('Random', 'chance')
    """
    if baseline is None:
        return usual
    if baseline not in list(names):
        raise ValueError(
            f"`baseline` is {baseline!r}; needed is one of {list(names)}. Name one of them, or leave it out."
        )
    return baseline


def check_emphasis(emphasize: Collection[str] | None, names: Collection[str]) -> None:
    """Raise what is wrong with the names that are to stand out.

    Args:
        emphasize: These, or `None`.
        names: Of the strategies.

    Raises:
        ValueError: If one is no strategy's, or a single name stands for itself.
    """
    single = isinstance(emphasize, str) or not isinstance(emphasize, Collection)
    if emphasize is not None and (single or any(name not in list(names) for name in emphasize)):
        raise ValueError(
            f"`emphasize` is {emphasize!r}; needed is a list of some of {list(names)}, or `None` for all. "
            "Correct the names, or leave it out."
        )


def numbers(values: Any, dtype: type[np.floating[Any]] = np.float64) -> npt.NDArray[Any] | None:
    """As an array, wherever tensors are; `None` where they are no numbers, or rows of unequal lengths.

    Args:
        values: An array, a tensor or lists.
        dtype: Of the array.

    Example:
        >>> numbers([1, 2]), numbers({0: 3}), numbers([[1], [1, 2]])
        (array([1., 2.]), None, None)
    """
    try:
        return np.asarray(values.detach().cpu().double() if hasattr(values, "detach") else values, dtype)
    except (TypeError, ValueError, RuntimeError):
        return None

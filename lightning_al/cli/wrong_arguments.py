"""WRONG ARGUMENTS: a mistake on the command line gets one message; what a user's code raises, a traceback."""

from __future__ import annotations

import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import jsonargparse
import lightning as L
from lightning.pytorch.utilities.exceptions import MisconfigurationException

import lightning_al
from lightning_al.data.samples import MissingLabelsError

__all__ = ["WrongArgumentError", "arguments_of", "told_by_the_run"]


class WrongArgumentError(Exception):
    """What is wrong with the arguments, in one message."""


@contextmanager
def arguments_of(part: str | None = None) -> Iterator[None]:
    """What the block refuses is a mistake in the arguments, unless code of the user's refuses it."""
    try:
        yield
    except (ValueError, TypeError, IndexError, MisconfigurationException) as error:
        if _is_of_the_user(error):
            raise
        frames = traceback.extract_tb(error.__traceback__)
        # where a class or a list of classes is meant, jsonargparse says why it was neither
        said = (
            error.__cause__
            if Path(jsonargparse.__file__).parent in Path(frames[-1].filename).parents
            else None
        )
        raise WrongArgumentError(f"{f'--{part}: ' if part else ''}{said or error}") from error


@contextmanager
def told_by_the_run() -> Iterator[None]:
    """What the arguments ask for and data or module turn out to lack, which only the rounds can tell."""
    try:
        yield
    except MissingLabelsError as error:
        raise WrongArgumentError(
            f"--data.oracle is dataset, but {error.what[0].lower()}{error.what[1:]} Give `--data.oracle "
            "people`, or the import path of a function, to have samples labelled."
        ) from error
    except MisconfigurationException as error:
        if _is_of_the_user(error):
            raise
        raise WrongArgumentError(str(error)) from error


def _is_of_the_user(error: Exception) -> bool:
    """Whether it was raised by code that is neither ours nor that of the packages below."""
    frames = traceback.extract_tb(error.__traceback__)
    ours = [Path(module.__file__ or "").parent for module in (lightning_al, L, jsonargparse)]
    return bool(frames) and not any(place in Path(frames[-1].filename).parents for place in ours)

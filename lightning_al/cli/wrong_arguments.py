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

__all__ = ["WrongArgumentError", "arguments_of"]


class WrongArgumentError(Exception):
    """What is wrong with the arguments, in one message."""


@contextmanager
def arguments_of(part: str) -> Iterator[None]:
    """What the block refuses is a mistake in the arguments, unless code of the user's refuses it."""
    try:
        yield
    except (ValueError, TypeError, IndexError, MisconfigurationException) as error:
        frames = traceback.extract_tb(error.__traceback__)
        if frames and _is_of_the_user(frames[-1].filename):
            raise
        # where a class or a list of classes is meant, jsonargparse says why it was neither
        said = (
            error.__cause__
            if Path(jsonargparse.__file__).parent in Path(frames[-1].filename).parents
            else None
        )
        raise WrongArgumentError(f"--{part}: {said or error}") from error


def _is_of_the_user(file: str) -> bool:
    ours = [Path(module.__file__ or "").parent for module in (lightning_al, L, jsonargparse)]
    return not any(place in Path(file).parents for place in ours)

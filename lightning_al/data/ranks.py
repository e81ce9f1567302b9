"""RANKS: what the processes of a run must have in common, found out before anything is trained."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import lightning as L
import torch
from torch import Tensor

from lightning_al.ledger.answer import name_of_rule
from lightning_al.ledger.state import LABELED, PoolState
from lightning_al.randomness import generator_for
from lightning_al.together import same_on_every_rank

if TYPE_CHECKING:
    from lightning_al.data.module import ActiveDataModule

__all__ = ["asking_by", "asking_in", "check_labels_given", "check_ranks"]

#: Of given embeddings that are compared.
_ROWS = 16
_OF_DATA = ("batch_size", "steps_per_epoch", "last_rounds", "drop_last", "pool_batch_size", "min_answered")
_OF_ASKING = (
    "query_size", "budget", "candidates", "restart", "score_with", "embedding_layer", "test_posterior",
)  # fmt: skip


def check_ranks(data: ActiveDataModule, asking: dict[str, Any]) -> None:
    """Refuse processes that would make different runs.

    Args:
        data: What is trained on and asked for.
        asking: How it is asked, by name.

    Raises:
        RuntimeError: If something differs; the message shows both.
    """
    same_on_every_rank(
        lambda: {**_settings_of(data), **asking},
        {
            "The data set": "Give every process the same samples in the same order.",
            "`embeddings`": "Give every process the same vectors in the same order.",
        },
    )


def _settings_of(data: ActiveDataModule) -> dict[str, Any]:
    size, identity = len(data.samples), data.book.identity
    return {
        "The data set": f"{size:,} samples (fingerprint {data.samples.fingerprint(size)})",
        "`seed`": identity.seed,
        "`initial`": identity.initial,
        "`initial_balanced`": identity.balanced,
        "The length of `train_set`": len(data.samples.train_set),
        "`oracle`": data.oracle if isinstance(data.oracle, str) else "a function",
        "`resolve`": name_of_rule(data.resolve),
        **{f"`{name}`": getattr(data, name) for name in _OF_DATA},
    }


def asking_by(callback: Any) -> dict[str, Any]:
    """How an `ActiveLearning` is set."""
    settings = {f"`{name}`": getattr(callback, name, None) for name in _OF_ASKING}
    given = ", ".join(_given_to(callback.acquisition)) or "none"
    return {"The strategy": callback.acquisition, **settings, "`embeddings`": given}


def _given_to(strategy: Any) -> Iterator[str]:
    """What the vectors are that a strategy was given, or those in it."""
    from lightning_al.inference.given_embeddings import GivenEmbeddings  # which builds on this package

    for value in vars(strategy).values():
        if isinstance(value, GivenEmbeddings):
            yield _shown(value.tensor)
        elif hasattr(value, "select") and hasattr(value, "summarize"):
            yield from _given_to(value)


def _shown(vectors: Tensor) -> str:
    """Shape and type, and a digest of some rows: a file is not read as a whole."""
    drawn = torch.randperm(len(vectors), generator=generator_for(0, "embeddings", len(vectors)))
    rows = vectors[drawn[:_ROWS].sort().values.to(vectors.device)].cpu().contiguous()
    digest = hashlib.sha256(rows.view(torch.uint8).numpy().tobytes()).hexdigest()[:8]
    return f"{tuple(vectors.shape)} of type {str(vectors.dtype).removeprefix('torch.')} (rows {digest})"


def asking_in(trainer: L.Trainer | None) -> dict[str, Any]:
    """The same of the one in a Trainer: it is known by what it has, for its class builds on this module."""
    for callback in getattr(trainer, "callbacks", ()):
        if hasattr(callback, "acquisition") and hasattr(callback, "num_to_ask"):
            return asking_by(callback)
    return {}


def check_labels_given(told: Sequence[Sequence[int]], state: PoolState) -> None:
    """Refuse labels that only another rank than 0 was given: nobody would write them down.

    Args:
        told: Samples that each rank was given labels of.
        state: Of rank 0.

    Raises:
        RuntimeError: If there are such.
    """
    for rank, samples in enumerate(told):
        lost = [i for i in samples if state.status[i] != LABELED and i not in state.answered]
        if lost:
            raise RuntimeError(
                f"Rank {rank} was given labels of samples {lost[:5]}{' and more' if lost[5:] else ''}, but "
                "rank 0, which alone writes them down, was not: they would be lost. Call `label` with the "
                "same samples on every process, or on rank 0 only."
            )

"""2 INFERENCE: the scoring loop.

    pool loader of this rank -> transfer hooks -> forward -> Outputs -> summarize -> Summary

It runs on the unwrapped module, so that ranks may have different numbers of batches, and leaves modes,
BatchNorm statistics, random streams, gradients and the Trainer's stage as it found them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import lightning as L
import torch
import torch.distributed as dist
from lightning.pytorch.trainer.states import RunningStage
from lightning.pytorch.utilities.model_helpers import is_overridden
from torch import Tensor, nn

from lightning_al.functional.shard import Shard
from lightning_al.inference.model_call import ModelCall
from lightning_al.inference.posteriors import Draw, NotFiniteError
from lightning_al.inference.progress import track
from lightning_al.inference.summary import Summary
from lightning_al.randomness import derive_seed, preserved_rng

if TYPE_CHECKING:
    from lightning_al.acquisition.base import Acquisition
    from lightning_al.data import ActiveDataModule
    from lightning_al.data.state import Indices

__all__ = ["rehearse", "shard_of", "summarize_samples"]


def shard_of(trainer: L.Trainer, total: int, block_size: int) -> Shard:
    """This rank's blocks of `total` positions."""
    if trainer.world_size == 1:
        return Shard.whole(total)
    group = dist.group.WORLD
    return Shard.blocks(
        total, block_size, rank=trainer.global_rank, world_size=trainer.world_size, group=group
    )


def summarize_samples(
    acquisition: Acquisition,
    trainer: L.Trainer,
    module: L.LightningModule,
    data: ActiveDataModule,
    indices: Indices,
    *,
    seed: int,
    embedding_layer: str | None = None,
) -> Summary:
    """Score the samples of this rank, each once; what an acquisition keeps of them.

    Raises:
        ValueError: If a logit is NaN or infinite; the message names the samples.
        RuntimeError: If another rank failed; the message says which and why.
    """
    shard = shard_of(trainer, len(indices), data.pool_batch_size)
    if not acquisition.needs:
        return Summary({}, shard)
    parts: list[dict[str, Tensor]] = []
    loader = data.pool_loader(indices, shard.positions)
    with _together(shard), _undisturbed(trainer, module, seed):
        steps = track(trainer, loader, len(loader))
        for part in _passes(acquisition, trainer, module, data, indices, steps, embedding_layer, seed):
            parts.append({name: rows.detach().cpu() for name, rows in part.items()})  # noqa: PERF401
    summary = Summary.of_parts(parts, shard)
    assert all(len(rows) == len(shard.positions) for rows in summary.values()), "a sample was lost"
    return summary


def rehearse(
    acquisition: Acquisition,
    trainer: L.Trainer,
    module: L.LightningModule,
    data: ActiveDataModule,
    *,
    embedding_layer: str | None = None,
) -> None:
    """Score one block a rank and keep nothing: what cannot be scored is known before the training.

    Logits that are not finite are no reason to stop: BatchNorm has seen nothing yet.

    Raises:
        Exception: What scoring the pool would raise, on every rank.
    """
    if not acquisition.needs:
        return
    indices = data.pool_indices[: data.pool_batch_size * trainer.world_size]
    shard = shard_of(trainer, len(indices), data.pool_batch_size)
    seed = derive_seed(data.seed, "rehearsal")
    with _together(shard), _undisturbed(trainer, module, seed):
        steps = data.pool_loader(indices, shard.positions)
        try:
            for _ in _passes(acquisition, trainer, module, data, indices, steps, embedding_layer, seed):
                pass
        except ValueError as error:
            if not isinstance(error.__cause__, NotFiniteError):
                raise


def _passes(
    acquisition: Acquisition,
    trainer: L.Trainer,
    module: L.LightningModule,
    data: ActiveDataModule,
    indices: Indices,
    steps: Iterable[tuple[Tensor, Any]],
    embedding_layer: str | None,
    seed: int,
) -> Iterator[dict[str, Tensor]]:
    listen = bool({"embeddings", "classifier"} & set(acquisition.needs))
    with ModelCall(module, data.samples.place, embedding_layer=embedding_layer, listen=listen) as call:
        for positions, batch in steps:
            moved = _to_device(trainer, module, data, batch)
            with trainer.precision_plugin.forward_context():
                try:
                    draw = Draw(seed, positions.to(trainer.strategy.root_device))
                    outputs = acquisition.posterior.outputs(
                        call, moved, tuple(acquisition.needs), draw, multilabel=acquisition.multilabel
                    )
                except NotFiniteError as error:
                    raise _not_finite(indices[positions[error.rows].numpy()].tolist()) from error
                if call.rows not in (None, len(positions)):
                    raise ValueError(call.wrong_rows(len(positions)))
            part = acquisition.summarize(outputs)
            _check_rows(part, positions)
            yield part


def _to_device(trainer: L.Trainer, module: L.LightningModule, data: ActiveDataModule, batch: Any) -> Any:
    """As the Trainer does it: precision first, then the transfer hooks of data module or module."""
    batch = trainer.precision_plugin.convert_input(batch)
    for name in ("on_before_batch_transfer", "transfer_batch_to_device", "on_after_batch_transfer"):
        owner = data if is_overridden(name, data) else module
        if name == "transfer_batch_to_device":
            batch = owner.transfer_batch_to_device(batch, trainer.strategy.root_device, 0)
        else:
            batch = getattr(owner, name)(batch, 0)
    return batch


@contextmanager
def _undisturbed(trainer: L.Trainer, module: nn.Module, seed: int) -> Iterator[None]:
    """Eval mode, no gradients, own random streams and the stage PREDICTING, for the block only."""
    modes = [(part, part.training) for part in module.modules()]
    buffers = [(buffer, buffer.detach().clone()) for buffer in module.buffers()]
    stage = trainer.state.stage
    with preserved_rng(seed), torch.no_grad():
        try:
            module.eval()
            # Augmentation keyed on `trainer.training` stays off.
            trainer.state.stage = RunningStage.PREDICTING
            yield
        finally:
            trainer.state.stage = stage
            for part, training in modes:  # one by one: what the user froze stays frozen
                part.training = training
            for buffer, before in buffers:  # a forward may count or average as it goes
                buffer.copy_(before)


def _check_rows(part: dict[str, Tensor], positions: Tensor) -> None:
    for name, rows in part.items():
        if rows.ndim == 0 or len(rows) != len(positions):
            raise ValueError(
                f"`summarize` returned {name!r} of shape {tuple(rows.shape)} for {len(positions)} samples; "
                "needed is one row a sample."
            )


def _not_finite(samples: list[int]) -> ValueError:
    return ValueError(
        f"The logits of samples {samples[:10]}{' and more' if len(samples) > 10 else ''} are NaN or "
        "infinite; no strategy can rank them. Look at these samples, at the learning rate, or at the "
        "precision; nothing was asked for."
    )


@contextmanager
def _together(shard: Shard) -> Iterator[None]:
    """A rank that fails makes all fail, with its message, instead of leaving them waiting."""
    failure: Exception | None = None
    text = None
    try:
        yield
    except Exception as error:
        failure = error
        text = "\n".join([f"{type(error).__name__}: {error}", *getattr(error, "__notes__", [])])
    messages = shard.gather_objects(text)
    if failure is not None:
        raise failure
    for rank, message in enumerate(messages):
        if message is not None:
            raise RuntimeError(f"Scoring failed on rank {rank}: {message}")

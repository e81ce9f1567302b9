"""2 INFERENCE: the scoring loop.

    pool loader of this rank -> transfer hooks -> forward -> Outputs -> summarize -> Summary

It runs on the unwrapped module, so that ranks may have different numbers of batches, and leaves modes,
BatchNorm statistics, random streams, gradients and the Trainer's stage as it found them. Over a module of
which each rank holds a part, all make as many passes: see `sharded.py`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager
from dataclasses import dataclass, replace
from functools import cached_property, partial
from itertools import islice
from typing import TYPE_CHECKING, Any, TypeVar

import lightning as L
import torch
import torch.distributed as dist
from torch import Tensor, nn

from lightning_al.functional.shard import Shard
from lightning_al.inference.committee import Committee
from lightning_al.inference.every_pass import every_pass, layouts_of
from lightning_al.inference.kept_rows import KeptRows, Room
from lightning_al.inference.layout import Layout
from lightning_al.inference.mc_dropout import MCDropout
from lightning_al.inference.misreading import check_classes
from lightning_al.inference.model_call import ModelCall, Said
from lightning_al.inference.outputs import Outputs
from lightning_al.inference.posteriors import (
    BatchPosterior,
    Draw,
    NotFiniteError,
    Posterior,
    SinglePass,
    check_finite,
)
from lightning_al.inference.progress import track
from lightning_al.inference.sharded import InStep, is_sharded, reshard, root_of
from lightning_al.inference.sharing import share_buffers
from lightning_al.inference.statistics import STATISTICS, Statistics
from lightning_al.inference.summary import Summary
from lightning_al.inference.undisturbed import to_device, undisturbed
from lightning_al.randomness import derive_seed
from lightning_al.together import together

if TYPE_CHECKING:
    from lightning_al.acquisition.base import Summarizer
    from lightning_al.data import ActiveDataModule
    from lightning_al.ledger.indices import Indices

T = TypeVar("T")
#: Of the blocks that are gone through together: their positions, sums and masks.
_Sums = list[tuple[Tensor, Statistics, Tensor | None]]

#: Sums of a committee's members that a process keeps at a time.
_KEPT_BYTES = 2**30

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
    summarizer: Summarizer,
    trainer: L.Trainer,
    module: L.LightningModule,
    data: ActiveDataModule,
    indices: Indices,
    *,
    seed: int,
    embedding_layer: str | None = None,
) -> Summary:
    """Score the samples of this rank, each once; what a strategy keeps of them.

    Raises:
        ValueError: If a logit is NaN or infinite; the message names the samples. If class probabilities
            are needed where the labels are numbers, or several a sample and not read as such.
        RuntimeError: If another rank failed; the message says which and why.
    """
    shard = shard_of(trainer, len(indices), data.pool_batch_size)
    shard = replace(shard, samples=torch.from_numpy(indices)[shard.positions])
    if not summarizer.needs:
        return Summary({}, shard)
    scoring = _Scoring(
        summarizer.posterior, tuple(summarizer.needs), summarizer.multilabel,
        trainer, module, data, indices, shard, seed, embedding_layer,
    )  # fmt: skip
    room = Room(data.spill_bytes, data.state_dir)
    with scoring.together(), undisturbed(trainer, module, seed), scoring.one_model():
        kept = KeptRows(len(shard.positions), room)
        for positions, outputs in scoring.blocks():
            kept.add(_summarized(summarizer.summarize, outputs, positions))
    assert not kept.tensors or kept.filled == len(shard.positions), "a sample was lost"
    return Summary.of_rank(kept.tensors, shard, room)


def rehearse(
    posterior: Posterior,
    needs: Sequence[str],
    trainer: L.Trainer,
    module: L.LightningModule,
    data: ActiveDataModule,
    *,
    summarize: Callable[[Outputs], dict[str, Tensor]] | None = None,
    multilabel: bool = False,
    embedding_layer: str | None = None,
) -> None:
    """Score one block a rank and keep nothing: what cannot be scored is known before the training.

    Logits that are not finite are no reason to stop: BatchNorm has seen nothing yet.

    Args:
        posterior: Makes the passes.
        needs: Fields of `Outputs`; with none, nothing is forwarded.
        trainer: Of the fit that is about to begin.
        module: As it is before that.
        data: Whose pool it is.
        summarize: What is to be done with the outputs of a block, if anything.
        multilabel: Every logit is a label of its own.
        embedding_layer: Layer whose output is the embedding.

    Raises:
        Exception: What scoring the pool would raise, on every rank.
    """
    if not needs:
        return
    indices = data.pool_indices[: data.pool_batch_size * trainer.world_size]
    shard = shard_of(trainer, len(indices), data.pool_batch_size)
    seed = derive_seed(data.seed, "rehearsal")
    scoring = _Scoring(
        posterior, tuple(needs), multilabel,
        trainer, module, data, indices, shard, seed, embedding_layer, shows_progress=False,
    )  # fmt: skip
    with scoring.together(), undisturbed(trainer, module, seed), scoring.one_model():
        try:
            for positions, outputs in scoring.blocks():
                if summarize is not None:
                    _summarized(summarize, outputs, positions)
        except (ValueError, RuntimeError) as error:
            if not isinstance(error.__cause__, NotFiniteError):
                raise


@dataclass
class _Scoring:
    """Everything one scoring needs; `blocks` does it."""

    posterior: Posterior
    needs: tuple[str, ...]
    multilabel: bool
    trainer: L.Trainer
    module: L.LightningModule
    data: ActiveDataModule
    indices: Indices
    shard: Shard
    seed: int
    embedding_layer: str | None
    shows_progress: bool = True

    # ------------------------------------------------------------------ ranks

    @cached_property
    def root(self) -> nn.Module:
        """What is called instead of the module."""
        return root_of(self.trainer, self.module)

    @cached_property
    def is_sharded(self) -> bool:
        """Whether each rank holds a part of the module."""
        return is_sharded(self.root)

    @cached_property
    def in_step(self) -> InStep | None:
        """Where passes of all ranks must be as many."""
        return InStep(self.shard.ranks, self._spare) if self.is_sharded and self.shard.ranks else None

    def together(self) -> AbstractContextManager[Any]:
        """What fails on one rank fails on all."""
        return self._step() if self.in_step is None else self.in_step.together("Scoring")

    def _step(self) -> AbstractContextManager[Any]:
        """The same of a part, in which no passes are in step."""
        # A rehearsal forgives what is not finite: nobody is to read of it.
        return together(self.shard.ranks, "Scoring", forgiven=() if self.shows_progress else NotFiniteError)

    @contextmanager
    def one_model(self) -> Iterator[None]:
        """In the block all ranks score rank 0's module; after it, this one makes passes that others need."""
        share_buffers(self.module, self.shard)
        yield
        if self.in_step is not None:
            self.in_step.rest()
        if self.is_sharded:
            reshard(self.root)

    def _spare(self, judged: bool) -> None:
        """A pass for the others' sake."""
        call, (batch, samples) = self._spare_call, self._at_hand
        with self.trainer.precision_plugin.forward_context():
            call.spare(batch, samples, judged=judged)

    @cached_property
    def _spare_call(self) -> ModelCall:
        predicts = "predicted_loss" in self.needs
        place = self.data.samples.place
        return ModelCall(
            self.module, place, embedding_layer=None, listen=False, predicts=predicts, root=self.root
        )

    @cached_property
    def _at_hand(self) -> tuple[Any, int]:
        """The first block of the pool, which is the same on all ranks, and how many samples it has."""
        first = torch.arange(min(len(self.indices), self.data.pool_batch_size))
        ((_, batch),) = self.data.pool_loader(self.indices, first)
        return to_device(self.trainer, self.module, self.data, batch), len(first)

    # ------------------------------------------------------------------ blocks

    def blocks(self) -> Iterator[tuple[Tensor, Outputs]]:
        """Positions and outputs of each block of this rank, in order."""
        posterior = self.posterior
        if isinstance(posterior, Committee):
            return self._of_members(posterior)
        if isinstance(posterior, BatchPosterior):
            return self._of_batches(posterior)
        raise TypeError(
            f"`{type(posterior).__name__}` is a posterior that does not say how it scores a batch. Derive it "
            "from `BatchPosterior`, and write `outputs`."
        )

    def _of_batches(self, posterior: BatchPosterior) -> Iterator[tuple[Tensor, Outputs]]:
        """The scored module goes through all blocks, with all passes over each."""
        if self.is_sharded and isinstance(posterior, MCDropout):
            posterior = every_pass(posterior, self._layouts(posterior))

        def outputs(call: ModelCall, batch: Any, positions: Tensor) -> Outputs:
            draw = Draw(self.seed, positions.to(self.trainer.strategy.root_device))
            return posterior.outputs(call, batch, self.needs, draw, multilabel=self.multilabel)

        return self._through_pool(self.module, outputs, self.needs, self.shard.positions)

    def _layouts(self, posterior: MCDropout) -> list[Layout | None]:
        """Of the dropouts of a sharded module."""
        batch, samples = self._at_hand
        forward = partial(self._spare_call.spare, samples=samples, judged=False)
        with self.trainer.precision_plugin.forward_context():
            return layouts_of(posterior, forward, self.module, batch, samples)

    def _of_members(self, committee: Committee) -> Iterator[tuple[Tensor, Outputs]]:
        """Each member goes through all blocks, or through as many at a time as sums can be kept of."""
        size, left = self.data.pool_batch_size, self.shard.positions
        found: _Sums = []

        def add(number: int, block: int, positions: Tensor, one: Said) -> None:
            if not number:
                mask = None if one.mask is None else one.mask.cpu()
                found.append((positions, Statistics(self.needs, multilabel=self.multilabel), mask))
            found[block][1].add(one.logits.cpu()[None])

        at_once, times = 0, 1  # known when the first member has seen its first block
        while times:
            found.clear()
            for number, ready in enumerate(committee.members(self.module)):
                some = left[: at_once * size] if at_once else left
                title = f"Scoring pool, member {number + 1}"
                # Step by step, one after the other and none inside of another: a rank that fails in one
                # ends it on all, before they share out weights or agree on anything.
                with ExitStack() as stack:
                    with self._step():
                        member = stack.enter_context(ready)
                    if member is not self.module:
                        share_buffers(member, self.shard)
                    passes = stack.enter_context(closing(self._through_pool(member, _said, (), some, title)))
                    if not at_once:
                        with self._step():
                            for positions, one in islice(passes, 1):
                                add(number, 0, positions, one)
                        at_once, times = self._blocks_at_once(found, committee)
                    with self._step():
                        seen = 0 if number else len(found)
                        for block, (positions, one) in enumerate(islice(passes, at_once - seen), seen):
                            add(number, block, positions, one)
            yield from self._of_sums(found, left[: at_once * size])
            left, times = left[at_once * size :], times - 1

    def _blocks_at_once(self, found: _Sums, committee: Committee) -> tuple[int, int]:
        """Of how many blocks to keep the sums, and how often to go on to the next: on all ranks alike."""
        blocks = math.ceil(len(self.shard.positions) / self.data.pool_batch_size)
        large = max((_bytes_kept(sums, committee.num_samples) for _, sums, _ in found), default=0)
        said = self.shard.gather_objects((large, blocks))
        at_once = max(1, _KEPT_BYTES // max(1, *(other for other, _ in said)))
        return at_once, max(1, math.ceil(max(count for _, count in said) / at_once))

    def _of_sums(self, found: _Sums, positions: Tensor) -> Iterator[tuple[Tensor, Outputs]]:
        """With what is asked of the scored module alone."""
        plain = tuple(name for name in self.needs if name not in STATISTICS)
        if not plain:
            yield from ((places, Outputs(mask=mask, **sums.fields())) for places, sums, mask in found)
            return
        device = self.trainer.strategy.root_device

        def single(call: ModelCall, batch: Any, positions: Tensor) -> Outputs:
            draw = Draw(self.seed, positions)
            return SinglePass().outputs(call, batch, plain, draw, multilabel=self.multilabel)

        singles = self._through_pool(self.module, single, plain, positions)
        for (places, outputs), (_, sums, _) in zip(singles, found, strict=True):
            fields = {name: value.to(device) for name, value in sums.fields().items()}
            yield places, outputs.joined(Outputs(**fields))
        if self.in_step is not None:  # before ranks agree on anything else
            self.in_step.rest()

    def _through_pool(
        self,
        module: nn.Module,
        found: Callable[[ModelCall, Any, Tensor], T],
        needs: tuple[str, ...],
        positions: Tensor,
        title: str = "Scoring pool",
    ) -> Generator[tuple[Tensor, T], None, None]:
        """What `found` makes of every block of `positions`."""
        loader = self.data.pool_loader(self.indices, positions)
        steps: Iterable[Any] = (
            track(self.trainer, loader, len(loader), title) if self.shows_progress else loader
        )
        listen = bool({"embeddings", "classifier"} & set(needs))
        place, layer = self.data.samples.place, self.embedding_layer
        predicts, scored = "predicted_loss" in needs, module is self.module
        with ModelCall(
            module, place, embedding_layer=layer, listen=listen, predicts=predicts,
            root=self.root if scored else None, gathers=scored and self.is_sharded,
            in_step=self.in_step if scored else None,
        ) as call:  # fmt: skip
            for number, (places, batch) in enumerate(steps):
                moved = to_device(self.trainer, self.module, self.data, batch)
                with self.trainer.precision_plugin.forward_context():
                    try:
                        one = found(call, moved, places)
                    except NotFiniteError as error:
                        samples = self.indices[places[error.rows].numpy()].tolist()
                        raise _not_finite(samples, error.what) from error
                    if call.rows not in (None, len(places)):
                        raise ValueError(call.wrong_rows(len(places)))
                if not number and call.rows is not None:
                    check_classes(self.needs, call.shape, self.data, multilabel=self.multilabel)
                yield places, one
                # Not before the first: what fails on all of them alike, each is to say itself.
                if self.shard.ranks is not None:
                    self.shard.ranks.look()


def _said(call: ModelCall, batch: Any, positions: Tensor) -> Said:
    """A member's pass over a block."""
    del positions
    said = call.one_pass(batch)
    call.next_batch()
    check_finite(said.logits)
    return said


def _bytes_kept(sums: Statistics, passes: int) -> int:
    """What the sums of a block will take: some are two, and all passes are kept if asked for."""
    times = {"probs_std": 2, "variance": 2, "mc_probs": passes}
    return sum(value.nbytes * times.get(name, 1) for name, value in sums.fields().items())


def _summarized(
    summarize: Callable[[Outputs], dict[str, Tensor]], outputs: Outputs, positions: Tensor
) -> dict[str, Tensor]:
    """What is kept of a block, on the CPU."""
    part = summarize(outputs)
    for name, rows in part.items():
        if rows.ndim == 0 or len(rows) != len(positions):
            raise ValueError(
                f"`summarize` returned {name!r} of shape {tuple(rows.shape)} for {len(positions)} samples; "
                "needed is one row a sample."
            )
    return {name: rows.detach().cpu() for name, rows in part.items()}


def _not_finite(samples: list[int], what: str) -> ValueError:
    return ValueError(
        f"The {what} of samples {samples[:10]}{' and more' if len(samples) > 10 else ''} are NaN or "
        "infinite; no strategy can rank them. Look at these samples, at the learning rate, or at the "
        "precision; nothing was asked for."
    )

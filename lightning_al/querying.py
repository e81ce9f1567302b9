"""QUERY: from the pool to the samples to ask for, in a round or without any fit.

pool -> candidates -> summaries -> selection -> data set indices
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import lightning as L
import numpy as np
import numpy.typing as npt
import torch
from lightning.pytorch.utilities.model_helpers import is_overridden

from lightning_al.acquisition.base import Acquisition, ScoreAcquisition, Selection
from lightning_al.data import ActiveDataModule
from lightning_al.data.checks import check_lightning, check_positive
from lightning_al.inference.outputs import FIELDS
from lightning_al.inference.scoring import summarize_samples
from lightning_al.ledger.indices import Indices
from lightning_al.randomness import derive_seed, generator_for
from lightning_al.together import agree

__all__ = ["Query", "check_acquisition", "check_module", "choose", "query"]


@dataclass(frozen=True)
class Query:
    """The samples to ask for.

    Args:
        indices: Places in the data set, most wanted first.
        scores: What the strategy thought of each; higher = more informative.
        score_s: Seconds that inference took.
        select_s: Seconds that the selection took.

    Example:
        >>> found = Query(np.array([7, 2]), np.array([0.9, 0.8]))
        >>> len(found), found.indices.tolist()
        (2, [7, 2])
    """

    indices: Indices
    scores: npt.NDArray[np.float64]
    score_s: float = 0.0
    select_s: float = 0.0

    def __len__(self) -> int:
        return len(self.indices)


def query(
    model: L.LightningModule,
    data: ActiveDataModule,
    acquisition: Acquisition,
    query_size: int,
    *,
    candidates: int | None = None,
    embedding_layer: str | None = None,
    trainer: L.Trainer | None = None,
    commit: bool = False,
) -> Query:
    """Which samples next, for a module as it is now? No fit is needed.

    Args:
        model: Trained or not; left as it was found.
        data: Its pool is asked; it may be without any label.
        acquisition: The strategy.
        query_size: How many; with fewer in the pool, all of it.
        candidates: Score a seeded subset of this size only; `None`: the whole pool.
        embedding_layer: Layer whose output is the embedding; `None`: the input of the last linear layer.
        trainer: For its device and precision; `None`: one device, chosen automatically, and the precision
            that the model is in.
        commit: Also record the query and ask the oracle; without it nothing is written.

    Returns:
        Indices and scores.

    Raises:
        ValueError: If an argument or a model output does not fit; the message says which.

    Example:
        >>> from lightning_al import acquisition as acq
        >>> class Sign(L.LightningModule):
        ...     def forward(self, x):
        ...         return torch.cat([x, -x], dim=1)
        >>> x = torch.linspace(-1, 1, 9)[:, None]
        >>> data = ActiveDataModule(torch.utils.data.TensorDataset(x, (x[:, 0] > 0).long()))
        >>> trainer = L.Trainer(devices=1, logger=False, enable_progress_bar=False)
        >>> query(Sign(), data, acq.Margin(), 3, trainer=trainer).indices.tolist()
        [4, 3, 5]
    """
    check_lightning(trainer)
    check_module(model)
    model = getattr(model, "_orig_mod", model)
    check_acquisition(acquisition)
    acquisition.check(len(data.samples))
    check_positive(query_size=query_size, candidates=candidates)
    with _attached(model, data, trainer) as attached:
        found = choose(
            acquisition, attached, model, data, query_size,
            candidates=candidates, embedding_layer=embedding_layer,
        )  # fmt: skip
    if commit:
        data.ask(found.indices, strategy=repr(acquisition), scores=found.scores.tolist())
    return found


def choose(
    acquisition: Acquisition,
    trainer: L.Trainer,
    module: L.LightningModule,
    data: ActiveDataModule,
    query_size: int,
    *,
    candidates: int | None = None,
    embedding_layer: str | None = None,
) -> Query:
    """Score the candidates and select among them; the same on every rank, and nothing is written."""
    number = data.state.next_round
    indices = _candidates(data.pool_indices, candidates, derive_seed(data.seed, "candidates", number))
    if not len(indices):
        return Query(indices, np.empty(0))
    seed = derive_seed(data.seed, "scoring", number)
    begun = time.perf_counter()
    pool = summarize_samples(
        acquisition, trainer, module, data, indices, seed=seed, embedding_layer=embedding_layer
    )
    labeled = None
    if acquisition.needs_labeled:
        labeled = summarize_samples(
            acquisition, trainer, module, data, data.labeled_indices,
            seed=seed, embedding_layer=embedding_layer,
        )  # fmt: skip
    scored = time.perf_counter()
    generator = generator_for(data.seed, "selection", number)
    with pool.shard.together(f"`{type(acquisition).__name__}.select`") as end:
        found = acquisition.select(pool, query_size, labeled=labeled, generator=generator)
        _check_selection(acquisition, found, query_size, len(indices))
        end.chosen = found.positions
    positions, scores = agree(lambda: (found.positions.cpu().numpy(), found.scores.cpu().double().numpy()))
    return Query(indices[positions], scores, scored - begun, time.perf_counter() - scored)


def check_module(model: Any) -> None:
    """Refuse what is no `lightning.LightningModule`.

    Raises:
        TypeError: If it is not.
    """
    if not isinstance(getattr(model, "_orig_mod", model), L.LightningModule):  # of `torch.compile`
        kind = f"{type(model).__module__.split('.')[0]}.{type(model).__name__}"
        raise TypeError(
            f"The model is a {kind}; needed is a `LightningModule` of `lightning`, which does not mix with "
            "`pytorch_lightning`. Write `import lightning as L` and derive it from `L.LightningModule`."
        )


def check_acquisition(acquisition: Any) -> None:
    """Refuse what is no strategy, or asks for outputs that do not exist.

    Raises:
        TypeError: If it is not an `Acquisition`.
        ValueError: If `needs` names what there is not.
    """
    if not isinstance(acquisition, Acquisition):
        hint = " Call it: `Margin()`." if isinstance(acquisition, type) else ""
        raise TypeError(
            f"The strategy is {acquisition!r}; needed is an `Acquisition`, such as `Margin()`.{hint}"
        )
    name, needs = type(acquisition).__name__, acquisition.needs
    if not isinstance(needs, tuple | list):
        raise ValueError(f'`{name}.needs` is {needs!r}; needed is a tuple of names, such as `("probs",)`.')
    scores = isinstance(acquisition, ScoreAcquisition)
    if scores and not needs and type(acquisition).summarize is ScoreAcquisition.summarize:
        raise ValueError(
            f"`{name}.needs` is empty, so its `score` would be given nothing. Name what it reads of the "
            f"model's outputs: {list(FIELDS)}."
        )
    unknown = [name for name in acquisition.needs if name not in FIELDS]
    if unknown:
        raise ValueError(
            f"`{type(acquisition).__name__}.needs` names {unknown}, but a model's outputs are "
            f"{list(FIELDS)}. Name only these."
        )


def _candidates(pool: Indices, count: int | None, seed: int) -> Indices:
    """All of the pool, or a seeded subset in the order of the data set."""
    if count is None or count >= len(pool):
        return pool
    chosen = torch.randperm(len(pool), generator=torch.Generator().manual_seed(seed))[:count]
    return np.sort(pool[chosen.numpy()])


def _check_selection(acquisition: Acquisition, found: Selection, query_size: int, total: int) -> None:
    positions = found.positions
    wanted, distinct = min(query_size, total), len(set(positions.tolist()))
    if len(positions) != wanted or distinct != wanted:
        raise ValueError(
            f"`{type(acquisition).__name__}.select` returned {len(positions)} positions, "
            f"{distinct} of them distinct; needed are {wanted} distinct ones."
        )
    if wanted and (int(positions.min()) < 0 or int(positions.max()) >= total):
        raise ValueError(
            f"`{type(acquisition).__name__}.select` returned positions from {int(positions.min())} to "
            f"{int(positions.max())}, but the candidates have 0 to {total - 1}. Return positions of rows, "
            "not data set indices."
        )


@contextmanager
def _attached(
    model: L.LightningModule, data: ActiveDataModule, trainer: L.Trainer | None
) -> Iterator[L.Trainer]:
    """The model on a device, with a Trainer to ask, for the block only."""
    trainer = trainer or _quiet_trainer(_precision_of(model))
    if trainer.world_size > 1:
        raise ValueError(
            f"`query` was given a Trainer of {trainer.world_size} processes; outside of a fit it works in "
            "one. Pass one with `devices=1`, or use the `ActiveLearning` callback, which shares the work."
        )
    source = None if data._source is None else data._source.datamodule  # its transfer hooks may ask
    holders = [holder for holder in (model, data, source) if holder is not None]
    before = [vars(holder).get("_trainer", vars(holder).get("trainer")) for holder in holders]
    for holder in holders:
        holder.trainer = trainer
    try:
        if is_overridden("configure_model", model):
            model.configure_model()
        with _placed(model, trainer):
            yield trainer
    finally:
        for holder, own in zip(holders, before, strict=True):
            holder.trainer = own


@contextmanager
def _placed(model: L.LightningModule, trainer: L.Trainer) -> Iterator[None]:
    """The model on the Trainer's device and in its precision, for the block only."""
    device, dtype = model.device, model.dtype
    # Half precision rounds: what was there before is put back, not converted back.
    parameters = [(parameter, parameter.data) for parameter in model.parameters()]
    buffers = [(part, dict(part._buffers)) for part in model.modules()]
    try:
        trainer.precision_plugin.convert_module(model)
        model.to(trainer.strategy.root_device)
        yield
    finally:
        model.to(device)
        if model.dtype != dtype:
            model.to(dtype)
            for parameter, value in parameters:
                parameter.data = value
            for part, values in buffers:
                part._buffers.update(values)


def _precision_of(model: L.LightningModule) -> Any:
    """What a fit in "64-true" or "bf16-true" left the model in."""
    dtypes = {parameter.dtype for parameter in model.parameters() if parameter.is_floating_point()}
    found = dtypes.pop() if len(dtypes) == 1 else torch.float32
    return {torch.float64: "64-true", torch.bfloat16: "bf16-true", torch.float16: "16-true"}.get(
        found, "32-true"
    )


def _quiet_trainer(precision: Any) -> L.Trainer:
    """One device and no logs; Lightning's lines on devices would be noise here."""
    logger = logging.getLogger("lightning.pytorch")
    level = logger.level
    logger.setLevel(logging.WARNING)
    try:
        return L.Trainer(
            devices=1, precision=precision, logger=False, enable_checkpointing=False,
            enable_model_summary=False,
        )  # fmt: skip
    finally:
        logger.setLevel(level)

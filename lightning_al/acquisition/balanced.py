"""BALANCED: a strategy whose query has its share of every class that the model predicts.

predicted class of every candidate -> quotas -> of each class the base's first ones
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Literal

import numpy as np
import torch
from torch import Generator, Tensor

from lightning_al.acquisition.base import Acquisition, ScoreAcquisition, Selection
from lightning_al.functional.selection import order_of
from lightning_al.inference.outputs import Outputs
from lightning_al.inference.summary import Summary

__all__ = ["ClassBalanced"]

Shares = Literal["equal", "pool"] | Sequence[float]


class ClassBalanced(Acquisition):
    """Fills a query class by class of what the model predicts, each in the order of another strategy.

    Where a strategy falls for a few classes (mode collapse), or the pool holds few samples of some, this
    gives every class its turn. Turn after turn each class gives the base's first sample of those left;
    classes with larger shares have more turns (the divisor method of Webster). What a class lacks the others
    give, and the last turn, for which there is not enough room, goes to the higher scores.

    The classes are predicted ones: a class that the model never predicts has no turn, so a wholly starved
    class comes in only as the model's errors bring it. The labels are not looked at.

    - Of a base that scores samples one by one, the scores decide within a class and between classes.
    - Any other (`CoreSet`, `BADGE`, `BatchBALD`, `Random`, `PowerSampling`, ...) chooses among the samples of
      one class after the other, as many as are due; the last turn is drawn. One that looks at the labelled
      set takes what was chosen of the classes before for labelled, so `CoreSet` covers what is left. Those
      that do not, such as `BatchBALD`, do not see what samples of different classes share.

    Args:
        base: Orders or chooses the samples of a class.
        shares: Of the classes in a query: `"equal"`, `"pool"` (as often as they are predicted), or one number
            a class, in any unit. A class of share 0 is asked for when nothing else is left.

    Raises:
        TypeError: If `base` is no strategy.
        ValueError: If `base` has no classes, or `shares` is none of these.

    References:
        The idea of balancing a query by predicted classes: Bengar et al., "Class-Balanced Active Learning for
        Image Classification", 2022 (arXiv:2110.04543). They balance the probabilities of query and labelled
        set together, by an integer program; these are plain quotas of the query alone. Cost: one argmax a
        sample, and a sort.

    Example:
        >>> from lightning_al import acquisition as acq
        >>> from lightning_al.functional import Shard
        >>> strategy = ClassBalanced(acq.Margin())
        >>> probs = torch.tensor([[0.5, 0.5], [0.6, 0.4], [0.7, 0.3], [0.1, 0.9]])
        >>> pool = Summary(strategy.summarize(Outputs(probs=probs)), Shard.whole(4))
        >>> strategy.select(pool, 2, labeled=None, generator=torch.Generator()).positions
        tensor([0, 3])
    """

    def __init__(self, base: Acquisition, *, shares: Shares = "equal") -> None:
        if not isinstance(base, Acquisition):
            raise TypeError(
                f"`base` is {base!r}; needed is the strategy that orders the samples of a class. Pass an "
                "`Acquisition`, such as `Margin()`."
            )
        if base.multilabel or {"mean", "variance"} & set(base.needs):
            raise ValueError(
                f"`base` is {base!r}, of outputs that are no single class a sample; needed are predicted "
                "classes, to balance them. Use the strategy itself."
            )
        self.base, self.shares = base, _checked(shares)
        self.needs = tuple(dict.fromkeys([*base.needs, "probs"]))
        self.posterior, self.needs_labeled = base.posterior, base.needs_labeled

    def check(self, samples: int) -> None:  # noqa: D102
        self.base.check(samples)

    def summarize(self, outputs: Outputs) -> dict[str, Tensor]:  # noqa: D102
        probs: Tensor = outputs.probs
        if probs.ndim != 2:
            raise ValueError(
                f"The probabilities have shape {tuple(probs.shape)}; `ClassBalanced` needs one predicted "
                "class a sample, of (B, C). Use the strategy that it wraps by itself."
            )
        if isinstance(self.shares, tuple) and len(self.shares) != probs.shape[1]:
            raise ValueError(
                f"`shares` has {len(self.shares)} numbers, but the model predicts {probs.shape[1]} classes; "
                "needed is one a class. A single logit is two classes."
            )
        base = {f"base/{name}": rows for name, rows in self.base.summarize(outputs).items()}
        return {**base, "class": probs.argmax(1).int()}

    def select(  # noqa: D102
        self, pool: Summary, query_size: int, *, labeled: Summary | None, generator: Generator
    ) -> Selection:
        if not pool.shard.total:
            return Selection(torch.empty(0, dtype=torch.long), torch.empty(0))
        classes = pool.gathered(pool["class"]).cpu().long()
        if _only_scores(self.base):
            return self._by_score(pool, classes, query_size)
        known = None if labeled is None else labeled.part("base/")
        return self._by_class(pool.part("base/"), classes, query_size, known, generator)

    def _by_score(self, pool: Summary, classes: Tensor, query_size: int) -> Selection:
        """All samples in one order: by turn, then by score, then by position."""
        held, scores, positions = pool["class"].cpu().long(), pool["base/score"].cpu(), pool.shard.positions
        best, turns = _turns(held, order_of(scores, positions))
        best = best[turns < query_size]  # no class gives more, and no rank needs to tell of more
        positions, scores = pool.shard.gather(positions[best]), pool.shard.gather(scores[best])
        order, turns = _turns(classes[positions], order_of(scores, positions))
        positions, scores = positions[order], scores[order]
        due = self._due(classes, classes[positions], turns)
        order = order_of(scores, positions)
        order = order[due[order].sort(stable=True).indices[:query_size]]
        return Selection(positions[order], scores[order])

    def _by_class(
        self, pool: Summary, classes: Tensor, query_size: int, labeled: Summary | None, generator: Generator
    ) -> Selection:
        """How many of each class are due, and then its own choice of as many."""
        names, places, counts = torch.unique(classes, return_inverse=True, return_counts=True)
        # A turn that not all can have is drawn: always the first classes would be a collapse too.
        luck = torch.randperm(len(names), generator=generator)
        slots = torch.arange(len(names)).repeat_interleave(counts.clamp_max(query_size))
        turns = _turns(slots, torch.arange(len(slots)))[1]
        due = self._due(classes, names[slots], turns)
        order = luck[slots].argsort()
        slots = slots[order[due[order].sort(stable=True).indices[:query_size]]]
        of_class = places.argsort(stable=True).split(counts.tolist())
        chosen = torch.empty(len(slots), dtype=torch.long)
        scores, taken = torch.zeros(len(slots)), torch.empty(0, dtype=torch.long)
        for name, quota in enumerate(slots.bincount(minlength=len(names)).tolist()):
            if quota:
                known = _with_chosen(labeled, pool, taken)
                part = pool.of_positions(of_class[name])
                found = self.base.select(part, quota, labeled=known, generator=generator)
                chosen[slots == name] = of_class[name][found.positions.cpu()]
                scores[slots == name] = found.scores.cpu().float()
                taken = torch.cat([taken, chosen[slots == name]])
        return Selection(chosen, scores)

    def _due(self, classes: Tensor, names: Tensor, turns: Tensor) -> Tensor:
        """When each of some samples is due: Webster's quotient of its turn, from 0, and its class's share.

        Args:
            classes: Of all candidates.
            names: Classes of the samples.
            turns: Of the samples in their class.
        """
        if self.shares == "equal":
            return 2.0 * turns + 1
        if self.shares == "pool":
            shares = classes.bincount().double()
        else:
            shares = torch.tensor(self.shares, dtype=torch.float64)
        return (2.0 * turns + 1) / shares[names]


def _turns(classes: Tensor, order: Tensor) -> tuple[Tensor, Tensor]:
    """Rows class by class, those of a class in the given order; and which of its class each is, from 0."""
    order = order[classes[order].sort(stable=True).indices]
    counts = torch.unique_consecutive(classes[order], return_counts=True)[1]
    starts = (counts.cumsum(0) - counts).repeat_interleave(counts)
    return order, torch.arange(len(order)) - starts


def _with_chosen(labeled: Summary | None, pool: Summary, chosen: Tensor) -> Summary | None:
    """The labelled samples, and after them what was chosen of the pool so far."""
    if labeled is None or not len(chosen):
        return labeled
    more = pool.of_positions(chosen.sort().values)
    if not labeled.shard.total:
        return more
    shard, further = labeled.shard, more.shard
    positions = torch.cat([shard.positions, further.positions + shard.total])
    samples = None
    if shard.samples is not None and further.samples is not None:
        samples = torch.cat([shard.samples, further.samples])
    tensors = {name: torch.cat([labeled[name], more[name]]) for name in labeled}
    both = replace(shard, positions=positions, total=shard.total + further.total, samples=samples)
    return Summary(tensors, both, labeled.room)


def _only_scores(base: Acquisition) -> bool:
    """Whether it takes the highest scores, and nothing else."""
    if not isinstance(base, ScoreAcquisition):
        return False
    own = type(base)
    return all(
        getattr(own, name) is getattr(ScoreAcquisition, name) for name in ("summarize", "draw", "select")
    )


def _checked(shares: Any) -> Shares:
    if isinstance(shares, str):
        if shares in ("equal", "pool"):
            return shares  # type: ignore[return-value]
    else:
        try:
            numbers = np.asarray(shares, dtype=np.float64)
        except (TypeError, ValueError):
            numbers = np.empty((0, 0))
        if numbers.ndim == 1 and (numbers >= 0).all() and 0 < numbers.sum() < np.inf:
            return tuple(numbers.tolist())
    raise ValueError(
        f'`shares` is {shares!r}; needed is "equal", "pool", or one number a class, none negative and not '
        "all 0, such as `[1, 1, 2]`."
    )

"""WRAPPERS: strategies made of other strategies."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from torch import Generator, Tensor

from lightning_al import functional as F
from lightning_al.acquisition.base import Acquisition, ScoreAcquisition, Selection
from lightning_al.functional.selection import PowerForm
from lightning_al.functional.shard import Shard
from lightning_al.inference.outputs import Outputs
from lightning_al.inference.posteriors import Posterior, SinglePass
from lightning_al.inference.statistics import STATISTICS
from lightning_al.inference.summary import Summary

__all__ = ["PowerSampling", "TwoStage"]


class PowerSampling(ScoreAcquisition):
    """Draws samples at random, the likelier the higher the score of another strategy.

    Taking the highest scores fills a large query with near-copies; this spreads it at no cost. See
    `functional.power_sample`.

    Args:
        base: Gives the scores.
        beta: 0 is `Random`, infinity the base itself.
        form: `"power"` (scores not negative), `"softmax"` or `"softrank"`.

    Raises:
        TypeError: If `base` does not score samples one by one.
        ValueError: If `beta` is no number from 0 on, or `form` none of these.

    References:
        Kirsch et al., "Stochastic Batch Acquisition", 2021 (arXiv:2106.12059).

    Example:
        >>> from lightning_al import acquisition as acq
        >>> PowerSampling(acq.Entropy(), beta=2.0).needs
        ('probs',)
    """

    def __init__(self, base: ScoreAcquisition, *, beta: float = 1.0, form: PowerForm = "power") -> None:
        if not isinstance(base, ScoreAcquisition):
            raise TypeError(
                f"`base` is {base!r}, which has no score of single samples to draw by. Wrap a "
                "`ScoreAcquisition`, such as `Margin()`."
            )
        if not _is_number(beta) or not beta >= 0:
            raise ValueError(
                f"`beta` is {beta!r}; needed is a number from 0 on, such as 1.0: below, low scores would win."
            )
        if form not in ("power", "softmax", "softrank"):
            raise ValueError(f'`form` is {form!r}; needed is "power", "softmax" or "softrank".')
        self.base, self.beta, self.form = base, float(beta), form
        self.needs, self.posterior, self.multilabel = base.needs, base.posterior, base.multilabel

    def check(self, samples: int) -> None:  # noqa: D102
        self.base.check(samples)

    def score(self, outputs: Outputs) -> Tensor:  # noqa: D102
        return self.base.score(outputs)

    def draw(  # noqa: D102
        self, scores: Tensor, query_size: int, *, shard: Shard, generator: Generator
    ) -> tuple[Tensor, Tensor]:
        return F.power_sample(
            scores,
            query_size,
            self.beta,
            form=self.form,
            generator=generator,
            shard=shard,
            return_scores=True,
        )


class TwoStage(Acquisition):
    """One strategy narrows the pool down, another one chooses from what is left; one pass for both.

    For a strategy that is costly, or that looks at how samples lie and not at what is known of them.

    Args:
        first: Scores the pool.
        then: Chooses from the best of it.
        keep: How many of the best are left: a whole number of samples, or, as a float from above 0 to 1.0,
            a share of the pool, rounded up. So `1.0` keeps all, and `1` one; but never fewer than asked for.

    Raises:
        TypeError: If `first` does not score samples one by one, or `then` is no strategy.
        ValueError: If the two need different posteriors, or `keep` is neither a count nor a share.

    Example:
        >>> from lightning_al import acquisition as acq
        >>> TwoStage(acq.BALD(), then=acq.BatchBALD(acq.BALD().posterior), keep=0.1).keep
        0.1
    """

    def __init__(self, first: ScoreAcquisition, then: Acquisition, keep: int | float) -> None:
        if not isinstance(first, ScoreAcquisition) or not isinstance(then, Acquisition):
            raise TypeError(
                f"`TwoStage` was given {first!r} and {then!r}; needed are a `ScoreAcquisition`, such as "
                "`Margin()`, and any `Acquisition`."
            )
        if first.multilabel != then.multilabel:
            raise ValueError(
                f"`multilabel` is {first.multilabel} in {first!r} and {then.multilabel} in {then!r}; one "
                "model has one kind of outputs. Set both alike."
            )
        self.first, self.then, self.keep = first, then, _count_or_share(keep)
        self.posterior = shared_posterior(first, then)
        self.needs = tuple(dict.fromkeys([*first.needs, *then.needs]))
        self.needs_labeled, self.multilabel = then.needs_labeled, first.multilabel

    def check(self, samples: int) -> None:  # noqa: D102
        self.first.check(samples)
        self.then.check(samples)

    def summarize(self, outputs: Outputs) -> dict[str, Tensor]:  # noqa: D102
        stages = {"first/": self.first, "then/": self.then}
        return {
            stage + name: rows
            for stage, strategy in stages.items()
            for name, rows in strategy.summarize(outputs).items()
        }

    def select(  # noqa: D102
        self, pool: Summary, query_size: int, *, labeled: Summary | None, generator: Generator
    ) -> Selection:
        count = max(query_size, self._count(pool.shard.total))
        best = self.first.select(pool.part("first/"), count, labeled=None, generator=generator)
        kept = best.positions.cpu().sort().values
        labeled = None if labeled is None else labeled.part("then/")
        found = self.then.select(
            pool.part("then/").of_positions(kept), query_size, labeled=labeled, generator=generator
        )
        return Selection(kept[found.positions.cpu()], found.scores)

    def _count(self, total: int) -> int:
        """How many of so many are kept."""
        if isinstance(self.keep, int):
            return self.keep
        return math.ceil(round(self.keep * total, 6))  # 0.07 of 100 is a little more than 7


def _count_or_share(keep: Any) -> int | float:
    """As Python's own number, whose kind says which of the two it is."""
    if isinstance(keep, int | np.integer) and not isinstance(keep, bool) and keep >= 1:
        return int(keep)
    if isinstance(keep, float | np.floating):
        if 0 < keep <= 1:
            return float(keep)
        if 1 < keep < math.inf:
            raise ValueError(
                f"`keep` is {keep}; a float is a share of the pool, from above 0 to 1.0. For a number of "
                f"samples write `keep={math.ceil(keep)}`."
            )
    raise ValueError(
        f"`keep` is {keep!r}; needed is a number of samples, such as 1000, or a share of the pool, such as "
        "0.1."
    )


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float | np.integer | np.floating) and not isinstance(value, bool)


def shared_posterior(*strategies: Acquisition) -> Posterior:
    """The posterior that serves all of them in one pass over the pool.

    Raises:
        ValueError: If there is none.
    """
    many = [one for one in strategies if not isinstance(one.posterior, SinglePass)]
    if not many:
        return strategies[0].posterior
    chosen = many[0].posterior
    for one in strategies:
        same = one.posterior is chosen or (
            type(one.posterior) is type(chosen) and repr(one.posterior) == repr(chosen)
        )
        if not same and (one in many or set(one.needs) & set(STATISTICS)):
            takers = [s.base if isinstance(s, PowerSampling) else s for s in strategies]
            give = " and ".join(f"`{type(s).__name__}(posterior=passes)`" for s in takers)
            raise ValueError(
                f"{many[0]!r} scores by {chosen!r} and {one!r} by {one.posterior!r}; one pass over the pool "
                f"has one posterior. Make it once, `passes = {many[-1].posterior!r}`, and give it to "
                f"both: {give}."
            )
    return chosen

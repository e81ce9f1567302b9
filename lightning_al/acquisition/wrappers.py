"""WRAPPERS: strategies made of other strategies."""

from __future__ import annotations

import math

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
        ValueError: If `beta` is negative or `form` none of these.

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
        if beta < 0:
            raise ValueError(f"`beta` is {beta}; it must not be negative, or low scores would win.")
        if form not in ("power", "softmax", "softrank"):
            raise ValueError(f'`form` is {form!r}; needed is "power", "softmax" or "softrank".')
        self.base, self.beta, self.form = base, beta, form
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
        keep: How many of the best are left, or, below 1, which share of the pool; never fewer than asked for.

    Raises:
        TypeError: If `first` does not score samples one by one, or `then` is no strategy.
        ValueError: If the two need different posteriors, or `keep` is not positive.

    Example:
        >>> from lightning_al import acquisition as acq
        >>> TwoStage(acq.BALD(), then=acq.BatchBALD(acq.BALD().posterior), keep=0.1).keep
        0.1
    """

    def __init__(self, first: ScoreAcquisition, then: Acquisition, keep: float) -> None:
        if not isinstance(first, ScoreAcquisition) or not isinstance(then, Acquisition):
            raise TypeError(
                f"`TwoStage` was given {first!r} and {then!r}; needed are a `ScoreAcquisition`, such as "
                "`Margin()`, and any `Acquisition`."
            )
        if isinstance(keep, bool) or not isinstance(keep, int | float) or not 0 < keep < math.inf:
            raise ValueError(
                f"`keep` is {keep!r}; needed is a number of samples, such as 1000, or a share of the pool, "
                "such as 0.1."
            )
        if keep > 1 and keep != int(keep):
            raise ValueError(f"`keep` is {keep}; above 1 it is a number of samples, and must be whole.")
        if first.multilabel != then.multilabel:
            raise ValueError(
                f"`multilabel` is {first.multilabel} in {first!r} and {then.multilabel} in {then!r}; one "
                "model has one kind of outputs. Set both alike."
            )
        self.first, self.then, self.keep = first, then, keep
        self.posterior = shared_posterior(first, then)
        self.needs = tuple(dict.fromkeys([*first.needs, *then.needs]))
        self.needs_labeled, self.multilabel = then.needs_labeled, first.multilabel

    def check(self, samples: int) -> None:  # noqa: D102
        self.first.check(samples)
        self.then.check(samples)

    def summarize(self, outputs: Outputs) -> dict[str, Tensor]:  # noqa: D102
        first = {f"first/{name}": rows for name, rows in self.first.summarize(outputs).items()}
        return {**first, **self.then.summarize(outputs)}

    def select(  # noqa: D102
        self, pool: Summary, query_size: int, *, labeled: Summary | None, generator: Generator
    ) -> Selection:
        count = self.keep * pool.shard.total if self.keep < 1 else self.keep
        scores = Summary({"score": pool["first/score"]}, pool.shard) if "first/score" in pool else pool
        best = self.first.select(scores, max(query_size, math.ceil(count)), labeled=None, generator=generator)
        kept = best.positions.cpu().sort().values
        rest = pool.only(name for name in pool if not name.startswith("first/"))
        found = self.then.select(rest.of_positions(kept), query_size, labeled=labeled, generator=generator)
        return Selection(kept[found.positions.cpu()], found.scores)


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

"""WRAPPERS: strategies made of other strategies."""

from __future__ import annotations

from torch import Generator, Tensor

from lightning_al import functional as F
from lightning_al.acquisition.base import ScoreAcquisition
from lightning_al.functional.selection import PowerForm
from lightning_al.functional.shard import Shard
from lightning_al.inference.outputs import Outputs

__all__ = ["PowerSampling"]


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

"""REGRET: what a strategy cost where another was the better choice, and what follows for a default.

areas by seed of every study -> [judge] -> regrets, worst cases, which is chosen

The rule was written down before a comparison was looked at: the lowest worst-case regret decides, and of
those that seeds cannot tell from it the simplest is taken. Random sampling is the yardstick and no candidate;
nor is a strategy that some modules cannot be asked by.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from lightning_al import Comparison
from lightning_al.comparing.statistics import RESAMPLES, ends, mean_height

__all__ = ["SIMPLICITY", "Judged", "areas_of", "judge"]

Areas = Mapping[str, npt.NDArray[np.float64]]

#: What a strategy needs of a module and of whoever has to understand it; the fewer, the simpler.
SIMPLICITY: dict[str, int] = {
    "Margin": 0,  # one number of one pass, for any classifier
    "Entropy": 0,
    "PowerMargin": 1,  # and a draw
    "CoreSet": 2,  # embeddings too, and the choice of a set
    "DiverseMiniBatch": 2,
    "BADGE": 2,
}


@dataclass(frozen=True)
class Judged:
    """What came of the rule.

    Args:
        rows: One a strategy, the lowest worst case first.
        lowest: The strategy with the lowest worst case.
        chosen: The simplest within noise of it, among the candidates.
        random_within: Whether random sampling is within noise of the lowest, too.
    """

    rows: list[dict[str, Any]]
    lowest: str
    chosen: str
    random_within: bool


def areas_of(comparison: Comparison, metric: str, names: Sequence[str]) -> dict[str, npt.NDArray[np.float64]]:
    """Of every strategy the mean height of the curve, one a seed, for the seeds that all have ended."""
    curves = comparison.curves(metric)
    seeds = [seed for seed in comparison.seeds if all((name, seed) in curves for name in names)]
    return {
        name: np.array(
            [mean_height(*zip(*sorted(curves[name, seed].items()), strict=True)) for seed in seeds]
        )
        for name in names
    }


def judge(studies: Mapping[str, Areas], *, seed: int = 0, resamples: int = RESAMPLES) -> Judged:
    """The rule, on all studies.

    Args:
        studies: Of every study the areas of its strategies, one a seed; the strategies are the same in all.
        seed: Of the bootstrap.
        resamples: How often seeds are drawn, with replacement: for all strategies of a study the same, for
            each study its own.

    Example:
        >>> import numpy as np
        >>> flat = {"Random": np.full(5, 0.5), "Margin": np.full(5, 0.7), "BADGE": np.full(5, 0.8)}
        >>> judge({"one": flat}).chosen
        'BADGE'
    """
    names = list(next(iter(studies.values())))
    generator = np.random.default_rng(seed)
    found = {
        study: _regrets(np.stack([areas[n] for n in names])[:, None]) for study, areas in studies.items()
    }
    drawn = {
        study: _regrets(_resampled(areas, names, resamples, generator)) for study, areas in studies.items()
    }
    worst = np.max([regrets[:, 0] for regrets in found.values()], axis=0)
    worst_drawn = np.max(list(drawn.values()), axis=0)
    best = int(min(range(len(names)), key=lambda i: (names[i] not in SIMPLICITY, worst[i])))
    count = min(len(areas[names[0]]) for areas in studies.values())
    rows = []
    for i in np.argsort(worst, kind="stable"):
        beyond = ends(worst_drawn[i] - worst_drawn[best], count)
        own = ends(worst_drawn[i], count)
        row: dict[str, Any] = {"strategy": names[i]}
        for study, areas in studies.items():
            row |= {
                f"{study}_aubc": float(areas[names[i]].mean()),
                f"{study}_regret": float(found[study][i, 0]),
            }
        row |= {"worst": float(worst[i]), "worst_ci_low": float(own[0]), "worst_ci_high": float(own[1])}
        row |= {"beyond_lowest": float(worst[i] - worst[best])}
        row |= {"beyond_ci_low": float(beyond[0]), "beyond_ci_high": float(beyond[1])}
        row |= {"within_noise": bool(beyond[0] <= 0), "candidate": names[i] in SIMPLICITY}
        rows.append(row)
    near = [row["strategy"] for row in rows if row["within_noise"]]
    chosen = min((n for n in near if n in SIMPLICITY), key=lambda n: (SIMPLICITY[n], near.index(n)))
    return Judged(rows, names[best], chosen, "Random" in near)


def _resampled(
    areas: Areas, names: Sequence[str], resamples: int, generator: np.random.Generator
) -> npt.NDArray[np.float64]:
    """`(strategies, resamples, seeds)`."""
    values = np.stack([areas[name] for name in names])
    count = values.shape[1]
    found: npt.NDArray[np.float64] = values[:, generator.integers(count, size=(resamples, count))]
    return found


def _regrets(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Best mean minus own mean, of values `(strategies, resamples, seeds)`: `(strategies, resamples)`."""
    means = values.mean(axis=2)
    found: npt.NDArray[np.float64] = means.max(axis=0) - means
    return found

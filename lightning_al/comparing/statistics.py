"""STATISTICS: what a few seeds allow to be said, and no more.

values of paired seeds -> quantiles, bootstrap intervals, exact p-values, a penalty matrix

All of it is paired by seed: for one seed all strategies begin with the same labels and weights, so what
differs between them is the strategy. A target that was not reached is infinity, and stays one.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

__all__ = [
    "RESAMPLES", "bootstrap_mean", "bootstrap_ratio", "ends", "holm", "mean_height", "median",
    "penalty_matrix", "quantile", "sign_flip", "student_p", "t_statistic",
]  # fmt: skip

Array = npt.NDArray[np.float64]

RESAMPLES = 10_000
#: Of so many seeds all changes of sign are tried; of more, as many are drawn.
_EXACT = 20


def mean_height(labels: Sequence[float], values: Sequence[float]) -> float:
    """The area under a curve over the length of its budget, as `metrics.AreaUnderBudgetCurve`, in float64.

    Example:
        >>> round(mean_height([20, 30, 50], [0.5, 0.7, 0.8]), 6)
        0.7
    """
    x, y = np.asarray(labels, np.float64), np.asarray(values, np.float64)
    if len(x) < 2:
        return float(y[0]) if len(y) else math.nan
    return float(((y[1:] + y[:-1]) / 2 * np.diff(x)).sum() / (x[-1] - x[0]))


def quantile(values: Sequence[float] | Array, q: float) -> float:
    """A quantile by linear interpolation, in which infinity is a value beyond the budget.

    Between a number and infinity lies infinity: nothing smaller is known.

    Example:
        >>> quantile([40, 50, math.inf], 0.5), quantile([40, 50, math.inf, math.inf], 0.5)
        (50.0, inf)
    """
    ordered = np.sort(np.asarray(values, np.float64))
    if not len(ordered) or np.isnan(ordered).any():
        return math.nan
    place = q * (len(ordered) - 1)
    low, part = math.floor(place + 1e-9), place - math.floor(place + 1e-9)
    if part < 1e-9:
        return float(ordered[low])
    below, above = float(ordered[low]), float(ordered[low + 1])
    return above if math.isinf(above) else below + (above - below) * part


def median(values: Sequence[float] | Array) -> float:
    """The median; see `quantile`."""
    return quantile(values, 0.5)


# ---------------------------------------------------------------------- intervals


def ends(drawn: Array, count: int, level: float = 0.95) -> tuple[float, float]:
    """Of a bootstrapped mean, the expanded percentiles: those that are right for few seeds too.

    Plain percentiles know nothing of how little n values tell of their own spread: of five normal ones,
    "95 %" hold the mean 84 times in 100, these 93 times; of ten 90 and 94; of three, which no resampling
    makes wider than they are, 76. (By simulation, `tests/unit/comparing/test_statistics.py`.)

    Args:
        drawn: Means of resamples.
        count: How many values were drawn from, n.
        level: Share of such intervals that hold what is estimated.

    Returns:
        The quantiles Phi(-t sqrt(n / (n - 1))) and one less that, of Student's t of n - 1 degrees of freedom.

    References:
        Hesterberg, "What Teachers Should Know About the Bootstrap", The American Statistician 69(4), 2015,
        on the expanded percentile interval.

    Example:
        >>> low, high = ends(np.linspace(0, 1, 10_001), 5)
        >>> round(low, 4), round(high, 4)
        (0.001, 0.999)
    """
    wide = _student_quantile(1 - level, count - 1) * math.sqrt(count / (count - 1))
    tail = NormalDist().cdf(-wide)
    low, high = np.quantile(drawn, [tail, 1 - tail])
    return float(low), float(high)


def _student_quantile(p: float, df: int) -> float:
    """Beyond which lies `p` of Student's t, on both sides together."""
    low, high = 0.0, 1e9
    for _ in range(100):
        middle = (low + high) / 2
        low, high = (middle, high) if student_p(middle, df) > p else (low, middle)
    return high


def _drawn(count: int, seed: int, resamples: int) -> npt.NDArray[np.int64]:
    return np.random.default_rng(seed).integers(count, size=(resamples, count))


def bootstrap_mean(
    differences: Sequence[float], *, seed: int = 0, resamples: int = RESAMPLES, level: float = 0.95
) -> tuple[float, float]:
    """Interval of the mean of differences by seed, over seeds drawn with replacement; see `ends`.

    Args:
        differences: One a seed.
        seed: Of what is drawn.
        resamples: How often.
        level: Share of such intervals that hold the mean.

    Returns:
        Its ends; NaN of fewer than two seeds.

    Example:
        >>> bootstrap_mean([0.02, 0.02, 0.02])
        (0.02, 0.02)
    """
    found = np.asarray(differences, np.float64)
    if len(found) < 2:
        return math.nan, math.nan
    means = found[_drawn(len(found), seed, resamples)].mean(axis=1)
    return ends(means, len(found), level)


def bootstrap_ratio(
    labels: Sequence[float],
    base: Sequence[float],
    budget: float | tuple[Sequence[float], Sequence[float]],
    *,
    seed: int = 0,
    resamples: int = RESAMPLES,
    level: float = 0.95,
) -> tuple[tuple[float, float], tuple[float, float]]:
    """Labels a strategy needed over those the baseline needed: the ratio of medians, and its interval.

    A seed that never reached the target needed more than the budget, and how many more is not known. So a
    ratio is known to lie between two numbers, which are the same where both medians were reached; the
    interval begins at a percentile of the lower ones and ends at one of the upper ones.

    Args:
        labels: Of the strategy, one a seed; infinity: not within the budget.
        base: Of the baseline with the same seeds.
        budget: Most labels of a run: of all runs alike, or of those of the strategy and of the baseline.
        seed: Of what is drawn.
        resamples: How often seeds are drawn, with replacement, in pairs.
        level: Share of the ratios that lie within.

    Returns:
        What the ratio lies between, and the ends of its interval; NaN of fewer than two seeds.

    Example:
        >>> bootstrap_ratio([50, 50, 50], [100, 100, 100], 120)
        ((0.5, 0.5), (0.5, 0.5))
        >>> bootstrap_ratio([60, 60, 60], [math.inf, math.inf, math.inf], 120)[0]
        (0.0, 0.5)
    """
    most = np.asarray([labels, base], np.float64)
    least = np.where(np.isinf(most), np.broadcast_to(np.asarray(budget, np.float64), most.shape), most)
    ratio = _ratios(least[:, None], most[:, None])
    known = float(ratio[0][0]), float(ratio[1][0])
    if len(labels) < 2:
        return known, (math.nan, math.nan)
    rows = _drawn(len(labels), seed, resamples)
    low, high = _ratios(least[:, rows], most[:, rows])
    return known, (quantile(low, (1 - level) / 2), quantile(high, (1 + level) / 2))


def _ratios(least: Array, most: Array) -> tuple[Array, Array]:
    """At least and at most, of every row: of a strategy, the first, to its baseline, the second."""
    (least_own, least_other), (most_own, most_other) = map(_medians, least), map(_medians, most)
    return least_own / most_other, most_own / least_other


def _medians(rows: Array) -> Array:
    ordered, count = np.sort(rows, axis=1), rows.shape[1]
    median: Array = (ordered[:, (count - 1) // 2] + ordered[:, count // 2]) / 2
    return median


# ---------------------------------------------------------------------- tests


def sign_flip(differences: Sequence[float], *, seed: int = 0) -> tuple[float, float]:
    """Two-sided p-value of a mean difference of 0: were strategy and baseline the same, each sign is chance.

    All changes of sign are tried, for up to 20 seeds; beyond, a million are drawn. No distribution is
    assumed. With n seeds no p-value is below 2 / 2^n: five cannot tell below 0.0625.

    Args:
        differences: One a seed.
        seed: Of the signs that are drawn, of more than 20 seeds.

    Returns:
        The p-value, and the smallest that so many seeds could have given; NaN where a difference is.

    Example:
        >>> sign_flip([0.01, 0.02, 0.01, 0.03, 0.02])
        (0.0625, 0.0625)
    """
    found = np.asarray(differences, np.float64)
    if not len(found) or np.isnan(found).any():
        return math.nan, math.nan
    scale = np.abs(found).sum()
    least = abs(found.sum()) - 1e-9 * scale
    if len(found) <= _EXACT:
        sums = np.zeros(1)
        for value in found:
            sums = np.concatenate([sums + value, sums - value])
        return float((np.abs(sums) >= least).mean()), 2.0 / 2 ** len(found)
    draws, generator, beyond = 2**20, np.random.default_rng(seed), 1  # the signs that were found are one
    for _ in range(64):
        signs = generator.integers(0, 2, size=(draws // 64, len(found))) * 2 - 1
        beyond += int((np.abs(signs @ found) >= least).sum())
    return beyond / (draws + 1), 1 / (draws + 1)


def holm(p_values: Mapping[str, float]) -> dict[str, float]:
    """P-values corrected for how many there are, by Holm's step-down method; NaN stays.

    References:
        Holm, "A Simple Sequentially Rejective Multiple Test Procedure", 1979.

    Example:
        >>> holm({"a": 0.01, "b": 0.04, "c": 0.5})
        {'a': 0.03, 'b': 0.08, 'c': 0.5}
    """
    known = sorted((p, name) for name, p in p_values.items() if not math.isnan(p))
    corrected, last = dict(p_values), 0.0
    for place, (p, name) in enumerate(known):
        last = max(last, min(1.0, (len(known) - place) * p))
        corrected[name] = last
    return corrected


def t_statistic(differences: Sequence[float] | Array) -> float:
    """Of the paired t-test: mean over its standard error; 0 where all differences are 0."""
    found = np.asarray(differences, np.float64)
    if len(found) < 2:
        return math.nan
    mean, spread = float(found.mean()), float(found.std(ddof=1))
    if spread <= 1e-12 * float(np.abs(found).max()):  # all the same, up to rounding
        return math.copysign(math.inf, mean) if mean else 0.0
    return mean / spread * math.sqrt(len(found))


def student_p(t: float, df: int) -> float:
    """Two-sided p-value of Student's t with a whole number of degrees of freedom.

    References:
        Abramowitz & Stegun, "Handbook of Mathematical Functions", 1964, 26.7.3 and 26.7.4.

    Example:
        >>> round(student_p(2.7764451, 4), 6)
        0.05
    """
    if math.isinf(t):
        return 0.0
    angle = math.atan2(abs(t), math.sqrt(df))
    sine, cosine = math.sin(angle), math.cos(angle)
    odd = df % 2
    term = total = (cosine if odd else 1.0) if df > 1 else 0.0
    for k in range(3 if odd else 2, df - 1, 2):
        term *= (k - 1) / k * cosine**2
        total += term
    within = 2 / math.pi * (angle + sine * total) if odd else sine * total
    return min(1.0, max(0.0, 1.0 - within))


def penalty_matrix(values: Sequence[Array], *, level: float = 0.05) -> Array:
    """At what share of label counts one strategy is beaten by another.

    Args:
        values: Of every strategy `(seeds, counts)`, higher = better; seeds and counts the same for all.
        level: Of the paired two-sided t-test by which one beats the other.

    Returns:
        `(strategies, strategies)`: row i, column j is the share at which i is beaten by j.

    Example:
        >>> weak, strong = np.array([[0.5, 0.9], [0.6, 0.8]]), np.array([[0.6, 0.9], [0.7, 0.8]])
        >>> penalty_matrix([weak, strong])
        array([[0. , 0.5],
               [0. , 0. ]])
    """
    size, counts = len(values), values[0].shape[1]
    matrix = np.zeros((size, size))
    for i in range(size):
        for j in range(size):
            for place in range(counts if i != j else 0):
                t = t_statistic(values[j][:, place] - values[i][:, place])
                matrix[i, j] += t > 0 and student_p(t, len(values[i]) - 1) < level
    return matrix / counts if counts else matrix

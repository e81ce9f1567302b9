"""Slow definitions of disagreement, written from the papers: one sample, plain Python, float64."""

from __future__ import annotations

import math
from collections.abc import Sequence

from reference.scores import entropy

__all__ = [
    "bald",
    "consensus_kl",
    "gaussian_probit_bald",
    "mean",
    "mean_std",
    "predictive_variance",
    "variation_ratio",
    "vote_entropy",
    "vote_margin",
    "votes",
]

Row = Sequence[float]


def mean(passes: Sequence[Row]) -> list[float]:
    """What the passes say on average."""
    return [math.fsum(p[c] for p in passes) / len(passes) for c in range(len(passes[0]))]


def votes(passes: Sequence[Row]) -> list[int]:
    """How many passes find class c the most probable; of equal classes the first has the vote."""
    counts = [0] * len(passes[0])
    for p in passes:
        counts[list(p).index(max(p))] += 1
    return counts


def variation_ratio(passes: Sequence[Row]) -> float:
    """Freeman 1965, Gal 2017: 1 - f_mode / K."""
    return 1 - max(votes(passes)) / len(passes)


def mean_std(passes: Sequence[Row]) -> float:
    """Gal 2017: the mean over classes of the standard deviation over passes, sqrt(E[p^2] - E[p]^2)."""
    total = 0.0
    for c, average in enumerate(mean(passes)):
        total += math.sqrt(math.fsum((p[c] - average) ** 2 for p in passes) / len(passes))
    return total / len(passes[0])


def bald(passes: Sequence[Row]) -> float:
    """Houlsby 2011: entropy of the mean, less the mean of the entropies."""
    return entropy(mean(passes)) - math.fsum(entropy(p) for p in passes) / len(passes)


def vote_entropy(passes: Sequence[Row]) -> float:
    """Dagan & Engelson 1995: -sum over classes of V/K log V/K."""
    return entropy([count / len(passes) for count in votes(passes)])


def vote_margin(passes: Sequence[Row]) -> float:
    """One minus the difference of the two largest shares of the votes."""
    first, second = sorted(votes(passes), reverse=True)[:2]
    return 1 - (first - second) / len(passes)


def consensus_kl(passes: Sequence[Row]) -> float:
    """McCallum & Nigam 1998: mean over members of sum over classes of p log(p / consensus)."""
    consensus = mean(passes)
    divergences = [
        math.fsum(x * math.log(x / q) for x, q in zip(p, consensus, strict=True) if x > 0) for p in passes
    ]
    return math.fsum(divergences) / len(passes)


def predictive_variance(values: Row) -> float:
    """Mean squared deviation from the mean."""
    average = math.fsum(values) / len(values)
    return math.fsum((v - average) ** 2 for v in values) / len(values)


def gaussian_probit_bald(mu: float, sigma: float) -> float:
    """Houlsby 2011, in bits: the label is one with probability Phi(f), and f is normal(mu, sigma^2).

    h(Phi(mu / sqrt(sigma^2 + 1))) - c exp(-mu^2 / (2 (sigma^2 + c^2))) / sqrt(sigma^2 + c^2), where
    c = sqrt(pi log(2) / 2). The second term is an approximation, good to 0.002 bit.
    """
    p = 0.5 * math.erfc(-mu / math.sqrt(sigma**2 + 1) / math.sqrt(2))
    c = math.sqrt(math.pi * math.log(2) / 2)
    spread = sigma**2 + c**2
    return entropy([p, 1 - p], base=2) - c * math.exp(-(mu**2) / (2 * spread)) / math.sqrt(spread)

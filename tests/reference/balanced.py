"""Slow definition of a query with shares of classes, sample by sample."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from fractions import Fraction

__all__ = ["balanced_by_score", "quotas"]


def balanced_by_score(
    scores: Sequence[float], classes: Sequence[int], query_size: int, shares: Sequence[int]
) -> list[int]:
    """Again and again the class with the fewest picks for its share gives its best sample of those left.

    Webster: of classes with `n` picks and share `s`, the one where (2 n + 1) / s is least; of equal ones, the
    one whose best sample has the higher score, then the lower position. Classes without a share come last, by
    score.
    """
    left = sorted(range(len(scores)), key=lambda i: (-scores[i], i))
    picks: list[int] = []
    while left and len(picks) < query_size:
        taken = Counter(classes[i] for i in picks)
        heads = {classes[i]: i for i in reversed(left)}
        some = {c: i for c, i in heads.items() if shares[c]} or heads

        def claim(c: int, taken: Counter[int] = taken, some: dict[int, int] = some):
            quotient = Fraction(2 * taken[c] + 1, shares[c]) if shares[c] else 0
            return quotient, -scores[some[c]], some[c]

        best = some[min(some, key=claim)]
        picks.append(best)
        left.remove(best)
    return picks


def quotas(counts: Sequence[int], shares: Sequence[int], query_size: int) -> list[set[int]]:
    """How many picks every class may get, where equal claims are settled by chance; for few classes."""
    found = set()

    def give(taken: tuple[int, ...]) -> None:
        room = [c for c, count in enumerate(counts) if taken[c] < count]
        if sum(taken) == query_size or not room:
            found.add(taken)
            return
        some = [c for c in room if shares[c]] or room
        claims = {c: Fraction(2 * taken[c] + 1, shares[c]) if shares[c] else 2 * taken[c] + 1 for c in some}
        for c in some:
            if claims[c] == min(claims.values()) or not shares[c]:
                give((*taken[:c], taken[c] + 1, *taken[c + 1 :]))

    give((0,) * len(counts))
    return [{one[c] for one in found} for c in range(len(counts))]

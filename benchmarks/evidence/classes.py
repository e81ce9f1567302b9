"""CLASSES: what the acquired labels are of, against what chance would have brought.

ledgers, Source -> [fine_counts], [chance], [entropy_rows] -> counts, entropies, and how many runs fell below
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.evidence.data import Source
from benchmarks.evidence.studies import Study, indices_of
from lightning_al import Comparison
from lightning_al.class_entropy import class_entropy

__all__ = ["acquired", "chance", "fallen", "fine_counts", "mean_words"]

Counts = npt.NDArray[np.int64]


def fine_counts(study: Study, source: Source, comparison: Comparison) -> dict[str, Counts]:
    """As `Comparison.class_counts`, of the finer classes: `(seeds, rounds, classes)` of every strategy."""
    if source.fine is None:
        raise ValueError(f"{study.title} has no finer classes; needed is a `Source` with `fine`. Use TREC.")
    fine, found = source.fine.numpy(), dict[str, list[Counts]]()
    for strategy, rounds in _labeled(study, source, comparison):
        counts = [np.bincount(fine[samples], minlength=int(fine.max()) + 1) for samples in rounds]
        found.setdefault(strategy, []).append(np.stack(counts))
    return {name: np.stack(runs) for name, runs in found.items()}


def mean_words(study: Study, source: Source, comparison: Comparison) -> dict[str, float]:
    """How long the questions are that queries brought: the mean of all runs of every strategy."""
    words, found = np.array([len(one) for one in source.train.inputs]), dict[str, list[float]]()
    for strategy, rounds in _labeled(study, source, comparison):
        found.setdefault(strategy, []).append(float(words[np.concatenate(rounds[1:])].mean()))
    return {name: float(np.mean(values)) for name, values in found.items()}


def _labeled(study: Study, source: Source, comparison: Comparison) -> Iterator[tuple[str, list[Counts]]]:
    """Of every run that has ended, round by round the training samples that were labelled."""
    for table in comparison.ended:
        order = indices_of(study, source, table.run.seed).numpy()
        rounds: list[list[int]] = [[] for _ in range(study.rounds + 1)]
        for _, event in table.run.ledger.events():
            if event.kind == "labeled" and event.round is not None:
                rounds[event.round].append(event.sample)
        yield table.run.strategy, [order[np.array(samples, np.int64)] for samples in rounds]


def acquired(counts: Mapping[str, Counts]) -> dict[str, Counts]:
    """All that queries brought until each round, from the first query on: `(seeds, queries, classes)`."""
    return {name: array[:, 1:].cumsum(axis=1) for name, array in counts.items()}


def chance(
    pool: npt.NDArray[Any], sizes: npt.NDArray[Any], *, seed: int = 0, draws: int = 4_000
) -> npt.NDArray[np.float64]:
    """Entropies of so many labels drawn at random: the 2.5 %, 50 % and 97.5 % points, `(3, sizes)`.

    Args:
        pool: Samples a class.
        sizes: Labels.
        seed: Of the draws.
        draws: How many.

    Example:
        >>> chance(np.array([50, 50]), np.array([100])).round(4).ravel().tolist()
        [0.6931, 0.6931, 0.6931]
    """
    generator = np.random.default_rng(seed)
    found = [
        np.quantile(
            class_entropy(generator.multivariate_hypergeometric(pool, int(n), draws)), [0.025, 0.5, 0.975]
        )
        for n in sizes
    ]
    return np.stack(found, axis=1)


def fallen(counts: Counts, pool: npt.NDArray[Any]) -> npt.NDArray[np.int64]:
    """After every query, how many seeds have less entropy than 97.5 % of random draws of as many labels.

    Args:
        counts: Acquired until then, `(seeds, queries, classes)`.
        pool: Samples a class.
    """
    least = chance(pool, counts[0].sum(axis=1))[0]
    found: npt.NDArray[np.int64] = (class_entropy(counts) < least).sum(axis=0)
    return found

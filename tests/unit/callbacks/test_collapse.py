"""The test of the class balance: calibrated, exact where it can be counted, and able to find a collapse."""

import math
from collections import Counter
from itertools import combinations, product

import numpy as np
import pytest

from lightning_al.callbacks.collapse import Reference, compared

POOLS = {
    "even": np.full(10, 0.1),
    "skewed": np.array([0.82] + [0.02] * 9),
    "zipf": 1 / np.arange(1, 11) / (1 / np.arange(1, 11)).sum(),
    "two": np.array([0.73, 0.27]),
    "many": np.full(60, 1 / 60),
}


@pytest.mark.parametrize("pool", POOLS)
@pytest.mark.parametrize(("initial", "query"), [(10, 10), (20, 100), (20, 5), (100, 40)])
def test_random_draws_are_warned_of_no_more_often_than_the_level_says(pool, initial, query):
    """However few the initial labels are: 1,000 seeds, within three standard errors."""
    rng = np.random.default_rng(0)
    level, repeats = 0.05, 1000
    alarms = 0
    for _ in range(repeats):
        reference = Reference(rng.multinomial(initial, POOLS[pool]))
        acquired = rng.multinomial(query, POOLS[pool])
        alarms += compared(acquired, reference, draws=199, rng=rng).p <= level
    assert alarms / repeats <= level + 3 * math.sqrt(level * (1 - level) / repeats)


def test_it_is_calibrated_with_a_known_population_and_with_shares_too():
    rng = np.random.default_rng(0)
    population, alarms = np.array([40, 30, 20, 10, 5]), [0, 0]
    for _ in range(1000):
        drawn = rng.multivariate_hypergeometric(population, 60)
        alarms[0] += compared(drawn, Reference(population=population), draws=199, rng=rng).p <= 0.05
        drawn = rng.multinomial(60, population / population.sum())
        alarms[1] += compared(drawn, Reference(shares=population / 7), draws=199, rng=rng).p <= 0.05
    assert all(25 <= count <= 50 + 3 * math.sqrt(1000 * 0.05 * 0.95) for count in alarms)


@pytest.mark.parametrize(("initial", "query", "found"), [(20, 10, 0.9), (20, 100, 0.99), (100, 100, 0.99)])
def test_a_collapse_to_three_of_ten_classes_is_found(initial, query, found):
    rng = np.random.default_rng(0)
    few = np.array([1 / 3] * 3 + [0.0] * 7)
    alarms = 0
    for _ in range(200):
        reference = Reference(rng.multinomial(initial, POOLS["even"]))
        alarms += compared(rng.multinomial(query, few), reference, draws=999, rng=rng).p < 0.01
    assert alarms / 200 >= found


def entropy(labels):
    return -sum(n / len(labels) * math.log(n / len(labels)) for n in Counter(labels).values())


def test_p_is_the_share_of_divisions_with_an_entropy_as_low():
    sample, acquired = [0, 0, 1, 2, 2], [1, 1, 1, 2]
    both = sample + acquired
    entropies = [entropy(part) for part in combinations(both, len(acquired))]
    exact = np.mean([value <= entropy(acquired) + 1e-9 for value in entropies])
    found = compared(
        np.array([0, 3, 1]), Reference(np.array([2, 1, 2])), draws=40_000, rng=np.random.default_rng(0)
    )
    assert found.entropy == pytest.approx(entropy(acquired))
    assert found.p == pytest.approx(exact, abs=4 * math.sqrt(exact / 40_000))
    assert found.random_entropy == pytest.approx(np.mean(entropies), abs=0.01)
    assert found.expected.tolist() == [1.6, 0.8, 1.6]


def test_p_of_shares_is_that_of_independent_draws():
    shares, acquired = [0.5, 0.3, 0.2], [1, 1, 1, 0]
    low = sum(
        math.prod(shares[i] for i in draw)
        for draw in product(range(3), repeat=4)
        if entropy(draw) <= entropy(acquired) + 1e-9
    )
    reference = Reference(shares=10 * np.array(shares))
    found = compared(np.array([1, 3, 0]), reference, draws=40_000, rng=np.random.default_rng(0))
    assert found.p == pytest.approx(low, abs=4 * math.sqrt(low / 40_000))


def test_p_is_never_zero_and_one_label_says_nothing():
    rng = np.random.default_rng(0)
    assert compared(np.array([99, 0]), Reference(shares=np.array([1.0, 1.0])), draws=99, rng=rng).p == 0.01
    assert compared(np.array([1, 0]), Reference(shares=np.array([1.0, 1.0])), draws=99, rng=rng).p == 1
    assert compared(np.array([4, 0]), Reference(np.array([3, 0])), draws=99, rng=rng).p == 1


def test_draws_of_many_classes_are_made_in_pieces_and_come_out_the_same(monkeypatch):
    acquired, sample = np.array([5, 1, 0, 2]), np.array([3, 3, 3, 3])
    whole = compared(acquired, Reference(sample), draws=500, rng=np.random.default_rng(1))
    monkeypatch.setattr("lightning_al.callbacks.collapse._CHUNK", 40)
    pieces = compared(acquired, Reference(sample), draws=500, rng=np.random.default_rng(1))
    assert pieces.p == whole.p
    assert pieces.random_entropy == pytest.approx(whole.random_entropy)


def test_the_starved_are_named_those_that_lack_most_first():
    reference = Reference(shares=np.array([4.0, 3.0, 2.0, 1.0]))
    found = compared(np.array([0, 10, 0, 0]), reference, draws=99, rng=np.random.default_rng(0))
    assert found.starved(["a", "b", "c", "d"]) == (
        "a (0, expected 4.0), c (0, expected 2.0), d (0, expected 1.0)"
    )
    many = compared(
        np.eye(20, dtype=int)[0] * 40, Reference(shares=np.ones(20)), draws=9, rng=np.random.default_rng()
    )
    assert many.starved([str(n) for n in range(20)]).endswith("8 (0, expected 2.0) and 11 more")

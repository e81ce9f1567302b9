"""Each against a slow definition, or scipy."""

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from lightning_al.comparing.statistics import (
    bootstrap_mean,
    bootstrap_ratio,
    holm,
    mean_height,
    median,
    penalty_matrix,
    quantile,
    sign_flip,
    student_p,
    t_statistic,
)
from lightning_al.metrics import AreaUnderBudgetCurve

numbers = st.floats(-1, 1).map(lambda x: round(x, 3))


@given(st.lists(st.tuples(st.integers(1, 30), numbers), min_size=1, max_size=9))
def test_the_mean_height_is_that_of_the_metric(points):
    labels = np.cumsum([step for step, _ in points]).tolist()
    values = [value for _, value in points]
    metric = AreaUnderBudgetCurve()
    metric.update(torch.tensor(labels), torch.tensor(values))
    assert mean_height(labels, values) == pytest.approx(float(metric.compute()), abs=1e-5)


@given(st.lists(numbers, min_size=1, max_size=12), st.floats(0, 1))
def test_quantiles_of_numbers_are_numpys(values, q):
    assert quantile(values, q) == pytest.approx(np.quantile(values, q), abs=1e-6)


def test_what_lies_between_a_number_and_infinity_is_infinity():
    inf = math.inf
    assert [quantile([1, 2, inf, inf], q) for q in (0.25, 1 / 3, 0.5, 0.75, 1)] == [1.75, 2, inf, inf, inf]
    assert median([1, 2, inf]) == 2
    assert median([inf, inf]) == inf
    assert math.isnan(median([1, math.nan]))
    assert math.isnan(median([]))


def test_the_interval_of_a_mean_is_that_of_scipy():
    found = np.random.default_rng(1).normal(0.02, 0.03, 8)
    low, high = bootstrap_mean(found, seed=3)
    tail = stats.norm.cdf(stats.t.ppf(0.025, 7) * math.sqrt(8 / 7))  # of the expanded percentiles
    theirs = stats.bootstrap(
        (found,), np.mean, n_resamples=20_000, method="percentile", confidence_level=1 - 2 * tail,
        rng=np.random.default_rng(0),
    ).confidence_interval  # fmt: skip
    assert low == pytest.approx(theirs.low, abs=2e-3)
    assert high == pytest.approx(theirs.high, abs=2e-3)
    assert bootstrap_mean(found, seed=3) == (low, high)


@pytest.mark.parametrize(
    ("count", "least", "most"), [(3, 0.73, 0.79), (5, 0.91, 0.95), (10, 0.92, 0.96), (20, 0.93, 0.97)]
)
def test_intervals_hold_the_mean_as_often_as_is_said(count, least, most):
    """Of normal values; plain percentiles hold it 84 times in 100 for five and 90 for ten."""
    generator = np.random.default_rng(0)
    held = 0
    for _ in range(1000):
        low, high = bootstrap_mean(generator.normal(size=count), resamples=2000)
        held += low <= 0 <= high
    assert least <= held / 1000 <= most
    assert all(math.isnan(end) for end in bootstrap_mean([0.1]))


def slow_ratios(own, base, budget, rows):
    """All that a ratio may be: misses stand for the budget, and for any number above it."""
    low, high = [], []
    for row in rows:
        a, b = sorted(own[i] for i in row), sorted(base[i] for i in row)
        n = len(row)

        def middle(values, miss):
            known = sorted(miss if math.isinf(v) else v for v in values)
            return (known[(n - 1) // 2] + known[n // 2]) / 2  # noqa: B023

        low.append(middle(a, budget) / middle(b, math.inf))
        high.append(middle(a, math.inf) / middle(b, budget))
    return low, high


@pytest.mark.parametrize(
    ("own", "base"),
    [
        ([30, 40, 50, 40, 60], [60, 70, 50, 80, 90]),
        ([30, 40, math.inf, 40, 60], [60, math.inf, 50, math.inf, 90]),
        ([math.inf] * 5, [50, 60, 70, 60, 50]),
        ([30, 40, 50, 40, 60], [math.inf] * 5),
        ([math.inf] * 5, [math.inf] * 5),
    ],
)
def test_the_interval_of_a_ratio_holds_all_that_misses_may_mean(own, base):
    (low, high), (begin, end) = bootstrap_ratio(own, base, 100, seed=5, resamples=400)
    assert ([low], [high]) == slow_ratios(own, base, 100, [range(5)])
    rows = np.random.default_rng(5).integers(5, size=(400, 5))
    lows, highs = slow_ratios(own, base, 100, rows)
    assert begin == quantile(lows, 0.025)
    assert end == quantile(highs, 0.975)
    assert begin <= low <= high <= end


def test_a_ratio_without_misses_is_one_number():
    assert bootstrap_ratio([40, 50, 60], [80, 100, 120], 200) == ((0.5, 0.5), (0.5, 0.5))
    assert all(math.isnan(x) for x in bootstrap_ratio([40], [80], 200)[1])


def slow_sign_flip(differences):
    total = abs(sum(differences))
    sums = [
        abs(sum(s * d for s, d in zip(signs, differences, strict=True)))
        for signs in itertools.product((1, -1), repeat=len(differences))
    ]
    return sum(value >= total - 1e-12 for value in sums) / len(sums)


@given(st.lists(numbers, min_size=1, max_size=8))
def test_sign_flips_are_all_tried(differences):
    p, smallest = sign_flip(differences)
    assert p == pytest.approx(slow_sign_flip(differences))
    assert smallest == 2 / 2 ** len(differences)


def test_of_what_is_no_number_nothing_is_known():
    for found in ([math.nan, 0.1, 0.2], [math.nan] * 25, []):
        assert all(math.isnan(value) for value in sign_flip(found))


def test_sign_flips_are_scipys_permutation_test():
    found = np.random.default_rng(0).normal(0.01, 0.03, 9)
    theirs = stats.permutation_test(
        (found, np.zeros(9)), lambda a, b, axis: (a - b).mean(axis=axis), permutation_type="samples",
        n_resamples=np.inf, vectorized=True,
    )  # fmt: skip
    assert sign_flip(found)[0] == pytest.approx(theirs.pvalue)


def test_of_many_seeds_signs_are_drawn_the_same_each_time():
    found = np.random.default_rng(0).normal(0.012, 0.03, 24)
    p, smallest = sign_flip(found, seed=1)
    assert (p, smallest) == sign_flip(found, seed=1)
    assert p == pytest.approx(stats.ttest_1samp(found, 0).pvalue, abs=0.01)
    assert 0 < smallest < 1e-5
    assert sign_flip([1.0] * 30)[0] == pytest.approx(smallest)


def slow_holm(p_values):
    """Step down: a hypothesis falls at a level if all smaller ones fall, each by its own share of it."""
    order = sorted(p_values, key=lambda name: p_values[name])

    def falls(name, level):
        upto = order[: order.index(name) + 1]
        return all(p_values[other] <= level / (len(order) - k) for k, other in enumerate(upto))

    levels = sorted({min(1.0, p * k) for p in p_values.values() for k in range(1, len(order) + 1)} | {1.0})
    return {name: next((x for x in levels if falls(name, x * (1 + 1e-12))), 1.0) for name in order}


@given(st.lists(st.floats(0.001, 1), min_size=1, max_size=6, unique=True))
def test_holms_correction_is_the_smallest_level_at_which_all_smaller_ones_fall(values):
    given = {str(place): value for place, value in enumerate(values)}
    assert holm(given) == pytest.approx(slow_holm(given))


def test_holm_leaves_out_what_is_no_number():
    found = holm({"a": 0.02, "b": math.nan, "c": 0.5})
    assert (found["a"], found["c"]) == (0.04, 0.5)
    assert math.isnan(found["b"])


@pytest.mark.parametrize("df", [1, 2, 3, 4, 7, 10, 29])
def test_students_p_is_scipys(df):
    for t in (0.0, 0.3, 1.0, 2.776, 8.0, -2.0):
        assert student_p(t, df) == pytest.approx(2 * stats.t.sf(abs(t), df), abs=1e-12)
    assert student_p(math.inf, df) == 0


def test_t_is_that_of_the_paired_test():
    a, b = np.random.default_rng(0).normal(size=(2, 6))
    assert t_statistic(a - b) == pytest.approx(stats.ttest_rel(a, b).statistic)
    assert t_statistic([0.0, 0.0]) == 0
    assert t_statistic([0.1, 0.1]) == math.inf
    assert t_statistic([0.3 - 0.2, 0.4 - 0.3]) == math.inf  # the same up to rounding
    assert math.isnan(t_statistic([0.1]))


def test_a_penalty_is_for_each_count_at_which_a_t_test_says_so():
    generator = np.random.default_rng(4)
    values = [generator.normal(height, 0.05, size=(5, 7)) for height in (0.5, 0.55, 0.6)]
    expected = np.zeros((3, 3))
    for i, j in itertools.permutations(range(3), 2):
        for place in range(7):
            test = stats.ttest_rel(values[j][:, place], values[i][:, place])
            expected[i, j] += (test.statistic > 0 and test.pvalue < 0.05) / 7
    assert penalty_matrix(values) == pytest.approx(expected)
    assert 0 < expected[0, 2] <= 1
    assert expected[2, 0] == 0


def test_a_tie_is_for_nobody():
    same = np.array([[0.5, 0.6], [0.7, 0.8]])
    assert not penalty_matrix([same, same]).any()

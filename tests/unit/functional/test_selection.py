import math
from collections import Counter

import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from hypothesis import given
from reference import selection as slow
from scipy.stats import chi2

from lightning_al import functional as F
from lightning_al.functional import Shard
from unit.ranks import counting, on_ranks

FORMS = ["power", "softmax", "softrank"]
SIZES = st.integers(1, 12)
#: Few different values: ties are the rule.
SCORES = st.lists(st.sampled_from([0.0, 0.25, 0.5, 1.0, math.inf]), max_size=10)


def select(kind, scores, query_size, **options):
    if kind == "top_k":
        return F.top_k(scores, query_size, **options)
    generator = torch.Generator().manual_seed(7)
    return F.power_sample(scores, query_size, form=kind, generator=generator, **options)


@given(scores=SCORES, query_size=SIZES)
def test_top_k_equals_its_definition(scores, query_size):
    tensor = torch.tensor(scores)
    positions, values = F.top_k(tensor, query_size, return_scores=True)
    assert positions.tolist() == slow.top_k(scores, query_size)
    assert torch.equal(values, tensor[positions])
    assert positions.dtype == torch.long


@pytest.mark.parametrize("kind", ["top_k", *FORMS])
@given(scores=SCORES, query_size=SIZES)
def test_selections_are_distinct_in_range_and_greedy(kind, scores, query_size):
    tensor = torch.tensor(scores)
    positions, values = select(kind, tensor, query_size, return_scores=True)
    assert len(positions) == min(query_size, len(scores)) == len(set(positions.tolist()))
    assert all(0 <= p < len(scores) for p in positions.tolist())
    assert torch.equal(values, tensor[positions])
    assert torch.equal(select(kind, tensor, query_size), positions)  # the same generator, the same picks
    for fewer in range(1, len(positions)):
        assert torch.equal(select(kind, tensor, fewer), positions[:fewer])


@pytest.mark.parametrize("kind", ["top_k", *FORMS])
@pytest.mark.parametrize("world_size", [1, 2, 3, 4])
@pytest.mark.parametrize("total", [0, 1, 3, 5, 23])
def test_rows_cut_over_ranks_select_as_the_whole_does(kind, world_size, total):
    generator = torch.Generator().manual_seed(total)
    scores = torch.rand(total, generator=generator).mul(5).round() / 5  # ties, zeros
    for query_size in (1, 4, 40):
        whole = select(kind, scores, query_size, return_scores=True)
        found = on_ranks(
            world_size, total, 2,
            lambda shard, k=query_size: select(
                kind, scores[shard.positions], k, shard=shard, return_scores=True
            ),
        )  # fmt: skip
        for positions, values in found:
            assert torch.equal(positions, whole[0])
            assert torch.equal(values, whole[1])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("kind", ["top_k", *FORMS])
def test_every_float_type_is_taken(kind, dtype):
    scores = torch.tensor([0.5, 0.25, 0.75, 0.5]).to(dtype)
    positions, values = select(kind, scores, 3, return_scores=True)
    assert torch.equal(positions, select(kind, scores.double(), 3))
    assert values.dtype == dtype


def test_minus_infinity_comes_last():
    scores = torch.tensor([-math.inf, 1.0, -math.inf, math.inf])
    assert F.top_k(scores, 4).tolist() == [3, 1, 0, 2]
    drawn = F.power_sample(scores, 4, form="softmax", generator=torch.Generator())
    assert drawn.tolist()[:2] == [3, 1]


def test_a_large_pool_with_ties_at_the_edge():
    scores = torch.zeros(10_000)
    scores[5000:] = 1
    assert F.top_k(scores, 3).tolist() == [5000, 5001, 5002]
    assert F.top_k(scores, 5002).tolist() == [*range(5000, 10_000), 0, 1]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(
    ("scores", "beta"),
    [([0.1, 0.4, 0.2, 0.3], 1.0), ([0.5, 0.5, 1.0, 0.2], 2.0), ([0.3, 0.1, 0.9, 0.9], 0.0)],
)
def test_draws_follow_the_law_of_drawing_without_replacement(form, scores, beta):
    law = slow.law_of_draws(slow.strengths(scores, beta, form), 2)
    assert_follows(law, torch.tensor(scores), beta, form)


def test_of_zero_scores_every_order_is_as_likely():
    law = slow.law_of_draws([0.0, 0.0, 1.0, 0.0], 2)
    assert_follows(law, torch.tensor([0.0, 0.0, 1.0, 0.0]), 1.0, "power", draws=20_000)


def assert_follows(law, scores, beta, form, draws=3000):
    generator = torch.Generator().manual_seed(0)
    counts = Counter(
        tuple(F.power_sample(scores, 2, beta, form=form, generator=generator).tolist()) for _ in range(draws)
    )
    assert all(law[key] > 0 for key in counts)
    possible = {key: p for key, p in law.items() if p > 0}
    statistic = sum((counts[key] - draws * p) ** 2 / (draws * p) for key, p in possible.items())
    assert statistic < chi2.isf(1e-3, len(possible) - 1)


@pytest.mark.parametrize("form", FORMS)
def test_infinite_beta_is_top_k(form):
    scores = torch.tensor([0.5, 1.0, 0.0, 2.0, 1.0])
    drawn = F.power_sample(scores, 5, math.inf, form=form, generator=torch.Generator())
    assert torch.equal(drawn, F.top_k(scores, 5))


@pytest.mark.parametrize("form", FORMS)
def test_a_very_large_beta_draws_the_highest(form):
    scores = torch.tensor([0.5, 0.9, 0.1, 2.0])
    drawn = F.power_sample(scores, 2, 1e4, form=form, generator=torch.Generator())
    assert drawn.tolist() == [3, 1]


def test_without_a_generator_torchs_global_one_is_used():
    torch.manual_seed(3)
    first = F.power_sample(torch.ones(50), 10)
    second = F.power_sample(torch.ones(50), 10)
    torch.manual_seed(3)
    assert torch.equal(F.power_sample(torch.ones(50), 10), first)
    assert not torch.equal(first, second)


@pytest.mark.parametrize("kind", ["top_k", *FORMS])
def test_bad_arguments_of_selections(kind):
    for query_size in (0, -1):
        with pytest.raises(ValueError, match=rf"`query_size` is {query_size}; it must be at least 1"):
            select(kind, torch.ones(3), query_size)
    with pytest.raises(ValueError, match=r"shape \(3, 2\).*one number a sample.*Reduce"):
        select(kind, torch.ones(3, 2), 1)
    with pytest.raises(ValueError, match=r"NaN at positions \[1\].*no order.*Find out"):
        select(kind, torch.tensor([0.0, math.nan]), 1)
    with pytest.raises(ValueError, match=r"2 rows, but `shard` says that 3"):
        select(kind, torch.ones(2), 1, shard=Shard.whole(3))


def test_nan_is_named_by_its_global_position():
    shard = Shard(torch.tensor([4, 5, 9]), 10)
    with pytest.raises(ValueError, match=r"\[9\]"):
        F.top_k(torch.tensor([0.0, 1.0, math.nan]), 1, shard=shard)


def test_bad_arguments_of_power_sampling():
    with pytest.raises(ValueError, match=r"`beta` is -1.*must not be negative"):
        F.power_sample(torch.ones(2), 1, -1.0)
    with pytest.raises(ValueError, match=r"`form` is 'gumbel'; needed is \"power\""):
        F.power_sample(torch.ones(2), 1, form="gumbel")
    with pytest.raises(ValueError, match=r"score of -0\.5.*softrank"):
        F.power_sample(torch.tensor([1.0, -0.5]), 1)
    assert len(F.power_sample(torch.tensor([1.0, -0.5]), 2, form="softrank")) == 2


@pytest.mark.parametrize("select", [F.top_k, F.power_sample])
def test_arrays_and_sizes_that_are_not_whole_are_refused(select):
    with pytest.raises(TypeError, match=r"`scores` is a `ndarray`; needed is a tensor. Pass `torch.as"):
        select(np.zeros(3), 2)
    for size in (2.0, True, "2"):
        with pytest.raises(TypeError, match=rf"`query_size` is {size!r}; needed is a whole number.*`int`"):
            select(torch.zeros(3), size)
    with pytest.raises(ValueError, match=r"`query_size` is 0; it must be at least 1"):
        select(torch.zeros(3), 0)
    assert len(select(torch.zeros(3), np.int64(2))) == 2


def test_ranks_tell_each_other_scores_of_the_drawn_only():
    scores = torch.rand(5000, generator=torch.Generator().manual_seed(0))
    told = []

    def work(shard):
        shard, generator = counting(shard, told), torch.Generator().manual_seed(1)
        mine = scores[shard.positions]
        return F.power_sample(mine, 10, generator=generator, shard=shard, return_scores=True)

    for positions, found in on_ranks(3, 5000, 700, work):
        assert torch.equal(found, scores[positions])
    assert sum(told) < 3 * 10 * 4

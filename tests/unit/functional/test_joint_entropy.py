import math
import warnings

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given
from reference import joint_entropy as slow

from lightning_al.functional import Shard, bald, batch_bald, joint_entropy, top_k
from unit.ranks import on_ranks

pytestmark = pytest.mark.filterwarnings("ignore:`batch_bald`. after:UserWarning")


def predictions(rows, samples, classes, seed=0, spread=1.0):
    """Like a partly trained net under dropout: some sure, some not, samples that agree on what is near."""
    generator = torch.Generator().manual_seed(seed)
    inputs = torch.randn(rows, 8, generator=generator, dtype=torch.float64)
    weight = torch.randn(8, classes, generator=generator, dtype=torch.float64)
    noise = torch.randn(samples, 8, classes, generator=generator, dtype=torch.float64)
    scale = 0.2 + torch.rand(rows, 1, 1, generator=generator, dtype=torch.float64)
    return (scale * torch.einsum("nd,kdc->nkc", inputs, weight + spread * noise)).softmax(-1)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def select(mc_probs, query_size, **options):
    return batch_bald(mc_probs, query_size, generator=seeded(), **options)


@st.composite
def small_pools(draw):
    """Rows of few different values: equal rows, certain ones and ties are common."""
    rows, samples, classes = draw(st.integers(0, 6)), draw(st.integers(2, 4)), draw(st.integers(2, 3))
    weights = st.lists(st.sampled_from([0, 0, 1, 2, 7]), min_size=classes, max_size=classes)
    entries = [[draw(weights.filter(sum)) for _ in range(samples)] for _ in range(rows)]
    table = torch.tensor(entries, dtype=torch.float64).reshape(rows, samples, classes)
    return table / table.sum(-1, keepdim=True)


@given(pool=small_pools(), query_size=st.integers(1, 4))
def test_picks_and_scores_equal_the_definition(pool, query_size):
    for exact, same in ((False, 1e-6), (True, 1e-12)):
        positions, information = select(pool, query_size, exact=exact, return_scores=True)
        rows, values = slow.greedy(pool.numpy(), query_size, same)
        assert positions.tolist() == rows
        assert positions.dtype == torch.long
        assert information.tolist() == pytest.approx(values, abs=1e-5 if same == 1e-6 else 1e-9)


@pytest.mark.parametrize("seed", range(8))
def test_three_picks_of_realistic_predictions_equal_brute_force(seed):
    pool = predictions(12, 7, 4, seed)
    positions, information = select(pool.float(), 3, return_scores=True)
    rows, values = slow.greedy(pool.numpy(), 3)
    assert positions.tolist() == rows
    assert information.tolist() == pytest.approx(values, abs=2e-6)


def test_one_pick_is_that_of_bald():
    pool = predictions(40, 10, 5)
    scores = bald(pool)
    position, information = select(pool, 1, return_scores=True)
    assert position.tolist() == top_k(scores, 1).tolist()
    assert float(information) == pytest.approx(float(scores.max()), abs=1e-6)


@pytest.mark.parametrize("exact", [False, True])
@pytest.mark.parametrize("seed", range(5))
def test_picks_are_those_of_evaluating_every_candidate(monkeypatch, exact, seed):
    pool = predictions(150, 20, 6, seed, spread=0.4)
    options = {"num_joint_samples": 2000, "exact": exact, "return_scores": True}
    evaluated = count_evaluations(monkeypatch)
    fast = select(pool, 14, **options)
    assert sum(evaluated) < 0.5 * 14 * 150  # bounds spare most evaluations on many paths
    monkeypatch.setattr(joint_entropy._Paths, "merged", lambda paths: paths)
    full = select(pool, 14, **options)
    assert torch.equal(fast[0], full[0])
    assert torch.allclose(fast[1], full[1], rtol=0, atol=1e-5)


def test_misleading_bounds_cost_time_but_no_pick(monkeypatch):
    held, paths = paths_after(predictions(60, 12, 5), range(8), 2000, seeded())
    held.width = 1  # the first bound to fall short ends the search
    full, gains = held.gains(held.open, paths), held.gains
    for seed in range(20):
        slack = 0.2 * torch.rand(60, generator=seeded(seed))
        monkeypatch.setattr(
            held, "gains", lambda rows, by, s=slack: gains(rows, by) + (by is not paths) * s[rows]
        )
        found = held._highest_gains(paths)
        spared = found == -torch.inf
        assert 0 < int(spared.sum()) < 60
        assert bool((full[spared] < full.max()).all())
        assert torch.equal(found[~spared], full[~spared])


def count_evaluations(monkeypatch):
    evaluated, gains = [], joint_entropy._Pool.gains

    def counted(pool, rows, paths):
        evaluated.append(len(rows) if len(paths.weight) > 500 else 0)
        return gains(pool, rows, paths)

    monkeypatch.setattr(joint_entropy._Pool, "gains", counted)
    return evaluated


def paths_after(pool, rows, limit, generator=None):
    held = joint_entropy._Pool(pool, Shard.whole(len(pool)), pool.dtype)
    paths = joint_entropy._Paths.none_chosen(held)
    for row in rows:
        paths = paths.extended(pool[row], limit, generator)
    return held, paths


@pytest.mark.parametrize("seed", range(3))
def test_merged_paths_bound_the_gains_from_above(seed):
    pool = predictions(60, 12, 6, seed)
    held, paths = paths_after(pool, range(8), 3000, seeded(seed))
    merged = paths.merged()
    assert 20 < len(merged.weight) < len(paths.weight) / 8
    assert torch.allclose(merged.mean, paths.mean)
    difference = held.gains(held.open, merged) - held.gains(held.open, paths)
    assert bool((difference > -1e-12).all())
    assert float(difference.mean()) > 1e-4  # not a copy


def test_sampled_gains_are_near_the_exact_ones_and_without_bias():
    pool = predictions(20, 10, 3)
    held, paths = paths_after(pool, range(9), 3**9)
    assert len(paths.weight) > 10_000
    expected = held.gains(held.open, paths)
    runs = []
    for seed in range(30):
        _, sampled = paths_after(pool, range(9), 300, seeded(seed))
        assert len(sampled.weight) <= 300
        assert float(sampled.weight.sum()) == pytest.approx(1)
        runs.append(held.gains(held.open, sampled))
    runs = torch.stack(runs)
    assert float((runs - expected).abs().max()) < 0.05
    standard_error = runs.std(0) / math.sqrt(len(runs))
    assert bool(((runs.mean(0) - expected).abs() < 4 * standard_error + 1e-4).all())


def test_paths_of_equal_weight_do_not_all_take_the_same_label():
    even = torch.full((2, 4), 0.25, dtype=torch.float64)
    weight = torch.full((1000,), 1e-3, dtype=torch.float64)
    paths = joint_entropy._Paths(weight, torch.full((1000, 2), 0.5, dtype=torch.float64))
    mass = (paths.weight[:, None] * (paths.posterior @ even)).flatten()
    for seed in range(5):
        drawn, kept = joint_entropy._resampled(mass, 1000, seeded(seed))
        shares = torch.zeros(4, dtype=torch.float64).index_add_(0, drawn % 4, kept)
        assert float((shares - 0.25).abs().max()) < 0.08


def test_resampling_keeps_the_large_and_the_mean_of_all():
    small = torch.tensor([0.013, 0.007, 0.011, 0.009] * 10, dtype=torch.float64)
    weight = torch.cat([small.new_tensor([0.4]), small, small.new_tensor([0.2])])
    mean = torch.zeros(42, dtype=torch.float64)
    for seed in range(2000):
        drawn, kept = joint_entropy._resampled(weight, 10, seeded(seed))
        assert len(drawn) <= 10
        assert {0, 41} <= set(drawn.tolist())
        assert float(kept.sum()) == pytest.approx(1)
        mean[drawn] += kept / 2000
    assert float((mean - weight).abs().max()) < 0.006


def test_gains_are_the_mean_bald_under_the_posteriors_of_the_paths():
    pool = predictions(20, 10, 3)
    held, paths = paths_after(pool, range(7), 200, seeded())
    expected = torch.zeros(20, dtype=torch.float64)
    for weight, posterior in zip(paths.weight, paths.posterior, strict=True):
        of_mean = torch.special.entr(torch.einsum("k,nkc->nc", posterior, pool)).sum(1)
        expected += weight * (of_mean - torch.special.entr(pool).sum(2) @ posterior)
    assert torch.allclose(held.gains(held.open, paths), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("seed", range(3))
def test_information_grows_to_no_more_than_it_can(seed):
    pool = predictions(60, 10, 5, seed)
    positions, information = select(pool, 30, num_joint_samples=1000, return_scores=True)
    assert bool((information.diff() >= 0).all())
    assert float(information[-1]) <= math.log(10) + 1e-6
    alone = torch.tensor([slow.bald(pool.numpy(), row) for row in positions.tolist()]).cumsum(0)
    assert bool((information <= alone + 0.01).all())


def test_scores_are_the_joint_information_of_the_picks():
    pool = predictions(60, 10, 3)
    positions, information = select(pool, 8, num_joint_samples=500, return_scores=True)
    for size in (2, 5, 7):
        true = slow.joint_information(pool.numpy(), positions[:size].tolist())
        assert float(information[size - 1]) == pytest.approx(true, abs=1e-5 if size == 5 else 0.02)


def test_a_hundred_picks_stay_finite_and_distinct():
    pool = predictions(120, 10, 5, spread=0.3).float()
    positions, information = select(pool, 100, num_joint_samples=300, return_scores=True)
    assert len(set(positions.tolist())) == 100
    assert bool(information.isfinite().all())
    _, paths = paths_after(pool, range(100), 300)
    used = paths.posterior[paths.posterior > 0]
    assert float(used.min()) > 1e-12  # no denormals
    assert torch.allclose(paths.posterior.sum(1), torch.ones(len(paths.weight)))


@pytest.mark.parametrize("world_size", [2, 3, 4])
@pytest.mark.parametrize(("total", "classes"), [(0, 3), (1, 3), (3, 3), (5, 2), (90, 6)])
def test_rows_cut_over_ranks_select_as_the_whole_does(world_size, total, classes):
    pool = predictions(total, 9, classes).float()
    pool[total // 2 :] = pool[: total - total // 2].clone()  # each row has an equal, on another rank
    for options in ({}, {"exact": True}, {"candidates": 30}):
        options = {"num_joint_samples": 1000, "return_scores": True, **options}
        whole = select(pool, 10, **options)
        for positions, information in on_ranks(
            world_size, total, 2, lambda shard, o=options: select(pool[shard.positions], 10, shard=shard, **o)
        ):
            assert torch.equal(positions, whole[0])
            assert torch.equal(information, whole[1])


def test_positions_are_global():
    shard = Shard(torch.tensor([4, 5, 9]), 10)
    pool = predictions(3, 5, 3)
    assert select(pool, 1, shard=shard).tolist() == [[4, 5, 9][int(select(pool, 1))]]


@pytest.mark.parametrize("exact", [False, True])
def test_equal_rows_are_taken_by_position(exact):
    pool = predictions(1, 6, 3).expand(50, -1, -1)
    assert select(pool, 5, exact=exact).tolist() == [0, 1, 2, 3, 4]
    assert select(torch.full((4, 3, 2), 0.5), 9).tolist() == [0, 1, 2, 3]


def test_the_order_of_the_rows_does_not_matter():
    pool = predictions(70, 10, 4).float()
    order = torch.randperm(70, generator=seeded(1))
    again = select(pool[order], 9, num_joint_samples=500)
    assert order[again].tolist() == select(pool, 9, num_joint_samples=500).tolist()


def test_the_same_generator_gives_the_same_answer_and_picks_are_greedy():
    pool = predictions(50, 10, 4)
    first, scores = select(pool, 12, num_joint_samples=200, return_scores=True)
    again, scores_again = select(pool, 12, num_joint_samples=200, return_scores=True)
    assert torch.equal(first, again)
    assert torch.equal(scores, scores_again)
    for fewer in (1, 4, 8):
        assert torch.equal(select(pool, fewer, num_joint_samples=200), first[:fewer])
    _, other = batch_bald(pool, 12, num_joint_samples=200, generator=seeded(5), return_scores=True)
    assert not torch.equal(scores, other)


def test_only_the_candidates_of_highest_bald_are_chosen():
    pool = predictions(40, 10, 4)
    scores = torch.tensor([slow.bald(pool.numpy(), row) for row in range(40)])
    positions = select(pool, 6, candidates=6)
    assert sorted(positions.tolist()) == sorted(top_k(scores, 6).tolist())
    assert set(select(pool, 6).tolist()) != set(positions.tolist())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_every_float_type_is_taken(dtype):
    pool = predictions(30, 8, 4).to(dtype)
    kept = pool.clone()
    positions = select(pool, 4)
    assert torch.equal(positions, select(pool.double(), 4, exact=True))
    assert torch.equal(pool, kept)


def test_near_the_limit_of_the_samples_a_warning_says_what_to_do():
    pool = torch.eye(2).repeat(5, 1, 1)
    with pytest.warns(
        UserWarning, match=r"after 1 of 3 picks.*0\.693 nats.*log\(2\).*noise.*PowerSampling"
    ) as seen:
        assert select(pool, 3).tolist() == [0, 1, 2]
    assert len(seen) == 1
    assert seen[0].filename == __file__


def test_without_picks_past_the_limit_there_is_no_warning():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert select(torch.eye(2).repeat(5, 1, 1), 1).tolist() == [0]
        assert len(select(predictions(20, 50, 3, spread=0.2), 4)) == 4


def test_bad_arguments():
    pool = predictions(4, 6, 3)
    with pytest.raises(ValueError, match=r"`query_size` is 0; it must be at least 1"):
        batch_bald(pool, 0)
    with pytest.raises(ValueError, match=r"shape \(4, 3\); needed is \(N, K, C\).*MCDropout"):
        batch_bald(pool[:, 0], 1)
    with pytest.raises(ValueError, match=r"shape \(4, 1, 3\); needed .* K > 1.*MCDropout"):
        batch_bald(pool[:, :1], 1)
    with pytest.raises(ValueError, match=r"`num_joint_samples` is 5 for K = 6.*needed.*Raise it"):
        batch_bald(pool, 1, num_joint_samples=5)
    with pytest.raises(ValueError, match=r"`candidates` is 1 for a `query_size` of 2.*needed.*Raise it"):
        batch_bald(pool, 2, candidates=1)
    with pytest.raises(ValueError, match=r"4 rows, but `shard` says that 3.*Pass"):
        batch_bald(pool, 1, shard=Shard.whole(3))


def test_what_is_no_probability_is_refused():
    shard = Shard(torch.tensor([4, 5, 9]), 10)
    pool = predictions(3, 6, 3)
    with pytest.raises(ValueError, match=r"`mc_probs` holds a row .*needed are probabilities.*softmax\(-1\)"):
        batch_bald(pool.log(), 1, shard=shard)
    pool[2, 3, 1] = math.nan
    with pytest.raises(ValueError, match=r"NaN or infinite at positions \[9\]; needed.*Find out"):
        batch_bald(pool, 1, shard=shard)
    with pytest.raises(ValueError, match=r"sums to inf; needed are probabilities"):
        batch_bald(torch.full((1, 2, 2), math.inf), 1)


@pytest.mark.parametrize("exact", [False, True])
def test_a_copy_that_tells_more_than_the_other_sample_is_chosen(exact):
    """Published as a puzzle (batchbald_redux #16): by the definition the copy is the better second."""
    a = [[0.1, 0.2, 0.3, 0.4], [0.15, 0.15, 0.3, 0.4]]
    other = [[0.4, 0.3, 0.2, 0.1], [0.4, 0.3, 0.16, 0.14]]
    pool = torch.tensor([a, a, other], dtype=torch.float64)
    copy, different = (slow.joint_information(pool.numpy(), [0, row]) for row in (1, 2))
    assert (copy, different) == pytest.approx((0.00858, 0.00707), abs=5e-6)
    positions, information = select(pool, 2, exact=exact, return_scores=True)
    assert positions.tolist() == [0, 1]
    assert information[1].item() == pytest.approx(copy, abs=1e-6)


def test_input_that_does_not_fit_is_refused_in_words():
    with pytest.raises(ValueError, match=r"with 1 classes; needed are at least two.*\[1 - p, p\]"):
        batch_bald(torch.ones(3, 2, 1), 1)
    with pytest.raises(TypeError, match=r"`mc_probs` is a `ndarray`; needed is a tensor"):
        batch_bald(predictions(3, 2, 2).numpy(), 1)
    with pytest.raises(TypeError, match=r"`query_size` is 2.0; needed is a whole number"):
        batch_bald(predictions(3, 2, 2), 2.0)

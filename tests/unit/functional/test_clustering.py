"""Weighted k-means and the diverse mini-batch, against the slow definitions and what they promise."""

import itertools

import numpy as np
import pytest
import torch
from reference import clustering as reference
from sklearn.cluster import KMeans

from lightning_al.functional import clustering, features, lloyd, nearest, seeding, vectors
from lightning_al.functional.clustering import diverse_mini_batch, weighted_kmeans
from lightning_al.functional.shard import Shard
from unit.ranks import on_ranks


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def problem(kind, rng):
    """Points, weights, k and fixed centres (or none)."""
    n, dim, k = int(rng.integers(4, 40)), int(rng.integers(1, 7)), int(rng.integers(1, 6))
    if kind == "line":
        dim = 1
    points = rng.normal(size=(n, dim))
    if kind in ("lattice", "line"):
        points = rng.integers(0, 5, size=(n, dim)).astype(float)
    elif kind == "copies":
        points = points[rng.integers(0, max(2, n // 3), n)]
    elif kind == "huge":
        points = points * 1e18
    elif kind == "tiny":
        points = points * 1e-18
    elif kind == "offset":
        points = points + 1e6
    elif kind == "far apart":
        points = points * 1e-3 + 1e3 * rng.integers(0, 3, size=(n, 1))
    elif kind == "one far":
        points[0] += 1e7
    weights = rng.uniform(0.1, 1, n) if rng.random() < 0.7 else np.ones(n)
    fixed = points[rng.integers(0, n, int(rng.integers(0, 4)))] + 0.1 * np.abs(points).max() * rng.normal()
    if rng.random() < 0.4:
        fixed = points[rng.integers(0, n, int(rng.integers(1, 4)))]
    return points, weights, k, fixed if len(fixed) else None


KINDS = ["plain", "lattice", "line", "copies", "huge", "tiny", "offset", "far apart", "one far"]


def as_given(array, dtype):
    return None if array is None else torch.tensor(array).to(dtype)


def problems(count):
    for number in range(count):
        rng = np.random.default_rng(number)
        kind = KINDS[number % len(KINDS)]
        points, weights, k, fixed = problem(kind, rng)
        dtype = torch.float64 if number % 3 == 0 else torch.float32
        points, fixed = as_given(points, dtype), as_given(fixed, dtype)
        yield kind, points, torch.tensor(weights), k, fixed


def as_array(tensor):
    return None if tensor is None else tensor.double().numpy()


def found_by(points, weights, k, fixed, seed=0, iterations=100, backend="torch"):
    """The clusters while they are made, and the seeds they began with."""
    rows, others, scale = features.comparable(points, fixed, ("points", "fixed"), backend)
    positive = clustering._positive(weights)
    seeds = seeding.greedy_seeds(rows, positive, k, others, seeded(seed))
    found = lloyd.Lloyd(rows, positive, rows.factors[0][seeds].double(), others)
    found.run(iterations)
    return found, seeds, scale


# --- k-means


def test_the_centres_are_those_of_the_definition_step_by_step():
    compared = 0
    for kind, points, weights, k, fixed in problems(240):
        for iterations in (1, 2, 5):
            found, seeds, scale = found_by(points, weights, k, fixed, iterations=iterations)
            slow = reference.lloyd(
                as_array(points), weights.numpy(), as_array(points[seeds]), iterations, as_array(fixed)
            )
            size = points.abs().max().double().item()
            if len(seeds) and not found.lost:
                np.testing.assert_allclose(
                    found.centers.numpy() / scale, slow, rtol=1e-9, atol=1e-12 * size, err_msg=kind
                )
                compared += 1
    assert compared > 500


def test_every_point_is_with_the_centre_nearest_by_the_exact_distance():
    for kind, points, weights, k, fixed in problems(240):
        found, _, scale = found_by(points, weights, k, fixed)
        everyone = found.centers.numpy() / scale
        if fixed is not None:
            everyone = np.concatenate([everyone, as_array(fixed)])
        distance = np.stack([np.sqrt(((as_array(points) - c) ** 2).sum(1)) for c in everyone], 1)
        distance = (distance * scale).astype(np.float32)
        assert found.places.tolist() == distance.argmin(1).tolist(), kind


def test_few_distinct_points_give_few_centres_and_all_seeds_differ():
    for _, points, weights, k, fixed in problems(120):
        _, seeds, _ = found_by(points, weights, k, fixed)
        rows = {tuple(row) for row in points.tolist()}
        around = set() if fixed is None else {tuple(row) for row in fixed.tolist()}
        assert len(seeds) == min(k, len(rows - around))
        chosen = [tuple(points[i].tolist()) for i in seeds]
        assert len(set(chosen)) == len(chosen)
        assert not set(chosen) & around


@pytest.mark.parametrize("scale", [1e-12, 1.0, 1e9])
def test_clusters_within_clusters_are_found_however_small(scale):
    # Three levels: far apart, near, and nearer than whole numbers of the first level can tell.
    offsets = [1e9 * a + b + 1e-6 * c for a in range(3) for b in range(2) for c in range(2)]
    points = torch.tensor([[x * scale, 0.0] for x in offsets for _ in range(3)], dtype=torch.float64)
    found = weighted_kmeans(points, 12, generator=seeded())
    places = found.assignments.reshape(12, 3)
    assert bool((places == places[:, :1]).all())
    assert len(places[:, 0].unique()) == 12


def test_small_problems_reach_the_best_inertia_in_most_cases():
    reached = 0
    for seed in range(30):
        rng = np.random.default_rng(seed)
        points, weights = rng.normal(size=(7, 2)), rng.uniform(0.1, 1, 7)
        best = reference.best_inertia(points, weights, 3)
        found = weighted_kmeans(torch.tensor(points), 3, torch.tensor(weights), generator=seeded(seed))
        assert found.inertia >= best * (1 - 1e-6)
        again = reference.weighted_inertia(points, weights, found.centers.numpy())
        assert found.inertia == pytest.approx(again, rel=1e-6)
        reached += found.inertia <= best * (1 + 1e-6)
    assert reached >= 15


def test_inertia_is_no_worse_than_that_of_scikit_learn():
    rng = np.random.default_rng(0)
    centers = rng.normal(size=(30, 16)) * 3
    points, weights = centers[rng.integers(0, 30, 900)] + rng.normal(size=(900, 16)), rng.uniform(0, 1, 900)
    theirs = [
        KMeans(60, n_init=1, random_state=i).fit(points, sample_weight=weights).inertia_ for i in range(5)
    ]
    ours = [
        weighted_kmeans(torch.tensor(points), 60, torch.tensor(weights), generator=seeded(i)).inertia
        for i in range(5)
    ]
    assert np.mean(ours) <= 1.03 * np.mean(theirs)


def test_more_iterations_never_cost_more():
    for seed in range(10):
        points, weights = torch.randn(200, 5, generator=seeded(seed)), torch.rand(200, generator=seeded(9))
        path = [
            weighted_kmeans(points, 20, weights, iterations=i, generator=seeded(seed)).inertia
            for i in (1, 2, 4, 100)
        ]
        assert path == sorted(path, reverse=True)


def test_a_lost_cluster_moves_to_where_it_gains_most():
    # From 0, 1 and 100 the second keeps no point: it goes to 40, the dearest where it is.
    points = torch.tensor([[0.0], [0.2], [40.0], [60.0], [100.0]])
    rows, _, _ = features.comparable(points, None, ("points", "fixed"), "torch")
    starts = torch.tensor([[0.0], [1000.0], [70.0]], dtype=torch.float64)
    found = lloyd.Lloyd(rows, torch.ones(5, dtype=torch.float64), starts, None)
    found.run(100)
    assert sorted(found.centers.squeeze(1).tolist()) == pytest.approx([0.1, 50.0, 100.0])
    assert found.lost


def test_what_has_no_weight_draws_no_centre_and_has_one_all_the_same():
    points = torch.tensor([[0.0], [1.0], [7.0]])
    found = weighted_kmeans(points, 1, torch.tensor([1.0, 1.0, 0.0]), generator=seeded())
    assert found.centers.item() == pytest.approx(0.5)
    assert found.assignments.tolist() == [0, 0, 0]
    found = weighted_kmeans(points, 1, torch.zeros(3), generator=seeded())
    assert found.centers.item() == pytest.approx(8 / 3)


def test_fixed_centres_stay_and_have_points():
    points, fixed = torch.tensor([[0.0], [1.0], [6.0], [10.0]]), torch.tensor([[7.0], [0.5]])
    found = weighted_kmeans(points, 1, fixed=fixed, generator=seeded())
    assert found.centers.tolist() == [[10.0]]
    assert found.assignments.tolist() == [2, 2, 1, 0]
    assert fixed.tolist() == [[7.0], [0.5]]


def test_where_all_points_are_at_fixed_centres_there_are_no_others():
    found = weighted_kmeans(torch.ones(4, 2), 3, fixed=torch.ones(1, 2), generator=seeded())
    assert found.centers.shape == (0, 2)
    assert found.assignments.tolist() == [0, 0, 0, 0]
    assert found.inertia == 0


def test_as_many_centres_as_points_or_more_cost_nothing():
    points = torch.randn(20, 3, generator=seeded())
    for k in (20, 25):
        found = weighted_kmeans(points, k, generator=seeded())
        assert found.inertia == 0
        assert sorted(found.assignments.tolist()) == list(range(20))
    assert weighted_kmeans(torch.empty(0, 3), 4).centers.shape == (0, 3)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_any_floating_type_is_taken(dtype):
    points = torch.tensor([[0.0], [1.0], [9.0], [11.0]], dtype=dtype)
    found = weighted_kmeans(points, 2, generator=seeded())
    assert sorted(found.centers.squeeze(1).tolist()) == [0.5, 10.0]
    assert found.centers.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)


# --- the same for any way to compute it


def hard_problems():
    yield from itertools.islice(problems(1000), 90)
    g = seeded(3)
    centers = torch.randn(20, 512, generator=g)
    points = centers[torch.randint(20, (700,), generator=g)] + 0.3 * torch.randn(700, 512, generator=g)
    yield "wide", points, torch.rand(700, generator=g), 70, None
    yield "isotropic", torch.randn(500, 512, generator=g), torch.rand(500, generator=g), 100, points[:150]
    lattice = torch.randint(0, 3, (600, 4), generator=g).float()
    yield "lattice", lattice, torch.rand(600, generator=g), 40, lattice[:5]
    # Nearer than float32 tells from the common offset.
    yield "offset", points[:300].double() * 1e-3 + 1e6, torch.rand(300, generator=g), 40, None
    yield "all alike", torch.ones(300, 8), torch.rand(300, generator=g), 40, None


def everything(points, weights, k, fixed, backend="torch"):
    found = weighted_kmeans(points, k, weights, fixed=fixed, backend=backend, generator=seeded())
    picks = diverse_mini_batch(
        points,
        weights,
        k,
        beta=8,
        labeled=fixed,
        backend=backend,
        generator=seeded(),
    )
    return found.centers.tolist(), found.assignments.tolist(), found.inertia, picks.tolist()


def test_both_backends_and_any_chunk_size_and_thread_count_give_the_same_bits(monkeypatch):
    for kind, points, weights, k, fixed in hard_problems():
        wanted = everything(points, weights, k, fixed)
        assert everything(points, weights, k, fixed, "faiss") == wanted, kind
        with monkeypatch.context() as changed:
            for module, name in [
                (vectors, "_CHUNK_BYTES"),
                (lloyd, "_PAIR_BYTES"),
                (nearest, "_CELLS"),
            ]:
                changed.setattr(module, name, 2**15)
            assert everything(points, weights, k, fixed) == wanted, kind
        if kind not in ("wide", "lattice") or len(points) < 300:  # two threads are slow on a busy machine
            continue
        before = torch.get_num_threads()
        torch.set_num_threads(2)
        try:
            assert everything(points, weights, k, fixed, "faiss") == wanted, kind
        finally:
            torch.set_num_threads(before)


def test_following_the_centres_that_moved_is_as_good_as_asking_all(monkeypatch):
    for kind, points, weights, k, fixed in hard_problems():
        wanted = everything(points, weights, k, fixed)
        with monkeypatch.context() as changed:
            changed.setattr(lloyd.Lloyd, "_follow", lambda self, moved: self._assign(self.everyone))
            assert everything(points, weights, k, fixed) == wanted, kind


def test_what_came_nearer_while_a_point_stayed_is_not_forgotten(monkeypatch):
    # In the plane centres move past each other for long; so few move at a time that they are followed.
    followed = []
    follow = lloyd.Lloyd._follow

    def watched(self, moved):
        followed.append(len(moved) < len(self.centers) / 2)
        follow(self, moved)

    for seed in range(30):
        points = torch.rand(600, 2, generator=seeded(seed))
        if seed % 2:  # full of ties
            points = (points * 24).round()
        starts = points.unique(dim=0)[::8].double()
        rows, _, _ = features.comparable(points, None, ("points", "fixed"), "torch")
        found = []
        for step in (watched, lambda self, moved: self._assign(self.everyone)):
            monkeypatch.setattr(lloyd.Lloyd, "_follow", step)
            found.append(lloyd.Lloyd(rows, torch.ones(600, dtype=torch.float64), starts.clone(), None))
            found[-1].run(100)
        assert torch.equal(found[0].places, found[1].places)
        assert torch.equal(found[0].centers, found[1].centers)
    assert sum(followed) > 100


def test_the_answer_does_not_depend_on_what_is_done_outside():
    points, weights = torch.randn(300, 8, generator=seeded()), torch.rand(300, generator=seeded(1))
    wanted = everything(points, weights, 20, None)
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("medium")
    try:
        with torch.autocast("cpu", torch.bfloat16):
            assert everything(points.requires_grad_(), weights, 20, None) == wanted
        assert torch.get_float32_matmul_precision() == "medium"
    finally:
        torch.set_float32_matmul_precision(before)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_on_a_cuda_device_it_is_the_same():
    for kind, points, weights, k, fixed in hard_problems():
        wanted = everything(points, weights, k, fixed)
        there = [None if x is None else x.cuda() for x in (points, weights, fixed)]
        assert everything(there[0], there[1], k, there[2], "auto") == wanted, kind


# --- sums


def test_sums_are_the_same_in_any_order_and_can_be_taken_back():
    rng = np.random.default_rng(0)
    values = torch.tensor(rng.normal(size=(3000, 4)) * 10.0 ** rng.integers(-9, 9, (3000, 1)))
    largest = values.abs().amax(0)
    totals = []
    for order in (torch.arange(3000), torch.arange(3000).flip(0), torch.tensor(rng.permutation(3000))):
        sums = lloyd.ExactSums(largest, 3000, 2)
        for part in torch.split(order, 700):
            sums.add(part % 2, values[part])
        totals.append(sums.total())
    assert torch.equal(totals[0], totals[1])
    assert torch.equal(totals[0], totals[2])
    slow = torch.stack([values[0::2].sum(0), values[1::2].sum(0)])
    assert torch.allclose(totals[0], slow, rtol=1e-12)
    sums.add(order % 2, -values[order])
    assert not sums.total().any()


# --- which points stand for the centres


def test_the_nearest_different_points_are_those_of_the_definition():
    for kind, points, weights, k, fixed in problems(240):
        found, _, scale = found_by(points, weights, k, fixed)
        count = min(len(found.centers), len(points))
        slow = reference.nearest_different(as_array(points) * scale, found.centers.numpy()[:count])
        assert found.nearest_points(count).tolist() == slow, kind


def test_two_centres_at_one_point_take_two_points():
    points = torch.tensor([[0.0], [5.0], [6.0], [9.0]])
    rows, _, _ = features.comparable(points, None, ("points", "fixed"), "torch")
    starts = torch.tensor([[5.1], [5.2], [0.0]], dtype=torch.float64)
    found = lloyd.Lloyd(rows, torch.ones(4, dtype=torch.float64), starts, None)
    assert found.nearest_points(3).tolist() == [1, 2, 0]


# --- the diverse mini-batch


def test_the_batch_is_of_the_candidates_of_the_definition_and_heaviest_first():
    for _, points, weights, k, fixed in problems(240):
        weights = (weights * 4).round() / 4  # ties
        for beta in (1, 2, 3.5):
            positions, given = diverse_mini_batch(
                points, weights, k, beta=beta, labeled=fixed, generator=seeded(), return_scores=True
            )
            assert len(positions) == len(set(positions.tolist())) == min(k, len(points))
            assert torch.equal(given, weights[positions])
            pairs = [(-float(weights[p]), int(p)) for p in positions]
            assert pairs == sorted(pairs)
            kept = reference.diverse_mini_batch_candidates(weights.numpy(), int(np.ceil(beta * k)), 1)
            assert set(positions.tolist()) <= set(kept)
            if beta == 1:
                assert sorted(positions.tolist()) == kept


def test_the_batch_is_k_means_on_the_candidates_and_their_nearest_points():
    for kind, points, weights, k, fixed in problems(90):
        kept = torch.tensor(reference.diverse_mini_batch_candidates(weights.numpy(), k, 3))
        batch = diverse_mini_batch(points, weights, k, beta=3, labeled=fixed, generator=seeded())
        if len(kept) > k:
            found, _, scale = found_by(points[kept], weights[kept], k, fixed)
            slow = reference.nearest_different(as_array(points[kept]) * scale, found.centers.numpy())
            assert set(kept[slow].tolist()) <= set(batch.tolist()), kind


def test_one_row_of_each_cluster_is_asked_and_copies_once():
    points = torch.tensor([[float(c)] for c in (0, 0, 0, 5, 5, 9, 9, 9)])
    weights = torch.tensor([0.9, 0.9, 0.9, 0.5, 0.4, 0.3, 0.2, 0.1])
    assert diverse_mini_batch(points, weights, 3, generator=seeded()).tolist() == [0, 3, 5]
    assert diverse_mini_batch(points, weights, 1, beta=3, generator=seeded()).tolist() == [0]
    # More than there are places: the heaviest of the rest.
    assert diverse_mini_batch(points, weights, 5, generator=seeded()).tolist() == [0, 1, 2, 3, 5]


def test_nothing_near_labelled_rows_is_asked():
    points = torch.tensor([[0.0], [0.1], [5.0], [5.1], [9.0]])
    weights = torch.tensor([1.0, 1.0, 1.0, 1.0, 1.0])
    labeled = torch.tensor([[0.05], [9.1]])
    assert diverse_mini_batch(points, weights, 1, labeled=labeled, generator=seeded()).tolist() == [2]
    nothing = torch.empty(0, 1)
    same = [diverse_mini_batch(points, weights, 2, labeled=x, generator=seeded()) for x in (None, nothing)]
    assert torch.equal(same[0], same[1])


def test_scaled_features_count_alike_and_one_that_never_changes_not_at_all():
    rng = np.random.default_rng(0)
    points = torch.tensor(rng.normal(size=(80, 3)))
    points[:, 2] = 0.1
    factors, shifts = torch.tensor([1e-3, 1e7, 5.0]), torch.tensor([0.0, 3e8, -2.0])
    weights = torch.rand(80, generator=seeded())

    def batch(rows, scale_features):
        labeled = rows[:4]
        return diverse_mini_batch(
            rows, weights, 6, labeled=labeled, scale_features=scale_features, generator=seeded()
        ).tolist()

    assert batch(points, True) == batch(points * factors + shifts, True)
    assert batch(points, False) != batch(points * factors + shifts, False)
    standard, others = features._standardised(points.float(), points[:4].float())
    assert torch.allclose(standard[:, :2].mean(0), torch.zeros(2), atol=1e-6)
    assert torch.allclose(standard[:, :2].std(0, correction=0), torch.ones(2))
    assert not standard[:, 2].any()
    assert torch.equal(others, standard[:4])


def test_weights_that_are_all_zero_count_as_none_and_some_zero_do_no_harm():
    points = torch.randn(40, 3, generator=seeded())
    nothing = diverse_mini_batch(points, torch.zeros(40), 4, generator=seeded())
    alike = diverse_mini_batch(points, torch.ones(40), 4, generator=seeded())
    assert torch.equal(nothing, alike)
    some = torch.cat([torch.zeros(38), torch.ones(2)])
    assert diverse_mini_batch(points, some, 4, generator=seeded()).tolist()[:2] == [38, 39]


def test_a_pool_no_larger_than_the_query_is_asked_whole():
    points, weights = torch.randn(3, 2), torch.tensor([0.1, 0.3, 0.2])
    for size in (3, 4, 100):
        assert diverse_mini_batch(points, weights, size).tolist() == [1, 2, 0]
    assert diverse_mini_batch(torch.empty(0, 2), torch.empty(0), 2).tolist() == []


def test_shuffled_rows_give_the_same_samples_where_seeds_are_the_same():
    # Clusters so plain that any seeds find them.
    rng = np.random.default_rng(0)
    points = torch.tensor(np.repeat(rng.normal(size=(6, 4)) * 100, 5, 0) + rng.normal(size=(30, 4)))
    weights = torch.linspace(0.5, 1, 30)
    order = torch.tensor(rng.permutation(30))
    straight = diverse_mini_batch(points, weights, 6, generator=seeded())
    shuffled = diverse_mini_batch(points[order], weights[order], 6, generator=seeded())
    assert order[shuffled].tolist() == straight.tolist()


def test_only_the_rows_of_candidates_are_looked_at():
    points = torch.randn(50, 2, generator=seeded())
    points[7] = torch.nan
    weights = torch.linspace(0, 1, 50)
    assert 7 not in diverse_mini_batch(points, weights, 3, beta=4)
    with pytest.raises(ValueError, match=r"`embeddings` is NaN or infinite at positions \[7\]"):
        diverse_mini_batch(points, weights.flip(0), 3, beta=4)


def test_memory_grows_with_the_candidates_and_not_with_the_pool():
    pool = torch.zeros(1, 512, dtype=torch.float16).expand(2**22, 512)  # 4 GB, were it there
    weights = torch.zeros(2**22)
    weights[[5, 2**21, 2**22 - 1]] = 1
    assert len(diverse_mini_batch(pool, weights, 2)) == 2


# --- ranks


@pytest.mark.parametrize("world_size", [1, 2, 3, 4])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_any_number_of_ranks_asks_for_the_same(world_size, dtype):
    for total, block_size in [(150, 7), (37, 64), (9, 3), (3, 1), (41, 13)]:
        points = torch.randn(total, 5, generator=seeded(total)).to(dtype)
        weights = torch.rand(total, generator=seeded(1)).mul(5).round()
        labeled = torch.randn(3, 5).to(dtype)
        alone = diverse_mini_batch(
            points, weights, 8, beta=3, labeled=labeled, generator=seeded(), return_scores=True
        )

        def work(shard, points=points, weights=weights, labeled=labeled):
            here = shard.positions
            return diverse_mini_batch(
                points[here], weights[here], 8, beta=3, labeled=labeled, generator=seeded(), shard=shard,
                return_scores=True,
            )  # fmt: skip

        for positions, given in on_ranks(world_size, total, block_size, work):
            assert positions.tolist() == alone[0].tolist()
            assert given.tolist() == alone[1].tolist()


def test_only_candidates_meet():
    points, weights = torch.randn(400, 3), torch.rand(400)
    met = []

    def work(shard):
        gather = type(shard).gather

        def counted(self, tensor):
            found = gather(self, tensor)
            met.append(tuple(found.shape))
            return found

        here = shard.positions
        watched = type("Watched", (type(shard),), {"gather": counted})
        shard = watched(**vars(shard))
        return diverse_mini_batch(points[here], weights[here], 4, beta=5, generator=seeded(), shard=shard)

    on_ranks(2, 400, 10, work)
    assert (20, 3) in met
    assert max(shape[0] for shape in met) <= 40
    assert len(met) <= 2 * 4


# --- bad input


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"embeddings": np.zeros((5, 2))}, r"`embeddings` is a `ndarray`; needed is a tensor. Pass"),
        ({"embeddings": torch.zeros(5, 2, dtype=torch.long)}, r"of type torch.int64; needed are real"),
        ({"embeddings": torch.zeros(5, 2, dtype=torch.complex64)}, r"of type torch.complex64; needed"),
        ({"embeddings": torch.zeros(5, 0)}, r"shape \(5, 0\); needed is one vector a sample.*Pool"),
        (
            {"embeddings": torch.zeros(4, 2)},
            r"`weights` has shape \(5,\); needed is one number for each of 4",
        ),
        (
            {"embeddings": torch.full((5, 2), torch.inf)},
            r"infinite at positions \[0, 1, 2, 3, 4\]; .* repair",
        ),
        ({"weights": torch.tensor([1, 1, -1.0, 1, torch.nan])}, r"positions \[2, 4\]; needed.*1 - margin"),
        ({"weights": torch.full((5,), torch.inf)}, r"positions \[0, 1, 2, 3, 4\]; needed are finite"),
        ({"weights": torch.ones(5, 1)}, r"`weights` has shape \(5, 1\); needed is one number"),
        ({"weights": [1.0] * 5}, r"`weights` is a `list`; needed is a tensor"),
        (
            {"labeled": torch.zeros(3, 3)},
            r"`labeled` has 3 numbers a row, and `embeddings` has 2; .* same layer",
        ),
        (
            {"labeled": torch.full((3, 2), torch.nan)},
            r"`labeled` is NaN or infinite at positions \[0, 1, 2\]",
        ),
        ({"labeled": torch.zeros(3, 2, dtype=torch.int8)}, r"`labeled` is of type torch.int8; needed"),
        ({"query_size": 0}, r"`query_size` is 0; it must be at least 1"),
        ({"query_size": 2.5}, r"`query_size` is 2.5; needed is a whole number"),
        ({"beta": 0.5}, r"`beta` is 0.5; needed is a number from 1 on.*such as 10"),
        ({"beta": True}, r"`beta` is True; needed is a number"),
        ({"beta": float("inf")}, r"`beta` is inf; needed is a number"),
        ({"backend": "numpy"}, r"`backend` is 'numpy'; needed is"),
        ({"shard": Shard.whole(6)}, r"has 5 rows, but `shard` says that 6 are here"),
    ],
)
def test_what_does_not_fit_is_refused_in_words(change, message):
    given = {"embeddings": torch.randn(5, 2), "weights": torch.ones(5), "query_size": 2, **change}
    with pytest.raises((TypeError, ValueError), match=message):
        diverse_mini_batch(**given)


def test_a_feature_that_only_labelled_rows_have_counts_for_nothing():
    generator = seeded()
    rows, weights = torch.randn(30, 4, generator=generator), torch.rand(30, generator=generator)
    labeled = torch.randn(8, 4, generator=generator)
    without = diverse_mini_batch(
        rows[:, 1:], weights, 5, labeled=labeled[:, 1:], scale_features=True, generator=seeded()
    )
    for value in (0.0, 1e-30, 7.0):
        rows[:, 0] = value
        found = diverse_mini_batch(rows, weights, 5, labeled=labeled, scale_features=True, generator=seeded())
        assert torch.equal(found, without)


def test_labelled_rows_may_be_any_number_of_deviations_away():
    generator = seeded()
    rows = 1e-35 * torch.randn(30, 4, generator=generator)
    labeled = 1e30 * torch.randn(8, 4, generator=generator)
    found = diverse_mini_batch(
        rows, torch.ones(30), 5, labeled=labeled, scale_features=True, generator=generator
    )
    assert len(found.unique()) == 5


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"points": torch.full((5, 2), torch.nan)}, r"`points` is NaN or infinite at positions"),
        ({"fixed": torch.zeros(3, 3)}, r"`fixed` has 3 numbers a row, and `points` has 2"),
        ({"k": 0}, r"`k` is 0; it must be at least 1"),
        ({"iterations": 0}, r"`iterations` is 0"),
        ({"weights": -torch.ones(5)}, r"`weights` is negative"),
    ],
)
def test_what_does_not_fit_k_means_is_refused_in_words(change, message):
    with pytest.raises((TypeError, ValueError), match=message):
        weighted_kmeans(**{"points": torch.randn(5, 2), "k": 2, **change})

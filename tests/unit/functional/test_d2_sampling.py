import copy
import math
from collections import Counter

import numpy as np
import pytest
import torch
from reference import d2_sampling as slow
from scipy.stats import chi2
from torch.nn.functional import cross_entropy

from lightning_al.functional import Shard, rejection, vectors
from lightning_al.functional.d2_sampling import badge, kmeans_plus_plus
from lightning_al.functional.gradients import Gradients
from unit.memory import peak_extra_megabytes
from unit.ranks import on_ranks


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def predictions(rows, classes=4, width=3, seed=0):
    generator = seeded(seed)
    probs = (2 * torch.randn(rows, classes, generator=generator)).softmax(1)
    return probs, torch.randn(rows, width, generator=generator)


def labels(rows, count, seed=0):
    logits = 2 * torch.randn(rows, count, generator=seeded(seed + 100))
    return torch.stack([(-logits).sigmoid(), logits.sigmoid()], -1)


def blobs(rows, width=8, clusters=20, seed=0):
    generator = seeded(seed)
    centers = 3 * torch.randn(clusters, width, generator=generator)
    return centers[torch.randint(clusters, (rows,), generator=generator)] + torch.randn(
        rows, width, generator=generator
    )


# --- the law


def assert_follows(law, draw, runs):
    generator = seeded()
    counts = Counter(tuple(draw(generator).tolist()) for _ in range(runs))
    assert all(law[picks] > 1e-12 for picks in counts)
    likely = {picks: p for picks, p in law.items() if p * runs >= 5}
    other = 1 - sum(likely.values())
    terms = [(counts[picks] - runs * p) ** 2 / (runs * p) for picks, p in likely.items()]
    if other * runs >= 5:
        seen = runs - sum(counts[picks] for picks in likely)
        terms.append((seen - runs * other) ** 2 / (runs * other))
    assert len(terms) > 5
    assert chi2.sf(sum(terms), len(terms) - 1) > 1e-4


def new_weights_after_every_batch(monkeypatch, proposals):
    monkeypatch.setattr(rejection, "_PROPOSALS", proposals)
    monkeypatch.setattr(rejection.Draw, "_worthwhile", lambda draw: draw.fresh > 0)


def never_new_weights(monkeypatch):
    monkeypatch.setattr(rejection, "_PROPOSALS", 8)
    monkeypatch.setattr(rejection.Draw, "_worthwhile", lambda draw: False)


@pytest.mark.slow
@pytest.mark.parametrize("renewal", ["never", "always"])
def test_gradients_are_drawn_in_proportion_to_squared_distances(monkeypatch, renewal):
    probs, embeddings = predictions(6)
    law = slow.law_of_batches(slow.gradient_embeddings(probs.numpy(), embeddings.numpy()), 4, "largest")
    if renewal == "never":
        never_new_weights(monkeypatch)
    else:
        new_weights_after_every_batch(monkeypatch, 8)
    shard = Shard.whole(6)
    gradients = Gradients.of(probs, embeddings, False, shard)

    begun = rejection.Draw(gradients, gradients.lengths, shard, None, gradients.tiny)
    begun.begin("largest")
    begun._renew()

    def drawn(generator):  # as `badge` does, from what every run begins with
        draw = copy.copy(begun)
        draw.generator = generator
        draw.chosen, draw.drawn, draw.nearness = (
            begun.chosen[:],
            copy.copy(begun.drawn),
            copy.copy(begun.nearness),
        )
        draw.drawn.parts, draw.nearness.drawn = begun.drawn.parts[:], draw.drawn
        for name in ("low", "high"):
            setattr(draw.nearness, name, getattr(begun.nearness, name).clone())
        draw.nearness.settled = copy.deepcopy(begun.nearness.settled)
        draw.runs = copy.copy(begun.runs)
        draw.until(4)
        return torch.tensor(draw.chosen)

    for seed in range(20):
        assert torch.equal(drawn(seeded(seed)), badge(probs, embeddings, 4, generator=seeded(seed)))
    assert_follows(law, drawn, 20_000)


@pytest.mark.parametrize("kind", ["classes", "labels", "one logit", "two columns of one logit"])
@pytest.mark.parametrize("bias", [False, True])
def test_the_law_holds_for_every_kind_of_head(monkeypatch, kind, bias):
    monkeypatch.setattr(rejection, "_PROPOSALS", 8)
    probs, embeddings = predictions(5, seed=1)
    if kind != "classes":
        probs = labels(5, 2)
    if kind == "one logit":
        probs = probs[:, 0, 1:]
    elif kind == "two columns of one logit":
        probs = probs[:, 0]
    explicit = slow.gradient_embeddings(probs.numpy(), embeddings.numpy(), bias)
    first = "random" if kind in ("classes", "labels") else "largest"
    law = slow.law_of_batches(explicit, 3 if first == "random" else 4, first)
    draws = {"first": first, "bias": bias}
    count = 3 if first == "random" else 4
    assert_follows(law, lambda g: badge(probs, embeddings, count, generator=g, **draws), 800)


@pytest.mark.parametrize("given", [0, 1, 3])
@pytest.mark.parametrize("renewal", ["never", "always"])
def test_kmeans_plus_plus_follows_its_law_around_given_centres(monkeypatch, given, renewal):
    rows = torch.randn(5, 2, generator=seeded(2))
    centers = torch.randn(given, 2, generator=seeded(3)) if given else None
    law = slow.law_of_batches(rows.numpy(), 3, "random", None if centers is None else centers.numpy())
    if renewal == "never":
        never_new_weights(monkeypatch)
    else:
        new_weights_after_every_batch(monkeypatch, 1)
    assert_follows(law, lambda g: kmeans_plus_plus(rows, 3, centers, generator=g), 800)


def test_rows_that_differ_by_less_than_float32_can_tell_follow_the_law(monkeypatch):
    monkeypatch.setattr(rejection, "_PROPOSALS", 4)
    rows = 1000 + 1e-4 * torch.randn(5, 2, generator=seeded(2), dtype=torch.float64)
    law = slow.law_of_batches(rows.numpy(), 3, "random")
    assert_follows(law, lambda g: kmeans_plus_plus(rows, 3, generator=g), 800)


def test_copies_are_drawn_once_and_then_uniformly():
    rows = torch.randn(3, 2, generator=seeded(4))[[0, 1, 0, 2, 0]]
    law = slow.law_of_batches(rows.numpy(), 4, "random")
    assert_follows(law, lambda g: kmeans_plus_plus(rows, 4, generator=g), 800)


@pytest.mark.parametrize("certain", [True, False])
def test_where_no_gradient_differs_the_draw_is_uniform(certain):
    probs, embeddings = torch.full((4, 3), 1 / 3), torch.ones(4, 2)
    if certain:
        probs, embeddings = torch.eye(3)[[0, 1, 2, 0]], torch.randn(4, 2, generator=seeded())
    law = slow.law_of_batches(np.ones((4, 1)), 3, "random")
    assert_follows(law, lambda g: badge(probs, embeddings, 3, first="random", generator=g), 1000)
    positions, scores = badge(probs, embeddings, 4, generator=seeded(), return_scores=True)
    assert sorted(positions.tolist()) == [0, 1, 2, 3]
    assert positions[0] == 0
    assert scores[1:].tolist() == [0, 0, 0]


# --- the draw is one and the same


def draws(pool, query_size, **options):
    if isinstance(pool, tuple):
        return badge(*pool, query_size, generator=seeded(), return_scores=True, **options)
    return kmeans_plus_plus(pool, query_size, generator=seeded(), return_scores=True, **options)


POOLS = {
    "gradients": lambda: predictions(300, 5, 6),
    "labels": lambda: (labels(300, 3), blobs(300)),
    "blobs": lambda: blobs(300),
    "lattice": lambda: torch.randint(0, 4, (300, 3), generator=seeded()).float(),
    "line": lambda: torch.randn(300, 1, generator=seeded()),
    "copies": lambda: blobs(40)[torch.randint(40, (300,), generator=seeded())],
    "offset": lambda: blobs(300) + 1e6,
    "tight clusters": lambda: 1e3 * blobs(10)[torch.arange(300) % 10] + 1e-3 * blobs(300),
    "huge": lambda: 1e18 * blobs(300),
    "tiny": lambda: 1e-18 * blobs(300),
    "heavy tail": lambda: blobs(300) * torch.logspace(0, -12, 300)[:, None],
    "huge gradients": lambda: (predictions(300)[0], 1e18 * blobs(300)),
    "sure": lambda: ((60 * torch.randn(300, 4, generator=seeded())).softmax(1), blobs(300)),
}


@pytest.fixture(params=POOLS)
def pool(request):
    return POOLS[request.param]()


def assert_same(found, expected):
    assert torch.equal(found[0], expected[0])
    assert torch.equal(found[1], expected[1])


def test_never_a_row_twice_and_all_of_them_if_asked(pool):
    total = len(pool[0] if isinstance(pool, tuple) else pool)
    for query_size in (1, 40, total, total + 7):
        positions, scores = draws(pool, query_size)
        assert positions.dtype == torch.long
        assert len(set(positions.tolist())) == len(positions) == min(query_size, total) == len(scores)
        assert 0 <= int(positions.min()) <= int(positions.max()) < total


def test_a_short_draw_is_the_beginning_of_a_long_one(pool):
    long = draws(pool, 120)
    for fewer in (1, 2, 30, 70):
        assert_same(draws(pool, fewer), (long[0][:fewer], long[1][:fewer]))


def test_chunks_change_nothing(monkeypatch, pool):
    whole = draws(pool, 150)
    for size in (1, 999, 2**30):
        monkeypatch.setattr(vectors, "_CHUNK_BYTES", size)
        assert_same(draws(pool, 150), whole)


def test_threads_change_nothing(pool):
    before = torch.get_num_threads()
    try:
        found = []
        for threads in (1, 2):
            torch.set_num_threads(threads)
            found.append(draws(pool, 150))
    finally:
        torch.set_num_threads(before)
    assert_same(*found)


@pytest.mark.parametrize(("world_size", "block_size"), [(1, 7), (2, 7), (3, 64), (4, 11), (4, 150)])
def test_ranks_change_nothing(pool, world_size, block_size):
    factors = pool if isinstance(pool, tuple) else (pool,)
    whole = draws(pool, 100)

    def work(shard):
        held = tuple(factor[shard.positions] for factor in factors)
        return draws(held if len(held) == 2 else held[0], 100, shard=shard)

    for found in on_ranks(world_size, 300, block_size, work):
        assert_same(found, whole)


@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
@pytest.mark.parametrize(
    "name", [name for name in POOLS if "gradients" not in name and name not in ("labels", "sure")]
)
def test_backends_change_nothing(name, metric):
    rows = POOLS[name]()
    rows = rows[(rows != 0).any(1)]
    centers = rows[:40] + 0.5 * rows[1:41]
    centers = centers[(centers != 0).any(1)]
    for given in (None, centers):
        by_torch, by_faiss, auto = (
            draws(rows, 150, centers=given, metric=metric, backend=backend)
            for backend in ("torch", "faiss", "auto")
        )
        assert_same(by_torch, by_faiss)
        assert_same(by_torch, auto)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_every_float_type_is_taken(dtype):
    rows = blobs(200).to(dtype)
    assert_same(draws(rows, 80), draws(rows.double(), 80))
    probs = predictions(200)[0].to(dtype)
    assert_same(
        draws((probs, rows), 80),
        draws((probs if dtype == torch.float64 else probs.float(), rows.double()), 80),
    )


# --- what is drawn


def explicit(pool, bias=False):
    if isinstance(pool, tuple):
        return slow.gradient_embeddings(*(factor.double().numpy() for factor in pool), bias)
    return pool.double().numpy()


def test_scores_are_squared_distances_of_explicit_vectors(pool):
    rows = explicit(pool)
    positions, scores = draws(pool, 60)
    picks = positions.tolist()
    assert scores.dtype == torch.float64
    if isinstance(pool, tuple):
        norms = (rows**2).sum(1)
        assert norms[picks[0]] == pytest.approx(norms.max(), rel=1e-6)
        assert float(scores[0]) == pytest.approx(norms.max(), rel=1e-6)
    else:
        assert math.isinf(scores[0])
    for number in range(1, 60):
        squared = ((rows[picks[:number]] - rows[picks[number]]) ** 2).sum(1).min()
        # Residuals of saturated probabilities are rounded in float32.
        assert float(scores[number]) == pytest.approx(
            squared, rel=1e-4, abs=1e-13 * float((rows**2).sum(1).max())
        )


def test_scores_with_bias_with_a_random_first_and_with_centres():
    pool = predictions(50)
    rows = explicit(pool, bias=True)
    positions, scores = draws(pool, 9, bias=True, first="random")
    assert math.isinf(scores[0])
    assert float(scores[1]) == pytest.approx(((rows[positions[0]] - rows[positions[1]]) ** 2).sum(), rel=1e-5)
    rows, centers = blobs(50), blobs(7, seed=1)
    positions, scores = draws(rows, 2, centers=centers, metric="cosine")
    units, around = (x / x.norm(dim=1, keepdim=True) for x in (rows, centers))
    assert float(scores[0]) == pytest.approx(float(2 - 2 * (around @ units[positions[0]]).max()), rel=1e-4)
    assert torch.equal(draws(rows, 20, centers=centers[:0])[0], draws(rows, 20)[0])


def test_the_longest_gradient_comes_first_at_the_lowest_position_of_equal_ones():
    probs = torch.tensor([[0.9, 0.1], [0.5, 0.5], [0.5, 0.5], [0.5, 0.5]])
    embeddings = torch.tensor([[1.0, 0.0], [0.0, 2.0], [-2.0, 0.0], [2.0, 0.0]])
    assert int(badge(probs, embeddings, 1)) == 1
    embeddings[2] *= 1 + 1e-6
    assert int(badge(probs, embeddings, 1)) == 2


def test_no_label_has_a_shorter_gradient_than_the_predicted_one():
    """Ash 2020, proposition 1, by autograd."""
    generator = seeded(5)
    weight = torch.randn(4, 3, generator=generator, requires_grad=True)
    embeddings = torch.randn(10, 3, generator=generator)
    logits = embeddings @ weight.T
    probs = logits.detach().softmax(1)
    for row in range(10):
        norms = []
        for label in range(4):
            loss = cross_entropy(logits[row], torch.tensor(label))
            (gradient,) = torch.autograd.grad(loss, weight, retain_graph=True)
            norms.append(float(gradient.square().sum()))
        _, score = badge(probs[row : row + 1], embeddings[row : row + 1], 1, return_scores=True)
        assert float(score) == pytest.approx(min(norms), rel=1e-4)


def test_a_factor_of_the_embeddings_changes_nothing():
    probs, embeddings = predictions(200)
    plain = badge(probs, embeddings, 80, generator=seeded())
    for factor in (2.0**60, 2.0**-60):
        assert torch.equal(badge(probs, factor * embeddings, 80, generator=seeded()), plain)
    # Beside embeddings so small, only the column of the bias counts, and the other way round.
    alone = badge(probs, torch.zeros(200, 1), 4, generator=seeded(), bias=True)
    assert torch.equal(badge(probs, 1e-18 * embeddings, 4, generator=seeded(), bias=True), alone)
    assert torch.equal(badge(probs, 2.0**60 * embeddings, 80, generator=seeded(), bias=True), plain)


def test_vectors_made_before_are_taken_as_they_are():
    rows = blobs(120)
    some = torch.arange(0, 120, 2)
    made = vectors.Vectors.of_embeddings(rows, metric="cosine", places=some)
    assert_same(draws(made, 40), draws(rows[some], 40, metric="cosine"))
    assert_same(draws(made, 40, centers=rows[:3]), draws(rows[some], 40, metric="cosine", centers=rows[:3]))


def test_an_empty_pool_gives_nothing():
    assert badge(torch.empty(0, 3), torch.empty(0, 2), 4).tolist() == []
    positions, scores = kmeans_plus_plus(torch.empty(0, 2), 4, return_scores=True)
    assert positions.tolist() == scores.tolist() == []
    assert kmeans_plus_plus(torch.empty(0, 2), 4, centers=torch.ones(3, 2)).tolist() == []


def test_without_a_generator_torchs_global_one_is_used():
    rows = blobs(100)
    torch.manual_seed(3)
    first = kmeans_plus_plus(rows, 20)
    second = kmeans_plus_plus(rows, 20)
    torch.manual_seed(3)
    assert torch.equal(kmeans_plus_plus(rows, 20), first)
    assert not torch.equal(first, second)


def test_most_distances_are_never_made():
    rows, made = 20_000, []
    pool = predictions(rows, 10, 32)
    draw = rejection.Draw._renew

    def counted(self):
        made.append(self.fresh)
        draw(self)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rejection.Draw, "_renew", counted)
        badge(*pool, 500, generator=seeded())
    assert sum(made) < 150
    assert len(made) < 6


def test_memory_beside_the_pool_is_a_quarter_of_it_at_most():
    probs, embeddings = predictions(60_000, 10, 512)
    extra = peak_extra_megabytes(lambda: badge(probs, embeddings, 100, generator=seeded()))
    assert extra < 0.25 * 4 * 60_000 * 522 / 2**20


# --- bad input


def test_bad_arguments():
    probs, embeddings = predictions(6)
    with pytest.raises(ValueError, match=r"`query_size` is 0; it must be at least 1"):
        badge(probs, embeddings, 0)
    with pytest.raises(ValueError, match=r"`first` is 'any'; needed is \"largest\" or \"random\""):
        badge(probs, embeddings, 1, first="any")
    with pytest.raises(TypeError, match="`probs` is a `list`; needed is a tensor"):
        badge([[1.0]], embeddings, 1)
    with pytest.raises(ValueError, match=r"shape \(6, 4, 3\).*needed are probabilities.*Pool"):
        badge(torch.ones(6, 4, 3), embeddings, 1)
    with pytest.raises(ValueError, match=r"sums to.*needed are probabilities.*softmax"):
        badge(probs + 1, embeddings, 1)
    with pytest.raises(ValueError, match=r"`probs` is 1.5 in a row; needed is the probability.*sigmoid"):
        badge(torch.full((6, 1), 1.5), embeddings, 1)
    with pytest.raises(TypeError, match=r"`probs` is of type torch.int64; needed are probabilities.*softmax"):
        badge(torch.ones(6, 1, dtype=torch.long), embeddings, 1)
    with pytest.raises(ValueError, match=r"`probs` has 5 rows and `embeddings` 6; needed.*same pass"):
        badge(probs[:5], embeddings, 1)
    with pytest.raises(ValueError, match=r"`embeddings` has 6 rows, but `shard` says that 4.*Pass the rows"):
        badge(probs, embeddings, 1, shard=Shard.whole(4))
    with pytest.raises(TypeError, match=r"`embeddings` is of type torch.int64; needed.*Convert"):
        kmeans_plus_plus(torch.ones(3, 2, dtype=torch.long), 1)
    with pytest.raises(ValueError, match=r"`embeddings` has shape \(3, 0\)"):
        kmeans_plus_plus(torch.ones(3, 0), 1)
    with pytest.raises(
        ValueError, match=r"`centers` has 3 numbers a row, and `embeddings` has 2; needed.*same layer"
    ):
        kmeans_plus_plus(torch.ones(4, 2), 1, centers=torch.ones(4, 3))
    with pytest.raises(ValueError, match=r"`backend` is 'numpy'; needed"):
        kmeans_plus_plus(torch.ones(4, 2), 1, backend="numpy")


@pytest.mark.parametrize("wrong", [math.nan, math.inf, -math.inf])
def test_rows_that_are_not_finite_are_named(wrong):
    probs, embeddings = predictions(10)
    broken = embeddings.clone()
    broken[[3, 7], 1] = wrong
    for select in (
        lambda: badge(probs, broken, 2),
        lambda: kmeans_plus_plus(broken, 2),
    ):
        with pytest.raises(
            ValueError, match=r"`embeddings` is NaN or infinite at positions \[3, 7\].*Find out"
        ):
            select()
    with pytest.raises(ValueError, match=r"`centers` is NaN or infinite at positions \[3, 7\]"):
        kmeans_plus_plus(embeddings, 2, centers=broken)
    single = probs[:, :1].clone()
    single[4] = math.nan
    with pytest.raises(ValueError, match=r"`probs` is NaN or infinite at positions \[4\]"):
        badge(single, embeddings, 2)
    half = torch.stack([1 - probs[:, :2], probs[:, :2]], -1)
    half[2, 0, 1] = math.nan
    with pytest.raises(ValueError, match=r"`probs` is NaN or infinite at positions \[2\]"):
        badge(half, embeddings, 2)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_device_draws_the_same(pool):
    factors = pool if isinstance(pool, tuple) else (pool,)
    on_device = tuple(factor.cuda() for factor in factors)
    positions, scores = draws(on_device if len(on_device) == 2 else on_device[0], 150)
    assert positions.is_cuda
    assert scores.is_cuda
    assert_same((positions.cpu(), scores.cpu()), draws(pool, 150))


def test_a_pool_of_copies_so_large_that_new_weights_never_pay_is_drawn_to_its_end(monkeypatch):
    monkeypatch.setattr(rejection, "_PASS", 1e12)
    rows = torch.randn(5, 3, generator=torch.Generator().manual_seed(0)).repeat(8, 1)
    drawn = kmeans_plus_plus(rows, 30, generator=torch.Generator().manual_seed(0))
    assert len(drawn.unique()) == 30
    assert len((drawn[:5] % 5).unique()) == 5

"""Every function gives on a device what it gives on the CPU: scores up to rounding, choices exactly."""

import math
from contextlib import ExitStack, contextmanager

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from unit.ranks import on_ranks

from gpu.devices import DEVICE, IS_GPU, NEEDS_A_DEVICE, back, present, there
from lightning_al import functional as F
from lightning_al.functional.nearest import near
from lightning_al.functional.vectors import Vectors, as_tensor

pytestmark = NEEDS_A_DEVICE


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def normal(*shape, seed=0):
    return torch.randn(shape, generator=seeded(seed))


def probabilities(*shape, seed=0):
    return (3 * normal(*shape, seed=seed)).softmax(-1)


def same(found, expected, *, on_device=True):
    """Equal to the last bit, and where the tensors given were."""
    found, expected = (value if isinstance(value, tuple) else (value,) for value in (found, expected))
    for one, other in zip(found, expected, strict=True):
        if isinstance(one, torch.Tensor):
            assert (one.device.type == torch.device(DEVICE).type) or not on_device
            assert torch.equal(one.cpu(), other), f"{one.cpu()} is not {other}"
        else:
            assert one == other


# ---------------------------------------------------------------------- scores

PROBS = {
    "entropy": F.entropy,
    "entropy in bits": lambda probs: F.entropy(probs, base=2),
    "least_confidence": F.least_confidence,
    "margin": F.margin,
}
MC_PROBS = {
    "bald": F.bald,
    "consensus_kl": F.consensus_kl,
    "mean_std": F.mean_std,
    "variation_ratio": F.variation_ratio,
    "vote_entropy": F.vote_entropy,
    "vote_margin": F.vote_margin,
    "count_votes": F.count_votes,
    "predictive_variance": F.predictive_variance,
}


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("classes", [2, 50, 300])
@pytest.mark.parametrize("name", PROBS)
def test_scores_of_probabilities(device, name, classes, dtype):
    probs = probabilities(700, classes).to(dtype)
    probs[0] = torch.nn.functional.one_hot(torch.tensor(1), classes)
    close(PROBS[name](there(probs)), PROBS[name](probs))


@pytest.mark.parametrize("shape", [(700, 5, 3), (40, 20, 300), (6, 4, 5, 7, 10)])
@pytest.mark.parametrize("name", MC_PROBS)
def test_scores_of_passes(device, name, shape):
    mc_probs = probabilities(*shape)
    close(MC_PROBS[name](there(mc_probs)), MC_PROBS[name](mc_probs))


@pytest.mark.parametrize("classes", [1, 2, 30])
def test_distance_to_a_boundary(device, classes):
    given = normal(500, 16), normal(classes, 16, seed=1), normal(classes, seed=2)
    with matmul_precision("medium"):
        close(F.hyperplane_distance(*there(given)), F.hyperplane_distance(*given))


def close(found, expected):
    assert found.device.type == torch.device(DEVICE).type
    assert torch.allclose(found.cpu(), expected, atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize("pairing", ["flip", "random"])
@pytest.mark.parametrize("form", ["hinge", "smooth"])
def test_ranking_loss_and_its_gradient(device, form, pairing):
    def loss_of(predicted, target):
        predicted = predicted.clone().requires_grad_()
        loss = F.pairwise_ranking_loss(predicted, target, form=form, pairing=pairing, generator=seeded())
        loss.backward()
        return loss.detach(), predicted.grad

    given = normal(64), normal(64, seed=1).abs()
    for found, expected in zip(loss_of(*there(given)), loss_of(*given), strict=True):
        close(found, expected)


def test_a_loss_of_what_is_no_number_is_none_on_a_device(device):
    given = there((normal(8), torch.full((8,), math.nan)))
    if torch.device(DEVICE).type == "cpu":
        with pytest.raises(ValueError, match="is NaN"):
            F.pairwise_ranking_loss(*given)
    else:
        assert F.pairwise_ranking_loss(*given).isnan()


def test_ranking_accuracy(device):
    given = normal(1000).round(decimals=1), normal(1000, seed=1).round(decimals=1)
    same(F.ranking_accuracy(*there(given)), F.ranking_accuracy(*given))


# ---------------------------------------------------------------------- choices


def clustered(rows, width, seed=0):
    middles = 3 * normal(20, width, seed=seed)
    return middles[torch.randint(20, (rows,), generator=seeded(seed))] + normal(rows, width, seed=seed + 1)


ROWS = {
    "clustered": lambda: clustered(1500, 24),
    "ties": lambda: torch.randint(0, 3, (1500, 8), generator=seeded()).float(),
    "one-hot": lambda: torch.eye(64)[torch.randint(64, (1500,), generator=seeded())],
    "offset": lambda: 1e4 + clustered(1500, 16),
    "half": lambda: clustered(1500, 16).half(),
    "bfloat16": lambda: clustered(1500, 16).bfloat16(),
    "double": lambda: clustered(1500, 16).double(),
    "tiny": lambda: 1e-20 * clustered(1500, 16),
}


@contextmanager
def matmul_precision(precision):
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(precision)
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


@contextmanager
def deterministic():
    torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(False)


@pytest.fixture(params=["plain", "rough and deterministic", "autocast"])
def setting(request):
    """What a user may have set for training, and what chooses is not to be changed by."""
    with ExitStack() as stack:
        if request.param == "autocast":
            stack.enter_context(torch.autocast("cuda" if IS_GPU else "cpu", torch.bfloat16))
        elif request.param != "plain":
            stack.enter_context(matmul_precision("medium"))
            stack.enter_context(deterministic())
        yield request.param


def selections():
    """By name: what chooses, and of what."""
    rows, known = ROWS["clustered"](), clustered(200, 24, seed=5)
    scores = normal(1500).abs().round(decimals=2)
    probs = probabilities(1500, 6, seed=3)
    labels = torch.stack([1 - probs, probs], -1)

    def drawn(select, **options):
        return lambda *given: select(*given, 60, generator=seeded(), return_scores=True, **options)

    mini = F.diverse_mini_batch
    return {
        "top_k": (drawn(F.top_k), (scores,)),
        "k_center_greedy": (lambda a, b: F.k_center_greedy(a, 60, b, return_scores=True), (rows, known)),
        "k_center_greedy, nothing labelled": (drawn(F.k_center_greedy), (rows,)),
        "k_center_greedy, cosine": (drawn(F.k_center_greedy, metric="cosine"), (rows,)),
        "covering_radius": (F.covering_radius, (rows, known)),
        "kmeans_plus_plus": (drawn(F.kmeans_plus_plus), (rows,)),
        "kmeans_plus_plus, cosine": (drawn(F.kmeans_plus_plus, metric="cosine"), (rows,)),
        "kmeans_plus_plus, centers": (
            lambda a, b: F.kmeans_plus_plus(a, 60, b, generator=seeded(), return_scores=True),
            (rows, known),
        ),
        "badge": (drawn(F.badge), (probs, rows)),
        "badge, random, bias": (drawn(F.badge, first="random", bias=True), (probs, rows)),
        "badge, labels": (drawn(F.badge), (labels, rows)),
        "badge, one logit": (drawn(F.badge), (probs[:, :1], rows)),
        "badge, large numbers": (drawn(F.badge, bias=True), (probs, 1e12 * rows)),
        "diverse_mini_batch": (drawn(mini), (rows, scores)),
        "diverse_mini_batch, labelled": (
            lambda a, b, c: mini(a, b, 60, labeled=c, scale_features=True, generator=seeded()),
            (rows, scores, known),
        ),
        "weighted_kmeans": (
            lambda a, b: tuple(F.weighted_kmeans(a, 30, b, generator=seeded())),
            (rows, scores),
        ),
    }


@pytest.mark.parametrize("name", selections())
def test_choices(device, setting, name):
    select, given = selections()[name]
    expected = select(*given)
    same(select(*there(given)), expected)


@pytest.mark.parametrize("options", [{}, {"exact": True}, {"candidates": 100}])
def test_choices_by_joint_information(device, setting, options):
    passes = normal(400, 40, 4).softmax(-1)

    def choose(mc_probs):
        # Many more labellings than are kept, so that some are drawn.
        options_ = {"num_joint_samples": 500, "generator": seeded(), "return_scores": True, **options}
        return F.batch_bald(mc_probs, 6, **options_)

    (found, information), expected = choose(there(passes)), choose(passes)
    same(found, expected[0])
    assert torch.allclose(information.cpu(), expected[1], atol=2e-6)  # gains nearer than 1e-6 count as equal


@pytest.mark.parametrize("kind", ROWS)
def test_choices_among_rows_that_are_hard(device, kind):
    rows = ROWS[kind]()
    probs = probabilities(len(rows), 5)
    for select in (
        lambda rows, probs: F.k_center_greedy(rows[100:], 50, rows[:100], return_scores=True),
        lambda rows, probs: F.k_center_greedy(rows, 50, return_scores=True),
        lambda rows, probs: F.kmeans_plus_plus(rows, 50, generator=seeded(), return_scores=True),
        lambda rows, probs: F.badge(probs, rows, 50, generator=seeded(), return_scores=True),
        lambda rows, probs: F.diverse_mini_batch(rows, probs[:, 0], 50, generator=seeded()),
    ):
        same(select(*there((rows, probs))), select(rows, probs))


@pytest.mark.parametrize("form", ["power", "softmax", "softrank"])
def test_draws_by_scores(device, form):
    scores = normal(3000).abs().round(decimals=2)

    def draw(scores):
        return F.power_sample(scores, 80, form=form, generator=seeded(), return_scores=True)

    same(draw(there(scores)), draw(scores), on_device=False)  # keys are made on the CPU


def test_a_query_of_the_whole_pool(device):
    rows, probs = clustered(70, 8), probabilities(70, 3)
    for select in (
        lambda rows, probs: F.k_center_greedy(rows, 100),
        lambda rows, probs: F.kmeans_plus_plus(rows, 100, generator=seeded()),
        lambda rows, probs: F.badge(probs, rows, 100, generator=seeded()),
        lambda rows, probs: F.diverse_mini_batch(rows, probs[:, 0], 100, generator=seeded()),
        lambda rows, probs: F.top_k(probs[:, 0], 100),
    ):
        same(select(*there((rows, probs))), select(rows, probs))


# ---------------------------------------------------------------------- here and there


def test_what_belongs_to_the_rows_may_lie_elsewhere(device):
    rows, known, weights = clustered(900, 12), clustered(150, 12, seed=4), normal(900).abs()
    probs = probabilities(900, 5)
    on_device = there(rows)
    same(F.k_center_greedy(on_device, 40, known), F.k_center_greedy(rows, 40, known))
    same(F.k_center_greedy(rows, 40, there(known)), F.k_center_greedy(rows, 40, known), on_device=False)
    assert F.covering_radius(on_device, known) == F.covering_radius(rows, known)
    drawn = F.kmeans_plus_plus(rows, 40, known, generator=seeded())
    same(F.kmeans_plus_plus(on_device, 40, known, generator=seeded()), drawn)
    drawn = F.badge(probs, rows, 40, generator=seeded())
    same(F.badge(probs, on_device, 40, generator=seeded()), drawn)
    same(F.badge(there(probs), rows, 40, generator=seeded()), drawn, on_device=False)
    drawn = F.diverse_mini_batch(rows, weights, 40, labeled=known, generator=seeded())
    for one, other, labeled in (
        (on_device, weights, known), (rows, there(weights), known), (on_device, there(weights), known),
        (on_device, weights, there(known)),
    ):  # fmt: skip
        found = F.diverse_mini_batch(one, other, 40, labeled=labeled, generator=seeded())
        assert found.tolist() == drawn.tolist()


def test_centres_on_a_device_for_rows_in_a_file(device, tmp_path):
    np.save(tmp_path / "rows.npy", clustered(900, 12).numpy())
    rows = as_tensor(np.load(tmp_path / "rows.npy", mmap_mode="r"))
    known = clustered(150, 12, seed=4)
    expected = F.k_center_greedy(rows.clone(), 40, known, return_scores=True)
    same(F.k_center_greedy(rows, 40, there(known), return_scores=True), expected, on_device=False)


def test_rows_by_their_places_on_a_device(device):
    every, places = clustered(1200, 12), torch.randperm(1200, generator=seeded())[:700]
    for metric in ("euclidean", "cosine"):
        here = Vectors.of_embeddings(every, metric=metric, places=places)
        on_device = Vectors.of_embeddings(there(every), metric=metric, places=there(places))
        same(F.k_center_greedy(on_device, 40), F.k_center_greedy(here, 40))
        drawn = F.kmeans_plus_plus(here, 40, generator=seeded())
        same(F.kmeans_plus_plus(on_device, 40, generator=seeded()), drawn)


@pytest.mark.parametrize("ranks", [2, 4])
def test_ranks_whose_rows_are_on_devices_and_one_that_has_none(device, ranks):
    rows, probs, passes = clustered(60, 6), probabilities(60, 4), normal(60, 40, 4).softmax(-1)
    known = clustered(20, 6, seed=4)
    selects = {
        "top_k": lambda at, shard: F.top_k(at(probs)[:, 0], 9, shard=shard),
        "k_center": lambda at, shard: F.k_center_greedy(at(rows), 9, there(known), shard=shard),
        "first": lambda at, shard: F.k_center_greedy(at(rows), 9, shard=shard),
        "badge": lambda at, shard: F.badge(at(probs), at(rows), 9, generator=seeded(), shard=shard),
        "kmeans": lambda at, shard: F.kmeans_plus_plus(at(rows), 9, generator=seeded(), shard=shard),
        "mini": lambda at, shard: F.diverse_mini_batch(
            at(rows), at(probs)[:, 0], 9, beta=3, generator=seeded(), shard=shard
        ),
        "batch_bald": lambda at, shard: F.batch_bald(at(passes), 5, generator=seeded(), shard=shard),
    }

    def work(shard):
        with present():
            return {
                name: back(select(lambda value: there(value[shard.positions]), shard))
                for name, select in selects.items()
            }

    expected = {name: select(lambda value: value, None) for name, select in selects.items()}
    for found in on_ranks(ranks, 60, 20, work):  # of three blocks: the fourth rank has none
        assert {name: value.tolist() for name, value in found.items()} == {
            name: value.tolist() for name, value in expected.items()
        }


class Products(TorchDispatchMode):
    """Counts matrix products."""

    count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.count += func.overloadpacket in (torch.ops.aten.mm, torch.ops.aten.addmm_)
        return func(*args, **(kwargs or {}))


def test_a_device_meets_many_centres_in_few_products(device):
    rows, centers = Vectors((there(normal(70_000, 4)),)), Vectors((there(normal(512, 4, seed=1)),))
    with Products() as products:
        found = near(rows, centers, rows.squares())
    expected = torch.cdist(normal(70_000, 4), normal(512, 4, seed=1)).amin(1).square()
    assert torch.allclose(found.cpu(), expected, atol=1e-3)
    assert products.count <= (138 if torch.device(DEVICE).type == "cpu" else 4)


def test_errors_name_rows_on_a_device(device):
    rows = clustered(50, 4)
    rows[[7, 9]] = math.nan
    rows, fine = there(rows), there(clustered(50, 4))
    for select in (
        lambda: F.k_center_greedy(rows, 3),
        lambda: F.k_center_greedy(fine, 3, rows),
        lambda: F.kmeans_plus_plus(rows, 3),
        lambda: F.badge(there(probabilities(50, 3)), rows, 3),
        lambda: F.diverse_mini_batch(rows, there(torch.ones(50)), 30),
        lambda: F.top_k(rows[:, 0], 3),
    ):
        with pytest.raises(ValueError, match=r"NaN.* at positions \[7, 9\]"):
            select()
    fine[2] = 0
    with pytest.raises(ValueError, match=r"zero.*at positions \[2\]"):
        F.k_center_greedy(fine, 3, metric="cosine")
    with pytest.raises(ValueError, match="sums to"):
        F.entropy(there(normal(50, 3)))
    if torch.device(DEVICE).type != "cpu":
        with pytest.raises(ValueError, match=r"FAISS works on the CPU.*`\.cpu\(\)`"):
            F.k_center_greedy(fine, 3, backend="faiss")

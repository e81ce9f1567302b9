"""What selections by distance have stumbled over: ties, lengths far apart, other default types."""

from __future__ import annotations

import time
from dataclasses import replace

import pytest
import torch
from reference import k_center as slow
from torch.nn.functional import one_hot

from lightning_al import functional as F
from lightning_al.functional import Shard
from lightning_al.functional import nearest as nearest_module
from lightning_al.functional.nearest import by_faiss, exactly_nearest, near, nearest, two_nearest
from lightning_al.functional.vectors import Vectors
from unit.ranks import on_ranks


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def random_corners(count, width):
    return (torch.rand(count, width, generator=seeded()) < 0.5).float()


def one_hots(count, width):
    return one_hot(torch.randint(width, (count,), generator=seeded()), width).float()


TIED = {
    "one-hot": lambda: one_hots(3000, 256),
    "identity": lambda: torch.eye(1200),
    "corners of a cube": lambda: random_corners(3000, 64),
    "copies": lambda: torch.ones(3000, 64),
    "copies of a few": lambda: torch.randn(50, 64, generator=seeded())[torch.arange(3000) % 50],
    "both signs": lambda: torch.cat([torch.eye(256), -torch.eye(256)]).repeat(6, 1),
}


# --- ties


@pytest.mark.parametrize("kind", TIED)
def test_equal_distances_cost_no_more_pairs_than_a_few_a_row(kind, monkeypatch):
    rows = TIED[kind]()
    pool, labeled = rows[200:], rows[:200]
    asked = []
    exact = Vectors.exact

    def counted(self, others):
        asked.append(len(self))
        return exact(self, others)

    monkeypatch.setattr(Vectors, "exact", counted)
    F.k_center_greedy(pool, 100, labeled)
    F.kmeans_plus_plus(pool, 100, labeled, generator=seeded())
    F.diverse_mini_batch(pool, torch.ones(len(pool)), 50, generator=seeded())
    assert sum(asked) < 20 * len(rows)  # of some 300 x rows that tie


@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
@pytest.mark.parametrize("kind", ["one-hot", "corners of a cube", "both signs"])
def test_of_equally_far_rows_the_first_is_picked(kind, metric):
    rows = TIED[kind]()[:200]
    rows = rows[rows.any(1)].numpy()
    expected = slow.k_center_greedy(rows[30:], 25, rows[:30], metric=metric)
    found = F.k_center_greedy(torch.from_numpy(rows[30:]), 25, torch.from_numpy(rows[:30]), metric=metric)
    assert found.tolist() == list(expected[0] if isinstance(expected, tuple) else expected)


@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
@pytest.mark.parametrize("kind", ["whole numbers", "copies", "normal"])
def test_the_nearest_is_found_exactly_and_the_first_of_equal_ones(kind, metric):
    rows = {
        "whole numbers": torch.randint(1, 4, (80, 6), generator=seeded()).float(),
        "copies": torch.randn(7, 6, generator=seeded())[torch.arange(80) % 7],
        "normal": torch.randn(80, 6, generator=seeded()),
    }[kind]
    every = Vectors.of_embeddings(rows, metric=metric)
    mine, its = every.take(torch.arange(40)), every.take(torch.arange(40, 80))
    pairs = torch.cartesian_prod(torch.arange(40), torch.arange(40))
    table = mine.take(pairs[:, 0]).exact(its.take(pairs[:, 1])).view(40, 40)
    distance, place = exactly_nearest(mine, its)
    assert torch.equal(distance, table.amin(1))
    assert place.tolist() == [int((row == row.min()).nonzero()[0]) for row in table]
    counted = torch.arange(40) < torch.arange(40)[:, None]  # none for the first row
    distance, place = exactly_nearest(mine, its, counted=lambda some: counted[some])
    table[~counted] = torch.inf
    assert torch.equal(distance, table.amin(1))
    assert place.tolist() == [40, *(int((row == row.min()).nonzero()[0]) for row in table[1:])]
    assert exactly_nearest(mine, its.take(torch.arange(0)))[1].tolist() == [0] * 40


def nested(count, width, levels=6):
    rows = torch.zeros(count, width)
    for level in range(levels):
        centers = torch.randn(4 ** (level + 1), width, generator=seeded(level)) * 10.0**-level
        rows += centers[torch.arange(count) * len(centers) // count]
    return rows[torch.randperm(count, generator=seeded())]


NEARLY_TIED = {
    "nested clusters": lambda: nested(4000, 64),
    "tight clusters": lambda: (
        torch.randn(20, 64, generator=seeded())[torch.arange(4000) % 20]
        + 1e-3 * torch.randn(4000, 64, generator=seeded(1))
    ),
    "near-copies": lambda: (
        torch.randn(200, 64, generator=seeded())[torch.arange(4000) % 200]
        + 1e-4 * torch.randn(4000, 64, generator=seeded(1))
    ),
    "a line": lambda: torch.linspace(0, 1, 4000)[:, None].expand(4000, 64).contiguous(),
}


@pytest.mark.parametrize("kind", NEARLY_TIED)
def test_rows_that_hardly_differ_are_made_exact_once_and_not_at_every_renewal(kind, monkeypatch):
    rows = NEARLY_TIED[kind]()
    probs = rows[:, :5].softmax(1)
    compared = []
    make = Vectors.distances

    def counted(self, some, centers):
        compared.append(len(self) * len(centers))
        return make(self, some, centers)

    monkeypatch.setattr(Vectors, "distances", counted)
    for draw in (
        lambda: F.kmeans_plus_plus(rows, 400, generator=seeded()),
        lambda: F.badge(probs, rows, 400, generator=seeded()),
        lambda: F.k_center_greedy(rows, 400),
    ):
        compared.clear()
        draw()
        assert sum(compared) < 3 * len(rows) * 400  # a plain loop makes as many as rows times picks


# --- lengths


@pytest.mark.parametrize("kind", [torch.float32, torch.float64])
def test_cosine_knows_no_length(kind):
    rows = torch.randn(120, 12, generator=seeded(), dtype=torch.float64)
    expected = F.k_center_greedy(rows[20:], 30, rows[:20], metric="cosine").tolist()
    powers = torch.randint(-110, 45, (120, 1), generator=seeded(1)).double()  # 1e-33 to 1e13
    if kind == torch.float64:
        powers = powers * 6  # to 1e-198
    scaled = (rows.to(kind).double() * torch.exp2(powers)).to(kind)
    found = F.k_center_greedy(scaled[20:], 30, scaled[:20], metric="cosine")
    assert (
        found.tolist()
        == F.k_center_greedy(rows[20:].to(kind), 30, rows[:20].to(kind), metric="cosine").tolist()
    )
    if kind == torch.float64:
        assert found.tolist() == expected
    drawn = F.kmeans_plus_plus(scaled, 30, metric="cosine", generator=seeded())
    assert (
        drawn.tolist() == F.kmeans_plus_plus(rows.to(kind), 30, metric="cosine", generator=seeded()).tolist()
    )


@pytest.mark.parametrize("length", [1e-320, 1e-300, 1e-45, 1e-40, 1e-38, 1e30, 1e38, 1e300])
def test_numbers_at_the_ends_of_what_there_is(length):
    kind = torch.float64 if length < 1e-50 or length > 1e50 else torch.float32
    rows = torch.arange(1.0, 9.0, dtype=torch.float64)[:, None].repeat(1, 3) / 8
    rows = (rows * (length if length > 1 else length * 64)).to(kind)
    for metric in ("euclidean", "cosine"):
        found = F.k_center_greedy(rows, 3, rows[:1], metric=metric)
        assert len(set(found.tolist())) == 3
        assert len(set(F.kmeans_plus_plus(rows, 3, metric=metric, generator=seeded()).tolist())) == 3
    assert F.k_center_greedy(rows, 1, rows[:1]).tolist() == [7]


@pytest.mark.parametrize("first", ["largest", "random"])
@pytest.mark.parametrize(
    ("probs", "embeddings"),
    [
        (lambda: (torch.rand(200, 3) * 12 + 90) * torch.eye(3)[torch.arange(200) % 3], None),
        (lambda: 200 * torch.eye(3)[torch.arange(200) % 3], None),
        (None, lambda: torch.randn(200, 5) * 1e-40),
        (None, lambda: torch.randn(200, 5, dtype=torch.float64) * 1e-320),
        (None, lambda: torch.randn(200, 5, dtype=torch.float64) * 1e300),
    ],
)
def test_gradients_of_any_size_are_drawn_from_the_pool(probs, embeddings, first):
    torch.manual_seed(0)
    sure = torch.randn(200, 3).softmax(1) if probs is None else probs().softmax(1)
    rows = torch.randn(200, 5) if embeddings is None else embeddings()
    for bias in (False, True):
        found, scores = F.badge(
            sure, rows, 40, first=first, bias=bias, generator=seeded(), return_scores=True
        )
        assert sorted(set(found.tolist())) == sorted(found.tolist())
        assert 0 <= int(found.min()) <= int(found.max()) < 200
        assert not scores.isnan().any()


@pytest.mark.parametrize("width", [64, 512, 4096, 16_384, 100_000])
@pytest.mark.parametrize("kind", ["equal", "one sign", "both signs"])
@pytest.mark.parametrize("backend", ["torch", "faiss"])
def test_distances_are_off_by_no_more_than_is_said(width, kind, backend):
    rows = {
        "equal": lambda: (0.1 + torch.rand(40, 1, generator=seeded())).expand(40, width).contiguous(),
        "one sign": lambda: torch.rand(40, width, generator=seeded()),
        "both signs": lambda: torch.randn(40, width, generator=seeded()),
    }[kind]()
    every = Vectors((rows,), backend=backend)  # as it would be without an origin
    some = every.take(torch.arange(16))
    exact = torch.stack([(rows.double() - rows[place].double()).square().sum(1) for place in range(16)], 1)
    squares = every.squares()
    told = {
        "distances": (every.distances(slice(None), some), exact, squares[:, None]),
        "near": (near(every, some, squares), exact.amin(1), squares),
        "nearest": (nearest(every, some)[0], exact.amin(1), squares),
        "two": (two_nearest(every, some)[2], exact.sort(1).values[:, 1], squares),
    }
    for name, (found, true, length) in told.items():
        off = (found.double() - true).abs() / every.slack(length, found)
        assert float(off.max()) < 0.7, name  # nothing is that near to the bound
    assert by_faiss(every, 16) == (backend == "faiss" and width <= 2**16)


# --- who makes distances


def test_the_faster_of_both_is_found_out_where_there_is_enough_to_do(monkeypatch):
    few, many = (Vectors.of_embeddings(torch.randn(count, 256)) for count in (50, 3000))
    tried = []

    def trial(threads):
        tried.append(threads)
        return True

    monkeypatch.setattr(nearest_module, "_faiss_is_fast", trial)
    monkeypatch.setattr(nearest_module.sys, "platform", "linux")
    assert not by_faiss(few, 64)
    assert not by_faiss(many, 8)
    assert tried == []
    assert by_faiss(many, 64)
    assert tried == [torch.get_num_threads()]
    assert not by_faiss(replace(many, backend="torch"), 64)
    assert by_faiss(replace(few, backend="faiss"), 1)
    monkeypatch.setattr(nearest_module, "_faiss_is_fast", lambda threads: False)
    assert not by_faiss(many, 64)
    monkeypatch.undo()
    assert nearest_module._faiss_is_fast(1) in (True, False)


# --- what is set outside


@pytest.mark.parametrize("kind", [torch.float64, torch.float16, torch.bfloat16])
def test_the_default_type_of_the_user_changes_nothing(kind):
    rows = torch.randn(300, 12, generator=seeded())
    probs, many = torch.rand(300, 5, generator=seeded()), torch.rand(300, 6, 5, generator=seeded())
    probs, many = probs / probs.sum(1, keepdim=True), many / many.sum(2, keepdim=True)
    scores = probs.amax(1)

    def everything():
        shown = {"return_scores": True, "generator": seeded()}
        return [
            F.k_center_greedy(rows, 20, rows[:40], **shown),
            F.k_center_greedy(rows, 20, metric="cosine", **shown),
            F.kmeans_plus_plus(rows, 20, **shown),
            F.kmeans_plus_plus(rows, 20, rows[:40], backend="faiss", **shown),
            F.badge(probs, rows, 20, bias=True, **shown),
            F.diverse_mini_batch(rows, scores, 10, **shown),
            F.diverse_mini_batch(rows, scores, 10, labeled=rows[:40], scale_features=True, **shown),
            F.power_sample(scores, 10, **shown),
            F.top_k(scores, 10, return_scores=True),
            F.batch_bald(many, 4, num_joint_samples=50, **shown),
            (torch.tensor(F.covering_radius(rows, rows[:9]), dtype=torch.float64),),
        ]

    expected = everything()
    torch.set_default_dtype(kind)
    try:
        found = everything()
    finally:
        torch.set_default_dtype(torch.float32)
    for one, other in zip(found, expected, strict=True):
        assert [part.dtype for part in one] == [part.dtype for part in other]
        assert all(torch.equal(part, its) for part, its in zip(one, other, strict=True))


# --- one rank fails


@pytest.mark.parametrize(
    "select",
    [
        lambda rows, scores, shard: F.k_center_greedy(rows, 3, shard=shard),
        lambda rows, scores, shard: F.covering_radius(rows, torch.zeros(1, 4), shard=shard),
        lambda rows, scores, shard: F.kmeans_plus_plus(rows, 3, shard=shard),
        lambda rows, scores, shard: F.badge(scores[:, None].sigmoid(), rows, 3, shard=shard),
        lambda rows, scores, shard: F.diverse_mini_batch(rows, scores, 3, shard=shard),
        lambda rows, scores, shard: F.top_k(scores + rows[:, 0], 3, shard=shard),
        lambda rows, scores, shard: F.power_sample(scores + rows[:, 0].abs(), 3, shard=shard),
        lambda rows, scores, shard: F.power_sample(scores - rows.isnan()[:, 0] * 9.0, 3, shard=shard),
        lambda rows, scores, shard: F.batch_bald(rows.softmax(1)[:, None].repeat(1, 2, 1), 3, shard=shard),
    ],
)
def test_what_one_rank_cannot_use_is_said_on_all(select):
    rows, scores = torch.randn(40, 4, generator=seeded()), torch.rand(40, generator=seeded())
    rows[22] = torch.nan  # of rank 1
    said = {}

    def work(shard):
        here = shard.positions
        try:
            select(rows[here], scores[here], replace(shard, samples=here + 100))
        except (ValueError, RuntimeError) as error:
            said[shard.rank] = f"{type(error).__name__}: {error}"

    begun = time.monotonic()
    on_ranks(3, 40, 5, work)
    assert time.monotonic() - begun < 200, "they waited for each other"
    assert said[0] == said[2] == f"RuntimeError: The selection failed on rank 1: {said[1]}"
    assert said[1].startswith("ValueError")
    assert "in samples [122]" in said[1] or "negative score" in said[1]


def test_rows_are_named_by_what_is_known_of_them():
    shard = Shard(torch.tensor([5, 6, 9]), 10)
    wrong = torch.tensor([True, False, True])
    assert shard.named(wrong) == "at positions [5, 9]"
    known = replace(shard, samples=torch.tensor([70, 71, 72]))
    assert known.named(wrong) == "in samples [70, 72]"
    assert known.of_rows(torch.tensor([1, 2])).named(torch.tensor([False, True])) == "in samples [72]"
    assert Shard.whole(20).named(torch.ones(20, dtype=torch.bool)) == "at positions [0, 1, 2, 3, 4] and more"

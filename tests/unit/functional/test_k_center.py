import math

import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from reference import k_center as slow

from lightning_al.functional import farthest, front, nearest, vectors
from lightning_al.functional.k_center import covering_radius, k_center_greedy
from lightning_al.functional.vectors import Vectors
from unit.ranks import counting, on_ranks

KINDS = ("normal", "lattice", "line", "copies", "huge", "tiny", "offset", "clusters", "tight")


def rows_of(kind, count, width, rng):
    """Rows of data that is hard in one way, float32."""
    if kind == "line":
        width = 1
    rows = rng.normal(size=(count, width))
    if kind == "lattice":
        rows = rng.integers(-1, 2, size=(count, width))
    if kind == "copies":
        rows = np.array([0.1, 1 / 3, 7.0])[rng.integers(0, 3, size=(count, 1))] * np.ones(width)
    if kind == "huge":
        rows = rows * 1e18
    if kind == "tiny":
        rows = rows * 1e-18
    if kind == "offset":
        rows = rows + 1e6
    if kind in ("clusters", "tight"):
        spread = 1e-3 if kind == "clusters" else 1e-6
        rows = 10.0 * rng.integers(0, 3, size=(count, 1)) + spread * rows
    return np.asarray(rows, dtype=np.float32)


def problem(kind, seed, count=None, labeled=None, width=None):
    rng = np.random.default_rng(seed)
    width = int(rng.integers(1, 6)) if width is None else width
    count = int(rng.integers(0, 40)) if count is None else count
    labeled = int(rng.integers(0, 12)) * int(rng.integers(0, 2)) if labeled is None else labeled
    rows = rows_of(kind, count + labeled, width, rng)
    return rows[:count], rows[count:], int(rng.integers(1, count + 5))


def assert_equals_definition(pool, labeled, query_size, metric="euclidean", **options):
    expected = slow.k_center_greedy(np.float64(pool), query_size, np.float64(labeled), metric)
    pool, labeled = torch.as_tensor(pool), torch.as_tensor(labeled)
    positions, distances = k_center_greedy(
        pool, query_size, labeled, metric=metric, return_scores=True, **options
    )
    assert (positions.tolist(), distances.tolist()) == expected
    assert k_center_greedy(pool, query_size, labeled, metric=metric, **options).tolist() == expected[0]


@pytest.fixture
def small_steps(monkeypatch):
    """Several blocks, rounds and chunks also in small problems."""
    steps = {
        farthest: {"_BLOCK": 3, "_FRONT": 4, "_ANCHORS": 2, "_AROUND": 7, "_CHUNK": 3, "_SOME": 2},
        front: {"_GUESSED": 2, "_LIKELY": 2},
        nearest: {"_CELLS": 8, "_CANDIDATES": 1, "_PAIR_NUMBERS": 3, "_ROWS": 3, "_CENTERS": 2},
    }
    for module, sizes in steps.items():
        for name, size in sizes.items():
            monkeypatch.setattr(module, name, size)
    monkeypatch.setattr(vectors, "_CHUNK_BYTES", 64)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("seed", range(10))
def test_picks_and_distances_equal_the_definition(kind, seed):
    assert_equals_definition(*problem(kind, seed))


@pytest.mark.parametrize("backend", ["torch", "faiss"])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("seed", range(5))
def test_picks_are_the_same_in_small_steps_of_either_backend(kind, seed, backend, small_steps):
    assert_equals_definition(*problem(kind, seed + 100), backend=backend)


@pytest.mark.parametrize("kind", ["normal", "lattice", "clusters", "huge", "tiny"])
@pytest.mark.parametrize("seed", range(6))
def test_cosine_equals_the_definition(kind, seed, small_steps):
    pool, labeled, query_size = problem(kind, seed + 200, width=4)
    pool, labeled = (rows[(rows != 0).any(1)] for rows in (pool, labeled))
    pool[::3] *= 4
    assert_equals_definition(pool, labeled, query_size, "cosine")


@pytest.mark.parametrize("labeled", [0, 5, 300])
def test_rows_of_512_numbers_equal_the_definition(labeled):
    assert_equals_definition(*problem("normal", 0, 400, labeled, 512)[:2], 60)


@given(
    rows=st.lists(st.tuples(st.integers(0, 4), st.integers(0, 2)), max_size=25),
    known=st.integers(0, 25),
    query_size=st.integers(1, 30),
)
@settings(max_examples=100)
def test_ties_go_to_the_lowest_position(rows, known, query_size):
    rows = np.array(rows, dtype=np.float32).reshape(-1, 2)
    assert_equals_definition(rows[known:], rows[:known], query_size)


@pytest.mark.parametrize("kind", ["normal", "lattice", "clusters"])
def test_a_longer_query_begins_with_the_shorter_and_shuffling_changes_no_sample(kind):
    pool, labeled, _ = problem(kind, 3, 60, 4, 4)
    whole = k_center_greedy(torch.from_numpy(pool), 40, torch.from_numpy(labeled)).tolist()
    for size in (1, 7, 39):
        assert (
            k_center_greedy(torch.from_numpy(pool), size, torch.from_numpy(labeled)).tolist() == whole[:size]
        )
    if kind == "normal":
        order = np.random.default_rng(0).permutation(60)
        shuffled = k_center_greedy(torch.from_numpy(pool[order]), 40, torch.from_numpy(labeled))
        assert order[shuffled.numpy()].tolist() == whole


@pytest.mark.parametrize("seed", range(6))
def test_the_radius_is_at_most_twice_the_best(seed):
    pool, labeled, _ = problem("normal", seed, 9, 2, 2)
    picks = k_center_greedy(torch.from_numpy(pool), 3, torch.from_numpy(labeled))
    centers = torch.cat([torch.from_numpy(labeled), torch.from_numpy(pool)[picks]])
    radius = covering_radius(torch.from_numpy(pool), centers)
    best = slow.best_radius(pool, 3, labeled)
    assert best * (1 - 1e-6) <= radius <= 2 * best
    following = k_center_greedy(torch.from_numpy(pool), 4, torch.from_numpy(labeled), return_scores=True)[1]
    assert radius == float(following[-1])


@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
@pytest.mark.parametrize("kind", ["normal", "huge", "tiny", "clusters"])
def test_covering_radius_equals_the_definition(kind, metric):
    pool, centers, _ = problem(kind, 1, 50, 9, 3)
    expected = slow.covering_radius(np.float64(pool), np.float64(centers), metric)
    found = covering_radius(torch.from_numpy(pool), torch.from_numpy(centers), metric=metric)
    assert isinstance(found, float)
    assert found == pytest.approx(expected, rel=1e-6)


def test_covering_radius_without_rows_or_centres():
    rows = torch.ones(3, 2)
    assert covering_radius(rows, None) == math.inf
    assert covering_radius(rows, rows[:0]) == math.inf
    assert covering_radius(rows[:0], rows) == covering_radius(rows[:0], None) == 0
    assert covering_radius(rows, rows) == 0


# --- all that must not change a pick


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("kind", ["normal", "lattice", "offset"])
def test_any_floating_type_is_taken_as_it_is(kind, dtype):
    pool, labeled, _ = problem(kind, 5, 40, 6, 5)
    pool, labeled = (torch.from_numpy(rows).clamp_max(3e4).to(dtype) for rows in (pool, labeled))
    positions, distances = k_center_greedy(pool, 30, labeled, return_scores=True)
    expected = slow.k_center_greedy(pool.double().numpy(), 30, labeled.double().numpy())
    assert (positions.tolist(), distances.tolist()) == expected
    assert (positions.dtype, distances.dtype) == (torch.long, torch.float32)


def test_an_offset_that_float32_cannot_hold_is_no_loss_in_float64():
    rng = np.random.default_rng(0)
    assert_equals_definition(1e9 + rng.normal(size=(200, 8)), 1e9 + rng.normal(size=(150, 8)), 50)


@pytest.mark.parametrize("scales", [(1e-18, 1.0), (1.0, 1e18), (1e18, 1.0), (1.0, 1e-25), (1e-25, 1.0)])
def test_pool_and_labelled_rows_may_be_of_very_different_length(scales):
    rng = np.random.default_rng(0)
    pool, labeled = (np.float32(scale * rng.normal(size=(30, 3))) for scale in scales)
    assert_equals_definition(pool, labeled, 25)


@pytest.mark.parametrize("kind", ["normal", "clusters"])
def test_picks_do_not_depend_on_threads_or_chunks(kind, monkeypatch):
    pool, labeled, _ = problem(kind, 7, 1000, 200, 16)
    pool, labeled = torch.from_numpy(pool), torch.from_numpy(labeled)
    expected = k_center_greedy(pool, 20, labeled, return_scores=True)
    threads = torch.get_num_threads()
    try:
        for count, chunk in ((1, 2**9), (2, 2**14)):
            torch.set_num_threads(count)
            monkeypatch.setattr(vectors, "_CHUNK_BYTES", chunk)
            found = k_center_greedy(pool, 20, labeled, return_scores=True)
            assert all(torch.equal(one, other) for one, other in zip(expected, found, strict=True))
    finally:
        torch.set_num_threads(threads)


@pytest.mark.parametrize("world_size", [1, 2, 3, 4])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("labeled", [0, 9])
def test_every_number_of_ranks_finds_the_same(kind, labeled, world_size, small_steps):
    pool, known, query_size = problem(kind, 11, 23, labeled, 3)
    expected = slow.k_center_greedy(np.float64(pool), query_size, np.float64(known))

    def work(shard):
        return k_center_greedy(
            torch.from_numpy(pool)[shard.positions], query_size, torch.from_numpy(known), shard=shard,
            return_scores=True,
        )  # fmt: skip

    for positions, distances in on_ranks(world_size, 23, 5, work):
        assert (positions.tolist(), distances.tolist()) == expected


def test_ranks_may_be_empty_and_tell_each_other_little():
    pool, known, _ = problem("normal", 0, 900, 200, 8)
    told = []

    def work(shard):
        shard = counting(shard, told)
        rows = torch.from_numpy(pool)[shard.positions]
        found = k_center_greedy(rows, 300, torch.from_numpy(known), shard=shard)
        return found, covering_radius(rows, torch.from_numpy(known), shard=shard)

    expected = slow.k_center_greedy(np.float64(pool), 300, np.float64(known))
    for positions, radius in on_ranks(3, 900, 500, work):
        assert positions.tolist() == expected[0]
        assert radius == expected[1][0]
    assert len(told) / 3 < 0.2 * 300


def test_rows_of_a_file_are_read_in_chunks(tmp_path):
    rng = np.random.default_rng(0)
    pool = rng.normal(size=(500, 32)).astype(np.float16)
    np.save(tmp_path / "pool.npy", pool)
    mapped = np.load(tmp_path / "pool.npy", mmap_mode="r")
    found = k_center_greedy(vectors.as_tensor(mapped), 40)
    assert found.tolist() == slow.k_center_greedy(np.float64(pool), 40)[0]


def test_vectors_with_places_are_a_pool():
    rng = np.random.default_rng(0)
    every = rng.normal(size=(50, 4)).astype(np.float32)
    places = torch.from_numpy(rng.permutation(50)[:30])
    pool = Vectors.of_embeddings(torch.from_numpy(every), places=places)
    expected = slow.k_center_greedy(np.float64(every[places.numpy()]), 12, np.float64(every[:3]))[0]
    assert k_center_greedy(pool, 12, torch.from_numpy(every[:3])).tolist() == expected


def test_nothing_is_written_to_what_was_given():
    rows, known = torch.randn(40, 3), torch.randn(5, 3)
    copies = rows.clone(), known.clone()
    k_center_greedy(rows.requires_grad_(), 9, known)
    assert torch.equal(rows, copies[0])
    assert torch.equal(known, copies[1])


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("kind", KINDS)
def test_a_device_finds_the_same(kind):
    pool, labeled, _ = problem(kind, 7, 3000, 200, 16)
    pool, labeled = torch.from_numpy(pool), torch.from_numpy(labeled)
    expected = k_center_greedy(pool, 80, labeled, return_scores=True)
    found = k_center_greedy(pool.cuda(), 80, labeled.cuda(), return_scores=True)
    assert found[0].is_cuda
    assert all(torch.equal(one, other.cpu()) for one, other in zip(expected, found, strict=True))


# --- little work


def test_few_of_the_distances_are_made(monkeypatch):
    rng = np.random.default_rng(0)
    middles = rng.normal(size=(40, 16))
    rows = (middles[rng.integers(0, 40, 21_000)] + 0.2 * rng.normal(size=(21_000, 16))).astype(np.float32)
    made = []
    for name in ("nearest", "near"):
        make = getattr(farthest, name)

        def counted(rows, centers, *squares, make=make):
            made.append(len(rows) * len(centers))
            return make(rows, centers, *squares)

        monkeypatch.setattr(farthest, name, counted)
    k_center_greedy(torch.from_numpy(rows[:20_000]), 400, torch.from_numpy(rows[20_000:]))
    assert sum(made) < 0.15 * 20_000 * 1400


# --- what cannot be


def test_wrong_rows_are_named():
    rows = torch.randn(5, 2)
    rows[3, 1] = torch.nan
    with pytest.raises(ValueError, match=r"`embeddings` is NaN or infinite at positions \[3\]"):
        k_center_greedy(rows, 2)
    with pytest.raises(ValueError, match=r"`labeled` is NaN or infinite at positions \[3\]"):
        k_center_greedy(torch.randn(5, 2), 2, rows)
    with pytest.raises(ValueError, match=r"`embeddings` is zero, which has no direction, at positions \[1\]"):
        k_center_greedy(torch.tensor([[1.0], [0.0]]), 2, metric="cosine")
    with pytest.raises(ValueError, match="`centers` has 3 numbers a row, and `embeddings` has 2"):
        covering_radius(torch.randn(5, 2), torch.randn(5, 3))


@pytest.mark.parametrize(
    ("pool", "message"),
    [
        (torch.zeros(3, 0), "D > 0"),
        (torch.zeros(3), "one vector a sample"),
        (torch.zeros(3, 2, dtype=torch.long), "int64"),
        (torch.zeros(3, 2, dtype=torch.complex64), "real and imaginary"),
        (np.zeros((3, 2)), "torch.as_tensor"),
    ],
)
def test_what_is_no_matrix_of_numbers_is_refused(pool, message):
    with pytest.raises((TypeError, ValueError), match=message):
        k_center_greedy(pool, 2)
    with pytest.raises((TypeError, ValueError), match=message):
        k_center_greedy(torch.zeros(3, 2), 2, pool)


def test_wrong_options_are_refused():
    rows = torch.randn(5, 2)
    with pytest.raises(ValueError, match='"euclidean" or "cosine"'):
        k_center_greedy(rows, 2, metric="l1")
    with pytest.raises(ValueError, match='"auto", "faiss" or "torch"'):
        k_center_greedy(rows, 2, backend="numpy")
    with pytest.raises(ValueError, match="at least 1"):
        k_center_greedy(rows, 0)
    with pytest.raises(TypeError, match="whole number"):
        k_center_greedy(rows, 2.0)
    with pytest.raises(ValueError, match="`embeddings` has 5 rows, but `shard` says that 4"):
        k_center_greedy(rows, 2, shard=vectors.Shard.whole(4))

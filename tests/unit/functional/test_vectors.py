import warnings

import numpy as np
import pytest
import torch
from warm import server

from lightning_al.functional import vectors
from lightning_al.functional.arithmetic import exact_arithmetic
from lightning_al.functional.nearest import by_faiss, near, nearest
from lightning_al.functional.shard import Shard
from lightning_al.functional.vectors import Vectors, as_tensor
from unit.ranks import on_ranks

HARD = ("normal", "long", "short", "offset", "clusters", "copies", "positive")


def rows_of(kind, count, width, seed=0, dtype=np.float64):
    rng = np.random.default_rng(seed)
    rows = rng.normal(size=(count, width))
    if kind == "long":
        rows = rows * 1e20
    if kind == "short":
        rows = rows * 1e-20
    if kind == "offset":
        rows = rows + 1e7
    if kind == "clusters":
        rows = 100.0 * rng.integers(-1, 2, size=(count, 1)) + 1e-2 * rows
    if kind == "copies":
        rows = np.repeat(rows[:1], count, 0)
    if kind == "positive":
        rows = np.full((count, width), 0.1) + 1e-3 * np.abs(rows)
    return torch.from_numpy(rows.astype(dtype))


def explicit(rows, others, metric="euclidean"):
    """All distances, as differences in float64."""
    if metric == "cosine":
        rows, others = (part / part.norm(dim=1, keepdim=True) for part in (rows, others))
    squares = (rows[:, None] - others).square().sum(-1)
    return squares.sqrt() if metric == "euclidean" else squares / 2


def squared(made, rows, metric="euclidean"):
    """What `Vectors` calls a squared distance, of an explicit one."""
    return made * 2 if metric == "cosine" else (made * rows.scale).square()


def outer(left, right, bias):
    right = torch.cat([right, torch.ones(len(right), 1, dtype=right.dtype)], 1) if bias else right
    return torch.einsum("na,nb->nab", left.double(), right.double()).flatten(1)


# --- distances


CASES = [
    (kind, dtype)
    for kind in HARD
    for dtype in (np.float16, np.float32, np.float64)
    if dtype != np.float16 or kind not in ("long", "short", "offset")  # beyond its range
]


@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
@pytest.mark.parametrize("width", [1, 7, 512])
@pytest.mark.parametrize(("kind", "dtype"), CASES)
def test_distances_are_off_by_no_more_than_their_slack(kind, dtype, width, metric):
    given, centers = rows_of(kind, 60, width, 0, dtype), rows_of(kind, 40, width, 1, dtype)
    true = explicit(given.double(), centers.double(), metric)
    for backend in ("torch", "faiss"):
        rows = Vectors.of_embeddings(given, metric=metric, backend=backend)
        others = rows.like(centers)
        for precision in (torch.float32, torch.float64):
            mine, its = rows.ready(precision), others.ready(precision)
            expected = squared(true, rows, metric)
            found, place = nearest(mine, its)
            assert found.dtype == precision
            squares = mine.squares()
            assert ((found - expected.amin(1)).abs() <= mine.slack(squares, found)).all()
            assert ((near(mine, its, squares) - expected.amin(1)).abs() <= mine.slack(squares, found)).all()
            reached = expected.gather(1, place[:, None]).squeeze(1)
            assert (reached - expected.amin(1) <= 2 * mine.slack(squares, found)).all()
            every = mine.distances(slice(None), its)
            assert ((every - expected).abs() <= mine.slack(squares[:, None], every)).all()


@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
@pytest.mark.parametrize("kind", HARD)
def test_exact_distances_are_the_float64_ones_rounded(kind, metric):
    given, centers = rows_of(kind, 30, 9, 0), rows_of(kind, 30, 9, 1)
    rows = Vectors.of_embeddings(given, metric=metric)
    true = explicit(given, centers, metric).diagonal()
    found = rows.exact(rows.like(centers))
    assert found.dtype == torch.float32
    torch.testing.assert_close(
        found.double() / (1 if metric == "cosine" else rows.scale), true, rtol=1e-7, atol=1e-15
    )


def test_the_slack_is_no_larger_than_it_must_be():
    rows = Vectors.of_embeddings(torch.randn(100, 512))
    squares = rows.squares()
    assert (rows.slack(squares, squares) < 1e-4 * squares).all()
    fine = rows.ready(torch.float64)
    assert (fine.slack(fine.squares(), fine.squares()) < 1e-12 * fine.squares()).all()


@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
def test_what_is_exact_depends_on_the_two_rows_alone(metric):
    given = rows_of("normal", 50, 33)
    given[7] *= 1e-30
    rows = Vectors.of_embeddings(given, metric=metric)
    order = torch.randperm(50, generator=torch.Generator().manual_seed(0))
    at_once = rows.exact(rows.take(order))
    one_by_one = [rows.take(torch.tensor([i])).exact(rows.take(order[i : i + 1])) for i in range(50)]
    assert torch.equal(at_once, torch.cat(one_by_one))


@pytest.mark.parametrize("scale", [1e-30, 1e-18, 1.0])
def test_short_rows_have_a_direction_beside_long_ones(scale):
    given = torch.tensor([[scale * 3, scale * 4], [3.0, 4.0], [1e5, 0.0]])
    rows = Vectors.of_embeddings(given, metric="cosine")
    assert rows.block(slice(None))[0][:2].flatten().tolist() == pytest.approx([0.6, 0.8] * 2)
    others = rows.like(torch.tensor([[4.0, 3.0]]).expand(3, 2))
    assert rows.exact(others).tolist() == pytest.approx([0.04, 0.04, 0.2])


@pytest.mark.parametrize("bias", [False, True])
def test_outer_products_are_compared_without_being_made(bias):
    generator = torch.Generator().manual_seed(0)
    left, right = torch.randn(40, 3, generator=generator), torch.randn(40, 6, generator=generator)
    rows = Vectors.of_gradients(left, right, bias=bias)
    some = rows.take(torch.arange(5, 15))
    true = explicit(outer(left, right, bias), outer(left, right, bias)[5:15])
    found, _ = nearest(rows, some)
    squares = rows.squares()
    torch.testing.assert_close(squares.double(), outer(left, right, bias).square().sum(1), rtol=1e-6, atol=0)
    for distances in (found, near(rows, some, squares)):
        assert ((distances - true.amin(1).square()).abs() <= rows.slack(squares, distances)).all()
    exact = rows.take(torch.arange(10)).exact(some)
    torch.testing.assert_close(exact.double(), true[:10].diagonal(), rtol=1e-6, atol=0)


# --- rows


def test_places_are_rows_of_a_file_in_any_order(monkeypatch):
    given = rows_of("offset", 50, 6, dtype=np.float32)
    places = torch.tensor([9, 2, 44, 3, 30, 31, 7])
    some, copied = Vectors.of_embeddings(given, places=places), Vectors.of_embeddings(given[places])
    monkeypatch.setattr(vectors, "_CHUNK_BYTES", 50)
    assert len(some) == 7
    assert torch.equal(some.squares(), copied.squares())
    assert torch.equal(some.take(torch.tensor([2, 1])).factors[0], given[[44, 2]])
    assert torch.equal(some.joined(some.take(torch.tensor([0]))).factors[0], given[[*places.tolist(), 9]])
    given[5] = torch.nan  # not one of them
    Vectors.of_embeddings(given, places=places)


def test_float64_loses_nothing_to_an_offset():
    given = rows_of("normal", 20, 4) + 1e12
    rows = Vectors.of_embeddings(given)
    assert rows.origin is not None
    true = explicit(given, given[:1])[:, 0]
    found, _ = nearest(rows, rows.take(torch.tensor([0])))
    torch.testing.assert_close(found.sqrt().double() / rows.scale, true, rtol=1e-4, atol=1e-3)


def test_half_precision_is_read_in_chunks_and_not_converted_as_a_whole(monkeypatch):
    monkeypatch.setattr(vectors, "_CHUNK_BYTES", 4 * 8 * 10)
    given = rows_of("normal", 95, 8, dtype=np.float16)
    rows = Vectors.of_embeddings(given)
    assert rows.factors[0].data_ptr() == given.data_ptr()
    assert [part.stop - part.start for part in rows.chunks()] == [10] * 9 + [5]


def test_gathered_rows_are_those_of_all_ranks_in_order():
    given = rows_of("normal", 11, 3)

    def work(shard):
        return Vectors.of_embeddings(given[shard.positions], shard=shard).gathered(shard).factors[0]

    for found in on_ranks(2, 11, 4, work):
        assert torch.equal(found, given[[0, 1, 2, 3, 8, 9, 10, 4, 5, 6, 7]])


def test_ranks_agree_on_a_scale():
    given = rows_of("normal", 12, 3)
    given[10] *= 1e15

    def work(shard):
        return Vectors.of_embeddings(given[shard.positions], shard=shard).scale

    first, second, third = on_ranks(3, 12, 6, work)
    assert first == second == third < 1e-12


def test_a_read_only_file_is_a_tensor_without_a_warning(tmp_path):
    np.save(tmp_path / "rows.npy", np.ones((3, 2), dtype=np.float16))
    tensor = as_tensor(np.load(tmp_path / "rows.npy", mmap_mode="r"))
    assert Vectors.of_embeddings(tensor).take(torch.tensor([1])).factors[0].tolist() == [[1, 1]]


# --- what is refused


@pytest.mark.parametrize("bad", [torch.nan, torch.inf, -torch.inf])
def test_rows_that_are_not_finite_are_named_by_their_positions(bad):
    given = rows_of("normal", 30, 4)
    given[[3, 17]] = bad
    with pytest.raises(ValueError, match=r"`here` is NaN or infinite at positions \[3, 17\]"):
        Vectors.of_embeddings(given, name="here")
    shard = Shard(torch.arange(100, 130), 130)
    with pytest.raises(ValueError, match=r"positions \[103, 117\]"):
        Vectors.of_embeddings(given, shard=shard)


def test_faiss_is_for_float32_on_a_cpu():
    rows = Vectors.of_embeddings(torch.randn(5, 3), backend="faiss")
    assert by_faiss(rows, 1)
    assert not by_faiss(rows.ready(torch.float64), 1000)
    assert not by_faiss(Vectors.of_gradients(torch.randn(5, 2), torch.randn(5, 3)), 1000)
    with pytest.raises(ValueError, match="FAISS works on the CPU"):
        Vectors.of_embeddings(torch.empty(5, 3, device="meta"), backend="faiss")


def test_the_precision_that_the_user_chose_comes_back():
    def fail():
        with exact_arithmetic():
            raise RuntimeError(torch.get_float32_matmul_precision(), torch.is_grad_enabled())

    before = torch.get_float32_matmul_precision()
    try:
        torch.set_float32_matmul_precision("medium")
        with pytest.raises(RuntimeError, match=r"highest.*False"):
            fail()
        assert torch.get_float32_matmul_precision() == "medium"
    finally:
        torch.set_float32_matmul_precision(before)


PRECISIONS = [
    "pass",
    "torch.set_float32_matmul_precision('medium')",
    "torch.backends.cuda.matmul.allow_tf32 = True",
    "torch.backends.cuda.matmul.fp32_precision = 'tf32'",
    "torch.backends.fp32_precision = 'tf32'",
    "torch.backends.mkldnn.matmul.fp32_precision = 'bf16'",
]


@pytest.mark.parametrize("setting", PRECISIONS)
def test_whatever_precision_training_has_distances_have_their_own_and_it_stays(setting):
    """In a process of its own: torch does not forget how precision was set."""
    if "fp32_precision" in setting and not hasattr(torch.backends.cuda.matmul, "fp32_precision"):
        pytest.skip("this torch has only the older way to set it")
    process = server().Process(target=distances_have_their_own_precision, args=(setting,))
    process.start()
    process.join(600)
    assert process.exitcode == 0


def distances_have_their_own_precision(setting):
    warnings.simplefilter("error")
    exec(setting)
    before = precisions()
    with exact_arithmetic():
        assert not {"tf32", "bf16", "high", "medium"} & set(precisions()), precisions()
        x = torch.full((64, 64), 1 + 2**-12)
        assert torch.equal(x @ torch.eye(64), x)
    assert precisions() == before, (before, precisions())


def precisions():
    places = torch.backends.cuda.matmul, getattr(torch.backends.mkldnn, "matmul", None)
    found = [getattr(place, "fp32_precision", None) for place in places]
    try:
        return [*found, torch.get_float32_matmul_precision()]
    except RuntimeError:
        return found

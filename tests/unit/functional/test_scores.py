import math

import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from hypothesis import given
from reference import scores as slow

from lightning_al import functional as F
from lightning_al.functional import rows, scores
from unit.memory import peak_extra_megabytes

CLASSES = st.integers(2, 6)
SCORES = {"entropy": F.entropy, "least_confidence": F.least_confidence, "margin": F.margin}


@st.composite
def distributions(draw, classes=CLASSES):
    """(N, C) rows that sum to one, zeros and ties among them."""
    rows, width = draw(st.integers(0, 8)), draw(classes)
    cell = st.floats(0, 1).map(lambda x: round(x, 3))
    values = [[draw(cell) for _ in range(width)] for _ in range(rows)]
    weights = torch.tensor(values, dtype=torch.float64).reshape(rows, width)
    weights[weights.sum(1) == 0, 0] = 1.0
    return weights / weights.sum(1, keepdim=True)


@pytest.mark.parametrize("name", SCORES)
@given(probs=distributions())
def test_scores_equal_their_definitions(name, probs):
    expected = [getattr(slow, name)(row) for row in probs.tolist()]
    assert SCORES[name](probs).tolist() == pytest.approx(expected, abs=1e-12)
    assert SCORES[name](probs.float()).tolist() == pytest.approx(expected, abs=1e-5)


@given(probs=distributions())
def test_scores_stay_in_their_range(probs):
    probs = probs.float()
    classes = probs.shape[1]
    for score, top in ((F.entropy, math.log(classes)), (F.least_confidence, 1 - 1 / classes), (F.margin, 1)):
        found = score(probs)
        assert bool((found >= 0).all())
        assert bool((found <= top + 1e-6).all())


@pytest.mark.parametrize("name", SCORES)
@given(probs=distributions(), seed=st.integers(0, 99))
def test_a_permuted_pool_has_permuted_scores(name, probs, seed):
    order = torch.randperm(len(probs), generator=torch.Generator().manual_seed(seed))
    assert torch.equal(SCORES[name](probs[order]), SCORES[name](probs)[order])


@given(probs=distributions(classes=st.just(2)))
def test_with_two_classes_all_three_rank_alike(probs):
    probs = probs[probs.amax(1).argsort()]  # least sure first
    for score in SCORES.values():
        found = score(probs)
        assert bool((found[1:] <= found[:-1] + 1e-12).all())


def test_entropy_of_a_fair_coin_is_one_bit():
    assert F.entropy(torch.tensor([0.5, 0.5]), base=2).item() == 1
    assert F.entropy(torch.full((8,), 1 / 8), base=2).item() == pytest.approx(3)
    assert F.entropy(torch.tensor([0.5, 0.5])).item() == pytest.approx(math.log(2))


@pytest.mark.parametrize("base", [0, 1, -2.0])
def test_a_base_that_is_none_is_refused(base):
    with pytest.raises(ValueError, match=r"`base` is .* above 0 and other than 1"):
        F.entropy(torch.tensor([0.5, 0.5]), base=base)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("name", SCORES)
def test_low_precision_is_computed_in_float32(name, dtype):
    probs = torch.randn(50, 5, generator=torch.Generator().manual_seed(0)).softmax(-1).to(dtype)
    found = SCORES[name](probs)
    assert found.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    expected = [getattr(slow, name)(row) for row in probs.double().tolist()]
    assert found.tolist() == pytest.approx(expected, abs=2e-6)


@pytest.mark.parametrize("name", SCORES)
def test_a_thousand_classes_in_bfloat16_count_as_probabilities(name):
    probs = torch.randn(4, 1000, generator=torch.Generator().manual_seed(0)).softmax(-1).bfloat16()
    assert bool(SCORES[name](probs).isfinite().all())


@pytest.mark.parametrize("name", SCORES)
def test_a_row_slightly_above_one_is_not_below_zero(name):
    """A mean over passes may sum to a little more than one; `power_sample` needs scores from 0 on."""
    assert SCORES[name](torch.tensor([[1.0005, 0.0]])).item() >= 0


@pytest.mark.parametrize("name", SCORES)
def test_leading_axes_are_kept(name):
    probs = torch.rand(2, 3, 4).softmax(-1)
    assert SCORES[name](probs).shape == (2, 3)
    assert SCORES[name](probs[0, 0]).shape == ()
    assert SCORES[name](torch.empty(0, 4)).shape == (0,)


@pytest.mark.parametrize("name", SCORES)
def test_logits_by_mistake_are_refused(name):
    with pytest.raises(ValueError, match=r"sums to 5.*probabilities.*softmax"):
        SCORES[name](torch.tensor([[2.0, 3.0]]))
    with pytest.raises(ValueError, match="softmax"):
        SCORES[name](torch.tensor([[-1.0, 2.0]]))
    with pytest.raises(ValueError, match=r"shape \(3, 0\).*C > 0"):
        SCORES[name](torch.empty(3, 0))


def test_margin_of_one_class_says_how_to_write_it():
    with pytest.raises(ValueError, match=r"one class.*at least two.*\[1 - p, p\]"):
        F.margin(torch.ones(3, 1))


@pytest.mark.parametrize("name", SCORES)
@pytest.mark.parametrize("classes", [2, 31, 32, 127, 128, 129, 191, 1000])
def test_any_number_of_classes_equals_the_definition(name, classes):
    generator = torch.Generator().manual_seed(classes)
    probs = (4 * torch.randn(60, classes, generator=generator)).softmax(-1)
    probs[:20] = (probs[:20] * 8).round() / 8  # ties
    probs[:20, -1] += 1 - probs[:20].sum(-1)
    probs = probs.clamp_min(0) / probs.clamp_min(0).sum(-1, keepdim=True)
    expected = [getattr(slow, name)(row) for row in probs.tolist()]
    assert SCORES[name](probs).tolist() == pytest.approx(expected, abs=2e-6)


@pytest.mark.parametrize("classes", [2, 3, 31, 32, 33, 127, 128, 129, 200, 1000])
@given(seed=st.integers(0, 10**6), values=st.sampled_from([2, 5, 10**6]))
def test_the_two_largest_are_those_of_topk(classes, seed, values):
    generator = torch.Generator().manual_seed(seed)
    table = torch.randint(values, (7, classes), generator=generator).float()
    before = table.clone()
    found = torch.stack(scores.top_two(table), dim=-1)
    assert torch.equal(found, table.topk(2).values)
    assert torch.equal(table, before)


@pytest.mark.parametrize("name", SCORES)
@pytest.mark.parametrize("classes", [5, 40, 1000])
def test_a_pool_of_many_pieces_equals_its_rows(name, classes):
    count = 1_200_000 // classes  # more than two pieces
    probs = torch.randn(count, classes, generator=torch.Generator().manual_seed(0)).softmax(-1)
    edge = rows.piece_size(torch.empty(0)) // classes
    some = [0, 1, edge - 1, edge, edge + 1, 2 * edge - 1, 2 * edge, count - 1]
    expected = [getattr(slow, name)(row) for row in probs[some].tolist()]
    assert SCORES[name](probs)[some].tolist() == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("name", SCORES)
def test_layout_does_not_matter_and_the_input_stays_as_it_is(name):
    maps = torch.randn(3, 21, 70, 90, generator=torch.Generator().manual_seed(0)).softmax(1)
    before = maps.clone()
    probs = maps.movedim(1, -1)  # a segmentation: the class axis is not the fastest
    assert torch.allclose(SCORES[name](probs), SCORES[name](probs.contiguous()), atol=1e-6)
    assert torch.allclose(SCORES[name](probs[:, ::2]), SCORES[name](probs)[:, ::2], atol=1e-6)
    one = torch.full((1, 4), 0.25).expand(5, 4)
    assert SCORES[name](one).unique().numel() == 1
    assert torch.equal(maps, before)


@pytest.mark.parametrize("numpy", [False, True])
@pytest.mark.parametrize("spread", [0.1, 3.0, 30.0, 300.0])  # the last ones with many zeros and denormals
def test_both_logarithms_are_exact_enough(numpy, spread, monkeypatch):
    monkeypatch.setattr(rows, "_FAST_NUMPY", numpy)
    probs = (spread * torch.randn(500, 1000, generator=torch.Generator().manual_seed(0))).softmax(-1)
    exact = torch.special.entr(probs.double()).sum(-1)
    assert (F.entropy(probs).double() - exact).abs().max() < 1e-5
    assert F.entropy(torch.tensor([0.5, 0.5]), base=2).item() == 1
    assert F.entropy(torch.tensor([1.0, 0.0])).item() == 0


@pytest.mark.parametrize("numpy", [False, True])
@pytest.mark.parametrize("classes", [5, 500])
def test_rows_with_zeros_among_many_without_count_them_as_nothing(numpy, classes, monkeypatch):
    monkeypatch.setattr(rows, "_FAST_NUMPY", numpy)
    probs = torch.randn(100, classes, generator=torch.Generator().manual_seed(0)).softmax(-1)
    probs[[0, 7, 33]] = torch.nn.functional.one_hot(torch.tensor([0, 2, 4]), classes).float()
    probs[50] = torch.tensor([1e-42, 1.0] + [0.0] * (classes - 2))
    for some in (probs, probs[1:]):  # the first row is looked at, the seventh is not
        exact = torch.special.entr(some.double()).sum(-1)
        assert torch.allclose(F.entropy(some).double(), exact, atol=1e-6, rtol=0)


def test_a_million_classes_are_exact_enough():
    probs = torch.randn(2, 1_000_000, generator=torch.Generator().manual_seed(0)).softmax(-1)
    exact = torch.special.entr(probs.double()).sum(-1)
    assert (F.entropy(probs).double() - exact).abs().max() < 1e-5
    assert torch.equal(F.margin(probs), 1 - probs.topk(2).values.diff().neg().squeeze(1))


@pytest.mark.parametrize("name", SCORES)
def test_gradients_are_not_tracked(name):
    probs = torch.randn(4, 5, requires_grad=True).softmax(-1)
    assert not SCORES[name](probs).requires_grad


@pytest.mark.parametrize("name", SCORES)
@pytest.mark.parametrize("classes", [3, 40, 200])
def test_a_nan_names_its_row(name, classes):
    probs = torch.full((50, classes), 1 / classes)
    probs[[7, 31], classes - 1] = torch.nan
    with pytest.raises(ValueError, match=r"`probs` is NaN or infinite in rows \[7, 31\] \(2 of 50\)"):
        SCORES[name](probs)
    with pytest.raises(ValueError, match="NaN"):
        SCORES[name](probs[7])


@pytest.mark.parametrize("name", SCORES)
def test_logits_in_a_few_rows_of_a_small_batch_are_found(name):
    probs = torch.full((900, 4), 0.25)
    probs[513] = torch.tensor([3.0, -1.0, 0.0, 0.0])
    with pytest.raises(ValueError, match=r"\[3.0, -1.0.*sums to 2.*softmax"):
        SCORES[name](probs)


@pytest.mark.parametrize("name", SCORES)
def test_little_memory_is_needed_beside_the_scores(name):
    probs = torch.full((20_000, 1000), 1e-3)  # 80 MB
    assert peak_extra_megabytes(SCORES[name], probs) < 10
    assert peak_extra_megabytes(SCORES[name], probs.view(20, 1000, 1000).transpose(1, 2)) < 10


def test_much_memory_would_be_noticed():
    probs = torch.full((20_000, 1000), 1e-3)
    assert 70 < peak_extra_megabytes(lambda: torch.special.entr(probs).sum(-1)) < 90


@given(rows=st.integers(0, 5), dim=st.integers(1, 4), classes=st.integers(1, 5), seed=st.integers(0, 10**6))
def test_hyperplane_distance_equals_its_definition(rows, dim, classes, seed):
    generator = torch.Generator().manual_seed(seed)
    h = torch.randn(rows, dim, generator=generator, dtype=torch.float64)
    weight = torch.randn(classes, dim, generator=generator, dtype=torch.float64)
    bias = torch.randn(classes, generator=generator, dtype=torch.float64)
    expected = [slow.hyperplane_distance(row, weight.tolist(), bias.tolist()) for row in h.tolist()]
    assert F.hyperplane_distance(h, weight, bias).tolist() == pytest.approx(expected, abs=1e-9)
    single = F.hyperplane_distance(h.float(), weight.float(), bias.float())
    assert single.tolist() == pytest.approx(expected, rel=1e-3, abs=1e-4)


def test_hyperplane_distance_without_bias_and_in_half_precision():
    h, weight = torch.tensor([[3.0, 4.0]]), torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    expected = torch.tensor([-1 / math.sqrt(2)])
    assert torch.allclose(F.hyperplane_distance(h, weight), expected)
    assert torch.allclose(F.hyperplane_distance(h.bfloat16(), weight.half(), torch.zeros(2)), expected)
    assert torch.allclose(F.hyperplane_distance(h.double(), weight, torch.zeros(2)), expected.double())


def test_the_binary_linear_case_ranks_as_entropy_does():
    generator = torch.Generator().manual_seed(0)
    h, weight = torch.randn(100, 3, generator=generator), torch.randn(2, 3, generator=generator)
    distance = F.hyperplane_distance(h, weight)
    entropy = F.entropy((h.double() @ weight.double().T).softmax(-1))
    assert torch.equal(distance.argsort(), entropy.argsort())


def test_classes_without_a_boundary_are_left_out():
    h = torch.tensor([[1.0], [-2.0]])
    twins = torch.tensor([[1.0], [1.0], [-1.0]])
    lower_twin = F.hyperplane_distance(h, twins, torch.tensor([0.0, -1.0, 0.0]))
    assert lower_twin.tolist() == pytest.approx([-1.0, -2.0])
    alone = F.hyperplane_distance(h, torch.ones(2, 1), torch.tensor([0.0, -1.0]))
    assert alone.tolist() == [-math.inf, -math.inf]
    tied = F.hyperplane_distance(h, torch.ones(2, 1), torch.zeros(2))
    assert tied.tolist() == [0.0, 0.0]


def test_one_output_without_weights_has_no_boundary_or_is_one():
    h, weight = torch.ones(2, 3), torch.zeros(1, 3)
    assert F.hyperplane_distance(h, weight, torch.ones(1)).tolist() == [-math.inf, -math.inf]
    assert F.hyperplane_distance(h, weight, torch.zeros(1)).tolist() == [0.0, 0.0]


def test_shapes_that_do_not_fit_are_shown():
    with pytest.raises(ValueError, match=r"\(2, 3, 4\).*\(5, 4\).*one vector a sample"):
        F.hyperplane_distance(torch.zeros(2, 3, 4), torch.zeros(5, 4))
    with pytest.raises(ValueError, match=r"needed are \(N, D\) and \(C, D\)"):
        F.hyperplane_distance(torch.zeros(2, 3), torch.zeros(5, 4))


@pytest.mark.parametrize("score", [F.entropy, F.margin, F.least_confidence])
def test_arrays_are_refused_in_words(score):
    with pytest.raises(TypeError, match=r"`probs` is a `ndarray`; needed is a tensor. Pass `torch.as_tensor"):
        score(np.full((3, 2), 0.5))


def test_arrays_in_place_of_embeddings_are_refused():
    with pytest.raises(TypeError, match=r"`weight` is a `ndarray`; needed is a tensor"):
        F.hyperplane_distance(torch.zeros(3, 2), np.zeros((3, 2)))


@pytest.mark.parametrize("row", [0, 7])
def test_a_sure_row_among_many_brings_no_warning(row):
    probs = torch.full((100, 100), 0.01)
    probs[row] = torch.eye(100)[3]
    found = F.entropy(probs)
    assert found[row] == 0
    assert found[row + 1] == pytest.approx(math.log(100), rel=1e-5)

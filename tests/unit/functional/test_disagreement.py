import math

import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from hypothesis import given
from reference import disagreement as slow

from lightning_al import functional as F
from lightning_al.functional import disagreement, rows, votes
from unit.memory import peak_extra_megabytes

SCORES = {
    name: getattr(F, name)
    for name in ("variation_ratio", "mean_std", "bald", "vote_entropy", "vote_margin", "consensus_kl")
}
COMPARING = ("mean_std", "bald", "consensus_kl")
VOTING = ("variation_ratio", "vote_entropy", "vote_margin")
# What a score reaches at most, with C classes and K passes.
HIGHEST = {
    "variation_ratio": lambda c, k: 1 - 1 / min(c, k),
    "mean_std": lambda c, k: math.sqrt(c - 1) / c,
    "bald": lambda c, k: math.log(min(c, k)),
    "vote_entropy": lambda c, k: math.log(min(c, k)),
    "vote_margin": lambda c, k: 1.0,
    "consensus_kl": lambda c, k: math.log(min(c, k)),
}


@st.composite
def passes(draw):
    """(N, K, C) in float64, with zeros, ties and certain passes among them."""
    rows, count, classes = draw(st.integers(0, 4)), draw(st.integers(2, 5)), draw(st.integers(2, 5))
    cell = st.one_of(st.sampled_from([0.0, 0.0, 0.5, 1.0]), st.floats(0, 1).map(lambda x: round(x, 3)))
    size = rows * count * classes
    weights = torch.tensor(draw(st.lists(cell, min_size=size, max_size=size)), dtype=torch.float64)
    weights = weights.reshape(rows, count, classes)
    weights[..., 0] += (weights.sum(-1) == 0).double()
    return weights / weights.sum(-1, keepdim=True)


def random_passes(*shape, seed=0, spread=2.0, dtype=torch.float32):
    generator = torch.Generator().manual_seed(seed)
    return (spread * torch.randn(*shape, generator=generator, dtype=dtype)).softmax(-1)


@pytest.mark.parametrize("name", SCORES)
@given(mc_probs=passes())
def test_scores_equal_their_definitions(name, mc_probs):
    expected = [getattr(slow, name)(sample) for sample in mc_probs.tolist()]
    assert SCORES[name](mc_probs).tolist() == pytest.approx(expected, abs=1e-12)
    single = mc_probs.float()
    # Rounded to float32, two classes may tie that did not.
    expected = [getattr(slow, name)(sample) for sample in single.tolist()]
    assert SCORES[name](single).tolist() == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("name", SCORES)
@given(mc_probs=passes())
def test_scores_stay_in_their_range(name, mc_probs):
    _, count, classes = mc_probs.shape
    found = SCORES[name](mc_probs.float())
    assert bool((found >= 0).all())
    assert bool((found <= HIGHEST[name](classes, count) + 1e-6).all())


@pytest.mark.parametrize("name", SCORES)
@pytest.mark.parametrize(("classes", "count"), [(2, 2), (3, 3), (6, 3), (3, 6)])
def test_sure_members_of_all_opinions_reach_the_top_of_the_range(name, classes, count):
    opinions = torch.arange(count) % classes
    mc_probs = torch.nn.functional.one_hot(opinions, classes).float()[None]
    highest = HIGHEST[name](classes, count)
    if name == "mean_std" and count < classes:
        # Only as many classes as there are passes can differ.
        highest = math.sqrt((count - 1) / count**2) * count / classes
    assert SCORES[name](mc_probs).item() == pytest.approx(highest, abs=1e-6)


@given(mc_probs=passes())
def test_mean_divergence_from_the_consensus_is_the_mutual_information(mc_probs):
    assert torch.allclose(F.consensus_kl(mc_probs), F.bald(mc_probs), atol=1e-12)
    assert torch.allclose(F.consensus_kl(mc_probs.float()), F.bald(mc_probs.float()), atol=1e-6)


def test_they_are_the_same_at_a_thousand_classes_too():
    mc_probs = random_passes(300, 20, 1000, spread=3.0)
    exact = F.bald(mc_probs.double())
    assert torch.allclose(F.bald(mc_probs).double(), exact, atol=1e-5)
    assert torch.allclose(F.consensus_kl(mc_probs).double(), exact, atol=1e-5)
    assert exact.min() > 0.5


def test_the_largest_divergence_is_another_score():
    """modAL's maximum instead of the mean: one odd member of five decides."""
    mc_probs = torch.tensor([[[0.99, 0.01]] * 4 + [[0.01, 0.99]]])
    largest = max(
        sum(x * math.log(x / q) for x, q in zip(p, slow.mean(mc_probs[0].tolist()), strict=True))
        for p in mc_probs[0].tolist()
    )
    assert F.consensus_kl(mc_probs).item() < 0.35 * largest


def test_disagreement_of_almost_equal_passes_is_not_lost_in_rounding():
    base = random_passes(50, 1, 10, dtype=torch.float64)
    other = base.flip(-1)
    mc_probs = torch.cat([base, 0.9999 * base + 0.0001 * other], dim=1).float()
    expected = [slow.consensus_kl(sample) for sample in mc_probs.tolist()]
    assert min(expected) < 1e-8
    assert F.consensus_kl(mc_probs).tolist() == pytest.approx(expected, abs=1e-7)
    deviations = [slow.mean_std(sample) for sample in mc_probs.tolist()]
    assert F.mean_std(mc_probs).tolist() == pytest.approx(deviations, rel=1e-3)


@pytest.mark.parametrize(("mu", "sigma"), [(0.0, 1.0), (0.5, 2.0), (2.0, 1.0), (1.0, 9.0)])
def test_many_passes_reach_the_closed_form_of_a_gaussian_process_with_a_probit(mu, sigma):
    # Quantiles of the posterior in place of draws: the same law without the noise.
    quantiles = (torch.arange(20_000, dtype=torch.float64) + 0.5) / 20_000
    f = mu + sigma * torch.special.ndtri(quantiles)
    p = torch.special.ndtr(f)
    bits = F.bald(torch.stack([p, 1 - p], dim=-1)[None]).item() / math.log(2)
    assert bits == pytest.approx(slow.gaussian_probit_bald(mu, sigma), abs=2e-3)


def test_drawn_passes_reach_the_closed_form_too():
    generator = torch.Generator().manual_seed(0)
    p = torch.special.ndtr(0.5 + 2 * torch.randn(4, 20_000, generator=generator))
    bits = F.bald(torch.stack([p, 1 - p], dim=-1)) / math.log(2)
    assert bits.tolist() == pytest.approx([slow.gaussian_probit_bald(0.5, 2.0)] * 4, abs=0.02)


def test_sure_and_disagreeing_against_unsure_and_agreeing():
    disagreeing = torch.tensor([[[0.99, 0.01], [0.01, 0.99]]])
    unsure = torch.tensor([[[0.5, 0.5], [0.5, 0.5]]])
    for mc_probs in (disagreeing, unsure):
        assert F.entropy(mc_probs.mean(1)).item() == pytest.approx(math.log(2), abs=1e-6)
    for name, score in SCORES.items():
        assert score(unsure).item() == pytest.approx(0, abs=1e-6), name
        assert score(disagreeing).item() > 0.4, name
    assert F.bald(disagreeing).item() == pytest.approx(0.6371, abs=1e-4)


def test_the_two_variation_ratios_are_different_scores():
    agreeing = torch.tensor([[[0.6, 0.4], [0.6, 0.4]]])
    assert F.variation_ratio(agreeing).item() == 0
    assert F.least_confidence(agreeing.mean(1)).item() == pytest.approx(0.4)


def test_a_pass_that_ties_votes_for_the_lowest_class():
    mc_probs = torch.tensor([[[0.4, 0.4, 0.2], [0.2, 0.4, 0.4], [0.4, 0.2, 0.4]]])
    assert votes.count_votes(mc_probs).tolist() == [[2, 1, 0]]
    assert F.variation_ratio(mc_probs).item() == pytest.approx(1 / 3)


@given(mc_probs=passes())
def test_sums_over_the_passes_give_the_same_scores(mc_probs):
    counts = votes.count_votes(mc_probs)
    assert counts.tolist() == [slow.votes(sample) for sample in mc_probs.tolist()]
    for name in VOTING:
        found = getattr(votes, f"{name}_from")
        assert torch.allclose(found(counts), SCORES[name](mc_probs), atol=1e-12)
        assert torch.allclose(found(counts.long()).double(), SCORES[name](mc_probs), atol=1e-6)
    expected_entropy = F.entropy(mc_probs).mean(1)
    assert torch.allclose(
        disagreement.bald_from(mc_probs.mean(1), expected_entropy), F.bald(mc_probs), atol=1e-12
    )
    deviations = (mc_probs - mc_probs.mean(1, keepdim=True)).square().mean(1).sqrt()
    assert torch.allclose(disagreement.mean_std_from(deviations), F.mean_std(mc_probs), atol=1e-12)


@pytest.mark.parametrize("name", SCORES)
def test_the_order_of_the_passes_does_not_matter(name):
    mc_probs = random_passes(40, 7, 5, dtype=torch.float64)
    order = torch.randperm(7, generator=torch.Generator().manual_seed(1))
    assert torch.allclose(SCORES[name](mc_probs[:, order]), SCORES[name](mc_probs), atol=1e-12)


@pytest.mark.parametrize("name", SCORES)
def test_dense_outputs_have_a_score_at_every_place(name):
    mc_probs = random_passes(3, 4, 5, 6, 7)  # samples, passes, two axes of places, classes
    found = SCORES[name](mc_probs)
    assert found.shape == (3, 5, 6)
    assert torch.allclose(found[1, 2], SCORES[name](mc_probs[1:2, :, 2])[0], atol=1e-6)


@pytest.mark.parametrize("name", SCORES)
def test_an_empty_pool_has_no_scores(name):
    assert SCORES[name](torch.empty(0, 4, 3)).shape == (0,)
    assert SCORES[name](torch.empty(2, 4, 0, 3)).shape == (2, 0)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("name", SCORES)
def test_low_precision_is_computed_in_float32(name, dtype):
    mc_probs = random_passes(20, 3, 4).to(dtype)
    found = SCORES[name](mc_probs)
    assert found.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    expected = [getattr(slow, name)(sample) for sample in mc_probs.double().tolist()]
    assert found.tolist() == pytest.approx(expected, abs=3e-6)


@pytest.mark.parametrize("name", SCORES)
def test_a_pool_of_many_pieces_equals_its_rows(name):
    mc_probs = random_passes(5000, 4, 60)  # 1,200,000 numbers, more than two pieces
    edge = rows.piece_size(mc_probs) // 240
    found = SCORES[name](mc_probs)
    some = [0, 1, edge - 1, edge, edge + 1, 2 * edge - 1, 2 * edge, 4999]
    expected = [getattr(slow, name)(mc_probs[row].tolist()) for row in some]
    assert found[some].tolist() == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("name", SCORES)
def test_a_sample_larger_than_a_piece_equals_its_definition(name):
    mc_probs = random_passes(2, 3, 200_000, spread=4.0)
    expected = [getattr(slow, name)(sample) for sample in mc_probs.tolist()]
    assert SCORES[name](mc_probs).tolist() == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("name", SCORES)
def test_layout_does_not_matter_and_the_input_stays_as_it_is(name):
    last = random_passes(60, 30, 40)
    first = last.permute(2, 0, 1).contiguous()  # classes outermost
    strided = torch.stack([last, last], dim=-1)[..., 1]
    expected = SCORES[name](last)
    before = last.clone()
    for mc_probs in (first.permute(1, 2, 0), strided, last.transpose(0, 1).contiguous().transpose(0, 1)):
        assert torch.allclose(SCORES[name](mc_probs), expected, atol=1e-6)
    assert torch.equal(last, before)


@pytest.mark.parametrize("name", SCORES)
def test_gradients_are_not_tracked(name):
    logits = torch.randn(4, 3, 5, requires_grad=True)
    assert not SCORES[name](logits.softmax(-1)).requires_grad


@pytest.mark.parametrize("name", SCORES)
def test_passes_of_another_shape_are_refused(name):
    with pytest.raises(ValueError, match=r"`mc_probs` has shape \(4, 3\).*\(N, K, C\).*torch.stack"):
        SCORES[name](random_passes(4, 3))
    for classes in (0, 1):
        with pytest.raises(ValueError, match=r"at least two.*\[1 - p, p\]"):
            SCORES[name](torch.ones(4, 3, classes))
    with pytest.raises(ValueError, match=r"shape \(4, 0, 3\).*needed|shape \(4, 0, 3\).*compares"):
        SCORES[name](torch.ones(4, 0, 3))


@pytest.mark.parametrize("name", COMPARING)
def test_one_pass_has_nothing_to_disagree_with(name):
    with pytest.raises(ValueError, match=rf"1 pass .*`{name}` compares at least two.*MCDropout"):
        SCORES[name](random_passes(4, 1, 3))


@pytest.mark.parametrize("name", VOTING)
def test_the_vote_of_a_single_pass_is_unanimous(name):
    assert SCORES[name](random_passes(4, 1, 3)).tolist() == [0.0] * 4


@pytest.mark.parametrize("name", SCORES)
def test_logits_by_mistake_are_refused(name):
    with pytest.raises(ValueError, match=r"`mc_probs` holds a row.*probabilities.*softmax"):
        SCORES[name](torch.randn(5, 4, 3, generator=torch.Generator().manual_seed(0)))


@pytest.mark.parametrize("name", SCORES)
@pytest.mark.parametrize("classes", [3, 40, 200])
def test_a_nan_names_its_row(name, classes):
    mc_probs = random_passes(50, 4, classes)
    mc_probs[17, 2, classes - 1] = torch.nan
    with pytest.raises(ValueError, match=r"`mc_probs` is NaN or infinite in rows \[17\] \(1 of 50\)"):
        SCORES[name](mc_probs)


def test_sums_that_are_none_are_refused():
    with pytest.raises(ValueError, match=r"`expected_entropy` has shape \(3,\).*\(2, 4\).*one number a row"):
        disagreement.bald_from(torch.full((2, 4), 0.25), torch.zeros(3))
    with pytest.raises(ValueError, match="`expected_entropy` is NaN"):
        disagreement.bald_from(torch.full((2, 4), 0.25), torch.full((2,), torch.nan))
    with pytest.raises(ValueError, match=r"`probs_std` has shape \(2, 0\)"):
        disagreement.mean_std_from(torch.zeros(2, 0))
    for name in VOTING:
        found = getattr(votes, f"{name}_from")
        for counts in ([[0, 0]], [[3, -1]], [[math.nan, 1.0]]):
            with pytest.raises(ValueError, match=r"`votes` has a row.*count_votes"):
                found(torch.tensor(counts))
        with pytest.raises(ValueError, match=r"`votes` has shape \(2, 0\).*count_votes"):
            found(torch.zeros(2, 0))
    with pytest.raises(ValueError, match=r"C >= 2"):
        votes.vote_margin_from(torch.ones(2, 1))


@given(
    size=st.integers(0, 5),
    count=st.integers(2, 6),
    outputs=st.integers(1, 3),
    shift=st.sampled_from([0, 1e3]),
)
def test_variance_equals_its_definition(size, count, outputs, shift):
    generator = torch.Generator().manual_seed(size + 10 * count)
    values = shift + torch.randn(size, count, outputs, generator=generator, dtype=torch.float64)
    expected = [
        [slow.predictive_variance(column) for column in zip(*sample, strict=True)]
        for sample in values.tolist()
    ]
    found = F.predictive_variance(values)
    assert found.shape == (size, outputs)
    assert found.flatten().tolist() == pytest.approx([x for sample in expected for x in sample], rel=1e-9)
    one = F.predictive_variance(values[..., 0])
    assert one.tolist() == pytest.approx([sample[0] for sample in expected], rel=1e-9)


def test_a_small_variance_beside_a_large_mean_is_not_lost():
    values = torch.tensor([[4096.0, 4096.001953125, 4096.0, 4096.001953125]])
    assert F.predictive_variance(values).item() == pytest.approx((0.001953125 / 2) ** 2, rel=1e-6)
    assert F.predictive_variance(values.half()).item() == 0


def test_variance_keeps_the_axes_of_an_output():
    values = torch.randn(6, 4, 3, 2, generator=torch.Generator().manual_seed(0))
    found = F.predictive_variance(values)
    assert found.shape == (6, 3, 2)
    assert torch.allclose(found, values.var(1, correction=0), atol=1e-6)


def test_variance_of_other_shapes_or_of_nan_is_refused():
    with pytest.raises(ValueError, match=r"`mc_values` has shape \(4,\).*\(N, K\).*torch.stack"):
        F.predictive_variance(torch.zeros(4))
    with pytest.raises(ValueError, match=r"1 pass .*`predictive_variance` compares at least two"):
        F.predictive_variance(torch.zeros(4, 1))
    for bad in (math.nan, math.inf):
        values = torch.zeros(5, 3, 2)
        values[2, 1, 1] = bad
        with pytest.raises(ValueError, match=r"`mc_values` is NaN or infinite in rows \[2\]"):
            F.predictive_variance(values)


@pytest.mark.parametrize("name", SCORES)
def test_little_memory_is_needed_beside_the_scores(name):
    mc_probs = random_passes(1000, 20, 1000)  # 80 MB
    assert peak_extra_megabytes(SCORES[name], mc_probs) < 10


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("name", SCORES)
def test_an_accelerator_finds_the_same_scores(name):
    mc_probs = random_passes(300, 20, 500)
    assert torch.allclose(SCORES[name](mc_probs.cuda()).cpu(), SCORES[name](mc_probs), atol=1e-5)


@pytest.mark.parametrize("name", SCORES)
def test_arrays_are_refused_in_words(name):
    with pytest.raises(TypeError, match=r"`mc_\w+` is a `ndarray`; needed is a tensor. Pass `torch.as"):
        SCORES[name](np.full((3, 2, 2), 0.5))


def test_votes_are_counted_by_what_the_message_names():
    with pytest.raises(ValueError, match=r"Count them with `functional.count_votes`"):
        votes.variation_ratio_from(torch.zeros(3, 2))
    assert F.count_votes(torch.tensor([[[0.9, 0.1], [0.2, 0.8]]])).tolist() == [[1.0, 1.0]]

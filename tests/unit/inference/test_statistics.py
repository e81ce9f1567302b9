"""Sums over passes amount to what the definitions say of all passes."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lightning_al import functional as F
from lightning_al.inference.outputs import probabilities
from lightning_al.inference.statistics import STATISTICS, Statistics

CLOSE = {"atol": 1e-6, "rtol": 1e-5}
SHAPES = {
    "classes": ((5, 4), False),
    "dense": ((5, 4, 3, 2), False),
    "labels": ((5, 4), True),
    "dense labels": ((5, 4, 3), True),
    "one logit": ((5, 1), False),
    "one logit without an axis": ((5,), False),
    "one label": ((5, 1), True),
}


def drawn(shape, count=7, seed=0, scale=3.0):
    return scale * torch.randn(count, *shape, generator=torch.Generator().manual_seed(seed))


def summed(passes, sizes, needs=STATISTICS, *, multilabel=False):
    found = Statistics(needs, multilabel=multilabel)
    for part in passes.split(sizes):
        found.add(part)
    return found.fields()


def all_probs(passes, *, multilabel):
    """`(B, K, ..., C)`"""
    return torch.stack([probabilities(one, multilabel=multilabel) for one in passes], 1)


@pytest.mark.parametrize("name", SHAPES)
@pytest.mark.parametrize("sizes", [[7], [1] * 7, [1, 4, 2]], ids=str)
def test_sums_equal_the_definitions_on_all_passes(name, sizes):
    shape, multilabel = SHAPES[name]
    passes = drawn(shape)
    fields = summed(passes, sizes, multilabel=multilabel)
    probs = all_probs(passes, multilabel=multilabel)
    assert set(fields) == set(STATISTICS)
    torch.testing.assert_close(fields["mc_probs"], probs)
    torch.testing.assert_close(fields["probs"], probs.mean(1), **CLOSE)
    torch.testing.assert_close(fields["expected_entropy"], F.entropy(probs).mean(1), **CLOSE)
    torch.testing.assert_close(fields["probs_std"], probs.double().std(1, correction=0).float(), **CLOSE)
    votes = torch.nn.functional.one_hot(probs.argmax(-1), probs.shape[-1]).sum(1).float()
    assert torch.equal(fields["votes"], votes)
    torch.testing.assert_close(fields["mean"], passes.mean(0), **CLOSE)
    torch.testing.assert_close(fields["variance"], F.predictive_variance(passes.movedim(0, 1)), **CLOSE)


@given(
    sizes=st.lists(st.integers(1, 6), min_size=1, max_size=6),
    name=st.sampled_from(sorted(SHAPES)),
    seed=st.integers(0, 99),
)
def test_how_passes_are_split_does_not_matter(sizes, name, seed):
    shape, multilabel = SHAPES[name]
    passes = drawn(shape, sum(sizes), seed)
    whole = summed(passes, [sum(sizes)], multilabel=multilabel)
    for field, value in summed(passes, sizes, multilabel=multilabel).items():
        torch.testing.assert_close(value, whole[field], **CLOSE)


def test_a_small_spread_beside_a_large_mean_is_not_lost():
    passes = 1000 + drawn((4, 1), 50, scale=0.01)
    exact = passes.double().var(0, correction=0).float()
    for sizes in ([50], [1] * 50, [20, 30]):
        torch.testing.assert_close(summed(passes, sizes)["variance"], exact, rtol=1e-2, atol=0)


def test_passes_that_agree_have_no_spread():
    passes = drawn((4, 3), 1).expand(9, 4, 3)
    fields = summed(passes, [2, 7])
    assert fields["variance"].abs().max() < 1e-12
    assert fields["probs_std"].abs().max() < 1e-6


@pytest.mark.parametrize("field", STATISTICS)
def test_each_field_may_be_asked_for_alone_and_nothing_else_is_there(field):
    passes = drawn((5, 4))
    alone = summed(passes, [3, 4], (field, "logits", "embeddings"))
    assert set(alone) == {field}
    torch.testing.assert_close(alone[field], summed(passes, [3, 4])[field])


def test_passes_are_kept_only_if_they_are_asked_for():
    found = Statistics(tuple(name for name in STATISTICS if name != "mc_probs"))
    found.add(drawn((5, 4)))
    assert found._passes == []


def test_members_of_other_classes_are_not_compared():
    found = Statistics(("probs",))
    found.add(drawn((5, 4)))
    with pytest.raises(ValueError, match=r"shape \(5, 4\), another of \(5, 3\); only.*Give members that"):
        found.add(drawn((5, 3)))

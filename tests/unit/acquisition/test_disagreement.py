"""Strategies of many passes: the same scores from sums as the functions give on all passes."""

import pickle

import pytest
import torch
from torch import nn

from lightning_al import Committee, MCDropout, SinglePass
from lightning_al import acquisition as acq
from lightning_al import functional as F
from lightning_al.functional import Shard
from lightning_al.inference import Outputs, Summary
from lightning_al.inference.outputs import probabilities
from lightning_al.inference.statistics import Statistics
from lightning_al.querying import check_acquisition

B, K = 6, 9
PAIRS = {
    acq.BALD: F.bald,
    acq.VariationRatio: F.variation_ratio,
    acq.MeanSTD: F.mean_std,
    acq.VoteEntropy: F.vote_entropy,
    acq.VoteMargin: F.vote_margin,
    acq.ConsensusKL: F.consensus_kl,
}
MEANS = {acq.Entropy: F.entropy, acq.LeastConfidence: F.least_confidence, acq.Margin: F.margin}
SHAPES = {"classes": (B, 4), "one logit": (B, 1), "no axis": (B,), "labels": (B, 3), "dense": (B, 4, 2, 3)}


def drawn(shape, seed=0):
    return 3 * torch.randn(K, *shape, generator=torch.Generator().manual_seed(seed))


def outputs(strategy, passes, mask=None):
    sums = Statistics(tuple(strategy.needs), multilabel=strategy.multilabel)
    for part in passes.split([1, 5, 3]):
        sums.add(part)
    return Outputs(mask=mask, **sums.fields())


def ids(value):
    return getattr(value, "__name__", None)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("kind", [*PAIRS, *MEANS], ids=ids)
def test_scores_from_sums_are_those_of_all_passes(kind, shape):
    multilabel = shape == "labels"
    strategy = kind(posterior=MCDropout(K), multilabel=multilabel)
    passes = drawn(SHAPES[shape])
    probs = torch.stack([probabilities(one, multilabel=multilabel) for one in passes], 1)
    expected = PAIRS[kind](probs) if kind in PAIRS else MEANS[kind](probs.mean(1))
    found = strategy.score(outputs(strategy, passes))
    torch.testing.assert_close(found, expected.flatten(1).mean(1) if expected.ndim > 1 else expected,
                               atol=2e-6, rtol=1e-5)  # fmt: skip
    assert "mc_probs" not in strategy.needs


@pytest.mark.parametrize("shape", [(B,), (B, 1), (B, 3), (B, 2, 3, 4)], ids=str)
def test_the_variance_of_numbers(shape):
    strategy = acq.PredictiveVariance(MCDropout(K))
    passes = 100 + drawn(shape)
    expected = F.predictive_variance(passes.movedim(0, 1))
    expected = expected.flatten(1).mean(1) if expected.ndim > 1 else expected
    torch.testing.assert_close(strategy.score(outputs(strategy, passes)), expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("kind", PAIRS, ids=ids)
@pytest.mark.parametrize("reduction", ["mean", "max", "sum"])
def test_places_outside_of_a_mask_do_not_count(kind, reduction):
    passes = drawn(SHAPES["dense"])
    mask = torch.rand(B, 2, 3, generator=torch.Generator().manual_seed(1)) < 0.5
    mask[:, 0, 0], mask[0] = True, False
    strategy = kind(MCDropout(K), reduction=reduction)
    places = PAIRS[kind](torch.stack([probabilities(one) for one in passes], 1))
    for found, keep, at in zip(strategy.score(outputs(strategy, passes, mask)), mask, places, strict=True):
        inside = at[keep]
        expected = getattr(inside, reduction)() if len(inside) else torch.zeros(())
        torch.testing.assert_close(found, expected, atol=2e-6, rtol=1e-5)


def test_the_variance_of_dense_numbers_is_masked_too():
    strategy = acq.PredictiveVariance(MCDropout(K), reduction="sum")
    passes = drawn((B, 1, 2, 2))
    mask = torch.zeros(B, 2, 2, dtype=torch.bool)
    mask[:, 1, 0] = True
    expected = passes.var(0, correction=0)[:, 0, 1, 0]
    torch.testing.assert_close(strategy.score(outputs(strategy, passes, mask)), expected)


def test_bald_and_consensus_kl_rank_alike():
    passes = drawn((200, 5))
    found = [kind(MCDropout(K)) for kind in (acq.BALD, acq.ConsensusKL)]
    scores = [strategy.score(outputs(strategy, passes)) for strategy in found]
    torch.testing.assert_close(*scores)


def test_agreeing_passes_score_nothing_and_never_less():
    passes = drawn((B, 4))[:1].expand(K, B, 4)
    for kind in PAIRS:
        scores = kind(MCDropout(K)).score(outputs(kind(MCDropout(K)), passes))
        assert (scores >= 0).all()
        if kind is not acq.VoteMargin:
            assert scores.max() < 1e-5


@pytest.mark.parametrize("kind", [*PAIRS, acq.PredictiveVariance], ids=ids)
def test_every_one_can_be_made_without_arguments_pickled_and_repeated(kind):
    strategy = kind()
    check_acquisition(strategy)
    assert repr(strategy.posterior) == "MCDropout(num_samples=20, consistent=True)"
    assert repr(pickle.loads(pickle.dumps(strategy))) == repr(strategy) == repr(kind())
    part = strategy.summarize(outputs(strategy, drawn((B, 4))))
    found = strategy.select(Summary(part, Shard.whole(B)), 2, labeled=None, generator=torch.Generator())
    assert found.positions.tolist() == part["score"].argsort(descending=True, stable=True)[:2].tolist()
    empty = strategy.select(Summary({}, Shard.whole(0)), 2, labeled=None, generator=torch.Generator())
    assert len(empty.positions) == 0


@pytest.mark.parametrize("posterior", [SinglePass(), MCDropout(1)], ids=repr)
@pytest.mark.parametrize("kind", [*PAIRS, acq.PredictiveVariance, acq.BatchBALD], ids=ids)
def test_one_pass_has_nothing_to_disagree_with(kind, posterior):
    if kind is acq.VariationRatio and isinstance(posterior, SinglePass):
        return
    with pytest.raises(ValueError, match=rf"`{kind.__name__}` compares passes, but .* makes only one. Use"):
        kind(posterior)


def test_the_variation_ratio_of_one_pass_is_what_is_left_of_the_best_guess():
    strategy = acq.VariationRatio(SinglePass())
    probs = torch.tensor([[0.9, 0.1], [0.6, 0.4]])
    assert strategy.score(Outputs(probs=probs)).tolist() == pytest.approx([0.1, 0.4])
    assert repr(pickle.loads(pickle.dumps(strategy))) == repr(strategy)


@pytest.mark.parametrize("kind", [*PAIRS, *MEANS, acq.PredictiveVariance, acq.BatchBALD], ids=ids)
def test_a_posterior_is_an_object_not_a_class(kind):
    for wrong, hint in ((MCDropout, r"Call it: `MCDropout\(\)`"), (20, "needed is `SinglePass")):
        with pytest.raises(TypeError, match=rf"`posterior` is .*{hint}"):
            kind(posterior=wrong)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (
            lambda: acq.BatchBALD(MCDropout(9, consistent=False)),
            r"needs passes that are one draw.*consistent=T",
        ),
        (
            lambda: acq.BatchBALD(MCDropout(9), num_joint_samples=8),
            r"`num_joint_samples` is 8, fewer than the 9",
        ),
        (lambda: acq.BatchBALD(MCDropout(9), num_joint_samples=0), r"`num_joint_samples` is 0"),
        (lambda: acq.BatchBALD(MCDropout(9), candidates=0), r"`candidates` is 0"),
        (lambda: acq.BALD(reduction="median"), r"`reduction` is 'median'"),
    ],
)
def test_arguments_that_do_not_fit(make, words):
    with pytest.raises(ValueError, match=words):
        make()


@pytest.mark.parametrize(
    ("make", "name"),
    [
        (lambda: acq.BatchBALD(exact="yes"), "exact"),
        (lambda: acq.BALD(multilabel="x"), "multilabel"),
        (lambda: acq.Margin(multilabel=1), "multilabel"),
        (lambda: Committee(3, bootstrap="yes"), "bootstrap"),
    ],
)
def test_what_is_neither_true_nor_false_is_refused(make, name):
    with pytest.raises(TypeError, match=rf"`{name}` is .*; needed is `True` or `False`. Pass"):
        make()


def test_numbers_have_no_labels():
    with pytest.raises(TypeError, match="multilabel"):
        acq.PredictiveVariance(multilabel=True)


def test_wrappers_pass_the_posterior_and_the_needs_on():
    committee = Committee(3)
    wrapped = acq.PowerSampling(acq.BALD(committee, multilabel=True))
    assert wrapped.posterior is committee
    assert wrapped.needs == ("probs", "expected_entropy")
    assert wrapped.multilabel
    assert "Committee(size=3)" in repr(wrapped)


def test_batch_bald_of_one_sample_is_bald():
    passes = drawn((40, 4))
    batch, single = acq.BatchBALD(MCDropout(K)), acq.BALD(MCDropout(K))
    part = batch.summarize(outputs(batch, passes))
    assert part["mc_probs"].shape == (40, K, 4)
    found = batch.select(Summary(part, Shard.whole(40)), 2, labeled=None, generator=torch.Generator())
    scores = single.score(outputs(single, passes))
    assert found.positions[0] == scores.argmax()
    assert found.scores[0].item() == pytest.approx(float(scores.max()), abs=1e-5)
    assert len(set(found.positions.tolist())) == 2
    assert found.scores[1] > found.scores[0]


def test_batch_bald_of_an_empty_pool():
    found = acq.BatchBALD().select(Summary({}, Shard.whole(0)), 3, labeled=None, generator=torch.Generator())
    assert len(found.positions) == len(found.scores) == 0


def test_batch_bald_refuses_dense_outputs():
    strategy = acq.BatchBALD(MCDropout(K))
    with pytest.raises(ValueError, match=r"shape \(6, 9, 2, 3, 4\); `BatchBALD` needs one.*Use `BALD`"):
        strategy.summarize(outputs(strategy, drawn(SHAPES["dense"])))


def test_given_modules_are_no_part_of_the_description():
    strategy = acq.BatchBALD(Committee(models=[nn.Linear(1, 1), nn.Linear(1, 1)]))
    assert "Committee(models=[Linear, Linear])" in repr(strategy)

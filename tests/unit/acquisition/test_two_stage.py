"""One strategy narrows the pool down, another one chooses from the rest."""

import pytest
import torch

from lightning_al import Committee, MCDropout, SinglePass
from lightning_al import acquisition as acq
from lightning_al import functional as F
from lightning_al.functional import Shard
from lightning_al.inference import Outputs, Summary
from unit.ranks import on_ranks

SIZE = 40
GENERATOR = torch.Generator().manual_seed(0)
PROBS = (2 * torch.randn(SIZE, 5, generator=GENERATOR)).softmax(-1)


def narrowed(keep, *, shard=None, query_size=4):
    strategy = acq.TwoStage(acq.Entropy(), then=acq.Margin(), keep=keep)
    shard = Shard.whole(SIZE) if shard is None else shard
    summary = Summary(strategy.summarize(Outputs(probs=PROBS[shard.positions])), shard)
    return strategy.select(summary, query_size, labeled=None, generator=torch.Generator())


@pytest.mark.parametrize(("keep", "count"), [(10, 10), (0.25, 10), (0.26, 11), (4, 4), (1, 4), (1000, SIZE)])
def test_the_best_by_the_second_of_the_best_by_the_first(keep, count):
    best = F.entropy(PROBS).topk(count).indices
    expected = best[F.margin(PROBS)[best].topk(4).indices]
    found = narrowed(keep)
    assert found.positions.tolist() == expected.tolist()
    torch.testing.assert_close(found.scores, F.margin(PROBS)[expected])


@pytest.mark.parametrize("world_size", [2, 3, 5])
def test_the_same_on_any_number_of_ranks(world_size):
    alone = narrowed(10).positions.tolist()
    for found in on_ranks(world_size, SIZE, 7, lambda shard: narrowed(10, shard=shard)):
        assert found.positions.tolist() == alone


def test_a_stochastic_second_stage_draws_by_the_generator():
    strategy = acq.TwoStage(acq.Margin(), then=acq.PowerSampling(acq.Entropy()), keep=20)
    summary = Summary(strategy.summarize(Outputs(probs=PROBS)), Shard.whole(SIZE))
    one, again, other = (
        strategy.select(summary, 6, labeled=None, generator=torch.Generator().manual_seed(seed)).positions
        for seed in (1, 1, 2)
    )
    assert torch.equal(one, again)
    assert not torch.equal(one, other)


def test_one_pass_with_one_posterior():
    posterior = MCDropout(5)
    strategy = acq.TwoStage(acq.BALD(posterior), then=acq.Margin(posterior=MCDropout(5)), keep=0.5)
    assert strategy.posterior is posterior
    assert strategy.needs == ("probs", "expected_entropy")
    deterministic = acq.TwoStage(acq.BALD(posterior), then=acq.HyperplaneDistance(), keep=0.5)
    assert deterministic.posterior is posterior


COMMITTEE = Committee(3)


@pytest.mark.parametrize(
    ("first", "then"),
    [
        (acq.BALD(MCDropout(5)), acq.BALD(MCDropout(6))),
        (acq.BALD(MCDropout(5)), acq.VoteEntropy(COMMITTEE)),
        (acq.BALD(COMMITTEE), acq.PowerSampling(acq.VoteEntropy(MCDropout(3)))),
        (acq.Margin(), acq.BALD(COMMITTEE)),  # probabilities of one pass, and of many
        (acq.BALD(COMMITTEE), acq.Margin(posterior=SinglePass())),
    ],
)
def test_different_posteriors_are_refused(first, then):
    with pytest.raises(ValueError, match=r"one pass over the pool has one posterior.*and give it to both"):
        acq.TwoStage(first, then, keep=0.5)


def test_the_message_gives_the_way_to_narrow_by_a_score_of_one_prediction():
    words = (
        r"has one posterior. Make it once, `passes = MCDropout\(num_samples=100, consistent=True\)`, and "
        r"give it to both: `Margin\(posterior=passes\)` and `BatchBALD\(posterior=passes\)`"
    )
    for first in (acq.Margin(), acq.PowerSampling(acq.Margin())):
        with pytest.raises(ValueError, match=words):
            acq.TwoStage(first, acq.BatchBALD(), keep=50)
    passes = MCDropout(num_samples=100, consistent=True)
    both = acq.TwoStage(acq.Margin(posterior=passes), acq.BatchBALD(posterior=passes), keep=50)
    assert both.posterior is passes


@pytest.mark.parametrize("keep", [0, -1, float("nan"), float("inf"), True, "all", 1.5])
def test_what_is_kept_must_be_a_number_or_a_share(keep):
    with pytest.raises(ValueError, match="`keep` is"):
        acq.TwoStage(acq.Margin(), acq.Entropy(), keep)


def test_the_first_must_score():
    with pytest.raises(TypeError, match="needed are a `ScoreAcquisition`"):
        acq.TwoStage(acq.Random(), acq.Margin(), 10)
    with pytest.raises(ValueError, match="one kind of outputs"):
        acq.TwoStage(acq.Margin(), acq.Margin(multilabel=True), 10)

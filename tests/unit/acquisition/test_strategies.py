import math
import pickle

import pytest
import torch

from lightning_al import MCDropout
from lightning_al import acquisition as acq
from lightning_al import functional as F
from lightning_al.functional import Shard
from lightning_al.inference import Outputs, SinglePass, Summary
from lightning_al.inference.outputs import probabilities
from lightning_al.querying import check_acquisition

PROBS = torch.tensor([[0.5, 0.5], [0.9, 0.1], [0.6, 0.4]])
ALL = [
    acq.Random(), acq.Entropy(), acq.LeastConfidence(), acq.Margin(), acq.HyperplaneDistance(),
    acq.PowerSampling(acq.Entropy(), beta=2.0), acq.PowerSampling(acq.HyperplaneDistance(), form="softmax"),
    acq.BALD(), acq.VariationRatio(), acq.VariationRatio(SinglePass()), acq.MeanSTD(), acq.VoteEntropy(),
    acq.VoteMargin(), acq.ConsensusKL(), acq.PredictiveVariance(), acq.BatchBALD(MCDropout(2), candidates=1),
    acq.TwoStage(acq.BALD(), acq.PowerSampling(acq.VoteEntropy()), 3), acq.LearningLoss(),
    acq.PowerSampling(acq.LearningLoss(), form="softrank"), acq.ClassBalanced(acq.Entropy()),
    acq.ClassBalanced(acq.BatchBALD(MCDropout(2)), shares="pool"), acq.ClassBalanced(acq.Random()),
]  # fmt: skip


@pytest.mark.parametrize("strategy", ALL, ids=repr)
def test_every_strategy_is_usable_picklable_and_repeatable(strategy):
    check_acquisition(strategy)
    assert repr(pickle.loads(pickle.dumps(strategy))) == repr(strategy)
    outputs = Outputs(
        logits=PROBS.log(),
        probs=PROBS,
        embeddings=torch.eye(3),
        classifier=(torch.eye(2, 3), torch.zeros(2)),
        mc_probs=torch.stack([PROBS, PROBS.flip(1)], 1),
        votes=torch.tensor([[2.0, 0.0], [1.0, 1.0], [2.0, 0.0]]),
        expected_entropy=F.entropy(PROBS) / 2,
        probs_std=0.1 * PROBS,
        variance=PROBS[:, :1],
        predicted_loss=torch.tensor([-1.0, 2.0, 0.5]),
    )
    summary = Summary(strategy.summarize(outputs), Shard.whole(3))
    picks = [
        strategy.select(summary, 2, labeled=None, generator=torch.Generator().manual_seed(0))
        for _ in range(2)
    ]
    assert torch.equal(picks[0].positions, picks[1].positions)
    assert len(set(picks[0].positions.tolist())) == 2
    assert len(picks[0].scores) == 2


@pytest.mark.parametrize("strategy", ALL, ids=repr)
def test_an_empty_pool_gives_an_empty_choice(strategy):
    found = strategy.select(Summary({}, Shard.whole(0)), 2, labeled=None, generator=torch.Generator())
    assert len(found.positions) == len(found.scores) == 0


@pytest.mark.parametrize(
    ("strategy", "function"),
    [(acq.Entropy(), F.entropy), (acq.LeastConfidence(), F.least_confidence), (acq.Margin(), F.margin)],
)
def test_scores_are_those_of_the_functions(strategy, function):
    assert torch.equal(strategy.score(Outputs(probs=PROBS)), function(PROBS))


DENSE = torch.tensor(
    [[[0.5, 0.5], [1.0, 0.0], [1.0, 0.0]], [[0.5, 0.5], [0.5, 0.5], [1.0, 0.0]]]
)  # (B, 3, C)
MASK = torch.tensor([[True, True, False], [False, False, True]])


@pytest.mark.parametrize(
    ("reduction", "mask", "expected"),
    [
        ("mean", None, [1 / 3, 2 / 3]), ("max", None, [1, 1]), ("sum", None, [1, 2]),
        ("mean", MASK, [1 / 2, 0]), ("max", MASK, [1, 0]), ("sum", MASK, [1, 0]),
        ("mean", ~MASK & False, [0, 0]), ("max", ~MASK & False, [0, 0]), ("sum", ~MASK & False, [0, 0]),
        (lambda scores, keep: (scores * keep).sum(1) + keep.sum(1), MASK, [3, 1]),
    ],
)  # fmt: skip
def test_dense_scores_are_reduced_over_the_places_that_count(reduction, mask, expected):
    found = acq.Margin(reduction=reduction).score(Outputs(probs=DENSE, mask=mask))
    assert found.tolist() == pytest.approx(expected)


def test_a_mask_of_places_covers_every_label_there():
    """Also where there are as many labels as places."""
    for labels in (2, 3):
        logits = torch.full((2, labels, 3), 50.0)
        logits[:, :, 0] = 0.0  # unsure at the first place only
        probs = probabilities(logits, multilabel=True)
        score = acq.Margin(multilabel=True).score(Outputs(probs=probs, mask=MASK))
        assert score.tolist() == pytest.approx([1 / 2, 0], abs=1e-6)


def test_labels_of_a_multi_label_head_are_averaged():
    probs = probabilities(torch.tensor([[0.0, 50.0], [50.0, 50.0]]), multilabel=True)
    assert acq.Margin(multilabel=True).score(Outputs(probs=probs)).tolist() == pytest.approx([0.5, 0])


def test_a_single_logit_is_two_classes():
    probs = probabilities(torch.tensor([[0.0], [3.0]]))
    assert acq.Entropy().score(Outputs(probs=probs))[0].item() == pytest.approx(math.log(2))


class Own(acq.ScoreAcquisition):
    needs = ("logits",)

    def __init__(self, give):
        self.give = give

    def score(self, outputs):
        return self.give


@pytest.mark.parametrize(
    ("give", "words"),
    [
        (torch.zeros(2, 3), r"`Own.score` returned \(2, 3\); needed is one number a sample.*mean"),
        (3.0, r"returned float; needed"),
        (torch.tensor([0.0, math.nan]), r"`Own.score` is NaN for rows \[1\].*no order.*Guard"),
    ],
)
def test_scores_that_cannot_be_ranked(give, words):
    with pytest.raises(ValueError, match=words):
        Own(give).summarize(Outputs())


def test_dense_outputs_have_no_hyperplane():
    outputs = Outputs(logits=torch.zeros(2, 3, 4), embeddings=torch.zeros(2, 5), classifier=None)
    with pytest.raises(ValueError, match=r"\(2, 3, 4\).*needs one vector a sample.*`Margin`"):
        acq.HyperplaneDistance().score(outputs)
    outputs = Outputs(logits=torch.zeros(2, 3), embeddings=torch.zeros(2, 5), classifier=None)
    with pytest.raises(ValueError, match=r"No `nn.Linear` .*End the model in a linear layer"):
        acq.HyperplaneDistance().score(outputs)


def test_bad_arguments_of_strategies():
    with pytest.raises(ValueError, match=r"`reduction` is 'median'; needed is \"mean\""):
        acq.Margin(reduction="median")
    with pytest.raises(TypeError, match=r"no score of single samples.*Wrap a `ScoreAcquisition`"):
        acq.PowerSampling(acq.Random())
    with pytest.raises(ValueError, match=r"`beta` is -1"):
        acq.PowerSampling(acq.Margin(), beta=-1)
    with pytest.raises(ValueError, match=r"`form` is 'x'; needed"):
        acq.PowerSampling(acq.Margin(), form="x")
    with pytest.raises(TypeError, match=r"Call it: `Margin\(\)`"):
        check_acquisition(acq.Margin)
    strategy = Own(None)
    strategy.needs = ("logits", "colour")
    with pytest.raises(ValueError, match=r"`Own.needs` names \['colour'\].*outputs are.*Name only these"):
        check_acquisition(strategy)


def test_power_sampling_draws_by_the_score_of_its_base():
    scores = torch.tensor([0.0, 1.0, 0.0, 1.0])
    strategy = acq.PowerSampling(acq.Entropy())
    drawn = strategy.draw(scores, 2, shard=Shard.whole(4), generator=torch.Generator().manual_seed(0))
    assert sorted(drawn[0].tolist()) == [1, 3]
    assert drawn[1].tolist() == [1, 1]


def test_what_a_strategy_remembers_is_no_setting_of_it():
    """The ledger keeps its `repr`, and refuses another one in the next round."""

    class Counting(acq.Margin):
        def __init__(self, weight):
            super().__init__(posterior=Averaging())
            self.weight, self._calls = weight, 0

    class Averaging(SinglePass):
        def __init__(self):
            self.passes, self._calls = 3, 0

    strategy = Counting(0.5)
    before = repr(strategy)
    strategy._calls = strategy.posterior._calls = 1
    assert repr(strategy) == before
    assert "weight=0.5" in before
    assert "Averaging(passes=3)" in before

"""Quotas of predicted classes, against the slow definition; and strategies that choose as a whole."""

import pickle
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from reference import balanced

from lightning_al import MCDropout, SinglePass
from lightning_al import acquisition as acq
from lightning_al import functional as F
from lightning_al.functional import Shard
from lightning_al.inference import Outputs, Summary
from lightning_al.querying import check_acquisition
from unit.ranks import on_ranks

SIZE, CLASSES = 60, 4
GENERATOR = torch.Generator().manual_seed(0)
#: Most samples are of the last class, none of class 2; scores come in ties.
LOGITS = torch.randn(SIZE, CLASSES, generator=GENERATOR).round(decimals=1) + torch.tensor([0.6, 0.5, -9, 1.5])
PROBS = LOGITS.softmax(-1)
EMBEDDINGS = torch.randn(SIZE, 3, generator=GENERATOR)
CLASS = PROBS.argmax(1)
LABELED = torch.randn(9, 3, generator=GENERATOR)


class Given(acq.ScoreAcquisition):
    """Scores that are the first logits."""

    needs = ("logits",)

    def score(self, outputs):
        return outputs.logits


def outputs_of(rows=slice(None), **more):
    return Outputs(probs=PROBS[rows], embeddings=EMBEDDINGS[rows], **more)


def chosen(strategy, query_size, shard=None, seed=0, labeled=None):
    shard = Shard.whole(SIZE) if shard is None else shard
    pool = Summary(strategy.summarize(outputs_of(shard.positions)), shard)
    return strategy.select(
        pool, query_size, labeled=labeled, generator=torch.Generator().manual_seed(seed)
    )  # fmt: skip


def of_scores(scores, classes, query_size, shares, number):
    strategy = acq.ClassBalanced(Given(), shares=shares)
    probs = torch.nn.functional.one_hot(torch.tensor(classes), number).float()
    rows = strategy.summarize(Outputs(probs=probs, logits=torch.tensor(scores)))
    pool = Summary(rows, Shard.whole(len(scores)))
    found = strategy.select(pool, query_size, labeled=None, generator=torch.Generator())
    assert torch.equal(found.scores, torch.tensor(scores)[found.positions])
    return found.positions.tolist()


@st.composite
def pools(draw):
    number = draw(st.integers(1, 5))
    size = draw(st.integers(1, 14))
    classes = draw(st.lists(st.integers(0, number - 1), min_size=size, max_size=size))
    scores = draw(st.lists(st.sampled_from([0.0, 0.5, 1.0, 2.0]), min_size=size, max_size=size))
    shares = draw(st.lists(st.integers(0, 4), min_size=number, max_size=number).filter(any))
    return scores, classes, draw(st.integers(1, 16)), shares


@given(pools())
def test_scores_are_taken_as_the_definition_says(drawn):
    scores, classes, query_size, shares = drawn
    number = len(shares)
    for option, meant in (
        ("equal", [1] * number),
        ("pool", [classes.count(c) for c in range(number)]),
        (shares, shares),
    ):
        expected = balanced.balanced_by_score(scores, classes, query_size, meant)
        assert of_scores(scores, classes, query_size, option, number) == expected


@given(pools())
def test_a_smaller_query_is_the_beginning_of_a_larger_one(drawn):
    scores, classes, query_size, shares = drawn
    whole = of_scores(scores, classes, len(scores), shares, len(shares))
    assert of_scores(scores, classes, query_size, shares, len(shares)) == whole[:query_size]
    assert sorted(whole) == list(range(len(scores)))


@given(pools(), st.integers(0, 3))
def test_wholes_get_the_quotas_of_the_definition(drawn, seed):
    _, classes, query_size, shares = drawn
    number = len(shares)
    probs = torch.nn.functional.one_hot(torch.tensor(classes), number).float()
    counts = [classes.count(c) for c in range(number)]
    for option, meant in (("equal", [1] * number), (shares, shares)):
        strategy = acq.ClassBalanced(acq.Random(), shares=option)
        pool = Summary(strategy.summarize(Outputs(probs=probs)), Shard.whole(len(classes)))
        generator = torch.Generator().manual_seed(seed)
        found = strategy.select(pool, query_size, labeled=None, generator=generator).positions.tolist()
        assert len(set(found)) == len(found) == min(query_size, len(classes))
        got = Counter(classes[i] for i in found)
        allowed = balanced.quotas(counts, meant, query_size)
        assert all(got[c] in allowed[c] for c in range(number))


def test_hand_made_turns():
    scores = [0.9, 0.8, 0.7, 0.6, 0.5, 0.4]
    classes = [0, 0, 0, 0, 1, 2]
    assert of_scores(scores, classes, 3, "equal", 3) == [0, 4, 5]
    assert of_scores(scores, classes, 5, "equal", 3) == [0, 4, 5, 1, 2]  # the others have none left
    assert of_scores(scores, classes, 2, "equal", 3) == [0, 4]  # no room for all: the higher scores
    assert of_scores(scores, classes, 4, [0, 1, 1], 3) == [4, 5, 0, 1]  # nothing else is left
    assert of_scores(scores, classes, 3, [3, 1, 0], 3) == [0, 1, 4]


def test_a_collapsed_ranking_is_mended():
    scores = CLASS + torch.rand(SIZE, generator=torch.Generator().manual_seed(1))
    assert CLASS[scores.topk(12).indices].unique().tolist() == [3]
    mended = of_scores(scores.tolist(), CLASS.tolist(), 12, "equal", CLASSES)
    assert CLASS[mended].bincount(minlength=CLASSES).tolist() == [4, 4, 0, 4]


WHOLES = [
    acq.Random(), acq.BADGE(), acq.CoreSet(), acq.DiverseMiniBatch(beta=2), acq.PowerSampling(acq.Entropy()),
    acq.TwoStage(acq.Margin(), acq.CoreSet(), keep=0.5), acq.ClassBalanced(acq.Margin()),
]  # fmt: skip


@pytest.mark.parametrize("base", [acq.Margin(), *WHOLES], ids=lambda base: type(base).__name__)
@pytest.mark.parametrize("world_size", [2, 3, 5])
def test_the_same_on_any_number_of_ranks(base, world_size):
    strategy = acq.ClassBalanced(base)

    def choose(shard):
        labeled = None
        if strategy.needs_labeled:
            cut = Shard.blocks(9, 2, rank=shard.rank, world_size=shard.world_size)
            own = replace(shard, positions=cut.positions, total=9)
            labeled = labeled_summary(strategy, own)
        return chosen(strategy, 11, shard, labeled=labeled)

    whole = labeled_summary(strategy, Shard.whole(9)) if strategy.needs_labeled else None
    alone = chosen(strategy, 11, labeled=whole)
    for found in on_ranks(world_size, SIZE, 7, choose):
        assert found.positions.tolist() == alone.positions.tolist()
        torch.testing.assert_close(found.scores, alone.scores)
    assert sorted(CLASS[alone.positions].bincount(minlength=CLASSES).tolist()) == [0, 3, 4, 4]


def labeled_summary(strategy, shard):
    rows = torch.full((len(shard.positions), CLASSES), 1 / CLASSES)
    return Summary(strategy.summarize(Outputs(probs=rows, embeddings=LABELED[shard.positions])), shard)


def test_a_core_set_takes_what_was_chosen_of_other_classes_for_labeled():
    strategy = acq.ClassBalanced(acq.CoreSet())
    found = chosen(strategy, 9, labeled=labeled_summary(strategy, Shard.whole(9)))
    known, expected = LABELED, []
    for name in (0, 1, 3):
        rows = (name == CLASS).nonzero().squeeze(1)
        picks = rows[F.k_center_greedy(EMBEDDINGS[rows], 3, known)]
        known = torch.cat([known, EMBEDDINGS[picks]])
        expected.append(picks.tolist())
    by_class = [[i for i in found.positions.tolist() if CLASS[i] == name] for name in (0, 1, 3)]
    assert by_class == expected
    # Where nothing is labelled yet, the first class begins as a core-set does.
    nothing = labeled_summary(strategy, Shard.whole(0))
    assert len(set(chosen(strategy, 9, labeled=nothing).positions.tolist())) == 9


def test_a_core_set_of_given_embeddings_knows_which_rows_are_whose():
    given = torch.cat([EMBEDDINGS, LABELED])
    strategy = acq.ClassBalanced(acq.CoreSet(embeddings=given))
    model = acq.ClassBalanced(acq.CoreSet())
    pool = Summary(
        strategy.summarize(outputs_of()), Shard(torch.arange(SIZE), SIZE, None, torch.arange(SIZE))
    )
    rows = {"class": torch.zeros(9, dtype=torch.int)}
    labeled = Summary(rows, Shard(torch.arange(9), 9, None, SIZE + torch.arange(9)))
    found = strategy.select(pool, 9, labeled=labeled, generator=torch.Generator().manual_seed(0))
    same = chosen(model, 9, labeled=labeled_summary(model, Shard.whole(9)))
    assert found.positions.tolist() == same.positions.tolist()


def test_the_last_turn_of_wholes_is_drawn():
    strategy = acq.ClassBalanced(acq.Random())
    drawn = {tuple(sorted(CLASS[chosen(strategy, 2, seed=seed).positions].tolist())) for seed in range(20)}
    assert drawn == {(0, 1), (0, 3), (1, 3)}


def test_it_needs_what_its_base_needs_and_one_pass():
    passes = MCDropout(5)
    strategy = acq.ClassBalanced(acq.BALD(passes))
    check_acquisition(strategy)
    assert strategy.needs == ("probs", "expected_entropy")
    assert strategy.posterior is passes
    assert acq.ClassBalanced(acq.CoreSet()).needs_labeled
    assert acq.ClassBalanced(acq.Random()).needs == ("probs",)
    assert isinstance(acq.ClassBalanced(acq.BADGE()).posterior, SinglePass)
    staged = acq.TwoStage(acq.Margin(), then=acq.ClassBalanced(acq.CoreSet()), keep=0.5)
    assert staged.needs == ("probs", "embeddings")
    assert repr(pickle.loads(pickle.dumps(staged))) == repr(staged)


def test_the_ledger_tells_shares_apart():
    shown = {repr(acq.ClassBalanced(acq.Margin(), shares=shares)) for shares in ("equal", "pool", [1, 2])}
    assert len(shown) == 3
    as_array = acq.ClassBalanced(acq.Margin(), shares=np.array([1, 2]))
    assert repr(as_array) == repr(acq.ClassBalanced(acq.Margin(), shares=[1.0, 2.0]))
    many = {repr(acq.ClassBalanced(acq.Margin(), shares=[1] * 20 + [last])) for last in (1, 2)}
    assert len(many) == 2


@pytest.mark.parametrize("shares", ["most", [], [0, 0], [1, -1], [1, float("nan")], [[1]], None, 3, ["a"]])
def test_shares_that_are_none(shares):
    with pytest.raises(ValueError, match=r"`shares` is .*; needed is \"equal\", \"pool\", or one number"):
        acq.ClassBalanced(acq.Margin(), shares=shares)


def test_what_has_no_classes_is_refused():
    with pytest.raises(TypeError, match=r"`base` is .*needed is the strategy.*such as `Margin\(\)`"):
        acq.ClassBalanced(acq.Margin)
    for base in (acq.Margin(multilabel=True), acq.PredictiveVariance()):
        with pytest.raises(ValueError, match=r"no single class a sample.*Use the strategy itself"):
            acq.ClassBalanced(base)
    strategy = acq.ClassBalanced(acq.Margin())
    with pytest.raises(ValueError, match=r"shape \(2, 5, 3\); `ClassBalanced` needs one predicted class"):
        strategy.summarize(Outputs(probs=torch.full((2, 5, 3), 1 / 3)))
    with pytest.raises(ValueError, match=r"`shares` has 2 numbers, but the model predicts 4 classes"):
        acq.ClassBalanced(acq.Margin(), shares=[1, 2]).summarize(outputs_of())

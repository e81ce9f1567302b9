"""One strategy narrows the pool down, another one chooses from the rest."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch

from lightning_al import Committee, MCDropout, SinglePass
from lightning_al import acquisition as acq
from lightning_al import functional as F
from lightning_al.functional import Shard
from lightning_al.inference import Outputs, Summary
from lightning_al.inference.kept_rows import KeptRows, Room
from unit.ranks import on_ranks

SIZE = 40
GENERATOR = torch.Generator().manual_seed(0)
PROBS = (2 * torch.randn(SIZE, 5, generator=GENERATOR)).softmax(-1)


def narrowed(keep, *, shard=None, query_size=4):
    strategy = acq.TwoStage(acq.Entropy(), then=acq.Margin(), keep=keep)
    shard = Shard.whole(SIZE) if shard is None else shard
    summary = Summary(strategy.summarize(Outputs(probs=PROBS[shard.positions])), shard)
    return strategy.select(summary, query_size, labeled=None, generator=torch.Generator())


@pytest.mark.parametrize(
    ("keep", "count"),
    [
        (10, 10),
        (0.25, 10),
        (0.26, 11),
        (0.175, 7),  # its product with 40 is a little more than 7
        (4, 4),
        (1, 4),  # one, but never fewer than asked for
        (1000, SIZE),
        (1.0, SIZE),
        (1e-9, 4),
        (np.int64(10), 10),
        (np.float32(0.25), 10),
        (np.float64(1), SIZE),
    ],
)
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


@pytest.mark.parametrize(
    "keep", [0, -1, 0.0, -0.5, float("nan"), float("inf"), True, np.bool_(True), "all", None, np.int64(0)]
)
def test_what_is_kept_must_be_a_number_or_a_share(keep):
    with pytest.raises(
        ValueError, match=r"`keep` is.*a number of samples, such as 1000, or a share of the pool"
    ):
        acq.TwoStage(acq.Margin(), acq.Entropy(), keep)


@pytest.mark.parametrize("keep", [1.5, 1000.0, np.float64(20)])
def test_a_share_above_one_is_told_how_to_write_a_number(keep):
    words = rf"`keep` is {keep}; a float is a share.*from above 0 to 1\.0.*write `keep={int(np.ceil(keep))}`"
    with pytest.raises(ValueError, match=words):
        acq.TwoStage(acq.Margin(), acq.Entropy(), keep)


def test_the_ledger_shows_what_is_kept_as_pythons_own_number():
    for keep, shown in ((np.int64(10), "10"), (np.float64(0.25), "0.25"), (1, "1"), (1.0, "1.0")):
        assert f"keep={shown}," in repr(acq.TwoStage(acq.Margin(), acq.Entropy(), keep))


def test_stages_within_stages():
    """Each narrows by its own score, though these have the same name."""
    strategy = acq.TwoStage(
        acq.Entropy(), then=acq.TwoStage(acq.LeastConfidence(), then=acq.Margin(), keep=8), keep=20
    )
    summary = Summary(strategy.summarize(Outputs(probs=PROBS)), Shard.whole(SIZE))
    found = strategy.select(summary, 4, labeled=None, generator=torch.Generator())
    kept = F.entropy(PROBS).topk(20).indices
    kept = kept[F.least_confidence(PROBS)[kept].topk(8).indices]
    assert found.positions.tolist() == kept[F.margin(PROBS)[kept].topk(4).indices].tolist()


class Memory(acq.Acquisition):
    """Chooses the first, and remembers what memory the process took then."""

    def summarize(self, outputs):
        return {}

    def select(self, pool, query_size, *, labeled, generator):
        self.rows, self.megabytes = pool["rows"], anonymous_megabytes()
        return acq.Selection(torch.arange(query_size), torch.zeros(query_size))


def anonymous_megabytes():
    status = Path("/proc/self/status")
    found = re.search(r"RssAnon:\s+(\d+) kB", status.read_text()) if status.exists() else None
    if found is None:
        pytest.skip("what memory is over no file is known on Linux only")
    return int(found[1]) / 1024


@pytest.mark.parametrize("limit", [2**20, 2**40], ids=["file", "memory"])
def test_what_is_kept_of_a_pool_in_a_file_lies_in_a_file_too(limit, tmp_path):
    count, width, piece = 100_000, 300, 5_000  # 120 MB, of which 96 are kept
    room = Room(limit, tmp_path)
    kept = KeptRows(count, room)
    for start in range(0, count, piece):
        score = torch.arange(start, start + piece).float()
        kept.add({"first/score": score, "then/rows": score[:, None].expand(-1, width)})
    strategy = acq.TwoStage(acq.Margin(), then=Memory(), keep=0.8)
    summary = Summary(kept.tensors, Shard.whole(count), room=room)
    before = anonymous_megabytes()
    found = strategy.select(summary, 3, labeled=None, generator=torch.Generator())
    grown = strategy.then.megabytes - before
    assert grown < 45 if limit == 2**20 else grown > 80
    assert found.positions.tolist() == [20_000, 20_001, 20_002]
    assert torch.equal(strategy.then.rows[:, 7], torch.arange(20_000, 100_000).float())
    assert list(tmp_path.iterdir()) == []


def test_the_first_must_score():
    with pytest.raises(TypeError, match="needed are a `ScoreAcquisition`"):
        acq.TwoStage(acq.Random(), acq.Margin(), 10)
    with pytest.raises(ValueError, match="one kind of outputs"):
        acq.TwoStage(acq.Margin(), acq.Margin(multilabel=True), 10)

import random
from collections import Counter

import lightning as L
import numpy as np
import pytest
import torch
from lightning.pytorch.trainer.states import RunningStage
from torch import nn
from torch.utils.data import TensorDataset

from lightning_al import ActiveDataModule, Committee, query
from lightning_al import acquisition as acq
from lightning_al.functional import entropy
from lightning_al.inference import BatchPosterior, Outputs, Posterior, SinglePass, scoring
from lightning_al.inference.scoring import summarize_samples

BATCH = 4


class Net(L.LightningModule):
    """Two classes from one number, which is the index of the sample; counts what it is shown."""

    def __init__(self):
        super().__init__()
        self.norm, self.drop = nn.BatchNorm1d(1), nn.Dropout(0.5)
        self.frozen = nn.BatchNorm1d(1)
        self.head = nn.Linear(1, 2)
        self.frozen.eval()
        self.frozen.requires_grad_(False)
        self.seen, self.stages = [], set()

    def forward(self, x):
        self.seen += x.flatten().tolist()
        self.stages.add(self.trainer.state.stage if self._trainer else None)
        assert not self.norm.training
        assert not torch.is_grad_enabled()
        # Whoever draws in forward must not move anybody's stream.
        random.random(), np.random.rand(), torch.rand(1)  # noqa: NPY002
        return self.head(self.drop(self.frozen(self.norm(x))))


@pytest.fixture(scope="module")
def trainer():
    return L.Trainer(
        accelerator="cpu", devices=1, logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False,
    )  # fmt: skip


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def data_of(size, **options):
    rows = TensorDataset(torch.arange(size).float()[:, None], torch.zeros(size, dtype=torch.long))
    return ActiveDataModule(rows, **{"initial": [0], "pool_batch_size": BATCH, **options})


def summary_of(trainer, module, data, acquisition=None, indices=None):
    indices = data.pool_indices if indices is None else indices
    module.trainer = trainer
    return summarize_samples(acquisition or acq.Entropy(), trainer, module, data, indices, seed=0)


@pytest.mark.parametrize(
    ("size", "num_workers"), [(0, 0), (1, 0), (BATCH - 1, 0), (BATCH, 0), (BATCH + 1, 2), (101, 0)]
)
def test_every_candidate_is_scored_exactly_once(trainer, size, num_workers):
    module, data = Net(), data_of(size + 1, num_workers=num_workers)
    summary = summary_of(trainer, module, data)
    assert Counter(module.seen) == dict.fromkeys(range(1, size + 1), 1)
    if size:
        assert summary["score"].shape == (size,)
    assert len(query(module, data, acq.Entropy(), 5, trainer=trainer)) == min(5, size)


def test_scores_belong_to_their_samples(trainer):
    module, data = Net(), data_of(30)
    data.ignore([7, 9])
    indices = np.array([20, 3, 11, 5, 29])
    scores = summary_of(trainer, module, data, indices=indices)["score"]
    module.eval()
    with torch.no_grad():
        logits = module(torch.from_numpy(indices).float()[:, None])
    assert torch.allclose(scores, entropy(logits.softmax(-1)), atol=1e-6)


def snapshot(module, trainer):
    return {
        "modes": [m.training for m in module.modules()],
        "state": {k: v.clone() for k, v in module.state_dict().items()},
        "grad": [p.requires_grad for p in module.parameters()],
        "stage": trainer.state.stage,
        "python": random.getstate(),
        "numpy": str(np.random.get_state()),  # noqa: NPY002
        "torch": torch.get_rng_state(),
        "hooks": [len(m._forward_hooks) for m in module.modules()],
    }


def assert_same(before, after):
    for key in ("modes", "grad", "stage", "python", "numpy", "hooks"):
        assert before[key] == after[key], key
    assert torch.equal(before["torch"], after["torch"])
    assert all(torch.equal(before["state"][k], after["state"][k]) for k in before["state"])


@pytest.mark.parametrize("stage", [None, RunningStage.TRAINING])
@pytest.mark.parametrize("strategy", [acq.Entropy(), acq.HyperplaneDistance(), acq.Random()], ids=repr)
def test_scoring_leaves_everything_as_it_was(trainer, strategy, stage):
    module, data = Net(), data_of(20, num_workers=2 if stage else 0)
    module.drop.eval()
    module.trainer = trainer
    trainer.state.stage = stage
    try:
        before = snapshot(module, trainer)
        summary_of(trainer, module, data, strategy)
        assert_same(before, snapshot(module, trainer))
        assert module.stages <= {RunningStage.PREDICTING}
    finally:
        trainer.state.stage = None


def test_a_failure_leaves_everything_as_it_was_too(trainer):
    module, data = Net(), data_of(20)
    module.head.weight.data.fill_(float("nan"))
    module.trainer = trainer
    before = snapshot(module, trainer)
    with pytest.raises(ValueError, match="NaN or infinite"):
        summary_of(trainer, module, data, acq.HyperplaneDistance())
    after = snapshot(module, trainer)
    before["state"].pop("head.weight")
    assert_same(before, after)


class Blind(Net):
    """Cannot say anything of some samples."""

    def forward(self, x):
        out = super().forward(x)
        out[(x[:, 0] == 13) | (x[:, 0] == 4)] = float("nan")
        out[x[:, 0] == 17, 1] = float("inf")
        return out


def test_logits_that_are_not_finite_name_the_data_set_indices(trainer):
    """In a pool with holes, in an order of its own; not rows of a batch."""
    data = data_of(20)
    data.ignore([1, 2, 5])
    order = data.pool_indices[torch.randperm(16, generator=torch.Generator().manual_seed(3)).numpy()]
    found = set()
    for start in range(0, len(order), BATCH):
        some = order[start : start + BATCH]
        bad = sorted({4, 13, 17} & set(some.tolist()))
        if not bad:
            summary_of(trainer, Blind(), data, indices=some)
            continue
        with pytest.raises(
            ValueError, match=r"logits of samples .*NaN or infinite.*Look at .*nothing was"
        ) as e:
            summary_of(trainer, Blind(), data, indices=some)
        named = str(e.value).split("[")[1].split("]")[0]
        assert sorted(int(n) for n in named.split(",")) == bad
        found |= set(bad)
    assert found == {4, 13, 17}
    events = data.ledger.last()
    with pytest.raises(ValueError, match="nothing was asked for"):
        query(Blind(), data, acq.Entropy(), 3, trainer=trainer, commit=True)
    assert data.ledger.last() == events


class Augmenting(Net):
    def on_after_batch_transfer(self, batch, dataloader_idx):
        if self.trainer.training:
            return [batch[0] + 1000, *batch[1:]]
        return batch


class AugmentingData(ActiveDataModule):
    def on_after_batch_transfer(self, batch, dataloader_idx):
        if self.trainer.training:
            return [batch[0] + 1000, *batch[1:]]
        return batch


@pytest.mark.parametrize("where", ["module", "data"])
def test_augmentation_keyed_on_training_is_off(trainer, where):
    rows = TensorDataset(torch.arange(9).float()[:, None], torch.zeros(9))
    kind = AugmentingData if where == "data" else ActiveDataModule
    data = kind(rows, initial=[0], pool_batch_size=BATCH)
    module = Augmenting() if where == "module" else Net()
    data.trainer = module.trainer = trainer
    trainer.state.stage = RunningStage.TRAINING
    try:
        summary_of(trainer, module, data)
    finally:
        trainer.state.stage = None
    assert max(module.seen) < 9


class Doubling(acq.ScoreAcquisition):
    needs = ("logits",)

    def score(self, outputs):
        return outputs.logits[:, 0].repeat(2)


def test_a_summary_of_another_length_is_refused(trainer):
    with pytest.raises(ValueError, match=r"'score' of shape \(8,\) for 4 samples; needed is one row"):
        summary_of(trainer, Net(), data_of(20), Doubling())


def test_a_strategy_that_needs_nothing_forwards_nothing(trainer):
    module = Net()
    found = query(module, data_of(20), acq.Random(), 5, trainer=trainer)
    assert module.seen == []
    assert len(set(found.indices.tolist())) == 5


def test_random_work_in_forward_is_the_same_on_every_call(trainer):
    class Jittery(Net):
        def forward(self, x):
            return super().forward(x) + torch.randn(len(x), 2)

    torch.manual_seed(0)
    module, data = Jittery(), data_of(20)
    first = summary_of(trainer, module, data)["score"]
    torch.manual_seed(99)
    assert torch.equal(summary_of(trainer, module, data)["score"], first)


class Dense(Net):
    """Three classes at each of 40 places."""

    def __init__(self, seed):
        super().__init__()
        torch.manual_seed(seed)
        self.head = nn.Linear(1, 120)
        self.entered = 0

    def forward(self, x):
        return super().forward(x / 100).reshape(-1, 3, 40)

    def eval(self):
        self.entered += 1
        return super().eval()


class Both(acq.BALD):
    """Of the members and of the scored module."""

    needs = (*acq.BALD.needs, "logits")

    def places(self, outputs):
        return super().places(outputs) + outputs.logits.sum(1)


@pytest.mark.parametrize("kind", [acq.BALD, Both])
@pytest.mark.parametrize(("limit", "times"), [(2**30, 1), (2560 * 3, 4), (1, 10)])
def test_members_go_through_as_many_blocks_at_a_time_as_their_sums_fit(
    trainer, monkeypatch, kind, limit, times
):
    def scored():
        members = [Dense(1), Dense(2)]
        summary = summary_of(trainer, Dense(3), data_of(39), kind(Committee(models=members)))
        for member in members:
            assert sorted(member.seen) == pytest.approx([i / 100 for i in range(1, 39)])
        return summary["score"], [member.entered for member in members]

    expected, _ = scored()
    monkeypatch.setattr(scoring, "_KEPT_BYTES", limit)
    found, entered = scored()
    assert torch.equal(found, expected)
    assert entered == [times, times]


class OfNoKind(Posterior):
    def passes(self, forward, module, batch, draw):
        yield forward(module, batch)[None]


class Twice(BatchPosterior):
    """A posterior of one's own: twice the logits of one pass."""

    def outputs(self, call, batch, needs, draw, *, multilabel=False):
        return Outputs(logits=2 * SinglePass().outputs(call, batch, needs, draw).logits)

    def passes(self, forward, module, batch, draw):
        yield 2 * forward(module, batch)[None]


class Kept(acq.Random):
    needs = ("logits",)

    def __init__(self, posterior):
        self.posterior = posterior

    def summarize(self, outputs):
        return {"logits": outputs.logits}


def test_a_posterior_of_ones_own_is_asked_batch_by_batch(trainer):
    data, model = data_of(10), Net()
    once, twice = (
        summarize_samples(Kept(posterior), trainer, model, data, data.pool_indices, seed=0)["logits"]
        for posterior in (SinglePass(), Twice())
    )
    assert len(once) == 9
    torch.testing.assert_close(twice, 2 * once)


def test_a_posterior_that_scores_no_batch_is_refused(trainer):
    data = data_of(10)
    with pytest.raises(TypeError, match=r"`OfNoKind` is a posterior that.*`BatchPosterior`, and write"):
        summarize_samples(Kept(OfNoKind()), trainer, Net(), data, data.pool_indices, seed=0)

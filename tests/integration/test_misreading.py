"""Numbers, and several labels a sample, are no classes: strategies of classes refuse them before training."""

import pytest
from torch import nn
from torch.utils.data import TensorDataset

from integration.small import Net, blobs, queries, quiet
from lightning_al import ActiveDataModule, ActiveLearning, Committee, MCDropout, SinglePass, fit_rounds, query
from lightning_al import acquisition as acq

PASSES = MCDropout(2)
STRATEGIES = {
    "default": lambda: None,
    "margin": acq.Margin,
    "balanced": lambda: acq.ClassBalanced(acq.Random()),
    "staged": lambda: acq.TwoStage(acq.Entropy(), then=acq.CoreSet(), keep=0.5),
    "clusters": acq.DiverseMiniBatch,
    "passes": lambda: acq.BALD(PASSES),
    "votes": lambda: acq.VoteEntropy(PASSES),
    "joint": lambda: acq.BatchBALD(PASSES),
    "committee": lambda: acq.BALD(Committee(models=[Heads(1), Heads(1)])),
}
WORDS = {
    "numbers": r"The labels are numbers, such as -?\d.*shape \(1,\).*Use `PredictiveVariance\(\)`",
    "several": r"several labels, such as \[.*reads the 3 outputs as one class.*Pass `multilabel=True`",
}


class Heads(Net):
    """Of as many outputs as it is told, with a dropout."""

    def __init__(self, outputs):
        super().__init__(dropout=0.3)
        self.net[-1] = nn.Linear(8, outputs)
        self.steps = 0

    def training_step(self, batch, batch_idx):
        self.steps += 1
        x, y = batch
        return nn.functional.mse_loss(self(x).reshape(y.shape), y.float())


def data_of(folder, kind):
    x, y = blobs().tensors
    target = {
        "numbers": x.sum(1), "several": (x[:, :3] > 0).long(), "column": x.sum(1, keepdim=True),
        "two classes": (y % 2).float(), "one of three": nn.functional.one_hot(y, 3),
    }[kind]  # fmt: skip
    return ActiveDataModule(TensorDataset(x, target), initial=12, batch_size=4, state_dir=folder)


@pytest.mark.parametrize("kind", WORDS)
@pytest.mark.parametrize("name", STRATEGIES)
def test_they_are_refused_before_the_first_step(tmp_path, name, kind):
    if name == "committee" and kind == "several":
        strategy = acq.BALD(Committee(models=[Heads(3), Heads(3)]))
    else:
        strategy = STRATEGIES[name]()
    module = Heads(1 if kind == "numbers" else 3)
    data, active = data_of(tmp_path, kind), ActiveLearning(strategy, query_size=8)
    with pytest.raises(ValueError, match=WORDS[kind]):
        quiet(callbacks=[active]).fit(module, datamodule=data)
    assert module.steps == 0
    assert queries(tmp_path) == {}
    with pytest.raises(ValueError, match=WORDS[kind]):
        query(module.eval(), data, strategy or acq.BADGE(), 5, trainer=quiet())


def test_a_committee_that_is_to_be_trained_and_a_column_of_numbers_too(tmp_path):
    made = []

    def make(seed):
        made.append(Heads(1))
        return made[-1]

    active = ActiveLearning(acq.BALD(Committee(2)), query_size=8)
    with pytest.raises(ValueError, match=r"The labels are numbers, such as"):
        fit_rounds(make, lambda r: quiet(), data_of(tmp_path, "column"), active, rounds=1)
    assert not any(module.steps for module in made)


@pytest.mark.parametrize(
    ("kind", "outputs", "strategy"),
    [
        ("two classes", 1, None),
        ("two classes", 1, acq.ClassBalanced(acq.Margin())),
        ("one of three", 3, acq.BADGE()),
        ("several", 3, acq.Margin(multilabel=True)),
        ("several", 3, acq.BADGE(multilabel=True)),
        ("numbers", 1, acq.PredictiveVariance(PASSES)),
        ("numbers", 1, acq.CoreSet()),
        ("numbers", 1, acq.Random()),
        ("numbers", 2, acq.VariationRatio(SinglePass())),  # such as bins
    ],
)
def test_what_can_be_read_as_it_is_meant_is_asked(tmp_path, kind, outputs, strategy):
    module, data = Heads(outputs), data_of(tmp_path, kind)
    if kind == "numbers" and outputs == 2:
        module.training_step = lambda batch, batch_idx: module(batch[0]).square().mean()
    quiet(callbacks=[ActiveLearning(strategy, query_size=8)]).fit(module, datamodule=data)
    assert len(queries(tmp_path)[1]) == 8

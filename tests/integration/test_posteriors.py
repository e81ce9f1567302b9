"""MC dropout through queries and fits, tests of a mean prediction, and regression."""

import os
import random
from pathlib import Path

import lightning as L
import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import TensorDataset

from integration.small import CLASSES, FEATURES, Net, blobs, margin, pool, queries, quiet
from lightning_al import ActiveDataModule, ActiveLearning, Committee, MCDropout, fit_rounds, query
from lightning_al import acquisition as acq
from lightning_al.inference.posteriors import Draw
from lightning_al.randomness import derive_seed


class Dropping(Net):
    """Two dropouts, and BatchNorm that a scoring must leave alone."""

    def __init__(self, **options):
        super().__init__(batch_norm=True, dropout=0.5, **options)
        self.steps = 0

    def training_step(self, batch, batch_idx):
        self.steps += 1
        return super().training_step(batch, batch_idx)


def dropping(seed=0, **options):
    torch.manual_seed(seed)
    return Dropping(**options)


class Seen(acq.DenseAcquisition):
    """Remembers what it is given."""

    def __init__(self, *needs, posterior):
        super().__init__(posterior=posterior)
        self.needs = needs
        self._seen: list = []

    def places(self, outputs):
        self._seen.append({name: getattr(outputs, name) for name in self.needs})
        return torch.arange(len(self._seen[-1]["mc_probs"]), dtype=torch.float32)

    def everything(self):
        return {name: torch.cat([one[name] for one in self._seen]) for name in self.needs}


@pytest.mark.parametrize("consistent", [True, False])
def test_neither_the_pool_batch_size_nor_who_asked_before_changes_a_score(tmp_path, consistent):
    module, found = dropping(), []
    for number, size in enumerate((48, 7, 1, 7)):
        data = pool(tmp_path / str(number), pool_batch_size=size)
        strategy = Seen("probs", "expected_entropy", "mc_probs", posterior=MCDropout(6, consistent))
        torch.rand(number)
        query(module, data, strategy, 4, trainer=quiet())
        found.append(strategy.everything())
    for other in found[1:]:
        for name, value in other.items():
            torch.testing.assert_close(value, found[0][name], atol=1e-5, rtol=1e-4)
    assert all(torch.equal(found[1][name], found[3][name]) for name in found[1])


def test_other_rounds_and_seeds_draw_other_masks(tmp_path):
    module, passes = dropping(), []
    data = pool(tmp_path, pool_batch_size=48)
    for other in (data, pool(tmp_path / "b", seed=1, initial=range(12), pool_batch_size=48)):
        for _ in range(2):
            strategy = Seen("mc_probs", posterior=MCDropout(4))
            picked = query(module, other, strategy, 4, trainer=quiet(), commit=True)
            assert len(picked) == 4
            passes.append(dict(zip(range(100), strategy.everything()["mc_probs"], strict=False)))
    x = blobs().tensors[0]
    assert len(x) == 60
    firsts = [one[0] for one in passes]
    assert all(not torch.allclose(a, b) for n, a in enumerate(firsts) for b in firsts[:n])


def test_one_pass_and_many_may_be_needed_at_once(tmp_path):
    module, data = dropping(), pool(tmp_path, pool_batch_size=11)
    names = ("probs", "embeddings", "logits", "votes", "mc_probs")
    strategy = Seen(*names, posterior=MCDropout(8))
    query(module, data, strategy, 4, trainer=quiet())
    found = strategy.everything()
    module.eval()
    x = blobs().tensors[0][data.pool_indices]
    with torch.no_grad():
        torch.testing.assert_close(found["logits"], module(x))  # of the deterministic pass
        torch.testing.assert_close(found["embeddings"], module.net[:4](x))
    torch.testing.assert_close(found["probs"], found["mc_probs"].mean(1))  # of all passes
    assert found["mc_probs"].std(1).max() > 0.01
    assert torch.equal(found["votes"].sum(1), torch.full((48,), 8.0))


def test_batches_are_numbered_the_same_whatever_is_needed(tmp_path):
    class Numbered(Dropping):
        def active_step(self, batch, batch_idx):
            numbers.append(batch_idx)
            return self(batch[0])

    for needs in (("mc_probs",), ("mc_probs", "embeddings")):
        numbers: list = []
        data = pool(tmp_path / str(len(needs)), pool_batch_size=16)
        query(Numbered(), data, Seen(*needs, posterior=MCDropout(2)), 4, trainer=quiet())
        assert sorted(set(numbers)) == [0, 1, 2]


def test_modes_buffers_and_random_streams_are_left_alone(tmp_path):
    module, data = dropping(), pool(tmp_path)
    members = [dropping(1), dropping(2)]
    module.train()
    module.net[1].eval()
    before = {name: value.clone() for name, value in module.state_dict().items()}
    modes = [part.training for part in module.modules()]
    streams = (torch.get_rng_state(), np.random.get_state()[1].tolist(), random.getstate())  # noqa: NPY002
    query(module, data, acq.BALD(MCDropout(5)), 4, trainer=quiet())
    query(module, data, acq.BALD(Committee(models=members)), 4, trainer=quiet())
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())
    assert [part.training for part in module.modules()] == modes
    assert torch.equal(torch.get_rng_state(), streams[0])
    assert np.random.get_state()[1].tolist() == streams[1]  # noqa: NPY002
    assert random.getstate() == streams[2]
    assert not any("forward" in vars(part) for part in module.modules())


@pytest.mark.parametrize("consistent", [True, False])
def test_rounds_in_mixed_precision_ask_and_test(tmp_path, consistent):
    active = ActiveLearning(
        acq.BALD(MCDropout(4, consistent)), query_size=8, test_posterior=MCDropout(4, consistent)
    )
    data = pool(tmp_path, test_set=blobs(9, 1))
    history = fit_rounds(dropping, lambda r: quiet(precision="bf16-mixed"), data, active, rounds=2)
    assert {r: len(q) for r, q in queries(tmp_path).items()} == {1: 8, 2: 8}
    assert all(0 <= value <= 1 for value in history.column("test_acc"))


def test_weights_of_half_precision_score_without_a_warning(tmp_path):
    data = pool(tmp_path)
    found = query(dropping().bfloat16(), data, acq.BALD(MCDropout(8)), 4)
    assert len(found) == 4


class Tokens(L.LightningModule):
    """Dense outputs, with a mask for the tokens that there are."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.net = nn.Sequential(nn.Embedding(9, 8), nn.Dropout(0.4), nn.Linear(8, CLASSES))

    def forward(self, input_ids, attention_mask):
        return {"logits": self.net(input_ids)}

    def training_step(self, batch, batch_idx):
        logits = self(batch["input_ids"], batch["attention_mask"])["logits"]
        return nn.functional.cross_entropy(logits.flatten(0, 1), batch["labels"].flatten())

    def test_step(self, batch, batch_idx):
        logits = self(batch["input_ids"], attention_mask=batch["attention_mask"])["logits"]
        self.log("test_nll", nn.functional.cross_entropy(logits.flatten(0, 1), batch["labels"].flatten()))

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.1)


def sentences(size=40):
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(9, (size, 6), generator=generator)
    mask = (torch.arange(6) < torch.randint(1, 7, (size, 1), generator=generator)).long()
    return [
        {"input_ids": i, "attention_mask": m, "labels": i % CLASSES} for i, m in zip(ids, mask, strict=True)
    ]


@pytest.mark.parametrize("posterior", [MCDropout(6), Committee(models=[Tokens().net, Tokens().net])])
def test_padding_does_not_count_in_many_passes(tmp_path, posterior):
    rows = sentences()
    data = ActiveDataModule(rows, initial=8, batch_size=4, state_dir=tmp_path)
    if isinstance(posterior, Committee):
        posterior = Committee(models=[Tokens(), Tokens()])
        nn.init.normal_(posterior._members[1].net[2].weight)
    found = []
    for junk in (0, 5):  # what stands in the padding
        for row in rows:
            row["input_ids"] = torch.where(row["attention_mask"] == 1, row["input_ids"], junk)
        module = Tokens().eval()
        picked = query(module, data, acq.BALD(posterior), 40, trainer=quiet())
        found.append(dict(zip(picked.indices.tolist(), picked.scores.tolist(), strict=True)))
    assert found[0] == pytest.approx(found[1], abs=1e-6)
    assert max(found[0].values()) > 1e-3


def test_a_committee_is_tested_on_tokens(tmp_path):
    data = ActiveDataModule(
        sentences(), initial=8, batch_size=8, state_dir=tmp_path, test_set=sentences(8), target="labels"
    )
    active = ActiveLearning(acq.BALD(Committee(2)), query_size=8)
    history = fit_rounds(lambda seed: Tokens(), lambda r: quiet(), data, active, rounds=1)
    rows = sentences(8)
    ids, labels = (torch.stack([row[key] for row in rows]) for key in ("input_ids", "labels"))
    passes = []
    for number in range(2):
        member = Tokens().eval()
        saved = torch.load(tmp_path / "round_1" / f"member_{number}.pt", weights_only=True)
        member.load_state_dict(saved["state_dict"])
        passes.append(member(ids, None)["logits"].detach().softmax(-1))
    nll = nn.functional.nll_loss(torch.stack(passes).mean(0).log().flatten(0, 1), labels.flatten())
    assert history.column("test_nll")[1] == pytest.approx(float(nll), rel=1e-4)


@pytest.mark.parametrize("way", ["drop-in", "fit_rounds", "query"])
def test_a_model_without_dropout_is_refused_before_training(tmp_path, way):
    module, data = dropping(), pool(tmp_path)
    module.net[3].p = 0.0
    active = ActiveLearning(acq.BALD(), query_size=8)
    begin = {
        "drop-in": lambda: quiet(callbacks=[active]).fit(module, datamodule=data),
        "fit_rounds": lambda: fit_rounds(module, lambda r: quiet(), data, active, rounds=1),
        "query": lambda: query(module, data, acq.BALD(), 8, trainer=quiet()),
    }[way]
    with pytest.raises(ValueError, match=r"needs a model that drops something, but .*Add `nn.Dropout`"):
        begin()
    assert module.steps == 0
    assert len(data.labeled_indices) == 12


def test_nan_in_some_pass_names_the_samples(tmp_path):
    class Delicate(Dropping):
        """Not a number wherever a unit of one sample is dropped."""

        def forward(self, x):
            dropped = nn.functional.dropout(torch.ones(len(x), 4), 0.5, training=self.training)
            hurt = (x[:, :1] > 2.5) & (dropped == 0).any(1, keepdim=True)
            return torch.where(hurt, torch.nan, self.net(x))

    data = pool(tmp_path)
    bad = [int(i) for i in data.pool_indices if blobs().tensors[0][i, 0] > 2.5]
    module = Delicate().eval()
    with torch.no_grad():
        assert torch.isfinite(module(blobs().tensors[0])).all()  # without dropout there is none
    module.train()
    for consistent in (True, False):
        with pytest.raises(ValueError, match=rf"The logits of samples \[{bad[0]}\b.* NaN or infinite"):
            query(module, data, acq.BALD(MCDropout(12, consistent)), 4, trainer=quiet())


def test_the_drop_in_loop_asks_by_many_passes(tmp_path):
    module, data = dropping(), pool(tmp_path)
    trainer = quiet(callbacks=[ActiveLearning(acq.PowerSampling(acq.BALD(MCDropout(5))), query_size=8)])
    for _ in range(2):
        trainer.fit(module, datamodule=data)
    assert {r: len(q) for r, q in queries(tmp_path).items()} == {1: 8, 2: 8}


# ---------------------------------------------------------------------- tests of a mean prediction


class ByHand(Dropping):
    """Its test says enough to do it again by hand."""

    def test_step(self, batch, batch_idx):
        x, y = batch
        logits = self(x)
        self.log("test_acc", (logits.argmax(1) == y).float().mean())
        self.log("test_nll", nn.functional.cross_entropy(logits, y))


def test_a_test_of_mc_dropout_is_that_of_the_mean_probabilities(tmp_path):
    def make(seed):
        torch.manual_seed(seed)
        made.append(ByHand())
        return made[-1]

    made: list = []
    test_set = blobs(24, 1)
    data = pool(tmp_path, test_set=test_set, batch_size=24)
    active = margin(test_posterior=MCDropout(30))
    history = fit_rounds(make, lambda r: quiet(), data, active, rounds=1)
    x, y = test_set.tensors
    module = made[-1].eval()
    draw = Draw(derive_seed(0, "test", 1), torch.arange(24))
    with torch.inference_mode():
        probs = torch.cat(list(MCDropout(30).passes(lambda m, x: m(x), module, x, draw))).softmax(-1).mean(0)
    row = list(history)[1]
    assert row["test_nll"] == pytest.approx(float(nn.functional.nll_loss(probs.log(), y)), rel=1e-4)
    assert row["test_acc"] == pytest.approx(float((probs.argmax(1) == y).float().mean()))
    assert "forward" not in vars(module)
    with torch.no_grad():
        single = float(nn.functional.cross_entropy(module(x), y))
    assert row["test_nll"] != pytest.approx(single, rel=1e-4)


def test_the_test_does_not_change_the_queries(tmp_path):
    for name, posterior in (("a", None), ("b", MCDropout(3))):
        data = pool(tmp_path / name, test_set=blobs(9, 1))
        fit_rounds(dropping, lambda r: quiet(), data, margin(test_posterior=posterior), rounds=2)
    assert queries(tmp_path / "a") == queries(tmp_path / "b")


class Bypassing(ByHand):
    def test_step(self, batch, batch_idx):
        self.log("test_acc", (self.net(batch[0]).argmax(1) == batch[1]).float().mean())


class Breaking(ByHand):
    def test_step(self, batch, batch_idx):
        self(batch[0])
        raise ArithmeticError("the test cannot count")


@pytest.mark.parametrize(
    ("kind", "error", "words"),
    [
        (Bypassing, RuntimeError, r"`Bypassing.test_step` does not call it. Call `self\(x\)` there"),
        (Breaking, ArithmeticError, "the test cannot count"),
    ],
)
def test_forward_is_put_back_when_a_test_fails(tmp_path, kind, error, words):
    module = kind()
    data = pool(tmp_path, test_set=blobs(9, 1))
    with pytest.raises(error, match=words):
        fit_rounds(module, lambda r: quiet(), data, margin(test_posterior=MCDropout(3)), rounds=1)
    assert "forward" not in vars(module)


class Heads(L.LightningModule):
    """One module for outputs of other kinds."""

    def __init__(self, outputs, loss):
        super().__init__()
        torch.manual_seed(0)
        self.net = nn.Sequential(nn.Linear(FEATURES, 8), nn.ReLU(), nn.Dropout(0.5), nn.Linear(8, outputs))
        self.loss = loss

    def forward(self, x):
        return self.net(x)

    def training_step(self, batch, batch_idx):
        x, y = batch
        return self.loss(self(x), y if y.ndim > 1 else y[:, None])

    def test_step(self, batch, batch_idx):
        x, y = batch
        self.log("test_loss", self.loss(self(x), y if y.ndim > 1 else y[:, None]))

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.05)


def bce(output, y):
    return nn.functional.binary_cross_entropy_with_logits(output, y.float())


def mse(output, y):
    return nn.functional.mse_loss(output, y.float())


def targets(kind, size=60, seed=0):
    x, y = blobs(size, seed).tensors
    return TensorDataset(
        x,
        {
            "single": y % 2, "single float": (y % 2).float(), "labels": torch.eye(3)[y],
            "regression": x.sum(1) / 3, "counts": 10 * y + 3,
        }[kind],
    )  # fmt: skip


@pytest.mark.parametrize("posterior", ["dropout", "committee"])
@pytest.mark.parametrize("kind", ["single", "single float", "labels", "regression", "counts"])
def test_means_of_other_outputs_equal_those_by_hand(tmp_path, kind, posterior):
    loss = mse if kind in ("regression", "counts") else bce
    outputs = 3 if kind == "labels" else 1
    test_set = targets(kind, 24, 1)
    data = ActiveDataModule(
        targets(kind), initial=12, batch_size=24, state_dir=tmp_path, test_set=test_set, seed=0
    )
    how = MCDropout(9) if posterior == "dropout" else Committee(2)
    active = ActiveLearning(acq.Random(), query_size=8, test_posterior=how)
    made: list = []

    def make(seed):
        made.append(Heads(outputs, loss))
        nn.init.normal_(made[-1].net[3].weight, generator=torch.Generator().manual_seed(seed % 1000))
        return made[-1]

    history = fit_rounds(make, lambda r: quiet(max_epochs=1), data, active, rounds=1)
    x, y = test_set.tensors
    with torch.inference_mode():
        if posterior == "dropout":
            draw = Draw(derive_seed(0, "test", 1), torch.arange(24))
            passes = torch.cat(list(how.passes(lambda m, x: m(x), made[-1].eval(), x, draw)))
        else:
            passes = torch.stack([member.eval()(x) for member in made[-2:]])
    y = y if y.ndim > 1 else y[:, None]
    if loss is mse:
        expected = nn.functional.mse_loss(passes.mean(0), y.float())
    else:
        expected = nn.functional.binary_cross_entropy(passes.sigmoid().mean(0), y.float())
    assert history.column("test_loss")[1] == pytest.approx(float(expected), rel=1e-3)


# ---------------------------------------------------------------------- regression on real data


class Regressor(L.LightningModule):
    def __init__(self, features):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(features, 32), nn.ReLU(), nn.Dropout(0.1), nn.Linear(32, 1))

    def forward(self, x):
        return self.net(x)[:, 0]

    def training_step(self, batch, batch_idx):
        return nn.functional.mse_loss(self(batch[0]), batch[1])

    def test_step(self, batch, batch_idx):
        self.log("test_mse", nn.functional.mse_loss(self(batch[0]), batch[1]))

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), 0.01)


def energy():
    root = os.environ.get("LIGHTNING_AL_DATA")
    path = Path(root or "", "regression", "regression.npz")
    if root is None or not path.exists():
        pytest.skip("regression/regression.npz is not in the folder LIGHTNING_AL_DATA")
    with np.load(path) as file:
        x, y, test = file["energy_x"], file["energy_y"], file["energy_test_mask"][:, 0]
    x, y = (torch.tensor((v - v[~test].mean(0)) / v[~test].std(0)).float() for v in (x, y))
    test = torch.tensor(test)
    return TensorDataset(x[~test], y[~test]), TensorDataset(x[test], y[test])


@pytest.mark.parametrize("posterior", [MCDropout(10), Committee(3)], ids=repr)
def test_variance_of_predictions_learns_a_real_regression(tmp_path, posterior):
    train, test = energy()
    data = ActiveDataModule(
        train, test_set=test, initial=20, batch_size=32, steps_per_epoch=8, state_dir=tmp_path
    )
    active = ActiveLearning(acq.PredictiveVariance(posterior), query_size=20, test_posterior=posterior)

    def make(seed):
        torch.manual_seed(seed)
        return Regressor(8)

    history = fit_rounds(make, lambda r: quiet(max_epochs=8), data, active, rounds=2)
    errors = history.column("test_mse")
    assert history.column("labeled") == [20, 40, 60]
    assert errors[-1] < errors[0]
    assert errors[-1] < 0.6  # the mean alone has 1
    scores = [event.score for _, event in data.ledger.events() if event.kind == "asked"]
    assert min(scores) > 0

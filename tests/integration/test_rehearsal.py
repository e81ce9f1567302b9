"""What cannot be scored is said before the training, and trying it changes nothing."""

import pytest
import torch
from lightning.pytorch.callbacks import TQDMProgressBar
from torch import nn

from integration.small import CLASSES, FEATURES, Net, blobs, margin, pool, queries, quiet, weights
from lightning_al import ActiveDataModule, ActiveLearning, fit_rounds
from lightning_al import acquisition as acq


class Counting(Net):
    """How many steps were made, and what was scored before and after them."""

    def __init__(self, **options):
        super().__init__(**options)
        self.steps, self.rehearsed, self.scored = 0, [], []

    def training_step(self, batch, batch_idx):
        self.steps += 1
        return super().training_step(batch, batch_idx)

    def active_step(self, batch, batch_idx):
        (self.scored if self.trainer.global_step else self.rehearsed).append(len(batch[0]))
        return self(batch[0])


class TwoInputs(Counting):
    active_step = None

    def forward(self, x, length):
        return self.net(x)


class NoForward(Counting):
    active_step = None
    forward = nn.Module.forward


class NoLinear(Counting):
    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(
            nn.Unflatten(1, (FEATURES, 1)), nn.Conv1d(FEATURES, CLASSES, 1), nn.Flatten()
        )


class Pooled(acq.ScoreAcquisition):
    needs = ("logits",)

    def score(self, outputs):
        return outputs.logits


class Broken(Counting):
    def active_step(self, batch, batch_idx):
        return torch.ones(3) + "of the module's own"


CANNOT = {
    "signature": (TwoInputs, acq.Margin(), TypeError, "missing 1 required positional argument: 'length'"),
    "no forward": (NoForward, acq.Margin(), NotImplementedError, "forward"),
    "no linear": (NoLinear, acq.HyperplaneDistance(), ValueError, "No `nn.Linear` of the module made its"),
    "rank": (Counting, Pooled(), ValueError, r"`Pooled.score` returned \(8, 3\); needed is one number"),
    "own code": (Broken, acq.Margin(), TypeError, "unsupported operand"),
}
WAYS = pytest.mark.parametrize("way", ["drop-in", "fit_rounds"])


def run(way, module, data, active, **options):
    if way == "fit_rounds":
        return fit_rounds(module, lambda r: quiet(**options), data, active, rounds=1)
    return quiet(callbacks=[active], **options).fit(module, datamodule=data)


@WAYS
@pytest.mark.parametrize("what", CANNOT)
def test_what_cannot_be_scored_is_said_before_the_first_step(tmp_path, what, way):
    kind, strategy, error, words = CANNOT[what]
    module = kind()
    with pytest.raises(error, match=words) as caught:
        run(way, module, pool(tmp_path), ActiveLearning(strategy, query_size=8))
    assert module.steps == 0
    assert queries(tmp_path) == {}
    notes = "".join(getattr(caught.value, "__notes__", []))
    advised = what in ("signature", "no forward")
    assert ("def active_step(self, batch, batch_idx)" in notes) == advised
    assert ("was called with a pool batch, [Tensor(8, 4)" in notes) == advised


def test_it_is_one_batch_without_a_bar_and_leaves_the_training_as_it_was(tmp_path, monkeypatch, capsys):
    trained = []
    for rehearsed in (True, False):
        if not rehearsed:
            monkeypatch.setattr("lightning_al.callbacks.active_learning.rehearse", lambda *a, **k: None)
        torch.manual_seed(0)
        module = Counting(batch_norm=True, dropout=0.5)
        bar = TQDMProgressBar() if rehearsed else None
        callbacks = [margin(), *([bar] if bar else [])]
        trainer = quiet(callbacks=callbacks, enable_progress_bar=rehearsed)
        data = pool(tmp_path / str(rehearsed))
        trainer.fit(module, datamodule=data)
        assert module.rehearsed == ([8] if rehearsed else [])
        assert sum(module.scored) == 48
        said = capsys.readouterr().out
        assert said.count("Scoring pool:   0%") == rehearsed
        trained.append((weights(module), torch.get_rng_state(), data.labeled_indices.tolist()))
    (a, rng_a, asked_a), (b, rng_b, asked_b) = trained
    assert torch.equal(a, b)
    assert torch.equal(rng_a, rng_b)
    assert asked_a == asked_b


class Exploding(Counting):
    """Large numbers until it is trained, as of a deep network whose BatchNorm has seen nothing yet."""

    def active_step(self, batch, batch_idx):
        logits = super().active_step(batch, batch_idx)
        return logits if self.trainer.global_step else logits * torch.inf


def test_what_is_not_finite_before_training_may_be_after(tmp_path):
    module = Exploding()
    run("drop-in", module, pool(tmp_path), margin())
    assert module.rehearsed == [8]
    assert len(queries(tmp_path)[1]) == 8


def test_nothing_is_rehearsed_that_is_not_asked(tmp_path):
    module = Counting()
    run("drop-in", module, pool(tmp_path / "budget"), margin(budget=12))
    run("drop-in", module, pool(tmp_path / "pool", initial=60), margin())
    run("drop-in", module, pool(tmp_path / "needs"), ActiveLearning(acq.Random(), query_size=8))
    assert module.steps
    assert module.rehearsed == []
    fit_rounds(module, lambda r: quiet(), pool(tmp_path / "rounds"), margin(), rounds=1)
    assert module.rehearsed == [8]  # two fits, and the last one asks nothing


class Late(Counting):
    """Made complete by its own hook at the start of the fit."""

    def on_fit_start(self):
        self.scale = 2.0

    def forward(self, x):
        return super().forward(x) * self.scale


def test_a_module_that_gets_ready_at_the_start_of_a_fit(tmp_path):
    module = Late()
    run("drop-in", module, pool(tmp_path), margin())
    assert module.rehearsed == [8]


def test_with_workers_and_without_targets(tmp_path):
    data = ActiveDataModule(blobs(), initial=12, batch_size=4, state_dir=tmp_path, num_workers=1)
    module = Counting()
    run("drop-in", module, data, margin(), max_epochs=1)
    assert module.rehearsed == [8]


class Row(Net):
    """A forward that takes the whole batch."""

    def __init__(self, key):
        super().__init__()
        self.key = key

    def forward(self, batch):
        return self.net(batch[self.key])

    def training_step(self, batch, batch_idx):
        target = batch["label"] if isinstance(batch, dict) else batch[1]
        return torch.nn.functional.cross_entropy(self(batch), target)


def test_a_forward_that_takes_the_batch_is_told_of_active_step_before_the_first_step(tmp_path):
    x, y = blobs().tensors
    rows = [{"image": a, "label": int(b)} for a, b in zip(x, y, strict=True)]
    data = ActiveDataModule(rows, initial=12, batch_size=4, state_dir=tmp_path / "rows")
    trainer = quiet(callbacks=[margin()])
    with pytest.raises(Exception, match="indices") as raised:
        trainer.fit(Row("image"), datamodule=data)
    assert "active_step" in "".join(raised.value.__notes__)
    assert trainer.global_step == 0


def test_logits_of_other_samples_than_were_given_are_refused(tmp_path):
    trainer = quiet(callbacks=[margin()])
    with pytest.raises(ValueError, match=r"(?s)logits for \d+ samples of a pool batch of 8.*active_step"):
        trainer.fit(Row(slice(0, 2)), datamodule=pool(tmp_path))


class Nothing(acq.ScoreAcquisition):
    def score(self, outputs):
        return outputs.logits[:, 0]


@pytest.mark.parametrize(
    ("needs", "message"),
    [((), "is empty.*Name what"), (None, "needed is a tuple"), ("logits", "needed is a tuple")],
)
def test_needs_that_are_none_are_refused_when_the_callback_is_made(needs, message):
    strategy = Nothing()
    strategy.needs = needs
    with pytest.raises(ValueError, match=message):
        ActiveLearning(strategy, query_size=3)

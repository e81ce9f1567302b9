"""What a round's training begins with, and which weights are scored."""

import lightning.pytorch.callbacks as callbacks
import pytest
import torch
from lightning.pytorch.callbacks import LambdaCallback, ModelCheckpoint, StochasticWeightAveraging
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch import nn

from integration.small import Net, blobs, margin, pool, queries, quiet, weights
from lightning_al import fit_rounds

pytestmark = pytest.mark.filterwarnings("ignore:Checkpoint directory .* exists:UserWarning")

AVERAGING = [lambda: StochasticWeightAveraging(swa_lrs=0.01, swa_epoch_start=1)]
if hasattr(callbacks, "EMAWeightAveraging"):  # Lightning 2.6
    AVERAGING.append(lambda: callbacks.EMAWeightAveraging(decay=0.5))


class Watched(Net):
    """Keeps its weights at the begin of training, at its last step, and when it is scored."""

    def __init__(self, **options):
        super().__init__(**options)
        self.begun, self.ended, self.scored = [], [], []

    def on_train_start(self):
        self.begun.append(weights(self))
        self.ended.append(None)

    def on_train_batch_end(self, outputs, batch, batch_idx):
        self.ended[-1] = weights(self)

    def active_step(self, batch, batch_idx):
        if len(self.scored) < len(self.begun):
            self.scored.append(weights(self))
        return self(batch[0])


def looped(way, module, data, active, rounds=3):
    """Three rounds in either way of looping."""
    if way == "fit_rounds":
        fit_rounds(module, lambda r: quiet(), data, active, rounds=rounds - 1)
    else:
        trainer = quiet(callbacks=[active])
        for _ in range(rounds):
            trainer.fit(module, datamodule=data)


WAYS = pytest.mark.parametrize("way", ["drop-in", "fit_rounds"])


@WAYS
def test_initial_begins_every_round_with_the_same_bits(tmp_path, way):
    module = Watched(batch_norm=True)
    first = weights(module)
    looped(way, module, pool(tmp_path), margin())
    assert all(torch.equal(begun, first) for begun in module.begun)
    assert len(module.begun) == 3
    assert not torch.equal(module.ended[0], first)


@WAYS
def test_redraw_begins_every_round_anew_and_again_the_same_with_the_same_seed(tmp_path, way):
    first = Watched()
    second = Watched()
    second.load_state_dict(first.state_dict())
    for name, module in (("a", first), ("b", second)):
        looped(way, module, pool(tmp_path / name), margin(restart="redraw"))
    a, b, c = first.begun
    assert not torch.equal(a, b)
    assert not torch.equal(b, c)
    assert not torch.equal(a, c)
    assert all(torch.equal(x, y) for x, y in zip(first.begun, second.begun, strict=True))


def test_redraw_of_a_factory_is_the_factorys(tmp_path):
    made = {}

    def make(seed):
        torch.manual_seed(seed)
        made[seed] = module = Watched()
        module.made_as = weights(module)
        return module

    fit_rounds(make, lambda r: quiet(), pool(tmp_path), margin(restart="redraw"), rounds=2)
    assert len(made) == 3
    for module in made.values():
        assert torch.equal(module.begun[0], module.made_as)


def test_a_factory_without_redraw_begins_every_round_with_the_same_bits(tmp_path):
    made = []

    def make(seed):
        made.append((seed, Watched()))  # not seeded: the stored weights must win
        return made[-1][1]

    fit_rounds(make, lambda r: quiet(), pool(tmp_path), margin(), rounds=2)
    assert len({seed for seed, _ in made}) == 1
    assert len({tuple(module.begun[0].tolist()) for _, module in made}) == 1


@WAYS
def test_warm_goes_on_with_the_last_rounds_weights(tmp_path, way):
    module = Watched()
    looped(way, module, pool(tmp_path), margin(restart="warm"))
    assert torch.equal(module.begun[1], module.ended[0])
    assert torch.equal(module.begun[2], module.ended[1])


@WAYS
def test_shrink_perturb_goes_on_with_smaller_weights(tmp_path, way):
    module = Watched()
    looped(way, module, pool(tmp_path), margin(restart="shrink_perturb"))
    for before, after in zip(module.ended[:2], module.begun[1:], strict=True):
        assert not torch.equal(after, 0.6 * before)
        assert float((after - 0.6 * before).abs().max()) < 0.02


def test_redraw_of_a_parameter_without_a_reset_is_an_error_before_training(tmp_path):
    class Bare(Watched):
        def __init__(self):
            super().__init__()
            self.scale = nn.Parameter(torch.ones(1))

        def forward(self, x):
            return self.scale * super().forward(x)

    module = Bare()
    with pytest.raises(ValueError, match=r"`restart=\"redraw\"` cannot draw \['scale'\] anew"):
        looped("drop-in", module, pool(tmp_path), margin(restart="redraw"))
    assert module.begun == []  # not even of the first round


def best_of(trainer):
    return torch.load(trainer.checkpoint_callback.best_model_path, weights_only=False)["state_dict"]


class BestIsFirst(Watched):
    """Its metric is best after the first of its epochs."""

    def on_train_epoch_end(self):
        self.log("worse", float(self.trainer.current_epoch))


@WAYS
def test_best_scores_the_best_checkpoint_and_puts_the_last_weights_back(tmp_path, way):
    module, data = BestIsFirst(), pool(tmp_path / "state")
    active, trainers, after = margin(score_with="best"), [], []

    def make(number=0):
        note = LambdaCallback(on_fit_end=lambda t, m: after.append(weights(m)))
        checkpoint = ModelCheckpoint(monitor="worse")
        trainers.append(quiet(max_epochs=3, enable_checkpointing=True, callbacks=[checkpoint, note]))
        return trainers[-1]

    if way == "fit_rounds":
        fit_rounds(module, make, data, active, rounds=1)
    else:
        trainer = make()
        trainer.callbacks.append(active)
        for _ in range(2):
            trainer.fit(module, datamodule=data)
    best = torch.cat([v.flatten() for v in best_of(trainers[-1]).values()])
    if way == "drop-in":
        assert torch.equal(module.scored[-1], best)
    assert not torch.equal(module.scored[0], module.ended[0])
    assert all(torch.equal(x, y) for x, y in zip(after, module.ended, strict=True))


def test_best_tests_the_best_checkpoint_too(tmp_path):
    seen = []

    class Seen(BestIsFirst):
        def on_test_start(self):
            seen.append(weights(self))

    trainers = []

    def make(number):
        checkpoint = ModelCheckpoint(monitor="worse")
        trainers.append(quiet(max_epochs=3, enable_checkpointing=True, callbacks=[checkpoint]))
        return trainers[-1]

    data = pool(tmp_path, test_set=blobs(12, 1))
    module = Seen()
    fit_rounds(module, make, data, margin(score_with="best"), rounds=1)
    assert torch.equal(seen[0], module.scored[0])
    assert not torch.equal(seen[0], module.ended[0])


@pytest.mark.parametrize("average", AVERAGING)
def test_averaged_weights_are_what_is_scored_in_every_round(tmp_path, average):
    module, made, names = Watched(), [], []

    def make(number):
        made.append(average())
        note = LambdaCallback(on_fit_start=lambda t, m: names.append([type(c).__name__ for c in t.callbacks]))
        return quiet(max_epochs=4, callbacks=[made[-1], note])

    fit_rounds(module, make, pool(tmp_path), margin(), rounds=2)
    assert len(module.scored) == 2
    for number, scored in enumerate(module.scored):
        inner = made[number]._average_model
        assert inner is not None
        assert torch.equal(scored, weights(inner))
        assert not torch.equal(scored, module.ended[number])
    assert all(n[-1] == "ActiveLearning" for n in names)


@pytest.mark.parametrize("average", AVERAGING)
def test_averaged_weights_on_one_trainer_are_refused_before_training(tmp_path, average):
    module = Watched()
    with pytest.raises(MisconfigurationException, match="Use `fit_rounds"):
        quiet(callbacks=[average(), margin()]).fit(module, datamodule=pool(tmp_path))
    assert module.begun == []
    assert queries(tmp_path) == {}


class Silent(Net):
    """Without `self.log`, which torch cannot trace."""

    def training_step(self, batch, batch_idx):
        return nn.functional.cross_entropy(self(batch[0]), batch[1])


def test_rounds_of_a_compiled_module(tmp_path):
    module = torch.compile(Silent(), backend="eager")
    history = fit_rounds(module, lambda r: quiet(), pool(tmp_path), margin(), rounds=1)
    assert history.column("labeled") == [12, 20]
